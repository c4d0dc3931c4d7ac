//! Leases and orphans, by the clock of the machine that holds the file: SQLite has none of its own.

use super::writer::Writer;
use crate::codec::text;
use crate::{error, rows};
use backstop_core::{CoordinatorId, SagaState, Timestamp};
use backstop_engine::ports::store::{CoordinatorRow, Orphan, Share, StoreError, StoreResult};
use sqlx::{Connection, QueryBuilder, Sqlite, SqlitePool};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The machine's clock. Before 1970 it stands at 1970.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

pub(super) async fn enter(
    writer: &Writer,
    coordinator: &CoordinatorId,
    address: &str,
    ttl: Duration,
) -> StoreResult<()> {
    let not_applied = |e: sqlx::Error| StoreError::NotApplied(e.to_string());
    let mut turn = writer.take().await?;
    let mut tx = turn.connection().begin_with("BEGIN IMMEDIATE").await.map_err(not_applied)?;
    // The file is ours alone, so nobody else's lease can be alive.
    sqlx::query("DELETE FROM coordinator").execute(&mut *tx).await.map_err(not_applied)?;
    let now = now();
    sqlx::query("INSERT INTO coordinator (id, address, started_at, expires_at) VALUES (?, ?, ?, ?)")
        .bind(coordinator.as_str())
        .bind(text::to_column(address).into_owned())
        .bind(now.0)
        .bind(now.plus(ttl).0)
        .execute(&mut *tx)
        .await
        .map_err(not_applied)?;
    tx.commit().await.map_err(|e| StoreError::Unknown(e.to_string()))?;
    turn.end();
    Ok(())
}

pub(super) async fn renew(
    writer: &Writer,
    coordinator: &CoordinatorId,
    ttl: Duration,
) -> StoreResult<Option<Timestamp>> {
    let mut turn = writer.take().await?;
    let now = now();
    let renewed = sqlx::query("UPDATE coordinator SET expires_at = ? WHERE id = ? AND expires_at > ?")
        .bind(now.plus(ttl).0)
        .bind(coordinator.as_str())
        .bind(now.0)
        .execute(turn.connection())
        .await
        .map_err(|e| error::of_write(&e))?;
    turn.end();
    Ok((renewed.rows_affected() == 1).then_some(now))
}

pub(super) async fn set_draining(writer: &Writer, coordinator: &CoordinatorId) -> StoreResult<()> {
    let mut turn = writer.take().await?;
    sqlx::query("UPDATE coordinator SET draining = true WHERE id = ?")
        .bind(coordinator.as_str())
        .execute(turn.connection())
        .await
        .map_err(|e| error::of_write(&e))?;
    turn.end();
    Ok(())
}

pub(super) async fn leave(writer: &Writer, coordinator: &CoordinatorId) -> StoreResult<()> {
    let mut turn = writer.take().await?;
    sqlx::query("DELETE FROM coordinator WHERE id = ?")
        .bind(coordinator.as_str())
        .execute(turn.connection())
        .await
        .map_err(|e| error::of_write(&e))?;
    turn.end();
    Ok(())
}

pub(super) async fn coordinators(readers: &SqlitePool) -> StoreResult<Vec<CoordinatorRow>> {
    let rows = sqlx::query(
        "SELECT id, address, started_at, expires_at, draining, expires_at <= ? AS expired
         FROM coordinator ORDER BY started_at, id",
    )
    .bind(now().0)
    .fetch_all(readers)
    .await
    .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::coordinator).collect()
}

/// There is one live owner at most, so a look at each owned saga's lease is a look at one row.
///
/// A share is told by the last byte of the id, as `Share::holds` does; one of all sagas asks for nothing.
pub(super) async fn orphans(readers: &SqlitePool, share: Share, limit: usize) -> StoreResult<Vec<Orphan>> {
    let over: Vec<String> =
        SagaState::ALL.iter().filter(|s| s.is_final()).map(|s| format!("'{}'", s.as_str())).collect();
    let over = over.join(", ");
    // Two numbers of our own, so that they may stand in the text.
    let held = match share {
        Share { of: 0 | 1, .. } => "quarantine IS NULL".to_owned(),
        Share { index, of } => format!("quarantine IS NULL AND unicode(substr(id, -1)) % {of} = {index}"),
    };
    let now = now();
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT id, owner FROM saga WHERE owner IS NOT NULL AND ");
    sql.push(&held).push(" AND state NOT IN (").push(&over).push(
        ") AND NOT EXISTS (SELECT 1 FROM coordinator WHERE coordinator.id = saga.owner
                           AND coordinator.expires_at > ",
    );
    sql.push_bind(now.0).push(")");
    sql.push(
        " UNION ALL SELECT id, owner FROM saga WHERE owner IS NULL AND wake_at IS NOT NULL AND wake_at <= ",
    );
    sql.push_bind(now.0).push(" AND ").push(&held).push(" AND state NOT IN (").push(&over).push(") LIMIT ");
    sql.push_bind(rows::limit(limit));
    let rows = sql.build().fetch_all(readers).await.map_err(|e| error::of_read(&e))?;
    Ok(rows.iter().filter_map(rows::orphan).collect())
}
