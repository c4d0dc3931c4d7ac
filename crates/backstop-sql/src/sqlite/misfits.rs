//! What is wrong with the tables.
//!
//! The schema was looked at when the file was opened, and nobody else has it. The rule about sagas costs a look
//! at each that is unfinished, by partial indexes; events without a head row cost [`EVENTS_LOOKED_AT`] at most.

use super::lease::now;
use crate::error;
use crate::misfit;
use crate::rows;
use backstop_engine::ports::store::{Misfit, MisfitKind, StoreResult};
use sqlx::{Row, SqlitePool};
use std::time::Duration;

/// Most events looked at for a missing head row; a foreign key forbids them to begin with.
const EVENTS_LOOKED_AT: i64 = 50_000;

pub(super) async fn misfits(
    readers: &SqlitePool,
    grace: Duration,
    lease_max: Duration,
    limit: usize,
) -> StoreResult<Vec<Misfit>> {
    let now = now().0;
    let before = now.saturating_sub(rows::micros("grace", grace)?);
    let heads = sqlx::query(
        "SELECT saga.id, state, owner, wake_at,
                coordinator.id IS NULL OR coordinator.expires_at <= ?1 AS gone, coalesce(wake_at <= ?1, false) AS late
         FROM saga LEFT JOIN coordinator ON coordinator.id = saga.owner
         WHERE (ended_at IS NULL OR owner IS NOT NULL OR (owner IS NULL AND wake_at IS NOT NULL))
           AND (state IN (SELECT value FROM json_each(?2))
                OR (owner IS NOT NULL) + (wake_at IS NOT NULL) + (state = 'NEEDS_INTERVENTION') <> 1
                OR (owner IS NOT NULL AND (coordinator.id IS NULL OR coordinator.expires_at <= ?1))
                OR wake_at <= ?1)
         ORDER BY created_at LIMIT ?3",
    )
    .bind(before)
    .bind(super::final_states()?)
    .bind(rows::limit(limit))
    .fetch_all(readers)
    .await
    .map_err(|e| error::of_read(&e))?;
    let mut misfits = misfit::of_heads(&heads)?;
    let leases = sqlx::query("SELECT id, expires_at FROM coordinator WHERE expires_at > ? LIMIT ?")
        .bind(now.saturating_add(rows::micros("lease_max", lease_max)?))
        .bind(rows::limit(limit))
        .fetch_all(readers)
        .await
        .map_err(|e| error::of_read(&e))?;
    misfits.extend(misfit::of_leases(&leases)?);
    let headless = sqlx::query(
        "SELECT DISTINCT saga_id FROM (SELECT saga_id FROM saga_event ORDER BY saga_id LIMIT ?1)
         WHERE NOT EXISTS (SELECT 1 FROM saga WHERE saga.id = saga_id) LIMIT ?2",
    )
    .bind(EVENTS_LOOKED_AT)
    .bind(rows::limit(limit))
    .fetch_all(readers)
    .await
    .map_err(|e| error::of_read(&e))?;
    for row in headless {
        let saga: String = row.try_get(0).map_err(|e| error::of_read(&e))?;
        misfits.push(misfit::new(MisfitKind::WithoutHead, saga, "events without a head row"));
    }
    misfits.truncate(limit);
    Ok(misfits)
}
