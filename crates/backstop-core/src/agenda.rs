//! What should be going on outside, read off a saga.
//!
//! The whole picture, not a difference: the engine compares it with what it has going on, starts what
//! is missing and drops what is no longer wanted. So nothing is ever lost between two turns.

use crate::graph::PlannedCall;
use crate::ids::{Clock, IdempotencyKey, ParticipantName, Phase};
use crate::saga::{BranchState, Saga, SagaState, SignalState};
use crate::time::Timestamp;

/// What should be going on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agenda {
    /// Calls that should be out. One that is not out yet is to be sent.
    pub calls: Vec<Call>,
    /// Actions that may be out and whose answers are awaited, but that must not be sent any more. One
    /// that is not out is answered by [`crate::NotSent::Withdrawn`].
    pub awaited: Vec<Call>,
    /// Listeners to be told of the rollback.
    pub signals: Vec<Signal>,
    /// When the saga wants its next turn even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// One attempt of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// Index of the step.
    pub step: usize,
    /// Which of its calls.
    pub phase: Phase,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// What the call bears as its Lamport clock: later than all that the saga knows.
    pub clock: Clock,
}

impl Call {
    /// The key that all attempts of this call share.
    #[must_use]
    pub fn key(&self, saga: &Saga) -> IdempotencyKey {
        IdempotencyKey::new(&saga.id, &saga.definition.steps[self.step].name, self.phase)
    }

    /// The plan that it follows; `None` only for a phase that the step does not have.
    #[must_use]
    pub fn plan<'a>(&self, saga: &'a Saga) -> Option<&'a PlannedCall> {
        saga.definition.steps[self.step].call(self.phase)
    }

    /// Which attempt of which call, regardless of the clock that it bears.
    #[must_use]
    pub fn identity(&self) -> (usize, Phase, u32) {
        (self.step, self.phase, self.attempt)
    }
}

/// A rollback signal to one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Whom to tell.
    pub participant: ParticipantName,
    /// The branches of theirs that are concerned, by step index.
    pub steps: Vec<usize>,
    /// The signal's Lamport clock.
    pub clock: Clock,
}

/// Reads the agenda off a saga.
#[must_use]
pub fn agenda(saga: &Saga, now: Timestamp) -> Agenda {
    // One allocation of the right size: the list is made several times a turn.
    let under_way = saga.branches.iter().filter(|branch| branch.phase().is_some()).count();
    let mut agenda = Agenda { calls: Vec::with_capacity(under_way), ..Agenda::default() };
    let clock = Clock(saga.clock.0 + 1);
    for (index, branch) in saga.branches.iter().enumerate() {
        let Some(phase) = branch.phase() else { continue };
        let progress = branch.progress(phase);
        let call = Call { step: index, phase, attempt: progress.attempt(), clock };
        if saga.state == SagaState::RollingBack && phase == Phase::Action {
            agenda.awaited.push(call);
        } else if progress.is_due(now) {
            agenda.calls.push(call);
        } else {
            agenda.wake(progress.not_before);
        }
        // One that cannot even be sent is given up in time, wherever it waits.
        let gives_up_at = call.plan(saga).and_then(|plan| progress.gives_up_at(&plan.retry));
        agenda.wake(gives_up_at.filter(|at| *at > now));
    }
    if saga.state == SagaState::Running && !saga.is_past_pivot() && !saga.is_pivot_open(now) {
        agenda.wake(saga.started.deadline);
    }
    for (participant, _) in saga.signals.iter().filter(|(_, state)| *state == SignalState::Pending) {
        agenda.signals.push(Signal {
            participant: participant.clone(),
            steps: concerned(saga, participant),
            clock,
        });
    }
    agenda
}

impl Agenda {
    fn wake(&mut self, at: Option<Timestamp>) {
        self.wake_at = match (self.wake_at, at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// True if nothing is called, told or awaited.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.awaited.is_empty() && self.signals.is_empty()
    }
}

/// The branches of a participant that a rollback concerns: all that were or may have been called, but
/// for those known to have had no effect.
pub(crate) fn concerned(saga: &Saga, participant: &ParticipantName) -> Vec<usize> {
    saga.pairs()
        .enumerate()
        .filter(|(_, (step, _))| step.action.participant == *participant)
        .filter(|(_, (_, branch))| match branch.state {
            BranchState::Running
            | BranchState::Succeeded
            | BranchState::InDoubt
            | BranchState::Compensating
            | BranchState::Compensated
            | BranchState::Stuck
            | BranchState::Resolved => true,
            BranchState::Pending | BranchState::Failed | BranchState::Skipped => false,
        })
        .map(|(index, _)| index)
        .collect()
}
