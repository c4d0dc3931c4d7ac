//! Starting a saga, once, and waiting for its end, honestly.
//!
//! # Invariants
//! * The same id with the same request answers the saga that is there; nothing is started twice.
//! * An accepted saga does not hang on the caller: it has a runner before its first event is written.
//! * Nobody is told that a saga was not started whose first event may yet come to be on disk
//!   (`a_start_that_is_with_the_writer_when_the_lease_ends_is_not_answered_as_refused`).
//! * Nobody is answered with a saga that is not on disk, also while one of the same id is on its way there
//!   (`who_waits_is_not_answered_with_another_requests_saga_that_is_not_on_disk`).

use super::Coordinator;
use super::difference::Asked;
use crate::definitions::Compiled;
use crate::error::EngineError;
use crate::ports::store::{Appended, StoreError};
use crate::runner::Runner;
use backstop_core::{DefinitionName, Fault, Revision, Saga, SagaId, Seq, Start, StepName, apply, start};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::Instant;

/// A saga to be started.
#[derive(Debug, Clone)]
pub struct StartSaga {
    /// The id that the client chose.
    pub id: Option<SagaId>,
    /// The id that it gets if the client chose none: nobody else has it, so nothing is looked for under it. `None`: one is
    /// made here.
    pub spare_id: Option<SagaId>,
    /// The definition.
    pub definition: DefinitionName,
    /// Its revision; the newest if `None`.
    pub revision: Option<Revision>,
    /// The input: a JSON object.
    pub input: Bytes,
    /// Raw requests of actions.
    pub payloads: BTreeMap<StepName, Bytes>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of the request, but for id and wait.
    pub fingerprint: [u8; 32],
    /// W3C `traceparent` of the saga's own span.
    pub trace_parent: Option<String>,
}

/// A saga that a StartSaga has started or found.
#[derive(Debug, Clone)]
pub struct StartedSaga {
    /// The saga as it stood then.
    pub saga: Arc<Saga>,
    /// True if it was this call that started it.
    pub created: bool,
    /// Its progress, if it runs here: its last word can be read also after its runner has left.
    view: Option<watch::Receiver<Arc<Saga>>>,
}

impl Coordinator {
    /// Starts a saga, or finds the one that this very request has started before. The answer does not wait
    /// for the saga's end. The saga goes on whether or not the caller waits for the answer.
    ///
    /// # Errors
    /// [`EngineError`]: Invalid, NotFound, AlreadyExists, Busy, NotServing, Store. Only after `Store(Unknown)` it may have
    /// been started all the same.
    pub async fn start_saga(&self, request: StartSaga) -> Result<StartedSaga, EngineError> {
        let shared = &self.shared;
        if !self.is_serving() {
            return Err(EngineError::NotServing);
        }
        let compiled = shared.definitions.get(&request.definition, request.revision).await;
        let admitted = compiled.and_then(|compiled| {
            request.check_payloads(&compiled.raw)?;
            Ok((self.admit(&compiled)?, compiled))
        });
        let (compiled, slot) = match admitted {
            Ok((slot, compiled)) => (compiled, slot),
            Err(refused) => {
                // A repeated request finds its saga also when there is no room for a new one, and when the newest revision,
                // which is not the one that it runs, wants another request.
                if let Some(id) = &request.id
                    && let Some(saga) = self.find_started(id, Asked::by_request(&request)).await?
                {
                    return Ok(saga);
                }
                if let EngineError::Busy { limit, .. } = &refused {
                    shared.metrics.refused(limit);
                    shared.tally.refused();
                }
                return Err(refused);
            }
        };
        let id = match request.id.as_ref().or(request.spare_id.as_ref()) {
            Some(id) => id.clone(),
            None => self.fresh_saga_id()?,
        };
        let (revision, fingerprint) = (request.revision, request.fingerprint);
        let tenure = shared.tenure();
        let first = start(
            &compiled.definition,
            shared.clock.now(),
            Start {
                coordinator: tenure.coordinator.clone(),
                input: request.input,
                payloads: request.payloads,
                labels: request.labels,
                trace_parent: request.trace_parent,
            },
        );
        let saga = apply::begin(id.clone(), compiled.definition, &first)
            .map_err(|corrupt| EngineError::Quarantined { saga: id.clone(), reason: corrupt.to_string() })?;
        let saga = Arc::new(saga);
        let asked_for = Arc::clone(&saga);
        let asked = Asked::by_saga(&asked_for, revision, &fingerprint);
        let Some((handle, place)) = shared.live.enter(saga, slot) else {
            // It runs here already.
            return self.existing(&id, asked).await;
        };
        let (accepted, answer) = oneshot::channel();
        let runner = Runner::new(
            Arc::clone(shared),
            tenure,
            place,
            compiled.calls,
            Arc::clone(&handle.view.borrow()),
            fingerprint,
        );
        shared.spawn(runner.begin(first, accepted));
        match answer.await {
            Ok(Appended::Written) => {
                let saga = Arc::clone(&handle.view.borrow());
                Ok(StartedSaga { saga, created: true, view: Some(handle.view) })
            }
            Ok(Appended::Lost) => self.existing(&id, asked).await,
            // The runner is gone, and its first event may be in the writer's hands.
            Err(_) => Err(perhaps_started(&id)),
        }
    }

    /// An id that no saga has: a UUIDv7, so that ids are in the order of their time.
    ///
    /// # Errors
    /// [`EngineError::NotServing`] from a machine whose ids are none.
    pub fn fresh_saga_id(&self) -> Result<SagaId, EngineError> {
        SagaId::parse(&self.shared.machine.fresh_id().to_string()).map_err(|_| EngineError::NotServing)
    }

