//! Stories of the queue of what waits for a person.

use super::canned::Canned;
use super::fixtures::at;
use super::run;
use crate::cli::Exit;
use backstop_proto::v1::failure::{Effect, Evidence};
use backstop_proto::v1::{Branch, BranchState, Failure, Saga, SagaState, StepKind, Tier};

/// A saga whose debit cannot be undone, and since when.
pub(in crate::cli) fn refused(id: &str, since_ms: i64) -> Saga {
    let failure = Failure {
        grpc_code: "PERMISSION_DENIED".to_owned(),
        fin_code: "FIN-50099".to_owned(),
        tier: Tier::L1.into(),
        evidence: Evidence::ParticipantSaid.into(),
        effect: Effect::None.into(),
        message: "account locked".to_owned(),
        ..Failure::default()
    };
    let stuck = Branch {
        step: "debit".to_owned(),
        kind: StepKind::Compensatable.into(),
        participant: "ledger_a".to_owned(),
        state: BranchState::Stuck.into(),
        compensation_failure: Some(failure),
        ..Branch::default()
    };
    let doubtful = Branch {
        step: "credit".to_owned(),
        participant: "ledger_b".to_owned(),
        kind: StepKind::Compensatable.into(),
        state: BranchState::InDoubt.into(),
        ..Branch::default()
    };
    Saga {
        id: id.to_owned(),
        definition: "transfer".to_owned(),
        revision: 3,
        state: SagaState::NeedsIntervention.into(),
        branches: vec![stuck, doubtful],
        cause: Some(backstop_proto::v1::RollbackCause::default()),
        update_time: at(since_ms),
        ..Saga::default()
    }
}

fn quarantined(id: &str, since_ms: i64) -> Saga {
    Saga { branches: Vec::new(), quarantine: "event 3 does not fit".to_owned(), ..refused(id, since_ms) }
}

