//! What is wrong with the tables. Locks nothing that anybody waits for.
//!
//! What it costs: the rule about sagas is one statement over those that are unfinished, owned or to be woken, each
//! by its partial index, so the number of unfinished sagas; of those that are over only what should not be there
//! is read. Leases: the coordinators. Schema: the catalogue. Events without a head row: [`EVENTS_LOOKED_AT`] keys
//! of events by index, going on where the last look ended, so that all are seen in time and none costs much.

use super::partitions::{self, Spans};
use crate::{error, migrate, misfit, rows};
use backstop_core::SagaState;
use backstop_engine::ports::store::{Misfit, MisfitKind, StoreResult};
use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Row};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most events that one look compares with the head rows.
const EVENTS_LOOKED_AT: i64 = 50_000;

/// Where the look for events without a head row goes on.
#[derive(Debug, Default)]
pub(super) struct Walk(Mutex<String>);

pub(super) async fn misfits(
    pool: &PgPool,
    spans: &Spans,
    walk: &Walk,
    (grace, lease_max): (Duration, Duration),
    limit: usize,
) -> StoreResult<Vec<Misfit>> {
    let mut db = pool.acquire().await.map_err(|e| error::of_read(&e))?;
    let now = partitions::now(&mut db).await?;
    let mut misfits = schema(&mut db, spans, now).await?;
    misfits.extend(leases(&mut db, now.saturating_add(rows::micros("lease_max", lease_max)?), limit).await?);
    misfits.extend(heads(&mut db, now.saturating_sub(rows::micros("grace", grace)?), limit).await?);
    misfits.extend(without_head(&mut db, walk, limit).await?);
    misfits.truncate(limit);
    Ok(misfits)
}

async fn schema(db: &mut PgConnection, spans: &Spans, now: i64) -> StoreResult<Vec<Misfit>> {
    let mut misfits = Vec::new();
    if let Err(error) = migrate::check_postgres(db).await {
        misfits.push(misfit::new(MisfitKind::Schema, "", error.to_string()));
    }
    let stray: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM journal_default)")
        .fetch_one(&mut *db)
        .await
        .map_err(|e| error::of_read(&e))?;
    if stray {
        let detail = "journal_default holds events: no partition was there when their sagas were born";
        misfits.push(misfit::new(MisfitKind::Schema, "", detail));
    }
    // Half of the time ahead is left before anybody is harmed.
    let wanted = now.saturating_add(spans.ahead / 2);
    let partitions = partitions::list(db).await?;
    let covered = |at: i64| partitions.iter().any(|span| span.from <= at && at < span.to);
    if !covered(now) || !covered(wanted) {
        let until = partitions.last().map_or(0, |last| last.to);
        let detail =
            format!("the journal has partitions until {until} only; one for {wanted} should be there");
        misfits.push(misfit::new(MisfitKind::Schema, "", detail));
    }
    Ok(misfits)
}

async fn leases(db: &mut PgConnection, until: i64, limit: usize) -> StoreResult<Vec<Misfit>> {
    let rows = sqlx::query("SELECT id, expires_at FROM coordinator WHERE expires_at > $1 LIMIT $2")
        .bind(until)
        .bind(rows::limit(limit))
        .fetch_all(db)
        .await
        .map_err(|e| error::of_read(&e))?;
    misfit::of_leases(&rows)
}

async fn heads(db: &mut PgConnection, before: i64, limit: usize) -> StoreResult<Vec<Misfit>> {
    let over: Vec<&str> = SagaState::ALL.iter().filter(|s| s.is_final()).map(|s| s.as_str()).collect();
    let rows = sqlx::query(
        // First all that is not over, by its partial indexes; a limit here would promise the planner an early end, and
        // have it read the whole table for what is not there.
        "WITH there AS MATERIALIZED (
             SELECT id, state, owner, wake_at FROM saga
             WHERE ended_at IS NULL OR owner IS NOT NULL OR (owner IS NULL AND wake_at IS NOT NULL)
         )
         SELECT there.id, state, owner, wake_at,
                coordinator.id IS NULL OR coordinator.expires_at <= $1 AS gone,
                coalesce(wake_at <= $1, false) AS late
         FROM there LEFT JOIN coordinator ON coordinator.id = there.owner
         WHERE (state = ANY ($2)
                OR (owner IS NOT NULL)::int + (wake_at IS NOT NULL)::int
                   + (state = 'NEEDS_INTERVENTION')::int <> 1
                OR (owner IS NOT NULL AND (coordinator.id IS NULL OR coordinator.expires_at <= $1))
                OR wake_at <= $1)
         LIMIT $3",
    )
    .bind(before)
    .bind(over)
    .bind(rows::limit(limit))
    .fetch_all(db)
    .await
    .map_err(|e| error::of_read(&e))?;
    misfit::of_heads(&rows)
}

async fn without_head(db: &mut PgConnection, walk: &Walk, limit: usize) -> StoreResult<Vec<Misfit>> {
    let from = walk.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let row = sqlx::query(
        "WITH looked AS MATERIALIZED (
             SELECT saga_id FROM journal WHERE saga_id > $1 ORDER BY saga_id LIMIT $2
         )
         SELECT (SELECT count(*) FROM looked), (SELECT max(saga_id) FROM looked),
                ARRAY(SELECT DISTINCT saga_id FROM looked
                      WHERE NOT EXISTS (SELECT 1 FROM saga WHERE saga.id = looked.saga_id)
                      ORDER BY saga_id LIMIT $3)",
    )
    .bind(from)
    .bind(EVENTS_LOOKED_AT)
    .bind(rows::limit(limit))
    .fetch_one(db)
    .await
    .map_err(|e| error::of_read(&e))?;
    let read = |e: sqlx::Error| error::of_read(&e);
    let (looked, last): (i64, Option<String>) =
        (row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?);
    let headless: Vec<String> = row.try_get(2).map_err(read)?;
    let next = if looked < EVENTS_LOOKED_AT { String::new() } else { last.unwrap_or_default() };
    *walk.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
    let misfit = |saga: String| misfit::new(MisfitKind::WithoutHead, saga, "events without a head row");
    Ok(headless.into_iter().map(misfit).collect())
}
