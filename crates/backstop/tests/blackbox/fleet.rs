//! Several coordinators on one Postgres: whichever is asked, the answer is the same, and a saga that changes
//! hands does so without anybody's noticing.
//!
//! Not here: what happens under load and with processes frozen, cut off or killed: `backstop-range`.

use crate::common::api::{shown, state};
use crate::common::{Api, Backstop, Bank, Engine, Gate, Reply, definition, eventually, step};
use backstop_proto::v1;
use serde_json::json;
use tonic::Code;

/// A coordinator with a saga whose first call is held, and another beside it.
async fn two(saga: &str) -> (Backstop, Backstop, Bank, Gate) {
    let owner = Backstop::start(Engine::Postgres).await;
    let other = owner.beside(&[]).await;
    let bank = Bank::start("bank").await;
    let api = owner.api();
    api.enlist_as(&bank, json!({ "deduplicatesByKey": true })).await;
    let steps = ["one", "two"].map(|name| step(name, "bank").with("/action/timeout", "60s"));
    let [one, two] = steps;
    api.define(definition("slow", [one, two.after(&["one"])])).await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |seen| match (seen.step().as_str(), seen.phase().as_str()) {
        ("one", "action") => Reply::Done.after(&held),
        _ => Reply::Done,
    });
    api.start("slow", saga).await;
    bank.until_seen("step one", |seen| seen.step() == "one").await;
    (owner, other, bank, gate)
}

async fn coordinators(api: &Api) -> Vec<v1::list_coordinators_response::Coordinator> {
    let request = v1::ListCoordinatorsRequest {};
    api.operator().list_coordinators(request).await.expect("coordinators").into_inner().coordinators
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_seen_started_again_waited_for_and_cancelled_from_any_coordinator() {
    let (owner, other, bank, gate) = two("pay-7").await;
    let (api, there) = (other.api(), owner.api());
    let saga = api.get("pay-7").await.unwrap();
    assert_eq!((state(&saga), saga.owner.is_empty()), ("RUNNING", false));
    assert_eq!(saga.owner, there.get("pay-7").await.unwrap().owner);
    let again = json!({
        "definition": "slow", "sagaId": "pay-7", "input": { "account": "acc-1", "cents": "1250" },
    });
    assert_eq!(state(&api.start_with(again).await.unwrap()), "RUNNING", "the same request finds it");
    let waiting = {
        let api = other.api();
        tokio::spawn(async move {
            let json = json!({
                "definition": "slow", "sagaId": "pay-7", "wait": "30s",
                "input": { "account": "acc-1", "cents": "1250" },
            });
            api.start_with(json).await
        })
    };
    let cancel =
        v1::CancelSagaRequest { saga_id: "pay-7".into(), reason: "ordered twice".into(), by: "ann".into() };
    let cancelled = api.sagas().cancel_saga(cancel).await.expect("it is carried there").into_inner();
    assert_eq!(state(&cancelled.saga.unwrap()), "ROLLING_BACK");
    gate.open();
    let saga = waiting.await.unwrap().expect("the waiting ends");
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let calls: Vec<_> = bank.seen_of("pay-7").iter().map(|seen| seen.short()).collect();
    assert_eq!(calls, ["one/action#1", "one/compensation#1"], "nobody took it over for that");
    assert!(there.get("pay-7").await.unwrap().transcript.join("\n").contains("cancelled by ann"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_word_is_heard_on_any_coordinator() {
    let (_owner, other, _bank, gate) = two("pay-7").await;
    let retry = v1::RetryBranchRequest {
        saga_id: "pay-7".into(),
        step: "one".into(),
        by: "ben".into(),
        reason: "mended".into(),
    };
    let refused = other.api().operator().retry_branch(retry).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "as its own coordinator says it: {refused}");
    assert!(refused.message().contains("does not wait for a person"), "{refused}");
    gate.open();
    assert_eq!(state(&other.api().rest("pay-7").await), "SUCCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_to_a_saga_of_a_frozen_coordinator_is_carried_out_once_it_is_taken_over() {
    let (owner, other, bank, gate) = two("pay-7").await;
    owner.signal("STOP");
    let cancel = v1::CancelSagaRequest { saga_id: "pay-7".into(), by: "ann".into(), reason: String::new() };
    let cancelled = loop {
        match other.api().sagas().cancel_saga(cancel.clone()).await {
            Ok(response) => break response.into_inner().saga.unwrap(),
            // Its lease has not run out yet: the caller is told to ask again.
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    };
    assert!(cancelled.epoch >= 2, "{}", shown(&cancelled));
    gate.open();
    let saga = other.api().rest("pay-7").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let before = bank.seen().len();
    owner.signal("CONT");
    eventually("the frozen one to have its new name", || async {
        let there = coordinators(&other.api()).await;
        let living = there.iter().filter(|coordinator| !coordinator.expired).count();
        if living == 2 { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    assert_eq!(bank.seen().len(), before, "it calls nobody for a saga that it has lost");
    assert_eq!(other.api().get("pay-7").await.unwrap().transcript, saga.transcript);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_elsewhere_misses_and_repeats_nothing_while_the_saga_changes_hands() {
    let (mut owner, other, _bank, gate) = two("pay-7").await;
    let watcher = owner.beside(&[]).await;
    let request = v1::WatchSagaRequest { saga_id: "pay-7".into(), after_seq: 0 };
    let mut stream = watcher.api().sagas().watch_saga(request).await.unwrap().into_inner();
    let watching = tokio::spawn(async move {
        let mut seqs = Vec::new();
        while let Some(response) = stream.message().await.expect("the stream does not fail") {
            seqs.push(response.event.expect("an event").seq);
        }
        seqs
    });
    owner.kill();
    other.api().until("pay-7", "to change hands", |saga| saga.epoch >= 2).await;
    gate.open();
    let saga = other.api().rest("pay-7").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    let seqs = watching.await.unwrap();
    assert_eq!(seqs, (1..=saga.seq).collect::<Vec<_>>(), "each once and in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_on_one_is_used_on_all() {
    let (owner, other, _bank, gate) = two("pay-7").await;
    gate.open();
    let moved = Bank::start("bank").await;
    owner.api().enlist(&moved).await;
    // Another address for the same name: the other coordinator hears of it by itself.
    eventually("a call at the new address", || async {
        let id = format!("moved-{}", moved.seen().len() + other.api().list("").await.len());
        other.api().run("slow", &id).await;
        if moved.seen().is_empty() { Err("still at the old one".to_owned()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_drains_says_so_and_its_sagas_go_on_elsewhere() {
    let (mut owner, other, bank, gate) = two("pay-7").await;
    owner.signal_to_end();
    eventually("the drain to be seen", || async {
        let there = coordinators(&other.api()).await;
        if there.iter().any(|coordinator| coordinator.draining) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    gate.open();
    assert!(owner.gone().await.success());
    let saga = other.api().rest("pay-7").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    let calls: Vec<_> = bank.seen_of("pay-7").iter().map(|seen| seen.short()).collect();
    assert_eq!(calls, ["one/action#1", "two/action#1"], "its answer was awaited, not thrown away");
}
