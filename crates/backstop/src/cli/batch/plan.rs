//! What a batch is about to do, and what became of it: values and how they are shown. Pure.
//!
//! Invariant: every target is counted under exactly one outcome (`the_counts_add_up`).

use super::order::{Order, Word};
use crate::cli::out::{Paint, Style};
use crate::cli::text::{Cell, table};
use serde_json::{Value, json};
use std::fmt::Write;

/// One saga, or one branch of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// The saga.
    pub(crate) saga: String,
    /// The branch, if one is meant.
    pub(crate) step: String,
    /// `transfer@3`.
    pub(crate) definition: String,
    /// What is known of it, for whoever agrees: its state, or why it waits.
    pub(crate) about: String,
}

/// What is going to be done, to whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// In the order in which it will be done.
    pub(crate) targets: Vec<Target>,
    /// More fit than were taken.
    pub(crate) is_cut: bool,
    /// Branches that wait, but of which the resolution cannot be true.
    pub(crate) unfit: usize,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Not tried, or not yet.
    Untried,
    /// Done now.
    Done,
    /// It needed no doing any more.
    Already(String),
    /// It may not be.
    Refused(String),
    /// No answer: it may have been done.
    Silent(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Untried => "not tried",
            Self::Done => "done",
            Self::Already(_) => "already done",
            Self::Refused(_) => "refused",
            Self::Silent(_) => "no answer",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Untried | Self::Done => "",
            Self::Already(why) | Self::Refused(why) | Self::Silent(why) => why,
        }
    }

    fn style(&self) -> Style {
        match self {
            Self::Done | Self::Already(_) => Style::Good,
            Self::Untried | Self::Silent(_) => Style::Warn,
            Self::Refused(_) => Style::Bad,
        }
    }
}

/// A target with what became of it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) target: Target,
    pub(super) outcome: Outcome,
}

/// What became of a plan.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) targets: Vec<Told>,
    is_cut: bool,
}

impl Plan {
    fn is_of_branches(&self) -> bool {
        self.targets.iter().any(|target| !target.step.is_empty())
    }

    /// `1 branch was`, `12 sagas were`.
    pub(super) fn counted(&self) -> String {
        let what = if self.is_of_branches() { ("branch", "branches") } else { ("saga", "sagas") };
        match self.targets.len() {
            1 => format!("1 {} was", what.0),
            count => format!("{count} {} were", what.1),
        }
    }

    /// The targets, then their number.
    pub(super) fn table(&self, paint: Paint) -> String {
        let mut out = String::new();
        if !self.targets.is_empty() {
            let rows = self.targets.iter().map(|target| {
                [
                    Cell::from(target.saga.as_str()),
                    Cell::from(target.step.as_str()),
                    Cell::from(target.definition.as_str()),
                    Cell::from(target.about.as_str()),
                ]
            });
            out = table(["SAGA", "STEP", "DEFINITION", "NOW"], rows.collect(), paint);
            out.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{} found", self.counted());
        if self.is_cut {
            out.push_str(
                "there are more: --limit takes more, or the same command takes the rest afterwards\n",
            );
        }
        if self.unfit > 0 {
            let _ = writeln!(out, "left out: {} of which that resolution cannot be true", self.unfit);
        }
        out
    }
}

impl Report {
    /// Before anything is done.
    pub(super) fn untouched(plan: Plan) -> Self {
        let untried = |target| Told { target, outcome: Outcome::Untried };
        Self { targets: plan.targets.into_iter().map(untried).collect(), is_cut: plan.is_cut }
    }

    /// True if each was done, now or before.
    pub(super) fn is_all_well(&self) -> bool {
        self.targets.iter().all(|told| matches!(told.outcome, Outcome::Done | Outcome::Already(_)))
    }

    fn count(&self, word: &str) -> usize {
        self.targets.iter().filter(|told| told.outcome.word() == word).count()
    }

