//! Setting a saga aside whose journal cannot be followed, and taking it back. The head row alone changes; the
//! journal stays as it is.

use super::writer::Writer;
use crate::codec::{head, text};
use crate::error;
use backstop_core::{CoordinatorId, SagaId, SagaState};
use backstop_engine::ports::store::{Head, StoreResult};

pub(super) async fn quarantine(
    writer: &Writer,
    saga: &SagaId,
    owner: Option<&CoordinatorId>,
    reason: &str,
) -> StoreResult<bool> {
    let mut turn = writer.take().await?;
    let set_aside = sqlx::query(
        "UPDATE saga SET owner = NULL, wake_at = NULL, state = ?4, quarantine = ?3
         WHERE id = ?1 AND owner IS ?2 AND state NOT IN (SELECT value FROM json_each(?5))",
    )
    .bind(saga.as_str())
    .bind(owner.map(CoordinatorId::as_str))
    .bind(text::to_column(reason).into_owned())
    .bind(SagaState::NeedsIntervention.as_str())
    .bind(super::final_states()?)
    .execute(turn.connection())
    .await
    .map_err(|e| error::of_write(&e))?;
    turn.end();
    Ok(set_aside.rows_affected() == 1)
}

pub(super) async fn restore(writer: &Writer, head: &Head) -> StoreResult<bool> {
    let row = head::encode(head)?;
    let mut turn = writer.take().await?;
    let restored = sqlx::query(
        "UPDATE saga SET definition = ?2, revision = ?3, state = ?4, seq = ?5, epoch = ?6, owner = ?7,
                         wake_at = ?8, fin_code = ?9, labels = ?10, fingerprint = ?11, updated_at = ?12,
                         ended_at = ?13, quarantine = NULL, retired = false
         WHERE id = ?1 AND quarantine IS NOT NULL AND seq = ?5",
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
    .execute(turn.connection())
    .await
    .map_err(|e| error::of_write(&e))?;
    turn.end();
    Ok(restored.rows_affected() == 1)
}
