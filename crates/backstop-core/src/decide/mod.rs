//! What happens next: a saga, the time and one input make events.
//!
//! Split by what comes in: answers of calls ([`answer`]), and everything else here. Each function ends in
//! [`Turn::conclude`], which adds what follows of itself: the end, or an intervention.

mod answer;
mod operator;

pub use answer::CLOCK_LEAP_MAX;

use crate::agenda::{agenda, concerned};
use crate::apply;
use crate::event::{Event, EventKind, Started};
use crate::failure::{MESSAGE_BYTES_MAX, Pushback, bounded_text};
use crate::graph::Definition;
use crate::ids::{Clock, CoordinatorId, Epoch, ParticipantName, Phase, SagaId, Seq, StepName};
use crate::order::{is_forward_done, is_undone};
use crate::saga::{Cause, CauseKind, Resolution, Saga, SagaState};
use crate::status::Evidence;
use crate::time::Timestamp;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How near to its time a retry counts as possibly sent by a coordinator that is gone.
const TIMER_MARGIN: Duration = Duration::from_secs(1);

/// One thing that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every input is an answer, and none is stored")]
pub enum Input {
    /// A call has ended.
    Answer(Answer),
    /// The saga's own timer.
    Wake,
    /// A listener has been told, or could not be.
    SignalReport {
        /// Whom.
        participant: ParticipantName,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong last, if it was not delivered.
        error: Option<String>,
    },
    /// Somebody wants the saga undone.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator wants a branch tried again.
    RetryBranch {
        /// The step.
        step: StepName,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator settles a branch by hand.
    ResolveBranch {
        /// The step.
        step: StepName,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// What is true of it.
        resolution: Resolution,
    },
    /// A coordinator takes the saga over.
    Adopt {
        /// Who.
        coordinator: CoordinatorId,
        /// True if the one before it let go of the saga in order, with nothing in flight.
        handed_over: bool,
    },
    /// The saga's coordinator lets go of it; the engine sees to it that no call is in flight.
    Release,
}

/// How one call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Index of the step.
    pub step: usize,
    /// Which of its calls.
    pub phase: Phase,
    /// Which attempt.
    pub attempt: u32,
    /// The clock that the call bore.
    pub sent_clock: Clock,
    /// The clock that the participant answered with, if it did.
    pub peer_clock: Option<Clock>,
    /// From dispatch to answer.
    pub elapsed: Duration,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The participant said OK, with this message.
    Done(Bytes),
    /// Anything else.
    Failed {
        /// Who says so.
        evidence: Evidence,
        /// What was said; any length.
        message: String,
        /// Typed details; any size.
        details: crate::failure::Details,
        /// What the participant said about trying again.
        pushback: Option<Pushback>,
    },
}

/// Why an input is refused. The saga is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing can be done about an ended saga.
    #[error("the saga has ended")]
    Ended,
    /// The pivot has taken effect.
    #[error("the pivot has succeeded: from there the saga only goes forward")]
    PastPivot,
    /// The pivot may have taken effect; what it answers decides.
    #[error("the pivot has been called: its answer decides whether there is a way back")]
    PivotOpen,
    /// No such step.
    #[error("the saga has no such step")]
    NoSuchStep,
    /// The machine is not done with the branch.
    #[error("the branch does not wait for a person")]
    NotWaiting,
    /// The resolution says nothing that can be true of the branch.
    #[error("a compensation is settled by UNDONE, a forward step by TOOK_EFFECT or, for a pivot, NO_EFFECT")]
    WrongResolution,
}

/// What a saga is started with, besides its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Who accepts it.
    pub coordinator: CoordinatorId,
    /// The client's input: a JSON object.
    pub input: Bytes,
    /// Raw requests of actions.
    pub payloads: BTreeMap<StepName, Bytes>,
    /// The client's labels.
    pub labels: BTreeMap<String, String>,
    /// W3C `traceparent` of the saga's own span.
    pub trace_parent: Option<String>,
}

