//! Partitions of the journal: which there are, making those to come, dropping one whole.
//!
//! # Invariants
//! * A partition is dropped in one transaction with the row of `retired_span` that says so: a crash between
//!   leaves both or neither. Hence plain DROP and not DETACH … CONCURRENTLY, which cannot be part of a
//!   transaction (and is refused where there is a default partition). It wants the journal for itself for a
//!   blink; it waits for that for [`LOCK_TIMEOUT`] and then gives up until the next bite, so that no
//!   append, which would queue behind it, waits longer than that.
//! * While a span is judged, nothing can be written into its partition.
//! * Making a partition never stops an append into another one: it is made as a table of its own and attached,
//!   which locks the default partition alone, and that is empty.
//!
//! # Not here
//! Taking journals away row by row: `retire`.

use super::PostgresSettings;
use crate::error::{CANCELLED, LOCK_NOT_AVAILABLE, has_code};
use crate::{error, rows};
use backstop_engine::ports::store::{StoreError, StoreResult};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, PgPool, Row};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for a lock that would keep appends waiting.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// Most partitions that are made at once: at a width that is too small for the time ahead, the rest is made later.
const MADE_AT_ONCE_MAX: usize = 64;

/// How the journal is cut up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spans {
    /// Width of a partition, in microseconds; at least a second, so that names differ.
    pub(super) width: i64,
    /// How far ahead of now partitions are made, in microseconds.
    pub(super) ahead: i64,
}

impl Spans {
    pub(super) fn new(settings: &PostgresSettings) -> Self {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4);
        Self {
            width: micros(settings.partition_width).clamp(1_000_000, i64::MAX / 4),
            ahead: micros(settings.partition_width.saturating_mul(settings.partitions_ahead))
                .min(i64::MAX / 4),
        }
    }
}

/// A partition of the journal, except the legacy and the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// As it can stand in a statement.
    pub(super) name: String,
    /// First birth in it.
    pub(super) from: i64,
    /// End of its span; not in it.
    pub(super) to: i64,
}

/// All partitions, oldest first. By the name that the snapshot has: of one that another coordinator has dropped since, a
/// `regclass` would be its number, which no statement takes for a table.
pub(super) async fn list(db: &mut PgConnection) -> StoreResult<Vec<Partition>> {
    let found = sqlx::query(
        "SELECT name, from_us, to_us FROM (
             SELECT quote_ident(relname) AS name,
                    substring(bound FROM 'FROM \\(''(-?[0-9]+)''\\)')::bigint AS from_us,
                    substring(bound FROM 'TO \\(''(-?[0-9]+)''\\)')::bigint AS to_us
             FROM (SELECT class.relname, pg_get_expr(class.relpartbound, class.oid) AS bound
                   FROM pg_inherits JOIN pg_class AS class ON class.oid = pg_inherits.inhrelid
                   WHERE pg_inherits.inhparent = 'journal'::regclass
                     AND class.oid <> 'journal_legacy'::regclass) AS bounds
         ) AS spans
         WHERE from_us IS NOT NULL AND to_us IS NOT NULL ORDER BY from_us",
    )
    .fetch_all(db)
    .await
    .map_err(|e| error::of_read(&e))?;
    let partition = |row: &sqlx::postgres::PgRow| {
        Ok(Partition { name: row.try_get(0)?, from: row.try_get(1)?, to: row.try_get(2)? })
    };
    found.iter().map(partition).collect::<Result<_, sqlx::Error>>().map_err(|e| error::of_read(&e))
}

/// The time by the database's clock, in microseconds.
pub(super) async fn now(db: &mut PgConnection) -> StoreResult<i64> {
    sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        .fetch_one(db)
        .await
        .map_err(|e| error::of_read(&e))
}

