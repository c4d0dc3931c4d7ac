//! What a definition would do, played through without anybody to call.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use backstop_core::SagaState;
use backstop_core::simulate::{Fault, Run, simulate};
use common::plan::Plan;

/// `debit` and, after it, the pivot `settle` and the retriable `record`.
fn transfer() -> Vec<Run> {
    let plan =
        Plan::new().step("debit", &[]).pivot("settle", &["debit"]).retriable("record", &["settle"]).dedup();
    simulate(&plan.build())
}

fn run<'a>(runs: &'a [Run], step: &str, fault: Fault) -> &'a Run {
    runs.iter()
        .find(|run| run.fault == fault && run.step.as_ref().is_some_and(|s| s.as_str() == step))
        .unwrap()
}

#[test]
fn peer_33_each_step_really_fails_in_each_way_and_every_run_comes_to_rest() {
    let runs = transfer();
    assert_eq!(runs.len(), 1 + 3 * 3 + 1, "all well, three faults a step, one compensation to refuse");
    for run in &runs {
        let at_rest = run.end_state.is_final() || run.end_state == SagaState::NeedsIntervention;
        assert!(at_rest, "{run:#?}");
        assert!(run.calls.len() < 20, "{run:#?}");
    }
    assert_eq!(runs[0].calls, ["debit/action", "settle/action", "record/action"]);
    assert_eq!(runs[0].end_state, SagaState::Succeeded);
    // That each fault got as far as the step that it was for, and did there what it was to do.
    for step in ["debit", "settle", "record"] {
        for fault in [Fault::Refused, Fault::NoAnswer, Fault::Internal] {
            let run = run(&runs, step, fault);
            assert!(
                run.calls.contains(&format!("{step}/action")),
                "{step} {fault:?} was never called: {run:#?}"
            );
            let code = match fault {
                Fault::Refused => "FAILED_PRECONDITION",
                Fault::NoAnswer => "DEADLINE_EXCEEDED (deadline)",
                _ => "INTERNAL",
            };
            let mut failures = run.transcript.iter().filter(|line| line.contains("FIN-"));
            let first = failures.next().unwrap_or_else(|| panic!("nothing failed: {run:#?}"));
            assert!(first.contains(step) && first.contains(code), "{step} {fault:?}: {first}");
        }
    }
    let stuck = run(&runs, "debit", Fault::CompensationRefused);
    assert!(stuck.calls.contains(&"debit/compensation".to_owned()), "{stuck:#?}");
    assert!(
        stuck.transcript.iter().any(|line| line.contains("debit") && line.contains("stuck")),
        "{stuck:#?}"
    );
}

#[test]
fn a_refused_pivot_undoes_what_came_before_it() {
    let runs = transfer();
    let refused = run(&runs, "settle", Fault::Refused);
    assert_eq!(refused.calls, ["debit/action", "settle/action", "debit/compensation"]);
    assert_eq!(refused.end_state, SagaState::RolledBack);
}

#[test]
fn what_is_tried_without_end_is_shown_with_an_outage_that_ends() {
    let runs = transfer();
    let outage = run(&runs, "record", Fault::NoAnswer);
    assert_eq!(outage.calls.last().unwrap(), "record/action #4");
    assert_eq!(outage.end_state, SagaState::Succeeded);
}

#[test]
fn the_failure_points_that_need_a_person_are_named() {
    let named: Vec<String> = transfer().iter().filter_map(Run::intervention).collect();
    assert!(named.contains(&"debit: COMPENSATION_REFUSED".to_owned()), "{named:?}");
    assert!(named.contains(&"record: REFUSED".to_owned()), "{named:?}");
}
