//! What was found, for people and as JSON.
//!
//! # Invariants
//! * A failure shows what was sent, what came, what should have come, and what goes wrong without it.
//! * Nothing that a service said reaches the terminal raw.

use super::Conformance;
use super::case::{Exchange, Finding};
use super::checks::Check;
use crate::cli::json::harmless;
use crate::cli::out::{Paint, Style};
use crate::cli::text::safe;
use serde_json::{Value, json};
use std::fmt::Write;

/// Most exchanges of one failure that people are shown; JSON has them all.
const SHOWN_EXCHANGES_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Fail,
    Skipped,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Skipped => "SKIPPED",
        }
    }
}

/// How a check ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// Why it was skipped.
    reason: String,
    expected: String,
    came: String,
    said: Vec<Exchange>,
}

impl Outcome {
    pub(super) fn of(found: Result<(), Finding>, said: Vec<Exchange>) -> Self {
        let empty = String::new;
        match found {
            Ok(()) => {
                Self { verdict: Verdict::Pass, reason: empty(), expected: empty(), came: empty(), said }
            }
            Err(Finding::Failed { expected, came }) => {
                Self { verdict: Verdict::Fail, reason: empty(), expected, came, said }
            }
            Err(Finding::Skipped(reason)) => {
                Self { verdict: Verdict::Skipped, reason, expected: empty(), came: empty(), said }
            }
        }
    }

    pub(super) fn skipped(reason: &str) -> Self {
        Self::of(Err(Finding::Skipped(reason.to_owned())), Vec::new())
    }
}

/// All checks of a run.
pub(super) struct Report {
    address: String,
    action: String,
    compensation: String,
    run: String,
    /// False if only replies could be judged.
    reads: bool,
    checks: Vec<(Check, Outcome)>,
}

impl Report {
    pub(super) fn new(args: &Conformance, run: &str) -> Self {
        Self {
            address: args.address.clone(),
            action: args.action.clone(),
            compensation: args.compensation.clone(),
            run: run.to_owned(),
            reads: args.read.is_some(),
            checks: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, check: Check, outcome: Outcome) {
        self.checks.push((check, outcome));
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|(_, outcome)| outcome.verdict == verdict).count()
    }

    pub(super) fn has_failures(&self) -> bool {
        self.count(Verdict::Fail) > 0
    }

    pub(super) fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        let head = format!("{} of {}, undone by {}", self.action, self.address, self.compensation);
        let _ = writeln!(out, "{}\nrun {}\n", paint.apply(Style::Bold, &safe(&head)), self.run);
        for (check, outcome) in &self.checks {
            let style = match outcome.verdict {
                Verdict::Pass => Style::Good,
                Verdict::Fail => Style::Bad,
                Verdict::Skipped => Style::Dim,
            };
            let about = check.about();
            let verdict = paint.apply(style, &format!("{:<7}", outcome.verdict.as_str()));
            let after = if outcome.verdict == Verdict::Skipped { &outcome.reason } else { about.promise };
            let _ = writeln!(out, "{verdict}  {:<36}  {}", about.name, safe(after));
            if outcome.verdict == Verdict::Fail {
                // Each saga's id bears the run's, which is long and says nothing here.
                out.push_str(&failure(*check, outcome, paint).replace(&self.run, "…"));
            }
        }
        let _ = writeln!(
            out,
            "\n{} passed, {} failed, {} skipped",
            self.count(Verdict::Pass),
            self.count(Verdict::Fail),
            self.count(Verdict::Skipped)
        );
        if !self.reads {
            out.push_str("replies were judged, not effects: --read shows a number that the action changes\n");
        }
        out
    }

    pub(super) fn json(&self) -> String {
        let checks: Vec<Value> =
            self.checks.iter().map(|(check, outcome)| as_json(*check, outcome)).collect();
        let report = json!({
            "address": self.address,
            "action": self.action,
            "compensation": self.compensation,
            "run": self.run,
            "effects_judged": self.reads,
            "checks": checks,
            "passed": self.count(Verdict::Pass),
            "failed": self.count(Verdict::Fail),
            "skipped": self.count(Verdict::Skipped),
        });
        harmless(&format!("{report:#}"))
    }
}

fn failure(check: Check, outcome: &Outcome, paint: Paint) -> String {
    let mut out = String::new();
    let mut line = |label: &str, text: &str| {
        let _ =
            writeln!(out, "           {}{}", paint.apply(Style::Dim, &format!("{label:<10}")), safe(text));
    };
    let hidden = outcome.said.len().saturating_sub(SHOWN_EXCHANGES_MAX);
    if hidden > 0 {
        line("", &format!("({hidden} more before these; --json has them all)"));
    }
    for exchange in outcome.said.iter().skip(hidden) {
        line("sent", &exchange.sent);
        line("  came", &exchange.came);
    }
    line("expected", &outcome.expected);
    line("found", &outcome.came);
    line("why", check.about().why);
    line("rule", &format!("{} of docs/participant-contract.md", check.about().rule));
    out
}

fn as_json(check: Check, outcome: &Outcome) -> Value {
    let about = check.about();
    let said: Vec<Value> =
        outcome.said.iter().map(|said| json!({ "sent": said.sent, "came": said.came })).collect();
    json!({
        "name": about.name,
        "rule": about.rule,
        "promise": about.promise,
        "why": about.why,
        "verdict": outcome.verdict.as_str(),
        "reason": outcome.reason,
        "expected": outcome.expected,
        "found": outcome.came,
        "exchanges": said,
    })
}
