//! What a run measured. The tables, the page and every later comparison are made of this alone; it is what
//! `results.json` holds.

use super::ground::Store;
use super::shape::{Requests, Saga, Shape};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Results {
    /// What it ran on.
    pub machine: Vec<String>,
    /// How each system was run.
    pub settings: Vec<(String, Vec<String>)>,
    /// Closed loops.
    pub rows: Vec<Row>,
    /// The floor beside them.
    pub floors: Vec<Floor>,
    /// Open loops.
    pub open: Vec<Open>,
    /// Each system, and what its own books say otherwise than was counted; nothing if they agree, or if it has none.
    #[serde(default)]
    pub books: Vec<(String, Option<String>)>,
}

/// One kind of saga under one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Where sagas are kept.
    pub store: Store,
    /// How the steps hang together.
    pub shape: Shape,
    /// Where requests come from.
    pub requests: Requests,
    /// Bytes that each request carries beside its few fields.
    pub filler: usize,
    /// Sagas in flight.
    pub in_flight: usize,
    /// Which time, from 0.
    pub round: usize,
}

/// A closed loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Whose.
    pub system: String,
    /// Of what.
    pub cell: Cell,
    /// Sagas that ended as they should.
    pub ended: u64,
    /// Sagas that did not.
    pub failed: u64,
    /// What was said of one of them.
    pub failure: Option<String>,
    /// Sagas a second.
    pub rate: f64,
    /// Calls to participants a second.
    pub calls_rate: f64,
    /// From start to end.
    pub latency: Quantiles,
    /// The same but for the time in which a call was out.
    pub overhead: Option<Quantiles>,
    /// What it took.
    pub usage: Usage,
    /// What it did to the database.
    pub database: Database,
    /// What the system's journal says of itself.
    pub journal: Option<Batches>,
    /// Its rate as a share of the floor's.
    pub of_floor: Option<f64>,
}

/// The same calls without a coordinator, and the same bytes without a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Floor {
    /// Of what.
    pub cell: Cell,
    /// The calls of a saga.
    pub calls: Part,
    /// The appends of a saga.
    pub journal: Part,
    /// Sagas a second if both share the processors: 1 / (1 / calls + 1 / journal).
    pub rate: f64,
    /// One after the other: the sum of both medians, in microseconds.
    pub latency_p50_us: u64,
}

/// One half of the floor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// Sagas' worth of it a second.
    pub rate: f64,
    /// Of one saga's worth.
    pub latency: Quantiles,
    /// What it took.
    pub usage: Usage,
    /// What it did to the database.
    pub database: Database,
}

/// An open loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Open {
    /// Whose.
    pub system: String,
    /// Of what; in flight is what it came to at most.
    pub cell: Cell,
    /// Sagas that were due each second.
    pub rate: f64,
    /// The rate as a share of the highest that a closed loop of this run reached.
    pub share_of_peak: Option<f64>,
    /// For so long.
    pub seconds: f64,
    /// Sagas that ended as they should.
    pub ended: u64,
    /// Sagas that did not.
    pub failed: u64,
    /// What was said of one of them.
    pub failure: Option<String>,
    /// From when it was due to its end.
    pub latency: Quantiles,
    /// The same but for the time in which a call was out.
    pub overhead: Option<Quantiles>,
    /// How late the load itself was: from when a saga was due to when it was sent.
    pub lateness: Quantiles,
    /// A write of 4 KiB and its flush on the same disk, meanwhile.
    pub flush: Quantiles,
    /// What it took.
    pub usage: Usage,
    /// What it did to the database.
    pub database: Database,
}

/// Of a distribution, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Values.
    pub count: u64,
    /// Half are at most this.
    pub p50: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// 99.99 %.
    pub p9999: u64,
    /// All.
    pub max: u64,
    /// Share, and what it is at most: for a curve.
    pub curve: Vec<(f64, u64)>,
}

/// What processes used. Each by the name of its group.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Microseconds of processor time for each saga, which is CPU-seconds for a million, or milliseconds for 1,000.
    pub processor_us: Vec<(String, f64)>,
    /// Most resident memory, in kB. Memory that processes of a group share counts once for each.
    pub memory_peak_kb: Vec<(String, u64)>,
    /// Bytes handed to the disk for each saga, as the kernel counts them.
    pub disk_bytes: Vec<(String, f64)>,
    /// Processors that others kept busy meanwhile: what figures of time are to be mistrusted by.
    pub others: f64,
}

