//! An entry and the balance that it moves: always both, within the caller's transaction.

use crate::bank::ledger as pb;
use pb::entry::Kind;
use sqlx::SqliteConnection;

/// An entry to be made.
pub(super) struct Posting<'a> {
    pub(super) key: Option<&'a str>,
    pub(super) kind: Kind,
    pub(super) transfer_id: &'a str,
    pub(super) account: &'a str,
    pub(super) available_delta_minor: i64,
    pub(super) pending_delta_minor: i64,
    pub(super) reference: &'a str,
    pub(super) now_unix_micros: i64,
}

/// An entry that was made, and the balances after it.
pub(super) struct Posted {
    pub(super) id: i64,
    pub(super) available_minor: i64,
    pub(super) pending_minor: i64,
}

/// An entry's public id.
pub(super) fn entry_id(ledger: &str, id: i64) -> String {
    format!("{ledger}-{id}")
}

/// Moves a balance and writes the entry that says so. A balance below zero fails on the table's CHECK.
pub(super) async fn post(db: &mut SqliteConnection, posting: &Posting<'_>) -> Result<Posted, sqlx::Error> {
    let (available_minor, pending_minor): (i64, i64) = sqlx::query_as(
        "UPDATE account SET available_minor = available_minor + ?2, pending_minor = pending_minor + ?3
         WHERE account = ?1 RETURNING available_minor, pending_minor",
    )
    .bind(posting.account)
    .bind(posting.available_delta_minor)
    .bind(posting.pending_delta_minor)
    .fetch_one(&mut *db)
    .await?;
    let (id,): (i64,) = sqlx::query_as(
        "INSERT INTO entry (idempotency_key, kind, transfer_id, account, available_delta_minor,
                            pending_delta_minor, reference, booked_unix_micros)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id",
    )
    .bind(posting.key)
    .bind(posting.kind as i32)
    .bind(posting.transfer_id)
    .bind(posting.account)
    .bind(posting.available_delta_minor)
    .bind(posting.pending_delta_minor)
    .bind(posting.reference)
    .bind(posting.now_unix_micros)
    .fetch_one(&mut *db)
    .await?;
    Ok(Posted { id, available_minor, pending_minor })
}
