//! Takes away what has ended long enough ago, a bite at a time, for as long as the process lives.
//!
//! # Not here
//! What may go and how it goes: the store ([`crate::ports::store::Store::retire`]). Coordinators do not agree on
//! who does it: each tries, and bites of two at once are disjoint.

use crate::ports::store::Retired;
use crate::shared::Shared;
use std::sync::Arc;
use tokio::time::Instant;

pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(shared.settings.retention_every) => {}
            () = shared.draining.cancelled() => return,
        }
        let mut sum = Retired::default();
        while shared.tenure().may_act() && !shared.draining.is_cancelled() {
            let began = Instant::now();
            let bite =
                shared.store.retire(shared.settings.retention, shared.settings.retention_batch_max).await;
            match bite {
                Ok(bite) => {
                    shared.metrics.retired(&bite);
                    sum.journals += bite.journals;
                    sum.sagas += bite.sagas;
                    sum.partitions += bite.partitions;
                    if !bite.more {
                        break;
                    }
                    // At most half of the time: what runs has the other half of the store to itself.
                    tokio::time::sleep(began.elapsed()).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "what has ended could not be retired: trying again later");
                    break;
                }
            }
        }
        if sum != Retired::default() {
            let Retired { journals, sagas, partitions, .. } = sum;
            tracing::info!(journals, sagas, partitions, "retired");
        }
    }
}
