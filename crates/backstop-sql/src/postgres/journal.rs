//! Appending: one statement, one round trip, one commit for a whole batch.
//!
//! # Invariants
//! * An event goes in only with its head row, and a head row only from the seq that the writer expected:
//!   both are in one statement. Of two writers the second waits for the first's row, looks again, and
//!   finds another seq.
//! * An event goes to the partition of its saga's birth, and a saga's birth never changes: an append that
//!   says another one is lost, for readers would not find its events.
//! * What was not written is compared with what is there before it is called lost.
//!
//! Two batches that hold the same sagas in turned order could wait for each other; they are sorted, and
//! if the server still finds a deadlock it refuses one of them whole (`NotApplied`).

use super::line::Line;
use super::read::event_columns;
use super::record;
use crate::batch::{self, EncodedAppend, StoredRows};
use crate::codec::event::EventRow;
use crate::{error, rows};
use backstop_engine::ports::store::{Append, Appended, StoreError, StoreResult};
use sqlx::Row;
use std::collections::BTreeSet;

/// `written` is a sub-select that is compared with, not joined (`IS TRUE` keeps the planner from turning
/// it into a join): the server makes one hash table of it, however large the batch.
const APPEND: &str = "
WITH head AS (
    SELECT * FROM UNNEST($1::append_head[])
), created AS (
    INSERT INTO saga (id, definition, revision, state, seq, epoch, owner, wake_at, fin_code, labels,
                      fingerprint, created_at, updated_at, ended_at)
    SELECT id, definition, revision, state, seq, epoch, owner, wake_at, fin_code, labels::jsonb,
           fingerprint, created_at, updated_at, ended_at
    FROM head WHERE expected = 0
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), moved AS (
    UPDATE saga SET state = head.state, seq = head.seq, epoch = head.epoch, owner = head.owner,
                    wake_at = head.wake_at, fin_code = head.fin_code, updated_at = head.updated_at,
                    ended_at = head.ended_at
    FROM head
    WHERE head.expected > 0 AND saga.id = head.id AND saga.seq = head.expected
      AND saga.created_at = head.created_at AND saga.quarantine IS NULL AND NOT saga.retired
    RETURNING saga.id
), written AS (
    SELECT id FROM created UNION ALL SELECT id FROM moved
), journal AS (
    INSERT INTO journal (saga_id, seq, kind, step, phase, attempt, status, evidence, effect, fin_code,
                         tier, clock, epoch, at, elapsed_us, message, format, payload, born)
    SELECT * FROM UNNEST($2::append_event[]) AS e
    WHERE (e.saga_id IN (SELECT id FROM written)) IS TRUE
)
SELECT id FROM written";

/// An event may stand in the legacy partition, whoever's append it is: a program before migration 3 wrote it.
const READ_ROWS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM UNNEST($1::text[], $2::bigint[], $3::bigint[]) AS wanted (id, number, birth)
      JOIN journal ON journal.saga_id = wanted.id AND journal.seq = wanted.number
                  AND journal.born IN (0, wanted.birth)"
);

/// Writes a batch.
pub(super) async fn append(line: &Line, batch: &[Append]) -> StoreResult<Vec<Appended>> {
    let encoded = batch::encode(batch)?;
    let all: Vec<&EncodedAppend<'_>> = encoded.iter().collect();
    let mut written = match write(line, &all).await? {
        Written::These(ids) => ids,
        // Some journal is ahead of its head row. The others are not to suffer for it.
        Written::SomeEventIsTaken => write_singly(line, &all).await?,
    };
    let in_question: Vec<_> = all.iter().filter(|a| !written.contains(a.head.id.as_ref())).copied().collect();
    if !in_question.is_empty() {
        let stored = stored_rows(line, &in_question).await?;
        let ours = in_question.iter().filter(|append| append.is_among(&stored));
        written.extend(ours.map(|append| append.head.id.to_string()));
    }
    let result = |append: &EncodedAppend<'_>| {
        if written.contains(append.head.id.as_ref()) { Appended::Written } else { Appended::Lost }
    };
    Ok(encoded.iter().map(result).collect())
}

enum Written {
    These(BTreeSet<String>),
    SomeEventIsTaken,
}

async fn write_singly(line: &Line, appends: &[&EncodedAppend<'_>]) -> StoreResult<BTreeSet<String>> {
    let mut written = BTreeSet::new();
    for append in appends {
        if let Written::These(ids) = write(line, &[append]).await? {
            written.extend(ids);
        }
    }
    Ok(written)
}

async fn write(line: &Line, appends: &[&EncodedAppend<'_>]) -> StoreResult<Written> {
    let mut appends = appends.to_vec();
    appends.sort_by(|a, b| a.head.id.cmp(&b.head.id));
    let heads: Vec<_> = appends.iter().map(|append| record::Head(append)).collect();
    let mut events = Vec::with_capacity(appends.iter().map(|append| append.events.len()).sum());
    for append in &appends {
        events.extend(append.events.iter().map(|event| record::Event(event, append.head.created_at)));
    }
    let query = sqlx::query(APPEND).bind(heads).bind(events);
    let mut turn = line.take().await?;
    let (connection, limit) = turn.parts();
    let answer = tokio::time::timeout(limit, query.fetch_all(connection)).await.ok();
    let written = match turn.end(answer)? {
        Ok(written) => written,
        Err(refused) if error::is_taken(&refused) => return Ok(Written::SomeEventIsTaken),
        Err(other) => return Err(error::of_write(&other)),
    };
    let id = |row: &sqlx::postgres::PgRow| row.try_get::<String, _>(0);
    // It is committed; an answer that cannot be read leaves its fate unknown to us, not undone.
    let ids =
        written.iter().map(id).collect::<Result<_, _>>().map_err(|e| StoreError::Unknown(e.to_string()))?;
    Ok(Written::These(ids))
}

/// The birth of each event's saga.
fn births(appends: &[&EncodedAppend<'_>]) -> Vec<i64> {
    appends.iter().flat_map(|a| std::iter::repeat_n(a.head.created_at, a.events.len())).collect()
}

async fn stored_rows(line: &Line, appends: &[&EncodedAppend<'_>]) -> StoreResult<StoredRows> {
    let events: Vec<&EventRow<'_>> = appends.iter().flat_map(|append| &append.events).collect();
    let query = sqlx::query(READ_ROWS)
        .bind(events.iter().map(|e| e.saga.as_ref()).collect::<Vec<_>>())
        .bind(events.iter().map(|e| e.seq).collect::<Vec<_>>())
        .bind(births(appends));
    let mut turn = line.take().await?;
    let (connection, limit) = turn.parts();
    let answer = tokio::time::timeout(limit, query.fetch_all(connection)).await.ok();
    // Other appends of the batch are written: "not applied" would be a lie.
    let found = turn.end(answer)?.map_err(|e| StoreError::Unknown(e.to_string()))?;
    let mut stored = StoredRows::new();
    for row in &found {
        // A row that cannot be read is not one of ours.
        if let Ok(row) = rows::event_row(row) {
            stored.insert((row.saga.to_string(), row.seq), row);
        }
    }
    Ok(stored)
}
