//! The results as tables, for the terminal and for the page.

use super::result::{Batches, Cell, Database, Middle, Quantiles, Results, Row, Usage};

/// A table. Its first columns are words, the others are figures.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    /// What it shows.
    pub(super) title: &'static str,
    /// How to read it.
    pub(super) note: &'static str,
    /// Columns of words.
    pub(super) words: usize,
    /// Its columns.
    pub(super) columns: Vec<String>,
    /// Its rows.
    pub(super) rows: Vec<Vec<String>>,
}

impl Grid {
    pub(super) fn new(title: &'static str, note: &'static str, words: &[&str], figures: &[&str]) -> Self {
        let columns = words.iter().chain(figures).map(|column| (*column).to_owned()).collect();
        Self { title, note, words: words.len(), columns, rows: Vec::new() }
    }

    /// For a terminal; nothing if there are no rows.
    #[must_use]
    pub(super) fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| {
            lines()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = format!("\n  {}\n", self.title);
        for line in lines() {
            let cells = line.iter().zip(&widths).enumerate().map(|(place, (cell, &width))| {
                if place < self.words { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            text.push_str(&format!("    {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
        }
        text
    }
}

/// All of them, in the order in which they are read.
#[must_use]
pub(super) fn all(results: &Results) -> Vec<Grid> {
    vec![closed(results), cost(results), floors(results), open(results)]
}

fn closed(results: &Results) -> Grid {
    let mut grid = Grid::new(
        "Closed loop",
        "Times in milliseconds. Of several rounds the one in the middle by its rate, and the slowest and the quickest \
         rate. Overhead is what is left of a saga's time without that in which a call of it was out. Backstop's rate \
         over another's stands under ‘times’. What is compared with the floor is compared in each round, with the floor of \
         that round; with one in flight the median time over the floor's counts, with many the share of its rate.",
        &["system", "sagas"],
        &[
            "in flight",
            "sagas/s",
            "rounds",
            "calls/s",
            "of floor",
            "p50 of floor",
            "times",
            "p50",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "overhead p50",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "failed",
        ],
    );
    let middle = results.middle();
    for rounds in &middle {
        let row = rounds.row;
        let ours = middle
            .iter()
            .map(|other| other.row)
            .find(|other| other.system == super::OURS && at_round(other.cell, 0) == at_round(row.cell, 0));
        let times = ours.filter(|_| row.system != super::OURS).map(|ours| ours.rate / row.rate);
        let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let mut cells = vec![
            row.system.clone(),
            row.cell.title(),
            row.cell.in_flight.to_string(),
            format!("{:.0}", row.rate),
            format!("{:.0}–{:.0}", rounds.lowest, rounds.highest),
            format!("{:.0}", row.calls_rate),
            ratio(rounds.of_floor),
            ratio(rounds.of_floor_p50),
            ratio(times),
        ];
        cells.extend(quantiles(Some(&row.latency)));
        cells.extend(quantiles(row.overhead.as_ref()));
        cells.push(row.failed.to_string());
        grid.rows.push(cells);
    }
    grid
}

fn at_round(cell: Cell, round: usize) -> Cell {
    Cell { round, ..cell }
}

fn cost(results: &Results) -> Grid {
    let mut grid = Grid::new(
        "What a saga costs",
        "Processor in microseconds a saga, which is milliseconds for 1,000: of all processes together, then of each. \
         Writes are the journal's: with one in flight, the commits that a saga waits for. WAL without the images of \
         pages that were touched for the first time after the checkpoint before the loop. Memory is the most that was \
         resident, in MB; processes of Postgres share a part, which counts once for each. Others: processors that \
         something else kept busy meanwhile.",
        &["system", "sagas"],
        &[
            "in flight",
            "processor",
            "load",
            "participants",
            "postgres",
            "system",
            "commits",
            "statements",
            "flushes",
            "WAL B",
            "images B",
            "writes",
            "events/write",
            "disk B",
            "system MB",
            "postgres MB",
            "others",
        ],
    );
    for Middle { row, .. } in results.middle() {
        let mut cells = vec![row.system.clone(), row.cell.title(), row.cell.in_flight.to_string()];
        cells.extend(processor(&row.usage));
        cells.extend(database(&row.database));
        cells.extend(batches(row.journal.as_ref()));
        cells.push(format!("{:.0}", row.usage.disk_bytes.iter().map(|(_, bytes)| bytes).sum::<f64>()));
        cells.extend(memory(&row.usage));
        cells.push(format!("{:.1}", row.usage.others));
        grid.rows.push(cells);
    }
    grid
}

/// The groups that every run has; the others are the system's own.
const GROUND: [&str; 3] = ["load", "participants", "postgres"];

/// In all, of each of the ground's groups, and of the system.
fn processor(usage: &Usage) -> Vec<String> {
    let of = |name: &str| usage.processor_us.iter().find(|(other, _)| other == name).map(|(_, spent)| *spent);
    // Not `sum`: that of nothing is -0, and what somebody else has started has no processes of ours.
    let system: f64 = own(&usage.processor_us).fold(0.0, |sum, spent| sum + spent);
    let mut cells = vec![format!("{:.0}", usage.processor_total_us())];
    cells.extend(GROUND.map(|name| of(name).map_or_else(String::new, |spent| format!("{spent:.0}"))));
    cells.push(format!("{system:.0}"));
    cells
}

fn own<T: Copy>(shares: &[(String, T)]) -> impl Iterator<Item = T> {
    shares.iter().filter(|(name, _)| !GROUND.contains(&name.as_str())).map(|(_, value)| *value)
}

fn memory(usage: &Usage) -> [String; 2] {
    let megabytes = |kb: u64| format!("{:.1}", super::number(kb) / 1_024.0);
    let postgres = usage.memory_peak_kb.iter().find(|(name, _)| name == "postgres");
    [megabytes(own(&usage.memory_peak_kb).sum()), postgres.map_or_else(String::new, |(_, kb)| megabytes(*kb))]
}

fn database(database: &Database) -> [String; 5] {
    let exact = |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.2}"));
    let bytes = |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.0}"));
    let plain = database.wal_bytes.zip(database.wal_image_bytes).map(|(all, images)| all - images);
    [
        exact(database.commits),
        exact(database.statements),
        exact(database.flushes),
        bytes(plain.or(database.wal_bytes)),
        bytes(database.wal_image_bytes),
    ]
}

fn batches(batches: Option<&Batches>) -> [String; 2] {
    batches.map_or_else(Default::default, |batches| {
        [format!("{:.2}", batches.writes_per_saga), format!("{:.1}", batches.events_per_write)]
    })
}

fn floors(results: &Results) -> Grid {
    let mut grid = Grid::new(
        "The floor",
        "The same calls without a coordinator, and the same bytes appended with group commit and without a call. Both \
         need the same processors: the floor is 1 / (1 / calls + 1 / journal). Alone: the medians of both, one after \
         the other, in milliseconds.",
        &["sagas"],
        &[
            "in flight",
            "round",
            "floor sagas/s",
            "calls only",
            "p50",
            "p99",
            "processor",
            "journal only",
            "p50",
            "p99",
            "processor",
            "WAL B",
            "alone p50",
            "others",
        ],
    );
    for floor in &results.floors {
        let (calls, journal) = (&floor.calls, &floor.journal);
        let database = database(&journal.database);
        grid.rows.push(vec![
            floor.cell.title(),
            floor.cell.in_flight.to_string(),
            floor.cell.round.to_string(),
            format!("{:.0}", floor.rate),
            format!("{:.0}", calls.rate),
            millis(calls.latency.p50),
            millis(calls.latency.p99),
            format!("{:.0}", calls.usage.processor_total_us()),
            format!("{:.0}", journal.rate),
            millis(journal.latency.p50),
            millis(journal.latency.p99),
            format!("{:.0}", journal.usage.processor_total_us()),
            database.into_iter().nth(3).unwrap_or_default(),
            millis(floor.latency_p50_us),
            format!("{:.1}", calls.usage.others.max(journal.usage.others)),
        ]);
    }
    grid
}

fn open(results: &Results) -> Grid {
    let mut grid = Grid::new(
        "Open loop",
        "Sagas are due by the clock; each one's time counts from when it was due. Times in milliseconds. Late: from due \
         to sent, which is the load's own. Flush: 4 KiB written in place and flushed on the same disk every 100 ms \
         meanwhile.",
        &["system", "sagas", "what"],
        &[
            "sagas/s", "of peak", "seconds", "count", "p50", "p99", "p99.9", "p99.99", "max", "failed",
            "others",
        ],
    );
    for open in &results.open {
        let share = open.share_of_peak.map_or_else(String::new, |share| format!("{share:.2}"));
        let whats = [
            ("latency", Some(&open.latency)),
            ("overhead", open.overhead.as_ref()),
            ("late", Some(&open.lateness)),
            ("flush", Some(&open.flush)),
        ];
        for (what, values) in whats {
            let Some(values) = values else { continue };
            let mut cells = vec![open.system.clone(), open.cell.title(), what.to_owned()];
            cells.extend([format!("{:.0}", open.rate), share.clone(), format!("{:.0}", open.seconds)]);
            cells.push(values.count.to_string());
            cells.extend(quantiles(Some(values)));
            cells.extend([open.failed.to_string(), format!("{:.1}", open.usage.others)]);
            grid.rows.push(cells);
        }
    }
    grid
}

fn quantiles(quantiles: Option<&Quantiles>) -> [String; 5] {
    quantiles.map_or_else(Default::default, |q| [q.p50, q.p99, q.p999, q.p9999, q.max].map(millis))
}

/// `0.123`, `12.3`, `1234`.
pub(super) fn millis(micros: u64) -> String {
    let millis = super::number(micros) / 1e3;
    match micros {
        0..10_000 => format!("{millis:.2}"),
        10_000..1_000_000 => format!("{millis:.1}"),
        _ => format!("{millis:.0}"),
    }
}

/// One line of a row, for a log that is read while the run goes on.
#[must_use]
pub(super) fn line(row: &Row) -> String {
    format!(
        "{} {} x{} round {}: {:.0} sagas/s, {} of the floor, p50 {} p99 {} ms, processor {:.0} us, others {:.1}",
        row.system,
        row.cell.title(),
        row.cell.in_flight,
        row.cell.round,
        row.rate,
        row.of_floor.map_or_else(|| "n/a".to_owned(), |share| format!("{share:.2}")),
        millis(row.latency.p50),
        millis(row.latency.p99),
        row.usage.processor_total_us(),
        row.usage.others,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_figures_right() {
        let mut grid = Grid::new("Things", "", &["thing"], &["a", "b"]);
        assert_eq!(grid.text(), "");
        grid.rows.push(["one", "1", "22"].map(str::to_owned).to_vec());
        grid.rows.push(["another", "10.5", "3"].map(str::to_owned).to_vec());
        assert_eq!(
            grid.text(),
            "\n  Things\n    thing       a   b\n    one         1  22\n    another  10.5   3\n"
        );
    }

    #[test]
    fn times_are_shown_with_three_digits() {
        assert_eq!([123, 12_345, 1_234_567].map(millis), ["0.12", "12.3", "1235"]);
    }
}
