//! One trace from the caller to the participants, over OTLP, as a collector gets it.

use crate::common::api::{shown, state};
use crate::common::bank::Receipt;
use crate::common::{Api, Backstop, Bank, Engine, Reply, definition, eventually, get, step};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

const CALLERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLERS_SPAN: &str = "b7ad6b7169203331";

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes =
            request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.spans.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        (collector, address)
    }

    /// The spans of the caller's trace, once there are that many.
    async fn spans(&self, at_least: usize) -> Vec<Span> {
        eventually("the spans of the saga", || async {
            let spans: Vec<Span> = self.spans.lock().unwrap().clone();
            let ours: Vec<Span> =
                spans.into_iter().filter(|span| hex(&span.trace_id) == CALLERS_TRACE).collect();
            if ours.len() >= at_least { Ok(ours) } else { Err(format!("{} spans: {ours:#?}", ours.len())) }
        })
        .await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()).and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("attribute {key} is {other:?} in {span:#?}"),
    }
}

async fn run_in_the_callers_trace(api: &Api) -> backstop_proto::v1::Saga {
    let mut request = Request::new(Api::start_request(json!({
        "definition": "traced", "sagaId": "traced-1", "wait": "30s",
        "input": { "account": "acc-1", "cents": "1250" },
    })));
    let parent = format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    api.sagas().start_saga(request).await.unwrap().into_inner().saga.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_caller_to_the_participants() {
    let (collector, endpoint) = Collector::start().await;
    let backstop =
        Backstop::start_with(Engine::Sqlite, &[("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", &endpoint)]).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("traced", [step("debit", "bank"), step("credit", "bank").after(&["debit"])])).await;
    bank.answers(|seen| match seen.short().as_str() {
        "credit/action#1" => Reply::status(Code::FailedPrecondition, "account closed"),
        _ => Reply::Done,
    });

    let saga = run_in_the_callers_trace(&api).await;

    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    assert_eq!(saga.trace_id, CALLERS_TRACE);
    // The server's span and the three calls: debit, credit, debit's compensation.
    let spans = collector.spans(4).await;
    let server = spans.iter().find(|span| span.name == "backstop.v1.SagaService/StartSaga").unwrap();
    assert_eq!(hex(&server.parent_span_id), CALLERS_SPAN);
    let calls: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == server.span_id).collect();
    let said =
        |span: &&Span| format!("{}/{}", attribute(span, "backstop.step"), attribute(span, "backstop.phase"));
    let mut names: Vec<String> = calls.iter().map(said).collect();
    names.sort();
    assert_eq!(names, ["credit/action", "debit/action", "debit/compensation"]);
    for call in &calls {
        assert_eq!(attribute(call, "backstop.saga.id"), "traced-1");
        assert_eq!(attribute(call, "backstop.definition"), "traced@1");
        assert_eq!(attribute(call, "rpc.system.name"), "grpc");
    }
    let failed = calls.iter().find(|span| said(span) == "credit/action").unwrap();
    assert_eq!(failed.status.as_ref().map(|status| status.code()), Some(StatusCode::Error));
    assert_eq!(attribute(failed, "rpc.status_code"), "FAILED_PRECONDITION");
    assert_eq!(attribute(failed, "backstop.fin_code"), "FIN-40005");
    assert_eq!(attribute(failed, "backstop.tier"), "L3");
    // What each participant got is the place of its own call in that trace.
    for seen in bank.seen_of("traced-1") {
        let call =
            calls.iter().find(|span| said(span) == format!("{}/{}", seen.step(), seen.phase())).unwrap();
        let place = format!("00-{CALLERS_TRACE}-{}-01", hex(&call.span_id));
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
