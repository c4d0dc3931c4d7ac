//! What all parts of one coordinator share.

use crate::clock::StoreClock;
use crate::definitions::Definitions;
use crate::gate::Gates;
use crate::group_commit::GroupCommit;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::overview::Tally;
use crate::ports::clock::Clock;
use crate::ports::machine::Machine;
use crate::ports::participants::Participants;
use crate::ports::peers::Peers;
use crate::ports::store::{Head, Store};
use crate::ports::traces::Traces;
use crate::resets::Resets;
use crate::retelling::Retelling;
use crate::settings::Settings;
use crate::tenure::Tenure;
use backstop_core::{EventKind, Saga, Timestamp};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) journal: GroupCommit,
    pub(crate) participants: Arc<dyn Participants>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) traces: Arc<dyn Traces>,
    pub(crate) retelling: Retelling,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) definitions: Definitions,
    pub(crate) clock: Arc<dyn Clock>,
    /// The same clock, for whoever has a reading of the store's.
    pub(crate) store_clock: Arc<StoreClock>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Metrics,
    pub(crate) tally: Tally,
    pub(crate) live: Arc<Live>,
    pub(crate) resets: Resets,
    /// The present tenure; another one after a lost lease.
    pub(crate) tenure: RwLock<Arc<Tenure>>,
    /// Set on shutdown: nothing new is taken on, and sagas are let go of.
    pub(crate) draining: CancellationToken,
}

impl Shared {
    /// Runs a task beside its caller.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.machine.spawn(Box::pin(task))
    }

    pub(crate) fn tenure(&self) -> Arc<Tenure> {
        Arc::clone(&self.tenure.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The head row of a saga as it is after its last event; `wake_at` is when it comes back if that is
    /// `Released`.
    pub(crate) fn head_of(
        saga: &Saga,
        last: &EventKind,
        tenure: &Tenure,
        fingerprint: [u8; 32],
        wake_at: Option<Timestamp>,
    ) -> Head {
        let released = matches!(last, EventKind::Released);
        let nobodys = released || saga.state.is_at_rest();
        Head {
            owner: (!nobodys).then(|| tenure.coordinator.clone()),
            wake_at: (released && !saga.state.is_at_rest()).then(|| wake_at.unwrap_or(saga.updated_at)),
            fingerprint,
            ..Self::head_of_journal(saga)
        }
    }

    /// What a journal alone says of its head row: without owner, wake-up time and fingerprint.
    pub(crate) fn head_of_journal(saga: &Saga) -> Head {
        Head {
            saga: saga.id.clone(),
            definition: saga.definition.reference.clone(),
            state: saga.state,
            seq: saga.seq,
            epoch: saga.epoch,
            owner: None,
            wake_at: None,
            fin_code: saga
                .cause
                .as_ref()
                .and_then(|cause| cause.failure.as_ref())
                .map(|failure| failure.fin_code),
            labels: saga.started.labels.clone(),
            fingerprint: [0; 32],
            created_at: saga.started_at,
            updated_at: saga.updated_at,
            ended_at: saga.ended_at,
            quarantine: None,
            retired: false,
        }
    }
}
