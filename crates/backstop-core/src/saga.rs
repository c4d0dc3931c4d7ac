//! A saga as its journal makes it. Only [`crate::apply()`] changes one.

use crate::definition::{RetryPolicy, StepKind};
use crate::event::Started;
use crate::failure::Failure;
use crate::graph::{Definition, Step};
use crate::ids::{Clock, Epoch, ParticipantName, Phase, SagaId, Seq, StepName};
use crate::time::Timestamp;
use bytes::Bytes;
use std::sync::Arc;

/// One run of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saga {
    /// Its id.
    pub id: SagaId,
    /// What it runs.
    pub definition: Arc<Definition>,
    /// What it started with.
    pub started: Arc<Started>,
    /// When it started.
    pub started_at: Timestamp,
    /// Seq of the last event.
    pub seq: Seq,
    /// Clock of the last event.
    pub clock: Clock,
    /// Time of the last event.
    pub updated_at: Timestamp,
    /// When it ended; a report that comes later does not move it.
    pub ended_at: Option<Timestamp>,
    /// The present tenure.
    pub epoch: Epoch,
    /// Where it stands.
    pub state: SagaState,
    /// Why it rolls back; set exactly once.
    pub cause: Option<Arc<Cause>>,
    /// One for each step, in the definition's order.
    pub branches: Vec<Branch>,
    /// The listeners told of the rollback.
    pub signals: Vec<(ParticipantName, SignalState)>,
    /// How often in a row it was let go of without any success meanwhile: the longer it has waited in vain, the
    /// later it is woken.
    pub parked: u32,
}

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SagaState {
    /// Going forward.
    Running,
    /// Going back.
    RollingBack,
    /// Waiting for a person.
    NeedsIntervention,
    /// Every step is done. Final.
    Succeeded,
    /// Every effect is undone. Final.
    RolledBack,
}

impl SagaState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::RollingBack, Self::NeedsIntervention, Self::Succeeded, Self::RolledBack];

    /// `ROLLING_BACK` and the like, as in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::RollingBack => "ROLLING_BACK",
            Self::NeedsIntervention => "NEEDS_INTERVENTION",
            Self::Succeeded => "SUCCEEDED",
            Self::RolledBack => "ROLLED_BACK",
        }
    }

    /// The inverse of [`SagaState::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// True if there is nothing for a machine to do: it is over, or waits for a person.
    #[must_use]
    pub fn is_at_rest(self) -> bool {
        self.is_final() || self == Self::NeedsIntervention
    }

    /// True if nothing will ever change it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::RolledBack)
    }
}

/// One step within one saga.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Branch {
    /// Where it stands.
    pub state: BranchState,
    /// The forward call.
    pub action: Progress,
    /// The question whether it took effect.
    pub query: Progress,
    /// The backward call.
    pub compensation: Progress,
    /// RUNNING, and the question is what runs.
    pub asking: bool,
    /// Some attempt may have taken effect and nothing has settled it.
    pub doubt: bool,
    /// The action's reply.
    pub response: Option<Bytes>,
    /// The last failure of the action; of its query, if the action itself was never heard to fail.
    pub failure: Option<Arc<Failure>>,
    /// The last failure of the compensation.
    pub compensation_failure: Option<Arc<Failure>>,
    /// Clock of the event that ended its forward path.
    pub settled: Option<Clock>,
    /// What an operator said of it.
    pub resolution: Option<Resolution>,
}

impl Branch {
    /// The call that is, or is going to be, out for it.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        match self.state {
            BranchState::Running if self.asking => Some(Phase::Query),
            BranchState::Running => Some(Phase::Action),
            BranchState::Compensating => Some(Phase::Compensation),
            BranchState::Pending
            | BranchState::Succeeded
            | BranchState::Failed
            | BranchState::InDoubt
            | BranchState::Compensated
            | BranchState::Stuck
            | BranchState::Skipped
            | BranchState::Resolved => None,
        }
    }

    /// How far one of its calls has come.
    #[must_use]
    pub fn progress(&self, phase: Phase) -> &Progress {
        match phase {
            Phase::Action => &self.action,
            Phase::Query => &self.query,
            Phase::Compensation => &self.compensation,
        }
    }
}

/// How far one call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Attempts that have ended, with an answer or without.
    pub attempts: u32,
    /// Attempts that do not count against the retry policy: before an operator's retry, or lost with a
    /// coordinator.
    pub forgiven: u32,
    /// Answers that were refusals (L1, L3); counted for compensations.
    pub refusals: u32,
    /// The next attempt is not sent before this.
    pub not_before: Option<Timestamp>,
    /// When its turn came, or when a person let it be tried again.
    pub since: Option<Timestamp>,
}

impl Progress {
    /// The number of the attempt that is under way or comes next.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempts + 1
    }

    /// From when on a failure that would be tried again without end makes it wait for a person.
    #[must_use]
    pub fn gives_up_at(&self, policy: &RetryPolicy) -> Option<Timestamp> {
        Some(self.since?.plus(policy.give_up_after?))
    }

    /// True if the attempt under way may have been sent by `now`.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }
}

