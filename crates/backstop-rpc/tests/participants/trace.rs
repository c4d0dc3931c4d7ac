//! What a participant is told of its place in the saga's trace, and the span that stands there.

use crate::fixture::{self, LONG};
use crate::peer::{Peer, answer_ok};
use crate::world::{World, payload, reply};
use backstop_core::{Clock, Event, EventKind, Next, Seq, StepName, Timestamp};
use backstop_engine::ports::traces::{Chapter, Traces};
use backstop_rpc::participants::ParticipantSettings;
use backstop_rpc::traces::SagaSpans;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SimpleSpanProcessor};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SAGA_SPAN: &str = "b7ad6b7169203331";
const SAGA_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

async fn told() -> String {
    let peer = Peer::answering(|respond| answer_ok(respond, &reply())).await;
    World::new(ParticipantSettings::default(), &[peer.endpoint()]).call(LONG).await;
    let heard = peer.seen.requests.lock().unwrap().first().unwrap().clone();
    heard.headers["traceparent"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_participant_is_told_the_place_of_its_own_attempt_the_same_by_every_coordinator() {
    let place = told().await;
    let parts: Vec<&str> = place.split('-').collect();
    assert_eq!(parts[..2], ["00", SAGA_TRACE]);
    assert_ne!(parts[2], SAGA_SPAN, "it is a place of its own, below the saga's");
    assert_eq!(parts[3], "01", "as the saga was sampled");
    assert_eq!(told().await, place);
}

#[tokio::test]
async fn peer_15_a_failed_call_marks_its_span_and_nothing_of_a_payload_is_in_any() {
    let saga = World::new(ParticipantSettings::default(), &[]).saga;
    let failure = fixture::cause("debit", "account A-7 is closed").failure.unwrap();
    let failed = EventKind::ActionFailed {
        step: StepName::parse("debit").unwrap(),
        attempt: 2,
        elapsed: Duration::from_millis(300),
        failure: Box::new(failure),
        settles_doubt: false,
        next: Next::GiveUp,
    };
    let events = [Event { seq: Seq(2), clock: Clock(41), at: Timestamp(5_000_000), kind: failed }];
    let exporter = InMemorySpanExporter::default();
    let spans = SagaSpans::new(Arc::new(SimpleSpanProcessor::new(exporter.clone())));
    let append = Some((Timestamp(5_000_000), Timestamp(5_001_000)));
    spans.tell(&Chapter { saga: &saga, events: &events, append });

    let spans = exporter.get_finished_spans().unwrap();
    let span = spans.iter().find(|span| span.span_kind == SpanKind::Client).unwrap();
    let place = told().await;
    let place: Vec<&str> = place.split('-').collect();
    assert_eq!(span.span_context.span_id().to_string(), place[2], "the place that the participant was told");
    assert_eq!(span.span_context.trace_id().to_string(), SAGA_TRACE);
    assert_eq!(span.parent_span_id.to_string(), SAGA_SPAN);
    assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_millis(300));
    assert!(matches!(span.status, Status::Error { .. }), "{:?}", span.status);
    let attributes: BTreeMap<String, String> =
        span.attributes.iter().map(|kv| (kv.key.to_string(), kv.value.to_string())).collect();
    for (name, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "bank.v1.Ledger/Debit"),
        ("rpc.status_code", "FAILED_PRECONDITION"),
        ("server.address", "ledger"),
        ("error.type", "participant_said"),
        ("backstop.saga.id", "pay/7"),
        ("backstop.definition", "transfer@3"),
        ("backstop.step", "debit"),
        ("backstop.phase", "action"),
        ("backstop.attempt", "2"),
        ("backstop.fin_code", "FIN-40005"),
        ("backstop.tier", "L3"),
    ] {
        assert_eq!(attributes.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(payload().windows(3).any(|window| window == b"A-7"), "the payload names an account");
    assert!(!format!("{spans:?}").contains("A-7"));
}
