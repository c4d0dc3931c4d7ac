//! The ends of a trace: this program's own client as a caller, and one of the demo's services as a participant.

use crate::common::collector::{Collector, attribute, hex};
use crate::common::server::BINARY;
use crate::common::tool::{run, said};
use crate::common::{Backstop, Engine};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ABOVE: &str = "00f067aa0ba902b7";

/// The demo's risk service, which ends with its standard input.
struct Risk {
    process: Child,
    address: String,
}

impl Risk {
    fn start(endpoint: &str) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["demo-service", "risk", "--name", "risk", "--limit-minor", "1000"]);
        command.args(["--listen", "127.0.0.1:0", "--stop-at-stdin-end"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "100");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening ").expect("its address").to_owned();
        Self { process, address }
    }
}

impl Drop for Risk {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_holds_the_callers_the_coordinators_and_the_participants_spans() {
    let (collector, endpoint) = Collector::start().await;
    let settings = [("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", endpoint.as_str())];
    let backstop = Backstop::start_with(Engine::Sqlite, &settings).await;
    let risk = Risk::start(&endpoint);
    let api = backstop.api();
    let participant = json!({ "name": "risk", "endpoints": [format!("http://{}", risk.address)] });
    api.register_participant(participant).await.unwrap();
    let request = json!({
        "transferId": "${saga.id}", "fromAccount": "a", "toAccount": "b", "amountMinor": "${input.amount}",
        "currency": "EUR",
    });
    let action =
        json!({ "participant": "risk", "method": "bank.risk.v1.RiskService/Check", "request": request });
    let steps = json!([{ "name": "check", "kind": "STEP_KIND_READ_ONLY", "action": action }]);
    api.define(json!({ "name": "checked", "steps": steps })).await;

    let server = format!("http://{}", backstop.address());
    let arguments = ["saga", "start", "checked", "--id", "c-1", "--input", r#"{"amount": "5000"}"#];
    let started = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(BINARY);
        command.args(arguments).args(["--wait", "20s", "--server", &server]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        run(command.env("TRACEPARENT", format!("00-{TRACE}-{ABOVE}-01")))
    });
    let output = started.await.unwrap();
    // Above the limit: refused, and nothing is to be undone.
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));

    let place = |span: &Span| (hex(&span.parent_span_id), hex(&span.span_id));
    let named = |spans: &[Span], name: &str| -> Vec<Span> {
        spans.iter().filter(|span| span.name.ends_with(name)).cloned().collect()
    };
    let spans = collector
        .spans(TRACE, |spans| named(spans, "StartSaga").len() == 2 && named(spans, "Check").len() == 2)
        .await;
    let starts = named(&spans, "StartSaga");
    let caller = starts.iter().find(|span| hex(&span.parent_span_id) == ABOVE).expect("the caller's span");
    let server = starts.iter().find(|span| span.parent_span_id == caller.span_id).expect("the server's span");
    let checks = named(&spans, "Check");
    let call = checks.iter().find(|span| span.parent_span_id == server.span_id).expect("the call's span");
    let served = checks.iter().find(|span| span.parent_span_id == call.span_id);
    let served = served.unwrap_or_else(|| {
        panic!("the participant's span: {:?}", checks.iter().map(place).collect::<Vec<_>>())
    });
    assert_eq!(attribute(call, "backstop.fin_code"), "FIN-40005");
    assert_eq!(attribute(served, "backstop.saga.id"), "c-1");
    assert_eq!(attribute(served, "backstop.phase"), "action");
}
