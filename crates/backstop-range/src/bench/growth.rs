//! What a saga costs beside very many others: ended ones in the store, and live ones that wait; and how long it takes
//! to take up those that a killed coordinator left.
//!
//! * Ended ones are planted: copies of the rows of one that really ran (`planting`), each born at its own time.
//! * Live ones are real: each has called a participant that asks to be called again in an hour, and waits in memory
//!   (`park_after` is set longer than that).
//! * Recovery: `kill -9`, and the next coordinator on the same store. It cannot begin before the dead one's lease has
//!   run out by the database's clock; so the time from the first to the last saga taken over is told apart.
//!
//! # Not here
//! Memory over time: `soak`. Time to the first answer: `startup`.

use super::backstop::Backstop;
use super::database::Counters;
use super::ground::{Ground, Store, connect};
use super::load;
use super::measure::Stage;
use super::plot::{Lines, Scale, Series, lines};
use super::result::{Cell, Row};
use super::shape::{Requests, Shape};
use super::system::System;
use super::table::{Grid, millis};
use super::waiting;
use super::{WARM, WARM_IN_FLIGHT, number, page, say};
use crate::planting::{Anew, Model};
use crate::process::eventually;
use crate::report::{Kind, Report};
use crate::vitals;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longer than any saga of ours waits: none leaves memory.
const SETTINGS: [(&str, &str); 3] = [
    ("BACKSTOP_LIMITS__PARK_AFTER", "3h"),
    ("BACKSTOP_LIMITS__PARK_MAX", "4h"),
    ("BACKSTOP_LIMITS__LIVE_SAGAS_MAX", "2000000"),
];
/// Sagas in flight while live ones are started.
const STARTING: usize = 64;
/// Longest time for a successor to have them all.
const RECOVERED_WITHIN: Duration = Duration::from_secs(900);

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Growth {
    /// Ended sagas in the store, one measurement at each; 10000000 takes half an hour and 15 GB
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    pub ended: Vec<u64>,
    /// Live sagas that wait, one measurement at each
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000,100000")]
    pub live: Vec<u64>,
    /// Unfinished sagas that a killed coordinator leaves, one recovery for each
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    pub unfinished: Vec<u64>,
    /// Sagas in flight while it is measured
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

/// All that was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Grown {
    /// Beside ended and live sagas.
    pub costs: Vec<Cost>,
    /// After a kill.
    pub recoveries: Vec<Recovery>,
}

/// What sagas cost beside others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cost {
    /// Ended sagas planted in the store.
    pub ended: u64,
    /// Live sagas that wait.
    pub live: u64,
    /// The coordinator's resident memory before the loop, in kB.
    pub resident_kb: u64,
    /// The loop.
    pub row: Row,
}

/// A successor takes over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Recovery {
    /// Ended sagas in the store.
    pub ended: u64,
    /// Sagas that it had to take.
    pub unfinished: u64,
    /// From its start to the first of them, in milliseconds: the dead one's lease is in this.
    pub first_ms: f64,
    /// From the first to the last.
    pub all_ms: f64,
}

/// A coordinator on a store, with what is in it.
struct Place<'a> {
    program: &'a Path,
    stage: Stage,
    backstop: Arc<Backstop>,
    store: String,
    pool: PgPool,
    ended: u64,
    live: u64,
    step: usize,
}

/// Runs it.
///
/// # Errors
/// If the range itself cannot go on.
pub async fn run(program: &Path, range: &Path, growth: &Growth) -> Result<Report> {
    let mut grown = Grown::default();
    let mut report = Report::new("Growth: what a saga costs beside very many others");

    // A store with nothing in it: live ones alone.
    let mut place = Place::start(program, range).await?;
    for live in merged(&growth.live, &growth.unfinished) {
        place.wait_for(live).await?;
        if growth.live.contains(&live) {
            grown.costs.push(place.cost(growth).await?);
        }
        if growth.unfinished.contains(&live) {
            grown.recoveries.push(place.recover().await?);
        }
    }
    drop(place);

    // Ended ones, and at the most of them the recoveries again.
    let mut place = Place::start(program, range).await?;
    for &ended in &growth.ended {
        place.plant(ended).await?;
        grown.costs.push(place.cost(growth).await?);
    }
    for unfinished in merged(&growth.unfinished, &[]) {
        place.wait_for(unfinished).await?;
        grown.recoveries.push(place.recover().await?);
    }

    for cost in &grown.costs {
        let text =
            format!("{} did not: {}", cost.row.failed, cost.row.failure.as_deref().unwrap_or_default());
        report.check(Kind::Safety, "all sagas end as they should", cost.row.failed == 0, text);
    }
    let grids = [costs(&grown), recoveries(&grown)];
    grids.iter().for_each(|grid| report.text(grid.text()));
    report.file("growth.json", format!("{:#}\n", serde_json::to_value(&grown)?));
    let mut body = format!("<section>{}</section>", picture(&grown));
    grids.iter().for_each(|grid| page::html_table(&mut body, grid));
    report.file("growth.html", page::document("Growth", "What a saga costs beside very many others.", &body));
    Ok(report)
}

