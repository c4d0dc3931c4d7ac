//! WatchSaga: every event once and in order, those that are there and those to come, over reconnects and
//! restarts; ListSagas: pages and filters.

use crate::common::api::{message, state};
use crate::common::{Api, Backstop, Bank, Engine, Gate, Reply, definition, step};
use backstop_proto::v1;
use serde_json::json;
use std::collections::BTreeSet;
use tonic::Code;

async fn watch(api: &Api, id: &str, after_seq: u64) -> tonic::Streaming<v1::WatchSagaResponse> {
    let request = v1::WatchSagaRequest { saga_id: id.to_owned(), after_seq };
    api.sagas().watch_saga(request).await.expect("the saga can be watched").into_inner()
}

async fn next(stream: &mut tonic::Streaming<v1::WatchSagaResponse>) -> Option<v1::Event> {
    let waited = tokio::time::timeout(crate::common::PATIENCE, stream.message()).await;
    let message = waited.expect("an event comes in time").expect("the stream does not fail");
    message.map(|response| response.event.expect("an event"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_goes_on_after_the_last_event_seen_over_a_reconnect_and_a_restart() {
    let mut backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "deduplicatesByKey": true })).await;
    let steps = [
        step("one", "bank").with("/action/timeout", "30s"),
        step("two", "bank").after(&["one"]).with("/action/timeout", "30s"),
        step("three", "bank").after(&["two"]).with("/action/timeout", "30s"),
    ];
    api.define(definition("slow", steps)).await;
    let (second, third) = (Gate::closed(), Gate::closed());
    let (at_second, at_third) = (second.clone(), third.clone());
    bank.answers(move |seen| match seen.step().as_str() {
        "two" => Reply::Done.after(&at_second),
        "three" => Reply::Done.after(&at_third),
        _ => Reply::Done,
    });
    api.start("slow", "watched").await;

    let mut seqs = Vec::new();
    let mut lines = Vec::new();
    let mut stream = watch(&api, "watched", 0).await;
    while seqs.len() < 2 {
        let event = next(&mut stream).await.expect("it has not ended");
        seqs.push(event.seq);
        lines.push(event.line);
    }
    drop(stream);
    let mut stream = watch(&api, "watched", seqs[1]).await;
    second.open();
    let event = next(&mut stream).await.expect("the event of step two comes live");
    assert_eq!((event.step.as_str(), event.r#type()), ("two", v1::event::Type::ActionSucceeded));
    seqs.push(event.seq);
    lines.push(event.line);
    bank.until_seen("step three", |seen| seen.step() == "three").await;

    backstop.kill();
    backstop.start_again().await;
    third.open();
    let api = backstop.api();
    let mut stream = watch(&api, "watched", *seqs.last().unwrap()).await;
    while let Some(event) = next(&mut stream).await {
        seqs.push(event.seq);
        lines.push(event.line);
    }
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "each once and in order: {lines:#?}");
    let saga = api.get("watched").await.unwrap();
    assert_eq!(state(&saga), "SUCCEEDED");
    assert_eq!(saga.transcript.len(), lines.len());
    let squeezed = |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let transcript: Vec<_> = saga.transcript.iter().map(squeezed).collect();
    assert_eq!(transcript, lines.iter().map(squeezed).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_of_an_ended_saga_gets_all_of_it_and_the_end() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("one", [step("debit", "bank")])).await;
    let saga = api.run("one", "over").await;
    let mut stream = watch(&api, "over", 0).await;
    let mut types = Vec::new();
    while let Some(event) = next(&mut stream).await {
        types.push(event.r#type());
    }
    use v1::event::Type::{ActionSucceeded, Started, Succeeded};
    assert_eq!(types, [Started, ActionSucceeded, Succeeded]);
    let mut nothing = watch(&api, "over", saga.seq).await;
    assert_eq!(next(&mut nothing).await, None, "after the last event there is only the end");
    let request = v1::WatchSagaRequest { saga_id: "nobody".to_owned(), after_seq: 0 };
    let refused = match api.sagas().watch_saga(request).await {
        Err(status) => status,
        Ok(response) => response.into_inner().message().await.unwrap_err(),
    };
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_through_everything_and_filters_choose_on_sqlite() {
    lists_page_through_everything_and_filters_choose(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_through_everything_and_filters_choose_on_postgres() {
    lists_page_through_everything_and_filters_choose(Engine::Postgres).await;
}

async fn lists_page_through_everything_and_filters_choose(engine: Engine) {
    let backstop = Backstop::start(engine).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("good", [step("debit", "bank")])).await;
    api.define(definition("bad", [step("debit", "bank")])).await;
    bank.answers(|seen| match (seen.text("backstop-definition").as_str(), seen.phase().as_str()) {
        ("bad@1", "action") => Reply::status(Code::FailedPrecondition, "no"),
        _ => Reply::Done,
    });
    for n in 0..30 {
        let name = if n % 3 == 0 { "bad" } else { "good" };
        let json = json!({
            "definition": name, "sagaId": format!("saga-{n:02}"),
            "input": { "account": "a", "cents": "1" },
            "labels": { "customer": (n % 5).to_string(), "note": "with \"quotes\" and \\ slashes" },
        });
        api.start_with(json).await.unwrap();
    }
    for n in 0..30 {
        api.rest(&format!("saga-{n:02}")).await;
    }

    let mut ids = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListSagasRequest { page_size: 7, page_token: token, filter: String::new() };
        let page = api.sagas().list_sagas(request).await.unwrap().into_inner();
        assert!(page.sagas.len() <= 7);
        assert!(page.sagas.iter().all(|saga| saga.branches.is_empty() && saga.transcript.is_empty()));
        ids.extend(page.sagas.into_iter().map(|saga| saga.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let newest_first: Vec<_> = (0..30).rev().map(|n| format!("saga-{n:02}")).collect();
    assert_eq!(ids, newest_first, "each once, the newest first");

    let middle = api.get("saga-15").await.unwrap().create_time.unwrap();
    let since = format!("create_time >= \"{middle}\"");
    let before = format!("create_time < \"{middle}\"");
    for (filter, count) in [
        ("state = \"ROLLED_BACK\"", 10),
        ("state = \"SUCCEEDED\"", 20),
        ("(state = \"SUCCEEDED\" OR state = \"ROLLED_BACK\")", 30),
        ("definition = \"bad\"", 10),
        ("fin_code = \"FIN-40005\"", 10),
        ("labels.customer = \"4\"", 6),
        ("labels.customer = \"4\" AND definition = \"bad\"", 2),
        ("labels.note = \"with \\\"quotes\\\" and \\\\ slashes\"", 30),
        ("state = \"RUNNING\"", 0),
        ("labels.customer = \"' OR 1=1 --\"", 0),
        (since.as_str(), 15),
        (before.as_str(), 15),
    ] {
        let found: BTreeSet<_> = api.list(filter).await.into_iter().map(|saga| saga.id).collect();
        assert_eq!(found.len(), count, "{filter}: {found:?}");
    }

    // A token belongs to its filter.
    let request = message::<v1::ListSagasRequest>("backstop.v1.ListSagasRequest", json!({ "pageSize": 5 }));
    let token = api.sagas().list_sagas(request).await.unwrap().into_inner().next_page_token;
    let other =
        v1::ListSagasRequest { page_size: 5, page_token: token, filter: "definition = \"bad\"".into() };
    assert_eq!(api.sagas().list_sagas(other).await.unwrap_err().code(), Code::InvalidArgument);
}
