//! A journal as people read it: one line an event, the same in tests, in the CLI and over the API.
//!
//! ```text
//! 0001 saga     started        transfer@3
//! 0002 debit    succeeded      #1  12.3ms
//! 0003 credit   failed         #1  FIN-40005 FAILED_PRECONDITION  account closed
//! 0004 saga     rolling back   cause credit
//! 0005 debit    compensated    #1  8.1ms
//! 0006 saga     rolled back
//! ```

use crate::event::{Event, EventKind, Next};
use crate::failure::Failure;
use crate::saga::{Cause, CauseKind};
use crate::status::{Effect, Evidence};
use std::time::Duration;

/// Narrowest column of names.
const NAME_WIDTH_MIN: usize = 8;
/// Longest message shown on a line, in characters; the event holds all that is kept of it.
const MESSAGE_CHARS_MAX: usize = 120;

/// The whole journal, a line each, with a newline after each.
#[must_use]
pub fn transcript(events: &[Event]) -> String {
    let width = events.iter().map(|event| subject(&event.kind).len()).fold(NAME_WIDTH_MIN, usize::max);
    events.iter().map(|event| line(event, width) + "\n").collect()
}

/// One event, without a newline; `name_width` aligns several.
#[must_use]
pub fn line(event: &Event, name_width: usize) -> String {
    let (verb, rest) = describe(&event.kind);
    let name = subject(&event.kind);
    let width = name_width.max(NAME_WIDTH_MIN);
    format!("{:04} {name:<width$} {verb:<14} {rest}", event.seq.0).trim_end().to_owned()
}

/// What the line is about: a step, a participant or the saga.
#[must_use]
pub fn subject(kind: &EventKind) -> &str {
    match kind {
        EventKind::ActionSucceeded { step, .. }
        | EventKind::ActionFailed { step, .. }
        | EventKind::QueryAnswered { step, .. }
        | EventKind::QueryFailed { step, .. }
        | EventKind::CompensationSucceeded { step, .. }
        | EventKind::CompensationFailed { step, .. }
        | EventKind::BranchRetried { step, .. }
        | EventKind::BranchResolved { step, .. } => step.as_str(),
        EventKind::SignalReported { participant, .. } => participant.as_str(),
        EventKind::Started(_)
        | EventKind::Adopted { .. }
        | EventKind::Released
        | EventKind::RollbackDecided { .. }
        | EventKind::InterventionOpened
        | EventKind::Succeeded
        | EventKind::RolledBack => "saga",
    }
}

fn describe(kind: &EventKind) -> (&'static str, String) {
    match kind {
        EventKind::Started(started) => ("started", started.definition.to_string()),
        EventKind::Adopted { epoch, coordinator } => {
            ("taken over", format!("epoch {} by {coordinator}", epoch.0))
        }
        EventKind::Released => ("handed over", String::new()),
        EventKind::ActionSucceeded { attempt, elapsed, .. } => ("succeeded", done(*attempt, *elapsed)),
        EventKind::ActionFailed { attempt, failure, next, .. } => {
            let verb = match next {
                Next::RetryAt(_) => "will retry",
                Next::AskAt(_) => "will ask",
                Next::GiveUp => "failed",
            };
            (verb, failed(*attempt, failure))
        }
        EventKind::QueryAnswered { attempt, elapsed, found, next, .. } => {
            let verb = match (found, next) {
                (Some(_), _) => "took effect",
                (None, Next::RetryAt(_)) => "had no effect",
                (None, Next::AskAt(_) | Next::GiveUp) => "failed",
            };
            let answer = if found.is_some() { "" } else { "  asked: no effect" };
            (verb, done(*attempt, *elapsed) + answer)
        }
        EventKind::QueryFailed { attempt, failure, next, .. } => {
            let verb = if *next == Next::GiveUp { "in doubt" } else { "will ask again" };
            (verb, failed(*attempt, failure))
        }
        EventKind::RollbackDecided { cause, .. } => ("rolling back", cause_text(cause)),
        EventKind::CompensationSucceeded { attempt, elapsed, .. } => {
            ("compensated", done(*attempt, *elapsed))
        }
        EventKind::CompensationFailed { attempt, failure, next, .. } => {
            let verb = if *next == Next::GiveUp { "stuck" } else { "undo failed" };
            (verb, failed(*attempt, failure))
        }
        EventKind::SignalReported { attempts, error, .. } => match error {
            None => ("signalled", format!("#{attempts}")),
            Some(error) => ("not signalled", format!("#{attempts}  {}", one_line(error))),
        },
        EventKind::InterventionOpened => ("needs a person", String::new()),
        EventKind::BranchRetried { by, reason, .. } => {
            ("retried by", format!("{}: {}", one_line(by), one_line(reason)))
        }
        EventKind::BranchResolved { by, reason, resolution, .. } => {
            ("resolved by", format!("{}: {}  {}", one_line(by), resolution.as_str(), one_line(reason)))
        }
        EventKind::Succeeded => ("succeeded", String::new()),
        EventKind::RolledBack => ("rolled back", String::new()),
    }
}

fn done(attempt: u32, elapsed: Duration) -> String {
    format!("#{attempt}  {}", millis(elapsed))
}

fn failed(attempt: u32, failure: &Failure) -> String {
    let doubt = if failure.effect == Effect::InDoubt { " in doubt" } else { "" };
    // A status of our own making is not put into the participant's mouth.
    let who = match failure.evidence {
        Evidence::ParticipantSaid(_) => String::new(),
        Evidence::NotSent(_) | Evidence::NoAnswer(_) | Evidence::BadAnswer | Evidence::NotRendered => {
            format!(" ({})", failure.evidence.as_str().replace('_', " "))
        }
    };
    let head = format!("#{attempt}  {} {}{who}{doubt}", failure.fin_code, failure.code().name());
    if failure.message.is_empty() { head } else { format!("{head}  {}", one_line(&failure.message)) }
}

/// A cause in a few words: `credit`, `deadline`, `cancelled by ann: wrong account`.
#[must_use]
pub fn cause_text(cause: &Cause) -> String {
    match &cause.kind {
        CauseKind::BranchFailed(step) => format!("cause {step}"),
        CauseKind::DeadlinePassed => "cause deadline".to_owned(),
        CauseKind::Cancelled { by, reason } => format!("cancelled by {}: {}", one_line(by), one_line(reason)),
        CauseKind::Resolved(step) => format!("cause {step}, resolved by hand"),
    }
}

fn millis(elapsed: Duration) -> String {
    format!("{:.1}ms", elapsed.as_secs_f64() * 1000.0)
}

/// A text from outside, made safe for a terminal: no control characters, no more than a line.
fn one_line(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARS_MAX).collect();
    if text.chars().count() > MESSAGE_CHARS_MAX { clean + "…" } else { clean }
}
