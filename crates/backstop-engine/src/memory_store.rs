//! A store in memory, for tests: the contract in its plainest form.
//!
//! Nothing survives the process. Everything is under one lock, so each call is one instant.
//!
//! # Not here
//! Faults: wrap it in a store that answers `NotApplied` or `Unknown` at will.

use crate::ports::store::{
    Append, Appended, CoordinatorRow, Head, Journal, Misfit, MisfitKind, Orphan, Participant, Retention,
    Retired, SagaCursor, SagaFilter, Share, Store, StoreError, StoreResult, StoredRevision, Unsettled,
};
use async_trait::async_trait;
use backstop_core::{
    CoordinatorId, DefinitionName, DefinitionRef, DefinitionSpec, Event, ParticipantName, Revision, SagaId,
    SagaState, Seq, Timestamp,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The store.
pub struct MemoryStore {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    tables: Mutex<Tables>,
    /// Several coordinators may use it at once.
    is_shared: bool,
}

#[derive(Default)]
struct Tables {
    sagas: BTreeMap<SagaId, Journal>,
    revisions: BTreeMap<DefinitionName, Vec<StoredRevision>>,
    participants: BTreeMap<ParticipantName, Participant>,
    coordinators: BTreeMap<CoordinatorId, CoordinatorRow>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store with the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
        })
    }

    /// An empty store with a clock of the test's making.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), tables: Mutex::default(), is_shared: false }
    }

    /// The same for several coordinators at once, as Postgres is.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// A hand in the database: changes what is stored of a saga, past every rule.
    pub fn plant(&self, saga: &SagaId, change: impl FnOnce(&mut Journal)) {
        if let Some(journal) = self.tables().sagas.get_mut(saga) {
            change(journal);
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A test that panicked while it held the lock has told its story already.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn append(&mut self, append: &Append) -> Appended {
        let there = self.sagas.get(&append.saga);
        let is_set_aside =
            there.is_some_and(|journal| journal.head.quarantine.is_some() || journal.head.retired);
        if append.expected == there.map_or(Seq(0), |journal| journal.head.seq) && !is_set_aside {
            let journal = self
                .sagas
                .entry(append.saga.clone())
                .or_insert_with(|| Journal { head: append.head.clone(), events: Vec::new() });
            journal.head = Head { quarantine: None, retired: false, ..append.head.clone() };
            journal.events.extend(append.events.iter().cloned());
            return Appended::Written;
        }
        let is_there = |event: &Event| there.is_some_and(|journal| journal.events.contains(event));
        if append.events.iter().all(is_there) { Appended::Written } else { Appended::Lost }
    }

    fn is_alive(&self, coordinator: &CoordinatorId, now: Timestamp) -> bool {
        self.coordinators.get(coordinator).is_some_and(|row| row.expires_at > now)
    }
}

fn check(batch: &[Append]) -> StoreResult<()> {
    let mut sagas = BTreeSet::new();
    for append in batch {
        let fault = |text: &str| StoreError::NotApplied(format!("saga {}: {text}", append.saga));
        if !sagas.insert(&append.saga) {
            return Err(fault("two appends in one batch"));
        }
        let numbers = append.events.iter().map(|event| event.seq.0);
        if !numbers.eq((1..=append.events.len() as u64).map(|n| append.expected.0 + n)) {
            return Err(fault("its events do not follow each other"));
        }
        if append.events.last().map(|event| event.seq) != Some(append.head.seq)
            || append.head.saga != append.saga
        {
            return Err(fault("its head does not go with its last event"));
        }
    }
    Ok(())
}

fn matches(filter: &SagaFilter, head: &Head) -> bool {
    (filter.states.is_empty() || filter.states.contains(&head.state))
        && filter.definition.as_ref().is_none_or(|name| *name == head.definition.name)
        && filter.fin_code.is_none_or(|code| head.fin_code == Some(code))
        && filter.labels.iter().all(|(key, value)| head.labels.get(key) == Some(value))
        && filter.created_from.is_none_or(|from| head.created_at >= from)
        && filter.created_before.is_none_or(|before| head.created_at < before)
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(&self, batch: &[Append]) -> StoreResult<Vec<Appended>> {
        check(batch)?;
        let mut tables = self.tables();
        Ok(batch.iter().map(|append| tables.append(append)).collect())
    }

    async fn journal(&self, saga: &SagaId) -> StoreResult<Option<Journal>> {
        Ok(self.tables().sagas.get(saga).cloned())
    }

    async fn head(&self, saga: &SagaId) -> StoreResult<Option<Head>> {
        Ok(self.tables().sagas.get(saga).map(|journal| journal.head.clone()))
    }

    async fn events(&self, saga: &SagaId, after: Seq, limit: usize) -> StoreResult<Vec<Event>> {
        let tables = self.tables();
        let events = tables.sagas.get(saga).map(|journal| journal.events.as_slice()).unwrap_or_default();
        Ok(events.iter().filter(|event| event.seq > after).take(limit).cloned().collect())
    }

    async fn list(
        &self,
        filter: &SagaFilter,
        cursor: Option<&SagaCursor>,
        limit: usize,
    ) -> StoreResult<Vec<Head>> {
        let tables = self.tables();
        let mut heads: Vec<&Head> = tables.sagas.values().map(|journal| &journal.head).collect();
        heads.sort_by(|a, b| (b.created_at, &b.saga).cmp(&(a.created_at, &a.saga)));
        let is_after =
            |head: &Head| cursor.is_none_or(|c| (head.created_at, &head.saga) < (c.created_at, &c.saga));
        Ok(heads
            .into_iter()
            .filter(|head| is_after(head) && matches(filter, head))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn journals(&self, sagas: &[SagaId]) -> StoreResult<Vec<StoreResult<Option<Journal>>>> {
        let tables = self.tables();
        Ok(sagas.iter().map(|saga| Ok(tables.sagas.get(saga).cloned())).collect())
    }

    async fn orphans(&self, share: Share, limit: usize) -> StoreResult<Vec<Orphan>> {
        let now = (self.clock)();
        let tables = self.tables();
        let is_orphan = |head: &Head| match &head.owner {
            _ if head.quarantine.is_some() => false,
            Some(owner) => !tables.is_alive(owner, now),
            None => head.wake_at.is_some_and(|at| at <= now),
        };
        let heads = tables.sagas.values().map(|journal| &journal.head);
        let orphans =
            heads.filter(|head| !head.state.is_final() && is_orphan(head) && share.holds(&head.saga));
        Ok(orphans
            .take(limit)
            .map(|head| Orphan { saga: head.saga.clone(), owner: head.owner.clone() })
            .collect())
    }

    async fn quarantine(
        &self,
        saga: &SagaId,
        owner: Option<&CoordinatorId>,
        reason: &str,
    ) -> StoreResult<bool> {
        let mut tables = self.tables();
        let Some(journal) = tables.sagas.get_mut(saga) else { return Ok(false) };
        let head = &mut journal.head;
        if head.owner.as_ref() != owner || head.state.is_final() {
            return Ok(false);
        }
        head.owner = None;
        head.wake_at = None;
        head.state = SagaState::NeedsIntervention;
        head.quarantine = Some(reason.to_owned());
        Ok(true)
    }

    async fn restore(&self, head: &Head) -> StoreResult<bool> {
        let mut tables = self.tables();
        let Some(journal) = tables.sagas.get_mut(&head.saga) else { return Ok(false) };
        if journal.head.quarantine.is_none() || journal.head.seq != head.seq {
            return Ok(false);
        }
        // Its birth stays: stores keep a journal by it.
        let created_at = journal.head.created_at;
        journal.head = Head { created_at, quarantine: None, retired: false, ..head.clone() };
        Ok(true)
    }

    async fn retire(&self, retention: Retention, limit: usize) -> StoreResult<Retired> {
        let now = (self.clock)();
        let mut tables = self.tables();
        let before = |age: Duration| {
            move |head: &Head| {
                head.quarantine.is_none() && head.ended_at.is_some_and(|at| at.plus(age) <= now)
            }
        };
        let ids_for = retention.ids_for.max(retention.journals_for);
        let (journal_over, id_over) = (before(retention.journals_for), before(ids_for));
        let mut retired = Retired::default();
        let journals = tables.sagas.values_mut().filter(|j| !j.head.retired && journal_over(&j.head));
        for journal in journals.take(limit) {
            journal.head.retired = true;
            journal.events.clear();
            retired.journals += 1;
        }
        let over = tables.sagas.values().filter(|j| j.head.retired && id_over(&j.head));
        let over: Vec<SagaId> = over.take(limit).map(|j| j.head.saga.clone()).collect();
        for saga in over {
            tables.sagas.remove(&saga);
            retired.sagas += 1;
        }
        let full = |count: u64| limit > 0 && count == limit as u64;
        retired.more = full(retired.journals) || full(retired.sagas);
        Ok(retired)
    }

    async fn misfits(&self, grace: Duration, lease_max: Duration, limit: usize) -> StoreResult<Vec<Misfit>> {
        let now = (self.clock)();
        let tables = self.tables();
        let mut misfits = Vec::new();
        for journal in tables.sagas.values() {
            let head = &journal.head;
            let waits = head.state == SagaState::NeedsIntervention;
            let holds = [head.owner.is_some(), head.wake_at.is_some(), waits];
            let kind = match holds.into_iter().filter(|held| *held).count() {
                0 if !head.state.is_final() => Some(MisfitKind::Forsaken),
                1 if !head.state.is_final() => {
                    let gone = head.owner.as_ref().is_some_and(|owner| {
                        tables.coordinators.get(owner).is_none_or(|row| row.expires_at.plus(grace) <= now)
                    });
                    let overslept = head.wake_at.is_some_and(|at| at.plus(grace) <= now);
                    gone.then_some(MisfitKind::OwnerGone)
                        .or_else(|| overslept.then_some(MisfitKind::Overslept))
                }
                0 => None,
                _ => Some(MisfitKind::Overdetermined),
            };
            if let Some(kind) = kind {
                let detail = format!("{}, owner {:?}", head.state.as_str(), head.owner);
                misfits.push(Misfit { kind, subject: head.saga.to_string(), detail });
            }
        }
        for row in tables.coordinators.values().filter(|row| row.expires_at > now.plus(lease_max)) {
            let detail = "its lease runs for longer than may be asked for".to_owned();
            misfits.push(Misfit { kind: MisfitKind::Lease, subject: row.coordinator.to_string(), detail });
        }
        misfits.truncate(limit);
        Ok(misfits)
    }

    async fn unsettled(&self, limit: usize) -> StoreResult<Vec<Unsettled>> {
        let tables = self.tables();
        let mut heads: Vec<&Head> = tables.sagas.values().map(|journal| &journal.head).collect();
        heads.sort_by_key(|head| (head.created_at, &head.saga));
        let mut by_definition: BTreeMap<DefinitionName, Unsettled> = BTreeMap::new();
        let nothing = |definition: &DefinitionName| Unsettled {
            definition: definition.clone(),
            waiting: 0,
            waiting_since: None,
            rolling_back_since: None,
        };
        let older = |there: Option<Timestamp>, at| Some(there.map_or(at, |there| there.min(at)));
        let waiting = heads.iter().filter(|head| head.state == SagaState::NeedsIntervention);
        for head in waiting.take(limit) {
            let name = &head.definition.name;
            let of = by_definition.entry(name.clone()).or_insert_with(|| nothing(name));
            of.waiting += 1;
            of.waiting_since = older(of.waiting_since, head.updated_at);
        }
        let unfinished = heads.iter().filter(|head| head.ended_at.is_none()).take(limit);
        for head in unfinished.filter(|head| head.state == SagaState::RollingBack) {
            let name = &head.definition.name;
            let of = by_definition.entry(name.clone()).or_insert_with(|| nothing(name));
            of.rolling_back_since = older(of.rolling_back_since, head.created_at);
        }
        Ok(by_definition.into_values().collect())
    }

    async fn put_revision(
        &self,
        name: &DefinitionName,
        spec: &DefinitionSpec,
        descriptors: &Bytes,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<StoredRevision> {
        let mut tables = self.tables();
        let revisions = tables.revisions.entry(name.clone()).or_default();
        if let Some(newest) = revisions.last()
            && newest.fingerprint == fingerprint
        {
            return Ok(newest.clone());
        }
        let revision = Revision(revisions.last().map_or(1, |newest| newest.reference.revision.0 + 1));
        let stored = StoredRevision {
            reference: DefinitionRef { name: name.clone(), revision },
            spec: spec.clone(),
            descriptors: descriptors.clone(),
            fingerprint,
            created_at: now,
        };
        revisions.push(stored.clone());
        Ok(stored)
    }

    async fn revision(
        &self,
        name: &DefinitionName,
        revision: Option<Revision>,
    ) -> StoreResult<Option<StoredRevision>> {
        let tables = self.tables();
        let mut revisions = tables.revisions.get(name).into_iter().flatten();
        Ok(match revision {
            None => revisions.next_back().cloned(),
            Some(number) => revisions.find(|stored| stored.reference.revision == number).cloned(),
        })
    }

    async fn definitions(
        &self,
        after: Option<&DefinitionName>,
        limit: usize,
    ) -> StoreResult<Vec<StoredRevision>> {
        let tables = self.tables();
        let later = tables.revisions.iter().filter(|(name, _)| after.is_none_or(|after| *name > after));
        Ok(later.filter_map(|(_, revisions)| revisions.last()).take(limit).cloned().collect())
    }

    async fn put_participant(&self, participant: &Participant) -> StoreResult<()> {
        let mut tables = self.tables();
        let mut entry = participant.clone();
        // Two registrations within one tick of the clock must differ in the mark.
        if let Some(there) = tables.participants.get(&participant.name) {
            entry.updated_at = Timestamp(entry.updated_at.0.max(there.updated_at.0.saturating_add(1)));
        }
        tables.participants.insert(entry.name.clone(), entry);
        Ok(())
    }

    async fn participants_mark(&self) -> StoreResult<String> {
        let tables = self.tables();
        let sum: i128 = tables.participants.values().map(|p| i128::from(p.updated_at.0)).sum();
        Ok(format!("{}:{sum}", tables.participants.len()))
    }

    async fn participant(&self, name: &ParticipantName) -> StoreResult<Option<Participant>> {
        Ok(self.tables().participants.get(name).cloned())
    }

    async fn participants(
        &self,
        after: Option<&ParticipantName>,
        limit: usize,
    ) -> StoreResult<Vec<Participant>> {
        let tables = self.tables();
        let later = tables.participants.values().filter(|p| after.is_none_or(|after| p.name > *after));
        Ok(later.take(limit).cloned().collect())
    }

    async fn enter(&self, coordinator: &CoordinatorId, address: &str, ttl: Duration) -> StoreResult<()> {
        let now = (self.clock)();
        let row = CoordinatorRow {
            coordinator: coordinator.clone(),
            address: address.to_owned(),
            started_at: now,
            expires_at: now.plus(ttl),
            expired: false,
            draining: false,
        };
        let mut tables = self.tables();
        if !self.is_shared {
            tables.coordinators.clear();
        }
        tables.coordinators.insert(coordinator.clone(), row);
        Ok(())
    }

    async fn renew(&self, coordinator: &CoordinatorId, ttl: Duration) -> StoreResult<Option<Timestamp>> {
        let now = (self.clock)();
        let mut tables = self.tables();
        let alive = tables.coordinators.get_mut(coordinator).filter(|row| row.expires_at > now);
        Ok(alive.map(|row| row.expires_at = now.plus(ttl)).map(|()| now))
    }

    async fn set_draining(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        if let Some(row) = self.tables().coordinators.get_mut(coordinator) {
            row.draining = true;
        }
        Ok(())
    }

    async fn leave(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        self.tables().coordinators.remove(coordinator);
        Ok(())
    }

    async fn coordinators(&self) -> StoreResult<Vec<CoordinatorRow>> {
        let now = (self.clock)();
        let mut rows: Vec<CoordinatorRow> = self.tables().coordinators.values().cloned().collect();
        rows.iter_mut().for_each(|row| row.expired = row.expires_at <= now);
        rows.sort_by(|a, b| (a.started_at, &a.coordinator).cmp(&(b.started_at, &b.coordinator)));
        Ok(rows)
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        Ok((self.clock)())
    }
}
