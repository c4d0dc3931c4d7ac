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
mod disk;
mod floor;
mod ground;
pub mod growth;
mod journal;
pub(crate) mod load;
mod measure;
mod open;
mod page;
mod peers;
mod plot;
pub mod result;
mod shape;
pub mod soak;
pub mod startup;
mod system;
mod table;
mod usage;
mod waiting;

use crate::report::{Kind, Report};
use anyhow::Result;
use backstop::Backstop;
use database::Counters;
pub use ground::{Ground, Store};
use measure::Stage;
use result::{Cell, Results};
pub use shape::{PARTICIPANTS, Requests, Saga, Shape};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
pub use system::{Group, System, Written};

/// The system that the others are compared with.
const OURS: &str = "backstop";
/// Before anything is measured: connections, plans, caches.
const WARM: Duration = Duration::from_secs(1);
/// Sagas in flight while warming.
const WARM_IN_FLIGHT: usize = 64;

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Bench {
    /// A short run: what matters most, two seconds for each loop; some three minutes
    #[arg(long, conflicts_with_all = ["full", "shapes", "requests", "filler"])]
    pub quick: bool,
    /// All there is: each kind of saga on both stores, three rounds, ten minutes of open loop on each; over an hour
    #[arg(long, conflicts_with_all = ["shapes", "requests", "filler", "store", "in_flight", "rounds", "open"])]
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
    /// An open loop at this share of the highest rate that a closed loop reached, with the first kind of saga
    #[arg(long, value_name = "SHARE", value_delimiter = ',')]
    pub open: Vec<f64>,
    /// An open loop at so many sagas a second
    #[arg(long, value_name = "RATE", value_delimiter = ',')]
    pub open_rate: Vec<f64>,
    /// Minutes of each open loop
    #[arg(long, default_value_t = 1.0)]
    pub minutes: f64,
    /// A setting of the coordinator beside those that it has by itself
    #[arg(long = "setting", value_name = "BACKSTOP_NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Other orchestrators in the same run.
    #[arg(long = "peer", value_name = "PEER", help = peers::HELP)]
    pub peers: Vec<peers::Wish>,
    /// Where the peers' programs lie [default: where `cargo xtask peers` puts them]
    #[arg(long, value_name = "DIR")]
    pub peers_folder: Option<PathBuf>,
}

/// Runs it. `range` is this program, which is the participants as well.
///
/// # Errors
/// If something does not come up.
pub async fn run(program: &Path, range: &Path, bench: &Bench) -> Result<Report> {
    let bench = bench.settled();
    let mut results = Results { machine: machine()?, ..Results::default() };
    for &store in &bench.store {
        on_store(program, range, &bench, store, &mut results).await?;
    }
    report(&results)
}

/// The results as they are told.
fn report(results: &Results) -> Result<Report> {
    let mut report = Report::new("Benchmark: load, participants, coordinator and database on this machine");
    for line in &results.machine {
        report.text(format!("  {line}\n"));
    }
    for (system, settings) in &results.settings {
        report.text(format!("  {system}: {}\n", settings.join("; ")));
    }
    table::all(results).iter().for_each(|grid| report.text(grid.text()));
    let rows = results.rows.iter().map(|row| (&row.system, row.failed, &row.failure));
    for (system, failed, failure) in
        rows.chain(results.open.iter().map(|open| (&open.system, open.failed, &open.failure)))
    {
        let text = format!("{system}: {failed} did not: {}", failure.as_deref().unwrap_or_default());
        report.check(Kind::Safety, "all sagas end as they should", failed == 0, text);
    }
    for (system, wrong) in &results.books {
        let text = format!("{system}: {}", wrong.as_deref().unwrap_or("they agree"));
        report.check(Kind::Safety, "a system's own books say what was counted", wrong.is_none(), text);
    }
    report.file("results.json", format!("{:#}\n", serde_json::to_value(results)?));
    report.file("bench.html", page::page(results));
    Ok(report)
}

/// The machine, in a few words.
fn machine() -> Result<Vec<String>> {
    let cores = std::thread::available_parallelism()?;
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(vec![format!("{cores} processors, {}, Linux {}", model.unwrap_or("unknown"), kernel.trim())])
}

