//! StartSaga: accepted once, whatever the caller does afterwards; honest about waiting; idempotent.

use crate::common::api::{message, shown, state, violations};
use crate::common::script::Seen;
use crate::common::{Api, Backstop, Bank, Engine, Gate, Reply, definition, step};
use backstop_proto::v1;
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

async fn one_step(engine: Engine) -> (Backstop, Api, Bank) {
    let backstop = Backstop::start(engine).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("one", [step("debit", "bank").with("/action/timeout", "30s")])).await;
    (backstop, api, bank)
}

fn request(id: &str, cents: &str) -> Value {
    json!({ "definition": "one", "sagaId": id, "input": { "account": "acc-1", "cents": cents } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_deadline_passes_while_waiting_does_not_end_the_saga() {
    let (_backstop, api, bank) = one_step(Engine::Sqlite).await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |_| Reply::Done.after(&held));
    let mut json = request("left", "5");
    json["wait"] = json!("30s");
    let mut call = tonic::Request::new(Api::start_request(json.clone()));
    call.set_timeout(Duration::from_millis(300));
    let gave_up = api.sagas().start_saga(call).await.unwrap_err();
    // tonic's client calls its own deadline CANCELLED.
    assert!(matches!(gave_up.code(), Code::DeadlineExceeded | Code::Cancelled), "{gave_up}");
    assert_eq!(state(&api.get("left").await.expect("it was accepted")), "RUNNING");

    gate.open();
    json.as_object_mut().unwrap().remove("wait");
    let saga = api.rest("left").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    let again = api.sagas().start_saga(Api::start_request(json)).await.unwrap().into_inner();
    assert!(!again.created, "the same id answers the saga that is there");
    assert_eq!(state(&again.saga.unwrap()), "SUCCEEDED");
    assert_eq!(bank.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_give_up_after_a_millisecond_can_ask_again_by_the_same_id() {
    let (_backstop, api, bank) = one_step(Engine::Sqlite).await;
    // Each of these may be cut before, while or after it is accepted.
    for n in 0..50 {
        let mut call = tonic::Request::new(Api::start_request(request(&format!("hasty-{n}"), "5")));
        call.set_timeout(Duration::from_millis(1));
        // Cut or answered: both are right, and the second asking below tells which it was.
        let _ = api.sagas().start_saga(call).await;
    }
    for n in 0..50 {
        let id = format!("hasty-{n}");
        api.start_with(request(&id, "5")).await.expect("the same request is welcome again");
        let saga = api.rest(&id).await;
        assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
        assert_eq!(bank.seen_of(&id).len(), 1, "called once, however often it was asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_connection_is_cut_does_not_end_the_saga() {
    let (backstop, api, bank) = one_step(Engine::Sqlite).await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |_| Reply::Done.after(&held));
    let address = backstop.address().to_owned();
    let mut json = request("cut", "5");
    json["wait"] = json!("30s");
    // A client with a connection of its own, which goes with it.
    let caller = tokio::spawn(async move { Api::at(&address).start_with(json).await });
    bank.until_seen("the call", |seen| seen.saga() == "cut").await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    gate.open();
    let saga = api.rest("cut").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_23_the_same_id_with_another_request_is_refused_on_sqlite() {
    the_same_id_with_another_request_is_refused(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_23_the_same_id_with_another_request_is_refused_on_postgres() {
    the_same_id_with_another_request_is_refused(Engine::Postgres).await;
}

async fn the_same_id_with_another_request_is_refused(engine: Engine) {
    let (_backstop, api, bank) = one_step(engine).await;
    api.start_with(request("pay-7", "5")).await.unwrap();
    // An id that begins like another is another.
    api.start_with(request("pay-70", "6")).await.unwrap();
    for id in ["pay-7", "pay-70"] {
        assert_eq!(state(&api.rest(id).await), "SUCCEEDED");
    }
    for round in 0..3 {
        let refused = api.start_with(request("pay-7", "6")).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "round {round}: {refused}");
        assert!(refused.message().ends_with("differs in input"), "{refused}");
        let info = refused.get_error_details().error_info().cloned().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["differs"].as_str()), ("SAGA_ID_TAKEN", "input"));
        let mut labelled = request("pay-7", "6");
        labelled["labels"] = json!({ "branch": "wien" });
        let refused = api.start_with(labelled).await.unwrap_err();
        assert!(refused.message().ends_with("differs in labels, input"), "{refused}");
    }
    let same = api.sagas().start_saga(Api::start_request(request("pay-7", "5"))).await.unwrap().into_inner();
    assert!(!same.created);
    assert_eq!(same.saga.unwrap().state(), v1::SagaState::Succeeded);
    let calls: Vec<_> = bank.seen().iter().map(|s| format!("{} {}", s.saga(), s.posting().cents)).collect();
    assert_eq!(calls.len(), 2, "nothing is called twice because of a repeated start: {calls:?}");
    assert!(calls.contains(&"pay-7 5".to_owned()) && calls.contains(&"pay-70 6".to_owned()), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_44_a_hundred_callers_with_one_id_start_one_saga() {
    let (_backstop, api, bank) = one_step(Engine::Sqlite).await;
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let api = api.clone();
            tokio::spawn(async move {
                let request = Api::start_request(request("crowd", "5"));
                api.sagas().start_saga(request).await.map(|response| response.into_inner().created)
            })
        })
        .collect();
    let mut created = 0;
    for caller in callers {
        created += usize::from(caller.await.unwrap().expect("each is answered"));
    }
    assert_eq!(created, 1);
    assert_eq!(state(&api.rest("crowd").await), "SUCCEEDED");
    assert_eq!(bank.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_07_waiting_answers_the_end_or_honestly_that_it_is_still_running() {
    let (_backstop, api, bank) = one_step(Engine::Sqlite).await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |_| Reply::Done.after(&held));
    let mut json = request("slow", "5");
    json["wait"] = json!("0.1s");
    let saga = api.start_with(json.clone()).await.expect("the time being up is no error");
    assert_eq!(state(&saga), "RUNNING");
    json["wait"] = json!("30s");
    let waiting = tokio::spawn({
        let (api, json) = (api.clone(), json.clone());
        async move { api.start_with(json).await }
    });
    gate.open();
    assert_eq!(state(&waiting.await.unwrap().unwrap()), "SUCCEEDED", "how long to wait is no other request");
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_24_an_id_is_made_when_the_caller_has_none() {
    let (_backstop, api, _bank) = one_step(Engine::Sqlite).await;
    let mut json = request("", "5");
    json["wait"] = json!("30s");
    let first = api.start_with(json.clone()).await.unwrap();
    let second = api.start_with(json).await.unwrap();
    assert_ne!(first.id, second.id);
    for saga in [first, second] {
        assert_eq!(uuid::Uuid::parse_str(&saga.id).expect("a UUID").get_version_num(), 7);
        assert_eq!(state(&saga), "SUCCEEDED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_27_a_raw_payload_arrives_byte_for_byte() {
    let (_backstop, api, bank) = one_step(Engine::Sqlite).await;
    let mut raw = definition("raw", [step("debit", "bank")]);
    raw["steps"][0]["action"].as_object_mut().unwrap().remove("request");
    api.define(raw).await;
    // A field that no one describes, and fields out of order: nobody may tidy them up.
    let bytes = vec![0x10, 0x05, 0x0a, 0x01, b'x', 0xfa, 0x3f, 0x02, 0x01, 0x02];
    let mut start: v1::StartSagaRequest = message(
        "backstop.v1.StartSagaRequest",
        json!({ "definition": "raw", "sagaId": "raw", "input": { "account": "a", "cents": "1" } }),
    );
    let without = api.sagas().start_saga(start.clone()).await.unwrap_err();
    assert_eq!(without.code(), Code::InvalidArgument);
    assert_eq!(violations(&without).len(), 1, "{without}");
    // One that could not be sent is refused, not dropped: that step has a template.
    let mut surplus = Api::start_request(request("surplus", "5"));
    surplus.payloads.insert("debit".to_owned(), bytes.clone().into());
    let surplus = api.sagas().start_saga(surplus).await.unwrap_err();
    assert_eq!(surplus.code(), Code::InvalidArgument);
    let paths: Vec<String> = violations(&surplus).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["payloads.debit"], "{surplus}");
    start.payloads.insert("debit".to_owned(), bytes.clone().into());
    api.sagas().start_saga(start).await.unwrap();
    let saga = api.rest("raw").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    assert_eq!(bank.seen_of("raw").iter().map(|s: &Seen| s.bytes.to_vec()).collect::<Vec<_>>(), [bytes]);
}
