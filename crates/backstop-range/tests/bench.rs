//! A tiny benchmark against the real binary: that it measures what it says, that counts are what the design promises,
//! and that its files are written. Time decides nothing here.

// Helpers of tests are not seen as tests by clippy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use backstop_range::bench::result::{Results, Row};
use backstop_range::bench::{self, Bench, Shape};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    bench: Bench,
}

/// `backstop` beside this test's own program, built if it is not there.
fn backstop() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        // target/debug/deps/bench-0123 → target/debug/backstop
        let deps = std::env::current_exe().unwrap();
        let folder = deps.parent().and_then(Path::parent).unwrap();
        let path = folder.join("backstop");
        if !path.is_file() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "-p", "backstop", "--bin", "backstop"]);
            build.arg("--target-dir").arg(folder.parent().unwrap());
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "cargo build -p backstop");
        }
        path
    };
    BUILT.get_or_init(find).clone()
}

/// One at a time: each takes all of the machine.
async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
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

/// A saga alone waits for so many commits, and for no other: the writes of the journal itself. One that ran beside it
/// in a run this short (a lease's renewal is no write of the journal) would show.
fn waits_for(row: &Row, commits: f64) {
    let writes = row.journal.expect("its journal").writes_per_saga;
    assert!((writes - commits).abs() < 0.05, "{writes} writes a saga: {row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_saga_waits_for_as_many_commits_as_its_shape_says() {
    let _alone = alone().await;
    let shapes = "concurrent,sequential,rolled-back";
    let (results, page) = run(&[
        "--shapes",
        shapes,
        "--in-flight",
        "1,4",
        "--seconds",
        "0.5",
        "--open-rate",
        "20",
        "--minutes",
        "0.02",
    ])
    .await;
    assert_eq!((results.rows.len(), results.floors.len(), results.open.len()), (6, 6, 1));
    waits_for(row(&results, Shape::Concurrent, 1), 2.0);
    waits_for(row(&results, Shape::Sequential, 1), 4.0);
    waits_for(row(&results, Shape::RolledBack, 1), 3.0);
    for row in &results.rows {
        assert!(row.failed == 0 && row.ended > 0, "{row:?}");
        assert!(row.of_floor > Some(0.0) && row.overhead.is_some());
        // Counted by Postgres, from its log: what a coordinator does beside its journal is there too.
        let commits = row.database.commits.expect("pg_walinspect comes with Postgres");
        let written = row.journal.expect("its journal").writes_per_saga;
        assert!(commits >= written * 0.9, "{commits} commits a saga, {written} of them the journal's");
        assert!(row.database.wal_bytes > Some(0.0) && row.usage.processor_total_us() > 0.0);
    }
    for floor in &results.floors {
        let events = floor.cell.shape.appends().len();
        let commits = floor.journal.database.commits.expect("pg_walinspect comes with Postgres");
        let most = if floor.cell.in_flight == 1 { events + 1 } else { events };
        assert!(commits > 0.0 && commits < bench_number(most) + 0.5, "{commits}: {floor:?}");
        // No coordinator: it does nothing to the database while calls are made.
        assert!(floor.calls.database.commits < Some(1.0), "{floor:?}");
    }
    let open = &results.open[0];
    assert_eq!((open.ended, open.latency.count, open.lateness.count), (24, 24, 24));
    assert!(open.flush.count > 0);
    assert!(page.matches("<svg").count() > 3 * 3 && page.contains("The floor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_it_is_the_same_loop_and_the_same_floor() {
    let _alone = alone().await;
    let (results, page) =
        run(&["--store", "sqlite", "--in-flight", "1,4", "--seconds", "0.5", "--filler", "4096"]).await;
    waits_for(row(&results, Shape::Concurrent, 1), 2.0);
    assert!(results.rows.iter().all(|row| row.of_floor > Some(0.0) && row.database.wal_bytes.is_none()));
    // Three payloads of 4 KiB each are on the disk, whatever else is.
    let disk =
        |name: &str, row: &Row| row.usage.disk_bytes.iter().find(|(other, _)| other == name).map(|(_, b)| *b);
    let coordinator = disk("coordinator", row(&results, Shape::Concurrent, 1));
    assert!(coordinator > Some(3.0 * 4_096.0), "{coordinator:?}");
    assert!(page.contains("4096 bytes"));
}

fn bench_number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
