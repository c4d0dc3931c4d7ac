//! Reading sagas.

use crate::codec::text;
use crate::{error, rows};
use backstop_core::{Event, SagaId, SagaState, Seq};
use backstop_engine::ports::store::{Head, Journal, SagaCursor, SagaFilter, StoreResult};
use sqlx::{QueryBuilder, Sqlite, SqliteExecutor, SqlitePool};

macro_rules! heads {
    ($where:literal) => {
        concat!(
            "SELECT id, definition, revision, state, seq, epoch, owner, wake_at, fin_code, labels, fingerprint,
                    created_at, updated_at, ended_at, quarantine, retired
             FROM saga ",
            $where
        )
    };
}

pub(super) async fn journals(
    pool: &SqlitePool,
    sagas: &[SagaId],
) -> StoreResult<Vec<StoreResult<Option<Journal>>>> {
    let ids: Vec<&str> = sagas.iter().map(SagaId::as_str).collect();
    let ids = super::json(&ids)?;
    let mut tx = pool.begin_with("BEGIN").await.map_err(|e| error::of_read(&e))?;
    let heads = sqlx::query(heads!("WHERE id IN (SELECT value FROM json_each(?))"))
        .bind(&ids)
        .fetch_all(&mut *tx)
        .await
        .map_err(|e| error::of_read(&e))?;
    let events = sqlx::query(
        "SELECT * FROM saga_event WHERE saga_id IN (SELECT value FROM json_each(?)) ORDER BY saga_id, seq",
    )
    .bind(&ids)
    .fetch_all(&mut *tx)
    .await
    .map_err(|e| error::of_read(&e))?;
    tx.commit().await.map_err(|e| error::of_read(&e))?;
    rows::journals(sagas, &heads, &events)
}

pub(super) async fn journal(pool: &SqlitePool, saga: &SagaId) -> StoreResult<Option<Journal>> {
    // Head and events of one instant: a reader that compares them must not see an append half.
    let mut tx = pool.begin_with("BEGIN").await.map_err(|e| error::of_read(&e))?;
    let Some(head) = head(&mut *tx, saga).await? else {
        return Ok(None);
    };
    let events = events(&mut *tx, saga, Seq(0), usize::MAX).await?;
    tx.commit().await.map_err(|e| error::of_read(&e))?;
    Ok(Some(Journal { head, events }))
}

pub(super) async fn head(db: impl SqliteExecutor<'_>, saga: &SagaId) -> StoreResult<Option<Head>> {
    let row = sqlx::query(heads!("WHERE id = ?"))
        .bind(saga.as_str())
        .fetch_optional(db)
        .await
        .map_err(|e| error::of_read(&e))?;
    row.as_ref().map(rows::head).transpose()
}

pub(super) async fn events(
    db: impl SqliteExecutor<'_>,
    saga: &SagaId,
    after: Seq,
    limit: usize,
) -> StoreResult<Vec<Event>> {
    let rows = sqlx::query("SELECT * FROM saga_event WHERE saga_id = ? AND seq > ? ORDER BY seq LIMIT ?")
        .bind(saga.as_str())
        .bind(i64::try_from(after.0).unwrap_or(i64::MAX))
        .bind(rows::limit(limit))
        .fetch_all(db)
        .await
        .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::event).collect()
}

pub(super) async fn list(
    pool: &SqlitePool,
    filter: &SagaFilter,
    cursor: Option<&SagaCursor>,
    limit: usize,
) -> StoreResult<Vec<Head>> {
    let rows =
        list_query(filter, cursor, limit).build().fetch_all(pool).await.map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::head).collect()
}

fn list_query(filter: &SagaFilter, cursor: Option<&SagaCursor>, limit: usize) -> QueryBuilder<Sqlite> {
    let mut sql = if filter.is_of_unfinished() && filter.states != [SagaState::NeedsIntervention] {
        // Left to itself, SQLite would rather read all sagas in the order asked for than sort the few.
        QueryBuilder::<Sqlite>::new(heads!("INDEXED BY saga_unfinished WHERE ended_at IS NULL"))
    } else {
        QueryBuilder::<Sqlite>::new(heads!("WHERE true"))
    };
    // Words of a closed list, written out so that the planner can see a partial index fit; one by `=`, for that of those
    // that wait for people is told by it.
    let states: Vec<String> = filter.states.iter().map(|state| format!("'{}'", state.as_str())).collect();
    match states.as_slice() {
        [] => {}
        [state] => {
            sql.push(" AND state = ").push(state);
        }
        states => {
            sql.push(" AND state IN (").push(states.join(", ")).push(")");
        }
    }
    if let Some(definition) = &filter.definition {
        sql.push(" AND definition = ").push_bind(definition.as_str());
    }
    if let Some(code) = filter.fin_code {
        sql.push(" AND fin_code = ").push_bind(code.to_string());
    }
    for (key, value) in &filter.labels {
        sql.push(" AND EXISTS (SELECT 1 FROM json_each(saga.labels) AS label WHERE label.key = ");
        sql.push_bind(text::to_column(key).into_owned()).push(" AND label.value = ");
        sql.push_bind(text::to_column(value).into_owned()).push(")");
    }
    if let Some(from) = filter.created_from {
        sql.push(" AND created_at >= ").push_bind(from.0);
    }
    if let Some(before) = filter.created_before {
        sql.push(" AND created_at < ").push_bind(before.0);
    }
    if let Some(cursor) = cursor {
        sql.push(" AND (created_at, id) < (").push_bind(cursor.created_at.0);
        sql.push(", ").push_bind(cursor.saga.as_str()).push(")");
    }
    sql.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(rows::limit(limit));
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::DefinitionName;
    use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

    /// How SQLite would look for these sagas.
    async fn plan(states: &[SagaState], definition: Option<DefinitionName>) -> String {
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::migrate::sqlite().run_direct(None, &mut db, false).await.unwrap();
        let filter = SagaFilter { states: states.to_vec(), definition, ..SagaFilter::default() };
        let sql = format!("EXPLAIN QUERY PLAN {}", list_query(&filter, None, 9).sql().as_str());
        let steps = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut db).await.unwrap();
        steps.iter().map(|step| step.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn a_list_of_what_is_unfinished_walks_along_an_index_of_that() {
        let unfinished = [SagaState::Running, SagaState::RollingBack, SagaState::NeedsIntervention];
        for states in [&unfinished[..1], &unfinished[..2], &unfinished[..]] {
            for definition in [None, Some(DefinitionName::parse("transfer").unwrap())] {
                let plan = plan(states, definition).await;
                assert!(plan.contains("INDEX saga_unfinished"), "{states:?}: {plan}");
            }
        }
        let waiting = plan(&unfinished[2..], None).await;
        assert!(waiting.contains("INDEX saga_waiting_for_people"), "{waiting}");
        let over = plan(&[SagaState::Running, SagaState::Succeeded], None).await;
        assert!(over.contains("INDEX saga_by_age"), "{over}");
        let all = plan(&[], None).await;
        assert!(all.contains("INDEX saga_by_age"), "{all}");
    }
}
