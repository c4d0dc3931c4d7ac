//! What a saga is, where it stands and why, in words.
//!
//! Invariant: a status of Backstop's own making is not put into the participant's mouth.

use super::{Canvas, Story, clock_time, gap, micros, waits_for_a_person};
use crate::cli::out::Style;
use crate::cli::text::{duration, field, safe, short};
use backstop_proto::v1::failure::{Effect, Evidence};
use backstop_proto::v1::{Failure, Saga, SagaState, StepKind, Tier};
use backstop_proto::v1::{RollbackCause, rollback_cause::Kind};

/// The codes that have a page of their own in `docs/errors`; a participant may send others.
const CODES_WITH_A_PAGE: [&str; 4] = ["FIN-40005", "FIN-50001", "FIN-50099", "FIN-50302"];

/// `ROLLED_BACK`.
pub(crate) fn state_name(state: SagaState) -> &'static str {
    short(state.as_str_name(), "SAGA_STATE_")
}

/// How a state stands out.
pub(crate) fn state_style(state: SagaState) -> Style {
    match state {
        SagaState::Succeeded => Style::Good,
        SagaState::Running | SagaState::RollingBack | SagaState::RolledBack => Style::Warn,
        SagaState::NeedsIntervention => Style::Bad,
        SagaState::Unspecified => Style::Plain,
    }
}

/// The head.
pub(crate) fn head(story: &Story, canvas: &Canvas) -> String {
    let saga = &story.saga;
    let paint = canvas.paint;
    let state = saga.state();
    let failure = saga.cause.as_ref().and_then(|cause| cause.failure.as_ref());
    // The map of labels has no order of its own.
    let mut labels: Vec<_> = saga.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    let owner = match saga.owner.as_str() {
        "" => String::new(),
        owner => format!("{owner}, epoch {}", saga.epoch),
    };
    let state_words = match plain_state(saga) {
        "" => String::new(),
        words => format!(": {words}"),
    };
    [
        field("saga", &paint.apply(Style::Bold, &safe(&saga.id))),
        field("definition", &safe(&format!("{}@{}", saga.definition, saga.revision))),
        field("state", &format!("{}{state_words}", paint.apply(state_style(state), state_name(state)))),
        field("cause", &saga.cause.as_ref().map(cause_sentence).unwrap_or_default()),
        violations(failure),
        waiting(saga),
        field("fin code", &fin_code(&saga.fin_code, failure)),
        field("started", &times(story, canvas)),
        field("deadline", &deadline(story, canvas)),
        field("labels", &safe(&labels.join("  "))),
        field("owner", &safe(&owner)),
        field("quarantine", &safe(&saga.quarantine)),
        field("journal", if saga.journal_retired { "retired: only this is left of it" } else { "" }),
        field("trace", &safe(&saga.trace_id)),
    ]
    .concat()
}

fn plain_state(saga: &Saga) -> &'static str {
    let has_pivot_behind = saga
        .branches
        .iter()
        .any(|b| b.kind() == StepKind::Pivot && b.state() == backstop_proto::v1::BranchState::Succeeded);
    match saga.state() {
        _ if !saga.quarantine.is_empty() => "its journal cannot be followed; nobody goes on with it",
        SagaState::Running if has_pivot_behind => "past its pivot: it only goes forward",
        SagaState::Running => "going forward",
        SagaState::Succeeded => "every step is done",
        SagaState::RollingBack => "what was done is being undone; it will not commit any more",
        SagaState::RolledBack => "nothing of it stands any more",
        SagaState::NeedsIntervention => "nothing goes on until a person decides",
        SagaState::Unspecified => "",
    }
}

/// Which branches hold it up, and why.
fn waiting(saga: &Saga) -> String {
    /// Branches that are told of; the rest are counted.
    const SHOWN_MAX: usize = 5;
    let waiting: Vec<_> = saga.branches.iter().filter(|branch| waits_for_a_person(branch)).collect();
    let mut out = String::new();
    for (place, branch) in waiting.iter().take(SHOWN_MAX).enumerate() {
        let step = safe(&branch.step);
        let what = match branch.state() {
            backstop_proto::v1::BranchState::Stuck => format!("step {step} cannot be undone"),
            backstop_proto::v1::BranchState::InDoubt => {
                format!("it is not known whether step {step} took effect")
            }
            _ => format!("step {step} failed, and there is no way back"),
        };
        let last = if branch.state() == backstop_proto::v1::BranchState::Stuck {
            branch.compensation_failure.as_ref()
        } else {
            branch.failure.as_ref()
        };
        let why = last.map(|failure| format!(": {}", failure_with_code(failure))).unwrap_or_default();
        out += &field(if place == 0 { "waits" } else { "" }, &format!("{what}{why}"));
    }
    if waiting.len() > SHOWN_MAX {
        out += &field("", &format!("and {} more", waiting.len() - SHOWN_MAX));
    }
    out
}

