//! What was reached, so that a test can prove that it tested.

use backstop_core::{BranchState, EventKind, SagaState};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) events: BTreeSet<&'static str>,
    pub(crate) branch_states: BTreeSet<BranchState>,
    pub(crate) saga_states: BTreeSet<SagaState>,
    /// The last event before each crash.
    pub(crate) crashed_after: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
        self.branch_states.extend(other.branch_states);
        self.saga_states.extend(other.saga_states);
        for (kind, crashes) in other.crashed_after {
            *self.crashed_after.entry(kind).or_default() += crashes;
        }
    }
}

/// The name of an event's kind. A new kind must be named here, and reached by the explorer.
pub(crate) fn kind_name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Started(_) => "Started",
        EventKind::Adopted { .. } => "Adopted",
        EventKind::Released => "Released",
        EventKind::ActionSucceeded { .. } => "ActionSucceeded",
        EventKind::ActionFailed { .. } => "ActionFailed",
        EventKind::QueryAnswered { .. } => "QueryAnswered",
        EventKind::QueryFailed { .. } => "QueryFailed",
        EventKind::RollbackDecided { .. } => "RollbackDecided",
        EventKind::CompensationSucceeded { .. } => "CompensationSucceeded",
        EventKind::CompensationFailed { .. } => "CompensationFailed",
        EventKind::SignalReported { .. } => "SignalReported",
        EventKind::InterventionOpened => "InterventionOpened",
        EventKind::BranchRetried { .. } => "BranchRetried",
        EventKind::BranchResolved { .. } => "BranchResolved",
        EventKind::Succeeded => "Succeeded",
        EventKind::RolledBack => "RolledBack",
    }
}

/// Every kind but `Started`, which no turn makes.
pub(crate) const KINDS_OF_TURNS: [&str; 15] = [
    "Adopted",
    "Released",
    "ActionSucceeded",
    "ActionFailed",
    "QueryAnswered",
    "QueryFailed",
    "RollbackDecided",
    "CompensationSucceeded",
    "CompensationFailed",
    "SignalReported",
    "InterventionOpened",
    "BranchRetried",
    "BranchResolved",
    "Succeeded",
    "RolledBack",
];
