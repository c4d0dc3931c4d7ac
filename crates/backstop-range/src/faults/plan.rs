//! Which fault comes when: read from a TOML file, or made from a seed. The same plan gives the same faults.
//!
//! # Invariants
//! * Made by seed: at any time one coordinator at least is untouched, but for what happens to Postgres; no
//!   target has two faults at once; the first faults are one of each kind, so that a run of a minute or so
//!   has had them all; one that is to die is left alone around its death and afterwards (tests here).
//! * Read: every fault of the file is told at once, by its number.

use super::{Class, Kind, POSTGRES, Targets};
use crate::rng::Rng;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::time::Duration;

/// Faults that a plan may hold.
const FAULTS_MAX: usize = 10_000;
/// How long one that was healed still counts as touched: it needs its lease again, or its connections.
const RECOVERY: Duration = Duration::from_secs(2);
/// How late a slow wire is, each way.
const DELAY_MS: u64 = 60;
/// How much later at most.
const JITTER_MS: u64 = 60;

/// A fault to come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Seconds after the load begins.
    pub at_s: f64,
    /// What.
    pub kind: Kind,
    /// To whom: `A`, `ledger_1`, `postgres`.
    pub target: String,
    /// How long. Postgres takes as long as it takes; the dead stay dead.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lasts_s: f64,
    /// For a slow wire: how late it is, each way.
    #[serde(default = "delay_ms", skip_serializing_if = "is_delay")]
    pub delay_ms: u64,
    /// For a slow wire: how much later at most.
    #[serde(default = "jitter_ms", skip_serializing_if = "is_jitter")]
    pub jitter_ms: u64,
}

fn is_zero(seconds: &f64) -> bool {
    *seconds <= 0.0
}

fn delay_ms() -> u64 {
    DELAY_MS
}

fn is_delay(ms: &u64) -> bool {
    *ms == DELAY_MS
}

fn jitter_ms() -> u64 {
    JITTER_MS
}

fn is_jitter(ms: &u64) -> bool {
    *ms == JITTER_MS
}

impl Planned {
    fn of(at: Duration, kind: Kind, target: &str, lasts: Duration) -> Self {
        let (at_s, lasts_s) = (at.as_secs_f64(), lasts.as_secs_f64());
        Self { at_s, kind, target: target.to_owned(), lasts_s, delay_ms: DELAY_MS, jitter_ms: JITTER_MS }
    }

    /// When.
    #[must_use]
    pub fn at(&self) -> Duration {
        seconds(self.at_s)
    }

    /// How long.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        seconds(self.lasts_s)
    }

    fn ends(&self) -> Duration {
        if self.kind == Kind::Dead { Duration::MAX } else { self.at() + self.lasts() }
    }
}

/// Nonsense was refused when the plan was read.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Faults in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Each.
    #[serde(rename = "fault", default)]
    pub faults: Vec<Planned>,
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// If it is no TOML of this shape, or cannot be done to these targets; names every fault of the file.
    pub fn read(text: &str, targets: &Targets) -> Result<Self> {
        let mut plan: Self = toml::from_str(text)?;
        let mut wrong = String::new();
        for (number, fault) in (1..).zip(&plan.faults) {
            for problem in problems(fault, targets) {
                // Writing to a String cannot fail.
                let _ = write!(wrong, "\n  fault {number}: {problem}");
            }
        }
        plan.faults.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        for (place, fault) in plan.faults.iter().enumerate() {
            let earlier = plan.faults.iter().take(place).filter(|other| other.target == fault.target);
            if let Some(other) = earlier.into_iter().find(|other| other.ends() > fault.at()) {
                let _ = write!(
                    wrong,
                    "\n  {} at {} s: {} has a {} since {} s that is not over",
                    fault.kind.title(),
                    fault.at_s,
                    fault.target,
                    other.kind.title(),
                    other.at_s
                );
            }
        }
        if plan.faults.len() > FAULTS_MAX {
            let _ = write!(wrong, "\n  {} faults; at most {FAULTS_MAX}", plan.faults.len());
        }
        if !wrong.is_empty() {
            bail!("the plan cannot be carried out:{wrong}");
        }
        Ok(plan)
    }

    /// As a file that [`Plan::read`] takes.
    ///
    /// # Errors
    /// Never for a plan that was made or read here.
    pub fn text(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// Whom it lets die.
    pub fn dead(&self) -> impl Iterator<Item = &str> {
        let dead = self.faults.iter().filter(|fault| fault.kind == Kind::Dead);
        dead.map(|fault| fault.target.as_str())
    }
}