/// The first event of a saga.
#[must_use]
pub fn start(definition: &Definition, now: Timestamp, start: Start) -> Event {
    Event {
        seq: Seq(1),
        clock: Clock(1),
        at: now,
        kind: EventKind::Started(Box::new(Started {
            definition: definition.reference.clone(),
            coordinator: start.coordinator,
            input: start.input,
            payloads: start.payloads,
            labels: start.labels,
            deadline: definition.deadline.map(|limit| now.plus(limit)),
            trace_parent: start.trace_parent,
        })),
    }
}

/// Makes the events that one input leads to. An input that comes too late to matter leads to none.
///
/// # Errors
/// [`Refused`], for what a person asked and cannot have.
pub fn decide(saga: &Saga, now: Timestamp, input: Input) -> Result<Vec<Event>, Refused> {
    let mut turn = Turn::new(saga, now);
    match input {
        Input::Answer(answer) => turn.answer(answer),
        Input::Wake => turn.wake(),
        Input::SignalReport { participant, attempts, error } => {
            turn.signal_report(participant, attempts, error);
        }
        Input::Cancel { by, reason } => turn.cancel(by, reason)?,
        Input::RetryBranch { step, by, reason } => turn.retry_branch(step, by, reason)?,
        Input::ResolveBranch { step, by, reason, resolution } => {
            turn.resolve_branch(step, by, reason, resolution)?;
        }
        Input::Adopt { coordinator, handed_over } => turn.adopt(coordinator, handed_over),
        Input::Release => turn.release(),
    }
    turn.conclude();
    Ok(turn.events)
}

/// True if the events between two states of a saga may wait for the next write: nothing outside
/// changes by them, so nobody waits for them.
#[must_use]
pub fn can_ride_along(before: &Saga, after: &Saga, now: Timestamp) -> bool {
    if before.state != after.state || before.cause.is_some() != after.cause.is_some() {
        return false;
    }
    let (was, is) = (agenda(before, now), agenda(after, now));
    let knows = |call: &crate::agenda::Call| was.calls.iter().any(|c| c.identity() == call.identity());
    is.calls.iter().all(knows)
        && is.signals.iter().all(|s| was.signals.iter().any(|w| w.participant == s.participant))
        && is.wake_at == was.wake_at
}

/// A turn in the making: the events so far, and the saga as it will be after them.
struct Turn {
    saga: Saga,
    now: Timestamp,
    /// The next event's clock is above this one too: what a participant answered.
    heard: Clock,
    /// Forward paths that end do not decide about the saga yet.
    is_taking_stock: bool,
    events: Vec<Event>,
}

impl Turn {
    fn new(saga: &Saga, now: Timestamp) -> Self {
        Self { saga: saga.clone(), now, heard: Clock(0), is_taking_stock: false, events: Vec::new() }
    }

    fn emit(&mut self, kind: EventKind) {
        let event = Event {
            seq: self.saga.seq.next(),
            clock: Clock(self.saga.clock.max(self.heard).0 + 1),
            at: self.now,
            kind,
        };
        let applied = apply::apply(&mut self.saga, &event);
        // An event that its own saga refuses is a fault of these rules; it must not reach a journal.
        debug_assert_eq!(applied, Ok(()), "{:?}", event.kind);
        if applied.is_ok() {
            self.events.push(event);
        }
    }

    /// Adds the end of the saga, or the intervention, if that is where it stands now.
    fn conclude(&mut self) {
        let nothing_happened = self.events.is_empty();
        let branches = 0..self.saga.branches.len();
        match self.saga.state {
            _ if nothing_happened => {}
            SagaState::Running if self.saga.branches.iter().all(is_forward_done) => {
                self.emit(EventKind::Succeeded);
            }
            SagaState::RollingBack if branches.clone().all(|i| is_undone(&self.saga, i)) => {
                self.emit(EventKind::RolledBack);
            }
            SagaState::Running | SagaState::RollingBack
                if !self.saga.is_busy()
                    && !self.saga.is_signalling()
                    && branches.clone().any(|i| self.saga.needs_person(i)) =>
            {
                self.emit(EventKind::InterventionOpened);
            }
            SagaState::Running
            | SagaState::RollingBack
            | SagaState::NeedsIntervention
            | SagaState::Succeeded
            | SagaState::RolledBack => {}
        }
    }

