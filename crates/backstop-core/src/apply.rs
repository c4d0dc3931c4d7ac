//! The only way a saga changes: one event at a time, live and in recovery alike. It depends on the journal and the
//! revision, and on nothing that is registered or configured today.
//!
//! An event that does not fit is [`Corrupt`], never ignored and never guessed at: the engine then
//! quarantines that one saga.

use crate::definition::{OnFailure, StepKind};
use crate::event::{Event, EventKind, Next, Started};
use crate::failure::Failure;
use crate::graph::Definition;
use crate::ids::{Clock, Epoch, ParticipantName, SagaId, Seq, StepName};
use crate::order::{advance, is_forward_done, is_undone};
use crate::saga::{Branch, BranchState, Cause, Progress, Saga, SagaState, SignalState};
use crate::status::{Effect, Evidence, NoAnswer};
use crate::tier::Tier;
use crate::time::Timestamp;
use std::sync::Arc;

/// An event that cannot follow what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {} does not fit: {reason}", seq.0)]
pub struct Corrupt {
    /// The event.
    pub seq: Seq,
    /// Why it does not fit.
    pub reason: String,
}

/// Makes the saga that a whole journal tells of.
///
/// # Errors
/// [`Corrupt`] at the first event that does not fit.
pub fn replay(id: SagaId, definition: Arc<Definition>, events: &[Event]) -> Result<Saga, Corrupt> {
    let (first, rest) = events
        .split_first()
        .ok_or_else(|| Corrupt { seq: Seq(1), reason: "the journal is empty".to_owned() })?;
    let mut saga = begin(id, definition, first)?;
    for event in rest {
        apply(&mut saga, event)?;
    }
    Ok(saga)
}

/// Makes a saga of its first event.
///
/// # Errors
/// [`Corrupt`] if that is no `Started`, or of another definition.
pub fn begin(id: SagaId, definition: Arc<Definition>, first: &Event) -> Result<Saga, Corrupt> {
    let corrupt = |reason: &str| Corrupt { seq: first.seq, reason: reason.to_owned() };
    let EventKind::Started(started) = &first.kind else {
        return Err(corrupt("a journal begins with Started"));
    };
    if first.seq != Seq(1) {
        return Err(corrupt("a journal begins with event 1"));
    }
    if started.definition != definition.reference {
        return Err(corrupt("it was started with another definition than the one at hand"));
    }
    let mut saga = Saga {
        id,
        branches: vec![Branch::default(); definition.steps.len()],
        definition,
        started: Arc::new(Started::clone(started)),
        started_at: first.at,
        seq: first.seq,
        clock: first.clock,
        updated_at: first.at,
        ended_at: None,
        epoch: Epoch(1),
        state: SagaState::Running,
        cause: None,
        signals: Vec::new(),
        parked: 0,
    };
    advance(&mut saga);
    Ok(saga)
}

/// Changes the saga by one event.
///
/// # Errors
/// [`Corrupt`] if the event cannot follow; the saga must then be given up, since it may be half changed.
pub fn apply(saga: &mut Saga, event: &Event) -> Result<(), Corrupt> {
    let change = Change { at: event.at, clock: event.clock };
    let corrupt = |reason: String| Corrupt { seq: event.seq, reason };
    if event.seq != saga.seq.next() {
        return Err(corrupt(format!("after event {} comes another", saga.seq.0)));
    }
    if event.clock <= saga.clock {
        return Err(corrupt("its clock does not grow".to_owned()));
    }
    let is_report = matches!(event.kind, EventKind::SignalReported { .. } | EventKind::Adopted { .. });
    if saga.state.is_final() && !is_report {
        return Err(corrupt("the saga has ended".to_owned()));
    }
    change.apply(saga, &event.kind).map_err(corrupt)?;
    saga.parked = match event.kind {
        EventKind::Released => saga.parked.saturating_add(1),
        EventKind::Adopted { .. }
        | EventKind::ActionFailed { .. }
        | EventKind::QueryFailed { .. }
        | EventKind::CompensationFailed { .. } => saga.parked,
        EventKind::Started(_)
        | EventKind::ActionSucceeded { .. }
        | EventKind::QueryAnswered { .. }
        | EventKind::RollbackDecided { .. }
        | EventKind::CompensationSucceeded { .. }
        | EventKind::SignalReported { .. }
        | EventKind::InterventionOpened
        | EventKind::BranchRetried { .. }
        | EventKind::BranchResolved { .. }
        | EventKind::Succeeded
        | EventKind::RolledBack => 0,
    };
    saga.seq = event.seq;
    saga.clock = event.clock;
    saga.updated_at = event.at;
    advance(saga);
    Ok(())
}

struct Change {
    at: Timestamp,
    clock: Clock,
}

