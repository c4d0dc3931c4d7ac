//! What the hot paths cost, one case at a time: a saga's turns, a request from its template, rows, statuses, metadata.
//!
//! `cargo xtask instructions` counts each case's instructions and compares them with `instructions.toml`; `cargo bench -p
//! backstop-bench --profile instructions` times the same cases.
//!
//! # Invariants
//! * A case does the same each time: no clock, no random number, nothing kept from one run to the next.
//! * A case that does not come to the end that it is there for is not prepared: what is counted is the whole story
//!   (`every_case_comes_to_its_end`).
//!
//! # Not here
//! Whatever waits: sockets, disks, tasks. `backstop-range` measures those on real processes. How instructions are counted:
//! `xtask/src/instructions.rs`.

mod bank;
mod calls;
mod rows;
mod turns;

use std::fmt;

/// One thing that is measured.
pub struct Case {
    /// `core/diamond_of_eight` and the like.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    prepare: fn() -> Result<Run, Broken>,
}

/// A case, ready to be run any number of times.
pub type Run = Box<dyn Fn()>;

/// Why a case cannot be measured: what it is made of has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(String);

impl Case {
    /// Every case, in the order in which they are told.
    #[must_use]
    pub fn all() -> Vec<Self> {
        [turns::CASES, calls::CASES, rows::CASES].concat().into_iter().map(Self::of).collect()
    }

    fn of((name, about, prepare): Entry) -> Self {
        Self { name, about, prepare }
    }

    /// Makes all that the case needs, once, and checks that it does what it says.
    ///
    /// # Errors
    /// [`Broken`]: there is nothing to be measured.
    pub fn prepare(&self) -> Result<Run, Broken> {
        (self.prepare)()
    }
}

/// A row of a module's table of cases: name, what it is, how it is prepared.
type Entry = (&'static str, &'static str, fn() -> Result<Run, Broken>);

impl Broken {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What a part of the house says when it will not.
    fn by(error: impl fmt::Debug) -> Self {
        Self(format!("{error:?}"))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn require(holds: bool, otherwise: &str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(otherwise)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_comes_to_its_end() {
        let cases = Case::all();
        for case in &cases {
            let run = case.prepare().unwrap_or_else(|broken| panic!("{case}: {broken}"));
            run();
        }
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len(), "two cases have one name");
    }
}
