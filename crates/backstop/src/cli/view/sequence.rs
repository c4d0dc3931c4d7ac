//! Calls in their order as a Mermaid sequence diagram: Backstop on the left, a line a participant.

use super::diagram::mermaid_text;
use super::{defined_call, participant_of};
use crate::cli::text::duration;
use backstop_core::Phase;
use backstop_proto::v1::{Definition, Event, Saga, event};
use std::fmt::Write;

/// Messages drawn; what comes after them is said to be left out.
const MESSAGES_MAX: usize = 200;

/// A sequence under way.
struct Sequence {
    participants: Vec<String>,
    lines: Vec<String>,
}

impl Sequence {
    fn new() -> Self {
        Self { participants: Vec::new(), lines: Vec::new() }
    }

    fn lane(&mut self, name: &str) -> usize {
        let found = self.participants.iter().position(|other| other == name);
        found.unwrap_or_else(|| {
            self.participants.push(name.to_owned());
            self.participants.len() - 1
        })
    }

    fn call(&mut self, to: &str, text: &str) {
        let lane = self.lane(to);
        self.lines.push(format!("B->>P{lane}: {}", mermaid_text(text)));
    }

    fn answer(&mut self, from: &str, is_good: bool, text: &str) {
        let lane = self.lane(from);
        let arrow = if is_good { "-->>" } else { "--x" };
        self.lines.push(format!("P{lane}{arrow}B: {}", mermaid_text(text)));
    }

    fn note(&mut self, text: &str) {
        self.lines.push(format!("Note over B: {}", mermaid_text(text)));
    }

    fn render(&self, title: &str) -> String {
        let mut out = format!("%% {}\nsequenceDiagram\n  participant B as Backstop\n", mermaid_text(title));
        // Writing to a String cannot fail.
        for (lane, name) in self.participants.iter().enumerate() {
            let _ = writeln!(out, "  participant P{lane} as {}", mermaid_text(name));
        }
        for line in self.lines.iter().take(MESSAGES_MAX) {
            let _ = writeln!(out, "  {line}");
        }
        if self.lines.len() > MESSAGES_MAX {
            let _ = writeln!(out, "  Note over B: {} more left out", self.lines.len() - MESSAGES_MAX);
        }
        out
    }
}

/// The attempts of a saga, as its journal tells of them: in the order in which they ended.
pub(crate) fn of_saga(saga: &Saga, events: &[Event], definition: Option<&Definition>) -> String {
    use event::Type;
    let mut sequence = Sequence::new();
    for event in events {
        let call = |phase: Phase| format!("{} {} #{}", event.step, phase.as_str(), event.attempt);
        let (phase, is_good) = match event.r#type() {
            Type::ActionSucceeded => (Phase::Action, true),
            Type::ActionFailed => (Phase::Action, false),
            Type::QueryAnswered => (Phase::Query, true),
            Type::QueryFailed => (Phase::Query, false),
            Type::CompensationSucceeded => (Phase::Compensation, true),
            Type::CompensationFailed => (Phase::Compensation, false),
            Type::Started
            | Type::Adopted
            | Type::RollbackDecided
            | Type::InterventionOpened
            | Type::BranchRetried
            | Type::BranchResolved
            | Type::Succeeded
            | Type::RolledBack => {
                let words: Vec<&str> = event.line.split_whitespace().skip(1).collect();
                sequence.note(&words.join(" "));
                continue;
            }
            Type::Unspecified | Type::Released | Type::SignalReported => continue,
        };
        let to = participant(saga, definition, &event.step, phase);
        sequence.call(&to, &call(phase));
        let took = event.elapsed.and_then(|elapsed| std::time::Duration::try_from(elapsed).ok());
        let took = took.map(duration).unwrap_or_default();
        let how = match &event.failure {
            Some(failure) => format!("{} {} {took}", failure.fin_code, failure.grpc_code),
            None => took,
        };
        sequence.answer(&to, is_good, how.trim());
    }
    sequence.render(&format!("{} ({}@{})", saga.id, saga.definition, saga.revision))
}

fn participant(saga: &Saga, definition: Option<&Definition>, step: &str, phase: Phase) -> String {
    let defined = definition.and_then(|definition| defined_call(definition, step, phase));
    let branch = saga.branches.iter().find(|branch| branch.step == step);
    let told = || branch.map_or(step, |branch| participant_of(branch, phase));
    defined.map_or_else(told, |call| call.participant.as_str()).to_owned()
}

/// The calls of a simulated run, `debit/action`, `debit/compensation #2`, and how it ends.
pub(crate) fn of_run(definition: &Definition, title: &str, calls: &[String], end: &str) -> String {
    let mut sequence = Sequence::new();
    for call in calls {
        let (step, rest) = call.split_once('/').unwrap_or((call, "action"));
        let phase = rest.split_whitespace().next().and_then(Phase::parse).unwrap_or(Phase::Action);
        let to = defined_call(definition, step, phase).map_or(step, |call| call.participant.as_str());
        sequence.call(to, &format!("{step} {rest}"));
    }
    sequence.note(end);
    sequence.render(title)
}
