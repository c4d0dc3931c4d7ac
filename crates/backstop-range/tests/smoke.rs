//! Small runs of the range against the real binary: that the scenarios work, and that what must never be is
//! not.
//!
//! Time decides nothing here, nor who wins a race: the machine may be busy. The full runs judge it.

// Helpers of tests are not seen as tests by clippy.
#![allow(clippy::unwrap_used)]

use backstop_range::report::{Kind, Report};
use backstop_range::scenario::{chaos, frozen, rolling};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// `backstop` beside this test's own program, built if it is not there.
fn backstop() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        // target/debug/deps/smoke-0123 → target/debug/backstop
        let deps = std::env::current_exe().unwrap();
        let folder = deps.parent().and_then(|deps| deps.parent()).unwrap();
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

fn holds(report: &Report) {
    let broken = report.failures().iter().any(|failure| failure.kind == Kind::Safety);
    assert!(!broken, "{}", report.table());
}

/// One at a time: each takes all of the machine.
async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_chaos_breaks_no_promise() {
    let _alone = alone().await;
    let chaos = chaos::Chaos { seconds: 15, seed: 7, rate: 50, coordinators: 3, fault_every: 2 };
    let report = chaos::run(backstop(), &chaos).await.unwrap();
    holds(&report);
    let faults = report.get("faults").and_then(|faults| faults.as_array()).map_or(0, Vec::len);
    assert!(faults >= 4, "the run had faults:\n{}", report.table());
    let taken = report.get("taken over").and_then(serde_json::Value::as_u64);
    assert!(taken > Some(0), "and they hit sagas:\n{}", report.table());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_start() {
    let _alone = alone().await;
    let rolling = rolling::Rolling { rate: 50, coordinators: 2 };
    holds(&rolling::run(backstop(), &rolling).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_wakes_from_a_freeze_does_no_harm() {
    let _alone = alone().await;
    holds(&frozen::run(backstop(), &frozen::Frozen { sagas: 10, how: frozen::How::Process }).await.unwrap());
}
