//! The books on disk: every command once, in one transaction with its entries, balances and answer.
//!
//! # Invariants
//! - One connection, and every write begins IMMEDIATE: two attempts with one key cannot both book.
//! - An answer that went out is on disk (`synchronous = FULL`).
//!
//! # Not here
//! What a command does to the accounts: `booking`.

use super::booking::{self, Command};
use super::posting::{self, Posting};
use super::refusal::Refusal;
use crate::bank::ledger as pb;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::path::Path;
use std::sync::Arc;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (
    account         TEXT PRIMARY KEY,
    currency        TEXT NOT NULL,
    opening_minor   INTEGER NOT NULL CHECK (opening_minor >= 0),
    available_minor INTEGER NOT NULL CHECK (available_minor >= 0),
    pending_minor   INTEGER NOT NULL CHECK (pending_minor >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS entry (
    id                    INTEGER PRIMARY KEY AUTOINCREMENT,
    idempotency_key       TEXT UNIQUE,
    kind                  INTEGER NOT NULL,
    transfer_id           TEXT NOT NULL,
    account               TEXT NOT NULL REFERENCES account,
    available_delta_minor INTEGER NOT NULL,
    pending_delta_minor   INTEGER NOT NULL,
    reference             TEXT NOT NULL,
    booked_unix_micros    INTEGER NOT NULL
) STRICT;
-- One half of a transfer. Without an entry it was reversed before it came.
CREATE TABLE IF NOT EXISTS booking (
    transfer_id TEXT NOT NULL,
    half        TEXT NOT NULL CHECK (half IN ('debit', 'credit')),
    state       TEXT NOT NULL CHECK (state IN ('booked', 'settled', 'reversed')),
    entry       INTEGER REFERENCES entry,
    PRIMARY KEY (transfer_id, half)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answer (
    idempotency_key TEXT PRIMARY KEY,
    method          TEXT NOT NULL,
    request         BLOB NOT NULL,
    refused         INTEGER NOT NULL,
    body            BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS rollback_signal (
    saga_id             TEXT NOT NULL,
    clock               INTEGER NOT NULL,
    cause               TEXT NOT NULL,
    branches            TEXT NOT NULL,
    received_unix_micros INTEGER NOT NULL,
    PRIMARY KEY (saga_id, clock)
) STRICT;";

/// Why the books could not be read or written. Whether a write took place is then unknown.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// SQLite says no.
    #[error("the ledger's file could not be used")]
    Sqlite(#[from] sqlx::Error),
    /// What is stored as an answer is none.
    #[error("a stored refusal cannot be read")]
    Refusal(#[from] serde_json::Error),
}

/// One ledger's books.
#[derive(Debug, Clone)]
pub struct Books {
    pub(super) pool: SqlitePool,
    name: Arc<str>,
}

impl Books {
    /// Opens or creates the file. `name` begins each entry's id.
    ///
    /// # Errors
    /// [`BooksError::Sqlite`].
    pub async fn open(file: &Path, name: &str) -> Result<Self, BooksError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self { pool, name: Arc::from(name) })
    }

    /// Carries a command out, or answers what was answered before under its key. `Ok(Ok)` is the encoded
    /// response message.
    pub(super) async fn execute(
        &self,
        key: &str,
        command: &Command,
        now_unix_micros: i64,
    ) -> Result<Result<Vec<u8>, Refusal>, BooksError> {
        let request = command.encoded();
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let before: Option<(String, Vec<u8>, bool, Vec<u8>)> =
            sqlx::query_as("SELECT method, request, refused, body FROM answer WHERE idempotency_key = ?1")
                .bind(key)
                .fetch_optional(&mut *tx)
                .await?;
        if let Some((method, request_before, refused, body)) = before {
            if method != command.method() || request_before != request {
                return Ok(Err(Refusal::KeyReused));
            }
            return Ok(if refused { Err(serde_json::from_slice(&body)?) } else { Ok(body) });
        }
        let outcome = booking::book(&mut tx, &self.name, key, command, now_unix_micros).await?;
        let body = match &outcome {
            Ok(response) => response.clone(),
            Err(refusal) => serde_json::to_vec(refusal)?,
        };
        sqlx::query("INSERT INTO answer VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(key)
            .bind(command.method())
            .bind(&request)
            .bind(outcome.is_err())
            .bind(&body)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(outcome)
    }

    /// Opens an account, or answers the one that is there; `true` if this call opened it.
    pub(crate) async fn open_account(
        &self,
        request: &pb::OpenAccountRequest,
        now_unix_micros: i64,
    ) -> Result<Result<(pb::Account, bool), Refusal>, BooksError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let there: Option<(String, i64, i64, i64)> = sqlx::query_as(
            "SELECT currency, opening_minor, available_minor, pending_minor FROM account WHERE account = ?1",
        )
        .bind(&request.account)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some((currency, opening_minor, available_minor, pending_minor)) = there {
            if currency != request.currency || opening_minor != request.opening_minor {
                return Ok(Err(Refusal::OpenedOtherwise { account: request.account.clone() }));
            }
            let account = request.account.clone();
            return Ok(Ok((pb::Account { account, currency, available_minor, pending_minor }, false)));
        }
        sqlx::query("INSERT INTO account VALUES (?1, ?2, ?3, 0, 0)")
            .bind(&request.account)
            .bind(&request.currency)
            .bind(request.opening_minor)
            .execute(&mut *tx)
            .await?;
        let opening = Posting {
            key: None,
            kind: pb::entry::Kind::Opening,
            transfer_id: "",
            account: &request.account,
            available_delta_minor: request.opening_minor,
            pending_delta_minor: 0,
            reference: "opening balance",
            now_unix_micros,
        };
        let posted = posting::post(&mut tx, &opening).await?;
        tx.commit().await?;
        let account = pb::Account {
            account: request.account.clone(),
            currency: request.currency.clone(),
            available_minor: posted.available_minor,
            pending_minor: posted.pending_minor,
        };
        Ok(Ok((account, true)))
    }

    /// Every account, by account.
    ///
    /// # Errors
    /// [`BooksError::Sqlite`].
    pub async fn balances(&self) -> Result<Vec<pb::Account>, BooksError> {
        let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
            "SELECT account, currency, available_minor, pending_minor FROM account ORDER BY account",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(account, currency, available_minor, pending_minor)| pb::Account {
                account,
                currency,
                available_minor,
                pending_minor,
            })
            .collect())
    }

    /// What the entries of each account add up to, by account: available and pending. If it differs from
    /// [`Books::balances`], the books are wrong.
    ///
    /// # Errors
    /// [`BooksError::Sqlite`].
    pub async fn entry_sums(&self) -> Result<Vec<(String, i64, i64)>, BooksError> {
        Ok(sqlx::query_as(
            "SELECT account, SUM(available_delta_minor), SUM(pending_delta_minor) FROM entry
             GROUP BY account ORDER BY account",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The entry that a key made.
    pub(super) async fn entry(&self, key: &str) -> Result<Option<pb::Entry>, BooksError> {
        type Row = (i64, i32, String, String, i64, i64, String, String, i64);
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, kind, transfer_id, account, available_delta_minor, pending_delta_minor, currency,
                    reference, booked_unix_micros
             FROM entry JOIN account USING (account) WHERE idempotency_key = ?1",
        )
        .bind(key)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(
            |(
                id,
                kind,
                transfer_id,
                account,
                available,
                pending,
                currency,
                reference,
                booked_unix_micros,
            )| {
                pb::Entry {
                    id: posting::entry_id(&self.name, id),
                    kind,
                    transfer_id,
                    account,
                    available_delta_minor: available,
                    pending_delta_minor: pending,
                    currency,
                    reference,
                    booked_unix_micros,
                }
            },
        ))
    }
}
