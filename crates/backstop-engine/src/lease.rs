//! Keeps this process's lease, and begins anew when it has run out.
//!
//! # Not here
//! What a tenure allows: [`crate::tenure`]. Whose lease is over: the store, by its own clock.

use crate::ports::store::StoreError;
use crate::shared::Shared;
use crate::tenure::{Moment, Tenure};
use backstop_core::CoordinatorId;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Wait before a new tenure is asked for again.
const ENTER_AGAIN: Duration = Duration::from_millis(500);

/// Makes a coordinator id that was never used.
pub(crate) fn fresh_id() -> Result<CoordinatorId, StoreError> {
    let id = format!("c-{}", Uuid::now_v7());
    CoordinatorId::parse(&id).map_err(|error| StoreError::NotApplied(error.to_string()))
}

/// Enters the store's list of coordinators.
pub(crate) async fn enter(
    store: &dyn crate::ports::store::Store,
    address: &str,
    ttl: Duration,
) -> Result<Tenure, StoreError> {
    let coordinator = fresh_id()?;
    let asked = Moment::now();
    store.enter(&coordinator, address, ttl).await?;
    Ok(Tenure::new(coordinator, asked, ttl))
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
        let asked = Moment::now();
        match shared.store.renew(&tenure.coordinator, ttl).await {
            Ok(Some(now)) => {
                tenure.renewed(asked, ttl);
                shared.store_clock.heard(now, asked.at);
            }
            Ok(None) if is_over(&shared, &tenure) => return,
            Ok(None) => {
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
        match enter(shared.store.as_ref(), address, shared.settings.lease_ttl).await {
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