    fn roll_back(&mut self, cause: Cause) {
        let mut signals: Vec<ParticipantName> = Vec::new();
        for step in self.saga.definition.steps.iter().filter(|step| step.listens) {
            let name = &step.action.participant;
            if !signals.contains(name) && !concerned(&self.saga, name).is_empty() {
                signals.push(name.clone());
            }
        }
        self.emit(EventKind::RollbackDecided { cause: Box::new(cause), signals });
    }

    /// Rolls back because this branch has failed for good.
    fn roll_back_for(&mut self, index: usize) {
        let kind = CauseKind::BranchFailed(self.saga.definition.steps[index].name.clone());
        let failure = self.saga.branches[index].failure.as_deref().cloned();
        self.roll_back(Cause { kind, failure });
    }

    fn wake(&mut self) {
        let late = self.saga.started.deadline.is_some_and(|deadline| deadline <= self.now);
        let can_turn_back = !self.saga.is_past_pivot() && !self.saga.is_pivot_open(self.now);
        if late && can_turn_back && self.saga.state == SagaState::Running {
            self.roll_back(Cause { kind: CauseKind::DeadlinePassed, failure: None });
        }
    }

    fn signal_report(&mut self, participant: ParticipantName, attempts: u32, error: Option<String>) {
        use crate::saga::SignalState::Pending;
        if self.saga.signals.iter().any(|(name, state)| *name == participant && *state == Pending) {
            // The listener's own words are in it.
            let error = error.map(|error| bounded_text(&error, MESSAGE_BYTES_MAX));
            self.emit(EventKind::SignalReported { participant, attempts, error });
        }
    }

    fn cancel(&mut self, by: String, reason: String) -> Result<(), Refused> {
        if self.saga.state.is_final() {
            return Err(Refused::Ended);
        }
        if self.saga.cause.is_some() {
            return Ok(());
        }
        if self.saga.is_past_pivot() {
            return Err(Refused::PastPivot);
        }
        if self.saga.is_pivot_open(self.now) {
            return Err(Refused::PivotOpen);
        }
        self.roll_back(Cause { kind: CauseKind::Cancelled { by, reason }, failure: None });
        Ok(())
    }

    /// Takes the saga over. What the one before may have sent has lost its answer: it counts as sent.
    fn adopt(&mut self, coordinator: CoordinatorId, handed_over: bool) {
        let clock_went_back = self.now < self.saga.updated_at;
        let epoch = Epoch(self.saga.epoch.0 + 1);
        self.emit(EventKind::Adopted { epoch, coordinator });
        if handed_over || self.saga.state.is_final() {
            return;
        }
        // If the clock has gone back since, the one before may have been ahead by any time: nothing tells which of
        // its timers had come.
        let horizon = if clock_went_back { Timestamp(i64::MAX) } else { self.now.plus(TIMER_MARGIN) };
        let picture = agenda(&self.saga, horizon);
        // All of them before any of them decides: a rollback takes what is not due yet for not sent, and
        // that is not sure of what lies within the margin.
        self.is_taking_stock = true;
        for call in picture.calls.into_iter().chain(picture.awaited) {
            self.lost(call.step, call.phase, call.attempt);
        }
        self.is_taking_stock = false;
        for index in 0..self.saga.branches.len() {
            self.after_forward_end(index);
        }
    }

    fn release(&mut self) {
        if !self.saga.state.is_final() {
            self.emit(EventKind::Released);
        }
    }

    fn definition(&self) -> Arc<Definition> {
        Arc::clone(&self.saga.definition)
    }

    fn id(&self) -> &SagaId {
        &self.saga.id
    }
}
