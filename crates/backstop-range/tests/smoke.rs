//! Small runs of the range against the real binary: that the scenarios work, and that what must never be is
//! not.
//!
//! Time decides nothing here, nor who wins a race: the machine may be busy. The full runs judge it.

// Helpers of tests are not seen as tests by clippy.
#![allow(clippy::unwrap_used)]

mod common;

use backstop_range::report::sheet::Cell;
use backstop_range::report::{Kind, Report};
use backstop_range::scenario::chaos::Programs;
use backstop_range::scenario::{chaos, frozen, rolling};
use common::{alone, backstop};

fn holds(report: &Report) {
    let broken = report.failures().iter().any(|failure| failure.kind == Kind::Safety);
    assert!(!broken, "{}", report.table());
}

fn programs() -> Programs {
    Programs { backstop: backstop(), range: env!("CARGO_BIN_EXE_backstop-range").into() }
}

/// The first cell that is a number in a row of a table.
fn cell(report: &mut Report, table: &str, row: &str) -> Option<i64> {
    let table = report.sheet().tables.iter().find(|other| other.title == table)?;
    let is_named = |cell: &Cell| matches!(cell, Cell::Text(text) if text == row);
    let row = table.rows.iter().find(|cells| cells.first().is_some_and(is_named))?;
    row.iter().find_map(|cell| if let Cell::Number(number) = cell { Some(*number) } else { None })
}

fn small() -> chaos::Chaos {
    chaos::Chaos {
        seconds: 15,
        minutes: None,
        seed: 7,
        rate: 30,
        coordinators: 3,
        ledgers: 3,
        fault_every: 2,
        plan: None,
        dead_ledger: false,
        give_up_after: 8,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_chaos_breaks_no_promise() {
    let _alone = alone().await;
    let mut report = chaos::run(&programs(), &small()).await.unwrap();
    holds(&report);
    assert!(report.sheet().timeline.lanes.iter().map(|lane| lane.bars.len()).sum::<usize>() >= 4);
    let taken = cell(&mut report, "Sagas", "taken over by another coordinator");
    assert!(taken > Some(0), "the faults hit sagas:\n{}", report.table());
    assert_eq!(cell(&mut report, "Sagas", "left to a person (NEEDS_INTERVENTION)"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_stays_dead_leaves_interventions_that_explain_every_cent() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    let text = "
        [[fault]]
        at_s = 1
        kind = \"kill\"
        target = \"B\"
        lasts_s = 2
        [[fault]]
        at_s = 2
        kind = \"full-disk\"
        target = \"ledger_0\"
        lasts_s = 2
        [[fault]]
        at_s = 4
        kind = \"dead\"
        target = \"ledger_1\"
    ";
    std::fs::write(&plan, text).unwrap();
    let chaos = chaos::Chaos { seconds: 8, plan: Some(plan), ..small() };
    let mut report = chaos::run(&programs(), &chaos).await.unwrap();
    holds(&report);
    // Its death found payments under way; how many is a matter of time, that all are named is not.
    let open = cell(&mut report, "Sagas", "left to a person (NEEDS_INTERVENTION)");
    assert!(open > Some(0), "{}", report.table());
    let named =
        report.sheet().tables.iter().find(|table| table.title == "Interventions").unwrap().rows.clone();
    assert_eq!(i64::try_from(named.len()).ok(), open);
    assert!(named.iter().all(|row| row.get(2) == Some(&Cell::Text("ledger_1".to_owned()))), "{named:?}");

    report.write_folder(folder.path()).unwrap();
    let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["sheet"]["checks"].as_array().map(Vec::len), Some(11));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("dead for good of ledger_1"));
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
