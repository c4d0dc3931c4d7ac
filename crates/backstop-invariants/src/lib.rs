//! What must never happen to a saga, written once: a [`Witness`] stands outside, sees the journal grow and what goes
//! over the network, and says which promise is broken.
//!
//! The model checker, the explorer of the rules and the simulator all judge by it. It is a second account of the
//! rules, not a call to the first: of `backstop-core` it uses the words (events, definitions, ids) and never the
//! judgement (`decide`, `apply`, `agenda`, the order of undoing, the meaning of a status).
//!
//! # Invariants
//! * Every invariant has a history made by hand that breaks it, and nothing else does (`tests/histories.rs`).
//! * What a coordinator believes is not looked at: only what is durable, what left, and what participants' books say.
//!
//! # Not here
//! Worlds in which things happen: `backstop-model`, `backstop-sim`. The range's oracles, which see real processes.

mod branch;
mod kinds;
mod money;
mod seen;
mod witness;

pub use kinds::{KINDS, kind_name};
pub use money::{Money, money};
pub use seen::{Did, Seen, Sent};
pub use witness::Witness;

use std::fmt;

/// A promise, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// *A saga both commits and compensates; or its decision changes.* Also: after ROLLBACK_DECIDED somebody who can
    /// know of it calls an action; it commits with a step not done; something happens after its end.
    I1,
    /// *An accepted saga is lost, or hangs with nothing pending and no intervention.*
    I2,
    /// *An acknowledged event is missing after any crash.* Also: one is acknowledged that is not durable.
    I3,
    /// *A step's action is first called before all its dependencies' successes are durable.*
    I4,
    /// *A branch is compensated before a branch that depends on it is done compensating.* Under LIFO: before one that
    /// completed later, or beside another. Under CONCURRENT nothing is promised.
    I5,
    /// *A branch whose effect is known to be none, or that cannot have been sent, is compensated; one that may have
    /// been sent and is not known to have had no effect is not.* Also: it is rolled back and the books say otherwise.
    I6,
    /// *A compensation runs, or a signal goes out, before ROLLBACK_DECIDED is durable.*
    I7,
    /// *After the pivot succeeded anything is compensated.* Also: a rollback is decided while the pivot has taken
    /// effect, or may have, or it takes effect afterwards.
    I8,
    /// *Two calls with one idempotency key differ in method or request.* Also: a step takes effect twice; what may be
    /// done already is sent again to a participant that cannot tell the two apart.
    I9,
    /// *Two coordinators both append to a saga at one seq; or a fenced one's event survives.*
    I10,
    /// *Lamport order contradicts the DAG.* A dependency's success < its dependent's call; on the way back the other
    /// way round; every event later than the one before it, and every answer's later than its call.
    I11,
    /// *Money: the sum over all accounts changes once the range is quiet; pending counts below zero; net flow between
    /// nodes not zero.* Over many sagas: see [`money`].
    I12,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
    ];

    /// What it says must not happen, in a line.
    #[must_use]
    pub fn forbids(self) -> &'static str {
        match self {
            Self::I1 => "a saga both commits and compensates, or its decision changes",
            Self::I2 => "an accepted saga is lost, or hangs with nothing pending and no intervention",
            Self::I3 => "an acknowledged event is missing after a crash",
            Self::I4 => "an action is called before its dependencies' successes are durable",
            Self::I5 => "a branch is compensated before one that depends on it is done compensating",
            Self::I6 => "what had no effect is compensated, or what may have had one is not",
            Self::I7 => "a compensation or signal goes out before ROLLBACK_DECIDED is durable",
            Self::I8 => "something is compensated though the pivot succeeded",
            Self::I9 => "two calls with one idempotency key mean two things",
            Self::I10 => "two coordinators append at one seq, or a fenced one's event survives",
            Self::I11 => "Lamport order contradicts the DAG",
            Self::I12 => "money is made or lost",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Violation {
    /// Which promise.
    pub invariant: Invariant,
    /// What happened.
    pub what: String,
}

impl Violation {
    pub(crate) fn of(invariant: Invariant, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

/// Fails with this violation unless it holds.
pub(crate) fn must(
    holds: bool,
    invariant: Invariant,
    otherwise: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::of(invariant, otherwise())) }
}
