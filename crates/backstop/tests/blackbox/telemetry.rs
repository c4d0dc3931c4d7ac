//! One trace from the caller to the participants, over OTLP, as a collector gets it.

use crate::common::api::{shown, state};
use crate::common::bank::Receipt;
use crate::common::collector::{Collector, attribute, hex};
use crate::common::{Api, Backstop, Bank, Engine, Reply, definition, eventually, get, step};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt};

const CALLERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLERS_SPAN: &str = "b7ad6b7169203331";

async fn run_in_the_callers_trace(api: &Api) -> backstop_proto::v1::Saga {
    run_in(api, "01").await
}

/// Runs a saga for a caller whose own span is sampled or not, by its flags.
async fn run_in(api: &Api, flags: &str) -> backstop_proto::v1::Saga {
    let mut request = Request::new(Api::start_request(json!({
        "definition": "traced", "sagaId": "traced-1", "wait": "30s",
        "input": { "account": "acc-1", "cents": "1250" },
    })));
    let parent = format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-{flags}");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    api.sagas().start_saga(request).await.unwrap().into_inner().saga.unwrap()
}

/// `step/phase#attempt` of a call's span; empty for others.
fn said(span: &Span) -> String {
    if span.kind() != SpanKind::Client || span.name.ends_with("OnRollback") {
        return String::new();
    }
    let [step, phase, attempt] =
        ["backstop.step", "backstop.phase", "backstop.attempt"].map(|key| attribute(span, key));
    format!("{step}/{phase}#{attempt}")
}

fn calls(spans: &[Span]) -> Vec<String> {
    let mut calls: Vec<String> = spans.iter().map(said).filter(|said| !said.is_empty()).collect();
    calls.sort();
    calls
}

fn the<'a>(spans: &'a [Span], call: &str) -> &'a Span {
    spans.iter().find(|span| said(span) == call).unwrap_or_else(|| panic!("no {call} in {spans:#?}"))
}

fn chain() -> serde_json::Value {
    definition("traced", [step("debit", "bank"), step("credit", "bank").after(&["debit"])])
}

