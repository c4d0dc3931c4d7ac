//! Faults by seed: one every few seconds, on a coordinator that is well, and never on all at once.
//!
//! # Invariants
//! * At any time at least one coordinator is untouched, but for a restart of Postgres.
//! * The first faults are one of each kind, so that a run of a minute has had them all.
//! * Every fault heals itself; [`Faults::end`] waits until all have.

use crate::cluster::{Cluster, Member};
use crate::moment::{Moment, now};
use crate::proxy::Wire;
use crate::rng::Rng;
use anyhow::Result;
use backstop_sql::testing::Postgres;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a killed coordinator stays down.
const DOWN: Duration = Duration::from_secs(2);
/// How long one is frozen.
const FROZEN: Duration = Duration::from_secs(12);
/// How long a wire is cut.
const CUT: Duration = Duration::from_secs(8);
/// How long one that was healed still counts as touched: it needs its lease again.
const RECOVERY: Duration = Duration::from_secs(2);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `kill -9`, and a new start two seconds later.
    Kill,
    /// SIGSTOP, and SIGCONT twelve seconds later.
    Freeze,
    /// Its connections to Postgres are closed and refused for eight seconds.
    Refuse,
    /// Its connections to Postgres carry nothing for eight seconds, and then carry on.
    BlackHole,
    /// Postgres is stopped in order and started again.
    Restart,
    /// Postgres crashes and recovers.
    Crash,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Kill, Self::Freeze, Self::Refuse, Self::BlackHole, Self::Restart, Self::Crash];

    /// True if it is Postgres that suffers.
    #[must_use]
    pub fn is_of_postgres(self) -> bool {
        matches!(self, Self::Restart | Self::Crash)
    }
}

/// A fault that has happened.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To whom: a coordinator's name, or `postgres`.
    pub whom: String,
    /// From when.
    pub from: Moment,
    /// Until when it was healed.
    pub until: Moment,
}

/// The faults of a run.
pub struct Faults {
    rng: Rng,
    members: Vec<Member>,
    postgres: Arc<Postgres>,
    /// Until when each coordinator counts as touched.
    touched: Vec<Option<Instant>>,
    first: Vec<Kind>,
    under_way: JoinSet<Result<Fault>>,
    skipped: u32,
}

impl Faults {
    /// None yet.
    #[must_use]
    pub fn new(seed: u64, cluster: &Cluster) -> Self {
        let mut rng = Rng::of(seed, &["faults"]);
        let mut first = Kind::ALL.to_vec();
        // Fisher and Yates.
        for last in (1..first.len()).rev() {
            let other = usize::try_from(rng.below(last as u64 + 1)).unwrap_or_default();
            first.swap(last, other);
        }
        let members = cluster.members().to_vec();
        let touched = vec![None; members.len()];
        Self {
            rng,
            members,
            postgres: cluster.postgres(),
            touched,
            first,
            under_way: JoinSet::new(),
            skipped: 0,
        }
    }

    /// Lets one happen every so often until the time is over.
    pub async fn run(&mut self, every: Duration, until: Instant) {
        loop {
            let next = Instant::now() + every;
            if next >= until {
                return;
            }
            tokio::time::sleep_until(next).await;
            self.one();
        }
    }

    fn one(&mut self) {
        let kind = match self.first.pop() {
            Some(kind) => kind,
            None => self.rng.pick(&Kind::ALL).copied().unwrap_or(Kind::Kill),
        };
        if kind.is_of_postgres() {
            self.under_way.spawn(postgres(kind, Arc::clone(&self.postgres)));
            return;
        }
        let Some((place, member)) = self.victim() else {
            // Its turn comes again, after the others'.
            self.first.insert(0, kind);
            self.skipped += 1;
            return;
        };
        let lasts = match kind {
            Kind::Kill | Kind::Restart | Kind::Crash => DOWN,
            Kind::Freeze => FROZEN,
            Kind::Refuse | Kind::BlackHole => CUT,
        };
        if let Some(touched) = self.touched.get_mut(place) {
            *touched = Some(Instant::now() + lasts + RECOVERY);
        }
        self.under_way.spawn(one_coordinator(kind, member, lasts));
    }

    /// Somebody who is well, unless nobody else is.
    fn victim(&mut self) -> Option<(usize, Member)> {
        let now = Instant::now();
        let is_well = |until: &Option<Instant>| until.is_none_or(|until| until <= now);
        let places = self.touched.iter().enumerate().filter(|(_, until)| is_well(until));
        let well: Vec<usize> = places.map(|(place, _)| place).collect();
        if well.len() < 2 {
            return None;
        }
        let place = *self.rng.pick(&well)?;
        Some((place, self.members.get(place)?.clone()))
    }

    /// Waits until all are healed; answers them in order, and how many found nobody who could be touched.
    ///
    /// # Errors
    /// If one cannot be healed.
    pub async fn end(mut self) -> Result<(Vec<Fault>, u32)> {
        let mut faults = Vec::new();
        while let Some(fault) = self.under_way.join_next().await {
            faults.push(fault??);
        }
        faults.sort_by_key(|fault| fault.from);
        Ok((faults, self.skipped))
    }
}

async fn one_coordinator(kind: Kind, member: Member, lasts: Duration) -> Result<Fault> {
    let from = now();
    let Member { coordinator, proxy } = &member;
    match kind {
        Kind::Freeze => coordinator.freeze().await?,
        Kind::Refuse => proxy.set(Wire::Refusing),
        Kind::BlackHole => proxy.set(Wire::BlackHole),
        Kind::Kill | Kind::Restart | Kind::Crash => coordinator.kill().await?,
    }
    tokio::time::sleep(lasts).await;
    match kind {
        Kind::Freeze => coordinator.thaw().await?,
        Kind::Refuse | Kind::BlackHole => proxy.set(Wire::Sound),
        Kind::Kill | Kind::Restart | Kind::Crash => coordinator.start().await?,
    }
    Ok(Fault { kind, whom: coordinator.name().to_owned(), from, until: now() })
}

async fn postgres(kind: Kind, postgres: Arc<Postgres>) -> Result<Fault> {
    let from = now();
    let restarted = tokio::task::spawn_blocking(move || {
        if kind == Kind::Crash {
            postgres.kill()?;
        }
        postgres.restart()
    });
    restarted.await??;
    Ok(Fault { kind, whom: "postgres".to_owned(), from, until: now() })
}