/// Makes the partitions from now to the time ahead that are not there. One that another coordinator makes at the
/// same time, that would have to wait for too long, or whose span the default partition holds events of, is left
/// out: the default partition takes what has no other.
pub(super) async fn prepare(pool: &PgPool, spans: Spans) -> StoreResult<()> {
    let mut db = pool.acquire().await.map_err(|e| error::of_read(&e))?;
    let now = now(&mut db).await?;
    let there = list(&mut db).await?;
    let mut from = now - now.rem_euclid(spans.width);
    for _ in 0..there.len() + MADE_AT_ONCE_MAX {
        if from > now.saturating_add(spans.ahead) {
            break;
        }
        if let Some(partition) = there.iter().find(|partition| partition.from <= from && from < partition.to)
        {
            from = partition.to;
            continue;
        }
        // Up to the next that is there even where that is not aligned: the width may have been another.
        let next = there.iter().map(|partition| partition.from).find(|next| *next > from);
        let to = (from - from.rem_euclid(spans.width) + spans.width).min(next.unwrap_or(i64::MAX));
        if let Err(refusal) = make(&mut db, from, to).await {
            if !is_expected(&refusal) {
                return Err(error::of_write(&refusal));
            }
            tracing::debug!(error = %refusal, from, "a partition of the journal was not made this time");
        }
        from = to;
    }
    Ok(())
}

async fn make(db: &mut PgConnection, from: i64, to: i64) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    set_lock_timeout(&mut tx).await?;
    // One maker at a time, and the parent before the default partition, as everybody takes them: two that each
    // held the default one to read would wait for each other. Appends do not mind this lock.
    tx.execute("LOCK TABLE ONLY journal IN SHARE UPDATE EXCLUSIVE MODE").await?;
    // Asked by its index: to attach the partition would read all of the default one to refuse it.
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM journal_default WHERE born >= $1 AND born < $2),
                'journal_' || to_char(to_timestamp($1 / 1000000) AT TIME ZONE 'UTC', 'YYYYMMDD_HH24MISS')",
    )
    .bind(from)
    .bind(to)
    .fetch_one(&mut *tx)
    .await?;
    if row.try_get(0)? {
        tracing::debug!(from, "the default partition holds events of this span: no partition is made for it");
        return tx.rollback().await;
    }
    let name: String = row.try_get(1)?;
    // Numbers and a name of digits.
    let sql = format!(
        "CREATE TABLE {name} (LIKE journal INCLUDING DEFAULTS INCLUDING COMMENTS, PRIMARY KEY (saga_id, seq));
         ALTER TABLE journal ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
    tx.commit().await
}

/// Drops a partition if every saga born in its span ended before `ended_until`, and answers how many journals
/// went with it.
pub(super) async fn drop_whole(
    pool: &PgPool,
    partition: &Partition,
    ended_until: i64,
    limits: Limits,
) -> StoreResult<Dropped> {
    let mut db = pool.acquire().await.map_err(|e| error::of_read(&e))?;
    match try_drop(&mut db, partition, ended_until, limits).await {
        Ok(Some(journals)) => Ok(Dropped::Whole(journals)),
        Ok(None) => Ok(Dropped::Stays),
        Err(Refusal::Before(refusal)) if has_code(&refusal, &LOCK) => {
            tracing::debug!(error = %refusal, partition = partition.name, "a partition is in use: not dropped this time");
            Ok(Dropped::NotNow)
        }
        Err(Refusal::Before(refusal)) if has_code(&refusal, &[CANCELLED]) => {
            tracing::warn!(error = %refusal, partition = partition.name,
                "a partition takes too long to be looked at: what is kept for longer goes row by row");
            Ok(Dropped::NotNow)
        }
        Err(Refusal::Before(refusal)) if has_code(&refusal, &[NOT_OURS]) => {
            tracing::warn!(error = %refusal, partition = partition.name,
                "a partition could not be dropped: its journals go row by row");
            Ok(Dropped::Stays)
        }
        Err(Refusal::Before(refusal)) if is_expected(&refusal) => {
            tracing::debug!(error = %refusal, partition = partition.name, "a partition was not dropped this time");
            Ok(Dropped::Stays)
        }
        Err(Refusal::Before(refusal)) => Err(StoreError::NotApplied(refusal.to_string())),
        Err(Refusal::Commit(refusal)) => Err(error::of_write(&refusal)),
    }
}

/// How long it may take to drop partitions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until when spans are looked at, all together.
    pub(super) look_until: Instant,
    /// Longest run of every other statement.
    pub(super) statement: Duration,
}

impl Limits {
    fn left(self) -> Duration {
        self.look_until.saturating_duration_since(Instant::now())
    }
}

