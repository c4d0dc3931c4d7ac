//! The commands to go on with, to be pasted as they are but for the reason.

use super::head::page_of;
use super::{Canvas, Phase, Story, is_over, waits_for_a_person};
use crate::cli::out::Style;
use crate::cli::text::{safe, shell_word};
use backstop_proto::v1::{Branch, BranchState, SagaState, StepKind};
use std::fmt::Write;

/// Branches whose commands are shown; they differ in the step's name alone.
const SHOWN_MAX: usize = 3;

pub(super) fn next(story: &Story, canvas: &Canvas) -> String {
    let saga = &story.saga;
    let program = format!("backstop{}", story.server_flag);
    let id = shell_word(&saga.id);
    let mut out = String::new();
    let step = |out: &mut String, why: &str, command: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {why}\n    {}", canvas.paint.apply(Style::Bold, command));
    };
    if !saga.quarantine.is_empty() {
        step(
            &mut out,
            "its journal cannot be followed; once somebody has mended it:",
            &format!("{program} saga release {id} --reason …"),
        );
        return out;
    }
    let branches = story.branches();
    let waiting: Vec<&&Branch> = branches.iter().filter(|branch| waits_for_a_person(branch)).collect();
    for branch in waiting.iter().take(SHOWN_MAX) {
        let name = shell_word(&branch.step);
        let resolve = |resolution: &str| {
            format!("{program} branch resolve {id} {name} --resolution {resolution} --reason …")
        };
        let retry = format!("{program} branch retry {id} {name} --reason …");
        let shown = safe(&branch.step);
        if branch.state() == BranchState::Stuck {
            let who = story.participant(branch, Phase::Compensation);
            step(
                &mut out,
                &format!("once {who} will take the undo of {shown}, have it tried again:"),
                &retry,
            );
            step(
                &mut out,
                &format!("or, if {shown} has been undone by hand at {who}, say so:"),
                &resolve("undone"),
            );
        } else {
            let who = story.participant(branch, Phase::Action);
            let again = if branch.state() == BranchState::InDoubt {
                format!(
                    "if {who} cannot do {shown} twice under one key, have it sent, or asked about, again:"
                )
            } else {
                format!("once {who} will take {shown}, have it tried again:")
            };
            step(&mut out, &again, &retry);
            step(
                &mut out,
                &format!("or, if {shown} took effect or was done by hand at {who}:"),
                &resolve("took-effect"),
            );
            if branch.kind() == StepKind::Pivot {
                let text = format!("or, if {shown} certainly had no effect (the saga then rolls back):");
                step(&mut out, &text, &resolve("no-effect"));
            }
        }
    }
    if waiting.len() > SHOWN_MAX {
        let rest: Vec<String> = waiting.iter().skip(SHOWN_MAX).map(|branch| safe(&branch.step)).collect();
        let shown = canvas.cut(&rest.join(", "), canvas.width.saturating_sub(24));
        let _ = writeln!(out, "  and the same for {shown}");
    }
    if waiting.is_empty() && !is_over(saga) && saga.state() != SagaState::Unspecified {
        step(&mut out, "it goes on by itself; to look on:", &format!("{program} saga watch {id}"));
        let has_passed_pivot =
            saga.branches.iter().any(|b| b.kind() == StepKind::Pivot && b.state() != BranchState::Pending);
        if saga.state() == SagaState::Running && !has_passed_pivot {
            step(&mut out, "or, to have it undone:", &format!("{program} saga cancel {id} --reason …"));
        }
    }
    let pages = pages(story, &waiting);
    if !pages.is_empty() {
        let _ = writeln!(out, "  what the codes mean: {}", pages.join(", "));
    }
    out
}

/// The pages that explain what the waiting branches failed with.
fn pages(story: &Story, waiting: &[&&Branch]) -> Vec<String> {
    if waiting.is_empty() {
        return Vec::new();
    }
    let codes = waiting
        .iter()
        .flat_map(|branch| [branch.failure.as_ref(), branch.compensation_failure.as_ref()])
        .flatten()
        .map(|failure| failure.fin_code.as_str());
    let mut codes: Vec<&str> = codes.chain([story.saga.fin_code.as_str()]).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.into_iter().filter_map(page_of).collect()
}
