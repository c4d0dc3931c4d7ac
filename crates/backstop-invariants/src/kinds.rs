//! The kinds of events by name: what a checker counts, to prove that it has been everywhere.

use backstop_core::EventKind;

/// Every kind of event.
pub const KINDS: [&str; 16] = [
    "Started",
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

/// The name of an event's kind. A new kind must be named here, and reached by whoever demands coverage.
#[must_use]
pub fn kind_name(kind: &EventKind) -> &'static str {
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
