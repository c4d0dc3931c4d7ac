//! The journal and the tables beside it.
//!
//! The contract is tested, not only told: every store passes the suite in `crate::store_contract`.
//!
//! # Promises of a store
//! * What `append` answered `Written` for is on disk, whatever crashes afterwards.
//! * An append is all or nothing, for each saga by itself, and goes in only as the *next* events of its
//!   saga: of two writers with the same expected seq at most one is `Written`.
//! * An append that is repeated word for word after it was written answers `Written` again, and is
//!   there once: a commit of unknown fate is settled by writing it again.
//! * Leases are judged by the store's clock alone.

use async_trait::async_trait;
use backstop_core::{
    CoordinatorId, DefinitionName, DefinitionRef, DefinitionSpec, Epoch, Event, FinCode, ParticipantName,
    Revision, SagaId, SagaState, Seq, Timestamp,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Why a store did not answer. The question that matters is: was it applied?
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Certainly nothing was changed; the same call may be made again.
    #[error("the store did not apply it: {0}")]
    NotApplied(String),
    /// It may have been applied or not.
    #[error("the store did not say whether it applied it: {0}")]
    Unknown(String),
    /// What is stored cannot be read; asking again will not help.
    #[error("the store holds something unreadable: {0}")]
    Unreadable(String),
}

/// Result of a store call.
pub type StoreResult<T> = Result<T, StoreError>;

/// Events to be written for one saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The saga.
    pub saga: SagaId,
    /// Seq of the last event that the writer knows; 0 creates the saga.
    pub expected: Seq,
    /// The events, at least one, numbered from `expected + 1` on without a gap.
    pub events: Vec<Event>,
    /// The head row as it is after these events.
    pub head: Head,
}

/// What became of an [`Append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is on disk.
    Written,
    /// Another writer was there first (for a new saga: the id is taken). Nothing of it was written.
    Lost,
}

/// The row of a saga that lists and recovery filter on. Derived from the journal; the journal wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The saga.
    pub saga: SagaId,
    /// What it runs.
    pub definition: DefinitionRef,
    /// Where it stands.
    pub state: SagaState,
    /// Seq of its last event.
    pub seq: Seq,
    /// The present tenure.
    pub epoch: Epoch,
    /// Who drives it; nobody if it is over, parked, or waits for a person.
    pub owner: Option<CoordinatorId>,
    /// When it wants its next turn, if nobody drives it.
    pub wake_at: Option<Timestamp>,
    /// FIN code of its cause.
    pub fin_code: Option<FinCode>,
    /// The client's labels.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of the request that started it.
    pub fingerprint: [u8; 32],
    /// When it started.
    pub created_at: Timestamp,
    /// When its last event happened.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A saga with its whole journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Its head row.
    pub head: Head,
    /// Its events, from 1 without a gap (a gap is for the reader to find: `Corrupt`).
    pub events: Vec<Event>,
}

/// A saga that nobody drives and somebody should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The saga.
    pub saga: SagaId,
    /// True if its last owner let go of it in order; false if that owner's lease ran out.
    pub handed_over: bool,
}

/// What a list of sagas is narrowed by. Empty fields do not narrow; several are joined by AND.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SagaFilter {
    /// Any of these states.
    pub states: Vec<SagaState>,
    /// This definition, whatever revision.
    pub definition: Option<DefinitionName>,
    /// This FIN code.
    pub fin_code: Option<FinCode>,
    /// Each of these labels with this value.
    pub labels: BTreeMap<String, String>,
    /// Started at or after this.
    pub created_from: Option<Timestamp>,
    /// Started before this.
    pub created_before: Option<Timestamp>,
}

/// Where a page of sagas begins: after this one, in the order newest first (`created_at`, then id,
/// both descending).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaCursor {
    /// `created_at` of the last saga of the page before.
    pub created_at: Timestamp,
    /// Its id.
    pub saga: SagaId,
}

/// A revision as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRevision {
    /// Which.
    pub reference: DefinitionRef,
    /// What its author wrote.
    pub spec: DefinitionSpec,
    /// The message types of its calls: an encoded `google.protobuf.FileDescriptorSet`.
    pub descriptors: Bytes,
    /// SHA-256 over content and descriptors.
    pub fingerprint: [u8; 32],
    /// When it was registered.
    pub created_at: Timestamp,
}

