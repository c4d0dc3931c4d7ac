//! The store in one SQLite file, for one coordinator.
//!
//! # Invariants
//! * One process has the file: an operating system lock on `<path>.lock` lasts as long as the store
//!   (`tests/sqlite.rs`).
//! * A commit is on disk when it is answered: WAL with `synchronous = FULL`.
//! * One connection writes, a few others read.
//!
//! # Not here
//! Postgres: `crate::postgres`. What rows mean: `crate::codec`.

mod journal;
mod lease;
mod misfits;
mod quarantine;
mod read;
mod registry;
mod retire;
mod unsettled;
mod writer;

use crate::error::OpenError;
use crate::migrate;
use async_trait::async_trait;
use backstop_core::{
    CoordinatorId, DefinitionName, DefinitionSpec, Event, ParticipantName, Revision, SagaId, SagaState, Seq,
    Timestamp,
};
use backstop_engine::ports::store::{
    Append, Appended, CoordinatorRow, Head, Journal, Misfit, Orphan, Participant, Retention, Retired,
    SagaCursor, SagaFilter, Share, Store, StoreError, StoreResult, StoredRevision, Unsettled,
};
use bytes::Bytes;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use writer::Writer;

/// Readers at once; a read of SQLite keeps a core busy, so more would not help.
const READERS_MAX: u32 = 4;
/// How long a connection waits for another one's lock. Only this process has the file, so the wait is
/// short or something is wrong.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The store.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    /// Dropped last: while a connection is open, the file is ours.
    _lock: File,
}

impl SqliteStore {
    /// Opens the file, makes it if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::InUse`] if another store has the file, in this process or another.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = true_path(path.as_ref())?;
        let lock = lock(&path)?;
        let failed = |error: sqlx::Error| OpenError::File { path: path.clone(), reason: error.to_string() };
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let writing = options.clone().create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        let mut connection = writing.connect().await.map_err(failed)?;
        migrate::sqlite()
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|error| migrate::sqlite_error(&error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .connect_with(options.pragma("query_only", "on"))
            .await
            .map_err(failed)?;
        Ok(Self { writer: Writer::new(writing, connection), readers, _lock: lock })
    }
}

/// The path with no link in it: two names of one file must meet at one lock.
fn true_path(path: &Path) -> Result<PathBuf, OpenError> {
    let failed = |error: std::io::Error| OpenError::File { path: path.to_owned(), reason: error.to_string() };
    if path.exists() {
        return path.canonicalize().map_err(failed);
    }
    let Some(name) = path.file_name() else {
        return Err(OpenError::File {
            path: path.to_owned(),
            reason: "this is no name of a file".to_owned(),
        });
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(folder.canonicalize().map_err(failed)?.join(name))
}

/// Texts as one parameter, for `json_each`.
fn json(texts: &[impl AsRef<str>]) -> StoreResult<String> {
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    serde_json::to_string(&texts).map_err(|error| StoreError::NotApplied(error.to_string()))
}

/// The states in which a saga is over, as one parameter.
fn final_states() -> StoreResult<String> {
    let over: Vec<&str> = SagaState::ALL.iter().filter(|s| s.is_final()).map(|s| s.as_str()).collect();
    json(&over)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |error: std::io::Error| OpenError::File { path: name.clone(), reason: error.to_string() };
    let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn append(&self, batch: &[Append]) -> StoreResult<Vec<Appended>> {
        journal::append(&self.writer, batch).await
    }

    async fn journal(&self, saga: &SagaId) -> StoreResult<Option<Journal>> {
        read::journal(&self.readers, saga).await
    }

    async fn head(&self, saga: &SagaId) -> StoreResult<Option<Head>> {
        read::head(&self.readers, saga).await
    }

    async fn events(&self, saga: &SagaId, after: Seq, limit: usize) -> StoreResult<Vec<Event>> {
        read::events(&self.readers, saga, after, limit).await
    }

    async fn list(
        &self,
        filter: &SagaFilter,
        cursor: Option<&SagaCursor>,
        limit: usize,
    ) -> StoreResult<Vec<Head>> {
        read::list(&self.readers, filter, cursor, limit).await
    }

    async fn journals(&self, sagas: &[SagaId]) -> StoreResult<Vec<StoreResult<Option<Journal>>>> {
        read::journals(&self.readers, sagas).await
    }

    async fn orphans(&self, share: Share, limit: usize) -> StoreResult<Vec<Orphan>> {
        lease::orphans(&self.readers, share, limit).await
    }

    async fn quarantine(
        &self,
        saga: &SagaId,
        owner: Option<&CoordinatorId>,
        reason: &str,
    ) -> StoreResult<bool> {
        quarantine::quarantine(&self.writer, saga, owner, reason).await
    }

    async fn restore(&self, head: &Head) -> StoreResult<bool> {
        quarantine::restore(&self.writer, head).await
    }

    async fn retire(&self, retention: Retention, limit: usize) -> StoreResult<Retired> {
        retire::retire(&self.writer, retention, limit).await
    }

    async fn misfits(&self, grace: Duration, lease_max: Duration, limit: usize) -> StoreResult<Vec<Misfit>> {
        misfits::misfits(&self.readers, grace, lease_max, limit).await
    }

    async fn unsettled(&self, limit: usize) -> StoreResult<Vec<Unsettled>> {
        unsettled::unsettled(&self.readers, limit).await
    }

    async fn put_revision(
        &self,
        name: &DefinitionName,
        spec: &DefinitionSpec,
        descriptors: &Bytes,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<StoredRevision> {
        registry::put_revision(&self.writer, name, spec, descriptors, fingerprint, now).await
    }

    async fn revision(
        &self,
        name: &DefinitionName,
        revision: Option<Revision>,
    ) -> StoreResult<Option<StoredRevision>> {
        registry::revision(&self.readers, name, revision).await
    }

    async fn definitions(
        &self,
        after: Option<&DefinitionName>,
        limit: usize,
    ) -> StoreResult<Vec<StoredRevision>> {
        registry::definitions(&self.readers, after, limit).await
    }

    async fn put_participant(&self, participant: &Participant) -> StoreResult<()> {
        registry::put_participant(&self.writer, participant).await
    }

    async fn participants_mark(&self) -> StoreResult<String> {
        registry::participants_mark(&self.readers).await
    }

    async fn participant(&self, name: &ParticipantName) -> StoreResult<Option<Participant>> {
        registry::participant(&self.readers, name).await
    }

    async fn participants(
        &self,
        after: Option<&ParticipantName>,
        limit: usize,
    ) -> StoreResult<Vec<Participant>> {
        registry::participants(&self.readers, after, limit).await
    }

    async fn enter(&self, coordinator: &CoordinatorId, address: &str, ttl: Duration) -> StoreResult<()> {
        lease::enter(&self.writer, coordinator, address, ttl).await
    }

    async fn renew(&self, coordinator: &CoordinatorId, ttl: Duration) -> StoreResult<Option<Timestamp>> {
        lease::renew(&self.writer, coordinator, ttl).await
    }

    async fn set_draining(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        lease::set_draining(&self.writer, coordinator).await
    }

    async fn leave(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        lease::leave(&self.writer, coordinator).await
    }

    async fn coordinators(&self) -> StoreResult<Vec<CoordinatorRow>> {
        lease::coordinators(&self.readers).await
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        Ok(lease::now())
    }
}
