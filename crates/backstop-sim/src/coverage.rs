//! What a run has reached, and what it must reach to prove anything.
//!
//! # Invariants
//! * Whatever is in [`required`] and was never reached is named, and fails the run (`tests/seeds.rs`).

use backstop_invariants::KINDS;
use std::collections::BTreeMap;

/// What a coordinator was about when it was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// Writing events.
    Append,
    /// Writing that it has taken a saga over.
    Adopt,
    /// Writing that it lets go of a saga.
    Release,
    /// Renewing its lease.
    Renew,
    /// Entering the list of coordinators.
    Enter,
    /// Saying that it is about to leave.
    Drain,
    /// Leaving.
    Leave,
    /// Looking for sagas that nobody drives.
    Look,
    /// An action.
    Action,
    /// A compensation.
    Compensation,
    /// A query.
    Query,
    /// A rollback signal.
    Signal,
    /// A person's word, carried to another coordinator.
    Command,
}

/// How far it had come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum When {
    /// Decided, and nothing has left.
    Before,
    /// It has left and not arrived.
    OnTheWay,
    /// It is done (durable, booked, carried out), and the answer has not come.
    Done,
    /// The answer has come, and nothing has followed from it.
    Answered,
}

/// A point at which a coordinator may crash.
pub(crate) type Point = (What, When);

/// Every point.
pub(crate) fn points() -> Vec<Point> {
    use What::{
        Action, Adopt, Append, Command, Compensation, Drain, Enter, Leave, Look, Query, Release, Renew,
        Signal,
    };
    use When::{Answered, Before, Done, OnTheWay};
    let whole =
        [Append, Adopt, Release, Renew, Enter, Drain, Leave, Action, Compensation, Query, Signal, Command];
    let mut all: Vec<Point> = whole
        .into_iter()
        .flat_map(|what| [Before, OnTheWay, Done, Answered].map(|when| (what, when)))
        .collect();
    // A read changes nothing: there is no difference between on the way and done.
    all.extend([(Look, Before), (Look, Answered)]);
    all
}

/// `append: durable, not answered` and the like.
pub(crate) fn point_name((what, when): Point) -> String {
    let when = match when {
        When::Before => "before",
        When::OnTheWay => "on the way",
        When::Done => "done, not answered",
        When::Answered => "answered",
    };
    format!("{}: {when}", format!("{what:?}").to_lowercase())
}

/// Everything that is counted, by group and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, String), u64>,
}

/// The groups, in the order in which they are printed.
pub const GROUPS: [&str; 8] = [
    "crash point",
    "durable before a crash",
    "fault",
    "said",
    "saga ended",
    "branch was",
    "heard by a client",
    "world",
];

impl Coverage {
    pub(crate) fn count(&mut self, group: &'static str, name: impl Into<String>) {
        self.count_many(group, name, 1);
    }

    pub(crate) fn count_many(&mut self, group: &'static str, name: impl Into<String>, times: u64) {
        *self.counts.entry((group, name.into())).or_default() += times;
    }

    /// Adds what another run has reached.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            *self.counts.entry(key.clone()).or_default() += count;
        }
    }

    /// What was counted in a group, by name.
    pub fn group(&self, group: &str) -> impl Iterator<Item = (&str, u64)> {
        self.counts
            .iter()
            .filter(move |((g, _), _)| *g == group)
            .map(|((_, name), count)| (name.as_str(), *count))
    }

    /// How often this was reached.
    #[must_use]
    pub fn of(&self, group: &'static str, name: &str) -> u64 {
        self.counts.get(&(group, name.to_owned())).copied().unwrap_or(0)
    }

    /// What should have been reached and was not, as `group: name`.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let never = required().into_iter().filter(|(group, name)| self.of(group, name) == 0);
        never.map(|(group, name)| format!("{group}: {name}")).collect()
    }
}

/// All that a set of seeds must reach.
fn required() -> Vec<(&'static str, String)> {
    use backstop_core::{BranchState, Code, SagaState};
    let group = |group: &'static str, names: &[&str]| {
        names.iter().map(move |name| (group, (*name).to_owned())).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = points().into_iter().map(|point| ("crash point", point_name(point))).collect();
    all.extend(group("durable before a crash", &KINDS));
    all.extend(group("fault", &crate::faults::NAMES));
    all.extend(Code::ALL.into_iter().map(|code| ("said", code.name().to_owned())));
    let ends = [SagaState::Succeeded, SagaState::RolledBack, SagaState::NeedsIntervention];
    all.extend(ends.into_iter().map(|state| ("saga ended", state.as_str().to_owned())));
    all.extend(BranchState::ALL.into_iter().map(|state| ("branch was", state.as_str().to_owned())));
    all.extend(group("heard by a client", &crate::clients::HEARD));
    all
}