const UNDONE: [&str; 3] = ["credit/action#1", "debit/action#1", "debit/compensation#1"];

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_caller_to_the_participants() {
    let (collector, endpoint) = Collector::start().await;
    let backstop =
        Backstop::start_with(Engine::Sqlite, &[("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", &endpoint)]).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "rollbackListener": true })).await;
    api.define(chain()).await;
    bank.answers(|seen| match seen.short().as_str() {
        "credit/action#1" => Reply::status(Code::FailedPrecondition, "account closed"),
        _ => Reply::Done,
    });

    let saga = run_in_the_callers_trace(&api).await;

    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    assert_eq!(saga.trace_id, CALLERS_TRACE);
    let named = |spans: &[Span], name: &str| spans.iter().filter(|span| span.name.ends_with(name)).count();
    let spans = collector
        .spans(CALLERS_TRACE, |spans| {
            calls(spans) == UNDONE && named(spans, "OnRollback") == 1 && named(spans, "StartSaga") == 1
        })
        .await;
    let server = spans.iter().find(|span| span.name == "backstop.v1.SagaService/StartSaga").unwrap();
    assert_eq!(hex(&server.parent_span_id), CALLERS_SPAN);
    // All else hangs from it: the appends with what they made durable, the calls, the signal.
    assert!(spans.iter().all(|span| span.span_id == server.span_id || span.parent_span_id == server.span_id));
    let appends = spans.iter().filter(|span| span.name == "journal append");
    let written: Vec<&str> = appends.flat_map(|span| &span.events).map(|event| event.name.as_str()).collect();
    for event in ["STARTED", "ACTION_FAILED", "ROLLBACK_DECIDED", "COMPENSATION_SUCCEEDED", "ROLLED_BACK"] {
        assert!(written.contains(&event), "{event} is not in {written:?}");
    }
    for call in UNDONE.map(|call| the(&spans, call)) {
        assert_eq!(attribute(call, "backstop.saga.id"), "traced-1");
        assert_eq!(attribute(call, "backstop.definition"), "traced@1");
        assert_eq!(attribute(call, "rpc.system.name"), "grpc");
        assert_eq!(attribute(call, "rpc.method"), call.name);
    }
    let failed = the(&spans, "credit/action#1");
    assert_eq!(failed.status.as_ref().map(|status| status.code()), Some(StatusCode::Error));
    assert_eq!(attribute(failed, "rpc.status_code"), "FAILED_PRECONDITION");
    assert_eq!(attribute(failed, "backstop.fin_code"), "FIN-40005");
    assert_eq!(attribute(failed, "backstop.tier"), "L3");
    assert_eq!(failed.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["exception"]);
    // What undoes, and what tells of it, link to what failed.
    let undone = the(&spans, "debit/compensation#1");
    let signal = spans.iter().find(|span| span.name.ends_with("OnRollback")).unwrap();
    for span in [undone, signal] {
        let links: Vec<String> = span.links.iter().map(|link| hex(&link.span_id)).collect();
        assert_eq!(links, [hex(&failed.span_id)], "{span:#?}");
    }
    // What each participant got is the place of its own call in that trace.
    for seen in bank.seen_of("traced-1") {
        let place = format!("00-{CALLERS_TRACE}-{}-01", hex(&the(&spans, &seen.short()).span_id));
        assert_eq!(seen.text("traceparent"), place);
    }
    // And the log leads to it.
    eventually("the line of the rollback, with its trace", || async {
        let log = backstop.log();
        let line = log.lines().find(|line| line.contains("rolling back") && line.contains("traced-1"));
        match line {
            Some(line) if line.contains(CALLERS_TRACE) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_siblings_and_each_failed_one_says_why() {
    let (collector, endpoint) = Collector::start().await;
    let backstop =
        Backstop::start_with(Engine::Sqlite, &[("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", &endpoint)]).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "deduplicatesByKey": true })).await;
    api.define(definition("traced", [step("debit", "bank")])).await;
    bank.answers(|seen| match seen.short().as_str() {
        "debit/action#1" | "debit/action#2" => Reply::status(Code::Unavailable, "not now"),
        _ => Reply::Done,
    });
    let saga = run_in_the_callers_trace(&api).await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    let attempts = ["debit/action#1", "debit/action#2", "debit/action#3"];
    let spans = collector.spans(CALLERS_TRACE, |spans| calls(spans) == attempts).await;
    let attempts = attempts.map(|call| the(&spans, call));
    assert!(attempts.iter().all(|span| span.parent_span_id == attempts[0].parent_span_id));
    for failed in &attempts[..2] {
        assert_eq!(attribute(failed, "backstop.fin_code"), "FIN-50302");
        assert_eq!(attribute(failed, "backstop.tier"), "L2");
    }
    assert!(attempts[2].status.as_ref().is_none_or(|status| status.code() == StatusCode::Unset));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_nobody_sampled_is_told_whole_if_it_fails_and_not_at_all_if_it_does_not() {
    let (collector, endpoint) = Collector::start().await;
    let backstop =
        Backstop::start_with(Engine::Sqlite, &[("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", &endpoint)]).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(chain()).await;
    // One that is well first, in the same trace: had it been told, it would be there before the other.
    let mut well = Request::new(Api::start_request(json!({
        "definition": "traced", "sagaId": "well", "wait": "30s", "input": { "account": "acc-1", "cents": "1250" },
    })));
    let parent = format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-00");
    well.metadata_mut().insert("traceparent", parent.parse().unwrap());
    let well = api.sagas().start_saga(well).await.unwrap().into_inner().saga.unwrap();
    assert_eq!(state(&well), "SUCCEEDED", "{}", shown(&well));
    bank.answers(|seen| match seen.short().as_str() {
        "credit/action#1" => Reply::status(Code::Internal, "a bug"),
        _ => Reply::Done,
    });
    let saga = run_in(&api, "00").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let whole = ["credit/action#1", "credit/compensation#1", "debit/action#1", "debit/compensation#1"];
    let spans = collector.spans(CALLERS_TRACE, |spans| calls(spans) == whole).await;
    assert!(spans.iter().all(|span| attribute(span, "backstop.saga.id") == "traced-1"), "{spans:#?}");
    assert_eq!(attribute(the(&spans, "credit/action#1"), "backstop.tier"), "L1");
    // The participants were not asked to tell of the actions; of what undoes them they are.
    for seen in bank.seen_of("traced-1") {
        let flags = if seen.phase() == "compensation" { "01" } else { "00" };
        let place = format!("00-{CALLERS_TRACE}-{}-{flags}", hex(&the(&spans, &seen.short()).span_id));
        assert_eq!(seen.text("traceparent"), place);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_goes_on_when_the_coordinator_is_killed_between_action_and_compensation() {
    let (collector, endpoint) = Collector::start().await;
    // So long that the first life tells nothing but what it has told by dying.
    let settings = [
        ("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()),
        ("BACKSTOP_TELEMETRY__SPANS_EVERY", "60s"),
    ];
    let mut backstop = Backstop::start_with(Engine::Sqlite, &settings).await;
    let bank = Bank::start("bank").await;
    backstop.api().enlist(&bank).await;
    backstop.api().define(chain()).await;
    bank.answers(|seen| match seen.short().as_str() {
        "credit/action#1" => Reply::status(Code::FailedPrecondition, "account closed"),
        "debit/compensation#1" => Reply::Hang,
        _ => Reply::Done,
    });
    let mut request = Request::new(Api::start_request(json!({
        "definition": "traced", "sagaId": "traced-1", "input": { "account": "acc-1", "cents": "1250" },
    })));
    let parent = format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    backstop.api().sagas().start_saga(request).await.unwrap();
    bank.until_seen("the compensation", |seen| seen.phase() == "compensation").await;
    backstop.kill();
    assert!(collector.spans.lock().unwrap().is_empty(), "the first life told nothing");
    backstop.start_again().await;
    let saga = backstop.api().rest("traced-1").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    backstop.signal_to_end();
    backstop.gone().await;
    let whole = ["credit/action#1", "debit/action#1", "debit/compensation#1", "debit/compensation#2"];
    let spans = collector.spans(CALLERS_TRACE, |spans| calls(spans) == whole).await;
    let failed = the(&spans, "credit/action#1");
    assert_eq!(attribute(failed, "backstop.fin_code"), "FIN-40005");
    let links = &the(&spans, "debit/compensation#2").links;
    assert_eq!(links.iter().map(|link| hex(&link.span_id)).collect::<Vec<_>>(), [hex(&failed.span_id)]);
    for seen in bank.seen_of("traced-1") {
        let place = format!("00-{CALLERS_TRACE}-{}-01", hex(&the(&spans, &seen.short()).span_id));
        assert_eq!(seen.text("traceparent"), place);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_holds_up_nothing() {
    // A port that was free a moment ago: nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}");
    let backstop =
        Backstop::start_with(Engine::Sqlite, &[("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", &endpoint)]).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("traced", [step("debit", "bank")])).await;
    let saga = run_in_the_callers_trace(&api).await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    // What could not be sent is counted.
    let metrics = backstop.metrics_address().await;
    eventually("spans counted as dropped", || async {
        let text = get(&metrics, "/metrics").await;
        let line = text.lines().find(|line| line.contains("spans_dropped") && line.contains("export_failed"));
        match line {
            Some(line) if !line.ends_with(" 0") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The words of a text in which a payload might hide in some writing: as it is, as numbers, as base64.
const CANARIES: [&str; 6] =
    ["CANARY", "987654321", "67, 65, 78, 65, 82, 89", "Q0FOQVJZ", "NBTkFSW", "DQU5BUl"];

#[tokio::test(flavor = "multi_thread")]
async fn peer_15_no_payload_is_in_logs_traces_or_metrics_at_the_most_talkative_level() {
    let (collector, endpoint) = Collector::start().await;
    for format in ["text", "json"] {
        let settings = [
            ("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()),
            ("BACKSTOP_TELEMETRY__LOG_FILTER", "trace"),
            ("BACKSTOP_TELEMETRY__LOG_FORMAT", format),
            ("BACKSTOP_SIGNALS__TIMEOUT", "100ms"),
        ];
        let mut backstop = Backstop::start_with(Engine::Sqlite, &settings).await;
        let api = backstop.api();
        let bank = Bank::start("bank").await;
        api.enlist_as(&bank, json!({ "rollbackListener": true })).await;
        bank.refuses_signals(Status::failed_precondition("CANARY of a listener"));
        let receipt = |id: &str| {
            prost::Message::encode_to_vec(&Receipt { id: id.to_owned(), balance_cents: 987_654_321 }).into()
        };
        bank.answers(move |seen| match seen.short().as_str() {
            "credit/action#1" => {
                let mut details = ErrorDetails::new();
                details.add_bad_request_violation("account", "CANARY in a detail");
                details.set_error_info("CANARY", "CANARY", [("CANARY".to_owned(), "CANARY".to_owned())]);
                let refusal = Status::with_error_details(Code::FailedPrecondition, "CANARY refused", details);
                Reply::refuse(refusal)
            }
            "raw/action#1" => Reply::status(Code::Internal, "CANARY in a stack trace"),
            "hang/action#1" => Reply::Hang,
            "garbled/action#1" => Reply::Bytes(b"\x0a\x20CANARY cut short".as_slice().into()),
            _ => Reply::Bytes(receipt("CANARY of a reply")),
        });
        let hang = step("hang", "bank").with("/action/timeout", "300s");
        let wrong = step("wrong", "bank").with("/action/request/cents", "${input.account}");
        let mut raw = step("raw", "bank");
        raw.0["action"].as_object_mut().unwrap().remove("request");
        api.define(definition("refused", [step("debit", "bank"), step("credit", "bank").after(&["debit"])]))
            .await;
        api.define(definition("hangs", [hang])).await;
        api.define(definition("garbled", [step("garbled", "bank")])).await;
        api.define(definition("wrong", [wrong])).await;
        api.define(definition("raw", [raw])).await;
        let json = |definition: &str| {
            json!({
                "definition": definition, "sagaId": definition,
                "input": { "account": "CANARY-IBAN", "cents": "987654321" },
            })
        };
        for definition in ["refused", "hangs", "garbled", "wrong"] {
            api.start_with(json(definition)).await.unwrap();
        }
        let mut payload = Api::start_request(json("raw"));
        payload.payloads.insert("raw".to_owned(), b"\x0a\x06CANARY".to_vec().into());
        api.sagas().start_saga(payload).await.unwrap();
        for definition in ["refused", "garbled", "wrong", "raw"] {
            let saga = api.rest(definition).await;
            assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
        }
        // Requests that are refused for what they hold.
        let mut bad = json("refused");
        bad["sagaId"] = json!("CANARY two words");
        bad["input"]["cents"] = json!(1e300);
        api.start_with(bad).await.unwrap_err();
        let mut other = json("refused");
        other["input"]["account"] = json!("CANARY of another");
        api.start_with(other).await.unwrap_err();
        bank.until_seen("the call that hangs", |seen| seen.step() == "hang").await;
        api.until("refused", "to have told its listener in vain", |saga| {
            saga.transcript.iter().any(|line| line.contains("not signalled"))
        })
        .await;
        let exported = || format!("{:?}", collector.spans.lock().unwrap());
        eventually("the spans of the failed call", || async {
            let spans = exported();
            if spans.contains("\"credit\"") { Ok(()) } else { Err(spans) }
        })
        .await;
        // And what a takeover says, and an end.
        backstop.kill();
        backstop.start_again().await;
        assert_eq!(state(&backstop.api().rest("hangs").await), "ROLLED_BACK");
        let metrics = get(&backstop.metrics_address().await, "/metrics").await;
        backstop.signal_to_end();
        backstop.gone().await;
        let log = backstop.log();
        assert!(log.contains("TRACE") && log.contains("schedule_send"), "it is the most talkative level");
        assert!(log.contains("the rollback signal could not be delivered"));
        let spans = exported();
        collector.spans.lock().unwrap().clear();
        for canary in CANARIES {
            for (what, text) in [("log", &log), ("metrics", &metrics)] {
                let line = text.lines().find(|line| line.contains(canary));
                assert_eq!(line, None, "{canary} is in the {what} ({format})");
            }
            let place = spans
                .find(canary)
                .map(|at| spans[at.saturating_sub(150)..].chars().take(250).collect::<String>());
            assert_eq!(place, None, "{canary} is in a span");
        }
    }
}
