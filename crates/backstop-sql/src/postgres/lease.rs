//! Leases and orphans, by the database's clock.
//!
//! `clock_timestamp()` and not `now()`: a statement that waited for a row must not judge by the time at
//! which it began to wait.

use super::line::Line;
use crate::codec::text;
use crate::{error, rows};
use backstop_core::{CoordinatorId, SagaState, Timestamp};
use backstop_engine::ports::store::{CoordinatorRow, Orphan, Share, StoreError, StoreResult};
use sqlx::{AssertSqlSafe, PgPool, Row};
use std::time::Duration;

/// How long a coordinator's row stays after its lease ran out, for people who look what happened.
const ROW_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn enter(
    line: &Line,
    coordinator: &CoordinatorId,
    address: &str,
    ttl: Duration,
) -> StoreResult<()> {
    let query = sqlx::query(
        "WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now),
              gone AS (DELETE FROM coordinator USING clock
                       WHERE coordinator.id <> $1 AND coordinator.expires_at < clock.now - $4)
         INSERT INTO coordinator (id, address, started_at, expires_at)
         SELECT $1, $2, now, now + $3 FROM clock
         ON CONFLICT (id) DO UPDATE SET
             address = excluded.address, started_at = excluded.started_at, expires_at = excluded.expires_at,
             draining = false",
    )
    .bind(coordinator.as_str())
    .bind(text::to_column(address).into_owned())
    .bind(rows::micros("ttl", ttl)?)
    .bind(rows::micros("row kept", ROW_KEPT)?);
    let mut turn = line.take().await?;
    let (connection, limit) = turn.parts();
    let answer = tokio::time::timeout(limit, query.execute(connection)).await.ok();
    turn.end(answer)?.map_err(|e| error::of_write(&e))?;
    Ok(())
}

/// The time told is the one from which the lease runs.
pub(super) async fn renew(
    line: &Line,
    coordinator: &CoordinatorId,
    ttl: Duration,
) -> StoreResult<Option<Timestamp>> {
    let query = sqlx::query(
        "UPDATE coordinator
         SET expires_at = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $2
         WHERE id = $1 AND expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
         RETURNING expires_at - $2",
    )
    .bind(coordinator.as_str())
    .bind(rows::micros("ttl", ttl)?);
    let mut turn = line.take().await?;
    let (connection, limit) = turn.parts();
    let answer = tokio::time::timeout(limit, query.fetch_optional(connection)).await.ok();
    let renewed = turn.end(answer)?.map_err(|e| error::of_write(&e))?;
    let time = renewed.map(|row| row.try_get(0).map(Timestamp)).transpose();
    // It is renewed, whatever its time cannot be read for.
    time.map_err(|e| StoreError::Unknown(e.to_string()))
}

pub(super) async fn set_draining(line: &Line, coordinator: &CoordinatorId) -> StoreResult<()> {
    let query =
        sqlx::query("UPDATE coordinator SET draining = true WHERE id = $1").bind(coordinator.as_str());
    let mut turn = line.take().await?;
    let (connection, limit) = turn.parts();
    let answer = tokio::time::timeout(limit, query.execute(connection)).await.ok();
    turn.end(answer)?.map_err(|e| error::of_write(&e))?;
    Ok(())
}

pub(super) async fn leave(line: &Line, coordinator: &CoordinatorId) -> StoreResult<()> {
    let query = sqlx::query("DELETE FROM coordinator WHERE id = $1").bind(coordinator.as_str());
    let mut turn = line.take().await?;
    let (connection, limit) = turn.parts();
    let answer = tokio::time::timeout(limit, query.execute(connection)).await.ok();
    turn.end(answer)?.map_err(|e| error::of_write(&e))?;
    Ok(())
}

pub(super) async fn now(line: &Line) -> StoreResult<Timestamp> {
    let query = sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
    let mut turn = line.take().await?;
    let (connection, limit) = turn.parts();
    let answer = tokio::time::timeout(limit, query.fetch_one(connection)).await.ok();
    let row = turn.end(answer)?.map_err(|e| error::of_read(&e))?;
    row.try_get(0).map(Timestamp).map_err(|e| error::of_read(&e))
}

pub(super) async fn coordinators(pool: &PgPool) -> StoreResult<Vec<CoordinatorRow>> {
    let rows = sqlx::query(
        "SELECT id, address, started_at, expires_at, draining,
                expires_at <= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS expired
         FROM coordinator ORDER BY started_at, id",
    )
    .fetch_all(pool)
    .await
    .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::coordinator).collect()
}

/// Owners are few and their sagas many: the distinct owners are stepped through by the index, the dead
/// ones picked out, and only then are sagas looked at, those of each dead one for itself: a join would let the planner
/// read the sagas of all owners first (measured with 100,000 owned sagas and none to find: 80 ms, and 0.8 ms so).
///
/// A share is told by the last byte of the id, as `Share::holds` does; one of all sagas asks for nothing.
pub(super) async fn orphans(pool: &PgPool, share: Share, limit: usize) -> StoreResult<Vec<Orphan>> {
    let over: Vec<&str> = SagaState::ALL.iter().filter(|s| s.is_final()).map(|s| s.as_str()).collect();
    let held = if share.of <= 1 { "" } else { "AND ascii(right(saga.id, 1)) % $3 = $4" };
    let sql = format!(
        "WITH RECURSIVE clock AS (
             SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
         ), owners (owner) AS (
             SELECT (SELECT min(owner) FROM saga WHERE owner IS NOT NULL)
             UNION ALL
             SELECT (SELECT min(saga.owner) FROM saga WHERE saga.owner > owners.owner)
             FROM owners WHERE owners.owner IS NOT NULL
         ), dead AS MATERIALIZED (
             SELECT owners.owner FROM owners
             WHERE owners.owner IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM coordinator, clock
                 WHERE coordinator.id = owners.owner AND coordinator.expires_at > clock.now)
         )
         (SELECT orphan.id, orphan.owner FROM dead CROSS JOIN LATERAL (
              SELECT saga.id, saga.owner FROM saga
              WHERE saga.owner = dead.owner AND saga.state <> ALL ($1) AND saga.quarantine IS NULL {held}
              LIMIT $2) AS orphan
          LIMIT $2)
         UNION ALL
         (SELECT saga.id, saga.owner FROM saga
          WHERE saga.owner IS NULL AND saga.wake_at IS NOT NULL
            AND saga.wake_at <= (SELECT now FROM clock) AND saga.state <> ALL ($1)
            AND saga.quarantine IS NULL {held}
          ORDER BY saga.wake_at LIMIT $2)
         LIMIT $2"
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(over).bind(rows::limit(limit));
    if share.of > 1 {
        query = query.bind(i64::from(share.of)).bind(i64::from(share.index));
    }
    let rows = query.fetch_all(pool).await.map_err(|e| error::of_read(&e))?;
    Ok(rows.iter().filter_map(rows::orphan).collect())
}
