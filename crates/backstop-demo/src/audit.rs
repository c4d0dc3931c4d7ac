//! The audit service: one line for each finished transfer, however often it is asked to write it.
//!
//! # Invariants
//! - One idempotency key, one line, one answer (`the_same_key_writes_one_line`).

use crate::bank::audit as pb;
use crate::wire::{Shape, idempotency_key, internal, now_unix_micros};
use pb::audit_service_server::AuditService;
use prost::Message;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::path::Path;
use tonic::{Request, Response, Status};

/// The `google.rpc.ErrorInfo` domain of its refusals.
pub const DOMAIN: &str = "audit.bank.example";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS record (
    id                   INTEGER PRIMARY KEY AUTOINCREMENT,
    idempotency_key      TEXT NOT NULL UNIQUE,
    transfer             BLOB NOT NULL,
    recorded_unix_micros INTEGER NOT NULL
) STRICT;";

/// Lines in one SQLite file.
#[derive(Debug, Clone)]
pub struct Audit {
    pool: SqlitePool,
}

impl Audit {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn open(file: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self { pool })
    }

    /// The line's number, or `None` if the key came with another transfer before.
    async fn append(&self, key: &str, transfer: &[u8]) -> Result<Option<i64>, sqlx::Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let there: Option<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT id, transfer FROM record WHERE idempotency_key = ?1")
                .bind(key)
                .fetch_optional(&mut *tx)
                .await?;
        if let Some((id, before)) = there {
            return Ok((before == transfer).then_some(id));
        }
        let (id,): (i64,) = sqlx::query_as(
            "INSERT INTO record (idempotency_key, transfer, recorded_unix_micros) VALUES (?1, ?2, ?3)
             RETURNING id",
        )
        .bind(key)
        .bind(transfer)
        .bind(now_unix_micros())
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Some(id))
    }

    async fn records(&self) -> Result<Vec<(i64, Vec<u8>, i64)>, sqlx::Error> {
        sqlx::query_as("SELECT id, transfer, recorded_unix_micros FROM record ORDER BY id")
            .fetch_all(&self.pool)
            .await
    }
}

fn record_id(id: i64) -> String {
    format!("audit-{id}")
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn record(
        &self,
        request: Request<pb::RecordRequest>,
    ) -> Result<Response<pb::RecordResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let key = idempotency_key(&metadata)?;
        let transfer = request.transfer.unwrap_or_default();
        Shape::default()
            .text("transfer.transfer_id", &transfer.transfer_id)
            .text("transfer.from_account", &transfer.from_account)
            .text("transfer.to_account", &transfer.to_account)
            .amount("transfer.amount_minor", transfer.amount_minor, 1)
            .currency("transfer.currency", &transfer.currency)
            .bounded("transfer.note", &transfer.note)
            .check(DOMAIN)?;
        let (audit, transfer) = (self.clone(), transfer.encode_to_vec());
        // In a task of its own: a line once begun is written even if the caller hangs up.
        let appended = tokio::spawn(async move { audit.append(&key, &transfer).await })
            .await
            .map_err(|error| internal("the line broke off", &error))?
            .map_err(|error| internal("the audit file cannot be used", &error))?;
        match appended {
            Some(id) => Ok(Response::new(pb::RecordResponse { record_id: record_id(id) })),
            None => Err(Status::invalid_argument("this idempotency key came with another transfer before")),
        }
    }

    async fn list_records(
        &self,
        _request: Request<pb::ListRecordsRequest>,
    ) -> Result<Response<pb::ListRecordsResponse>, Status> {
        let rows = self.records().await;
        let rows = rows.map_err(|error| internal("the audit file cannot be used", &error))?;
        let mut records = Vec::with_capacity(rows.len());
        for (id, transfer, recorded_unix_micros) in rows {
            let transfer = pb::Transfer::decode(&*transfer)
                .map_err(|error| internal("a line cannot be read", &error))?;
            records.push(pb::list_records_response::Record {
                record_id: record_id(id),
                transfer: Some(transfer),
                recorded_unix_micros,
            });
        }
        Ok(Response::new(pb::ListRecordsResponse { records }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tonic::Code;

    fn request(key: &str, transfer_id: &str) -> Request<pb::RecordRequest> {
        let transfer = pb::Transfer {
            transfer_id: transfer_id.into(),
            from_account: "a".into(),
            to_account: "b".into(),
            amount_minor: 1,
            currency: "EUR".into(),
            ..pb::Transfer::default()
        };
        let mut request = Request::new(pb::RecordRequest { transfer: Some(transfer) });
        request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
        request
    }

    #[tokio::test]
    async fn the_same_key_writes_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("audit.db");
        let audit = Audit::open(&file).await.unwrap();
        let first = audit.record(request("k-1", "t-1")).await.unwrap().into_inner();
        let again = Audit::open(&file).await.unwrap();
        assert_eq!(again.record(request("k-1", "t-1")).await.unwrap().into_inner(), first);
        let other = again.record(request("k-1", "t-2")).await.unwrap_err();
        assert_eq!(other.code(), Code::InvalidArgument);
        again.record(request("k-2", "t-2")).await.unwrap();
        let lines = audit.list_records(Request::new(pb::ListRecordsRequest {})).await.unwrap().into_inner();
        let ids: Vec<_> = lines.records.iter().map(|r| r.transfer.clone().unwrap().transfer_id).collect();
        assert_eq!(ids, ["t-1", "t-2"]);
    }
}
