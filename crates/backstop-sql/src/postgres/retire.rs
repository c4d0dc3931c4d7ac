//! Taking away what ended long enough ago, in bites.
//!
//! Whole partitions first. Row by row goes only what no partition will take with it: events of an older program
//! and of the default partition, and spans that something has kept back for longer than their own width.
//!
//! # Invariants
//! * Events go in one transaction with the mark on their head row; head rows go only after it.
//! * Nothing that is unfinished or in quarantine is touched.
//! * Two coordinators at once share the work: who finds a row locked takes the next.
//!
//! # Not here
//! Making and dropping partitions: `partitions`.

use super::partitions::{self, Dropped, Limits, Partition, Spans};
use super::read::in_retired_span;
use crate::{error, rows};
use backstop_engine::ports::store::{Retention, Retired, StoreError, StoreResult};
use sqlx::{Executor, PgPool, Row};
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// How many statements' longest runs may be spent on looking at spans that may be dropped whole, however many there are:
/// fewer than a call is awaited for, so that a bite that finds no end of it still does its work row by row.
const STATEMENTS_OF_LOOKING: u32 = super::STATEMENTS_IN_ROW_MAX - 1;

pub(super) async fn retire(
    pool: &PgPool,
    spans: &Spans,
    statement_timeout: Duration,
    retention: Retention,
    limit: usize,
) -> StoreResult<Retired> {
    let limits = Limits {
        look_until: Instant::now() + statement_timeout.saturating_mul(STATEMENTS_OF_LOOKING),
        statement: statement_timeout,
    };
    if let Err(error) = partitions::prepare(pool, *spans).await {
        // What is retired does not depend on it; the check of the schema tells it too.
        tracing::warn!(%error, "partitions of the journal could not be made");
    }
    let (now, there, gone) = look(pool).await?;
    let journals_until = now.saturating_sub(rows::micros("journals_for", retention.journals_for)?);
    let ids_for = retention.ids_for.max(retention.journals_for);
    let ids_until = now.saturating_sub(rows::micros("ids_for", ids_for)?);
    for partition in there.iter().filter(|partition| partition.to <= journals_until) {
        if limit == 0 {
            break;
        }
        match partitions::drop_whole(pool, partition, journals_until, limits).await? {
            Dropped::Whole(journals) => {
                return Ok(Retired { journals, partitions: 1, more: true, ..Retired::default() });
            }
            Dropped::Stays => {}
            Dropped::NotNow => break,
        }
    }
    let ranges = row_by_row(&there, &gone, journals_until, spans.width);
    let journals = retire_journals(pool, &ranges, journals_until, limit).await?;
    let sagas = forget(pool, ids_until, limit).await?;
    let full = |count: u64| limit > 0 && count >= limit as u64;
    Ok(Retired { journals, sagas, partitions: 0, more: full(journals) || full(sagas) })
}

/// The database's time, the partitions that are there, and the spans of those that are gone.
async fn look(pool: &PgPool) -> StoreResult<(i64, Vec<Partition>, Vec<Range<i64>>)> {
    let mut db = pool.acquire().await.map_err(|e| error::of_read(&e))?;
    let now = partitions::now(&mut db).await?;
    let there = partitions::list(&mut db).await?;
    let gone: Vec<(i64, i64)> = sqlx::query_as("SELECT from_us, to_us FROM retired_span")
        .fetch_all(&mut *db)
        .await
        .map_err(|e| error::of_read(&e))?;
    Ok((now, there, gone.into_iter().map(|(from, to)| from..to).collect()))
}

/// Births whose journals go row by row: all up to `until` but those whose partition is gone, or will go whole. A
/// partition is given its own width of time to become due; what keeps it longer keeps it for long.
fn row_by_row(there: &[Partition], gone: &[Range<i64>], until: i64, width: i64) -> Vec<Range<i64>> {
    let waits = |partition: &&Partition| partition.to.saturating_add(width) > until;
    let waiting = there.iter().filter(waits).map(|partition| partition.from..partition.to);
    let mut left_out: Vec<Range<i64>> = gone.iter().cloned().chain(waiting).collect();
    left_out.sort_by_key(|range| range.start);
    let (mut ranges, mut from) = (Vec::new(), i64::MIN);
    for range in left_out {
        let to = range.start.min(until.saturating_add(1));
        if from < to {
            ranges.push(from..to);
        }
        from = from.max(range.end);
    }
    if from <= until {
        ranges.push(from..until.saturating_add(1));
    }
    ranges
}

