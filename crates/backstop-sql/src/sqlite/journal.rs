//! Appending: one transaction for a whole batch, in multi-row statements.
//!
//! # Invariants
//! * Who may write is decided inside the transaction that writes; it began by taking SQLite's one write
//!   lock, so nobody comes in between.
//! * Statements have 1, 2, 4 … [`ROWS_MAX`] rows and no other number, so that few texts are prepared.
//!
//! A statement costs a hop to the driver's thread, some 30 µs; a row costs little.

use super::writer::Writer;
use crate::batch::{self, EncodedAppend, StoredRows};
use crate::codec::event::EventRow;
use crate::{error, rows};
use backstop_engine::ports::store::{Append, Appended, StoreError, StoreResult};
use sqlx::{Connection, QueryBuilder, Row, Sqlite, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};

/// Most rows of one statement: 64 × 18 parameters stay far below SQLite's 32 766.
const ROWS_MAX: usize = 64;

/// Writes a batch.
pub(super) async fn append(writer: &Writer, batch: &[Append]) -> StoreResult<Vec<Appended>> {
    let encoded = batch::encode(batch)?;
    let all: Vec<&EncodedAppend<'_>> = encoded.iter().collect();
    let mut written = match write(writer, &all).await? {
        Written::These(ids) => ids,
        // Some journal is ahead of its head row. The others are not to suffer for it.
        Written::SomeEventIsTaken => write_singly(writer, &all).await?,
    };
    for append in &all {
        if !written.contains(append.head.id.as_ref()) && append.is_among(&stored_rows(writer, append).await?)
        {
            written.insert(append.head.id.to_string());
        }
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

async fn write_singly(writer: &Writer, appends: &[&EncodedAppend<'_>]) -> StoreResult<BTreeSet<String>> {
    let mut written = BTreeSet::new();
    for append in appends {
        if let Written::These(ids) = write(writer, &[append]).await? {
            written.extend(ids);
        }
    }
    Ok(written)
}

async fn write(writer: &Writer, appends: &[&EncodedAppend<'_>]) -> StoreResult<Written> {
    let mut turn = writer.take().await?;
    // Before COMMIT every error leaves nothing behind: the transaction is rolled back, by its drop or
    // with its connection.
    let not_applied = |e: sqlx::Error| StoreError::NotApplied(e.to_string());
    let mut tx = turn.connection().begin_with("BEGIN IMMEDIATE").await.map_err(not_applied)?;
    let there = seqs(&mut tx, appends).await.map_err(not_applied)?;
    let next = |append: &&&EncodedAppend<'_>| {
        there.get(append.head.id.as_ref()).copied().unwrap_or(0) == append.expected
    };
    let winners: Vec<&EncodedAppend<'_>> = appends.iter().filter(next).copied().collect();
    match insert(&mut tx, &winners).await {
        Ok(()) => {}
        Err(refused) if error::is_taken(&refused) => {
            tx.rollback().await.map_err(not_applied)?;
            turn.end();
            return Ok(Written::SomeEventIsTaken);
        }
        Err(other) => return Err(not_applied(other)),
    }
    tx.commit().await.map_err(|e| StoreError::Unknown(e.to_string()))?;
    turn.end();
    Ok(Written::These(winners.iter().map(|append| append.head.id.to_string()).collect()))
}

/// Seq of the sagas of a batch that exist; of one that is set aside or retired none that anybody
/// expects.
async fn seqs(
    db: &mut SqliteConnection,
    appends: &[&EncodedAppend<'_>],
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let mut found = BTreeMap::new();
    for chunk in chunks(appends) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT id, CASE WHEN quarantine IS NULL AND NOT retired THEN seq ELSE -1 END AS seq FROM saga WHERE id IN (",
        );
        let mut list = sql.separated(", ");
        for append in chunk {
            list.push_bind(append.head.id.to_string());
        }
        sql.push(")");
        for row in sql.build().fetch_all(&mut *db).await? {
            found.insert(row.try_get("id")?, row.try_get("seq")?);
        }
    }
    Ok(found)
}

async fn insert(db: &mut SqliteConnection, appends: &[&EncodedAppend<'_>]) -> Result<(), sqlx::Error> {
    for chunk in chunks(appends) {
        insert_heads(db, chunk).await?;
    }
    let events: Vec<&EventRow<'_>> = appends.iter().flat_map(|append| &append.events).collect();
    for chunk in chunks(&events) {
        insert_events(db, chunk).await?;
    }
    Ok(())
}

async fn insert_heads(db: &mut SqliteConnection, appends: &[&EncodedAppend<'_>]) -> Result<(), sqlx::Error> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO saga (id, definition, revision, state, seq, epoch, owner, wake_at, fin_code, labels,
                           fingerprint, created_at, updated_at, ended_at) ",
    );
    sql.push_values(appends.iter().map(|append| &append.head), |mut row, head| {
        row.push_bind(head.id.as_ref())
            .push_bind(head.definition.as_ref())
            .push_bind(head.revision)
            .push_bind(head.state.as_ref())
            .push_bind(head.seq)
            .push_bind(head.epoch)
            .push_bind(head.owner.as_deref())
            .push_bind(head.wake_at)
            .push_bind(head.fin_code.as_deref())
            .push_bind(head.labels.as_str())
            .push_bind(head.fingerprint.as_ref())
            .push_bind(head.created_at)
            .push_bind(head.updated_at)
            .push_bind(head.ended_at);
    });
    sql.push(
        " ON CONFLICT (id) DO UPDATE SET
            state = excluded.state, seq = excluded.seq, epoch = excluded.epoch, owner = excluded.owner,
            wake_at = excluded.wake_at, fin_code = excluded.fin_code, updated_at = excluded.updated_at,
            ended_at = excluded.ended_at",
    );
    sql.build().execute(db).await.map(|_| ())
}

async fn insert_events(db: &mut SqliteConnection, events: &[&EventRow<'_>]) -> Result<(), sqlx::Error> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO saga_event (saga_id, seq, kind, step, phase, attempt, status, evidence, effect, fin_code,
                                 tier, clock, epoch, at, elapsed_us, message, format, payload) ",
    );
    sql.push_values(events, |mut row, event| {
        row.push_bind(event.saga.as_ref())
            .push_bind(event.seq)
            .push_bind(event.kind.as_ref())
            .push_bind(event.step.as_deref())
            .push_bind(event.phase.as_deref())
            .push_bind(event.attempt)
            .push_bind(event.status.as_deref())
            .push_bind(event.evidence.as_deref())
            .push_bind(event.effect.as_deref())
            .push_bind(event.fin_code.as_deref())
            .push_bind(event.tier.as_deref())
            .push_bind(event.clock)
            .push_bind(event.epoch)
            .push_bind(event.at)
            .push_bind(event.elapsed_us)
            .push_bind(event.message.as_deref())
            .push_bind(event.format)
            .push_bind(event.payload.as_slice());
    });
    sql.build().execute(db).await.map(|_| ())
}

async fn stored_rows(writer: &Writer, append: &EncodedAppend<'_>) -> StoreResult<StoredRows> {
    // Other appends of the batch are written: "not applied" would be a lie.
    let unknown = |e: sqlx::Error| StoreError::Unknown(e.to_string());
    let mut turn = writer.take().await?;
    let found = sqlx::query("SELECT * FROM saga_event WHERE saga_id = ? AND seq > ? AND seq <= ?")
        .bind(append.head.id.as_ref())
        .bind(append.expected)
        .bind(append.head.seq)
        .fetch_all(turn.connection())
        .await
        .map_err(unknown)?;
    turn.end();
    let mut stored = StoredRows::new();
    for row in &found {
        // A row that cannot be read is not one of ours.
        if let Ok(row) = rows::event_row(row) {
            stored.insert((row.saga.to_string(), row.seq), row);
        }
    }
    Ok(stored)
}

/// The items in pieces of powers of two, the largest first.
fn chunks<T>(mut items: &[T]) -> Vec<&[T]> {
    let mut pieces = Vec::new();
    while !items.is_empty() {
        let size = (1 << items.len().ilog2()).min(ROWS_MAX);
        let (piece, rest) = items.split_at(size);
        pieces.push(piece);
        items = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_in_one_piece_and_pieces_have_few_sizes() {
        for count in 0..400 {
            let items: Vec<usize> = (0..count).collect();
            let pieces = chunks(&items);
            assert_eq!(pieces.concat(), items);
            assert!(pieces.iter().all(|p| p.len().is_power_of_two() && p.len() <= ROWS_MAX));
        }
    }
}
