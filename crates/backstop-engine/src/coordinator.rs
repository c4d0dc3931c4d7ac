//! One running coordinator: what the outside may ask of it.
//!
//! # Not here
//! How one saga is driven: [`crate::runner`]. Wire types: `backstop-rpc`.

use crate::clock::StoreClock;
use crate::definitions::Definitions;
use crate::error::EngineError;
use crate::gate::Gates;
use crate::group_commit::GroupCommit;
use crate::live::{self, Live};
use crate::metrics::{self, Metrics};
use crate::ports::clock::Clock;
use crate::ports::participants::{ParticipantLoad, Participants};
use crate::ports::store::{
    Appended, CoordinatorRow, Head, Journal, Participant, SagaCursor, SagaFilter, Store, StoreError,
};
use crate::resets::Resets;
use crate::runner::Runner;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::{lease, takeover};
use backstop_core::{
    DefinitionName, Event, Input, ParticipantName, Refused, Revision, Saga, SagaId, SagaState, Seq, Start,
    StepName, start,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often a command is carried to a saga that keeps changing hands before it is given up.
const COMMAND_ATTEMPTS_MAX: usize = 5;
/// Events read from the store at once for a watcher.
const WATCH_PAGE: usize = 256;

/// A saga to be started.
#[derive(Debug, Clone)]
pub struct StartSaga {
    /// The id that the client chose.
    pub id: Option<SagaId>,
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

/// A saga with what the store says of it.
#[derive(Debug, Clone)]
pub struct SagaView {
    /// The saga, as its journal tells it.
    pub saga: Arc<Saga>,
    /// Who drives it.
    pub owner: Option<String>,
    /// Its journal.
    pub events: Vec<Event>,
}

/// A running coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

impl Coordinator {
    /// Enters the store's list of coordinators and begins to work: to keep the lease, and to take on sagas
    /// that nobody drives.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn start(
        store: Arc<dyn Store>,
        participants: Arc<dyn Participants>,
        settings: Settings,
        address: &str,
    ) -> Result<Self, StoreError> {
        let clock: Arc<dyn Clock> = Arc::new(StoreClock::read(store.as_ref()).await?);
        let settings = Arc::new(settings);
        let metrics = Metrics::default();
        metrics::show_zeros(&metrics);
        let gates =
            Arc::new(Gates::new(Arc::clone(&clock), settings.breaker, settings.in_flight_max_default));
        let definitions = Definitions::new(
            Arc::clone(&store),
            Arc::clone(&participants),
            Arc::clone(&gates),
            Arc::clone(&clock),
            Arc::clone(&settings),
        );
        let tenure = lease::enter(store.as_ref(), address, settings.lease_ttl).await?;
        tracing::info!(coordinator = %tenure.coordinator, "the coordinator has its lease");
        let journal = GroupCommit::spawn(
            Arc::clone(&store),
            settings.journal_queue_max,
            settings.batch_events_max,
            metrics.clone(),
        );
        let shared = Arc::new(Shared {
            store,
            journal,
            participants,
            gates,
            definitions,
            clock,
            live: Live::new(settings.live_sagas_max, metrics.clone()),
            metrics,
            resets: Resets::spawn(settings.resets_per_second_max),
            settings,
            tenure: RwLock::new(Arc::new(tenure)),
            draining: CancellationToken::new(),
        });
        metrics::observe(&Arc::downgrade(&shared));
        tokio::spawn(lease::keep(Arc::clone(&shared), address.to_owned()));
        tokio::spawn(takeover::watch(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Definitions and participants.
    #[must_use]
    pub fn definitions(&self) -> &Definitions {
        &self.shared.definitions
    }

    /// The limits in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// True while it may take on and drive sagas.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.shared.draining.is_cancelled() && self.shared.tenure().may_act()
    }

    /// Resolves when [`Coordinator::is_serving`] may have changed: at once on shutdown, otherwise after
    /// `at_most`, since a lease runs out in silence.
    pub async fn serving_may_have_changed(&self, at_most: Duration) {
        let draining = &self.shared.draining;
        tokio::select! {
            () = draining.cancelled(), if !draining.is_cancelled() => {}
            () = tokio::time::sleep(at_most) => {}
        }
    }

    /// Starts a saga, or finds the one that this very request has started before. The answer does not wait
    /// for the saga's end. The saga goes on whether or not the caller waits for the answer.
    ///
    /// # Errors
    /// [`EngineError`]: Invalid, NotFound, AlreadyExists, Busy, NotServing, Store.
    pub async fn start_saga(&self, request: StartSaga) -> Result<StartedSaga, EngineError> {
        let shared = &self.shared;
        if !self.is_serving() {
            return Err(EngineError::NotServing);
        }
        let compiled = shared.definitions.get(&request.definition, request.revision).await;
        let slot = shared.live.slot().filter(|_| !shared.journal.is_full());
        let (compiled, slot) = match (compiled, slot) {
            (Ok(compiled), Some(slot)) => (compiled, slot),
            (compiled, _) => {
                // A repeated request finds its saga also when there is no room for a new one.
                if let Some(id) = &request.id
                    && let Some(saga) = self.find_started(id, &request.fingerprint).await?
                {
                    return Ok(saga);
                }
                compiled?;
                let retry_after = shared.settings.busy_retry_after;
                return Err(EngineError::Busy { limit: "live_sagas_max or journal_queue_max", retry_after });
            }
        };
        request.check_payloads(&compiled.raw)?;
        let id = match &request.id {
            Some(id) => id.clone(),
            None => fresh_saga_id()?,
        };
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
        let saga = backstop_core::apply::begin(id.clone(), compiled.definition, &first)
            .map_err(|corrupt| EngineError::Quarantined { saga: id.clone(), reason: corrupt.to_string() })?;
        let saga = Arc::new(saga);
        let Some((handle, place)) = shared.live.enter(saga, slot) else {
            // It runs here already.
            return self.existing(&id, &request.fingerprint).await;
        };
        let (accepted, answer) = oneshot::channel();
        let runner = Runner::new(
            Arc::clone(shared),
            tenure,
            place,
            compiled.calls,
            Arc::clone(&handle.view.borrow()),
            request.fingerprint,
        );
        tokio::spawn(runner.begin(first, accepted));
        match answer.await {
            Ok(Appended::Written) => {
                let saga = Arc::clone(&handle.view.borrow());
                Ok(StartedSaga { saga, created: true, view: Some(handle.view) })
            }
            Ok(Appended::Lost) => self.existing(&id, &request.fingerprint).await,
            Err(_) => Err(EngineError::NotServing),
        }
    }

    /// Waits until the saga is over or needs a person, at most for `at_most`; answers it as it then stands.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Quarantined, Store.
    pub async fn wait(&self, started: StartedSaga, at_most: Duration) -> Result<Arc<Saga>, EngineError> {
        let until = Instant::now() + at_most;
        let (id, mut view) = (started.saga.id.clone(), started.view);
        loop {
            let saga = match view.take() {
                Some(view) => wait_live(view, until).await,
                None => self.get_saga(&id).await?.saga,
            };
            if is_at_rest(&saga) || Instant::now() >= until || self.shared.draining.is_cancelled() {
                return Ok(saga);
            }
            view = self.shared.live.find(&id).map(|handle| handle.view);
            if view.is_none() {
                let next_look = Instant::now() + self.shared.settings.watch_poll_every;
                tokio::time::sleep_until(next_look.min(until)).await;
            }
        }
    }

    /// A saga with its journal.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Quarantined, Store.
    pub async fn get_saga(&self, id: &SagaId) -> Result<SagaView, EngineError> {
        let (saga, Journal { head, events }, _) =
            takeover::load(&self.shared, id).await?.ok_or_else(|| no_saga(id))?;
        Ok(SagaView { saga: Arc::new(saga), owner: head.owner.map(|owner| owner.to_string()), events })
    }

    /// Sagas, newest first.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn list_sagas(
        &self,
        filter: &SagaFilter,
        cursor: Option<&SagaCursor>,
        limit: usize,
    ) -> Result<Vec<Head>, EngineError> {
        Ok(self.shared.store.list(filter, cursor, limit).await?)
    }

    /// The next events of a saga after `after`; waits for them. Empty once the saga is over and all its
    /// events have been seen, or when the coordinator shuts down.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Store.
    pub async fn next_events(&self, id: &SagaId, after: Seq) -> Result<Vec<Event>, EngineError> {
        loop {
            let live = self.shared.live.find(id);
            // Whether it is over is asked before the events are read: an end that comes in between is
            // then seen in the next round, and no event is missed.
            let head = self.shared.store.head(id).await?.ok_or_else(|| no_saga(id))?;
            let events = self.shared.store.events(id, after, WATCH_PAGE).await?;
            let over = head.state.is_final() && live.is_none();
            if !events.is_empty() || over || self.shared.draining.is_cancelled() {
                return Ok(events);
            }
            let poll = tokio::time::sleep(self.shared.settings.watch_poll_every);
            let Some(mut handle) = live else {
                poll.await;
                continue;
            };
            if handle.view.borrow_and_update().seq <= after {
                tokio::select! {
                    _changed_or_gone = handle.view.changed() => {}
                    () = self.shared.draining.cancelled() => {}
                }
            }
        }
    }

    /// Asks for a rollback; answers once it is decided durably.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Refused, NotHere, Quarantined, Store.
    pub async fn cancel(&self, id: &SagaId, by: String, reason: String) -> Result<Arc<Saga>, EngineError> {
        self.command(id, Input::Cancel { by, reason }).await
    }

    /// Carries an operator's word to a saga, wherever it is.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Refused, NotHere, Quarantined, Store.
    pub async fn command(&self, id: &SagaId, input: Input) -> Result<Arc<Saga>, EngineError> {
        for _ in 0..COMMAND_ATTEMPTS_MAX {
            if let Some(handle) = self.shared.live.find(id) {
                if let Some(answer) = handle.command(input.clone()).await {
                    return answer;
                }
                continue;
            }
            let head = self.shared.store.head(id).await?.ok_or_else(|| no_saga(id))?;
            if head.state.is_final() {
                return Err(EngineError::Refused(Refused::Ended));
            }
            if let Some(owner) = head.owner.filter(|owner| *owner != self.shared.tenure().coordinator) {
                return Err(EngineError::NotHere { saga: id.clone(), owner });
            }
            if !self.is_serving() {
                return Err(EngineError::NotServing);
            }
            // It waits for a person: whoever is asked takes it up again.
            if let Some(saga) = self.idle_answer(id, &input).await? {
                return Ok(saga);
            }
            let (command, answer) = live::Command::new(input.clone());
            if takeover::adopt(&self.shared, id, None, Some(command)).await?.is_some()
                && let Some(answer) = live::answered(answer).await
            {
                return answer;
            }
        }
        Err(EngineError::Busy {
            limit: "the saga keeps changing hands; attempts to reach it",
            retry_after: self.shared.settings.busy_retry_after,
        })
    }

    /// Every coordinator of the store.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn coordinators(&self) -> Result<Vec<CoordinatorRow>, EngineError> {
        Ok(self.shared.store.coordinators().await?)
    }

    /// A participant.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Store.
    pub async fn participant(&self, name: &ParticipantName) -> Result<Participant, EngineError> {
        let found = self.shared.store.participant(name).await?;
        found.ok_or_else(|| EngineError::NotFound { what: "participant", name: name.to_string() })
    }

    /// Participants by name.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn participants(
        &self,
        after: Option<&ParticipantName>,
        limit: usize,
    ) -> Result<Vec<Participant>, EngineError> {
        Ok(self.shared.store.participants(after, limit).await?)
    }

    /// What this coordinator has going on with a participant.
    #[must_use]
    pub fn load_of(&self, name: &ParticipantName) -> ParticipantLoad {
        let gate = self.shared.gates.of(name);
        ParticipantLoad {
            participant: name.clone(),
            in_flight: gate.in_flight(),
            breaker_open: gate.is_open(),
        }
    }

    /// Stops taking on sagas, lets go of those that run as soon as none of their calls is out, and ends the
    /// lease. Sagas whose calls are not answered within `at_most` are left to takeover.
    pub async fn drain(&self, at_most: Duration) {
        self.shared.draining.cancel();
        let until = Instant::now() + at_most;
        while self.shared.live.count() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let tenure = self.shared.tenure();
        let left = self.shared.live.count();
        tenure.end();
        if let Err(error) = self.shared.store.leave(&tenure.coordinator).await {
            tracing::warn!(%error, "the lease could not be ended; it will run out");
        }
        tracing::info!(sagas_left_to_takeover = left, "drained");
    }

    async fn find_started(
        &self,
        id: &SagaId,
        fingerprint: &[u8; 32],
    ) -> Result<Option<StartedSaga>, EngineError> {
        let Some(head) = self.shared.store.head(id).await? else { return Ok(None) };
        if head.fingerprint != *fingerprint {
            let difference = "its definition, revision, input, payloads or labels".to_owned();
            return Err(EngineError::AlreadyExists { saga: id.clone(), difference });
        }
        let view = self.shared.live.find(id).map(|handle| handle.view);
        Ok(Some(StartedSaga { saga: self.get_saga(id).await?.saga, created: false, view }))
    }

    async fn existing(&self, id: &SagaId, fingerprint: &[u8; 32]) -> Result<StartedSaga, EngineError> {
        // Its first event may be on its way to disk at this moment, by another request.
        if let Some(handle) = self.shared.live.find(id) {
            let mut view = handle.view;
            if view.borrow().seq == Seq(1) && !view.has_changed().unwrap_or(true) {
                let _accepted_or_gone =
                    tokio::time::timeout(self.shared.settings.lease_ttl, view.changed()).await;
            }
        }
        self.find_started(id, fingerprint).await?.ok_or(EngineError::NotServing)
    }

    /// Tells a person at once that their word would be refused, before the saga is taken up for it, or answers
    /// the saga as it is if their word changes nothing.
    async fn idle_answer(&self, id: &SagaId, input: &Input) -> Result<Option<Arc<Saga>>, EngineError> {
        let saga = self.get_saga(id).await?.saga;
        let events = backstop_core::decide(&saga, self.shared.clock.now(), input.clone());
        let events = events.map_err(EngineError::Refused)?;
        Ok(events.is_empty().then_some(saga))
    }
}

