//! Forty sagas hang on a participant that never answers: what that costs the healthy ones beside them.

use super::{CALL_TIMEOUT, quiet};
use crate::api::Api;
use crate::bank::{Bank, Gate, Manner};
use crate::client::histogram;
use crate::cluster::Cluster;
use crate::definition;
use crate::moment::now;
use crate::process::eventually;
use crate::report::{Kind, Report};
use anyhow::{Context, Result};
use backstop_proto::v1::SagaState;
use prost_types::Duration as Wait;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Rounds; every other one with hanging sagas.
const ROUNDS: u64 = 8;
/// The hanging call's own time.
const HANGING_TIMEOUT: Duration = Duration::from_secs(30);
/// For the hanging sagas to hang, and to end once they may.
const PATIENCE: Duration = Duration::from_secs(20);
/// The name of the definition that hangs, and of its participant.
const TARPIT: &str = "tarpit";

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Hanging {
    /// Healthy sagas in all
    #[arg(long, default_value_t = 1_000)]
    pub healthy: u64,
    /// Sagas that hang
    #[arg(long, default_value_t = 40)]
    pub hanging: u64,
    /// Healthy sagas a second
    #[arg(long, default_value_t = 50)]
    pub rate: u32,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: PathBuf, hanging: &Hanging) -> Result<Report> {
    let mut cluster = Cluster::start(&program).await?;
    cluster.add(&[]).await?;
    let api = cluster.apis()?.into_iter().next().context("a coordinator")?;
    let gate = Arc::new(Mutex::new(Gate::closed()));
    let held = Arc::clone(&gate);
    let [risk, a, b] = definition::PARTICIPANTS;
    let script = Arc::new(move |call: &crate::call::Call| match call.participant.as_str() {
        TARPIT => Manner::Held(held.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        _ => Manner::AtOnce,
    });
    let bank = Bank::start(&[risk, a, b, TARPIT], script).await?;
    api.enlist(bank.endpoints(), 0).await?;
    for definition in definition::transfers(CALL_TIMEOUT) {
        api.define(definition).await?;
    }
    api.define(definition::single(TARPIT, TARPIT, HANGING_TIMEOUT)).await?;

    let (mut with, mut without, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    // The first sagas pay for connections and plans: they are nobody's figures.
    failures.extend(healthy(&api, "warm", hanging.rate.into(), hanging.rate).await.1);
    for round in 0..ROUNDS {
        let hangs = round % 2 == 1;
        if hangs {
            *gate.lock().unwrap_or_else(PoisonError::into_inner) = Gate::closed();
            hang(&api, &bank, round, hanging.hanging).await?;
        }
        let (times, failed) = healthy(&api, &round.to_string(), hanging.healthy / ROUNDS, hanging.rate).await;
        failures.extend(failed);
        if hangs {
            with.extend(times)
        } else {
            without.extend(times)
        }
        gate.lock().unwrap_or_else(PoisonError::into_inner).open();
        let _ = quiet(std::slice::from_ref(&api), PATIENCE).await;
    }

    let mut report =
        Report::new(&format!("{} hanging sagas beside healthy ones at {}/s", hanging.hanging, hanging.rate));
    report.figure("healthy, without / with", format!("{} / {}", without.len(), with.len()));
    let (without, with) = (histogram(without.into_iter()), histogram(with.into_iter()));
    report.latency("without", &without);
    report.latency("with", &with);
    for quantile in [0.5, 0.99] {
        #[allow(clippy::cast_precision_loss)] // a ratio of latencies
        let ratio =
            with.value_at_quantile(quantile) as f64 / without.value_at_quantile(quantile).max(1) as f64;
        report.figure(&format!("ratio at {quantile}"), (ratio * 100.0).round() / 100.0);
    }
    report.check(Kind::Safety, "healthy sagas succeed", failures.is_empty(), failures.join("; "));
    if !report.passed() {
        report.story([cluster.logs(30)]);
    }
    Ok(report)
}

async fn hang(api: &Api, bank: &Bank, round: u64, count: u64) -> Result<()> {
    let prefix = format!("hang-{round}-");
    for number in 0..count {
        api.start(definition::request(&format!("{prefix}{number}"), TARPIT, 1, 1, 1)).await?;
    }
    let hanging = || async {
        let here = bank.record().count_if(|call| call.saga.starts_with(&prefix));
        Ok((here as u64 >= count).then_some(()))
    };
    eventually("the hanging sagas to hang", PATIENCE, hanging).await
}

/// Runs sagas at a fixed rate, each with `wait`; answers how long each took from when it was due, and what
/// went wrong.
async fn healthy(api: &Api, round: &str, count: u64, rate: u32) -> (Vec<i64>, Vec<String>) {
    let begin = Instant::now();
    let mut runs = JoinSet::new();
    for number in 0..count {
        let after = Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / rate.max(1);
        tokio::time::sleep_until(begin + after).await;
        let id = format!("healthy-{round}-{number}");
        let mut request = definition::request(&id, definition::CONCURRENT, 1, 2, 5);
        request.wait = Some(Wait { seconds: 10, nanos: 0 });
        let api = api.clone();
        runs.spawn(async move {
            let due = now();
            match api.start(request).await {
                Ok(saga) if saga.state() == SagaState::Succeeded => Ok(now() - due),
                Ok(saga) => Err(format!("{id} is {}", crate::api::state_name(saga.state()))),
                Err(status) => Err(format!("{id}: {status}")),
            }
        });
    }
    let (mut times, mut failures) = (Vec::new(), Vec::new());
    for run in runs.join_all().await {
        match run {
            Ok(time) => times.push(time),
            Err(failure) => failures.push(failure),
        }
    }
    (times, failures)
}
