//! What a saga waits for: calls that are out, attempts to come and when, signals, a person, its next owner.
//!
//! Not here: what to do about it (`next`).

use super::head::failure_with_code;
use super::{Canvas, Phase, Story, clock_time, gap, is_over, micros, waits_for_a_person};
use crate::cli::text::{duration, safe};
use backstop_proto::v1::signal_report::State;
use backstop_proto::v1::{Branch, BranchState, Call, CompensationOrder, SagaState, StepKind, event};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

/// Branches told of; the rest are counted.
const SHOWN_MAX: usize = 12;
/// A call's timeout where the definition sets none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// What the branches wait for, then the saga as a whole.
pub(super) fn awaited(story: &Story, is_bounded: bool, canvas: &Canvas) -> String {
    let now = story.now(canvas);
    let branches = story.branches();
    let waiting: Vec<(String, String)> = branches
        .iter()
        .filter_map(|branch| Some((safe(&branch.step), branch_line(story, branch, now)?)))
        .collect();
    let shown_max = if is_bounded { SHOWN_MAX } else { usize::MAX };
    let mut rest: Vec<(String, String)> = Vec::new();
    if waiting.len() > shown_max {
        let more = waiting.len() - shown_max;
        rest.push((String::new(), format!("and {more} more: --only awaited shows them all")));
    }
    rest.extend(signals(story));
    rest.extend(whole_saga(story, now).map(|text| ("saga".to_owned(), text)));
    let lines: Vec<_> = waiting.into_iter().take(shown_max).chain(rest).collect();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut out, (name, text)| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<width$}  {text}");
        out
    })
}

/// What one branch waits for; `None` if it waits for nothing.
fn branch_line(story: &Story, branch: &Branch, now: i64) -> Option<String> {
    let is_forward = story.saga.state() == SagaState::Running;
    match branch.state() {
        BranchState::Running | BranchState::Compensating => Some(call_line(story, branch, now)),
        BranchState::Pending if is_forward => {
            let waits: Vec<String> = branch
                .depends_on
                .iter()
                .filter(|name| story.branch(name).is_none_or(|b| b.state() != BranchState::Succeeded))
                .map(|name| safe(name))
                .collect();
            Some(format!("is called after {}", some_of(&waits)))
        }
        BranchState::Succeeded | BranchState::InDoubt => {
            let goes_back = story.saga.cause.is_some() && !is_over(&story.saga);
            let is_undone = matches!(branch.kind(), StepKind::Compensatable | StepKind::Unspecified);
            (goes_back && is_undone).then(|| undo_line(story, branch))
        }
        BranchState::Pending
        | BranchState::Failed
        | BranchState::Compensated
        | BranchState::Stuck
        | BranchState::Skipped
        | BranchState::Resolved
        | BranchState::Unspecified => None,
    }
    .or_else(|| waits_for_a_person(branch).then(|| person_line(branch)))
}

fn person_line(branch: &Branch) -> String {
    let last = match branch.state() {
        BranchState::Stuck => branch.compensation_failure.as_ref(),
        _ => branch.failure.as_ref(),
    };
    let last = last.map(|failure| format!("; last: {}", failure_with_code(failure))).unwrap_or_default();
    format!("waits for a person, nothing is tried by itself{last}")
}

/// The phase whose call is out or comes next.
pub(super) fn phase(branch: &Branch) -> Phase {
    match branch.state() {
        BranchState::Compensating => Phase::Compensation,
        _ if branch.asking => Phase::Query,
        _ => Phase::Action,
    }
}

/// What an operator calls a phase.
pub(super) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Action => "action",
        Phase::Query => "question",
        Phase::Compensation => "undo",
    }
}

