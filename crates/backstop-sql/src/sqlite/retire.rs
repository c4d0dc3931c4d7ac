//! Taking away what ended long enough ago: one bite, one transaction.
//!
//! # Invariants
//! * Events go together with the mark on their head row, and head rows only after it.
//! * Nothing that is unfinished or in quarantine is touched.

use super::lease::now;
use super::writer::Writer;
use crate::rows;
use backstop_core::Timestamp;
use backstop_engine::ports::store::{Retention, Retired, StoreError, StoreResult};
use sqlx::Connection;
use std::time::Duration;

pub(super) async fn retire(writer: &Writer, retention: Retention, limit: usize) -> StoreResult<Retired> {
    let mut turn = writer.take().await?;
    let not_applied = |e: sqlx::Error| StoreError::NotApplied(e.to_string());
    let mut tx = turn.connection().begin_with("BEGIN IMMEDIATE").await.map_err(not_applied)?;
    let now = now();
    // Who is unfinished has no end: `ended_at` alone tells.
    let over: Vec<String> = sqlx::query_scalar(
        "UPDATE saga SET retired = true WHERE id IN (
             SELECT id FROM saga
             WHERE ended_at IS NOT NULL AND NOT retired AND quarantine IS NULL
               AND created_at <= ?1 AND ended_at <= ?1
             ORDER BY created_at LIMIT ?2)
         RETURNING id",
    )
    .bind(before(now, retention.journals_for)?.0)
    .bind(rows::limit(limit))
    .fetch_all(&mut *tx)
    .await
    .map_err(not_applied)?;
    sqlx::query("DELETE FROM saga_event WHERE saga_id IN (SELECT value FROM json_each(?))")
        .bind(super::json(&over)?)
        .execute(&mut *tx)
        .await
        .map_err(not_applied)?;
    let gone = sqlx::query(
        "DELETE FROM saga WHERE id IN (
             SELECT id FROM saga WHERE ended_at <= ?1 AND retired AND quarantine IS NULL
             ORDER BY ended_at LIMIT ?2)",
    )
    .bind(before(now, retention.ids_for.max(retention.journals_for))?.0)
    .bind(rows::limit(limit))
    .execute(&mut *tx)
    .await
    .map_err(not_applied)?;
    tx.commit().await.map_err(|e| StoreError::Unknown(e.to_string()))?;
    turn.end();
    let full = |count: u64| limit > 0 && count >= limit as u64;
    let (journals, sagas) = (over.len() as u64, gone.rows_affected());
    Ok(Retired { journals, sagas, partitions: 0, more: full(journals) || full(sagas) })
}

fn before(now: Timestamp, age: Duration) -> StoreResult<Timestamp> {
    Ok(Timestamp(now.0.saturating_sub(rows::micros("retention", age)?)))
}
