//! A coordinator is frozen with answers in its sockets, loses its sagas, and wakes: whatever it tries then
//! reaches nobody and changes nothing. Or its wire to Postgres swallows what it writes, and gives it out once
//! another has the sagas.

use super::{CALL_TIMEOUT, prompt};
use crate::bank::{Bank, Gate, Manner};
use crate::cluster::{Cluster, Member};
use crate::definition;
use crate::moment::now;
use crate::process::eventually;
use crate::proxy::Wire;
use crate::report::{Kind, Report};
use anyhow::{Context, Result};
use backstop_proto::v1::SagaState;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Counts the appends of a coordinator that another had overtaken.
const APPENDS_LOST: &str = "backstop_appends_lost_total";
/// For holding, and for the takeover: a lease, and a lot of patience.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the one that wakes is watched.
const WATCHED: Duration = Duration::from_secs(6);
/// The held call's own time; longer than the freeze.
const HELD_TIMEOUT: Duration = Duration::from_secs(120);

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Frozen {
    /// Sagas that are held
    #[arg(long, default_value_t = 30)]
    pub sagas: u32,
    /// What holds the coordinator up
    #[arg(long, value_enum, default_value_t = How::Process)]
    pub how: How,
}

/// What holds the coordinator up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// SIGSTOP and SIGCONT: the answers lie in its sockets
    Process,
    /// A black hole before Postgres: it has the answers, and its writes come out late
    Wire,
}

async fn hold_up(member: &Member, how: How) -> Result<()> {
    match how {
        How::Process => member.coordinator.freeze().await?,
        How::Wire => member.proxy.set(Wire::BlackHole),
    }
    Ok(())
}

async fn let_go(member: &Member, how: How) -> Result<()> {
    match how {
        How::Process => member.coordinator.thaw().await?,
        How::Wire => member.proxy.set(Wire::Sound),
    }
    Ok(())
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: PathBuf, frozen: &Frozen) -> Result<Report> {
    let mut cluster = Cluster::start(&program).await?;
    cluster.add_many(2, &[]).await?;
    let [a, b] = cluster.members() else {
        anyhow::bail!("two coordinators were started");
    };
    let apis = cluster.apis()?;
    let (api_a, api_b) = (apis.first().context("A")?, apis.get(1).context("B")?);
    let bank = Bank::start(&definition::PARTICIPANTS, prompt()).await?;
    api_a.enlist(bank.endpoints(), 0).await?;
    let [mut two_steps, _] = definition::transfers(CALL_TIMEOUT);
    // The first call, risk, is the one that is held.
    if let Some(timeout) = two_steps.pointer_mut("/steps/0/action/timeout") {
        *timeout = format!("{}s", HELD_TIMEOUT.as_secs()).into();
    }
    api_a.define(two_steps).await?;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(Arc::new(move |call| match (call.step.as_str(), call.epoch) {
        ("risk", 1) => Manner::Held(held.clone()),
        _ => Manner::AtOnce,
    }));

    let ids: Vec<String> = (0..frozen.sagas).map(|number| format!("frozen-{number}")).collect();
    for id in &ids {
        api_a.start(definition::request(id, definition::CONCURRENT, 1, 2, 5)).await?;
    }
    let record = bank.record();
    let all_held = || async { Ok((record.count() >= ids.len()).then_some(())) };
    eventually("all first calls to be held", PATIENCE, all_held).await?;

    hold_up(a, frozen.how).await?;
    let frozen_at = now();
    gate.open();
    let answered = || async {
        Ok((record.count_if(|call| call.epoch == 1 && call.left.is_some()) >= ids.len()).then_some(()))
    };
    eventually("the held calls to be answered", PATIENCE, answered).await?;
    let all_over = || async {
        let states = state_of_all(api_b, &ids).await?;
        Ok(states.iter().all(|state| *state == SagaState::Succeeded).then_some(()))
    };
    eventually("B to finish all of them", PATIENCE, all_over).await?;
    let finished_at = now();
    let before = transcripts(api_b, &ids).await?;
    let arrivals = record.count();

    let_go(a, frozen.how).await?;
    tokio::time::sleep(WATCHED).await;
    let after = transcripts(api_b, &ids).await?;
    let late = record.since(arrivals);
    let tried = a.coordinator.counter(APPENDS_LOST).await?;
    let lost_by_b = b.coordinator.counter(APPENDS_LOST).await?;

    let mut report = Report::new(&format!("frozen with answers on their way, by {:?}", frozen.how));
    report.figure("sagas", ids.len());
    report.duration("B had finished all after", finished_at - frozen_at);
    report.figure("calls", record.count());
    report.figure("duplicates by key", record.count_if(|call| call.is_duplicate));
    report.figure("calls after that", late.len());
    report.figure("tried", tried);
    report.figure("appends that B lost", lost_by_b);
    for call in late.iter().take(3) {
        report.check(
            Kind::Safety,
            "nothing reaches a participant",
            false,
            format!("{} {}", call.saga, call.line(frozen_at)),
        );
    }
    for (id, transcript) in &before {
        let now = after.get(id);
        let text = || {
            format!(
                "{id}:\n{}\nnow:\n{}",
                transcript.join("\n"),
                now.map(|now| now.join("\n")).unwrap_or_default()
            )
        };
        if now != Some(transcript) {
            report.check(Kind::Safety, "no journal changes", false, text());
        }
    }
    let text = format!("{APPENDS_LOST} of A is {tried}: it never tried, so nothing was proved");
    // A race that A may win by doing right: its renewal may end the tenure before a runner writes.
    report.check(Kind::Reach, "tried", tried > 0.0, text);
    if !report.passed() {
        let id =
            late.first().map_or_else(|| ids.first().cloned().unwrap_or_default(), |call| call.saga.clone());
        super::tell(&mut report, &id, &apis, &bank).await;
        report.story([cluster.logs(30)]);
    }
    Ok(report)
}

async fn state_of_all(api: &crate::api::Api, ids: &[String]) -> Result<Vec<SagaState>> {
    let mut states = Vec::with_capacity(ids.len());
    for id in ids {
        states.push(api.get(id).await?.state());
    }
    Ok(states)
}

async fn transcripts(api: &crate::api::Api, ids: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut all = BTreeMap::new();
    for id in ids {
        all.insert(id.clone(), api.get(id).await?.transcript);
    }
    Ok(all)
}
