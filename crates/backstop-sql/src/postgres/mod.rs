//! The store in Postgres, or in what speaks its protocol.
//!
//! Two connections of its own (the journal's and the lease's) never wait for a list that somebody reads;
//! everything else shares a pool.
//!
//! # Not here
//! SQLite: `crate::sqlite`. What rows mean: `crate::codec`.

mod journal;
mod lease;
mod line;
mod misfits;
mod partitions;
mod quarantine;
mod read;
mod record;
mod registry;
mod retire;
mod session;
mod unsettled;

use crate::error::OpenError;
use crate::migrate;
use async_trait::async_trait;
use backstop_core::{
    CoordinatorId, DefinitionName, DefinitionSpec, Event, ParticipantName, Revision, SagaId, Seq, Timestamp,
};
use backstop_engine::ports::store::{
    Append, Appended, CoordinatorRow, Head, Journal, Misfit, Orphan, Participant, Retention, Retired,
    SagaCursor, SagaFilter, Share, Store, StoreError, StoreResult, StoredRevision, Unsettled,
};
use bytes::Bytes;
use line::Line;
use misfits::Walk;
use partitions::Spans;
use session::{LastRefusal, Plans};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use std::str::FromStr;
use std::time::Duration;

/// How the store uses its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Most connections: one for the journal, one for the lease, the rest (at least one) for reading and
    /// registering.
    pub connections_max: u32,
    /// Longest wait for a connection.
    pub acquire_timeout: Duration,
    /// After this the server ends a statement; the store waits a little longer for it to say so.
    pub statement_timeout: Duration,
    /// How much time of births of sagas one partition of the journal spans. Retirement drops a partition at once;
    /// a saga is kept until the last one of its partition may go.
    pub partition_width: Duration,
    /// How many partitions are made ahead: for so many widths may every coordinator be down, or be without the right
    /// to make tables, before events go to the default partition.
    pub partitions_ahead: u32,
}

impl PostgresSettings {
    /// Default of [`PostgresSettings::connections_max`].
    pub const CONNECTIONS_MAX_DEFAULT: u32 = 8;
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            connections_max: Self::CONNECTIONS_MAX_DEFAULT,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            partition_width: Duration::from_secs(24 * 60 * 60),
            partitions_ahead: 7,
        }
    }
}

/// How many statements in a row may each take their longest before a call on the pool is given up.
const STATEMENTS_IN_ROW_MAX: u32 = 3;
/// The connections that are not in the pool.
const CONNECTIONS_OWN: u32 = 2;

/// The store.
#[derive(Debug)]
pub struct PostgresStore {
    journal: Line,
    lease: Line,
    pool: PgPool,
    last_refusal: LastRefusal,
    spans: Spans,
    walk: Walk,
    /// Longest wait for what uses the pool.
    answer_max: Duration,
    statement_timeout: Duration,
}

/// Brings a database's schema up to date. Several programs may do so at once.
///
/// # Errors
/// [`OpenError`]; a schema of a newer program is left alone.
pub async fn postgres_migrate(url: &str) -> Result<(), OpenError> {
    let unreachable = |error: sqlx::Error| OpenError::Unreachable(error.to_string());
    let mut connection = PgConnection::connect_with(&options(url)?).await.map_err(unreachable)?;
    let migrated = migrate::postgres(&mut connection).await;
    // The work is committed; how the connection ends does not matter.
    let _ = connection.close().await;
    migrated
}

impl PostgresStore {
    /// Connects to a database whose schema is this program's.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do; it never holds the URL's password.
    pub async fn connect(url: &str, settings: PostgresSettings) -> Result<Self, OpenError> {
        let options = options(url)?;
        let timeout = settings.statement_timeout;
        let last_refusal = LastRefusal::default();
        let refusal = last_refusal.clone();
        let unreachable =
            |error: sqlx::Error| OpenError::Unreachable(last_refusal.explain(error.to_string()));
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max.saturating_sub(CONNECTIONS_OWN).max(1))
            .acquire_timeout(settings.acquire_timeout)
            .after_connect(move |connection, _| {
                let refusal = refusal.clone();
                Box::pin(async move { session::prepare_pooled(connection, timeout, &refusal).await })
            })
            .test_before_acquire(false)
            .before_acquire(|connection, _| {
                Box::pin(async move { Ok(session::may_be_used(connection).await) })
            })
            .connect_with(options.clone())
            .await
            .map_err(unreachable)?;
        let mut connection = pool.acquire().await.map_err(unreachable)?;
        migrate::check_postgres(&mut connection).await?;
        drop(connection);
        let spans = Spans::new(&settings);
        if let Err(error) = partitions::prepare(&pool, spans).await {
            // Events go to the default partition then, and each bite of retirement tries again.
            tracing::warn!(%error, "partitions of the journal could not be made");
        }
        Ok(Self {
            spans,
            answer_max: settings
                .acquire_timeout
                .saturating_add(settings.statement_timeout.saturating_mul(STATEMENTS_IN_ROW_MAX)),
            statement_timeout: timeout,
            walk: Walk::default(),
            journal: Line::new(options.clone(), &settings, Plans::ByKey),
            lease: Line::new(options, &settings, Plans::Any),
            pool,
            last_refusal,
        })
    }
}

impl PostgresStore {
    /// Waits for what only reads, and no longer than all of its statements may take: a server that says nothing
    /// at all, not even that it ended a statement, keeps nobody.
    async fn reading<T>(&self, what: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        let late = || StoreError::NotApplied(format!("no answer within {} ms", self.answer_max.as_millis()));
        let read = tokio::time::timeout(self.answer_max, what).await.unwrap_or_else(|_| Err(late()));
        read.map_err(|error| self.explained(error))
    }

