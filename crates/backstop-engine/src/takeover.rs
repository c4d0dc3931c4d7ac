//! Takes on sagas that nobody drives: after a crash, after a hand-over, or because their time has come.
//!
//! # Invariants
//! * Adopting is itself an append at the next seq: of two coordinators that try, one is `Lost`.
//! * Nothing is taken from a coordinator that lives, however old the news are that it needs taking over.
//! * A saga that cannot be followed is quarantined, and one that a newer program wrote is left to that program;
//!   neither stops anything else.
//!
//! Several coordinators share the work: each looks in its own share of the sagas, and now and then in all, so
//! that the share of one that does not look is not forgotten.
//!
//! # Not here
//! Whose lease is over: the store, by its own clock. What an adopted saga does: [`crate::runner`].

use crate::error::EngineError;
use crate::live::Command;
use crate::ports::participants::Calls;
use crate::ports::store::{Head, Journal, Orphan, Share, Store, StoreError, StoreResult};
use crate::runner::Runner;
use crate::shared::Shared;
use backstop_core::{CoordinatorId, Event, Saga, SagaId, replay};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Every so many looks, all sagas are looked at and not only the own share.
const LOOK_AT_ALL_EVERY: u32 = 4;
/// How long one bite waits for its appends. One that takes longer goes on by itself: a saga must not hold up the
/// next bite.
const BITE_WAITS_MAX: Duration = Duration::from_secs(1);

/// Coordinators whose lease is known to be over. An id is not used twice, so that is for ever.
#[derive(Default)]
pub(crate) struct Dead(Mutex<BTreeSet<CoordinatorId>>);

impl Dead {
    /// Asks the store about a coordinator that is not known to be dead. To be asked after its name was read:
    /// one that is not in the list has then left it, and is not about to enter.
    pub(crate) async fn has(&self, store: &dyn Store, coordinator: &CoordinatorId) -> StoreResult<bool> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(coordinator) {
            return Ok(true);
        }
        let rows = store.coordinators().await?;
        let lives = rows.iter().any(|row| row.coordinator == *coordinator && !row.expired);
        if !lives {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(coordinator.clone());
        }
        Ok(!lives)
    }
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Looks {
    count: u32,
    dead: Dead,
    /// Sagas that this process cannot take on, until when.
    set_aside: BTreeMap<SagaId, Instant>,
}

/// Looks for sagas to adopt for as long as the process lives.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut looks = Looks::default();
    loop {
        quarantine_what_is_forsaken(&shared).await;
        let (mut woken, mut taken_over) = (0, 0);
        while may_take_on(&shared) {
            let bite = looks.take_a_bite(&shared).await;
            (woken, taken_over) = (woken + bite.woken, taken_over + bite.taken_over);
            if bite.woken + bite.taken_over == 0 {
                break;
            }
        }
        if taken_over > 0 {
            tracing::info!(sagas = taken_over, "taken over from coordinators that are gone");
        }
        if woken > 0 {
            tracing::debug!(sagas = woken, "taken up again");
        }
        if shared.draining.is_cancelled() {
            return;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(shared.settings.takeover_every) => {}
            () = shared.draining.cancelled() => return,
        }
    }
}

/// A saga whose runner cannot go on would otherwise stand still for as long as its owner, this process, lives.
async fn quarantine_what_is_forsaken(shared: &Shared) {
    for (saga, reason) in shared.live.take_forsaken() {
        if !quarantine(shared, &saga, Some(&shared.tenure().coordinator), &reason).await {
            shared.live.forsake(saga, reason);
        }
    }
}

/// Sets a saga aside in the store; answers whether that is done.
pub(crate) async fn quarantine(
    shared: &Shared,
    saga: &SagaId,
    owner: Option<&CoordinatorId>,
    reason: &str,
) -> bool {
    tracing::error!(%saga, reason, "quarantined: a person must look at its journal");
    match shared.store.quarantine(saga, owner, reason).await {
        Ok(done) => {
            shared.metrics.quarantined(u64::from(done));
            true
        }
        Err(error) => {
            tracing::warn!(%saga, %error, "the quarantine could not be written");
            false
        }
    }
}

/// False also during a drain: it would take back what it has just let go of.
fn may_take_on(shared: &Shared) -> bool {
    !shared.draining.is_cancelled() && shared.tenure().may_act()
}

/// What one bite has taken on.
#[derive(Default)]
struct Bite {
    /// Sagas that nobody owned.
    woken: usize,
    /// Sagas of dead owners.
    taken_over: usize,
}