/// The systems of a run, each ready on its own store.
///
/// # Errors
/// If one does not come up.
async fn systems(bench: &Bench, ground: &Ground, backstop: Arc<Backstop>) -> Result<Vec<Arc<dyn System>>> {
    let mut systems: Vec<Arc<dyn System>> = vec![backstop];
    systems.extend(peers::start(&bench.peers, bench.peers_folder.as_deref(), ground).await?);
    Ok(systems)
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
    let settings: Vec<(&str, &str)> =
        bench.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let backstop = Arc::new(Backstop::start(program, &stage.ground, &settings).await?);
    let systems = systems(bench, &stage.ground, Arc::clone(&backstop)).await?;
    for system in &systems {
        results.settings.push((format!("{} on {}", system.name(), store.name()), system.settings()));
    }
    let calls = floor::Calls::connect(&stage.ground).await?;
    let journal = floor::Journal::start(&stage.ground).await?;
    for kind in bench.kinds(store) {
        let mut able = Vec::new();
        for system in &systems {
            if system.prepare(kind.saga()).await? {
                let run = format!("{}-warm", kind.saga().name());
                load::closed(system, kind.saga(), &run, WARM_IN_FLIGHT, WARM).await?;
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
                    Some(stage.floor((&calls, &journal), cell, &sample, bench.time() / 2).await?)
                };
                for system in &able {
                    let mut row = stage.row(system, cell, bench.time()).await?;
                    row.of_floor = floor.as_ref().map(|floor| row.rate / floor.rate);
                    say(&table::line(&row));
                    results.rows.push(row);
                }
                results.floors.extend(floor);
            }
        }
    }
    let Some(first) = bench.kinds(store).into_iter().next() else { return Ok(()) };
    for system in &systems {
        let peak = results.peak(system.name(), &first);
        let shares = bench.open.iter().filter_map(|share| Some((share * peak?, Some(*share))));
        for load in shares.chain(bench.open_rate.iter().map(|rate| (*rate, None))) {
            say(&format!(
                "{}: open loop at {:.0} sagas/s for {} minutes",
                system.name(),
                load.0,
                bench.minutes
            ));
            let time = Duration::from_secs_f64(bench.minutes * 60.0);
            results.open.push(stage.open(system, first, load, time).await?);
        }
    }
    for system in &systems {
        let name = format!("{} on {}", system.name(), store.name());
        results.books.push((name, system.settle().await.err().map(|error| format!("{error:#}"))));
    }
    Ok(())
}

/// `BACKSTOP_JOURNAL__QUEUE_MAX=1`.
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is BACKSTOP_NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A word on the way: a run is long.
fn say(line: &str) {
    use std::io::Write;
    // Whoever does not want to hear it has closed it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Bench {
    /// With what `--quick` and `--full` stand for.
    fn settled(&self) -> Self {
        let mut bench = self.clone();
        if self.quick {
            bench.seconds = bench.seconds.min(2.0);
            bench.minutes = bench.minutes.min(0.2);
            if bench.open.is_empty() {
                bench.open = vec![0.33];
            }
        }
        if self.full {
            bench.in_flight = vec![1, 16, 64, 256, 1_024];
            bench.rounds = 3;
            bench.store = vec![Store::Postgres, Store::Sqlite];
            bench.open = vec![0.33];
            bench.minutes = 10.0;
        }
        bench
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Every kind of saga, with nothing in flight yet.
    fn kinds(&self, store: Store) -> Vec<Cell> {
        let cell = |shape, requests, filler| Cell { store, shape, requests, filler, in_flight: 0, round: 0 };
        if self.full || self.quick {
            let mut kinds = vec![
                cell(Shape::Concurrent, Requests::Raw, 0),
                cell(Shape::Concurrent, Requests::Typed, 0),
                cell(Shape::Sequential, Requests::Raw, 0),
                cell(Shape::RolledBack, Requests::Raw, 0),
            ];
            if self.full {
                kinds.push(cell(Shape::Diamond, Requests::Raw, 0));
                kinds.push(cell(Shape::Concurrent, Requests::Raw, 4_096));
                kinds.push(cell(Shape::Concurrent, Requests::Typed, 4_096));
            }
            return kinds;
        }
        let mut kinds = Vec::new();
        for &shape in &self.shapes {
            for &requests in &self.requests {
                kinds.extend(self.filler.iter().map(|&filler| cell(shape, requests, filler)));
            }
        }
        kinds
    }
}

/// A count as a number to divide with.
pub(crate) fn number(count: impl TryInto<u64>) -> f64 {
    #[allow(clippy::cast_precision_loss)] // counts of a bench
    let number = count.try_into().unwrap_or(u64::MAX) as f64;
    number
}
