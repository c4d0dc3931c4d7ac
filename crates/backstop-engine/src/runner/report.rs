//! What a saga's durable events say to the log: one line for each thing that an operator must know, and
//! nothing for a branch that is well.

use backstop_core::transcript::cause_text;
use backstop_core::{Event, EventKind, Failure, Next, Saga, StepName, Tier};

pub(super) fn events(saga: &Saga, events: &[Event]) {
    let (id, trace_id) = (&saga.id, saga.trace_id());
    for event in events {
        match &event.kind {
            EventKind::RollbackDecided { cause, .. } => {
                let code = cause.failure.as_ref().map(|failure| tracing::field::display(failure.fin_code));
                tracing::info!(saga = %id, trace_id, definition = %saga.definition.reference, fin_code = code,
                    "rolling back: {}", cause_text(cause));
            }
            // An action in doubt is asked about, and not tried again: its failure is news all the same.
            EventKind::ActionFailed { step, failure, next, .. } => {
                failed(saga, step, failure, matches!(next, Next::RetryAt(_)));
            }
            EventKind::QueryFailed { step, failure, next, .. }
            | EventKind::CompensationFailed { step, failure, next, .. } => {
                failed(saga, step, failure, *next != Next::GiveUp);
            }
            EventKind::InterventionOpened => {
                tracing::warn!(saga = %id, trace_id, definition = %saga.definition.reference, "the saga needs a person");
            }
            EventKind::BranchRetried { step, by, .. } => {
                tracing::info!(saga = %id, trace_id, %step, by, "an operator lets the branch be tried again");
            }
            EventKind::BranchResolved { step, by, resolution, .. } => {
                tracing::info!(saga = %id, trace_id, %step, by, resolution = resolution.as_str(), "an operator settled the branch");
            }
            EventKind::Adopted { epoch, .. } => {
                tracing::debug!(saga = %id, trace_id, epoch = epoch.0, "taken over");
            }
            // Without the listener's words: they may hold what the saga is about. The transcript has them.
            EventKind::SignalReported { participant, attempts, error: Some(_) } => {
                tracing::warn!(saga = %id, trace_id, %participant, attempts, "the rollback signal could not be delivered");
            }
            EventKind::Started(_)
            | EventKind::Released
            | EventKind::ActionSucceeded { .. }
            | EventKind::QueryAnswered { .. }
            | EventKind::CompensationSucceeded { .. }
            | EventKind::SignalReported { error: None, .. }
            | EventKind::Succeeded
            | EventKind::RolledBack => {}
        }
    }
}

fn failed(saga: &Saga, step: &StepName, failure: &Failure, is_tried_again: bool) {
    let (code, fin) = (failure.code().name(), failure.fin_code);
    // A failure that is tried again is news only for those who look closely.
    match (failure.tier, is_tried_again) {
        (Tier::L1, false) => {
            tracing::error!(saga = %saga.id, %step, code, fin_code = %fin, tier = "L1",
                evidence = failure.evidence.as_str(), trace_id = saga.trace_id(),
                "a branch failed: a person should look");
        }
        (Tier::L1 | Tier::L2 | Tier::L3, _) => {
            tracing::debug!(saga = %saga.id, %step, code, fin_code = %fin, tier = failure.tier.as_str(),
                evidence = failure.evidence.as_str(), trace_id = saga.trace_id(), "an attempt failed");
        }
    }
}
