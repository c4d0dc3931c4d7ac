//! Carries a plan out.
//!
//! # Invariants
//! * Every fault but a death heals itself, also if the healing takes several tries; [`inflict`] answers when
//!   all have.

use super::plan::{Plan, Planned};
use super::{Fault, Kind, POSTGRES};
use crate::cluster::{Cluster, Member};
use crate::ledger::Ledger;
use crate::moment::{Moment, now};
use crate::proxy::{Proxy, Wire};
use anyhow::{Context, Result};
use backstop_sql::testing::Postgres;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Who is hurt.
#[derive(Clone)]
enum Victim {
    Coordinator(Member),
    Ledger(Arc<Ledger>),
    Postgres(Arc<Postgres>),
}

impl Victim {
    fn find(name: &str, cluster: &Cluster, ledgers: &[Arc<Ledger>]) -> Option<Self> {
        if name == POSTGRES {
            return Some(Self::Postgres(cluster.postgres()));
        }
        let member = cluster.members().iter().find(|member| member.coordinator.name() == name);
        let ledger = || ledgers.iter().find(|ledger| ledger.name() == name);
        member
            .map(|member| Self::Coordinator(member.clone()))
            .or_else(|| ledger().map(|ledger| Self::Ledger(Arc::clone(ledger))))
    }

    fn wire(&self) -> Option<&Proxy> {
        match self {
            Self::Coordinator(member) => Some(&member.proxy),
            Self::Ledger(ledger) => Some(ledger.proxy()),
            Self::Postgres(_) => None,
        }
    }

    fn set(&self, wire: Wire) {
        if let Some(proxy) = self.wire() {
            proxy.set(wire);
        }
    }
}

/// Inflicts all faults of a plan, each at its time from now; answers them in order once all are healed.
///
/// # Errors
/// If a target is not there, or one cannot be healed.
pub async fn inflict(plan: &Plan, cluster: &Cluster, ledgers: &[Arc<Ledger>]) -> Result<Vec<Fault>> {
    let begin = Instant::now();
    let mut under_way = JoinSet::new();
    for planned in plan.faults.clone() {
        let victim = Victim::find(&planned.target, cluster, ledgers)
            .with_context(|| format!("there is no {}", planned.target))?;
        under_way.spawn(async move {
            tokio::time::sleep_until(begin + planned.at()).await;
            let from = now();
            let until = one(&planned, &victim)
                .await
                .with_context(|| format!("{} of {}", planned.kind.title(), planned.target))?;
            Ok::<_, anyhow::Error>(Fault { kind: planned.kind, target: planned.target, from, until })
        });
    }
    let mut faults = Vec::new();
    while let Some(fault) = under_way.join_next().await {
        faults.push(fault??);
    }
    faults.sort_by_key(|fault| fault.from);
    Ok(faults)
}

/// Does it and heals it; answers when it was healed.
async fn one(planned: &Planned, victim: &Victim) -> Result<Moment> {
    hurt(planned, victim).await?;
    if planned.kind == Kind::Dead {
        return Ok(Moment::MAX);
    }
    tokio::time::sleep(planned.lasts()).await;
    let begun = now();
    heal(planned.kind, victim).await?;
    // What was frozen acts from the signal on, which may be some time before this process runs again.
    Ok(if planned.kind == Kind::Freeze { begun } else { now() })
}

async fn hurt(planned: &Planned, victim: &Victim) -> Result<()> {
    match (planned.kind, victim) {
        (Kind::Kill | Kind::Dead, Victim::Coordinator(member)) => member.coordinator.kill().await,
        (Kind::Kill | Kind::Dead, Victim::Ledger(ledger)) => ledger.kill().await,
        (Kind::Freeze, Victim::Coordinator(member)) => member.coordinator.freeze().await,
        (Kind::Freeze, Victim::Ledger(ledger)) => ledger.freeze().await,
        (Kind::FullDisk, Victim::Ledger(ledger)) => ledger.fill_disk(true).await,
        (Kind::Restart, Victim::Postgres(postgres)) => restart(postgres, false).await,
        (Kind::Crash, Victim::Postgres(postgres)) => restart(postgres, true).await,
        (Kind::Cut, victim) => {
            victim.set(Wire::Refusing);
            Ok(())
        }
        (Kind::BlackHole, victim) => {
            victim.set(Wire::BlackHole);
            Ok(())
        }
        (Kind::Delay, victim) => {
            let ms = Duration::from_millis;
            victim.set(Wire::Slow { delay: ms(planned.delay_ms), jitter: ms(planned.jitter_ms) });
            Ok(())
        }
        // Plans are checked when they are made.
        (kind, _) => anyhow::bail!("{} does not suit {}", kind.title(), planned.target),
    }
}

async fn heal(kind: Kind, victim: &Victim) -> Result<()> {
    match (kind, victim) {
        (Kind::Kill, Victim::Coordinator(member)) => member.coordinator.start().await,
        (Kind::Kill, Victim::Ledger(ledger)) => ledger.start().await,
        (Kind::Freeze, Victim::Coordinator(member)) => member.coordinator.thaw().await,
        (Kind::Freeze, Victim::Ledger(ledger)) => ledger.thaw().await,
        (Kind::FullDisk, Victim::Ledger(ledger)) => ledger.fill_disk(false).await,
        (_, victim) => {
            victim.set(Wire::Sound);
            Ok(())
        }
    }
}

async fn restart(postgres: &Arc<Postgres>, by_crash: bool) -> Result<()> {
    let postgres = Arc::clone(postgres);
    let restarted = tokio::task::spawn_blocking(move || {
        if by_crash {
            postgres.kill()?;
        }
        postgres.restart()
    });
    restarted.await??;
    Ok(())
}