/// For each saga; none where nobody tells.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Database {
    /// Commits in the write-ahead log.
    pub commits: Option<f64>,
    /// Statements of all sessions.
    pub statements: Option<f64>,
    /// Bytes of write-ahead log.
    pub wal_bytes: Option<f64>,
    /// Those of them that are images of pages touched for the first time since the checkpoint before the loop.
    pub wal_image_bytes: Option<f64>,
    /// Flushes of it.
    pub flushes: Option<f64>,
}

/// How a journal was written.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Batches {
    /// Writes for each saga; with one in flight these are the commits that it waits for.
    pub writes_per_saga: f64,
    /// Events for each saga.
    pub events_per_saga: f64,
    /// Events in one write.
    pub events_per_write: f64,
}

/// The rounds of one closed loop as one.
#[derive(Debug, Clone, Copy)]
pub struct Middle<'a> {
    /// The one in the middle by its rate.
    pub row: &'a Row,
    /// The lowest rate of them.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
    /// The rate as a share of the floor's: in each round against the floor of that round, then the middle.
    pub of_floor: Option<f64>,
    /// The median time over the floor's, likewise.
    pub of_floor_p50: Option<f64>,
}

/// The one in the middle; none of none.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Cell {
    /// Its kind of saga.
    #[must_use]
    pub fn saga(&self) -> Saga {
        Saga { shape: self.shape, requests: self.requests, filler: self.filler }
    }

    /// The same kind of saga on the same store.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.store == other.store && self.saga() == other.saga()
    }

    /// `concurrent, raw, 4096 bytes, postgres`.
    #[must_use]
    pub fn title(&self) -> String {
        let filler = if self.filler == 0 { String::new() } else { format!(", {} bytes", self.filler) };
        format!("{}, {}{filler}, {}", self.shape.title(), self.requests.title(), self.store.name())
    }
}

impl Quantiles {
    /// Of a histogram of microseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let mut curve = Vec::new();
        let mut left = 1.0;
        // Ten points for each nine, up to where one value is left.
        while left > 1.0 / super::number(histogram.len().max(1)) / 2.0 {
            curve.push((1.0 - left, at(1.0 - left)));
            left /= 10_f64.powf(0.1);
        }
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
            curve,
        }
    }
}

impl Usage {
    /// All processor time together, for each saga.
    #[must_use]
    pub fn processor_total_us(&self) -> f64 {
        self.processor_us.iter().map(|(_, spent)| spent).sum()
    }
}

impl Results {
    /// Each closed loop in the order in which they ran, its rounds as one.
    #[must_use]
    pub fn middle(&self) -> Vec<Middle<'_>> {
        let firsts = self.rows.iter().filter(|row| row.cell.round == 0);
        firsts.filter_map(|first| self.rounds_of(first)).collect()
    }

    fn rounds_of(&self, first: &Row) -> Option<Middle<'_>> {
        let is_round = |row: &&Row| row.system == first.system && Cell { round: 0, ..row.cell } == first.cell;
        let mut rounds: Vec<&Row> = self.rows.iter().filter(is_round).collect();
        rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let alone = |row: &&Row| {
            let floor = self.floor(row)?.latency_p50_us.max(1);
            Some(super::number(row.latency.p50) / super::number(floor))
        };
        Some(Middle {
            row: rounds.get(rounds.len() / 2)?,
            lowest: rounds.first()?.rate,
            highest: rounds.last()?.rate,
            of_floor: median(rounds.iter().filter_map(|row| row.of_floor)),
            of_floor_p50: median(rounds.iter().filter_map(alone)),
        })
    }

    /// The floor of a row, measured beside it.
    #[must_use]
    pub fn floor(&self, row: &Row) -> Option<&Floor> {
        self.floors.iter().find(|floor| floor.cell == row.cell)
    }

    /// The highest rate that a system reached with a kind of saga.
    #[must_use]
    pub fn peak(&self, system: &str, cell: &Cell) -> Option<f64> {
        self.rows
            .iter()
            .filter(|row| row.system == system && row.cell.is_like(cell))
            .map(|row| row.rate)
            .max_by(f64::total_cmp)
    }
}
