//! What is done to coordinators, ledgers, their wires and Postgres; by plan.
//!
//! # Not here
//! Plans, read or made by seed: `plan`. Doing it: `run`.

pub mod plan;
mod run;

pub use run::inflict;

use crate::moment::Moment;
use crate::standstill::Span;
use serde::{Deserialize, Serialize};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `kill -9`, and a new start afterwards.
    Kill,
    /// SIGSTOP, and SIGCONT afterwards.
    Freeze,
    /// The wire's connections are closed, and new ones too.
    Cut,
    /// The wire's connections carry nothing, and then carry on.
    BlackHole,
    /// The wire carries late, both ways.
    Delay,
    /// The kernel refuses every write to a file.
    FullDisk,
    /// `kill -9`, for good.
    Dead,
    /// Postgres is stopped in order and started again.
    Restart,
    /// Postgres crashes and recovers.
    Crash,
}

impl Kind {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Kill,
        Self::Freeze,
        Self::Cut,
        Self::BlackHole,
        Self::Delay,
        Self::FullDisk,
        Self::Dead,
        Self::Restart,
        Self::Crash,
    ];

    /// `kill -9`, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Freeze => "SIGSTOP",
            Self::Cut => "cut wire",
            Self::BlackHole => "black hole",
            Self::Delay => "slow wire",
            Self::FullDisk => "full disk",
            Self::Dead => "dead for good",
            Self::Restart => "Postgres restart",
            Self::Crash => "Postgres crash",
        }
    }

    /// True if it can be done to such a target.
    #[must_use]
    pub fn suits(self, class: Class) -> bool {
        match self {
            Self::Kill | Self::Freeze | Self::Cut | Self::BlackHole | Self::Delay => class != Class::Postgres,
            Self::FullDisk | Self::Dead => class == Class::Ledger,
            Self::Restart | Self::Crash => class == Class::Postgres,
        }
    }
}

/// What kind of thing is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A coordinator, or its wire to Postgres.
    Coordinator,
    /// A ledger, or its wire from the coordinators.
    Ledger,
    /// The database.
    Postgres,
}

/// The name of the database among targets.
pub const POSTGRES: &str = "postgres";

/// The names that can be hurt.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// The coordinators' names.
    pub coordinators: Vec<String>,
    /// The ledgers' names.
    pub ledgers: Vec<String>,
}

impl Targets {
    /// What a name stands for.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<Class> {
        if name == POSTGRES {
            return Some(Class::Postgres);
        }
        let among = |names: &[String]| names.iter().any(|other| other == name);
        match (among(&self.coordinators), among(&self.ledgers)) {
            (true, _) => Some(Class::Coordinator),
            (_, true) => Some(Class::Ledger),
            (false, false) => None,
        }
    }

    /// Every name, in the order of reports.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let postgres = [POSTGRES.to_owned()];
        self.coordinators.iter().chain(&postgres).chain(&self.ledgers).cloned().collect()
    }
}

/// A fault that has happened.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To whom.
    pub target: String,
    /// From when.
    pub from: Moment,
    /// Until when it was healed; [`Moment::MAX`] if it never was.
    pub until: Moment,
}

impl Fault {
    /// When it was.
    #[must_use]
    pub fn span(&self) -> Span {
        Span { from: self.from, until: self.until }
    }
}
