//! How many sagas wait for a person, as the store has it: an alert on this number outlives every coordinator.
//!
//! # Invariants
//! * Every coordinator tells the number of all of them, whoever opened and whoever answers them, and goes on telling it
//!   after a restart (`peer_06_the_number_of_open_interventions_outlives_coordinators`, and on real processes
//!   `peer_06_a_refused_compensation_…`).
//!
//! # Not here
//! Which they are: ListSagas with `state = "NEEDS_INTERVENTION"`.

use crate::ports::store::SagaFilter;
use crate::shared::Shared;
use backstop_core::SagaState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Shortest time between two counts: a burst of interventions is counted once.
const PAUSE: Duration = Duration::from_millis(500);

/// The number as it was last counted.
#[derive(Debug, Default)]
pub(crate) struct Interventions {
    open: AtomicU64,
    changed: Notify,
}

impl Interventions {
    /// Sagas that wait for a person, up to `limits.interventions_counted_max`.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Something here has changed it: it is counted again soon, and not only in its turn.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }
}

/// Counts again and again, for as long as the process lives.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let interventions = &shared.metrics.interventions;
    let filter = SagaFilter { states: vec![SagaState::NeedsIntervention], ..SagaFilter::default() };
    let (every, most) =
        (shared.settings.interventions_counted_every, shared.settings.interventions_counted_max);
    loop {
        match shared.store.list(&filter, None, most).await {
            Ok(heads) => interventions.open.store(heads.len() as u64, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "those who wait for a person could not be counted"),
        }
        let again = async {
            tokio::time::sleep(PAUSE).await;
            let _in_its_turn = tokio::time::timeout(every, interventions.changed.notified()).await;
        };
        tokio::select! {
            biased;
            () = again => {}
            () = shared.draining.cancelled() => return,
        }
    }
}