async fn retire_journals(pool: &PgPool, ranges: &[Range<i64>], until: i64, limit: usize) -> StoreResult<u64> {
    let not_applied = |e: sqlx::Error| StoreError::NotApplied(e.to_string());
    let mut tx = pool.begin().await.map_err(not_applied)?;
    partitions::set_lock_timeout(&mut tx).await.map_err(not_applied)?;
    // With all partitions, as appends lock theirs: while we look, nobody judges or drops one, so that no journal
    // is taken, and counted, twice. Who drops one now does our work, too.
    match tx.execute("LOCK TABLE journal IN ROW EXCLUSIVE MODE").await {
        Ok(_) => {}
        Err(busy) if partitions::is_expected(&busy) => return Ok(0),
        Err(other) => return Err(not_applied(other)),
    }
    let over = sqlx::query(concat!(
        "SELECT saga.id, saga.created_at
         FROM UNNEST($2::bigint[], $3::bigint[]) AS born (from_us, to_us)
         CROSS JOIN LATERAL (
             SELECT id, created_at FROM saga
             WHERE created_at >= born.from_us AND created_at < born.to_us
               AND ended_at IS NOT NULL AND NOT retired AND ended_at <= $1 AND quarantine IS NULL
               AND NOT ",
        in_retired_span!(),
        "
             ORDER BY created_at LIMIT $4 FOR UPDATE SKIP LOCKED
         ) AS saga
         LIMIT $4"
    ))
    .bind(until)
    .bind(ranges.iter().map(|range| range.start).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| range.end).collect::<Vec<_>>())
    .bind(rows::limit(limit))
    .fetch_all(&mut *tx)
    .await
    .map_err(not_applied)?;
    if over.is_empty() {
        tx.rollback().await.map_err(not_applied)?;
        return Ok(0);
    }
    let (mut ids, mut births) = (Vec::new(), vec![0]);
    for row in &over {
        ids.push(row.try_get::<String, _>(0).map_err(not_applied)?);
        births.push(row.try_get::<i64, _>(1).map_err(not_applied)?);
    }
    // By values that the planner sees, so that it locks and reads only the partitions that these can be in.
    sqlx::query("DELETE FROM journal WHERE saga_id = ANY($1) AND born = ANY($2)")
        .bind(&ids)
        .bind(&births)
        .execute(&mut *tx)
        .await
        .map_err(not_applied)?;
    let marked = sqlx::query("UPDATE saga SET retired = true WHERE id = ANY($1)")
        .bind(&ids)
        .execute(&mut *tx)
        .await
        .map_err(not_applied)?;
    tx.commit().await.map_err(|e| error::of_write(&e))?;
    Ok(marked.rows_affected())
}

/// Deletes head rows, and what is known about spans of which none is left.
///
/// By birth, which comes before the end: of what was born by then all but the few that live long is over, and gone with the
/// next bites.
async fn forget(pool: &PgPool, until: i64, limit: usize) -> StoreResult<u64> {
    let gone = sqlx::query(concat!(
        "DELETE FROM saga WHERE id IN (
             SELECT id FROM saga
             WHERE created_at <= $1 AND ended_at <= $1 AND quarantine IS NULL AND (retired OR ",
        in_retired_span!(),
        ")
             ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
    ))
    .bind(until)
    .bind(rows::limit(limit))
    .execute(pool)
    .await
    .map_err(|e| error::of_write(&e))?;
    sqlx::query(
        "DELETE FROM retired_span AS span
         WHERE to_us <= $1 AND NOT EXISTS (
             SELECT 1 FROM saga WHERE created_at >= span.from_us AND created_at < span.to_us)",
    )
    .bind(until)
    .execute(pool)
    .await
    .map_err(|e| error::of_write(&e))?;
    Ok(gone.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(from: i64, to: i64) -> Partition {
        Partition { name: format!("journal_{from}"), from, to }
    }

    #[test]
    fn row_by_row_goes_what_no_partition_takes_with_it() {
        let there = [partition(10, 20), partition(30, 40), partition(40, 50), partition(60, 70)];
        // 10..20 has been kept back for longer than its width; 20..30 is gone; 40..50 is just due; 60.. is to come.
        let ranges = |there: &[Partition], gone: Range<i64>, until| -> Vec<(i64, i64)> {
            let found = row_by_row(there, std::slice::from_ref(&gone), until, 10);
            found.into_iter().map(|range| (range.start, range.end)).collect()
        };
        assert_eq!(ranges(&there, 20..30, 55), [(i64::MIN, 20), (30, 40), (50, 56)]);
        assert_eq!(ranges(&[], 100..200, 5), [(i64::MIN, 6)]);
        assert_eq!(ranges(&[], 0..100, 5), [(i64::MIN, 0)]);
        assert_eq!(ranges(&[partition(i64::MIN, 100)], 100..200, 5), []);
    }
}
