//! A tiny benchmark against the real binary: that it measures what it says, that counts are what the design promises,
//! and that its files are written. Time decides nothing here.

// Helpers of tests are not seen as tests by clippy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use backstop_range::bench::result::{Results, Row};
use backstop_range::bench::{self, Bench, Shape, growth, soak, startup};
use clap::Parser;
use common::{alone, backstop};
use std::path::Path;

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    bench: Bench,
}

#[derive(Parser)]
struct Grows {
    #[command(flatten)]
    growth: growth::Growth,
}

#[derive(Parser)]
struct Soaks {
    #[command(flatten)]
    soak: soak::Soak,
}

#[derive(Parser)]
struct Starts {
    #[command(flatten)]
    startup: startup::Startup,
}

/// Runs it with these words, and reads its results back from the folder that it writes.
async fn run(words: &[&str]) -> (Results, String) {
    let words = Words::parse_from(["bench"].iter().chain(words));
    let range = Path::new(env!("CARGO_BIN_EXE_backstop-range"));
    let report = bench::run(&backstop(), range, &words.bench).await.unwrap();
    assert!(report.passed(), "{}", report.table());
    let folder = tempfile::tempdir().unwrap();
    report.write_folder(folder.path()).unwrap();
    let page = std::fs::read_to_string(folder.path().join("bench.html")).unwrap();
    let json = std::fs::read_to_string(folder.path().join("results.json")).unwrap();
    (serde_json::from_str(&json).unwrap(), page)
}

fn row(results: &Results, shape: Shape, in_flight: usize) -> &Row {
    let is_it = |row: &&Row| row.cell.shape == shape && row.cell.in_flight == in_flight;
    results.rows.iter().find(is_it).expect("a row")
}

/// A success that nothing waits for may ride along for as long as it takes, however slow the machine: then how many
/// commits a saga waits for does not depend on time.
const PATIENT: &str = "BACKSTOP_JOURNAL__RIDE_ALONG_MAX=1m";

/// A saga alone waits for so many commits, and for no other: the writes of the journal itself.
fn waits_for(row: &Row, commits: f64) {
    let writes = row.journal.expect("its journal").writes_per_saga;
    assert!((writes - commits).abs() < 1e-9, "{writes} writes a saga: {row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_saga_waits_for_as_many_commits_as_its_shape_says() {
    let _alone = alone().await;
    let shapes = "concurrent,sequential,diamond,rolled-back";
    let words = ["--shapes", shapes, "--in-flight", "1,4", "--seconds", "0.5", "--setting", PATIENT];
    let (results, page) = run(&[&words[..], &["--open-rate", "20", "--minutes", "0.02"]].concat()).await;
    assert_eq!((results.rows.len(), results.floors.len(), results.open.len()), (8, 8, 1));
    waits_for(row(&results, Shape::Concurrent, 1), 2.0);
    waits_for(row(&results, Shape::Sequential, 1), 4.0);
    waits_for(row(&results, Shape::Diamond, 1), 4.0);
    for row in &results.rows {
        assert!(row.failed == 0 && row.ended > 0, "{row:?}");
        assert!(row.of_floor > Some(0.0) && row.overhead.is_some());
        // Counted by Postgres from its own log: the journal's writes, and what else a coordinator commits.
        let commits = row.database.commits.expect("pg_walinspect comes with Postgres");
        if row.cell.in_flight == 1 && row.cell.shape != Shape::RolledBack {
            assert!(commits >= number(row.cell.shape.appends().len()), "{commits} commits a saga: {row:?}");
        }
        assert!(row.database.wal_bytes > Some(0.0) && row.usage.processor_total_us() > 0.0);
    }
    for floor in results.floors.iter().filter(|floor| floor.cell.in_flight == 1) {
        let commits = floor.journal.database.commits.expect("pg_walinspect comes with Postgres");
        assert!(commits >= number(floor.cell.shape.appends().len()), "{commits}: {floor:?}");
    }
    // Nobody writes as much as a saga while the floor's calls are made.
    assert!(
        results.floors.iter().all(|floor| floor.calls.database.wal_bytes < floor.journal.database.wal_bytes)
    );
    let open = &results.open[0];
    assert_eq!((open.ended, open.latency.count, open.lateness.count), (24, 24, 24));
    assert!(open.flush.count > 0);
    assert_eq!(page.matches("<svg").count(), 4 * 3 + 1);
    assert!(page.contains("The floor") && page.contains(PATIENT));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_it_is_the_same_loop_and_the_same_floor() {
    let _alone = alone().await;
    let words = ["--store", "sqlite", "--in-flight", "1,4", "--seconds", "0.5", "--setting", PATIENT];
    let (results, page) = run(&[&words[..], &["--filler", "4096"]].concat()).await;
    waits_for(row(&results, Shape::Concurrent, 1), 2.0);
    assert!(results.rows.iter().all(|row| row.of_floor > Some(0.0) && row.database.wal_bytes.is_none()));
    // Three payloads of 4 KiB each are on the disk, whatever else is.
    let row = row(&results, Shape::Concurrent, 1);
    let coordinator =
        row.usage.disk_bytes.iter().find(|(name, _)| name == "coordinator").map(|(_, bytes)| *bytes);
    assert!(coordinator > Some(3.0 * 4_096.0), "{coordinator:?}");
    assert!(page.contains("4096 bytes"));
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn growth_recovers_every_saga_that_a_killed_coordinator_left() {
    let _alone = alone().await;
    let words = [
        "growth",
        "--ended",
        "10,200",
        "--live",
        "5",
        "--unfinished",
        "20",
        "--in-flight",
        "2",
        "--seconds",
        "0.3",
    ];
    let growth = Grows::parse_from(words).growth;
    let range = Path::new(env!("CARGO_BIN_EXE_backstop-range"));
    let report = growth::run(&backstop(), range, &growth).await.unwrap();
    assert!(report.passed(), "{}", report.table());
    let folder = tempfile::tempdir().unwrap();
    report.write_folder(folder.path()).unwrap();
    let json = std::fs::read_to_string(folder.path().join("growth.json")).unwrap();
    let grown: growth::Grown = serde_json::from_str(&json).unwrap();
    let sizes: Vec<_> = grown.costs.iter().map(|cost| (cost.ended, cost.live)).collect();
    assert_eq!(sizes, [(0, 5), (10, 0), (200, 0)]);
    let sizes: Vec<_> =
        grown.recoveries.iter().map(|recovery| (recovery.ended, recovery.unfinished)).collect();
    assert_eq!(sizes, [(0, 20), (200, 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn soak_and_startup_tell_what_they_are_asked() {
    let _alone = alone().await;
    let range = Path::new(env!("CARGO_BIN_EXE_backstop-range"));
    let soak = Soaks::parse_from(["soak", "--minutes", "0.05", "--rate", "20", "--store", "sqlite"]).soak;
    let report = soak::run(&backstop(), range, &soak).await.unwrap();
    assert!(report.passed() && report.table().contains("slope"), "{}", report.table());
    let startup = Starts::parse_from(["startup", "--ended", "50", "--times", "2"]).startup;
    let report = startup::run(&backstop(), range, &startup).await.unwrap();
    assert!(report.passed() && report.table().contains("first saga"), "{}", report.table());
}