impl Change {
    fn apply(&self, saga: &mut Saga, kind: &EventKind) -> Result<(), String> {
        match kind {
            EventKind::Started(_) => Err("a saga starts once".to_owned()),
            EventKind::Adopted { epoch, coordinator: _ } => {
                require(*epoch > saga.epoch, "an epoch grows")?;
                saga.epoch = *epoch;
                Ok(())
            }
            EventKind::Released => Ok(()),
            EventKind::ActionSucceeded { step, attempt, elapsed: _, response } => {
                let branch = running(saga, step, false)?;
                ended(&mut branch.action, *attempt)?;
                branch.state = BranchState::Succeeded;
                branch.doubt = false;
                branch.response = Some(response.clone());
                branch.settled = Some(self.clock);
                Ok(())
            }
            EventKind::ActionFailed { step, attempt, elapsed: _, failure, settles_doubt, next } => {
                let branch = running(saga, step, false)?;
                ended(&mut branch.action, *attempt)?;
                forgive_lost(&mut branch.action, failure);
                branch.doubt = (branch.doubt && !settles_doubt) || failure.effect == Effect::InDoubt;
                branch.failure = Some(Arc::new(Failure::clone(failure)));
                self.follow(branch, *next);
                Ok(())
            }
            EventKind::QueryAnswered { step, attempt, elapsed: _, found, next } => {
                let branch = running(saga, step, true)?;
                ended(&mut branch.query, *attempt)?;
                branch.asking = false;
                branch.doubt = false;
                if let Some(response) = found {
                    branch.state = BranchState::Succeeded;
                    branch.response = Some(response.clone());
                    branch.settled = Some(self.clock);
                } else {
                    self.follow(branch, *next);
                }
                Ok(())
            }
            EventKind::QueryFailed { step, attempt, elapsed: _, failure, next } => {
                let branch = running(saga, step, true)?;
                ended(&mut branch.query, *attempt)?;
                forgive_lost(&mut branch.query, failure);
                // What the action said decides whether it is sent again and is the cause people see.
                branch.failure.get_or_insert_with(|| Arc::new(Failure::clone(failure)));
                self.follow(branch, *next);
                Ok(())
            }
            EventKind::RollbackDecided { cause, signals } => self.roll_back(saga, cause, signals),
            EventKind::CompensationSucceeded { step, attempt, elapsed: _ } => {
                let branch = in_state(saga, step, BranchState::Compensating)?;
                ended(&mut branch.compensation, *attempt)?;
                branch.state = BranchState::Compensated;
                Ok(())
            }
            EventKind::CompensationFailed { step, attempt, elapsed: _, failure, next } => {
                let branch = in_state(saga, step, BranchState::Compensating)?;
                ended(&mut branch.compensation, *attempt)?;
                branch.compensation.refusals += u32::from(failure.tier != Tier::L2);
                branch.compensation_failure = Some(Arc::new(Failure::clone(failure)));
                match next {
                    Next::RetryAt(at) => branch.compensation.not_before = Some(*at),
                    Next::GiveUp => branch.state = BranchState::Stuck,
                    Next::AskAt(_) => return Err("a compensation is not asked about".to_owned()),
                }
                Ok(())
            }
            EventKind::SignalReported { participant, attempts: _, error } => {
                let found = saga.signals.iter_mut().find(|(name, _)| name == participant);
                let (_, state) = found.ok_or("this participant was not to be told")?;
                require(*state == SignalState::Pending, "a signal is reported once")?;
                *state = if error.is_none() { SignalState::Delivered } else { SignalState::Failed };
                Ok(())
            }
            EventKind::InterventionOpened => {
                require(saga.state != SagaState::NeedsIntervention, "an intervention is open already")?;
                require(!saga.is_busy(), "something is still being called")?;
                saga.state = SagaState::NeedsIntervention;
                Ok(())
            }
            EventKind::BranchRetried { step, by: _, reason: _ } => {
                let index = index_of(saga, step)?;
                require(saga.needs_person(index), "this branch does not wait for a person")?;
                let asks = saga.definition.steps[index].asks;
                let branch = &mut saga.branches[index];
                if branch.state == BranchState::Stuck {
                    branch.state = BranchState::Compensating;
                    branch.compensation = again(branch.compensation, self.at);
                } else {
                    branch.state = BranchState::Running;
                    // What may be done already is asked about again before it is sent again.
                    branch.asking = branch.doubt && asks;
                    branch.action = again(branch.action, self.at);
                    branch.query = again(branch.query, self.at);
                }
                resume(saga);
                Ok(())
            }
            EventKind::BranchResolved { step, by: _, reason: _, resolution } => {
                let index = index_of(saga, step)?;
                require(saga.needs_person(index), "this branch does not wait for a person")?;
                let branch = &mut saga.branches[index];
                branch.state = BranchState::Resolved;
                branch.resolution = Some(*resolution);
                branch.doubt = false;
                branch.settled.get_or_insert(self.clock);
                resume(saga);
                Ok(())
            }
            EventKind::Succeeded => {
                require(saga.state == SagaState::Running, "only a running saga succeeds")?;
                require(saga.branches.iter().all(is_forward_done), "a step is not done")?;
                saga.state = SagaState::Succeeded;
                saga.ended_at = Some(self.at);
                Ok(())
            }
            EventKind::RolledBack => {
                require(saga.state == SagaState::RollingBack, "only a saga that rolls back is rolled back")?;
                require((0..saga.branches.len()).all(|i| is_undone(saga, i)), "a branch is not undone")?;
                saga.state = SagaState::RolledBack;
                saga.ended_at = Some(self.at);
                Ok(())
            }
        }
    }