/// A participant as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Its name.
    pub name: ParticipantName,
    /// Where it listens: `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// It gives every attempt with one idempotency key the same answer, refusals included.
    pub deduplicates_by_key: bool,
    /// It implements `backstop.participant.v1.RollbackListenerService`.
    pub rollback_listener: bool,
    /// Most calls in flight to it from one coordinator.
    pub in_flight_max: u32,
    /// Interval of HTTP/2 keepalive pings while calls are in flight.
    pub keepalive: Duration,
    /// When it was registered last.
    pub updated_at: Timestamp,
}

/// A coordinator's row: its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorRow {
    /// Who.
    pub coordinator: CoordinatorId,
    /// Where its API listens, for people.
    pub address: String,
    /// When it came.
    pub started_at: Timestamp,
    /// When its lease runs out unless renewed.
    pub expires_at: Timestamp,
    /// True if that has happened, by the store's clock.
    pub expired: bool,
}

/// The store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes a batch: one answer for each append, in order. The appends are of different sagas.
    async fn append(&self, batch: &[Append]) -> StoreResult<Vec<Appended>>;

    /// A saga with its whole journal; `None` if there is no such saga.
    async fn journal(&self, saga: &SagaId) -> StoreResult<Option<Journal>>;

    /// A saga's head row.
    async fn head(&self, saga: &SagaId) -> StoreResult<Option<Head>>;

    /// Events of a saga after `after`, at most `limit`, ascending. None for a saga that does not exist.
    async fn events(&self, saga: &SagaId, after: Seq, limit: usize) -> StoreResult<Vec<Event>>;

    /// Sagas, newest first, at most `limit`, beginning after `cursor`.
    async fn list(
        &self,
        filter: &SagaFilter,
        cursor: Option<&SagaCursor>,
        limit: usize,
    ) -> StoreResult<Vec<Head>>;

    /// Unfinished sagas, at most `limit`, whose owner has no live lease, or that have no owner and a
    /// `wake_at` that has come. Sagas that wait for a person without a `wake_at` are not among them.
    async fn orphans(&self, limit: usize) -> StoreResult<Vec<Orphan>>;

    /// Stores a revision unless the newest one of that name has this fingerprint; answers the one that
    /// is there then. Two callers at once get two different revisions or one common one.
    async fn put_revision(
        &self,
        name: &DefinitionName,
        spec: &DefinitionSpec,
        descriptors: &Bytes,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<StoredRevision>;

    /// A revision; the newest if `revision` is `None`.
    async fn revision(
        &self,
        name: &DefinitionName,
        revision: Option<Revision>,
    ) -> StoreResult<Option<StoredRevision>>;

    /// The newest revision of each definition, by name, at most `limit`, beginning after the name `after`.
    async fn definitions(
        &self,
        after: Option<&DefinitionName>,
        limit: usize,
    ) -> StoreResult<Vec<StoredRevision>>;

    /// Registers a participant, or replaces its registration.
    async fn put_participant(&self, participant: &Participant) -> StoreResult<()>;

    /// A participant.
    async fn participant(&self, name: &ParticipantName) -> StoreResult<Option<Participant>>;

    /// Participants by name, at most `limit`, beginning after the name `after`.
    async fn participants(
        &self,
        after: Option<&ParticipantName>,
        limit: usize,
    ) -> StoreResult<Vec<Participant>>;

    /// Enters a coordinator, with a lease of `ttl` from now by the store's clock. A store that only one
    /// coordinator can use (SQLite, memory) drops all other coordinators' rows: their leases are over.
    async fn enter(&self, coordinator: &CoordinatorId, address: &str, ttl: Duration) -> StoreResult<()>;

    /// Renews a lease that has not run out. `false`: it has run out or was never there; the coordinator
    /// must begin anew under another id.
    async fn renew(&self, coordinator: &CoordinatorId, ttl: Duration) -> StoreResult<bool>;

    /// Ends a lease at once.
    async fn leave(&self, coordinator: &CoordinatorId) -> StoreResult<()>;

    /// Every coordinator whose row is still there, by start.
    async fn coordinators(&self) -> StoreResult<Vec<CoordinatorRow>>;

    /// The time by the store's clock.
    async fn now(&self) -> StoreResult<Timestamp>;
}
