//! A store with switches: it blocks, fails, forgets to answer, goes down, or lets another be faster.
//!
//! # Invariants
//! * What it says it has not applied, it has not; what it answered `Written` for is in the store below.
//! * Its leases are shared by all coordinators, as Postgres's are; the clock is tokio's, so it can be paused.

use super::process::Process;
use async_trait::async_trait;
use backstop_core::{
    Clock, CoordinatorId, DefinitionName, DefinitionSpec, Epoch, Event, EventKind, ParticipantName, Revision,
    SagaId, Seq, Timestamp,
};
use backstop_engine::memory_store::MemoryStore;
use backstop_engine::ports::store::{
    Append, Appended, CoordinatorRow, Head, Journal, Misfit, MisfitKind, Orphan, Participant, Retention,
    Retired, SagaCursor, SagaFilter, Share, Store, StoreError, StoreResult, StoredRevision, Unsettled,
};
use bytes::Bytes;
use futures::FutureExt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// When every story begins.
const BEGINNING: Timestamp = Timestamp(1_700_000_000_000_000);

fn time_of(began: Instant, back: &AtomicI64) -> Timestamp {
    Timestamp(BEGINNING.plus(began.elapsed()).0 - back.load(Ordering::Relaxed))
}

/// What becomes of one call of `append`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Certainly not applied.
    Refuse,
    /// Applied, and nobody hears of it.
    ApplyAndForget,
    /// Not applied, and nobody hears of that.
    Forget,
    /// Not applied: it panics before.
    Panic,
    /// Applied; then it panics.
    ApplyAndPanic,
}

/// The data, shared by all coordinators.
pub(crate) struct Disk {
    inner: MemoryStore,
    began: Instant,
    /// Microseconds by which its clock was set back.
    back: Arc<AtomicI64>,
    /// True while no append comes through.
    blocked: watch::Sender<bool>,
    switches: Mutex<Switches>,
}

#[derive(Default)]
struct Switches {
    down: bool,
    faults: VecDeque<Fault>,
    poisoned: BTreeSet<SagaId>,
    poison_panics: bool,
    clock_panics_once: bool,
    /// How many more appends of its own each of these has before another one's comes in between.
    to_be_stolen: BTreeMap<SagaId, usize>,
    unreadable: BTreeSet<SagaId>,
    newer: BTreeSet<SagaId>,
    definitions_broken: bool,
    renewals_fail: bool,
    append_takes: Duration,
    leases: BTreeMap<CoordinatorId, CoordinatorRow>,
    tries: Vec<Vec<(SagaId, usize)>>,
    written: Vec<Vec<Append>>,
    reads: usize,
    renewals: usize,
}

impl Disk {
    pub(crate) fn new() -> Arc<Self> {
        let (began, back) = (Instant::now(), Arc::new(AtomicI64::new(0)));
        Arc::new(Self {
            inner: MemoryStore::with_clock({
                let back = Arc::clone(&back);
                move || time_of(began, &back)
            }),
            began,
            back,
            blocked: watch::channel(false).0,
            switches: Mutex::default(),
        })
    }

    fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap()
    }

    pub(crate) fn time(&self) -> Timestamp {
        time_of(self.began, &self.back)
    }

    /// The store's clock is set back.
    pub(crate) fn set_back(&self, by: Duration) {
        self.back.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }

    /// No append comes through until [`Disk::unblock`].
    pub(crate) fn block(&self) {
        self.blocked.send_replace(true);
    }

    pub(crate) fn unblock(&self) {
        self.blocked.send_replace(false);
    }

    /// Each append takes that long.
    pub(crate) fn slow(&self, append_takes: Duration) {
        self.switches().append_takes = append_takes;
    }

    /// Every call fails until it is up again.
    pub(crate) fn down(&self, down: bool) {
        self.switches().down = down;
    }

    /// What becomes of the next calls of `append`, one each.
    pub(crate) fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.switches().faults.extend(faults);
    }

    /// Every batch with an append of this saga fails.
    pub(crate) fn poison(&self, saga: &str, poisoned: bool) {
        let saga = SagaId::parse(saga).unwrap();
        let mut switches = self.switches();
        if poisoned {
            switches.poisoned.insert(saga);
        } else {
            switches.poisoned.remove(&saga);
        }
    }

    /// What is poisoned makes it panic and not only fail.
    pub(crate) fn poison_panics(&self, panics: bool) {
        self.switches().poison_panics = panics;
    }

    /// It panics when it is next asked for the time.
    pub(crate) fn panic_when_asked_for_the_time(&self) {
        self.switches().clock_panics_once = true;
    }

    /// Another coordinator, which lives, takes the saga over just before its next append.
    pub(crate) fn steal_at_next_append(&self, saga: &str) {
        self.switches().to_be_stolen.insert(SagaId::parse(saga).unwrap(), 0);
    }

    /// Another coordinator takes the saga over between its next append and the one after.
    pub(crate) fn steal_at_next_but_one_append(&self, saga: &str) {
        self.switches().to_be_stolen.insert(SagaId::parse(saga).unwrap(), 1);
    }

    /// The saga's journal cannot be read.
    pub(crate) fn tear(&self, saga: &str) {
        self.switches().unreadable.insert(SagaId::parse(saga).unwrap());
    }

    /// The saga's journal is in a format that this program does not know.
    pub(crate) fn write_newer(&self, saga: &str, newer: bool) {
        let saga = SagaId::parse(saga).unwrap();
        let mut switches = self.switches();
        if newer {
            switches.newer.insert(saga);
        } else {
            switches.newer.remove(&saga);
        }
    }

    /// No definition can be read.
    pub(crate) fn break_definitions(&self, broken: bool) {
        self.switches().definitions_broken = broken;
    }

    /// A hand in the database: changes what is stored of a saga.
    pub(crate) fn plant(&self, saga: &str, change: impl FnOnce(&mut Journal)) {
        self.inner.plant(&SagaId::parse(saga).unwrap(), change);
    }

    /// No lease is renewed or begun: nothing of that gets through.
    pub(crate) fn renewals_fail(&self, fail: bool) {
        self.switches().renewals_fail = fail;
    }

    /// Every lease is over: whoever renews hears `false`.
    pub(crate) fn end_all_leases(&self) {
        self.switches().leases.clear();
    }

    /// This one's lease is over, and it does not know yet.
    pub(crate) fn forget_lease_of(&self, coordinator: &str) {
        self.switches().leases.remove(&CoordinatorId::parse(coordinator).unwrap());
    }

    /// Calls of `append` so far, whatever became of them: the sagas of each batch, and how many events each.
    pub(crate) fn tries(&self) -> Vec<Vec<(SagaId, usize)>> {
        self.switches().tries.clone()
    }

    /// Batches that came through, in order.
    pub(crate) fn written(&self) -> Vec<Vec<Append>> {
        self.switches().written.clone()
    }

    /// Reads of heads, events and journals so far.
    pub(crate) fn reads(&self) -> usize {
        self.switches().reads
    }

    /// Renewals asked for so far.
    pub(crate) fn renewals(&self) -> usize {
        self.switches().renewals
    }

    /// Rows of coordinators, dead ones included.
    pub(crate) fn coordinators(&self) -> usize {
        self.switches().leases.len()
    }

    /// A saga's journal at this instant, whatever the switches say.
    pub(crate) fn journal(&self, saga: &SagaId) -> Option<Journal> {
        self.inner.journal(saga).now_or_never().unwrap().unwrap()
    }

    fn fault_of(&self, batch: &[Append]) -> StoreResult<Option<Fault>> {
        let mut switches = self.switches();
        if switches.down {
            return Err(StoreError::Unknown("the store is down".to_owned()));
        }
        if batch.iter().any(|append| switches.poisoned.contains(&append.saga)) {
            if switches.poison_panics {
                return Ok(Some(Fault::Panic));
            }
            return Err(StoreError::NotApplied("it cannot swallow this append".to_owned()));
        }
        Ok(switches.faults.pop_front())
    }

    fn steal(&self, batch: &[Append]) {
        for append in batch {
            let Some(there) = self.journal(&append.saga) else { continue };
            match self.switches().to_be_stolen.get_mut(&append.saga) {
                None => continue,
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    continue;
                }
            }
            self.switches().to_be_stolen.remove(&append.saga);
            let thief = CoordinatorId::parse("thief").unwrap();
            let lives = CoordinatorRow {
                coordinator: thief.clone(),
                address: String::new(),
                started_at: self.time(),
                expires_at: self.time().plus(Duration::from_secs(1_000_000)),
                expired: false,
                draining: false,
            };
            self.switches().leases.insert(thief.clone(), lives);
            let (seq, epoch) = (there.head.seq.next(), Epoch(there.head.epoch.0 + 1));
            let last = there.events.last().unwrap();
            let kind = EventKind::Adopted { epoch, coordinator: thief.clone() };
            let event = Event { seq, clock: Clock(last.clock.0 + 1), at: self.time(), kind };
            let head = Head { seq, epoch, owner: Some(thief), ..there.head.clone() };
            let taken =
                Append { saga: append.saga.clone(), expected: there.head.seq, events: vec![event], head };
            let answers = self.inner.append(&[taken]).now_or_never().unwrap().unwrap();
            assert_eq!(answers, [Appended::Written]);
        }
    }

    async fn append(&self, batch: &[Append]) -> StoreResult<Vec<Appended>> {
        self.switches()
            .tries
            .push(batch.iter().map(|append| (append.saga.clone(), append.events.len())).collect());
        let mut blocked = self.blocked.subscribe();
        blocked.wait_for(|blocked| !blocked).await.map(drop).unwrap();
        let takes = self.switches().append_takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let fault = self.fault_of(batch)?;
        match fault {
            Some(Fault::Refuse) => return Err(StoreError::NotApplied("as the story wants".to_owned())),
            Some(Fault::Forget) => {
                return Err(StoreError::Unknown("as the story wants: not applied".to_owned()));
            }
            Some(Fault::Panic) => panic!("as the story wants: not applied"),
            Some(Fault::ApplyAndForget | Fault::ApplyAndPanic) | None => {}
        }
        self.steal(batch);
        let answers = self.inner.append(batch).await?;
        self.switches().written.push(batch.to_vec());
        match fault {
            Some(Fault::ApplyAndForget) => Err(StoreError::Unknown("as the story wants: applied".to_owned())),
            Some(Fault::ApplyAndPanic) => panic!("as the story wants: applied"),
            Some(Fault::Refuse | Fault::Forget | Fault::Panic) | None => Ok(answers),
        }
    }

    fn orphans(&self, share: Share, limit: usize) -> Vec<Orphan> {
        let now = self.time();
        let all = SagaFilter::default();
        let mut heads = self.inner.list(&all, None, usize::MAX).now_or_never().unwrap().unwrap();
        heads.sort_by(|a, b| a.saga.cmp(&b.saga));
        let switches = self.switches();
        let lives =
            |owner: &CoordinatorId| switches.leases.get(owner).is_some_and(|row| row.expires_at > now);
        let is_orphan = |head: &Head| match &head.owner {
            Some(owner) => !lives(owner),
            None => head.wake_at.is_some_and(|at| at <= now),
        };
        let orphans = heads
            .iter()
            .filter(|head| !head.state.is_final() && is_orphan(head) && share.holds(&head.saga))
            .take(limit);
        orphans.map(|head| Orphan { saga: head.saga.clone(), owner: head.owner.clone() }).collect()
    }

    fn readable(&self, saga: &SagaId) -> StoreResult<()> {
        let mut switches = self.switches();
        switches.reads += 1;
        if switches.newer.contains(saga) {
            return Err(StoreError::Newer("event 2 has format 9".to_owned()));
        }
        if switches.unreadable.contains(saga) {
            return Err(StoreError::Unreadable("event 2 is torn".to_owned()));
        }
        Ok(())
    }
}

