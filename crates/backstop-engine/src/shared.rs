//! What all parts of one coordinator share.

use crate::definitions::Definitions;
use crate::gate::Gates;
use crate::group_commit::GroupCommit;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::ports::clock::Clock;
use crate::ports::participants::Participants;
use crate::ports::store::{Head, Store};
use crate::resets::Resets;
use crate::settings::Settings;
use crate::tenure::Tenure;
use backstop_core::{EventKind, Saga, SagaState, agenda};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) journal: GroupCommit,
    pub(crate) participants: Arc<dyn Participants>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) definitions: Definitions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Metrics,
    pub(crate) live: Arc<Live>,
    pub(crate) resets: Resets,
    /// The present tenure; another one after a lost lease.
    pub(crate) tenure: RwLock<Arc<Tenure>>,
    /// Set on shutdown: nothing new is taken on, and sagas are let go of.
    pub(crate) draining: CancellationToken,
}

impl Shared {
    pub(crate) fn tenure(&self) -> Arc<Tenure> {
        Arc::clone(&self.tenure.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The head row of a saga as it is after its last event.
    pub(crate) fn head_of(
        &self,
        saga: &Saga,
        last: &EventKind,
        tenure: &Tenure,
        fingerprint: [u8; 32],
    ) -> Head {
        let released = matches!(last, EventKind::Released);
        let nobodys = released || saga.state.is_at_rest();
        let wake_at = match saga.state {
            SagaState::Running | SagaState::RollingBack if released => {
                let picture = agenda(saga, saga.updated_at);
                if picture.is_idle() { picture.wake_at } else { Some(saga.updated_at) }
            }
            SagaState::Running
            | SagaState::RollingBack
            | SagaState::NeedsIntervention
            | SagaState::Succeeded
            | SagaState::RolledBack => None,
        };
        Head {
            saga: saga.id.clone(),
            definition: saga.definition.reference.clone(),
            state: saga.state,
            seq: saga.seq,
            epoch: saga.epoch,
            owner: (!nobodys).then(|| tenure.coordinator.clone()),
            wake_at,
            fin_code: saga
                .cause
                .as_ref()
                .and_then(|cause| cause.failure.as_ref())
                .map(|failure| failure.fin_code),
            labels: saga.started.labels.clone(),
            fingerprint,
            created_at: saga.started_at,
            updated_at: saga.updated_at,
            ended_at: saga.state.is_final().then_some(saga.updated_at),
            quarantine: None,
            retired: false,
        }
    }
}
