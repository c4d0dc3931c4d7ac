//! A saga as people read it: a head that says what it is and why, then the transcript as the server
//! sends it.
//!
//! Invariants: a status of Backstop's own making is not put into the participant's mouth; nothing from
//! outside is shown raw.

use super::out::{Paint, Style};
use super::text::{Cell, between, duration, field, safe, short, table, time};
use backstop_proto::v1::failure::Evidence;
use backstop_proto::v1::{Branch, BranchState, Failure, Saga, SagaState, Tier};
use backstop_proto::v1::{RollbackCause, rollback_cause::Kind};
use std::fmt::Write;

/// `ROLLED_BACK`.
pub(super) fn state_name(state: SagaState) -> &'static str {
    short(state.as_str_name(), "SAGA_STATE_")
}

/// How a state stands out.
pub(super) fn state_style(state: SagaState) -> Style {
    match state {
        SagaState::Succeeded => Style::Good,
        SagaState::Running | SagaState::RollingBack | SagaState::RolledBack => Style::Warn,
        SagaState::NeedsIntervention => Style::Bad,
        SagaState::Unspecified => Style::Plain,
    }
}

/// The head, what a person is asked to do if anything, and the transcript.
pub(super) fn head_and_transcript(saga: &Saga, paint: Paint) -> String {
    let mut out = head(saga, paint);
    if saga.state() == SagaState::NeedsIntervention {
        out.push_str(&what_to_do(saga, paint));
    }
    if !saga.transcript.is_empty() {
        out.push('\n');
    }
    for line in &saga.transcript {
        out.push_str(&safe(line));
        out.push('\n');
    }
    out
}

fn head(saga: &Saga, paint: Paint) -> String {
    let state = saga.state();
    let failure = saga.cause.as_ref().and_then(|cause| cause.failure.as_ref());
    let labels: Vec<_> = saga.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    // The map of labels has no order of its own.
    let labels = {
        let mut labels = labels;
        labels.sort();
        labels.join("  ")
    };
    let owner = match saga.owner.as_str() {
        "" => String::new(),
        owner => format!("{owner}, epoch {}", saga.epoch),
    };
    [
        field("saga", &paint.apply(Style::Bold, &safe(&saga.id))),
        field("definition", &safe(&format!("{}@{}", saga.definition, saga.revision))),
        field("state", &paint.apply(state_style(state), state_name(state))),
        field("cause", &saga.cause.as_ref().map(cause_sentence).unwrap_or_default()),
        violations(failure),
        field("fin code", &fin_code(saga, failure)),
        field("started", &times(saga)),
        field("deadline", &deadline(saga)),
        field("labels", &safe(&labels)),
        field("owner", &safe(&owner)),
        field("parked", &parked(saga)),
        field("quarantine", &safe(&saga.quarantine)),
        field("journal", if saga.journal_retired { "retired: only this is left of it" } else { "" }),
        field("trace", &safe(&saga.trace_id)),
    ]
    .concat()
}

fn parked(saga: &Saga) -> String {
    match &saga.wake_time {
        Some(at) => format!("until {}", time(Some(at))),
        None => String::new(),
    }
}

/// Why it rolls back, as a sentence.
fn cause_sentence(cause: &RollbackCause) -> String {
    let step = safe(&cause.step);
    match cause.kind() {
        Kind::StepFailed => match &cause.failure {
            Some(failure) => format!("step {step} failed: {}", failure_sentence(failure)),
            None => format!("step {step} failed"),
        },
        Kind::Deadline => "the deadline of the forward path passed".to_owned(),
        Kind::Cancelled => {
            let by = safe(&cause.by);
            match cause.reason.as_str() {
                "" => format!("cancelled by {by}"),
                reason => format!("cancelled by {by}: {}", safe(reason)),
            }
        }
        Kind::Resolved => {
            format!("{} found that step {step} had had no effect: {}", safe(&cause.by), safe(&cause.reason))
        }
        Kind::Unspecified => format!("unknown to this program (step {step})"),
    }
}

pub(super) fn failure_sentence(failure: &Failure) -> String {
    let code = safe(&failure.grpc_code);
    let who = match failure.evidence() {
        Evidence::ParticipantSaid | Evidence::Unspecified => format!("the participant answered {code}"),
        Evidence::NoConnection => "no connection to the participant".to_owned(),
        Evidence::BreakerOpen => "the participant's circuit breaker was open".to_owned(),
        Evidence::NoPermit => "too many calls to the participant were in flight".to_owned(),
        Evidence::Draining => "the connection to the participant was closing".to_owned(),
        Evidence::Refused => "the participant's transport refused the call".to_owned(),
        Evidence::Withdrawn => "the rollback came before the call went out".to_owned(),
        Evidence::Deadline => "the participant did not answer in time".to_owned(),
        Evidence::ConnectionLost => "the connection broke during the call".to_owned(),
        Evidence::CoordinatorLost => "the coordinator that called it is gone".to_owned(),
        Evidence::BadAnswer => "what came back is no gRPC answer".to_owned(),
        Evidence::NotRendered => "its request could not be made from the template".to_owned(),
    };
    if failure.message.is_empty() { who } else { format!("{who}: {}", safe(&failure.message)) }
}

