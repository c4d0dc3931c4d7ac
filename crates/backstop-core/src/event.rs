//! The facts of a saga's journal.
//!
//! An event says what happened *and what was decided about it* ([`Next`]), so that replay needs no
//! error table, no participant registry and no clock. What follows from the events alone (which branch
//! runs, which is skipped) is derived in [`crate::apply()`], not stored.

use crate::failure::Failure;
use crate::ids::{Clock, CoordinatorId, DefinitionRef, Epoch, ParticipantName, Seq, StepName};
use crate::saga::{Cause, Resolution};
use crate::time::Timestamp;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the journal.
    pub seq: Seq,
    /// Its Lamport clock.
    pub clock: Clock,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The saga was accepted.
    Started(Box<Started>),
    /// Another coordinator took the saga over.
    Adopted {
        /// Its tenure.
        epoch: Epoch,
        /// Who.
        coordinator: CoordinatorId,
    },
    /// Its coordinator let go of the saga in order, with no call in flight.
    Released,
    /// A step's action took effect.
    ActionSucceeded {
        /// The step.
        step: StepName,
        /// The attempt that said so.
        attempt: u32,
        /// From dispatch to answer.
        elapsed: Duration,
        /// The reply, as it came.
        response: Bytes,
    },
    /// An attempt of a step's action failed.
    ActionFailed {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// From dispatch to answer.
        elapsed: Duration,
        /// How.
        failure: Box<Failure>,
        /// True if this answer speaks for earlier attempts too: the participant deduplicates.
        settles_doubt: bool,
        /// What is done about it.
        next: Next,
    },
    /// The participant told whether an action in doubt took effect.
    QueryAnswered {
        /// The step.
        step: StepName,
        /// The attempt of the query.
        attempt: u32,
        /// From dispatch to answer.
        elapsed: Duration,
        /// The action's reply if it took effect.
        found: Option<Bytes>,
        /// If it did not: whether it is sent again.
        next: Next,
    },
    /// An attempt to ask failed.
    QueryFailed {
        /// The step.
        step: StepName,
        /// The attempt of the query.
        attempt: u32,
        /// From dispatch to answer.
        elapsed: Duration,
        /// How.
        failure: Box<Failure>,
        /// Whether it is asked again.
        next: Next,
    },
    /// From here the saga never commits.
    RollbackDecided {
        /// Why.
        cause: Box<Cause>,
        /// Who is told at once.
        signals: Vec<ParticipantName>,
    },
    /// A branch was undone.
    CompensationSucceeded {
        /// The step.
        step: StepName,
        /// The attempt that said so.
        attempt: u32,
        /// From dispatch to answer.
        elapsed: Duration,
    },
    /// An attempt to undo a branch failed.
    CompensationFailed {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// From dispatch to answer.
        elapsed: Duration,
        /// How.
        failure: Box<Failure>,
        /// Whether it is tried again; [`Next::GiveUp`] makes the branch STUCK.
        next: Next,
    },
    /// A listener has the rollback signal, or could not be told.
    SignalReported {
        /// Whom.
        participant: ParticipantName,
        /// How often it was tried.
        attempts: u32,
        /// `None`: delivered. Otherwise what went wrong last.
        error: Option<String>,
    },
    /// Nothing is left to do that a machine may do.
    InterventionOpened,
    /// An operator lets a branch be tried again.
    BranchRetried {
        /// The step.
        step: StepName,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator has settled a branch by hand.
    BranchResolved {
        /// The step.
        step: StepName,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// What is true of the branch now.
        resolution: Resolution,
    },
    /// Every step is done.
    Succeeded,
    /// Every effect is undone.
    RolledBack,
}

impl EventKind {
    /// Bytes of callers and of participants that it holds: what can make an event large. The rest has small limits.
    #[must_use]
    pub fn outside_bytes(&self) -> usize {
        match self {
            Self::Started(started) => {
                started.input.len() + started.payloads.values().map(Bytes::len).sum::<usize>()
            }
            Self::ActionSucceeded { response, .. } => response.len(),
            Self::QueryAnswered { found, .. } => found.as_ref().map_or(0, Bytes::len),
            _ => 0,
        }
    }
}

/// What is done about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is sent again, not before this.
    RetryAt(Timestamp),
    /// The participant is asked, not before this.
    AskAt(Timestamp),
    /// Nothing more.
    GiveUp,
}

/// What a saga starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The revision that it runs, to its end.
    pub definition: DefinitionRef,
    /// Who accepted it.
    pub coordinator: CoordinatorId,
    /// The client's input: a JSON object.
    pub input: Bytes,
    /// Raw requests of actions, by step, passed through as they are.
    pub payloads: BTreeMap<StepName, Bytes>,
    /// The client's labels.
    pub labels: BTreeMap<String, String>,
    /// When the forward path must be done.
    pub deadline: Option<Timestamp>,
    /// W3C `traceparent` of the saga's own span.
    pub trace_parent: Option<String>,
}
