//! Takes on sagas that nobody drives: after a crash, after a hand-over, or because their time has come.
//!
//! # Invariants
//! * Adopting is itself an append at the next seq: of two coordinators that try, one is `Lost`.
//! * A saga that cannot be replayed is named, set aside and left alone; it stops nothing else.

use crate::error::EngineError;
use crate::live::Command;
use crate::ports::store::{Journal, Orphan};
use crate::runner::Runner;
use crate::shared::Shared;
use backstop_core::{Saga, SagaId, replay};
use futures::stream::{self, StreamExt};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Journals read at once in a takeover.
const LOADS_AT_ONCE: usize = 16;

/// Looks for sagas to adopt for as long as the process lives.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut set_aside = BTreeSet::new();
    loop {
        if shared.draining.is_cancelled() {
            return;
        }
        if shared.tenure().may_act() {
            while take_a_bite(&shared, &mut set_aside).await > 0 {}
        }
        tokio::select! {
            () = tokio::time::sleep(shared.settings.takeover_every) => {}
            () = shared.draining.cancelled() => return,
        }
    }
}

/// Adopts what one query finds; answers how many sagas that were.
async fn take_a_bite(shared: &Arc<Shared>, set_aside: &mut BTreeSet<SagaId>) -> usize {
    let orphans = match shared.store.orphans(shared.settings.takeover_batch_max + set_aside.len()).await {
        Ok(orphans) => orphans,
        Err(error) => {
            tracing::warn!(%error, "sagas without an owner could not be looked for");
            return 0;
        }
    };
    let candidates: Vec<Orphan> =
        orphans.into_iter().filter(|orphan| !set_aside.contains(&orphan.saga)).collect();
    let results: Vec<(SagaId, Result<bool, EngineError>)> = stream::iter(candidates)
        .map(|orphan| async move {
            let adopted = adopt(shared, &orphan.saga, orphan.handed_over, None).await;
            (orphan.saga, adopted)
        })
        .buffer_unordered(LOADS_AT_ONCE)
        .collect()
        .await;
    let mut adopted = 0;
    for (saga, result) in results {
        match result {
            Ok(true) => adopted += 1,
            Ok(false) => {}
            Err(EngineError::Store(error)) if !matches!(error, crate::ports::store::StoreError::Unreadable(_)) => {
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

/// Takes one saga over. `false` if it is driven here already, there is no room, or another was faster.
///
/// `first` is why it is taken over, if somebody wants something of it: it is in the inbox before the runner
/// can find that there is nothing to do and leave again.
pub(crate) async fn adopt(
    shared: &Arc<Shared>,
    id: &SagaId,
    handed_over: bool,
    first: Option<Command>,
) -> Result<bool, EngineError> {
    let Some(slot) = shared.live.slot() else { return Ok(false) };
    let Some((saga, journal, calls)) = load(shared, id).await? else { return Ok(false) };
    let saga = Arc::new(saga);
    let Some((handle, place)) = shared.live.enter(Arc::clone(&saga), slot) else { return Ok(false) };
    if let Some(first) = first {
        // A new inbox has room. Dropping the command tells its sender all the same.
        let _ = handle.inbox.try_send(first);
    }
    let runner =
        Runner::new(Arc::clone(shared), shared.tenure(), place, calls, saga, journal.head.fingerprint);
    let (done, adopted) = oneshot::channel();
    tokio::spawn(runner.adopt(handed_over, done));
    Ok(adopted.await.is_ok())
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