fn violations(failure: Option<&Failure>) -> String {
    let Some(failure) = failure else {
        return String::new();
    };
    let fields = failure.field_violations.iter().map(|fault| (&fault.field, &fault.description));
    let preconditions =
        failure.precondition_violations.iter().map(|fault| (&fault.subject, &fault.description));
    fields
        .chain(preconditions)
        .map(|(what, why)| field("", &format!("{}: {}", safe(what), safe(why))))
        .collect()
}

fn fin_code(saga: &Saga, failure: Option<&Failure>) -> String {
    let code = safe(&saga.fin_code);
    match failure.map(Failure::tier) {
        _ if code.is_empty() => code,
        Some(Tier::L1) => format!("{code}, tier L1: a person is paged"),
        Some(Tier::L2) => format!("{code}, tier L2: degraded, undone in the background"),
        Some(Tier::L3) => format!("{code}, tier L3: the caller can mend it"),
        Some(Tier::Unspecified) | None => code,
    }
}

fn times(saga: &Saga) -> String {
    let started = time(saga.create_time.as_ref());
    match between(saga.create_time.as_ref(), saga.end_time.as_ref()) {
        Some(took) => format!("{started}, ended after {}", duration(took)),
        None => started,
    }
}

fn deadline(saga: &Saga) -> String {
    match saga.state() {
        SagaState::Running => time(saga.deadline.as_ref()),
        SagaState::Succeeded
        | SagaState::RollingBack
        | SagaState::RolledBack
        | SagaState::NeedsIntervention
        | SagaState::Unspecified => String::new(),
    }
}

/// Which branches wait for a person, why, and the commands that settle them.
fn what_to_do(saga: &Saga, paint: Paint) -> String {
    let mut out = String::new();
    if !saga.quarantine.is_empty() {
        let waiting =
            paint.apply(Style::Bad, "its journal cannot be followed and waits for a person to mend it");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{waiting}");
        let _ = writeln!(out, "  backstop saga release {} --reason …   (once it is mended)", safe(&saga.id));
    }
    for branch in saga.branches.iter().filter(|branch| waits_for_a_person(saga, branch)) {
        let state = short(branch.state().as_str_name(), "BRANCH_STATE_");
        let last = match branch.state() {
            BranchState::Stuck => branch.compensation_failure.as_ref(),
            BranchState::Pending
            | BranchState::Running
            | BranchState::Succeeded
            | BranchState::Failed
            | BranchState::InDoubt
            | BranchState::Compensating
            | BranchState::Compensated
            | BranchState::Skipped
            | BranchState::Resolved
            | BranchState::Unspecified => branch.failure.as_ref(),
        };
        let why = last.map(|failure| format!(": {}", failure_sentence(failure))).unwrap_or_default();
        let name = safe(&branch.step);
        let waiting = paint.apply(Style::Bad, &format!("step {name} is {state} and waits for a person"));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{waiting}{why}");
        let id = safe(&saga.id);
        let _ = writeln!(out, "  backstop branch retry {id} {name} --reason …");
        let resolution =
            if branch.state() == BranchState::Stuck { "undone" } else { "took-effect|no-effect" };
        let _ = writeln!(out, "  backstop branch resolve {id} {name} --resolution {resolution} --reason …");
    }
    out
}

/// In a saga that needs intervention, a stuck compensation does; and where the saga has no cause, so that
/// it is past its pivot or at it, the branch whose action cannot go on.
pub(super) fn waits_for_a_person(saga: &Saga, branch: &Branch) -> bool {
    match branch.state() {
        BranchState::Stuck => true,
        BranchState::Failed | BranchState::InDoubt => saga.cause.is_none(),
        BranchState::Pending
        | BranchState::Running
        | BranchState::Succeeded
        | BranchState::Compensating
        | BranchState::Compensated
        | BranchState::Skipped
        | BranchState::Resolved
        | BranchState::Unspecified => false,
    }
}

/// Sagas under headings.
pub(super) fn list_table(sagas: &[Saga], paint: Paint) -> String {
    let rows = sagas
        .iter()
        .map(|saga| {
            let state = saga.state();
            [
                Cell::from(saga.id.as_str()),
                Cell::from(format!("{}@{}", saga.definition, saga.revision)),
                Cell::styled(state_name(state), state_style(state)),
                Cell::from(saga.fin_code.as_str()),
                Cell::from(time(saga.create_time.as_ref())),
            ]
        })
        .collect();
    table(["SAGA", "DEFINITION", "STATE", "FIN CODE", "STARTED"], rows, paint)
}