/// The number of the attempt that is out or comes next.
fn attempt(story: &Story, branch: &Branch, phase: Phase) -> u32 {
    match phase {
        Phase::Action => branch.action_attempts + 1,
        Phase::Compensation => branch.compensation_attempts + 1,
        Phase::Query => {
            let asked = story.events().iter().filter(|event| event.step == branch.step);
            let asked = asked.filter(|event| {
                matches!(event.r#type(), event::Type::QueryAnswered | event::Type::QueryFailed)
            });
            asked.map(|event| event.attempt).max().unwrap_or(0) + 1
        }
    }
}

fn call_line(story: &Story, branch: &Branch, now: i64) -> String {
    let phase = phase(branch);
    let call = format!("{} #{}", phase_name(phase), attempt(story, branch, phase));
    let to = story.participant(branch, phase);
    let last = match phase {
        Phase::Action | Phase::Query => branch.failure.as_ref(),
        Phase::Compensation => branch.compensation_failure.as_ref(),
    };
    let last = last.map(|failure| format!("; last: {}", failure_with_code(failure))).unwrap_or_default();
    let until = match branch.give_up_time.as_ref().map(micros) {
        Some(at) => format!("; left to a person from {}", clock_time(at, now)),
        None if is_endless(branch, phase) => "; tried until it is answered".to_owned(),
        None => String::new(),
    };
    let due = branch.next_attempt_time.as_ref().map(micros);
    if let Some(due) = due.filter(|due| *due > now) {
        let wait = duration(gap(now, due));
        return format!("{call} to {to} in {wait} (at {}){until}{last}", clock_time(due, now));
    }
    let since = due.or(branch.turn_time.as_ref().map(micros)).unwrap_or(now);
    let waited = gap(since, now);
    let timeout = story.call(&branch.step, phase).map_or(TIMEOUT_DEFAULT, timeout_of);
    if story.saga.state() == SagaState::RollingBack && phase == Phase::Action {
        return format!("the answer of {call} from {to} is awaited; it is not sent again");
    }
    if waited > timeout + Duration::from_secs(1) {
        return format!(
            "{call} has waited {} for {to}: its circuit breaker, its permits, or the next owner{until}{last}",
            duration(waited)
        );
    }
    format!("{call} is out to {to} for {} of at most {}{until}{last}", duration(waited), duration(timeout))
}

/// True for what is tried without end while it is merely unavailable.
fn is_endless(branch: &Branch, phase: Phase) -> bool {
    match phase {
        Phase::Compensation => true,
        Phase::Action => branch.kind() == StepKind::Retriable,
        Phase::Query => false,
    }
}

fn timeout_of(call: &Call) -> Duration {
    call.timeout.and_then(|timeout| Duration::try_from(timeout).ok()).unwrap_or(TIMEOUT_DEFAULT)
}

/// When a branch that took effect is undone.
fn undo_line(story: &Story, branch: &Branch) -> String {
    let order = story.definition.as_ref().map(|definition| definition.compensation_order());
    match order {
        Some(CompensationOrder::Lifo) => "is undone in its turn: newest first, one at a time".to_owned(),
        Some(CompensationOrder::Concurrent) => "is undone next".to_owned(),
        Some(CompensationOrder::ReverseDag | CompensationOrder::Unspecified) | None => {
            let mut before: Vec<String> = dependents(story, &branch.step)
                .into_iter()
                .filter(|name| story.branch(name).is_some_and(is_in_the_way))
                .collect();
            before.sort_by_key(|name| story.branch(name).is_some_and(|b| b.state() != BranchState::Stuck));
            if before.is_empty() {
                "is undone next".to_owned()
            } else {
                format!("is undone after {}", some_of(&before))
            }
        }
    }
}

fn is_in_the_way(branch: &Branch) -> bool {
    match branch.state() {
        BranchState::Running | BranchState::Compensating | BranchState::Stuck => true,
        BranchState::Succeeded | BranchState::InDoubt => branch.kind() != StepKind::ReadOnly,
        BranchState::Pending
        | BranchState::Failed
        | BranchState::Compensated
        | BranchState::Skipped
        | BranchState::Resolved
        | BranchState::Unspecified => false,
    }
}

/// The steps that depend on a step, near or far.
pub(super) fn dependents(story: &Story, step: &str) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut look = vec![step.to_owned()];
    while let Some(name) = look.pop() {
        for branch in story.saga.branches.iter().filter(|branch| branch.depends_on.contains(&name)) {
            if found.insert(branch.step.clone()) {
                look.push(branch.step.clone());
            }
        }
    }
    found
}

/// `a, b, c and 4 more`.
fn some_of(names: &[String]) -> String {
    const NAMES_MAX: usize = 4;
    let first = names.iter().take(NAMES_MAX).map(|name| safe(name)).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX { format!("{first} and {} more", names.len() - NAMES_MAX) } else { first }
}

/// Whom the rollback was told to.
fn signals(story: &Story) -> Option<(String, String)> {
    let named = |wanted: State| -> Vec<String> {
        let told = story.saga.signals.iter().filter(|signal| signal.state() == wanted);
        told.map(|signal| signal.participant.clone()).collect()
    };
    let is_history =
        is_over(&story.saga) && named(State::Pending).is_empty() && named(State::Failed).is_empty();
    let parts: Vec<String> = [
        (State::Pending, "on its way to"),
        (State::Failed, "not delivered to"),
        (State::Delivered, "delivered to"),
    ]
    .into_iter()
    .filter_map(|(state, words)| {
        let names = named(state);
        (!names.is_empty()).then(|| format!("{words} {}", some_of(&names)))
    })
    .collect();
    (!parts.is_empty() && !is_history)
        .then(|| ("signal".to_owned(), format!("rollback signal {}", parts.join("; "))))
}

/// Who goes on with it, and when.
fn whole_saga(story: &Story, now: i64) -> Option<String> {
    let saga = &story.saga;
    if !saga.quarantine.is_empty() {
        return Some(
            "a person mends its journal and releases it; no coordinator touches it before".to_owned(),
        );
    }
    let text = match (saga.state(), saga.wake_time.as_ref().map(micros), saga.owner.as_str()) {
        (SagaState::Succeeded | SagaState::RolledBack | SagaState::Unspecified, _, _) => return None,
        // Said of each of its branches.
        (SagaState::NeedsIntervention, _, _) if saga.branches.iter().any(waits_for_a_person) => return None,
        (SagaState::NeedsIntervention, _, _) => "waits for a person; nothing is tried by itself".to_owned(),
        (_, Some(at), "") if at > now => format!(
            "parked: any coordinator takes it up in {} (at {})",
            duration(gap(now, at)),
            clock_time(at, now)
        ),
        (_, _, "") => "no coordinator holds it just now; one takes it up within the lease".to_owned(),
        (_, _, owner) => format!("coordinator {} drives it, epoch {}", safe(owner), saga.epoch),
    };
    Some(text)
}
