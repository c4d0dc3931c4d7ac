//! Setting a saga aside whose journal cannot be followed, and taking it back. The head row alone changes; the
//! journal stays as it is.

use crate::codec::{head, text};
use crate::error;
use backstop_core::{CoordinatorId, SagaId, SagaState};
use backstop_engine::ports::store::{Head, StoreResult};
use sqlx::PgPool;

pub(super) async fn quarantine(
    pool: &PgPool,
    saga: &SagaId,
    owner: Option<&CoordinatorId>,
    reason: &str,
) -> StoreResult<bool> {
    let over: Vec<&str> = SagaState::ALL.iter().filter(|s| s.is_final()).map(|s| s.as_str()).collect();
    let set_aside = sqlx::query(
        "UPDATE saga SET owner = NULL, wake_at = NULL, state = $4, quarantine = $3
         WHERE id = $1 AND owner IS NOT DISTINCT FROM $2 AND state <> ALL ($5)",
    )
    .bind(saga.as_str())
    .bind(owner.map(CoordinatorId::as_str))
    .bind(text::to_column(reason).into_owned())
    .bind(SagaState::NeedsIntervention.as_str())
    .bind(over)
    .execute(pool)
    .await
    .map_err(|e| error::of_write(&e))?;
    Ok(set_aside.rows_affected() == 1)
}

pub(super) async fn restore(pool: &PgPool, head: &Head) -> StoreResult<bool> {
    let row = head::encode(head)?;
    let restored = sqlx::query(
        "UPDATE saga SET definition = $2, revision = $3, state = $4, seq = $5, epoch = $6, owner = $7,
                         wake_at = $8, fin_code = $9, labels = $10::jsonb, fingerprint = $11, updated_at = $12,
                         ended_at = $13, quarantine = NULL, retired = false
         WHERE id = $1 AND quarantine IS NOT NULL AND seq = $5",
    )
    .bind(row.id.as_ref())
    .bind(row.definition.as_ref())
    .bind(row.revision)
    .bind(row.state.as_ref())
    .bind(row.seq)
    .bind(row.epoch)
    .bind(row.owner.as_deref())
    .bind(row.wake_at)
    .bind(row.fin_code.as_deref())
    .bind(row.labels.as_str())
    .bind(row.fingerprint.as_ref())
    .bind(row.updated_at)
    .bind(row.ended_at)
    .execute(pool)
    .await
    .map_err(|e| error::of_write(&e))?;
    Ok(restored.rows_affected() == 1)
}