impl StartSaga {
    /// Raw requests are there for exactly the actions that have no template.
    fn check_payloads(&self, raw: &[StepName]) -> Result<(), EngineError> {
        let missing = raw.iter().filter(|step| !self.payloads.contains_key(*step)).map(|step| {
            backstop_core::Fault::new(
                format!("payloads.{step}"),
                "the step's action has no request template: its request must come here",
            )
        });
        let surplus = self.payloads.keys().filter(|step| !raw.contains(step)).map(|step| {
            backstop_core::Fault::new(
                format!("payloads.{step}"),
                "there is no step of this name without a request template",
            )
        });
        let faults: Vec<_> = missing.chain(surplus).collect();
        if faults.is_empty() { Ok(()) } else { Err(EngineError::Invalid(faults)) }
    }
}

async fn wait_live(mut view: watch::Receiver<Arc<Saga>>, until: Instant) -> Arc<Saga> {
    loop {
        let saga = Arc::clone(&view.borrow_and_update());
        if is_at_rest(&saga) {
            return saga;
        }
        match tokio::time::timeout_at(until, view.changed()).await {
            Ok(Ok(())) => {}
            // The runner has left (its last word is in the view), or the time is up.
            Ok(Err(_)) | Err(_) => return Arc::clone(&view.borrow()),
        }
    }
}

fn is_at_rest(saga: &Saga) -> bool {
    saga.state.is_final() || saga.state == SagaState::NeedsIntervention
}

fn no_saga(id: &SagaId) -> EngineError {
    EngineError::NotFound { what: "saga", name: id.to_string() }
}

fn fresh_saga_id() -> Result<SagaId, EngineError> {
    SagaId::parse(&Uuid::now_v7().to_string()).map_err(|_| EngineError::NotServing)
}