    /// Likewise of what writes: it may have been applied.
    async fn writing<T>(&self, what: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        let late = || StoreError::Unknown(format!("no answer within {} ms", self.answer_max.as_millis()));
        let written = tokio::time::timeout(self.answer_max, what).await.unwrap_or_else(|_| Err(late()));
        written.map_err(|error| self.explained(error))
    }

    /// That there was no connection is said with the reason.
    fn explained(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::NotApplied(text) => StoreError::NotApplied(self.last_refusal.explain(text)),
            other => other,
        }
    }
}

fn options(url: &str) -> Result<PgConnectOptions, OpenError> {
    // The parser's own error may quote what it was given.
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::BadUrl)?;
    // The driver asks before each statement whether the log would show it, and shows nothing then: with filters per
    // layer, as the binary has them, that question swallows the next event of ours on that thread.
    Ok(options.application_name("backstop").disable_statement_logging())
}

#[async_trait]
impl Store for PostgresStore {
    async fn append(&self, batch: &[Append]) -> StoreResult<Vec<Appended>> {
        journal::append(&self.journal, batch).await
    }

    async fn journal(&self, saga: &SagaId) -> StoreResult<Option<Journal>> {
        self.reading(read::journal(&self.pool, saga)).await
    }

    async fn head(&self, saga: &SagaId) -> StoreResult<Option<Head>> {
        self.reading(read::head(&self.pool, saga)).await
    }

    async fn events(&self, saga: &SagaId, after: Seq, limit: usize) -> StoreResult<Vec<Event>> {
        self.reading(read::events(&self.pool, saga, after, limit)).await
    }

    async fn list(
        &self,
        filter: &SagaFilter,
        cursor: Option<&SagaCursor>,
        limit: usize,
    ) -> StoreResult<Vec<Head>> {
        self.reading(read::list(&self.pool, filter, cursor, limit)).await
    }

    async fn journals(&self, sagas: &[SagaId]) -> StoreResult<Vec<StoreResult<Option<Journal>>>> {
        self.reading(read::journals(&self.pool, sagas)).await
    }

    async fn orphans(&self, share: Share, limit: usize) -> StoreResult<Vec<Orphan>> {
        self.reading(lease::orphans(&self.pool, share, limit)).await
    }

    async fn quarantine(
        &self,
        saga: &SagaId,
        owner: Option<&CoordinatorId>,
        reason: &str,
    ) -> StoreResult<bool> {
        self.writing(quarantine::quarantine(&self.pool, saga, owner, reason)).await
    }

    async fn restore(&self, head: &Head) -> StoreResult<bool> {
        self.writing(quarantine::restore(&self.pool, head)).await
    }

    async fn retire(&self, retention: Retention, limit: usize) -> StoreResult<Retired> {
        self.writing(retire::retire(&self.pool, &self.spans, self.statement_timeout, retention, limit)).await
    }

    async fn misfits(&self, grace: Duration, lease_max: Duration, limit: usize) -> StoreResult<Vec<Misfit>> {
        self.reading(misfits::misfits(&self.pool, &self.spans, &self.walk, (grace, lease_max), limit)).await
    }

    async fn unsettled(&self, limit: usize) -> StoreResult<Vec<Unsettled>> {
        self.reading(unsettled::unsettled(&self.pool, limit)).await
    }

    async fn put_revision(
        &self,
        name: &DefinitionName,
        spec: &DefinitionSpec,
        descriptors: &Bytes,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<StoredRevision> {
        self.writing(registry::put_revision(&self.pool, name, spec, descriptors, fingerprint, now)).await
    }

    async fn revision(
        &self,
        name: &DefinitionName,
        revision: Option<Revision>,
    ) -> StoreResult<Option<StoredRevision>> {
        self.reading(registry::revision(&self.pool, name, revision)).await
    }

    async fn definitions(
        &self,
        after: Option<&DefinitionName>,
        limit: usize,
    ) -> StoreResult<Vec<StoredRevision>> {
        self.reading(registry::definitions(&self.pool, after, limit)).await
    }

    async fn put_participant(&self, participant: &Participant) -> StoreResult<()> {
        self.writing(registry::put_participant(&self.pool, participant)).await
    }

    async fn participants_mark(&self) -> StoreResult<String> {
        self.reading(registry::participants_mark(&self.pool)).await
    }

    async fn participant(&self, name: &ParticipantName) -> StoreResult<Option<Participant>> {
        self.reading(registry::participant(&self.pool, name)).await
    }

    async fn participants(
        &self,
        after: Option<&ParticipantName>,
        limit: usize,
    ) -> StoreResult<Vec<Participant>> {
        self.reading(registry::participants(&self.pool, after, limit)).await
    }

    async fn enter(&self, coordinator: &CoordinatorId, address: &str, ttl: Duration) -> StoreResult<()> {
        lease::enter(&self.lease, coordinator, address, ttl).await
    }

    async fn renew(&self, coordinator: &CoordinatorId, ttl: Duration) -> StoreResult<Option<Timestamp>> {
        lease::renew(&self.lease, coordinator, ttl).await
    }

    async fn set_draining(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        lease::set_draining(&self.lease, coordinator).await
    }

    async fn leave(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        lease::leave(&self.lease, coordinator).await
    }

    async fn coordinators(&self) -> StoreResult<Vec<CoordinatorRow>> {
        self.reading(lease::coordinators(&self.pool)).await
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        lease::now(&self.lease).await
    }
}