/// The store as one process sees it.
pub(crate) struct DiskOf {
    pub(crate) disk: Arc<Disk>,
    pub(crate) process: Arc<Process>,
}

impl DiskOf {
    async fn up<T>(&self, work: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        let answer = async {
            if self.disk.switches().down {
                return Err(StoreError::Unknown("the store is down".to_owned()));
            }
            work.await
        };
        self.process.alive(answer).await
    }
}

#[async_trait]
impl Store for DiskOf {
    async fn append(&self, batch: &[Append]) -> StoreResult<Vec<Appended>> {
        self.process.alive(self.disk.append(batch)).await
    }

    async fn journal(&self, saga: &SagaId) -> StoreResult<Option<Journal>> {
        self.disk.readable(saga)?;
        self.process.stalled.subscribe().wait_for(|stalled| !stalled).await.map(drop).unwrap();
        self.up(self.disk.inner.journal(saga)).await
    }

    async fn head(&self, saga: &SagaId) -> StoreResult<Option<Head>> {
        self.disk.switches().reads += 1;
        self.up(self.disk.inner.head(saga)).await
    }

    async fn events(&self, saga: &SagaId, after: Seq, limit: usize) -> StoreResult<Vec<Event>> {
        self.disk.readable(saga)?;
        self.up(self.disk.inner.events(saga, after, limit)).await
    }