fn problems(fault: &Planned, targets: &Targets) -> Vec<String> {
    let mut found = Vec::new();
    match targets.class(&fault.target) {
        None => found.push(format!("target \"{}\" is none of {}", fault.target, targets.all().join(", "))),
        Some(class) if !fault.kind.suits(class) => {
            found.push(format!("{} cannot be done to {}", fault.kind.title(), fault.target));
        }
        Some(_) => {}
    }
    if Duration::try_from_secs_f64(fault.at_s).is_err() {
        found.push(format!("at_s is {}", fault.at_s));
    }
    let lasts = !matches!(fault.kind, Kind::Dead | Kind::Restart | Kind::Crash);
    if Duration::try_from_secs_f64(fault.lasts_s).is_err() || (lasts && fault.lasts_s <= 0.0) {
        found.push(format!("lasts_s is {}", fault.lasts_s));
    }
    found
}

/// What a plan by seed is made for.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// What it follows from.
    pub seed: u64,
    /// How long faults go on.
    pub length: Duration,
    /// From one to the next.
    pub every: Duration,
    /// Whether a ledger dies for good in the first half.
    pub dead_ledger: bool,
}

/// Everything that a plan by seed draws from.
const DRAWN: [(Class, Kind); 13] = [
    (Class::Coordinator, Kind::Kill),
    (Class::Coordinator, Kind::Freeze),
    (Class::Coordinator, Kind::Cut),
    (Class::Coordinator, Kind::BlackHole),
    (Class::Coordinator, Kind::Delay),
    (Class::Ledger, Kind::Kill),
    (Class::Ledger, Kind::Freeze),
    (Class::Ledger, Kind::Cut),
    (Class::Ledger, Kind::BlackHole),
    (Class::Ledger, Kind::Delay),
    (Class::Ledger, Kind::FullDisk),
    (Class::Postgres, Kind::Restart),
    (Class::Postgres, Kind::Crash),
];

fn lasts(kind: Kind) -> Duration {
    match kind {
        Kind::Dead | Kind::Restart | Kind::Crash => Duration::ZERO,
        Kind::Kill => Duration::from_secs(2),
        Kind::FullDisk => Duration::from_secs(6),
        Kind::Cut | Kind::BlackHole => Duration::from_secs(8),
        Kind::Delay => Duration::from_secs(10),
        // More than twice the lease.
        Kind::Freeze => Duration::from_secs(12),
    }
}

/// Makes a plan.
#[must_use]
pub fn by_seed(wish: &Wish, targets: &Targets) -> Plan {
    let mut rng = Rng::of(wish.seed, &["faults"]);
    let mut faults = Vec::new();
    if wish.dead_ledger
        && let Some(ledger) = rng.pick(&targets.ledgers)
    {
        // Between a quarter and a half: there is load before it and after it.
        let quarter = u64::try_from(wish.length.as_millis()).unwrap_or(u64::MAX) / 4;
        let at = Duration::from_millis(quarter + rng.below(quarter));
        faults.push(Planned::of(at, Kind::Dead, ledger, Duration::ZERO));
    }
    let mut first = DRAWN.to_vec();
    // Fisher and Yates.
    for last in (1..first.len()).rev() {
        let other = usize::try_from(rng.below(last as u64 + 1)).unwrap_or_default();
        first.swap(last, other);
    }
    let mut at = wish.every;
    while at < wish.length && faults.len() < FAULTS_MAX {
        let (class, kind) = match first.pop() {
            Some(drawn) => drawn,
            None => rng.pick(&DRAWN).copied().unwrap_or((Class::Coordinator, Kind::Kill)),
        };
        match victim(&mut rng, &faults, targets, class, at, lasts(kind)) {
            Some(target) => faults.push(Planned::of(at, kind, &target, lasts(kind))),
            // Its turn comes again, after the others'.
            None => first.insert(0, (class, kind)),
        }
        at += wish.every;
    }
    faults.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    Plan { faults }
}

