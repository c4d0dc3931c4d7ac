//! Definitions and participants.

use crate::codec::definition;
use crate::{error, rows};
use backstop_core::{DefinitionName, DefinitionRef, DefinitionSpec, ParticipantName, Revision, Timestamp};
use backstop_engine::ports::store::{Participant, StoreError, StoreResult, StoredRevision};
use bytes::Bytes;
use sqlx::{PgPool, Row};

/// How often a revision's number may be snatched away before the caller is told to try again.
const TRIES_MAX: usize = 32;

pub(super) async fn put_revision(
    pool: &PgPool,
    name: &DefinitionName,
    spec: &DefinitionSpec,
    descriptors: &Bytes,
    fingerprint: [u8; 32],
    now: Timestamp,
) -> StoreResult<StoredRevision> {
    let json = definition::encode(spec)?;
    for _ in 0..TRIES_MAX {
        let newest = newest(pool, name).await?;
        if let Some((number, there)) = &newest
            && there.as_slice() == fingerprint
        {
            let there = revision(pool, name, Some(Revision(*number))).await?;
            return there.ok_or_else(|| StoreError::NotApplied(format!("{name}@{number} has gone")));
        }
        let number = newest.map_or(1, |(number, _)| number + 1);
        let inserted = sqlx::query(
            "INSERT INTO definition (name, revision, fingerprint, spec, descriptors, created_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name, revision) DO NOTHING",
        )
        .bind(name.as_str())
        .bind(i64::from(number))
        .bind(fingerprint.as_slice())
        .bind(json.as_str())
        .bind(descriptors.as_ref())
        .bind(now.0)
        .execute(pool)
        .await
        .map_err(|e| error::of_write(&e))?;
        if inserted.rows_affected() == 1 {
            return Ok(StoredRevision {
                reference: DefinitionRef { name: name.clone(), revision: Revision(number) },
                spec: spec.clone(),
                descriptors: descriptors.clone(),
                fingerprint,
                created_at: now,
            });
        }
    }
    Err(StoreError::NotApplied(format!("{name}: {TRIES_MAX} other revisions came first")))
}

/// Number and fingerprint of the newest revision, whether the rest of it can be read or not.
async fn newest(pool: &PgPool, name: &DefinitionName) -> StoreResult<Option<(u32, Vec<u8>)>> {
    let row = sqlx::query(
        "SELECT revision, fingerprint FROM definition WHERE name = $1 ORDER BY revision DESC LIMIT 1",
    )
    .bind(name.as_str())
    .fetch_optional(pool)
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
    pool: &PgPool,
    name: &DefinitionName,
    revision: Option<Revision>,
) -> StoreResult<Option<StoredRevision>> {
    let row = sqlx::query(
        "SELECT * FROM definition WHERE name = $1 AND ($2::bigint IS NULL OR revision = $2)
         ORDER BY revision DESC LIMIT 1",
    )
    .bind(name.as_str())
    .bind(revision.map(|r| i64::from(r.0)))
    .fetch_optional(pool)
    .await
    .map_err(|e| error::of_read(&e))?;
    row.as_ref().map(rows::revision).transpose()
}

pub(super) async fn definitions(
    pool: &PgPool,
    after: Option<&DefinitionName>,
    limit: usize,
) -> StoreResult<Vec<StoredRevision>> {
    let rows = sqlx::query(
        "SELECT * FROM definition AS d
         WHERE revision = (SELECT max(revision) FROM definition WHERE name = d.name)
           AND ($1::text IS NULL OR name > $1)
         ORDER BY name LIMIT $2",
    )
    .bind(after.map(DefinitionName::as_str))
    .bind(rows::limit(limit))
    .fetch_all(pool)
    .await
    .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::revision).collect()
}

pub(super) async fn put_participant(pool: &PgPool, participant: &Participant) -> StoreResult<()> {
    sqlx::query(
        "INSERT INTO participant (name, endpoints, deduplicates_by_key, rollback_listener, in_flight_max,
                                  keepalive_us, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (name) DO UPDATE SET
             endpoints = excluded.endpoints, deduplicates_by_key = excluded.deduplicates_by_key,
             rollback_listener = excluded.rollback_listener, in_flight_max = excluded.in_flight_max,
             keepalive_us = excluded.keepalive_us,
             updated_at = greatest(excluded.updated_at, participant.updated_at + 1)",
    )
    .bind(participant.name.as_str())
    .bind(rows::endpoints_to_column(&participant.endpoints)?)
    .bind(participant.deduplicates_by_key)
    .bind(participant.rollback_listener)
    .bind(i64::from(participant.in_flight_max))
    .bind(rows::micros("keepalive", participant.keepalive)?)
    .bind(participant.updated_at.0)
    .execute(pool)
    .await
    .map_err(|e| error::of_write(&e))?;
    Ok(())
}

/// How many there are and the sum of their times: each registration raises one of the two, also one by a program
/// that knows no mark, for its clock goes on.
pub(super) async fn participants_mark(pool: &PgPool) -> StoreResult<String> {
    sqlx::query_scalar("SELECT count(*)::text || ':' || coalesce(sum(updated_at), 0)::text FROM participant")
        .fetch_one(pool)
        .await
        .map_err(|e| error::of_read(&e))
}

pub(super) async fn participant(pool: &PgPool, name: &ParticipantName) -> StoreResult<Option<Participant>> {
    let row = sqlx::query("SELECT * FROM participant WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(pool)
        .await
        .map_err(|e| error::of_read(&e))?;
    row.as_ref().map(rows::participant).transpose()
}

pub(super) async fn participants(
    pool: &PgPool,
    after: Option<&ParticipantName>,
    limit: usize,
) -> StoreResult<Vec<Participant>> {
    let rows =
        sqlx::query("SELECT * FROM participant WHERE ($1::text IS NULL OR name > $1) ORDER BY name LIMIT $2")
            .bind(after.map(ParticipantName::as_str))
            .bind(rows::limit(limit))
            .fetch_all(pool)
            .await
            .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::participant).collect()
}
