//! Looking at sagas, and at what is around them. Everything is read from the store.

use super::{Coordinator, FindingKind, no_saga};
use crate::error::EngineError;
use crate::overview::Overview;
use crate::ports::participants::ParticipantLoad;
use crate::ports::store::{CoordinatorRow, Head, Journal, Participant, SagaCursor, SagaFilter, Unsettled};
use crate::takeover;
use backstop_core::{Event, ParticipantName, Saga, SagaId, Seq, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Events read from the store at once for a watcher.
const WATCH_PAGE: usize = 256;

/// A saga with what the store says of it.
#[derive(Debug, Clone)]
pub struct SagaView {
    /// The saga, as its journal tells it.
    pub saga: Arc<Saga>,
    /// Who drives it.
    pub owner: Option<String>,
    /// When it will be taken up again, if it is parked.
    pub wake_at: Option<Timestamp>,
    /// Its journal.
    pub events: Vec<Event>,
}

impl Coordinator {
    /// A saga with its journal.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Quarantined, Retired, Store.
    pub async fn get_saga(&self, id: &SagaId) -> Result<SagaView, EngineError> {
        let loaded = takeover::load(&self.shared, id).await?.ok_or_else(|| no_saga(id))?;
        let Journal { head, events } = loaded.journal;
        let owner = head.owner.map(|owner| owner.to_string());
        Ok(SagaView { saga: Arc::new(loaded.saga), owner, wake_at: head.wake_at, events })
    }

    /// Events of a saga, whether or not they can be followed.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn events(&self, id: &SagaId, after: Seq, limit: usize) -> Result<Vec<Event>, EngineError> {
        Ok(self.shared.store.events(id, after, limit).await?)
    }

    /// A saga's head row: all that can be told of one that is quarantined or retired.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Store.
    pub async fn head(&self, id: &SagaId) -> Result<Head, EngineError> {
        self.shared.store.head(id).await?.ok_or_else(|| no_saga(id))
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
    /// events have been seen.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, NotServing (the coordinator shuts down before there are any), Store.
    pub async fn next_events(&self, id: &SagaId, after: Seq) -> Result<Vec<Event>, EngineError> {
        loop {
            let live = self.shared.live.find(id);
            // Whether it is over is asked before the events are read: an end that comes in between is
            // then seen in the next round, and no event is missed.
            let head = self.shared.store.head(id).await?.ok_or_else(|| no_saga(id))?;
            if head.seq > after {
                let events = self.shared.store.events(id, after, WATCH_PAGE).await?;
                if !events.is_empty() {
                    return Ok(events);
                }
            }
            if head.state.is_final() && live.is_none() {
                return Ok(Vec::new());
            }
            if self.shared.draining.is_cancelled() {
                return Err(EngineError::NotServing);
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

    /// Sagas that this coordinator has in memory.
    #[must_use]
    pub fn live_sagas(&self) -> usize {
        self.shared.live.count()
    }

    /// Sagas in the store that wait for a person, as they were last counted.
    #[must_use]
    pub fn interventions(&self) -> u64 {
        self.shared.metrics.interventions.open()
    }

    /// How many of each kind the newest run of the doctor here found; nothing before the first run.
    #[must_use]
    pub fn doctor_findings(&self) -> BTreeMap<FindingKind, u64> {
        self.shared.metrics.findings.counted()
    }

    /// What of each definition waits for a person or rolls back, as it was last counted.
    #[must_use]
    pub fn unsettled(&self) -> Vec<Unsettled> {
        self.shared.metrics.interventions.counted()
    }

    /// What this coordinator has done since it began, and what it has going on.
    #[must_use]
    pub fn overview(&self) -> Overview {
        self.shared.tally.overview(&self.shared)
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
}
