//! Takes on sagas that nobody drives: after a crash, after a hand-over, or because their time has come.
//!
//! # Invariants
//! * Adopting is itself an append at the next seq: of two coordinators that try, one is `Lost`.
//! * Nothing is taken from a coordinator that lives, however old the news are that it needs taking over.
//! * A saga that cannot be replayed is named, set aside and left alone; it stops nothing else.

use crate::error::EngineError;
use crate::live::Command;
use crate::ports::store::{Journal, Store, StoreResult};
use crate::runner::Runner;
use crate::shared::Shared;
use backstop_core::{CoordinatorId, Saga, SagaId, replay};
use futures::stream::{self, StreamExt};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Journals read at once in a takeover.
const LOADS_AT_ONCE: usize = 16;

/// Coordinators whose lease is known to be over. An id is not used twice, so that is for ever.
#[derive(Default)]
pub(crate) struct Dead(Mutex<BTreeSet<CoordinatorId>>);

impl Dead {
    /// Asks the store about a coordinator that is not known to be dead. To be asked after its name was read:
    /// one that is not in the list has then left it, and is not about to enter.
    async fn has(&self, store: &dyn Store, coordinator: &CoordinatorId) -> StoreResult<bool> {
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

/// Looks for sagas to adopt for as long as the process lives.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let (mut set_aside, dead) = (BTreeSet::new(), Dead::default());
    loop {
        while may_take_on(&shared) && take_a_bite(&shared, &mut set_aside, &dead).await > 0 {}
        if shared.draining.is_cancelled() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(shared.settings.takeover_every) => {}
            () = shared.draining.cancelled() => return,
        }
    }
}

/// False also during a drain: it would take back what it has just let go of.
fn may_take_on(shared: &Shared) -> bool {
    !shared.draining.is_cancelled() && shared.tenure().may_act()
}

/// Adopts what one query finds; answers how many sagas that were.
async fn take_a_bite(shared: &Arc<Shared>, set_aside: &mut BTreeSet<SagaId>, dead: &Dead) -> usize {
    let orphans = match shared.store.orphans(crate::ports::store::Share::ALL, shared.settings.takeover_batch_max + set_aside.len()).await {
        Ok(orphans) => orphans,
        Err(error) => {
            tracing::warn!(%error, "sagas without an owner could not be looked for");
            return 0;
        }
    };
    let candidates: Vec<SagaId> =
        orphans.into_iter().map(|orphan| orphan.saga).filter(|saga| !set_aside.contains(saga)).collect();
    if candidates.is_empty() {
        return 0;
    }
    let results: Vec<(SagaId, Result<bool, EngineError>)> = stream::iter(candidates)
        .map(|saga| async move {
            let adopted = adopt_in_time(shared, &saga, dead).await;
            (saga, adopted)
        })
        .buffer_unordered(LOADS_AT_ONCE)
        .collect()
        .await;
    let mut adopted = 0;
    for (saga, result) in results {
        match result {
            Ok(true) => adopted += 1,
            Ok(false) => {}
            Err(EngineError::Store(error))
                if !matches!(error, crate::ports::store::StoreError::Unreadable(_)) =>
            {
                tracing::warn!(%saga, %error, "the saga could not be taken over yet");
            }
            Err(error) => {
                tracing::error!(%saga, %error, "the saga is set aside: a person must look at its journal");
                set_aside.insert(saga);
            }
        }
    }
    if adopted > 0 {
        tracing::info!(sagas = adopted, "taken over");
    }
    adopted
}

/// Takes one saga over for the round of takeovers, and waits until that is on disk.
async fn adopt_in_time(shared: &Arc<Shared>, id: &SagaId, dead: &Dead) -> Result<bool, EngineError> {
    let Some(adopted) = adopt(shared, id, Some(dead), None).await? else {
        return Ok(false);
    };
    // A write that takes longer goes on by itself: one saga must not hold up the next round.
    Ok(matches!(tokio::time::timeout(shared.settings.takeover_every, adopted).await, Ok(Ok(()))))
}

/// Takes one saga over; what it answers resolves once that is on disk, and breaks if it never will be.
/// `None` if the saga is over, if there is no room, or if it is driven already: here, or by a coordinator that
/// is not known to be `dead`. Who owns it is judged by the very journal that is taken over, not by what led
/// here: since then it may have changed hands.
///
/// `first` is why it is taken over, if somebody wants something of it: it is in the inbox before the runner
/// can find that there is nothing to do and leave again.
pub(crate) async fn adopt(
    shared: &Arc<Shared>,
    id: &SagaId,
    dead: Option<&Dead>,
    first: Option<Command>,
) -> Result<Option<oneshot::Receiver<()>>, EngineError> {
    let Some(slot) = shared.live.slot() else { return Ok(None) };
    let Some((saga, journal, calls)) = load(shared, id).await? else { return Ok(None) };
    if saga.state.is_final() {
        return Ok(None);
    }
    let owner = journal.head.owner;
    if let Some(owner) = owner.as_ref().filter(|owner| **owner != shared.tenure().coordinator) {
        match dead {
            Some(dead) if dead.has(shared.store.as_ref(), owner).await? => {}
            Some(_) | None => return Ok(None),
        }
    }
    let saga = Arc::new(saga);
    let Some((handle, place)) = shared.live.enter(Arc::clone(&saga), slot) else { return Ok(None) };
    if let Some(first) = first {
        // A new inbox has room. Dropping the command tells its sender all the same.
        let _ = handle.inbox.try_send(first);
    }
    let runner =
        Runner::new(Arc::clone(shared), shared.tenure(), place, calls, saga, journal.head.fingerprint);
    let (done, adopted) = oneshot::channel();
    tokio::spawn(runner.adopt(owner.is_none(), done));
    Ok(Some(adopted))
}

type Loaded = (Saga, Journal, Arc<dyn crate::ports::participants::Calls>);

/// A saga as its journal tells it, with what its calls need; `None` if there is no such saga.
pub(crate) async fn load(shared: &Shared, id: &SagaId) -> Result<Option<Loaded>, EngineError> {
    let Some(journal) = shared.store.journal(id).await? else { return Ok(None) };
    let reference = &journal.head.definition;
    let compiled = shared.definitions.get(&reference.name, Some(reference.revision)).await?;
    let quarantined = |reason: String| EngineError::Quarantined { saga: id.clone(), reason };
    let saga = replay(id.clone(), compiled.definition, &journal.events)
        .map_err(|corrupt| quarantined(corrupt.to_string()))?;
    if saga.seq != journal.head.seq || saga.state != journal.head.state {
        return Err(quarantined(format!(
            "the journal says seq {} {}, the head row seq {} {}",
            saga.seq.0,
            saga.state.as_str(),
            journal.head.seq.0,
            journal.head.state.as_str()
        )));
    }
    Ok(Some((saga, journal, compiled.calls)))
}