/// Why it rolls back, as a sentence.
pub(crate) fn cause_sentence(cause: &RollbackCause) -> String {
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

/// How a call failed, as a sentence that says who says so.
pub(crate) fn failure_sentence(failure: &Failure) -> String {
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

/// The same, with what it means in brackets.
pub(super) fn failure_with_code(failure: &Failure) -> String {
    let tier = short(failure.tier().as_str_name(), "TIER_");
    let doubt = if failure.effect() == Effect::InDoubt { "in doubt" } else { "" };
    let code = safe(&failure.fin_code);
    let marks: Vec<&str> = [code.as_str(), tier, doubt].into_iter().filter(|mark| !mark.is_empty()).collect();
    match marks.as_slice() {
        [] => failure_sentence(failure),
        _ => format!("{} ({})", failure_sentence(failure), marks.join(", ")),
    }
}

/// The same in as few words as a line of many has room for: `FIN-50099 PERMISSION_DENIED: not today`.
pub(super) fn failure_in_short(failure: &Failure) -> String {
    let what = match failure.evidence() {
        Evidence::ParticipantSaid | Evidence::Unspecified => match failure.message.as_str() {
            "" => safe(&failure.grpc_code),
            message => format!("{}: {}", safe(&failure.grpc_code), safe(message)),
        },
        _ => failure_sentence(failure),
    };
    let doubt = if failure.effect() == Effect::InDoubt { "in doubt: " } else { "" };
    format!("{} {doubt}{what}", safe(&failure.fin_code)).trim_start().to_owned()
}

/// Fields and preconditions that the participant found fault with.
pub(crate) fn violations(failure: Option<&Failure>) -> String {
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

fn fin_code(code: &str, failure: Option<&Failure>) -> String {
    let page = page_of(code).map(|page| format!("; {page}")).unwrap_or_default();
    let code = safe(code);
    match failure.map(Failure::tier) {
        _ if code.is_empty() => code,
        Some(Tier::L1) => format!("{code}, tier L1: a person is paged{page}"),
        Some(Tier::L2) => format!("{code}, tier L2: degraded, undone in the background{page}"),
        Some(Tier::L3) => format!("{code}, tier L3: the caller can mend it{page}"),
        Some(Tier::Unspecified) | None => format!("{code}{page}"),
    }
}

/// Where a code is explained, if Backstop's own documents do.
pub(super) fn page_of(code: &str) -> Option<String> {
    CODES_WITH_A_PAGE.contains(&code).then(|| format!("docs/errors/{code}.md"))
}

fn times(story: &Story, canvas: &Canvas) -> String {
    let saga = &story.saga;
    let now = story.now(canvas);
    let Some(start) = saga.create_time.as_ref().map(micros) else {
        return String::new();
    };
    let started = clock_time(start, i64::MIN);
    match saga.end_time.as_ref().map(micros) {
        Some(end) => format!("{started}, ended after {}", duration(gap(start, end))),
        None => format!("{started}, {} ago", duration(gap(start, now))),
    }
}

fn deadline(story: &Story, canvas: &Canvas) -> String {
    let now = story.now(canvas);
    match (story.saga.state(), story.saga.deadline.as_ref().map(micros)) {
        (SagaState::Running, Some(at)) if at > now => {
            format!("{}, in {}", clock_time(at, now), duration(gap(now, at)))
        }
        (SagaState::Running, Some(at)) => format!("{}, passed", clock_time(at, now)),
        (_, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_codes_with_a_page_are_the_pages_that_are_there() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        let mut pages: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".md").map(str::to_owned))
            .filter(|name| name.starts_with("FIN-"))
            .collect();
        pages.sort();
        assert_eq!(pages, CODES_WITH_A_PAGE);
    }
}
