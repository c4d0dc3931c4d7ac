//! How many sagas wait for a person and for how long, and for how long the oldest rollback has run, as the store has
//! it: an alert on these numbers outlives every coordinator.
//!
//! # Invariants
//! * Every coordinator tells the numbers of all of them, whoever opened and whoever answers them, and goes on telling
//!   them after a restart (`peer_06_the_number_of_open_interventions_outlives_coordinators`, and on real processes
//!   `peer_06_a_refused_compensation_…`).
//!
//! # Not here
//! Which they are: ListSagas with `state = "NEEDS_INTERVENTION"`.

use crate::ports::store::Unsettled;
use crate::shared::Shared;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Shortest time between two counts: a burst of interventions is counted once.
const PAUSE: Duration = Duration::from_millis(500);

/// The numbers as they were last counted.
#[derive(Debug, Default)]
pub(crate) struct Interventions {
    counted: Mutex<Vec<Unsettled>>,
    changed: Notify,
}

impl Interventions {
    /// By definition, of up to `limits.interventions_counted_max` sagas.
    pub(crate) fn counted(&self) -> Vec<Unsettled> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sagas that wait for a person.
    pub(crate) fn open(&self) -> u64 {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.iter().map(|of| of.waiting).sum()
    }

    /// Something here has changed it: it is counted again soon, and not only in its turn.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }
}

/// Counts again and again, for as long as the process lives.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let interventions = &shared.metrics.interventions;
    let (every, most) =
        (shared.settings.interventions_counted_every, shared.settings.interventions_counted_max);
    loop {
        match shared.store.unsettled(most).await {
            Ok(counted) => {
                *interventions.counted.lock().unwrap_or_else(PoisonError::into_inner) = counted;
            }
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
