//! The benchmark: real coordinator, participants that are processes of their own and answer at once, a real database
//! with full durability, the load beside them on this machine, and the floor in the same run.
//!
//! What time tells depends on the machine and on what else it does meanwhile, which is told along (`others`). What is
//! compared is what one run says: of the floor, of another system. Counts (commits, bytes, memory) depend on neither.
//!
//! # Not here
//! What tracing costs: `scenario::tracing`. Faults: `scenario::chaos`.

pub mod answer;
mod backstop;
mod database;
mod floor;
mod ground;
mod journal;
mod load;
mod measure;
pub mod result;
mod shape;
mod system;
mod usage;

use crate::report::{Kind, Report};
use anyhow::Result;
use backstop::Backstop;
use database::Counters;
pub use ground::{Ground, Store};
use measure::Stage;
use result::{Cell, Results};
pub use shape::{PARTICIPANTS, Requests, Saga, Shape};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
pub use system::{Group, System, Written};

/// Before anything is measured: connections, plans, caches.
const WARM: Duration = Duration::from_secs(1);
/// Sagas in flight while warming.
const WARM_IN_FLIGHT: usize = 64;

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Bench {
    /// A short run: the shapes that matter most, two seconds for each loop
    #[arg(long, conflicts_with_all = ["full", "shapes", "requests", "filler"])]
    pub quick: bool,
    /// All shapes, requests and sizes, three rounds on each store, and ten minutes of open loop: some two hours
    #[arg(long, conflicts_with_all = ["shapes", "requests", "filler", "store"])]
    pub full: bool,
    /// Sagas in flight, one loop for each
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    pub in_flight: Vec<usize>,
    /// Seconds of each loop
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// How often each loop is run; the one in the middle is told
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// How the steps hang together
    #[arg(long, value_enum, value_delimiter = ',', default_value = "concurrent")]
    pub shapes: Vec<Shape>,
    /// Where requests come from
    #[arg(long, value_enum, value_delimiter = ',', default_value = "raw")]
    pub requests: Vec<Requests>,
    /// Bytes that each request carries beside its few fields
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub filler: Vec<usize>,
    /// Where sagas are kept
    #[arg(long, value_enum, value_delimiter = ',', default_value = "postgres")]
    pub store: Vec<Store>,
    /// Leave out the floor
    #[arg(long)]
    pub no_floor: bool,
}

/// Runs it. `range` is this program, which is the participants as well.
///
/// # Errors
/// If something does not come up.
pub async fn run(program: &Path, range: &Path, bench: &Bench) -> Result<Report> {
    let mut results = Results::default();
    for &store in &bench.store {
        on_store(program, range, bench, store, &mut results).await?;
    }
    let mut report = Report::new("Benchmark: load, participants, coordinator and database on this machine");
    for row in &results.rows {
        report.check(
            Kind::Safety,
            "all sagas end as they should",
            row.failed == 0,
            format!("{}: {} did not: {}", row.system, row.failed, row.failure.as_deref().unwrap_or_default()),
        );
        report.figure(
            &format!("{} {} x{}", row.system, row.cell.title(), row.cell.in_flight),
            format!("{:?}", row),
        );
    }
    for floor in &results.floors {
        report.figure(&floor.cell.title(), format!("{floor:?}"));
    }
    report.file("results.json", format!("{:#}\n", serde_json::to_value(&results)?));
    Ok(report)
}

/// The systems of a run, each ready on its own store.
///
/// # Errors
/// If one does not come up.
async fn systems(_ground: &Ground, backstop: Arc<Backstop>) -> Result<Vec<Arc<dyn System>>> {
    Ok(vec![backstop])
}

async fn on_store(
    program: &Path,
    range: &Path,
    bench: &Bench,
    store: Store,
    results: &mut Results,
) -> Result<()> {
    let ground = Ground::start(range, store).await?;
    let counters = Counters::of(&ground).await?;
    let stage = Stage { ground, counters };
    results.machine.extend(stage.counters.describe().await?);
    let backstop = Arc::new(Backstop::start(program, &stage.ground, &[]).await?);
    let systems = systems(&stage.ground, Arc::clone(&backstop)).await?;
    for system in &systems {
        results.settings.push((format!("{} on {}", system.name(), store.name()), system.settings()));
    }
    let calls = floor::Calls::connect(&stage.ground).await?;
    let journal = floor::Journal::start(&stage.ground).await?;
    let time = Duration::from_secs_f64(bench.seconds);
    for kind in bench.kinds(store) {
        let mut able = Vec::new();
        for system in &systems {
            if system.prepare(kind.saga()).await? {
                load::closed(
                    system,
                    kind.saga(),
                    &format!("{}-warm", kind.saga().name()),
                    WARM_IN_FLIGHT,
                    WARM,
                )
                .await?;
                able.push(system);
            }
        }
        let sample = measure::sample(&backstop, &kind).await?;
        for &in_flight in &bench.in_flight {
            for round in 0..bench.rounds {
                let cell = Cell { in_flight, round, ..kind };
                let floor = if bench.no_floor {
                    None
                } else {
                    Some(stage.floor((&calls, &journal), cell, &sample, time / 2).await?)
                };
                for system in &able {
                    let mut row = stage.row(system, cell, time).await?;
                    row.of_floor = floor.as_ref().map(|floor| row.rate / floor.rate);
                    results.rows.push(row);
                }
                results.floors.extend(floor);
            }
        }
    }
    Ok(())
}

impl Bench {
    /// Every kind of saga, with nothing in flight yet.
    fn kinds(&self, store: Store) -> Vec<Cell> {
        let mut kinds = Vec::new();
        for &shape in &self.shapes {
            for &requests in &self.requests {
                for &filler in &self.filler {
                    kinds.push(Cell { store, shape, requests, filler, in_flight: 0, round: 0 });
                }
            }
        }
        kinds
    }
}

/// A count as a number to divide with.
fn number(count: impl TryInto<u64>) -> f64 {
    #[allow(clippy::cast_precision_loss)] // counts of a bench
    let number = count.try_into().unwrap_or(u64::MAX) as f64;
    number
}
