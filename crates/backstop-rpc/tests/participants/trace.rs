//! The client span of a call, as an exporter sees it.

use crate::fixture::LONG;
use crate::peer::{Peer, answer_ok, answer_status};
use crate::world::{World, payload, reply};
use backstop_rpc::participants::ParticipantSettings;
use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::collections::BTreeMap;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

const SAGA_SPAN: &str = "b7ad6b7169203331";
const SAGA_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Exports the spans of this thread; the tests' runtimes have no other.
fn exporting() -> (InMemorySpanExporter, SdkTracerProvider, DefaultGuard) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    (exporter, provider, guard)
}

fn attributes(span: &SpanData) -> BTreeMap<String, String> {
    span.attributes.iter().map(|kv| (kv.key.to_string(), kv.value.to_string())).collect()
}

#[tokio::test]
async fn a_call_is_a_client_span_in_the_sagas_trace_and_the_participant_is_told_its_place() {
    let (exporter, _provider, _guard) = exporting();
    let peer = Peer::answering(|respond| answer_ok(respond, &reply())).await;
    World::new(ParticipantSettings::default(), &[peer.endpoint()]).call(LONG).await;

    let spans = exporter.get_finished_spans().unwrap();
    let span = spans.iter().find(|span| span.span_kind == SpanKind::Client).unwrap();
    assert_eq!(span.name, "bank.v1.Ledger/Debit");
    assert_eq!(span.span_context.trace_id().to_string(), SAGA_TRACE);
    assert_eq!(span.parent_span_id.to_string(), SAGA_SPAN);
    assert_eq!(span.status, Status::Unset);
    let attributes = attributes(span);
    for (name, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "bank.v1.Ledger/Debit"),
        ("rpc.status_code", "OK"),
        ("server.address", "ledger"),
        ("backstop.saga.id", "pay/7"),
        ("backstop.definition", "transfer@3"),
        ("backstop.step", "debit"),
        ("backstop.phase", "action"),
        ("backstop.attempt", "2"),
    ] {
        assert_eq!(attributes.get(name).map(String::as_str), Some(value), "{name}");
    }
    let own = span.span_context.span_id();
    let heard = peer.seen.requests.lock().unwrap().first().unwrap().clone();
    assert_eq!(heard.headers["traceparent"], format!("00-{SAGA_TRACE}-{own}-01"));
}

#[tokio::test]
async fn peer_15_a_failed_call_marks_its_span_and_nothing_of_a_payload_is_in_any() {
    let (exporter, _provider, _guard) = exporting();
    let peer = Peer::answering(|respond| answer_status(respond, &[("grpc-status", "9")])).await;
    World::new(ParticipantSettings::default(), &[peer.endpoint()]).call(LONG).await;
    let spans = exporter.get_finished_spans().unwrap();
    let span = spans.iter().find(|span| span.span_kind == SpanKind::Client).unwrap();
    assert!(matches!(span.status, Status::Error { .. }), "{:?}", span.status);
    let attributes = attributes(span);
    assert_eq!(attributes["rpc.status_code"], "FAILED_PRECONDITION");
    assert_eq!(attributes["error.type"], "participant_said");

    assert!(payload().windows(3).any(|window| window == b"A-7"), "the payload names an account");
    assert!(!format!("{spans:?}").contains("A-7"));
}
