//! What stands at the participants: the effects of a saga that are there, or may be there, and are not undone.
//!
//! Invariants: a branch whose effect is known to be none is never listed; one that may have taken effect always
//! is, and is said to be in doubt (`what_is_exposed_is_what_may_stand`); each effect comes with the idempotency key
//! to look for at the participant.

use super::{Canvas, Phase, Story, compensation_key, is_over, micros, waits_for_a_person};
use crate::cli::out::Style;
use crate::cli::text::{counted, safe};
use crate::cli::waiting::{Standing, standing};
use backstop_proto::v1::event;
use backstop_proto::v1::failure::Effect;
use backstop_proto::v1::{Branch, BranchState, Resolution, SagaState};
use std::fmt::Write;

/// Effects that are told of in full; the rest are counted. An operator who needs them all asks for
/// `--only exposed`.
const SHOWN_MAX: usize = 12;

/// An effect that stands, or may stand.
struct Exposure<'a> {
    branch: &'a Branch,
    is_certain: bool,
    what: &'static str,
}

pub(super) fn exposed(story: &Story, is_bounded: bool, canvas: &Canvas) -> String {
    let saga = &story.saga;
    if !saga.quarantine.is_empty() {
        return format!(
            "not known: the journal cannot be followed; look for keys that begin with {}/\n",
            safe(&saga.id)
        );
    }
    if saga.branches.is_empty() || saga.state() == SagaState::Succeeded {
        return String::new();
    }
    let branches = story.branches();
    let now = story.now(canvas);
    let mut all: Vec<Exposure> = branches.iter().filter_map(|branch| exposure(story, branch, now)).collect();
    // What a person has to look at first comes first; otherwise the order of the steps stays.
    all.sort_by_key(|one| {
        (!waits_for_a_person(one.branch), one.branch.compensation_attempts == 0, one.is_certain)
    });
    let mut out = summary(story, &all, canvas);
    let shown_max = if is_bounded { SHOWN_MAX } else { usize::MAX };
    let width = all.iter().take(shown_max).map(|one| one.branch.step.len()).max().unwrap_or(0);
    for one in all.iter().take(shown_max) {
        out += &lines(story, one, width, canvas);
    }
    if all.len() > shown_max {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  and {} more: --only exposed shows them all", all.len() - shown_max);
    }
    out
}

fn summary(story: &Story, all: &[Exposure], canvas: &Canvas) -> String {
    let certain = all.iter().filter(|one| one.is_certain).count();
    let by_hand = story.saga.branches.iter().filter(|b| b.resolution() == Resolution::Undone);
    let by_hand: Vec<String> = by_hand.map(|branch| safe(&branch.step)).collect();
    let word = if by_hand.is_empty() {
        String::new()
    } else {
        format!("; on a person's word, undone by hand: {}", by_hand.join(", "))
    };
    let (text, style) = match (all.len(), story.saga.state()) {
        (0, _) => ("nothing stands".to_owned(), Style::Good),
        (count, SagaState::Running) => (format!("{} so far", stand(count)), Style::Plain),
        (count, _) => (stand(count), Style::Bad),
    };
    let kinds = match (certain, all.len() - certain) {
        (0, 0) => String::new(),
        (certain, 0) => format!(": {certain} for certain"),
        (0, doubt) => format!(": {doubt} in doubt"),
        (certain, doubt) => format!(": {certain} for certain, {doubt} in doubt"),
    };
    format!("{}{word}\n", canvas.paint.apply(style, &format!("{text}{kinds}")))
}

fn stand(count: usize) -> String {
    if count == 1 { "1 effect stands".to_owned() } else { format!("{count} effects stand") }
}

fn exposure<'a>(story: &Story, branch: &'a Branch, now: i64) -> Option<Exposure<'a>> {
    let is_out = branch.next_attempt_time.as_ref().is_none_or(|at| micros(at) <= now);
    let standing = standing(branch, is_out)?;
    let what = match (branch.state(), standing) {
        (BranchState::Succeeded, _) if story.saga.cause.is_some() => "took effect, not undone yet",
        (BranchState::Succeeded, _) => "took effect",
        (BranchState::Running, _) if branch.in_doubt => "may have taken effect: no attempt has settled it",
        (BranchState::Running, _) => "may be taking effect now: its call is out",
        (BranchState::Compensating, Standing::Surely) => "took effect, being undone",
        (BranchState::Compensating, Standing::Perhaps) => "may have taken effect, being undone",
        (BranchState::Stuck, Standing::Surely) => "took effect, its undo is stuck",
        (BranchState::Stuck, Standing::Perhaps) if branch.in_doubt => {
            "may have taken effect, its undo is stuck"
        }
        (BranchState::Stuck, Standing::Perhaps) => "took effect, its undo failed and may have worked",
        (BranchState::Resolved, _) => "took effect, says a person",
        (
            BranchState::InDoubt
            | BranchState::Failed
            | BranchState::Pending
            | BranchState::Compensated
            | BranchState::Skipped
            | BranchState::Unspecified,
            _,
        ) => "may have taken effect, not undone",
    };
    Some(Exposure { branch, is_certain: standing == Standing::Surely, what })
}

fn lines(story: &Story, one: &Exposure, width: usize, canvas: &Canvas) -> String {
    let branch = one.branch;
    let (sure, style) = if one.is_certain { ("certain", Style::Bad) } else { ("in doubt", Style::Warn) };
    let sure = if is_running(story) { sure.to_owned() } else { canvas.paint.apply(style, sure) };
    let step = safe(&branch.step);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "  {step:<width$}  {sure}: {}", one.what);
    let at = story.target(branch, Phase::Action);
    let _ = writeln!(out, "  {:<width$}  key {} at {at}", "", safe(&branch.idempotency_key));
    if branch.compensation_attempts > 0 {
        let tries = counted(usize::try_from(branch.compensation_attempts).unwrap_or(usize::MAX), "attempt");
        let tries = if undo_may_have_worked(story, branch) {
            format!("{tries} to undo it, of which one may have worked")
        } else {
            format!("{tries} to undo it, none with effect")
        };
        let _ = writeln!(out, "  {:<width$}  {tries}:", "");
        let at = story.target(branch, Phase::Compensation);
        let _ = writeln!(out, "  {:<width$}  key {} at {at}", "", compensation_key(branch));
    }
    out
}

fn is_running(story: &Story) -> bool {
    story.saga.state() == SagaState::Running || is_over(&story.saga)
}

/// True if some attempt to undo the branch failed in a way that does not tell what it did.
fn undo_may_have_worked(story: &Story, branch: &Branch) -> bool {
    let mut failures = story
        .events()
        .iter()
        .filter(|e| e.r#type() == event::Type::CompensationFailed && e.step == branch.step)
        .filter_map(|event| event.failure.as_ref())
        .chain(branch.compensation_failure.as_ref());
    failures.any(|failure| failure.effect() != Effect::None)
}
