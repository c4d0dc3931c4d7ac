//! Keeps this process's lease, and begins anew when it has run out.
//!
//! # Not here
//! What a tenure allows: [`crate::tenure`]. Whose lease is over: the store, by its own clock.

use crate::ports::machine::Machine;
use crate::ports::store::{Store, StoreError};
use crate::shared::Shared;
use crate::tenure::{Moment, Tenure};
use backstop_core::CoordinatorId;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Wait before a new tenure is asked for again.
const ENTER_AGAIN: Duration = Duration::from_millis(500);

/// Makes a coordinator id that was never used.
fn fresh_id(machine: &dyn Machine) -> Result<CoordinatorId, StoreError> {
    let id = format!("c-{}", machine.fresh_id());
    CoordinatorId::parse(&id).map_err(|error| StoreError::NotApplied(error.to_string()))
}

/// Enters the store's list of coordinators.
pub(crate) async fn enter(
    store: &dyn Store,
    machine: &Arc<dyn Machine>,
    address: &str,
    ttl: Duration,
) -> Result<Tenure, StoreError> {
    let coordinator = fresh_id(machine.as_ref())?;
    let asked = Moment::now(machine.as_ref());
    store.enter(&coordinator, address, ttl).await?;
    Ok(Tenure::new(coordinator, Arc::clone(machine), asked, ttl))
}

/// Renews the lease until a drain has ended it.
pub(crate) async fn keep(shared: Arc<Shared>, address: String) {
    let ttl = shared.settings.lease_ttl;
    loop {
        tokio::time::sleep(shared.settings.lease_renew_every).await;
        let tenure = shared.tenure();
        if is_over(&shared, &tenure) {
            return;
        }
        let asked = Moment::now(shared.machine.as_ref());
        // What has run out by our own time may have been taken over, even if the store, whose clock may have gone back
        // since, would renew it.
        let renewed = match tenure.remaining().is_zero() {
            true => Ok(None),
            false => shared.store.renew(&tenure.coordinator, ttl).await,
        };
        match renewed {
            Ok(Some(now)) => {
                tenure.renewed(asked, ttl);
                shared.store_clock.heard(now, asked.at);
            }
            Ok(None) if is_over(&shared, &tenure) => return,
            Ok(None) => {
                shared.metrics.lease_lost();
                tracing::error!(coordinator = %tenure.coordinator, "the lease has run out: beginning anew");
                tenure.end();
                begin_anew(&shared, &address).await;
            }
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
        }
    }
}

/// True after a drain: whoever has gone away in order does not come back under a new name.
fn is_over(shared: &Shared, tenure: &Tenure) -> bool {
    shared.draining.is_cancelled() && tenure.has_ended()
}

async fn begin_anew(shared: &Shared, address: &str) {
    loop {
        match enter(shared.store.as_ref(), &shared.machine, address, shared.settings.lease_ttl).await {
            Ok(tenure) => {
                tracing::info!(coordinator = %tenure.coordinator, "a new tenure has begun");
                *shared.tenure.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tenure);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "no new tenure yet");
                tokio::time::sleep(ENTER_AGAIN).await;
            }
        }
    }
}