    /// Room for one more saga of this definition: bounded in all, by the journal's queue, and by what waits at each
    /// of its participants' gates already, so that a participant that hangs fills its own queue and no other.
    fn admit(&self, compiled: &Compiled) -> Result<OwnedSemaphorePermit, EngineError> {
        let shared = &self.shared;
        let busy = |limit| EngineError::Busy { limit, retry_after: shared.settings.busy_retry_after };
        if shared.journal.is_full() {
            return Err(busy("journal.queue_max"));
        }
        let waiting_max = shared.settings.calls_waiting_max;
        if compiled.participants.iter().any(|name| shared.gates.of(name).waiting() >= waiting_max) {
            return Err(busy("participants.calls_waiting_max"));
        }
        shared.live.slot_for_a_new_one().ok_or_else(|| busy("limits.live_sagas_max"))
    }

    /// Waits until the saga is over or needs a person, at most for `at_most`; answers it as it then stands, or as it was seen
    /// last while the store does not answer.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Quarantined.
    pub async fn wait(&self, started: StartedSaga, at_most: Duration) -> Result<Arc<Saga>, EngineError> {
        let until = Instant::now() + at_most;
        let (id, mut view) = (started.saga.id.clone(), started.view);
        let mut seen = started.saga;
        loop {
            match view.take() {
                Some(view) => seen = wait_live(view, seen, until).await,
                // It runs elsewhere, or not at all.
                None => match self.look(&id, until).await {
                    Ok(Some(saga)) => seen = saga,
                    Ok(None) => {}
                    // It was accepted, whatever can be read at this moment.
                    Err(EngineError::Store(error)) => {
                        tracing::debug!(saga = %id, %error, "the store could not be asked how it stands");
                    }
                    Err(other) => return Err(other),
                },
            }
            if seen.state.is_at_rest() || Instant::now() >= until || self.shared.draining.is_cancelled() {
                return Ok(seen);
            }
            view = self.shared.live.find(&id).map(|handle| handle.view);
            if view.is_none() {
                let next_look = Instant::now() + self.shared.settings.watch_poll_every;
                tokio::time::sleep_until(next_look.min(until)).await;
            }
        }
    }

    /// The saga, if its head row says that it is worth a closer look, or if the time is up.
    async fn look(&self, id: &SagaId, until: Instant) -> Result<Option<Arc<Saga>>, EngineError> {
        let head = self.shared.store.head(id).await?.ok_or_else(|| super::no_saga(id))?;
        let is_due = head.state.is_at_rest() || Instant::now() >= until;
        Ok(if is_due { Some(self.get_saga(id).await?.saga) } else { None })
    }

    async fn find_started(&self, id: &SagaId, asked: Asked<'_>) -> Result<Option<StartedSaga>, EngineError> {
        let Some(head) = self.shared.store.head(id).await? else { return Ok(None) };
        if head.fingerprint != *asked.fingerprint {
            let difference = asked.difference(&self.shared, &head).await;
            return Err(EngineError::AlreadyExists { saga: id.clone(), difference });
        }
        let view = self.shared.live.find(id).map(|handle| handle.view);
        Ok(Some(StartedSaga { saga: self.get_saga(id).await?.saga, created: false, view }))
    }

    async fn existing(&self, id: &SagaId, asked: Asked<'_>) -> Result<StartedSaga, EngineError> {
        // Its first event may be on its way to disk at this moment, by another request.
        if let Some(handle) = self.shared.live.find(id) {
            let mut view = handle.view;
            if view.borrow().seq == Seq(1) && !view.has_changed().unwrap_or(true) {
                let _accepted_or_gone =
                    tokio::time::timeout(self.shared.settings.lease_ttl, view.changed()).await;
            }
        }
        self.find_started(id, asked).await?.ok_or_else(|| perhaps_started(id))
    }
}

impl StartSaga {
    /// Raw requests are there for exactly the actions that have no template.
    fn check_payloads(&self, raw: &[StepName]) -> Result<(), EngineError> {
        let missing = raw.iter().filter(|step| !self.payloads.contains_key(*step)).map(|step| {
            Fault::new(
                format!("payloads.{step}"),
                "the step's action has no request template: its request must come here",
            )
        });
        let surplus = self.payloads.keys().filter(|step| !raw.contains(step)).map(|step| {
            Fault::new(format!("payloads.{step}"), "there is no step of this name without a request template")
        });
        let faults: Vec<_> = missing.chain(surplus).collect();
        if faults.is_empty() { Ok(()) } else { Err(EngineError::Invalid(faults)) }
    }
}

/// Follows a saga that runs here until it is at rest, its runner leaves, or the time is up. What is in the view counts only
/// if it is beyond what was `seen` already: it may be another request's, for which the id was not free, and whose first
/// event is not on disk and never will be.
async fn wait_live(mut view: watch::Receiver<Arc<Saga>>, mut seen: Arc<Saga>, until: Instant) -> Arc<Saga> {
    let mut is_over = false;
    loop {
        let live = Arc::clone(&view.borrow_and_update());
        if live.seq > seen.seq {
            seen = live;
        }
        if is_over || seen.state.is_at_rest() {
            return seen;
        }
        // Once the runner has left (its last word is in the view) or the time is up, it is looked at once more.
        is_over = !matches!(tokio::time::timeout_at(until, view.changed()).await, Ok(Ok(())));
    }
}

/// Repeated with its id, the request finds out.
fn perhaps_started(id: &SagaId) -> EngineError {
    StoreError::Unknown(format!("the start of saga \"{id}\"")).into()
}