    async fn list(
        &self,
        filter: &SagaFilter,
        cursor: Option<&SagaCursor>,
        limit: usize,
    ) -> StoreResult<Vec<Head>> {
        self.up(self.disk.inner.list(filter, cursor, limit)).await
    }

    async fn journals(&self, sagas: &[SagaId]) -> StoreResult<Vec<StoreResult<Option<Journal>>>> {
        self.process.stalled.subscribe().wait_for(|stalled| !stalled).await.map(drop).unwrap();
        self.up(async {
            let all = self.disk.inner.journals(sagas).await?;
            let readable = |(saga, journal)| self.disk.readable(saga).and(journal);
            Ok(sagas.iter().zip(all).map(readable).collect())
        })
        .await
    }

    async fn orphans(&self, share: Share, limit: usize) -> StoreResult<Vec<Orphan>> {
        self.up(async { Ok(self.disk.orphans(share, limit)) }).await
    }

    async fn quarantine(
        &self,
        saga: &SagaId,
        owner: Option<&CoordinatorId>,
        reason: &str,
    ) -> StoreResult<bool> {
        self.up(self.disk.inner.quarantine(saga, owner, reason)).await
    }

    async fn restore(&self, head: &Head) -> StoreResult<bool> {
        self.up(self.disk.inner.restore(head)).await
    }

    async fn retire(&self, retention: Retention, limit: usize) -> StoreResult<Retired> {
        self.up(self.disk.inner.retire(retention, limit)).await
    }

    async fn misfits(&self, grace: Duration, lease_max: Duration, limit: usize) -> StoreResult<Vec<Misfit>> {
        self.up(async {
            let mut misfits = self.disk.inner.misfits(grace, lease_max, limit).await?;
            let (switches, now) = (self.disk.switches(), self.disk.time());
            // The leases are this store's own.
            misfits.retain(|misfit| {
                let saga = SagaId::parse(&misfit.subject).ok();
                let owner = saga.and_then(|saga| self.disk.journal(&saga)).and_then(|there| there.head.owner);
                let lease = owner.and_then(|owner| switches.leases.get(&owner).map(|row| row.expires_at));
                misfit.kind != MisfitKind::OwnerGone || lease.is_none_or(|at| at.plus(grace) <= now)
            });
            Ok(misfits)
        })
        .await
    }

