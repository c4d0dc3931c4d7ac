//! The scenarios, each bounded in time and count, each answering a report.

pub mod chaos;
pub mod frozen;
pub mod hanging;
pub mod parked;
pub mod rolling;
pub mod takeover;
pub mod tracing;

use crate::api::Api;
use crate::bank::{Bank, Manner, Script};
use crate::cluster::Cluster;
use crate::definition;
use crate::process::eventually;
use crate::report::Report;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;

/// Time for one call of a transfer.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A participant that answers everything at once.
pub(crate) fn prompt() -> Script {
    Arc::new(|_| Manner::AtOnce)
}

/// Registers the bank and the transfers, and waits until every coordinator knows them.
pub(crate) async fn register(cluster: &Cluster, bank: &Bank) -> Result<Vec<Api>> {
    let apis = cluster.apis()?;
    let first = apis.first().context("a coordinator")?;
    first.enlist(bank.endpoints(), 0).await?;
    for definition in definition::transfers(CALL_TIMEOUT) {
        first.define(definition).await?;
    }
    Ok(apis)
}

/// Waits until no saga is under way, whoever answers; false if the patience is over first.
pub(crate) async fn quiet(apis: &[Api], patience: Duration) -> bool {
    let look = || async {
        for api in apis {
            // One that cannot be asked is passed over: another can.
            if let Ok(quiet) = api.is_quiet().await {
                return Ok(quiet.then_some(()));
            }
        }
        Ok(None)
    };
    eventually("all sagas to end", patience, look).await.is_ok()
}

/// What any coordinator lists.
pub(crate) async fn list(apis: &[Api]) -> Result<Vec<backstop_proto::v1::Saga>> {
    list_in(apis, "").await
}

/// What any coordinator lists of those that fit a filter.
pub(crate) async fn list_in(apis: &[Api], filter: &str) -> Result<Vec<backstop_proto::v1::Saga>> {
    let mut last = anyhow::anyhow!("there is no coordinator");
    for api in apis {
        match api.list(filter).await {
            Ok(sagas) => return Ok(sagas),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Tells the story of one saga: its transcript, and what the participants saw.
pub(crate) async fn tell(report: &mut Report, saga: &str, apis: &[Api], bank: &Bank) {
    report.story([format!("saga {saga}")]);
    for api in apis {
        if let Ok(saga) = api.get(saga).await {
            report.story(saga.transcript);
            break;
        }
    }
    report.story(["as the participants saw it:".to_owned()]);
    report.story(bank.lines(saga));
}