impl Looks {
    /// Adopts what one query finds.
    async fn take_a_bite(&mut self, shared: &Arc<Shared>) -> Bite {
        let bite = self.try_a_bite(shared).await;
        bite.unwrap_or_else(|error| {
            tracing::warn!(%error, "sagas without an owner could not be looked for");
            Bite::default()
        })
    }

    async fn try_a_bite(&mut self, shared: &Arc<Shared>) -> StoreResult<Bite> {
        let room = shared.live.room().min(shared.settings.takeover_batch_max);
        if room == 0 {
            return Ok(Bite::default());
        }
        let now = Instant::now();
        self.set_aside.retain(|_, until| *until > now);
        let share = self.share(shared).await?;
        let orphans = shared.store.orphans(share, room + self.set_aside.len()).await?;
        let mut orphans: Vec<Orphan> =
            orphans.into_iter().filter(|orphan| !self.set_aside.contains_key(&orphan.saga)).collect();
        orphans.truncate(room);
        if orphans.is_empty() {
            return Ok(Bite::default());
        }
        let ids: Vec<SagaId> = orphans.iter().map(|orphan| orphan.saga.clone()).collect();
        let journals = shared.store.journals(&ids).await?;
        let mut adopting = Vec::with_capacity(orphans.len());
        for (orphan, journal) in orphans.iter().zip(journals) {
            match self.take_on(shared, &orphan.saga, journal).await {
                Ok(Some(adopted)) => adopting.push((orphan.owner.is_some(), adopted)),
                Ok(None) => {}
                Err(error) => self.cannot_take_on(shared, orphan, &error).await,
            }
        }
        let mut bite = Bite::default();
        let until = Instant::now() + BITE_WAITS_MAX;
        for (from_the_dead, adopted) in adopting {
            if matches!(tokio::time::timeout_at(until, adopted).await, Ok(Ok(()))) {
                bite.taken_over += usize::from(from_the_dead);
                bite.woken += usize::from(!from_the_dead);
            }
        }
        Ok(bite)
    }

    /// Which share to look at now. Those who are about to leave have none.
    async fn share(&mut self, shared: &Shared) -> StoreResult<Share> {
        self.count = self.count.wrapping_add(1);
        if self.count.is_multiple_of(LOOK_AT_ALL_EVERY) {
            return Ok(Share::ALL);
        }
        let mine = &shared.tenure().coordinator;
        let rows = shared.store.coordinators().await?;
        let mut there: Vec<&CoordinatorId> =
            rows.iter().filter(|row| !row.expired && !row.draining).map(|row| &row.coordinator).collect();
        there.sort();
        let index = there.iter().position(|coordinator| *coordinator == mine);
        Ok(match (index.map(u32::try_from), u32::try_from(there.len())) {
            (Some(Ok(index)), Ok(of)) => Share { index, of },
            _ => Share::ALL,
        })
    }

    async fn take_on(
        &self,
        shared: &Arc<Shared>,
        id: &SagaId,
        journal: StoreResult<Option<Journal>>,
    ) -> Result<Option<oneshot::Receiver<()>>, EngineError> {
        let Some(journal) = readable(id, journal)? else { return Ok(None) };
        let loaded = follow(shared, id, journal).await?;
        adopt_loaded(shared, loaded, &self.dead, None).await
    }

    async fn cannot_take_on(&mut self, shared: &Shared, orphan: &Orphan, error: &EngineError) {
        let saga = &orphan.saga;
        let EngineError::Quarantined { reason, .. } = error else {
            match error {
                EngineError::Store(StoreError::Newer(what)) => {
                    tracing::info!(%saga, what, "left to a newer program");
                }
                EngineError::Store(StoreError::NotApplied(_) | StoreError::Unknown(_)) => {
                    tracing::warn!(%saga, %error, "the saga could not be taken over yet");
                    return;
                }
                // Not the journal is at fault but what it needs: its definition, or a participant. That is mended
                // in one place, and its sagas then go on by themselves.
                other => {
                    tracing::error!(%saga, error = %other, "the saga cannot be taken over until that is mended");
                }
            }
            self.set_aside.insert(saga.clone(), Instant::now() + shared.settings.set_aside_for);
            return;
        };
        if !quarantine(shared, saga, orphan.owner.as_ref(), reason).await {
            self.set_aside.insert(saga.clone(), Instant::now() + shared.settings.set_aside_for);
        }
    }
}

