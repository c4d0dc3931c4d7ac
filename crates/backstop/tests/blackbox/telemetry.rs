//! One trace from the caller to the participants, over OTLP, as a collector gets it.

use crate::common::api::{shown, state};
use crate::common::{Api, Backstop, Bank, Engine, Reply, definition, eventually, step};
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
