//! A million sagas wait for a far day: they must cost no memory and next to no time, and each must come
//! back on the minute.

use super::prompt;
use crate::bank::{Bank, Manner};
use crate::client::histogram;
use crate::cluster::Cluster;
use crate::definition;
use crate::moment::{micros, now};
use crate::planting::{Anew, Model};
use crate::process::eventually;
use crate::report::{Kind, Report};
use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, PgPool, Row};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The model's participant asks for this pause: longer than `park_after`, shorter than the planting, so that
/// the copies' next attempt is due when they are woken.
const PUSHBACK: Duration = Duration::from_secs(20);
/// Waits longer than this are parked, we ask.
const PARK_AFTER: &str = "2s";
/// Longest wait for the model to be parked.
const PARKED_WITHIN: Duration = Duration::from_secs(8);
/// Where the copies' wake-up times begin.
const FAR: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long the idle coordinator is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Sagas that are woken, one after the other.
const WOKEN: u64 = 20;
/// Longest wait for a woken one's call.
const CALLED_WITHIN: Duration = Duration::from_secs(30);

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Parked {
    /// Parked sagas
    #[arg(long, default_value_t = 1_000_000)]
    pub sagas: u64,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: PathBuf, parked: &Parked) -> Result<Report> {
    let mut report = Report::new(&format!("{} parked sagas", parked.sagas));
    let mut cluster = Cluster::start(&program).await?;
    let parks: &[(&str, &str)] = &[("BACKSTOP_LIMITS__PARK_AFTER", PARK_AFTER)];
    let settings = if cluster.accepts(parks).await? { parks } else { &[] };
    let first = cluster.add(settings).await?.coordinator;
    let bank = Bank::start(&["ledger_a"], prompt()).await?;
    let api = cluster.apis()?.into_iter().next().context("a coordinator")?;
    api.enlist(bank.endpoints(), 0).await?;
    api.define(definition::single(definition::SINGLE, "ledger_a", super::CALL_TIMEOUT)).await?;
    let pool = cluster.pool();

    bank.answers(Arc::new(
        |call| if call.attempt == 1 { Manner::PushesBack(PUSHBACK) } else { Manner::AtOnce },
    ));
    let pushed_back = now();
    api.start(definition::request("model", definition::SINGLE, 1, 1, 5)).await?;
    let by_itself = eventually("the model to be parked", PARKED_WITHIN, || is_parked(pool)).await.is_ok();
    report.figure("parked by itself", by_itself);
    report.check(
        Kind::Safety,
        "long waits are parked",
        by_itself,
        "it was not: the rest is measured on one handed over by SIGTERM",
    );
    let rss_before = first.vitals().await?.rss_kb;
    if !by_itself {
        first.terminate().await?;
        sqlx::query("UPDATE saga SET wake_at = coalesce(wake_at, updated_at) WHERE id = 'model'")
            .execute(pool)
            .await?;
    }
    let model = Model::take(pool, "model").await?;
    let planting = now();
    let far = planting + micros(FAR);
    model.plant("parked-", parked.sagas, &Anew { wake_at: Some(far), apart: false }).await?;
    report.duration("planted in", now() - planting);
    // The copies' next attempt is as old as the model's.
    let left = pushed_back + micros(PUSHBACK) + 1_000_000 - now();
    tokio::time::sleep(Duration::from_micros(u64::try_from(left).unwrap_or_default())).await;
    if !by_itself {
        first.start().await?;
    }
    // One that has just started answers its first questions first.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let from = first.vitals().await?;
    tokio::time::sleep(IDLE).await;
    let until = first.vitals().await?;
    report.figure("resident before, kB", rss_before);
    report.figure("resident after, kB", until.rss_kb);
    report.figure(
        "processor, idle",
        format!("{} ms in {} s", until.cpu_ms.saturating_sub(from.cpu_ms), IDLE.as_secs()),
    );
    report.figure("the takeover's question", explain(pool).await?);

    let mut waits = Vec::new();
    for number in 1..=WOKEN.min(parked.sagas) {
        let id = format!("parked-{number}");
        let woken = now();
        sqlx::query("UPDATE saga SET wake_at = $1 WHERE id = $2").bind(woken).bind(&id).execute(pool).await?;
        let came = || async { Ok(bank.record().find(|call| call.saga == id)) };
        match eventually("a woken saga's call", CALLED_WITHIN, came).await {
            Ok(call) => waits.push(call.arrived - woken),
            Err(error) => {
                report.check(Kind::Safety, "a woken saga calls", false, format!("{id}: {error}"));
                super::tell(&mut report, &id, std::slice::from_ref(&api), &bank).await;
                report.story([cluster.logs(30)]);
                break;
            }
        }
    }
    report.figure("woken", waits.len());
    report.latency("from wake-up time to call", &histogram(waits.into_iter()));
    Ok(report)
}

async fn is_parked(pool: &PgPool) -> Result<Option<()>> {
    let sql =
        "SELECT owner IS NULL AND wake_at IS NOT NULL AND state = 'RUNNING' FROM saga WHERE id = 'model'";
    let parked: bool = sqlx::query(sql).fetch_one(pool).await?.try_get(0)?;
    Ok(parked.then_some(()))
}

async fn explain(pool: &PgPool) -> Result<String> {
    // A number in the text: a function of the clock would not be looked up in the index.
    let sql = format!(
        "EXPLAIN (ANALYZE, TIMING OFF)
         SELECT id FROM saga WHERE owner IS NULL AND wake_at IS NOT NULL AND wake_at <= {}
         ORDER BY wake_at LIMIT 128",
        now()
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await?;
    let lines: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let scan = lines
        .iter()
        .find(|line| line.contains("Scan"))
        .map(|line| line.trim().trim_start_matches("->").trim());
    let time = lines.iter().find(|line| line.starts_with("Execution Time"));
    Ok(format!("{}; {}", time.map(String::as_str).unwrap_or_default(), scan.unwrap_or_default()))
}