/// Somebody who is well all the time, and not the last coordinator who is.
fn victim(
    rng: &mut Rng,
    faults: &[Planned],
    targets: &Targets,
    class: Class,
    at: Duration,
    lasts: Duration,
) -> Option<String> {
    let is_touched = |target: &str| {
        let own = faults.iter().filter(|fault| fault.target == target);
        own.into_iter()
            .any(|fault| fault.at() < at + lasts + RECOVERY && at < fault.ends().saturating_add(RECOVERY))
    };
    let (among, spare) = match class {
        Class::Coordinator => (targets.coordinators.clone(), 1),
        Class::Ledger => (targets.ledgers.clone(), 0),
        Class::Postgres => (vec![POSTGRES.to_owned()], 0),
    };
    let well: Vec<String> = among.into_iter().filter(|target| !is_touched(target)).collect();
    if well.len() <= spare { None } else { rng.pick(&well).cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Targets {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Targets {
            coordinators: names(&["A", "B", "C"]),
            ledgers: names(&["ledger_0", "ledger_1", "ledger_2"]),
        }
    }

    fn made(seed: u64, dead_ledger: bool) -> Plan {
        let (length, every) = (Duration::from_secs(300), Duration::from_secs(3));
        by_seed(&Wish { seed, length, every, dead_ledger }, &targets())
    }

    #[test]
    fn a_seed_makes_one_plan_and_its_text_reads_back() {
        assert_eq!(made(1, true), made(1, true));
        assert_ne!(made(1, true), made(2, true));
        let plan = made(3, true);
        assert_eq!(Plan::read(&plan.text().unwrap(), &targets()).unwrap(), plan);
    }

    #[test]
    fn one_coordinator_is_always_untouched_and_nobody_suffers_twice_at_once() {
        for seed in 0..50 {
            let plan = made(seed, seed % 2 == 0);
            for moment in (0..330).map(Duration::from_secs) {
                let now: Vec<_> =
                    plan.faults.iter().filter(|f| f.at() <= moment && moment < f.ends()).collect();
                let mut hurt: Vec<_> = now.iter().map(|fault| fault.target.as_str()).collect();
                hurt.sort_unstable();
                let count = hurt.len();
                hurt.dedup();
                assert_eq!(hurt.len(), count, "seed {seed} at {moment:?}: {now:?}");
                let coordinators = hurt.iter().filter(|name| name.len() == 1).count();
                assert!(coordinators < 3, "seed {seed} at {moment:?}: {now:?}");
            }
        }
    }

    #[test]
    fn a_plan_of_a_minute_and_more_has_every_kind_and_the_dead_are_left_alone() {
        for seed in 0..50 {
            let plan = made(seed, true);
            for kind in Kind::ALL {
                assert!(plan.faults.iter().any(|fault| fault.kind == kind), "seed {seed}: no {kind:?}");
            }
            let dead = plan.faults.iter().find(|fault| fault.kind == Kind::Dead).unwrap();
            assert!((75.0..150.0).contains(&dead.at_s));
            let later = plan.faults.iter().filter(|f| f.target == dead.target && f.at_s > dead.at_s);
            assert_eq!(later.count(), 0, "seed {seed}");
        }
    }

    #[test]
    fn every_fault_of_a_file_is_told_at_once() {
        let text = "
            [[fault]]
            at_s = 1
            kind = \"freeze\"
            target = \"A\"
            lasts_s = 5
            [[fault]]
            at_s = 3
            kind = \"kill\"
            target = \"A\"
            lasts_s = 1
            [[fault]]
            at_s = 3
            kind = \"full-disk\"
            target = \"B\"
            lasts_s = -1
            [[fault]]
            at_s = 3
            kind = \"dead\"
            target = \"ledger_9\"
        ";
        let error = Plan::read(text, &targets()).unwrap_err().to_string();
        for part in [
            "fault 3: full disk cannot be done to B",
            "fault 3: lasts_s is -1",
            "fault 4: target \"ledger_9\" is none of A, B, C, postgres, ledger_0",
            "kill -9 at 3 s: A has a SIGSTOP since 1 s that is not over",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(Plan::read("[[fault]]\nat = 3", &targets()).is_err());
    }
}
