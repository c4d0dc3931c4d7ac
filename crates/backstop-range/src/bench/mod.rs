//! The benchmark: a real coordinator, participants that are processes of their own and answer at once, a real
//! Postgres with full durability, and the load beside them on this machine.
//!
//! # Not here
//! What tracing costs: `scenario::tracing`. Faults: `scenario::chaos`.

pub mod answer;
mod load;
mod peers;
mod shape;
mod usage;

use crate::api::Api;
use crate::coordinator::{Coordinator, Plan};
use crate::process::{Plan as ProcessPlan, Process};
use crate::report::{Kind, Report};
use anyhow::{Context, Result};
use backstop_sql::testing::Postgres;
use shape::{PARTICIPANTS, Requests, Saga, Shape};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Before anything is measured: connections, plans, caches.
const WARM: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Bench {
    /// Sagas in flight, one loop for each
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    pub in_flight: Vec<usize>,
    /// Seconds of each loop
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// How the steps hang together
    #[arg(long, value_enum, value_delimiter = ',', default_value = "concurrent")]
    pub shapes: Vec<Shape>,
    /// Where requests come from
    #[arg(long, value_enum, value_delimiter = ',', default_value = "raw")]
    pub requests: Vec<Requests>,
    /// Bytes that each request carries beside its few fields
    #[arg(long, default_value_t = 0)]
    pub filler: usize,
    /// Other orchestrators in the same run.
    #[arg(long = "peer", value_name = "PEER", help = peers::HELP)]
    pub peers: Vec<peers::Wish>,
    /// Where the peers' programs lie [default: where `cargo xtask peers` puts them]
    #[arg(long, value_name = "DIR")]
    pub peers_folder: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// If something does not come up.
pub async fn run(program: PathBuf, bench: &Bench) -> Result<Report> {
    let mut report = Report::new("Benchmark: load, participants, coordinator and database on this machine");
    let (postgres, url) = tokio::task::spawn_blocking(|| {
        let postgres = Postgres::start()?;
        let url = postgres.create_database()?;
        anyhow::Ok((postgres, url))
    })
    .await??;
    crate::cluster::migrate(&program, &url).await?;
    let range = std::env::current_exe()?;
    let mut answering = Vec::new();
    for name in PARTICIPANTS {
        let plan = ProcessPlan {
            program: range.clone(),
            arguments: vec!["answer".to_owned()],
            settings: Vec::new(),
            listener: Arc::new(|_| false),
        };
        let process = Process::new(name, plan);
        process.start().await?;
        answering.push(process);
    }
    let coordinator = Coordinator::new("A", Plan { program, store: url, settings: Vec::new() });
    coordinator.start().await?;
    let api = Api::at(coordinator.address()?)?;
    let mut endpoints = Vec::new();
    for process in &answering {
        endpoints.push((process.name().to_owned(), format!("http://{}", process.address()?)));
    }
    api.enlist(endpoints, 100_000).await?;
    let mut roots = vec![("load", vec![std::process::id()])];
    let mut pids = Vec::new();
    for process in &answering {
        pids.push(pid(process).await?);
    }
    roots.push(("participants", pids));
    roots.push(("coordinator", vec![pid(&coordinator).await?]));
    roots.push(("postgres", vec![postgres.pid().context("the postmaster")?]));
    for &shape in &bench.shapes {
        for &requests in &bench.requests {
            let saga = Saga { shape, requests, filler: bench.filler };
            api.define(saga.definition()).await?;
            let run_one = {
                let api = api.clone();
                move |id| {
                    let api = api.clone();
                    async move {
                        let ended = api.start(saga.request(id)).await;
                        ended.is_ok_and(|ended| ended.state() == saga.shape.end())
                    }
                }
            };
            load::closed(run_one.clone(), &format!("{}-warm", saga.name()), 64, WARM).await?;
            for &in_flight in &bench.in_flight {
                let before = times(&roots)?;
                let run = format!("{}-{in_flight}", saga.name());
                let ran = load::closed(run_one.clone(), &run, in_flight, Duration::from_secs(bench.seconds))
                    .await?;
                let after = times(&roots)?;
                let sagas = number(ran.ended);
                let spent: Vec<(&str, f64)> = after
                    .iter()
                    .zip(&before)
                    .map(|((name, after), (_, before))| {
                        (*name, (*after - *before).as_secs_f64() * 1e6 / sagas)
                    })
                    .collect();
                let total: f64 = spent.iter().map(|(_, spent)| spent).sum();
                let spent: Vec<String> =
                    spent.iter().map(|(name, spent)| format!("{name} {spent:.0}")).collect();
                let at = |q| number(ran.latency.value_at_quantile(q)) / 1e3;
                report.figure(
                    &run,
                    format!(
                        "{:>6.0} sagas/s  p50 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.1} ms  processor us/saga {total:.0}: {}",
                        sagas / ran.took.as_secs_f64(), at(0.5), at(0.99), at(0.999), at(1.0), spent.join(", ")
                    ),
                );
                report.check(
                    Kind::Safety,
                    "all sagas end as they should",
                    ran.failed == 0,
                    format!("{} did not", ran.failed),
                );
            }
        }
    }
    let rss = coordinator.vitals().await?.rss_kb;
    report.figure("coordinator's memory at the end", format!("{:.1} MB", number(rss) / 1024.0));
    // It would hold its timers and its connections beside the peers' loops.
    coordinator.terminate().await?;
    let mut participants = Vec::new();
    for process in &answering {
        participants.push(process.address()?);
    }
    peers::run(bench, &postgres, &participants, &roots, &mut report).await?;
    Ok(report)
}

async fn pid(process: &Process) -> Result<u32> {
    Ok(u32::try_from(process.pid().await?.as_raw_nonzero().get())?)
}

fn times(roots: &[(&'static str, Vec<u32>)]) -> Result<Vec<(&'static str, Duration)>> {
    roots
        .iter()
        .map(|(name, pids)| {
            let mut total = Duration::ZERO;
            for pid in pids {
                // The load's own children are counted on their own.
                total += if *name == "load" {
                    usage::own_time(*pid).context("schedstat")?
                } else {
                    usage::of_tree(*pid)?
                };
            }
            Ok((*name, total))
        })
        .collect()
}

fn number(count: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // counts of a bench
    let number = count as f64;
    number
}
