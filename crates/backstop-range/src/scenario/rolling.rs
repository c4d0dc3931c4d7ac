//! Every coordinator is restarted in order under load: no start fails, no saga waits.

use super::chaos::standstills;
use super::{list, prompt, quiet, register, tell};
use crate::bank::Bank;
use crate::client::{self, Load};
use crate::cluster::Cluster;
use crate::definition::{self, PARTICIPANTS};
use crate::moment::{Moment, micros, now, shown};
use crate::report::{Kind, Report};
use crate::standstill::{self, Span};
use crate::{journal, oracle};
use anyhow::Result;
use backstop_proto::v1::SagaState;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the last saga.
const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// Before the first restart, between two, and after the last.
const PAUSE: Duration = Duration::from_secs(3);
/// A planned restart may cost a saga this much.
const STANDSTILL_MAX: Duration = Duration::from_secs(1);

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Rolling {
    /// Sagas a second
    #[arg(long, default_value_t = 200)]
    pub rate: u32,
    /// Coordinators
    #[arg(long, default_value_t = 3)]
    pub coordinators: usize,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: PathBuf, rolling: &Rolling) -> Result<Report> {
    let mut cluster = Cluster::start(&program).await?;
    cluster.add_many(rolling.coordinators, &[]).await?;
    let bank = Bank::start(&PARTICIPANTS, prompt()).await?;
    let apis = register(&cluster, &bank).await?;
    let opening = bank.sum();
    let begin = now();

    // Long enough for the pauses and for restarts of a second or two each.
    let seconds = (rolling.coordinators as u64) * 5 + 2 * PAUSE.as_secs();
    let load = Load {
        rate: rolling.rate,
        count: u64::from(rolling.rate) * seconds,
        request: Arc::new(move |number| definition::transfer(0, number)),
    };
    let (outcome, restarts) = tokio::join!(client::run(&load, &apis), restarts(&cluster, begin));
    let (restarts, all_ended_well) = restarts?;
    quiet(&apis, QUIET_WITHIN).await;

    let states: BTreeMap<String, SagaState> =
        list(&apis).await?.into_iter().map(|saga| (saga.id.clone(), saga.state())).collect();
    let calls = bank.record().all();
    let journals = journal::all(cluster.pool()).await?;
    let mut report =
        Report::new(&format!("rolling restart of {} at {}/s", rolling.coordinators, rolling.rate));
    report.figure("accepted", outcome.accepted().count());
    report.figure("starts failed", outcome.failed().count());
    report.figure("start requests", outcome.started.iter().map(|started| started.tries).sum::<u32>());
    report.figure("restarts", restarts);
    report.latency("start latency", &outcome.latency());
    report.latency("saga, less participants' time", &client::histogram(delays(&outcome, &journals, &calls)));
    report.figure("duplicates by key", calls.iter().filter(|call| call.is_duplicate).count());

    report.check(Kind::Safety, "a drain is a good end", all_ended_well, "a coordinator ended with an error");
    for (started, failure) in outcome.failed().take(3) {
        let text = format!("{}: {}", started.id, failure.text);
        report.check(failure.kind(), "no start fails", false, text);
    }
    let (backwards, late) = oracle::epochs(&calls, |_| false);
    report.figure("late calls", late);
    let found = [
        oracle::all_ended(outcome.accepted().map(|started| started.id.as_str()), &states),
        oracle::one_key_one_request(&calls),
        backwards,
        oracle::money(opening, bank.sum()),
        oracle::effects(&states, |saga, step| bank.standing(saga, step)),
    ];
    for found in &found {
        report.violations(found);
    }
    let longest = standstill::longest(&standstill::at_least(1, &journals, &calls), |_| false);
    let slow = standstills(&mut report, &longest, STANDSTILL_MAX);
    let odd = found.iter().flatten().find_map(|violation| violation.saga.clone()).or(slow);
    if let Some(odd) = odd {
        tell(&mut report, &odd, &apis, &bank).await;
    }
    Ok(report)
}

/// Each in turn; answers when each was away, and whether all ended well.
async fn restarts(cluster: &Cluster, begin: Moment) -> Result<(Vec<Value>, bool)> {
    let (mut lines, mut all_ended_well) = (Vec::new(), true);
    for member in cluster.members() {
        tokio::time::sleep(PAUSE).await;
        let from = now();
        all_ended_well &= member.coordinator.terminate().await?;
        let ended = now();
        member.coordinator.start().await?;
        let line = format!(
            "{:>8} {} drained in {}, back after {}",
            shown(from - begin),
            member.coordinator.name(),
            shown(ended - from),
            shown(now() - from)
        );
        lines.push(Value::from(line));
    }
    Ok((lines, all_ended_well))
}

/// From due to the end of each saga, less the time at participants.
fn delays(
    outcome: &client::Outcome,
    journals: &BTreeMap<String, Vec<journal::Event>>,
    calls: &[crate::call::Call],
) -> impl Iterator<Item = i64> {
    let mut by_saga: HashMap<&str, Vec<&crate::call::Call>> = HashMap::new();
    for call in calls {
        by_saga.entry(&call.saga).or_default().push(call);
    }
    outcome
        .accepted()
        .filter_map(move |started| {
            let end = journals.get(&started.id)?.last()?.at;
            let out = by_saga.remove(started.id.as_str()).unwrap_or_default();
            let whole = Span { from: started.due, until: end.max(started.due + micros(Duration::ZERO)) };
            Some(whole.until - whole.from - standstill::time_out(out.into_iter(), whole))
        })
        .collect::<Vec<_>>()
        .into_iter()
}