/// All sizes of both, from the smallest on.
fn merged(some: &[u64], others: &[u64]) -> Vec<u64> {
    let mut all: Vec<u64> = some.iter().chain(others).copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

const CELL: Cell = Cell {
    store: Store::Postgres,
    shape: Shape::Concurrent,
    requests: Requests::Raw,
    filler: 0,
    in_flight: 0,
    round: 0,
};

impl<'a> Place<'a> {
    async fn start(program: &'a Path, range: &Path) -> Result<Self> {
        let ground = Ground::start(range, Store::Postgres).await?;
        let store = ground.new_store("backstop")?;
        let counters = Counters::of(&ground).await?;
        let stage = Stage { ground, counters };
        let backstop = Backstop::start_on(program, &stage.ground, store.clone(), &SETTINGS).await?;
        backstop.prepare(CELL.saga()).await?;
        backstop.api().define(waiting::definition()).await?;
        let pool = connect(&store).await?;
        let backstop = Arc::new(backstop);
        let place = Self { program, stage, backstop, store, pool, ended: 0, live: 0, step: 0 };
        place.warm().await?;
        Ok(place)
    }

    async fn warm(&self) -> Result<()> {
        let system: Arc<dyn System> = Arc::clone(&self.backstop) as _;
        let run = format!("warm-{}", crate::moment::now());
        load::closed(&system, CELL.saga(), &run, WARM_IN_FLIGHT, WARM).await.map(|_| ())
    }

    /// Plants ended sagas until there are so many.
    async fn plant(&mut self, ended: u64) -> Result<()> {
        if ended <= self.ended {
            return Ok(());
        }
        say(&format!("planting {} ended sagas", ended - self.ended));
        let id = format!("model-{ended}");
        self.backstop.run_one(CELL.saga(), id.clone()).await?;
        let model = Model::take(&self.pool, &id).await?;
        let anew = Anew { wake_at: None, apart: true };
        model.plant_more("ended-", self.ended + 1..=ended, &anew).await?;
        model.put_away().await?;
        self.ended = ended;
        Ok(())
    }

    /// Starts sagas that wait until there are so many.
    async fn wait_for(&mut self, live: u64) -> Result<()> {
        say(&format!("{live} live sagas that wait"));
        let (api, from) = (self.backstop.api().clone(), self.live);
        let count = live.saturating_sub(from);
        let started = load::times(STARTING, count, move |number| {
            let (api, id) = (api.clone(), format!("waits-{}", from + number));
            async move { Ok(api.start(waiting::request(id)).await.map(|_| ())?) }
        })
        .await?;
        anyhow::ensure!(started.failed == 0, "{}", started.failure.unwrap_or_default());
        self.live = self.live.max(live);
        self.is_live().await
    }

    /// Waits until the coordinator has all that wait.
    async fn is_live(&self) -> Result<()> {
        let look = || async {
            Ok((self.backstop.coordinator().counter("backstop_live_sagas").await? >= number(self.live))
                .then_some(()))
        };
        eventually("all live sagas in memory", RECOVERED_WITHIN, look).await
    }

    async fn cost(&mut self, growth: &Growth) -> Result<Cost> {
        self.step += 1;
        let resident_kb = vitals::of_process(self.backstop.pid())?.rss_kb;
        let cell = Cell { in_flight: growth.in_flight, round: self.step, ..CELL };
        let system: Arc<dyn System> = Arc::clone(&self.backstop) as _;
        let row = self.stage.row(&system, cell, Duration::from_secs_f64(growth.seconds)).await?;
        say(&format!("{} ended, {} live: {}", self.ended, self.live, super::table::line(&row)));
        Ok(Cost { ended: self.ended, live: self.live, resident_kb, row })
    }

    /// Kills the coordinator and starts another on its store.
    async fn recover(&mut self) -> Result<Recovery> {
        self.backstop.coordinator().kill().await?;
        let began = Instant::now();
        let next = Backstop::start_on(self.program, &self.stage.ground, self.store.clone(), &SETTINGS);
        self.backstop = Arc::new(next.await?);
        let coordinator = self.backstop.coordinator();
        let live = || async {
            Ok(Some(coordinator.counter("backstop_live_sagas").await?).filter(|live| *live >= 1.0))
        };
        eventually("the first saga to be taken over", RECOVERED_WITHIN, live).await?;
        let first = began.elapsed();
        self.is_live().await?;
        let recovery = Recovery {
            ended: self.ended,
            unfinished: self.live,
            first_ms: first.as_secs_f64() * 1e3,
            all_ms: (began.elapsed() - first).as_secs_f64() * 1e3,
        };
        say(&format!("recovered: {recovery:?}"));
        self.warm().await?;
        Ok(recovery)
    }
}

fn costs(grown: &Grown) -> Grid {
    let mut grid = Grid::new(
        "What a saga costs beside others",
        "The same loop each time. Processor in microseconds a saga, of all processes and of the coordinator; WAL without \
         page images. Resident: the coordinator before the loop; for each live saga beyond what it had with the fewest.",
        &[],
        &[
            "ended",
            "live",
            "sagas/s",
            "p50 ms",
            "p99 ms",
            "processor",
            "coordinator",
            "postgres",
            "WAL B",
            "resident MB",
            "kB/live",
            "others",
        ],
    );
    let fewest = grown.costs.iter().find(|cost| cost.live > 0);
    for cost in &grown.costs {
        let usage = &cost.row.usage;
        let spent = |name: &str| {
            usage
                .processor_us
                .iter()
                .find(|(other, _)| other == name)
                .map_or_else(String::new, |(_, us)| format!("{us:.0}"))
        };
        let database = &cost.row.database;
        let wal = database.wal_bytes.zip(database.wal_image_bytes).map(|(all, images)| all - images);
        let each =
            fewest.filter(|fewest| cost.live > fewest.live && cost.ended == fewest.ended).map(|fewest| {
                number(cost.resident_kb.saturating_sub(fewest.resident_kb)) / number(cost.live - fewest.live)
            });
        grid.rows.push(vec![
            cost.ended.to_string(),
            cost.live.to_string(),
            format!("{:.0}", cost.row.rate),
            millis(cost.row.latency.p50),
            millis(cost.row.latency.p99),
            format!("{:.0}", usage.processor_total_us()),
            spent("coordinator"),
            spent("postgres"),
            wal.map_or_else(String::new, |wal| format!("{wal:.0}")),
            format!("{:.1}", number(cost.resident_kb) / 1_024.0),
            each.map_or_else(String::new, |each| format!("{each:.2}")),
            format!("{:.1}", usage.others),
        ]);
    }
    grid
}

fn recoveries(grown: &Grown) -> Grid {
    let mut grid = Grid::new(
        "Recovery after kill -9",
        "From the start of the next coordinator to the first saga taken over (in which the dead one's lease runs out), and \
         from there to the last.",
        &[],
        &["ended", "unfinished", "first ms", "all ms", "us a saga"],
    );
    for recovery in &grown.recoveries {
        grid.rows.push(vec![
            recovery.ended.to_string(),
            recovery.unfinished.to_string(),
            format!("{:.0}", recovery.first_ms),
            format!("{:.0}", recovery.all_ms),
            format!("{:.0}", recovery.all_ms * 1e3 / number(recovery.unfinished.max(1))),
        ]);
    }
    grid
}

fn picture(grown: &Grown) -> String {
    let by = |name: &str, of: fn(&Cost) -> u64, is_one: fn(&Cost) -> bool| {
        let costs = grown.costs.iter().filter(|cost| is_one(cost));
        let points =
            costs.map(|cost| (number(of(cost)).max(1.0).log10(), cost.row.usage.processor_total_us()));
        Series { name: name.to_owned(), points: points.collect(), is_dashed: false }
    };
    lines(&Lines {
        title: "Processor time of a saga, in microseconds".to_owned(),
        marks: (1..=7).map(|power: u32| (f64::from(power), format!("10^{power}"))).collect(),
        axis: "other sagas",
        scale: Scale::Even,
        series: vec![
            by("ended in the store", |cost| cost.ended, |cost| cost.ended > 0),
            by("live and waiting", |cost| cost.live, |cost| cost.live > 0 && cost.ended == 0),
        ],
    })
}
