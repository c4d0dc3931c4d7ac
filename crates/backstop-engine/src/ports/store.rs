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
//! * Only what has ended is ever retired, and a journal is gone only together with the mark that says so.

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
    /// What is stored was written by a newer program, whose format this one does not know. Not a fault of what
    /// is stored: another coordinator can read it.
    #[error("the store holds something that a newer program wrote: {0}")]
    Newer(String),
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
    /// Why it is set aside, if its journal cannot be followed. Set by [`Store::quarantine`] alone, taken away by
    /// [`Store::restore`] alone; in between every append is `Lost`.
    pub quarantine: Option<String>,
    /// Its journal has been retired: only this row is left of it. Set by [`Store::retire`] alone.
    pub retired: bool,
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
    /// The owner whose lease is over; nobody if its last owner let go of it in order.
    pub owner: Option<CoordinatorId>,
}

/// One of several equal shares of the sagas that want an owner. Every saga is in exactly one of `of` shares,
/// whatever its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which, from 0.
    pub index: u32,
    /// Of how many; at least 1.
    pub of: u32,
}

impl Share {
    /// All sagas.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// True if a saga is in this share. By the last byte of its id alone, which every database can tell: in ids
    /// that a machine makes it is as good as random.
    #[must_use]
    pub fn holds(&self, saga: &SagaId) -> bool {
        let last = saga.as_str().bytes().next_back().unwrap_or_default();
        u32::from(last) % self.of.max(1) == self.index
    }
}

/// How long what has ended is kept. All ages are since the saga's end, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Journals.
    pub journals_for: Duration,
    /// Head rows, and with them the ids: so long is a repeated StartSaga answered by the saga that it once
    /// started. Not shorter than `journals_for`.
    pub ids_for: Duration,
}

/// What one bite of retirement took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retired {
    /// Sagas whose journals are gone since this bite.
    pub journals: u64,
    /// Sagas of which nothing is left since this bite.
    pub sagas: u64,
    /// Partitions of the journal that were dropped whole; their sagas count among `journals`.
    pub partitions: u64,
    /// True if another bite would find more.
    pub more: bool,
}

/// Something that must not be, found by looking at the tables alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What kind of thing.
    pub kind: MisfitKind,
    /// The saga or coordinator that it is about, as stored; empty if it is about neither.
    pub subject: String,
    /// What is there, for people.
    pub detail: String,
}

/// Kinds of [`Misfit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MisfitKind {
    /// A saga that is not over has neither an owner nor a wake-up time nor an open intervention.
    Forsaken,
    /// A saga has more than one of an owner, a wake-up time and an open intervention, or any although it is over.
    Overdetermined,
    /// A saga that is not over is owned by a coordinator whose lease has been over for longer than takeover
    /// may take.
    OwnerGone,
    /// A saga's time came longer ago than takeover may take, and nobody has woken it.
    Overslept,
    /// Events of a saga that has no head row.
    WithoutHead,
    /// A lease that runs for longer than any coordinator may ask for.
    Lease,
    /// The schema is not as this program needs it.
    Schema,
}

/// What of one definition keeps people waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// Which, whatever revision.
    pub definition: DefinitionName,
    /// Its sagas that wait for a person, those in quarantine among them.
    pub waiting: u64,
    /// When the one of these that waits longest was last heard of.
    pub waiting_since: Option<Timestamp>,
    /// When the oldest of its sagas that are rolling back started.
    pub rolling_back_since: Option<Timestamp>,
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

impl SagaFilter {
    /// True if its states let nothing through that is over.
    #[must_use]
    pub fn is_of_unfinished(&self) -> bool {
        !self.states.is_empty() && !self.states.iter().any(|state| state.is_final())
    }
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
    /// It is about to leave: it takes on nothing more.
    pub draining: bool,
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

    /// Several sagas with their whole journals, in the order asked for; one that cannot be read does not keep
    /// the others from being read.
    ///
    /// # Errors
    /// Of the whole, if the store does not answer.
    async fn journals(&self, sagas: &[SagaId]) -> StoreResult<Vec<StoreResult<Option<Journal>>>>;

    /// Unfinished sagas of a share, at most `limit`, whose owner has no live lease, or that have no owner and a
    /// `wake_at` that has come. Sagas that wait for a person without a `wake_at` are not among them.
    async fn orphans(&self, share: Share, limit: usize) -> StoreResult<Vec<Orphan>>;

    /// Sets a saga aside whose journal cannot be followed: nobody owns or wakes it any more, its state is
    /// NEEDS_INTERVENTION, and `quarantine` says why. Its journal stays as it is. Only if it is still owned by
    /// whom the caller saw, and not over; `false` otherwise.
    async fn quarantine(
        &self,
        saga: &SagaId,
        owner: Option<&CoordinatorId>,
        reason: &str,
    ) -> StoreResult<bool>;

    /// Takes a saga out of quarantine with the head that its mended journal makes. `false` if it is not in
    /// quarantine, or if its head row has another seq.
    async fn restore(&self, head: &Head) -> StoreResult<bool>;

    /// Takes away one bite of what has ended long enough ago: the journals of at most `limit` sagas and the head
    /// rows of at most `limit` others, or a whole partition of the journal. Also prepares the partitions to
    /// come. Never holds a lock for long, and may run on several coordinators at once. Unfinished sagas stay,
    /// however old.
    async fn retire(&self, retention: Retention, limit: usize) -> StoreResult<Retired>;

    /// What is wrong with the tables, at most `limit` things: the rule that every saga that is not over has
    /// exactly one of a live owner, a wake-up time and an open intervention; leases that run for longer than
    /// `lease_max`; the schema. What takeover has had less than `grace` to see to is not wrong yet.
    async fn misfits(&self, grace: Duration, lease_max: Duration, limit: usize) -> StoreResult<Vec<Misfit>>;

    /// Each definition of which a saga waits for a person or is rolling back, by name. Looks at the `limit` oldest
    /// sagas that wait and the `limit` oldest that are not over, and never at what is over.
    async fn unsettled(&self, limit: usize) -> StoreResult<Vec<Unsettled>>;

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

    /// Registers a participant, or replaces its registration. Its `updated_at` is stored as later than the one
    /// before, whatever the caller's clock says.
    async fn put_participant(&self, participant: &Participant) -> StoreResult<()>;

    /// Something that differs after each registration of a participant, whoever registered it, for telling
    /// cheaply that none has changed.
    async fn participants_mark(&self) -> StoreResult<String>;

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

    /// Renews a lease that has not run out, and tells the store's time. `None`: it has run out or was never
    /// there; the coordinator must begin anew under another id.
    async fn renew(&self, coordinator: &CoordinatorId, ttl: Duration) -> StoreResult<Option<Timestamp>>;

    /// Marks a coordinator as about to leave, so that the others count on it no more. Its lease runs on.
    async fn set_draining(&self, coordinator: &CoordinatorId) -> StoreResult<()>;

    /// Ends a lease at once.
    async fn leave(&self, coordinator: &CoordinatorId) -> StoreResult<()>;

    /// Every coordinator whose row is still there, by start.
    async fn coordinators(&self) -> StoreResult<Vec<CoordinatorRow>>;

    /// The time by the store's clock.
    async fn now(&self) -> StoreResult<Timestamp>;
}