/// What came of trying to drop a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It is gone, with so many journals.
    Whole(u64),
    /// Something in it must stay, or it is not for us to drop.
    Stays,
    /// Somebody reads the journal just now, or there was no time left to look at the span. The next one would find the
    /// same, and each try keeps appends waiting.
    NotNow,
}

/// Where dropping failed: before COMMIT nothing is changed.
enum Refusal {
    Before(sqlx::Error),
    Commit(sqlx::Error),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Before(error)
    }
}

async fn try_drop(
    db: &mut PgConnection,
    partition: &Partition,
    ended_until: i64,
    limits: Limits,
) -> Result<Option<u64>, Refusal> {
    let Partition { name, from, to } = partition;
    let mut tx = db.begin().await?;
    set_lock_timeout(&mut tx).await?;
    // Nothing is written into it from here on. Others append to younger partitions and notice nothing.
    sqlx::raw_sql(AssertSqlSafe(format!("LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")))
        .execute(&mut *tx)
        .await?;
    // Three looks, the cheap ones first; most spans that must stay are told by the first. The second asks for
    // sagas whose events an older program wrote, and is free once there are none. The last reads the span's
    // head rows, once for each partition that is dropped. A large span takes its time, and nobody waits for it.
    set_statement_timeout(&mut tx, limits.left()).await?;
    let stays: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM saga
                        WHERE created_at >= $1 AND created_at < $2 AND ended_at IS NULL)
             OR EXISTS (SELECT 1 FROM (SELECT DISTINCT saga_id FROM journal_legacy) AS legacy
                        CROSS JOIN LATERAL (SELECT created_at FROM saga WHERE saga.id = legacy.saga_id
                                            LIMIT 1) AS saga
                        WHERE saga.created_at >= $1 AND saga.created_at < $2)",
    )
    .bind(from)
    .bind(to)
    .fetch_one(&mut *tx)
    .await?;
    if stays {
        tx.rollback().await?;
        return Ok(None);
    }
    set_statement_timeout(&mut tx, limits.left()).await?;
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE NOT retired),
                coalesce(bool_and(ended_at <= $3 AND quarantine IS NULL), true)
         FROM saga WHERE created_at >= $1 AND created_at < $2",
    )
    .bind(from)
    .bind(to)
    .bind(ended_until)
    .fetch_one(&mut *tx)
    .await?;
    let (journals, all_over): (i64, bool) = (row.try_get(0)?, row.try_get(1)?);
    if !all_over {
        tx.rollback().await?;
        return Ok(None);
    }
    set_statement_timeout(&mut tx, limits.statement).await?;
    sqlx::query(
        "INSERT INTO retired_span (from_us, to_us, ended_until, retired_at)
         VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)",
    )
    .bind(from)
    .bind(to)
    .bind(ended_until)
    .execute(&mut *tx)
    .await?;
    sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE {name}"))).execute(&mut *tx).await?;
    tx.commit().await.map_err(Refusal::Commit)?;
    tracing::info!(partition = name, journals, "a span of the journal is retired whole");
    Ok(Some(rows::count(journals)))
}

/// For the transaction that has begun.
pub(super) async fn set_lock_timeout(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    let set = format!("SET LOCAL lock_timeout = {}", LOCK_TIMEOUT.as_millis());
    sqlx::raw_sql(AssertSqlSafe(set)).execute(db).await.map(|_| ())
}

/// For the transaction that has begun. At least a moment, for the server takes nothing for no limit.
async fn set_statement_timeout(db: &mut PgConnection, limit: Duration) -> Result<(), sqlx::Error> {
    let set = format!("SET LOCAL statement_timeout = {}", limit.as_millis().max(1));
    sqlx::raw_sql(AssertSqlSafe(set)).execute(db).await.map(|_| ())
}

/// A lock was not to be had, or would never have been.
const LOCK: [&str; 2] = [LOCK_NOT_AVAILABLE, "40P01"];
/// We have not the right to.
const NOT_OURS: &str = "42501";

/// True if the server refused because of somebody else who is at it too, or because of what is there.
pub(super) fn is_expected(refusal: &sqlx::Error) -> bool {
    /// The table is there, under this name or for a part of this span, or is gone; or the default partition holds
    /// events of the span.
    const THERE: [&str; 5] = ["42P07", "23505", "42P17", "42P01", "23514"];
    has_code(refusal, &LOCK) || has_code(refusal, &THERE)
}
