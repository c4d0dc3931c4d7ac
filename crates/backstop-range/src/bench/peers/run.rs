//! The same closed loops over each peer that were run over Backstop, with the same clients and the same participants.

use super::{BRANCHES, Counted, Ground, Peer, Programs, Way};
use crate::bench::shape::Shape;
use crate::bench::{Bench, WARM, load, number, times};
use crate::report::{Kind, Report};
use anyhow::{Context, Result};
use backstop_sql::testing::Postgres;
use sqlx::{Connection, PgConnection, Row};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Runs them one after the other; each is gone before the next comes.
///
/// # Errors
/// If one does not come up, or cannot be asked.
pub(in crate::bench) async fn run(
    bench: &Bench,
    postgres: &Postgres,
    participants: &[SocketAddr],
    beside: &[(&'static str, Vec<u32>)],
    report: &mut Report,
) -> Result<()> {
    let programs = Programs::find(bench.peers_folder.clone())?;
    let folder = tempfile::tempdir()?;
    let participants: [SocketAddr; BRANCHES] = participants.try_into().context("three participants")?;
    let ground = Ground { postgres, participants, programs: &programs, folder: folder.path() };
    for wish in &bench.peers {
        let peer: Arc<dyn Peer> = super::start(wish, &ground).await?.into();
        let mut roots: Vec<(&'static str, Vec<u32>)> = vec![];
        for (name, pids) in beside.iter().filter(|(name, _)| *name != "coordinator") {
            roots.push((*name, pids.clone()));
        }
        roots.extend(peer.processes().into_iter().map(|(name, pid)| (name, vec![pid])));
        loops(bench, &peer, &roots, &ground, report).await?;
        let mut memory = Vec::new();
        for (name, pid) in peer.processes() {
            let rss = crate::vitals::of_process(i32::try_from(pid)?)?.rss_kb;
            memory.push(format!("{name} {:.1} MB", number(rss) / 1024.0));
        }
        if !memory.is_empty() {
            report.figure(&format!("{}: memory at the end", peer.name()), memory.join(", "));
        }
        peer.end().await?;
    }
    Ok(())
}

/// What a shape of ours is to a peer; none if no peer has the like.
fn way(shape: Shape) -> Option<Way> {
    match shape {
        Shape::Concurrent => Some(Way::Concurrent),
        Shape::Sequential => Some(Way::Sequential),
        Shape::RolledBack => Some(Way::RolledBack),
        Shape::Diamond => None,
    }
}

async fn loops(
    bench: &Bench,
    peer: &Arc<dyn Peer>,
    roots: &[(&'static str, Vec<u32>)],
    ground: &Ground<'_>,
    report: &mut Report,
) -> Result<()> {
    let mut counted = Counted::default();
    // One for each loop, so that no id comes twice at a peer.
    let mut round = 0;
    for &shape in &bench.shapes {
        let name = format!("{}: {}", peer.name(), format!("{shape:?}").to_lowercase());
        let Some(way) = way(shape).filter(|&way| peer.can(way)) else {
            report.figure(&name, "not asked of it");
            continue;
        };
        report.figure(&name, peer.said(way));
        let warm = (64, WARM);
        let measured =
            bench.in_flight.iter().map(|&in_flight| (in_flight, Duration::from_secs(bench.seconds)));
        for (place, (in_flight, time)) in std::iter::once(warm).chain(measured).enumerate() {
            round += 1;
            let wrong = Arc::new(Wrong::default());
            let run_one = {
                let (peer, wrong) = (Arc::clone(peer), Arc::clone(&wrong));
                move |id: String| {
                    let (peer, wrong) = (Arc::clone(&peer), Arc::clone(&wrong));
                    async move { wrong.look(peer.run_one(&id, way).await) }
                }
            };
            let before = (times(roots)?, Books::read(peer.as_ref(), ground).await?);
            let ran = load::closed(run_one, &format!("bench-{round}"), in_flight, time).await?;
            let after = (times(roots)?, Books::read(peer.as_ref(), ground).await?);
            match way {
                Way::Concurrent | Way::Sequential => counted.succeeded += ran.ended,
                Way::RolledBack => counted.rolled_back += ran.ended,
            }
            let ended_well = ran.failed == 0;
            report.check(
                Kind::Safety,
                "all sagas end as they should",
                ended_well,
                format!("{name}: {} did not{}", ran.failed, wrong.first()),
            );
            if place == 0 {
                continue;
            }
            let sagas = number(ran.ended);
            let spent = after.0.iter().zip(&before.0);
            let spent: Vec<(&str, f64)> = spent
                .map(|((name, after), (_, before))| (*name, (*after - *before).as_secs_f64() * 1e6 / sagas))
                .collect();
            let total: f64 = spent.iter().map(|(_, spent)| spent).sum();
            let spent: Vec<String> = spent.iter().map(|(name, spent)| format!("{name} {spent:.0}")).collect();
            let at = |q| number(ran.latency.value_at_quantile(q)) / 1e3;
            report.figure(
                &format!("{name}, {in_flight}"),
                format!(
                    "{:>6.0} sagas/s  p50 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.1} ms  processor us/saga {total:.0}: {}{}",
                    sagas / ran.took.as_secs_f64(),
                    at(0.5),
                    at(0.99),
                    at(0.999),
                    at(1.0),
                    spent.join(", "),
                    Books::between(before.1.as_ref(), after.1.as_ref(), sagas),
                ),
            );
        }
    }
    let checked = peer.check(counted).await;
    report.check(
        Kind::Safety,
        "a peer's books agree with what was counted",
        checked.is_ok(),
        checked.err().map_or_else(|| peer.name(), |error| format!("{}: {error:#}", peer.name())),
    );
    Ok(())
}

/// What the run's Postgres has done for a peer.
struct Books {
    commits: i64,
    wal_bytes: i64,
}

impl Books {
    /// None if it stores elsewhere.
    async fn read(peer: &dyn Peer, ground: &Ground<'_>) -> Result<Option<Self>> {
        let Some(database) = peer.database() else { return Ok(None) };
        // Sessions hand in what they have counted when they are idle, a second apart at most.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let mut connection = PgConnection::connect(&ground.postgres.url(database)).await?;
        let read = "SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint \
                    FROM pg_stat_database WHERE datname = current_database()";
        let row = sqlx::query(read).fetch_one(&mut connection).await?;
        Ok(Some(Self { commits: row.try_get(0)?, wal_bytes: row.try_get(1)? }))
    }

    fn between(before: Option<&Self>, after: Option<&Self>, sagas: f64) -> String {
        let (Some(before), Some(after)) = (before, after) else { return String::new() };
        let each = |count: i64| number(u64::try_from(count).unwrap_or(0)) / sagas;
        let (commits, wal) = (each(after.commits - before.commits), each(after.wal_bytes - before.wal_bytes));
        format!("  commits/saga {commits:.1} (those that only read included)  WAL {wal:.0} B/saga")
    }
}

/// The first thing that went wrong in a loop, so that a failed check says more than a number.
#[derive(Default)]
struct Wrong {
    first: std::sync::OnceLock<String>,
}

impl Wrong {
    fn look(&self, ended: Result<bool>) -> bool {
        match ended {
            Ok(true) => true,
            Ok(false) => self.note("it ended otherwise".to_owned()),
            Err(error) => self.note(format!("{error:#}")),
        }
    }

    fn note(&self, what: String) -> bool {
        self.first.get_or_init(|| what);
        false
    }

    fn first(&self) -> String {
        self.first.get().map(|what| format!(", the first: {what}")).unwrap_or_default()
    }
}