    async fn unsettled(&self, limit: usize) -> StoreResult<Vec<Unsettled>> {
        self.up(self.disk.inner.unsettled(limit)).await
    }

    async fn put_revision(
        &self,
        name: &DefinitionName,
        spec: &DefinitionSpec,
        descriptors: &Bytes,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<StoredRevision> {
        self.up(self.disk.inner.put_revision(name, spec, descriptors, fingerprint, now)).await
    }

    async fn revision(
        &self,
        name: &DefinitionName,
        revision: Option<Revision>,
    ) -> StoreResult<Option<StoredRevision>> {
        if self.disk.switches().definitions_broken {
            return Err(StoreError::Unreadable("its spec does not parse".to_owned()));
        }
        self.up(self.disk.inner.revision(name, revision)).await
    }

    async fn definitions(
        &self,
        after: Option<&DefinitionName>,
        limit: usize,
    ) -> StoreResult<Vec<StoredRevision>> {
        self.up(self.disk.inner.definitions(after, limit)).await
    }

    async fn put_participant(&self, participant: &Participant) -> StoreResult<()> {
        self.up(self.disk.inner.put_participant(participant)).await
    }

    async fn participants_mark(&self) -> StoreResult<String> {
        self.up(self.disk.inner.participants_mark()).await
    }

    async fn participant(&self, name: &ParticipantName) -> StoreResult<Option<Participant>> {
        self.up(self.disk.inner.participant(name)).await
    }

    async fn participants(
        &self,
        after: Option<&ParticipantName>,
        limit: usize,
    ) -> StoreResult<Vec<Participant>> {
        self.up(self.disk.inner.participants(after, limit)).await
    }

    async fn enter(&self, coordinator: &CoordinatorId, address: &str, ttl: Duration) -> StoreResult<()> {
        self.up(async {
            if self.disk.switches().renewals_fail {
                return Err(StoreError::NotApplied("no lease can be begun".to_owned()));
            }
            let now = self.disk.time();
            let row = CoordinatorRow {
                coordinator: coordinator.clone(),
                address: address.to_owned(),
                started_at: now,
                expires_at: now.plus(ttl),
                expired: false,
                draining: false,
            };
            self.disk.switches().leases.insert(coordinator.clone(), row);
            Ok(())
        })
        .await
    }

    async fn renew(&self, coordinator: &CoordinatorId, ttl: Duration) -> StoreResult<Option<Timestamp>> {
        self.up(async {
            let now = self.disk.time();
            let mut switches = self.disk.switches();
            switches.renewals += 1;
            if switches.renewals_fail {
                return Err(StoreError::NotApplied("no renewal gets through".to_owned()));
            }
            let lives = switches.leases.get_mut(coordinator).filter(|row| row.expires_at > now);
            Ok(lives.map(|row| row.expires_at = now.plus(ttl)).map(|()| now))
        })
        .await
    }

    async fn set_draining(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        self.up(async {
            if let Some(row) = self.disk.switches().leases.get_mut(coordinator) {
                row.draining = true;
            }
            Ok(())
        })
        .await
    }

    async fn leave(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        self.up(async {
            self.disk.switches().leases.remove(coordinator);
            Ok(())
        })
        .await
    }

    async fn coordinators(&self) -> StoreResult<Vec<CoordinatorRow>> {
        self.up(async {
            let now = self.disk.time();
            let rows = self.disk.switches().leases.values().cloned().collect::<Vec<_>>();
            Ok(rows.into_iter().map(|row| CoordinatorRow { expired: row.expires_at <= now, ..row }).collect())
        })
        .await
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        let panics = std::mem::take(&mut self.disk.switches().clock_panics_once);
        assert!(!panics, "as the story wants");
        self.up(async { Ok(self.disk.time()) }).await
    }
}
