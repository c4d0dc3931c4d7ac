//! What a loop did to Postgres, counted by Postgres.
//!
//! * Commits, bytes of write-ahead log and the page images among them are read from the log itself between two
//!   places in it (`pg_walinspect`): exact, of all sessions, at once.
//! * Statements: `pg_stat_statements`, those of other databases than the range's own.
//! * Flushes: `pg_stat_wal`. Sessions hand these in once a second at most, and only at the end of a transaction; so
//!   they are counted from one quiet moment to the next, with a saga in each that makes the sessions hand in.
//!
//! A checkpoint before each loop makes the page images comparable: the first change of a page after it writes all
//! of the page to the log.
//!
//! # Not here
//! SQLite tells none of this; what its process writes to the disk is in `usage`.

use super::ground::{Ground, connect};
use super::result::Database;
use anyhow::{Context, Result};
use sqlx::{PgPool, Row};

/// Longest time after which a session hands in its counts, if it has something to do.
pub(super) const HANDED_IN_AFTER: std::time::Duration = std::time::Duration::from_millis(1_100);

/// A way to ask; nothing with SQLite.
#[derive(Debug)]
pub(super) struct Counters {
    pool: Option<PgPool>,
}

/// The counts at a time.
#[derive(Debug, Default)]
pub(super) struct Before {
    log: Option<i64>,
    statements: Option<f64>,
    flushes: Option<f64>,
}

impl Counters {
    /// Of the ground's server.
    pub(super) async fn of(ground: &Ground) -> Result<Self> {
        let Some(postgres) = ground.postgres() else { return Ok(Self { pool: None }) };
        Ok(Self { pool: Some(connect(&postgres.url("postgres")).await?) })
    }

    /// True if there is something to count.
    pub(super) fn are_there(&self) -> bool {
        self.pool.is_some()
    }

    /// The server's version, and what of it cannot be counted.
    pub(super) async fn describe(&self) -> Result<Vec<String>> {
        let Some(pool) = &self.pool else {
            return Ok(vec!["SQLite: it counts neither statements nor flushes".to_owned()]);
        };
        let version: String = sqlx::query_scalar("SELECT version()").fetch_one(pool).await?;
        let mut lines = vec![version];
        for name in ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "wal_sync_method"] {
            let value: String =
                sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(pool).await?;
            lines.push(format!("{name} = {value}"));
        }
        for name in ["pg_stat_statements", "pg_walinspect"] {
            let sql = "SELECT count(*) FROM pg_extension WHERE extname = $1";
            let there: i64 = sqlx::query_scalar(sql).bind(name).fetch_one(pool).await?;
            if there == 0 {
                lines.push(format!("{name} is not installed: what it counts is not told"));
            }
        }
        Ok(lines)
    }

    /// The counts now, after a checkpoint. Everybody has handed in.
    pub(super) async fn begin(&self) -> Result<Before> {
        let Some(pool) = &self.pool else { return Ok(Before::default()) };
        sqlx::query("CHECKPOINT").execute(pool).await?;
        Ok(Before {
            log: Some(place(pool).await?),
            statements: statements(pool).await,
            flushes: flushes(pool).await,
        })
    }

    /// What came to it since for each saga, all but the flushes.
    pub(super) async fn end(&self, before: &Before, sagas: u64) -> Result<Database> {
        let Some(pool) = &self.pool else { return Ok(Database::default()) };
        let each = |count: f64| count / super::number(sagas.max(1));
        let statements = statements(pool).await.zip(before.statements);
        let mut database = Database {
            statements: statements.map(|(now, before)| each(now - before)),
            ..Database::default()
        };
        let (from, until) = (before.log.context("a place in the log")?, place(pool).await?);
        database.wal_bytes = Some(each(signed(until - from)));
        // A log that the server has recycled meanwhile cannot be read any more.
        if let Ok((commits, images)) = log(pool, from, until).await {
            (database.commits, database.wal_image_bytes) = (Some(each(commits)), Some(each(images)));
        }
        Ok(database)
    }

    /// Flushes since for each saga. Everybody has handed in again.
    pub(super) async fn flushes(&self, before: &Before, sagas: u64) -> Option<f64> {
        let now = flushes(self.pool.as_ref()?).await?;
        Some((now - before.flushes?) / super::number(sagas.max(1)))
    }
}

fn signed(number: i64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // counts of a bench
    let number = number as f64;
    number
}

/// The end of the log, in bytes.
async fn place(pool: &PgPool) -> Result<i64> {
    let sql = "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

/// None if it is not counted here.
async fn statements(pool: &PgPool) -> Option<f64> {
    let sql = "SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements
        WHERE dbid <> (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(sql).fetch_one(pool).await.ok()
}

/// None where it is counted elsewhere: from Postgres 18 on.
async fn flushes(pool: &PgPool) -> Option<f64> {
    let sql = "SELECT wal_sync::float8 FROM pg_stat_wal";
    sqlx::query_scalar(sql).fetch_one(pool).await.ok()
}

/// Commits, and bytes of page images, in a stretch of the log.
async fn log(pool: &PgPool, from: i64, until: i64) -> Result<(f64, f64)> {
    let sql = "SELECT
            coalesce(sum(count) FILTER (WHERE \"resource_manager/record_type\" = 'Transaction/COMMIT'), 0)::float8,
            coalesce(sum(fpi_size), 0)::float8
        FROM pg_get_wal_stats('0/0'::pg_lsn + $1::text::numeric, '0/0'::pg_lsn + $2::text::numeric, true)";
    let row = sqlx::query(sql).bind(from.to_string()).bind(until.to_string()).fetch_one(pool).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