/// Takes one saga over for somebody who wants something of it; what it answers resolves once that is on disk,
/// and breaks if it never will be. `None` if the saga is over, if there is no room, or if it is driven already:
/// here, or by a coordinator that is not known to be `dead`.
///
/// `first` is what is wanted: it is in the inbox before the runner can find that there is nothing to do and
/// leave again.
pub(crate) async fn adopt(
    shared: &Arc<Shared>,
    id: &SagaId,
    dead: &Dead,
    first: Command,
) -> Result<Option<oneshot::Receiver<()>>, EngineError> {
    let Some(loaded) = load(shared, id).await? else { return Ok(None) };
    adopt_loaded(shared, loaded, dead, Some(first)).await
}

/// Who owns the saga is judged by the very journal that is taken over, not by what led here: since then it may
/// have changed hands.
async fn adopt_loaded(
    shared: &Arc<Shared>,
    loaded: Loaded,
    dead: &Dead,
    first: Option<Command>,
) -> Result<Option<oneshot::Receiver<()>>, EngineError> {
    let Loaded { saga, journal, calls } = loaded;
    let Some(slot) = shared.live.slot() else { return Ok(None) };
    if saga.state.is_final() {
        return Ok(None);
    }
    let owner = journal.head.owner;
    if let Some(owner) = owner.as_ref().filter(|owner| **owner != shared.tenure().coordinator)
        && !dead.has(shared.store.as_ref(), owner).await?
    {
        return Ok(None);
    }
    let saga = Arc::new(saga);
    let Some((handle, place)) = shared.live.enter(Arc::clone(&saga), slot) else { return Ok(None) };
    if let Some(first) = first {
        // A new inbox has room. Should it be closed already, dropping the command tells its sender all the same.
        let _ = handle.inbox.put(first).await;
    }
    let runner =
        Runner::new(Arc::clone(shared), shared.tenure(), place, calls, saga, journal.head.fingerprint);
    let (done, adopted) = oneshot::channel();
    shared.spawn(runner.adopt(owner.is_none(), done));
    Ok(Some(adopted))
}

/// A saga as its journal tells it, with what its calls need.
pub(crate) struct Loaded {
    pub(crate) saga: Saga,
    pub(crate) journal: Journal,
    pub(crate) calls: Arc<dyn Calls>,
}

/// Reads a saga; `None` if there is no such saga.
///
/// # Errors
/// As [`follow`]; what cannot be read cannot be followed.
pub(crate) async fn load(shared: &Shared, id: &SagaId) -> Result<Option<Loaded>, EngineError> {
    match read(shared, id).await? {
        Some(journal) => follow(shared, id, journal).await.map(Some),
        None => Ok(None),
    }
}

/// A saga's journal, whatever it says.
pub(crate) async fn read(shared: &Shared, id: &SagaId) -> Result<Option<Journal>, EngineError> {
    readable(id, shared.store.journal(id).await)
}

/// What cannot be read cannot be followed.
fn readable<T>(id: &SagaId, read: StoreResult<T>) -> Result<T, EngineError> {
    read.map_err(|error| match error {
        StoreError::Unreadable(reason) => EngineError::Quarantined { saga: id.clone(), reason },
        StoreError::NotApplied(_) | StoreError::Unknown(_) | StoreError::Newer(_) => error.into(),
    })
}

/// Follows a journal from its first event to its last.
///
/// # Errors
/// [`EngineError::Quarantined`] if it cannot be followed, or says something else than its head row.
pub(crate) async fn follow(shared: &Shared, id: &SagaId, journal: Journal) -> Result<Loaded, EngineError> {
    if journal.head.retired {
        return Err(EngineError::Retired { head: Box::new(journal.head) });
    }
    if let Some(reason) = journal.head.quarantine.clone() {
        return Err(EngineError::Quarantined { saga: id.clone(), reason });
    }
    let (saga, calls) = replayed(shared, &journal.head, &journal.events).await?;
    if saga.seq != journal.head.seq || saga.state != journal.head.state {
        let reason = format!(
            "the journal says seq {} {}, the head row seq {} {}",
            saga.seq.0,
            saga.state.as_str(),
            journal.head.seq.0,
            journal.head.state.as_str()
        );
        return Err(EngineError::Quarantined { saga: id.clone(), reason });
    }
    Ok(Loaded { saga, journal, calls })
}

/// The saga that these events make, whatever its head row says of it.
pub(crate) async fn replayed(
    shared: &Shared,
    head: &Head,
    events: &[Event],
) -> Result<(Saga, Arc<dyn Calls>), EngineError> {
    let reference = &head.definition;
    let compiled = shared.definitions.get(&reference.name, Some(reference.revision)).await?;
    let saga = replay(head.saga.clone(), compiled.definition, events).map_err(|corrupt| {
        EngineError::Quarantined { saga: head.saga.clone(), reason: corrupt.to_string() }
    })?;
    Ok((saga, compiled.calls))
}