    /// Does what was decided about a failed attempt of an action or its query.
    fn follow(&self, branch: &mut Branch, next: Next) {
        match next {
            Next::RetryAt(at) => branch.action.not_before = Some(at),
            Next::AskAt(at) => {
                branch.asking = true;
                branch.query.not_before = Some(at);
            }
            Next::GiveUp => self.settle_without_success(branch),
        }
    }

    fn settle_without_success(&self, branch: &mut Branch) {
        branch.asking = false;
        branch.state = if branch.doubt { BranchState::InDoubt } else { BranchState::Failed };
        branch.settled = Some(self.clock);
    }

    fn roll_back(&self, saga: &mut Saga, cause: &Cause, signals: &[ParticipantName]) -> Result<(), String> {
        require(saga.cause.is_none(), "a rollback is decided once")?;
        require(saga.state == SagaState::Running, "only a running saga begins to roll back")?;
        require(!saga.is_past_pivot(), "past the pivot there is no way back")?;
        saga.state = SagaState::RollingBack;
        saga.cause = Some(Arc::new(cause.clone()));
        saga.signals = signals.iter().map(|name| (name.clone(), SignalState::Pending)).collect();
        let definition = Arc::clone(&saga.definition);
        for (step, branch) in definition.steps.iter().zip(&mut saga.branches) {
            match branch.state {
                BranchState::Pending => branch.state = BranchState::Skipped,
                // Asking goes on: its answer is about the past and calls nothing forward.
                BranchState::Running if branch.asking => {}
                // Between two attempts: no action is called any more.
                BranchState::Running if !branch.action.is_due(self.at) => self.settle_without_success(branch),
                BranchState::Running if definition.on_failure == OnFailure::Cancel => {
                    branch.doubt |= step.kind != StepKind::ReadOnly;
                    if branch.doubt && step.asks {
                        branch.asking = true;
                    } else {
                        self.settle_without_success(branch);
                    }
                }
                BranchState::Running
                | BranchState::Succeeded
                | BranchState::Failed
                | BranchState::InDoubt
                | BranchState::Compensating
                | BranchState::Compensated
                | BranchState::Stuck
                | BranchState::Skipped
                | BranchState::Resolved => {}
            }
        }
        Ok(())
    }
}

fn resume(saga: &mut Saga) {
    if saga.state == SagaState::NeedsIntervention {
        saga.state = if saga.cause.is_some() { SagaState::RollingBack } else { SagaState::Running };
    }
}

fn again(progress: Progress, at: Timestamp) -> Progress {
    Progress { forgiven: progress.attempts, refusals: 0, not_before: None, since: Some(at), ..progress }
}

fn forgive_lost(progress: &mut Progress, failure: &Failure) {
    let lost = failure.evidence == Evidence::NoAnswer(NoAnswer::CoordinatorLost);
    progress.forgiven += u32::from(lost);
}

fn ended(progress: &mut Progress, attempt: u32) -> Result<(), String> {
    if attempt != progress.attempt() {
        return Err(format!("attempt {} ends next, not {attempt}", progress.attempt()));
    }
    progress.attempts = attempt;
    progress.not_before = None;
    Ok(())
}

fn index_of(saga: &Saga, step: &StepName) -> Result<usize, String> {
    saga.definition.index_of(step).ok_or_else(|| format!("there is no step {step}"))
}

fn in_state<'a>(saga: &'a mut Saga, step: &StepName, state: BranchState) -> Result<&'a mut Branch, String> {
    let index = index_of(saga, step)?;
    let branch = &mut saga.branches[index];
    if branch.state == state {
        Ok(branch)
    } else {
        Err(format!("branch {step} is {}, not {}", branch.state.as_str(), state.as_str()))
    }
}

fn running<'a>(saga: &'a mut Saga, step: &StepName, asking: bool) -> Result<&'a mut Branch, String> {
    let branch = in_state(saga, step, BranchState::Running)?;
    if branch.asking == asking { Ok(branch) } else { Err(format!("branch {step} waits for another answer")) }
}

fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}