    /// `37 of 120, 2 refused`.
    pub(super) fn progress(&self, tried: usize) -> String {
        let failed = match self.count("refused") + self.count("no answer") {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        format!("{tried} of {}{failed}", self.targets.len())
    }

    /// For whoever stopped it.
    pub(super) fn how_far(&self) -> String {
        let untried = self.count("not tried");
        format!(
            "stopped: {} of {} were tried; the same command takes what is left",
            self.targets.len() - untried,
            self.targets.len()
        )
    }

    /// Those that did not go well, and the count of each outcome.
    pub(super) fn summary(&self, paint: Paint) -> String {
        let mut out = String::new();
        let told = self.targets.iter().filter(|told| !told.outcome.detail().is_empty());
        let rows: Vec<_> = told
            .map(|Told { target, outcome }| {
                [
                    Cell::from(target.saga.as_str()),
                    Cell::from(target.step.as_str()),
                    Cell::styled(outcome.word(), outcome.style()),
                    Cell::from(outcome.detail()),
                ]
            })
            .collect();
        if !rows.is_empty() {
            out = table(["SAGA", "STEP", "OUTCOME", "WHY"], rows, paint);
            out.push('\n');
        }
        let counts = ["done", "already done", "refused", "no answer", "not tried"];
        let counts = counts.map(|word| format!("{word} {}", self.count(word)));
        out.push_str(&counts.join(", "));
        out
    }

    /// All of it as one JSON document.
    pub(super) fn document(&self, order: &Order, dry_run: bool) -> Value {
        let targets = self.targets.iter().map(|Told { target, outcome }| {
            json!({
                "sagaId": target.saga,
                "step": target.step,
                "definition": target.definition,
                "outcome": outcome.word().replace(' ', "_").to_uppercase(),
                "detail": outcome.detail(),
            })
        });
        let resolution = match order.word {
            Word::Cancel | Word::Retry => Value::Null,
            Word::Resolve(resolution) => resolution.as_str_name().into(),
        };
        json!({
            "verb": order.verb(),
            "by": order.by,
            "reason": order.reason,
            "resolution": resolution,
            "dryRun": dry_run,
            "found": self.targets.len(),
            "truncated": self.is_cut,
            "done": self.count("done"),
            "alreadyDone": self.count("already done"),
            "refused": self.count("refused"),
            "noAnswer": self.count("no answer"),
            "notTried": self.count("not tried"),
            "targets": targets.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(saga: &str) -> Target {
        Target { saga: saga.into(), definition: "transfer@1".into(), ..Target::default() }
    }

    fn report() -> Report {
        let outcomes = [
            Outcome::Done,
            Outcome::Done,
            Outcome::Already("BRANCH_NOT_WAITING: somebody was faster".into()),
            Outcome::Refused("PAST_PIVOT: it is past its pivot".into()),
            Outcome::Silent("no answer".into()),
            Outcome::Untried,
        ];
        let told = |(number, outcome)| Told { target: target(&format!("pay-{number}")), outcome };
        Report { targets: outcomes.into_iter().enumerate().map(told).collect(), is_cut: false }
    }

    #[test]
    fn the_counts_add_up() {
        let order = Order { by: "ann".into(), reason: "x".into(), word: Word::Cancel };
        let document = report().document(&order, false);
        let counts = ["done", "alreadyDone", "refused", "noAnswer", "notTried"];
        let counts = counts.map(|key| document[key].as_u64().unwrap_or(99));
        assert_eq!(counts, [2, 1, 1, 1, 1]);
        assert_eq!(document["found"].as_u64(), Some(counts.iter().sum()));
        assert_eq!(document["targets"][3]["outcome"], "REFUSED");
        assert_eq!(document["targets"][5]["outcome"], "NOT_TRIED");
    }

    #[test]
    fn the_summary_names_what_did_not_go_as_it_should() {
        assert_eq!(
            report().summary(Paint::OFF),
            "\
SAGA   STEP  OUTCOME       WHY
pay-2  -     already done  BRANCH_NOT_WAITING: somebody was faster
pay-3  -     refused       PAST_PIVOT: it is past its pivot
pay-4  -     no answer     no answer

done 2, already done 1, refused 1, no answer 1, not tried 1"
        );
        assert_eq!(report().progress(5), "5 of 6, 2 failed");
        assert_eq!(report().how_far(), "stopped: 5 of 6 were tried; the same command takes what is left");
        assert!(!report().is_all_well());
    }

    #[test]
    fn a_plan_says_what_it_leaves_out() {
        let plan = Plan { targets: vec![target("pay-1")], is_cut: true, unfit: 3 };
        let shown = plan.table(Paint::OFF);
        assert!(shown.contains("1 saga was found\nthere are more: --limit"), "{shown}");
        assert!(shown.contains("left out: 3"), "{shown}");
        assert_eq!(Plan::default().table(Paint::OFF), "0 sagas were found\n");
    }
}