/// Where a branch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum BranchState {
    /// Waits for its dependencies.
    #[default]
    Pending,
    /// Its action, or the question about it, is called.
    Running,
    /// Its action took effect.
    Succeeded,
    /// Its action had no effect.
    Failed,
    /// Its action may have taken effect.
    InDoubt,
    /// Its compensation is called.
    Compensating,
    /// Undone.
    Compensated,
    /// Its compensation is refused; a person decides.
    Stuck,
    /// Never called.
    Skipped,
    /// Settled by a person.
    Resolved,
}

impl BranchState {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::InDoubt,
        Self::Compensating,
        Self::Compensated,
        Self::Stuck,
        Self::Skipped,
        Self::Resolved,
    ];

    /// `IN_DOUBT` and the like, as in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::InDoubt => "IN_DOUBT",
            Self::Compensating => "COMPENSATING",
            Self::Compensated => "COMPENSATED",
            Self::Stuck => "STUCK",
            Self::Skipped => "SKIPPED",
            Self::Resolved => "RESOLVED",
        }
    }
}

/// What a person found to be true of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The action took effect, or was done by hand.
    TookEffect,
    /// The action had no effect.
    NoEffect,
    /// The effect was undone by hand.
    Undone,
}

impl Resolution {
    /// As it stands in the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TookEffect => "TOOK_EFFECT",
            Self::NoEffect => "NO_EFFECT",
            Self::Undone => "UNDONE",
        }
    }

    /// The inverse of [`Resolution::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::TookEffect, Self::NoEffect, Self::Undone].into_iter().find(|r| r.as_str() == text)
    }
}

/// Why a saga rolls back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What kind of reason.
    pub kind: CauseKind,
    /// The failure, if a branch's.
    pub failure: Option<Failure>,
}

/// What kind of reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CauseKind {
    /// A branch failed for good.
    BranchFailed(StepName),
    /// The forward path took too long.
    DeadlinePassed,
    /// Somebody asked for it.
    Cancelled {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator resolved this pivot as having had no effect.
    Resolved(StepName),
}

/// Whether a listener has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalState {
    /// Not yet.
    Pending,
    /// It has the signal.
    Delivered,
    /// It could not be told within the attempts allowed.
    Failed,
}

impl Saga {
    /// The trace that it is part of: 32 hexadecimal digits, as they stand in its `traceparent`. `None` if it was
    /// started without one.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.started.trace_parent.as_deref()?.split('-').nth(1)
    }

    /// A branch with its step.
    pub fn pairs(&self) -> impl Iterator<Item = (&Step, &Branch)> {
        self.definition.steps.iter().zip(&self.branches)
    }

    /// True once the pivot has taken effect.
    #[must_use]
    pub fn is_past_pivot(&self) -> bool {
        self.definition.pivot.is_some_and(|pivot| {
            let branch = &self.branches[pivot];
            branch.state == BranchState::Succeeded || branch.resolution == Some(Resolution::TookEffect)
        })
    }

    /// True while the pivot may have taken effect without our knowing: neither commit nor rollback can
    /// be decided.
    #[must_use]
    pub fn is_pivot_open(&self, now: Timestamp) -> bool {
        self.definition.pivot.is_some_and(|pivot| {
            let branch = &self.branches[pivot];
            match branch.state {
                BranchState::Running => branch.asking || branch.doubt || branch.action.is_due(now),
                BranchState::InDoubt => true,
                BranchState::Pending
                | BranchState::Succeeded
                | BranchState::Failed
                | BranchState::Compensating
                | BranchState::Compensated
                | BranchState::Stuck
                | BranchState::Skipped
                | BranchState::Resolved => false,
            }
        })
    }

    /// True if this branch can only be finished by a person.
    #[must_use]
    pub fn needs_person(&self, index: usize) -> bool {
        let (step, branch) = (&self.definition.steps[index], &self.branches[index]);
        match branch.state {
            BranchState::Stuck => true,
            BranchState::InDoubt => step.is_final(),
            BranchState::Failed => step.kind == StepKind::Retriable,
            BranchState::Pending
            | BranchState::Running
            | BranchState::Succeeded
            | BranchState::Compensating
            | BranchState::Compensated
            | BranchState::Skipped
            | BranchState::Resolved => false,
        }
    }

    /// True while a listener has yet to be told. A saga at rest is nobody's: what is not said by then would wait
    /// for a person too.
    #[must_use]
    pub fn is_signalling(&self) -> bool {
        self.signals.iter().any(|(_, state)| *state == SignalState::Pending)
    }

    /// True if something is being called, or is going to be without anybody's word.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.branches.iter().any(|b| matches!(b.state, BranchState::Running | BranchState::Compensating))
    }
}