#[tokio::test]
async fn the_queue_tells_who_waits_for_what_and_what_is_exposed() {
    let sagas = vec![refused("pay-8", 60_000), refused("pay-7; reboot", 0), quarantined("pay-9", 120_000)];
    let server = Canned { sagas, ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["intervention", "list"]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let mut lines = ran.out.lines();
    assert!(lines.next().unwrap().starts_with("AGE"), "{}", ran.out);
    let row = lines.next().unwrap();
    for part in [
        "transfer@3  pay-7; reboot  debit  ledger_a     FIN-50099  L1    debit@ledger_a credit@ledger_b?",
        "PERMISSION_DENIED: account locked",
    ] {
        assert!(row.contains(part), "{part} is not in\n{row}");
    }
    assert!(lines.next().unwrap().contains("pay-8"));
    let row = lines.next().unwrap();
    assert!(
        row.contains("pay-9") && row.contains("unknown") && row.contains("event 3 does not fit"),
        "{row}"
    );
    for command in [
        "3 sagas wait for a person",
        "backstop saga show 'pay-7; reboot'",
        "  backstop branch retry 'pay-7; reboot' debit --reason …",
        "  backstop branch resolve 'pay-7; reboot' debit --resolution undone --reason …",
    ] {
        assert!(ran.out.contains(command), "{command} is not in\n{}", ran.out);
    }
    assert!(server.asked()[0].contains("NEEDS_INTERVENTION"), "{:?}", server.asked());
}

#[tokio::test]
async fn the_queue_shows_who_has_waited_longest_and_says_what_it_leaves_out() {
    // Newest first, as the server lists them.
    let sagas = (0..150).rev().map(|n| refused(&format!("pay-{n:03}"), n * 1_000)).collect();
    let server = Canned { sagas, ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["intervention", "list", "--limit", "2"]).await;
    assert!(ran.out.contains("pay-000") && ran.out.contains("pay-001"), "{}", ran.out);
    assert!(!ran.out.contains("pay-002"), "{}", ran.out);
    assert!(ran.out.contains("there are more: --limit"), "{}", ran.out);
    let whole = server.asked().iter().filter(|asked| asked.contains("GetSaga")).count();
    assert!(whole <= 8, "{whole} sagas were asked for to show 2");
    let ran = run(&server.url, &["intervention", "list", "--limit", "150"]).await;
    assert!(ran.out.contains("150 sagas wait for a person."), "{}", ran.out);
}

#[tokio::test]
async fn filters_narrow_the_queue_by_what_waits() {
    let mut other = refused("pay-1", 0);
    other.branches[0].participant = "fraud".to_owned();
    let sagas = vec![refused("pay-2", 1_000), other, quarantined("pay-3", 2_000)];
    let server = Canned { sagas, ..Canned::default() }.serve().await;
    let list = async |args: &[&str]| {
        let ran = run(&server.url, &[&["intervention", "list", "--json"], args].concat()).await;
        let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let ids: Vec<_> =
            json["interventions"].as_array().unwrap().iter().map(|one| one["sagaId"].clone()).collect();
        (ran.exit, ids)
    };
    assert_eq!(list(&[]).await, (Exit::Done, vec!["pay-1".into(), "pay-2".into(), "pay-3".into()]));
    assert_eq!(list(&["--participant", "fraud"]).await.1, ["pay-1"]);
    assert_eq!(list(&["--fin-code", "FIN-50099"]).await.1, ["pay-1", "pay-2"]);
    assert_eq!(list(&["--fin-code", "FIN-40005", "--fail-if-any"]).await, (Exit::Done, vec![]));
    assert_eq!(list(&["--fail-if-any"]).await.0, Exit::NeedsIntervention);
    assert_eq!(list(&["--older-than", "100000h"]).await.1, Vec::<String>::new());
    let ran = run(&server.url, &["intervention", "list", "--participant", "nobody"]).await;
    assert_eq!(ran.out, "nothing of that kind waits for a person; 3 of other kinds do\n");
}

#[tokio::test]
async fn the_queue_as_json_holds_what_a_script_decides_by() {
    let server = Canned { sagas: vec![refused("pay-7", 0)], ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["intervention", "list", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let first = &json["interventions"][0];
    assert_eq!(first["exposed"], serde_json::json!(["debit@ledger_a", "credit@ledger_b?"]));
    assert_eq!(first["waiting"][0]["finCode"], "FIN-50099");
    assert_eq!(first["waiting"][0]["resolutions"], serde_json::json!(["undone"]));
    assert_eq!(json["truncated"], false);
}

#[test]
fn what_does_not_fit_on_the_line_stands_below() {
    use crate::cli::intervention::Found;
    use crate::cli::intervention_view::{Now, queue};
    use crate::cli::out::Paint;
    let found = Found { sagas: vec![refused("pay-7", 0)], listed: 1, ..Found::default() };
    let shown = |width| queue(&found, Now(at(7_800_000).unwrap()), Some(width), Paint::OFF);
    insta::assert_snapshot!(shown(80), @r"
    AGE     DEFINITION  SAGA   STEP   PARTICIPANT  FIN CODE   TIER
    2h 10m  transfer@3  pay-7  debit  ledger_a     FIN-50099  L1
         exposed debit@ledger_a credit@ledger_b?
         PERMISSION_DENIED: account locked

    1 saga waits for a person. The oldest has waited for 2h 10m; its story: backstop saga show pay-7
    What to do about it:
      backstop branch retry pay-7 debit --reason …
      backstop branch resolve pay-7 debit --resolution undone --reason …
    ");
    let wide = shown(140);
    let row = wide.lines().nth(1).unwrap();
    assert!(row.ends_with("debit@ledger_a credit@ledger_b?  PERMISSION_DENIED: account locked"), "{wide}");
    for width in [1, 40, 100, 120, 130, 139] {
        let table = shown(width);
        let cut =
            table.lines().take_while(|line| !line.is_empty()).filter(|line| line.contains("PERMISSION"));
        assert!(cut.clone().all(|line| line.chars().count() <= width), "{width}: {table}");
    }
}
