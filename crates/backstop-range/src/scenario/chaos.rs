//! Everything goes wrong, by seed, under open load; and at the end the books, the journal and the calls
//! must agree.

use super::{list, quiet, register, tell};
use crate::bank::record::{Call, Outcome, Phase};
use crate::bank::{Bank, Manner, Script};
use crate::client::{self, Load};
use crate::cluster::Cluster;
use crate::definition::{self, PARTICIPANTS};
use crate::faults::{Fault, Faults, Kind as FaultKind};
use crate::moment::{Moment, micros, now, shown};
use crate::report::{Kind, Report};
use crate::rng::Rng;
use crate::standstill::{self, Span};
use crate::{journal, oracle};
use anyhow::{Result, bail};
use backstop_proto::v1::SagaState;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for the last saga once all is healed.
const QUIET_WITHIN: Duration = Duration::from_secs(90);
/// Lease (5 s) and two seconds: nobody may wait longer for a successor.
const STANDSTILL_MAX: Duration = Duration::from_secs(7);
/// How long after a thaw a call of an old tenure may still come out of a frozen process.
const THAW: Duration = Duration::from_secs(2);

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Chaos {
    /// How long load and faults last
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// What the faults, the transfers and the participants' moods follow from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Sagas a second
    #[arg(long, default_value_t = 200)]
    pub rate: u32,
    /// Coordinators; at least two
    #[arg(long, default_value_t = 3)]
    pub coordinators: usize,
    /// Seconds from one fault to the next
    #[arg(long, default_value_t = 5)]
    pub fault_every: u64,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on: that says nothing about Backstop.
pub async fn run(program: PathBuf, chaos: &Chaos) -> Result<Report> {
    if chaos.coordinators < 2 {
        bail!("chaos needs two coordinators at least: one stays untouched");
    }
    let mut cluster = Cluster::start(&program).await?;
    cluster.add_many(chaos.coordinators, &[]).await?;
    let bank = Bank::start(&PARTICIPANTS, moods(chaos.seed)).await?;
    let apis = register(&cluster, &bank).await?;
    let opening = bank.sum();
    let begin = now();

    let seed = chaos.seed;
    let load = Load {
        rate: chaos.rate,
        count: u64::from(chaos.rate) * chaos.seconds,
        request: Arc::new(move |number| definition::transfer(seed, number)),
    };
    let mut faults = Faults::new(seed, &cluster);
    let until = Instant::now() + Duration::from_secs(chaos.seconds);
    let every = Duration::from_secs(chaos.fault_every.max(1));
    let (outcome, ()) = tokio::join!(client::run(&load, &apis), faults.run(every, until));
    let (faults, skipped) = faults.end().await?;
    let healed = now();
    quiet(&apis, QUIET_WITHIN).await;
    let settled = now();

    let sagas = list(&apis).await?;
    let states: BTreeMap<String, SagaState> =
        sagas.iter().map(|saga| (saga.id.clone(), saga.state())).collect();
    let count = |state| states.values().filter(|other| **other == state).count();
    let calls = bank.record().all();
    let mut report = Report::new(&format!("chaos, seed {seed}, {} s at {}/s", chaos.seconds, chaos.rate));
    report.figure("accepted", outcome.accepted().count());
    report.figure("never answered", outcome.failed().count());
    report.figure("succeeded", count(SagaState::Succeeded));
    report.figure("rolled back", count(SagaState::RolledBack));
    report.figure("taken over", sagas.iter().filter(|saga| saga.epoch > 1).count());
    report.figure("start requests", outcome.started.iter().map(|started| started.tries).sum::<u32>());
    report.latency("start latency", &outcome.latency());
    report.figure(
        "faults",
        faults.iter().map(|fault| Value::from(fault_line(fault, begin))).collect::<Vec<_>>(),
    );
    report.figure("faults without a victim", skipped);
    figures_of_calls(&mut report, &calls);
    report.duration("quiet after the last fault", settled - healed);

    for started in outcome.failed().take(3) {
        let text = format!("{}: {}", started.id, started.failure.as_deref().unwrap_or_default());
        report.check(Kind::Safety, "every start is answered", false, text);
    }
    let thaws = spans(&faults, |kind| kind == FaultKind::Freeze)
        .map(|span| Span { from: span.until, until: span.until + micros(THAW) });
    let (backwards, late) = oracle::epochs(&calls, &thaws.collect::<Vec<_>>());
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
    let outages: Vec<Span> = spans(&faults, FaultKind::is_of_postgres).collect();
    let longest = standstill::longest(&journal::all(cluster.pool()).await?, &calls, &outages);
    let slow = standstills(&mut report, &longest, STANDSTILL_MAX);
    let odd = found.iter().flatten().find_map(|violation| violation.saga.clone()).or(slow);
    if let Some(odd) = odd {
        tell(&mut report, &odd, &apis, &bank).await;
    }
    Ok(report)
}

/// Reports the longest standstills; answers the saga that stood still too long.
pub(super) fn standstills(
    report: &mut Report,
    longest: &standstill::Longest,
    max: Duration,
) -> Option<String> {
    for (name, found) in [("standstill", &longest.normal), ("standstill, Postgres down", &longest.in_outage)]
    {
        let line = found.as_ref().map_or_else(
            || "none".to_owned(),
            |found| format!("{}  {} from {}", shown(found.idle), found.saga, found.between),
        );
        report.figure(name, line);
    }
    let worst = longest.normal.as_ref().filter(|worst| worst.idle > micros(max))?;
    let text = format!("{} stood still for {}, more than {max:?}", worst.saga, shown(worst.idle));
    report.check(Kind::Time, "standstill", false, text);
    Some(worst.saga.clone())
}

fn figures_of_calls(report: &mut Report, calls: &[Call]) {
    let count = |fits: fn(&Call) -> bool| calls.iter().filter(|call| fits(call)).count();
    report.figure("calls", calls.len());
    report.figure("compensations", count(|call| call.phase == Phase::Compensation));
    report.figure("duplicates by key", count(|call| call.is_duplicate));
    report.figure("answers lost", count(|call| call.outcome == Outcome::Lost));
    report.figure("calls given up by the caller", count(|call| call.outcome == Outcome::Abandoned));
}

fn spans(faults: &[Fault], fits: impl Fn(FaultKind) -> bool) -> impl Iterator<Item = Span> {
    let fitting = faults.iter().filter(move |fault| fits(fault.kind));
    fitting.map(|fault| Span { from: fault.from, until: fault.until })
}

fn fault_line(fault: &Fault, begin: Moment) -> String {
    let (from, lasted) = (shown(fault.from - begin), shown(fault.until - fault.from));
    format!("{from:>8} {:?} {} for {lasted}", fault.kind, fault.whom)
}

/// Half of the calls are answered at once and most others soon; some are slow, a few very slow, and some
/// answers are lost.
fn moods(seed: u64) -> Script {
    Arc::new(move |call| {
        let (phase, attempt) = (format!("{:?}", call.phase), call.attempt.to_string());
        // By what the call is, not by when it comes: a tenure more does not change the rest.
        let epoch = call.epoch.to_string();
        let mut rng = Rng::of(seed, &[&call.saga, &call.step, &phase, &attempt, &epoch]);
        match rng.below(1_000) {
            0..25 => Manner::BooksAfter(Duration::from_millis(50 + rng.below(400))),
            25..50 => Manner::AnswersAfter(Duration::from_millis(50 + rng.below(400))),
            50..54 => Manner::BooksAfter(Duration::from_secs(3)),
            54..58 => Manner::AnswersAfter(Duration::from_secs(3)),
            58..64 => Manner::Loses,
            64..500 => Manner::AnswersAfter(Duration::from_millis(1 + rng.below(30))),
            _ => Manner::AtOnce,
        }
    })
}
