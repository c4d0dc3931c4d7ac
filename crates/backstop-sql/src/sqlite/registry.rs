//! Definitions and participants.

use super::writer::Writer;
use crate::codec::definition;
use crate::{error, rows};
use backstop_core::{DefinitionName, DefinitionRef, DefinitionSpec, ParticipantName, Revision, Timestamp};
use backstop_engine::ports::store::{Participant, StoreError, StoreResult, StoredRevision};
use bytes::Bytes;
use sqlx::{Connection, Row, SqliteConnection, SqliteExecutor, SqlitePool};

pub(super) async fn put_revision(
    writer: &Writer,
    name: &DefinitionName,
    spec: &DefinitionSpec,
    descriptors: &Bytes,
    fingerprint: [u8; 32],
    now: Timestamp,
) -> StoreResult<StoredRevision> {
    let json = definition::encode(spec)?;
    let mut turn = writer.take().await?;
    let not_applied = |e: sqlx::Error| StoreError::NotApplied(e.to_string());
    let mut tx = turn.connection().begin_with("BEGIN IMMEDIATE").await.map_err(not_applied)?;
    let newest = newest(&mut tx, name).await?;
    if let Some((number, there)) = &newest
        && there.as_slice() == fingerprint
    {
        let there = revision(&mut *tx, name, Some(Revision(*number))).await?;
        tx.rollback().await.map_err(not_applied)?;
        turn.end();
        return there.ok_or_else(|| StoreError::NotApplied(format!("{name}@{number} has gone")));
    }
    let number = newest.map_or(1, |(number, _)| number + 1);
    sqlx::query(
        "INSERT INTO definition (name, revision, fingerprint, spec, descriptors, created_at)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(name.as_str())
    .bind(i64::from(number))
    .bind(fingerprint.as_slice())
    .bind(json.as_str())
    .bind(descriptors.as_ref())
    .bind(now.0)
    .execute(&mut *tx)
    .await
    .map_err(not_applied)?;
    tx.commit().await.map_err(|e| StoreError::Unknown(e.to_string()))?;
    turn.end();
    Ok(StoredRevision {
        reference: DefinitionRef { name: name.clone(), revision: Revision(number) },
        spec: spec.clone(),
        descriptors: descriptors.clone(),
        fingerprint,
        created_at: now,
    })
}

/// Number and fingerprint of the newest revision, whether the rest of it can be read or not.
async fn newest(db: &mut SqliteConnection, name: &DefinitionName) -> StoreResult<Option<(u32, Vec<u8>)>> {
    let row = sqlx::query(
        "SELECT revision, fingerprint FROM definition WHERE name = ? ORDER BY revision DESC LIMIT 1",
    )
    .bind(name.as_str())
    .fetch_optional(db)
    .await
    .map_err(|e| error::of_read(&e))?;
    let Some(row) = row else { return Ok(None) };
    let number: i64 = row.try_get(0).map_err(|e| error::of_read(&e))?;
    let fingerprint = row.try_get(1).map_err(|e| error::of_read(&e))?;
    let number = u32::try_from(number)
        .map_err(|_| StoreError::Unreadable(format!("definition {name}: revision {number}")))?;
    Ok(Some((number, fingerprint)))
}

pub(super) async fn revision(
    db: impl SqliteExecutor<'_>,
    name: &DefinitionName,
    revision: Option<Revision>,
) -> StoreResult<Option<StoredRevision>> {
    let row = sqlx::query(
        "SELECT * FROM definition WHERE name = ?1 AND (?2 IS NULL OR revision = ?2)
         ORDER BY revision DESC LIMIT 1",
    )
    .bind(name.as_str())
    .bind(revision.map(|r| i64::from(r.0)))
    .fetch_optional(db)
    .await
    .map_err(|e| error::of_read(&e))?;
    row.as_ref().map(rows::revision).transpose()
}

pub(super) async fn definitions(
    pool: &SqlitePool,
    after: Option<&DefinitionName>,
    limit: usize,
) -> StoreResult<Vec<StoredRevision>> {
    let rows = sqlx::query(
        "SELECT * FROM definition AS d
         WHERE revision = (SELECT max(revision) FROM definition WHERE name = d.name)
           AND (?1 IS NULL OR name > ?1)
         ORDER BY name LIMIT ?2",
    )
    .bind(after.map(DefinitionName::as_str))
    .bind(rows::limit(limit))
    .fetch_all(pool)
    .await
    .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::revision).collect()
}

pub(super) async fn put_participant(writer: &Writer, participant: &Participant) -> StoreResult<()> {
    let mut turn = writer.take().await?;
    sqlx::query(
        "INSERT INTO participant (name, endpoints, deduplicates_by_key, rollback_listener, in_flight_max,
                                  keepalive_us, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET
             endpoints = excluded.endpoints, deduplicates_by_key = excluded.deduplicates_by_key,
             rollback_listener = excluded.rollback_listener, in_flight_max = excluded.in_flight_max,
             keepalive_us = excluded.keepalive_us,
             updated_at = max(excluded.updated_at, participant.updated_at + 1)",
    )
    .bind(participant.name.as_str())
    .bind(rows::endpoints_to_column(&participant.endpoints)?)
    .bind(participant.deduplicates_by_key)
    .bind(participant.rollback_listener)
    .bind(i64::from(participant.in_flight_max))
    .bind(rows::micros("keepalive", participant.keepalive)?)
    .bind(participant.updated_at.0)
    .execute(turn.connection())
    .await
    .map_err(|e| error::of_write(&e))?;
    turn.end();
    Ok(())
}

/// How many there are and the sum of their times: each registration raises one of the two, also one by a program
/// that knows no mark, for its clock goes on.
pub(super) async fn participants_mark(pool: &SqlitePool) -> StoreResult<String> {
    sqlx::query_scalar(
        // In two parts: some thousands of instants in microseconds are more than a number of SQLite can be.
        "SELECT count(*) || ':' || coalesce(sum(updated_at / 1000000), 0) || ':'
                || coalesce(sum(updated_at % 1000000), 0) FROM participant",
    )
    .fetch_one(pool)
    .await
    .map_err(|e| error::of_read(&e))
}

pub(super) async fn participant(
    pool: &SqlitePool,
    name: &ParticipantName,
) -> StoreResult<Option<Participant>> {
    let row = sqlx::query("SELECT * FROM participant WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(pool)
        .await
        .map_err(|e| error::of_read(&e))?;
    row.as_ref().map(rows::participant).transpose()
}

pub(super) async fn participants(
    pool: &SqlitePool,
    after: Option<&ParticipantName>,
    limit: usize,
) -> StoreResult<Vec<Participant>> {
    let rows =
        sqlx::query("SELECT * FROM participant WHERE (?1 IS NULL OR name > ?1) ORDER BY name LIMIT ?2")
            .bind(after.map(ParticipantName::as_str))
            .bind(rows::limit(limit))
            .fetch_all(pool)
            .await
            .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::participant).collect()
}
