//! Reading sagas.
//!
//! # Invariants
//! * Events are asked for by `born IN (0, created_at)`, with values that the server knows when it plans: it
//!   looks at two partitions, however many there are, and at both, so that what an older program wrote is found.
//! * Who compares a head with its events has locked the journal against dropping of partitions before its
//!   snapshot was taken: dropping is not undone for an old snapshot, and the head would say that nothing has
//!   been retired.
//! * A connection goes back into use only outside of a transaction, whatever has become of the read
//!   (`tests/trouble.rs`: `a_read_that_fails_or_is_given_up_leaves_no_transaction_behind`).

use crate::codec::head::labels_to_column;
use crate::{error, rows};
use backstop_core::{Event, SagaId, Seq, Timestamp};
use backstop_engine::ports::store::{Head, Journal, SagaCursor, SagaFilter, StoreResult};
use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgConnection, PgExecutor, PgPool, Postgres, QueryBuilder, Row};

/// Head and events of one instant: a reader that compares them must not see an append half.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE ONLY journal IN ACCESS SHARE MODE";

/// A transaction that only reads.
///
/// Not the driver's own: that one thinks itself outside when the second statement of [`BEGIN`] fails, and hands on a
/// connection that is still inside and refuses everything.
struct Snapshot {
    connection: PoolConnection<Postgres>,
    ended: bool,
}

impl Snapshot {
    async fn begin(pool: &PgPool) -> StoreResult<Self> {
        let connection = pool.acquire().await.map_err(|e| error::of_read(&e))?;
        let mut snapshot = Self { connection, ended: false };
        snapshot.db().execute(sqlx::raw_sql(BEGIN)).await.map_err(|e| error::of_read(&e))?;
        Ok(snapshot)
    }

    fn db(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    async fn end(mut self) -> StoreResult<()> {
        self.db().execute(sqlx::raw_sql("COMMIT")).await.map_err(|e| error::of_read(&e))?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

/// Whether a row of `saga` was retired with its span: one look into an index of few rows.
macro_rules! in_retired_span {
    () => {
        "coalesce((SELECT span.to_us > saga.created_at AND span.ended_until >= saga.ended_at
                   FROM retired_span AS span WHERE span.from_us <= saga.created_at
                   ORDER BY span.from_us DESC LIMIT 1), false)"
    };
}
pub(super) use in_retired_span;

/// A head row. It is retired by itself, or with the whole span in which its saga was born.
macro_rules! heads {
    ($where:literal) => {
        concat!(
            "SELECT id, definition, revision, state, seq, epoch, owner, wake_at, fin_code, labels::text AS labels,
                    fingerprint, created_at, updated_at, ended_at, quarantine,
                    retired OR ",
            in_retired_span!(),
            " AS retired FROM saga ",
            $where
        )
    };
}

/// The columns of an event, by name: a column more must not change what a prepared statement answers.
macro_rules! event_columns {
    () => {
        "saga_id, seq, kind, step, phase, attempt, status, evidence, effect, fin_code, tier, clock, epoch, at,
         elapsed_us, message, format, payload"
    };
}
pub(super) use event_columns;

pub(super) async fn journal(pool: &PgPool, saga: &SagaId) -> StoreResult<Option<Journal>> {
    let mut snapshot = Snapshot::begin(pool).await?;
    let journal = match head(snapshot.db(), saga).await? {
        Some(head) => {
            let events = events_of(snapshot.db(), saga, head.created_at, Seq(0), usize::MAX).await?;
            Some(Journal { head, events })
        }
        None => None,
    };
    snapshot.end().await?;
    Ok(journal)
}

pub(super) async fn journals(
    pool: &PgPool,
    sagas: &[SagaId],
) -> StoreResult<Vec<StoreResult<Option<Journal>>>> {
    let ids: Vec<&str> = sagas.iter().map(SagaId::as_str).collect();
    let mut snapshot = Snapshot::begin(pool).await?;
    let heads = sqlx::query(heads!("WHERE id = ANY($1)"))
        .bind(&ids)
        .fetch_all(snapshot.db())
        .await
        .map_err(|e| error::of_read(&e))?;
    // Each saga is looked for in the partitions of all: a batch spans few.
    let mut births: Vec<i64> = vec![0];
    for row in &heads {
        births.push(row.try_get("created_at").map_err(|e| error::of_read(&e))?);
    }
    let events = sqlx::query(concat!(
        "SELECT ",
        event_columns!(),
        " FROM journal WHERE saga_id = ANY($1) AND born = ANY($2) ORDER BY saga_id, seq"
    ))
    .bind(&ids)
    .bind(births)
    .fetch_all(snapshot.db())
    .await
    .map_err(|e| error::of_read(&e))?;
    snapshot.end().await?;
    rows::journals(sagas, &heads, &events)
}

pub(super) async fn head(db: impl PgExecutor<'_>, saga: &SagaId) -> StoreResult<Option<Head>> {
    let row = sqlx::query(heads!("WHERE id = $1"))
        .bind(saga.as_str())
        .fetch_optional(db)
        .await
        .map_err(|e| error::of_read(&e))?;
    row.as_ref().map(rows::head).transpose()
}

pub(super) async fn events(
    pool: &PgPool,
    saga: &SagaId,
    after: Seq,
    limit: usize,
) -> StoreResult<Vec<Event>> {
    // A birth never changes, so these need not be of one instant.
    let born: Option<i64> = sqlx::query_scalar("SELECT created_at FROM saga WHERE id = $1")
        .bind(saga.as_str())
        .fetch_optional(pool)
        .await
        .map_err(|e| error::of_read(&e))?;
    match born {
        Some(born) => events_of(pool, saga, Timestamp(born), after, limit).await,
        None => Ok(Vec::new()),
    }
}

async fn events_of(
    db: impl PgExecutor<'_>,
    saga: &SagaId,
    born: Timestamp,
    after: Seq,
    limit: usize,
) -> StoreResult<Vec<Event>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        event_columns!(),
        " FROM journal WHERE saga_id = $1 AND seq > $2 AND born IN (0, $4) ORDER BY seq LIMIT $3"
    ))
    .bind(saga.as_str())
    .bind(i64::try_from(after.0).unwrap_or(i64::MAX))
    .bind(rows::limit(limit))
    .bind(born.0)
    .fetch_all(db)
    .await
    .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::event).collect()
}

pub(super) async fn list(
    pool: &PgPool,
    filter: &SagaFilter,
    cursor: Option<&SagaCursor>,
    limit: usize,
) -> StoreResult<Vec<Head>> {
    let mut sql = QueryBuilder::<Postgres>::new(heads!("WHERE true"));
    if !filter.states.is_empty() {
        // Words of a closed list, written out so that the planner can see a partial index fit.
        let states: Vec<String> = filter.states.iter().map(|state| format!("'{}'", state.as_str())).collect();
        sql.push(" AND state IN (").push(states.join(", ")).push(")");
    }
    if filter.is_of_unfinished() {
        // Each of these sagas is in an index of the few that are unfinished; nothing but these words says so.
        sql.push(" AND ended_at IS NULL");
    }
    if let Some(definition) = &filter.definition {
        sql.push(" AND definition = ").push_bind(definition.as_str());
    }
    if let Some(code) = filter.fin_code {
        sql.push(" AND fin_code = ").push_bind(code.to_string());
    }
    if !filter.labels.is_empty() {
        sql.push(" AND labels @> ").push_bind(labels_to_column(&filter.labels)?).push("::jsonb");
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
    let rows = sql.build().fetch_all(pool).await.map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::head).collect()
}
