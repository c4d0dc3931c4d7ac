//! A coordinator died with very many sagas under way: how soon its successors have them all.

use super::prompt;
use crate::bank::{Bank, Gate, Manner};
use crate::cluster::Cluster;
use crate::definition;
use crate::moment::now;
use crate::planting::{Anew, Model};
use crate::process::eventually;
use crate::report::{Kind, Report};
use anyhow::{Context, Result};
use serde_json::Value;
use sqlx::{PgPool, Row};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For the model.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time for all of them.
const ALL_WITHIN: Duration = Duration::from_secs(600);
/// Between two counts: each reads the whole table.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// More than all of them.
const LIVE_MAX: (&str, &str) = ("BACKSTOP_LIMITS__LIVE_SAGAS_MAX", "200000");

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Takeover {
    /// Sagas of the dead coordinator
    #[arg(long, default_value_t = 100_000)]
    pub sagas: u64,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: PathBuf, takeover: &Takeover) -> Result<Report> {
    let mut cluster = Cluster::start(&program).await?;
    let dead = cluster.add(&[LIVE_MAX]).await?.coordinator;
    let gate = Gate::closed();
    let held = gate.clone();
    let bank = Bank::start(&["ledger_a"], prompt()).await?;
    bank.answers(Arc::new(
        move |call| if call.epoch == 1 { Manner::Held(held.clone()) } else { Manner::AtOnce },
    ));
    let api = cluster.apis()?.into_iter().next().context("a coordinator")?;
    api.enlist(bank.endpoints(), 1_024).await?;
    api.define(definition::single(definition::SINGLE, "ledger_a", Duration::from_secs(20))).await?;
    api.start(definition::request("model", definition::SINGLE, 1, 1, 1)).await?;
    let called = || async { Ok((bank.record().count() > 0).then_some(())) };
    eventually("the model's call", PATIENCE, called).await?;
    dead.kill().await?;
    gate.open();

    let pool = cluster.pool().clone();
    let model = Model::take(&pool, "model").await?;
    let planting = now();
    model.plant("orphan-", takeover.sagas, &Anew::default()).await?;
    let planted = now() - planting;
    sqlx::query("DELETE FROM coordinator").execute(&pool).await?;

    let begin = now();
    cluster.add_many(2, &[LIVE_MAX]).await?;
    let up = now();
    let total = i64::try_from(takeover.sagas)? + 1;
    let (mut all_taken, mut all_ended, mut last) = (None, None, Counts::default());
    let deadline = Instant::now() + ALL_WITHIN;
    while all_ended.is_none() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        last = count(&pool).await?;
        if all_taken.is_none() && last.taken >= total {
            all_taken = Some(now() - begin);
        }
        if last.ended >= total {
            all_ended = Some(now() - begin);
        }
    }

    let mut report = Report::new(&format!("takeover of {} sagas by two", takeover.sagas));
    report.duration("planted in", planted);
    report.duration("both up after", up - begin);
    let shown = |time: Option<i64>| time.map_or_else(|| "never".to_owned(), crate::moment::shown);
    report.figure("all taken over after", shown(all_taken));
    report.figure("all ended after", shown(all_ended));
    report.figure("taken over", last.taken);
    report.figure("ended", last.ended);
    report.figure("succeeded", last.succeeded);
    report.figure("more than one takeover", last.twice);
    report.figure("shares", shares(&pool).await?);
    report.figure("calls", bank.record().count());
    for member in &cluster.members()[1..] {
        let vitals = member.coordinator.vitals().await?;
        let name = format!("{}: resident kB, processor ms", member.coordinator.name());
        report.figure(&name, format!("{}, {}", vitals.rss_kb, vitals.cpu_ms));
    }
    report.check(
        Kind::Safety,
        "all end",
        last.ended == total,
        format!("{} of {total} ended within {ALL_WITHIN:?}", last.ended),
    );
    report.check(
        Kind::Safety,
        "all succeed",
        last.succeeded == last.ended,
        format!("{} of {} succeeded", last.succeeded, last.ended),
    );
    if !report.passed() {
        report.story([cluster.logs(30)]);
    }
    Ok(report)
}

#[derive(Debug, Default)]
struct Counts {
    taken: i64,
    ended: i64,
    succeeded: i64,
    twice: i64,
}

async fn count(pool: &PgPool) -> Result<Counts> {
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE epoch > 1), count(*) FILTER (WHERE ended_at IS NOT NULL),
                count(*) FILTER (WHERE state = 'SUCCEEDED'), count(*) FILTER (WHERE epoch > 2)
         FROM saga",
    )
    .fetch_one(pool)
    .await?;
    Ok(Counts {
        taken: row.try_get(0)?,
        ended: row.try_get(1)?,
        succeeded: row.try_get(2)?,
        twice: row.try_get(3)?,
    })
}

/// How many each survivor took: its id is in the payload of the event that says so.
async fn shares(pool: &PgPool) -> Result<Vec<Value>> {
    let rows = sqlx::query(
        "SELECT coordinator.id, count(*) FROM coordinator JOIN saga_event
         ON saga_event.kind = 'adopted' AND position(convert_to(coordinator.id, 'UTF8') IN saga_event.payload) > 0
         GROUP BY coordinator.id ORDER BY coordinator.id",
    )
    .fetch_all(pool)
    .await?;
    let line = |row: &sqlx::postgres::PgRow| -> Result<Value> {
        Ok(Value::from(format!("{}: {}", row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?)))
    };
    rows.iter().map(line).collect()
}
