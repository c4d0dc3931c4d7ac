//! Where a saga's trace comes from: the caller's `traceparent`, our own span, or a new trace.

use crate::traces::place;
use http::{HeaderMap, HeaderName};
use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use std::cell::OnceCell;
use std::future::Future;
use tonic::Code;
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

/// A server span for one of our RPCs, child of the caller's span if it sent one.
pub(crate) fn server_span(path: &str, headers: &HeaderMap) -> Span {
    let method = path.trim_start_matches('/');
    let span = tracing::info_span!(
        "rpc",
        otel.name = method,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
        backstop.saga.id = tracing::field::Empty,
        backstop.definition = tracing::field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    if parent.span().span_context().is_valid() {
        // Fails only where no OpenTelemetry layer is installed; then there is nothing to be a child of.
        let _ = span.set_parent(parent);
    }
    span
}

/// Notes how an RPC ended. Only what is the server's own fault makes its span a failed one, by the semantic
/// conventions of OpenTelemetry: a refused request is the caller's.
pub(crate) fn server_ended(span: &Span, code: Code) {
    span.record("rpc.status_code", backstop_core::Code::from_number(code as i32).name());
    let is_ours = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if is_ours {
        span.record("otel.status_code", "ERROR");
    }
}

tokio::task_local! {
    /// The place of a request that has no span of its own, once somebody has asked for it: the caller's, or a new one.
    static PLACE: OnceCell<String>;
}

/// Runs a request so that it has one place in one trace, also where no spans are made.
pub(crate) async fn placed<F: Future>(callers: Option<(SpanContext, String)>, request: F) -> F::Output {
    let place = callers.map_or_else(OnceCell::new, |(_, text)| OnceCell::from(text));
    PLACE.scope(place, request).await
}

/// Where what happens here stands, for what goes on after its request was answered.
pub(crate) fn here() -> String {
    told(&own())
}

/// The current span's place; not valid if there is none.
fn own() -> SpanContext {
    Span::current().context().span().span_context().clone()
}

/// As it is told on; a request without a span has a place all the same.
fn told(own: &SpanContext) -> String {
    if own.is_valid() { place::written(own) } else { unspanned() }
}

/// Runs what goes on after its request was answered, in the request's place.
pub(crate) async fn placed_at<F: Future>(place: String, future: F) -> F::Output {
    PLACE.scope(OnceCell::from(place), future).await
}

/// The caller's place, and as we write it, if it has told one. What a later version puts behind it, of any length, is for
/// those who understand it, and is not kept.
pub(crate) fn callers(headers: &HeaderMap) -> Option<(SpanContext, String)> {
    let place = place::parse(headers.get("traceparent")?.to_str().ok()?)?;
    let written = place::written(&place);
    Some((place, written))
}

/// The `traceparent` that a new saga's calls descend from: the current span's, else the caller's own, else
/// that of a new trace.
pub(crate) fn trace_parent(metadata: &MetadataMap) -> String {
    let own = own();
    match callers(metadata.as_ref()) {
        // Nothing is exported here, or there is no span: what the participants tell hangs from the caller's.
        Some((place, text)) if !own.is_valid() || place.is_sampled() && !own.is_sampled() => text,
        Some(_) | None => told(&own),
    }
}

/// Where a request stands that has no span.
fn unspanned() -> String {
    PLACE.try_with(|known| known.get_or_init(new_trace).clone()).unwrap_or_else(|_| new_trace())
}

fn new_trace() -> String {
    let trace = Uuid::now_v7().simple().to_string();
    let span = &Uuid::now_v7().simple().to_string()[16..];
    format!("00-{trace}-{span}-00")
}

/// The trace id under which what happens here is to be found.
pub(crate) fn current_trace_id() -> Option<String> {
    place::parse(&here()).map(|place| place.trace_id().to_string())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLERS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[tokio::test]
    async fn a_request_without_a_span_has_one_place_in_its_callers_trace_or_in_a_new_one() {
        let mut headers = HeaderMap::new();
        let told = async { (current_trace_id(), current_trace_id(), trace_parent(&MetadataMap::new())) };
        let (refused, again, started) = placed(callers(&headers), told).await;
        assert_eq!(refused, again);
        assert_eq!(place::parse(&started).map(|place| place.trace_id().to_string()), refused);

        headers.insert("traceparent", CALLERS.parse().unwrap());
        let told = async { (current_trace_id(), trace_parent(&MetadataMap::from_headers(headers.clone()))) };
        let (refused, started) = placed(callers(&headers), told).await;
        assert_eq!(refused.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(started, CALLERS);
    }

    #[tokio::test]
    async fn of_a_later_versions_place_only_what_every_version_has_is_kept() {
        let mut headers = HeaderMap::new();
        let later = format!("cc{}-{}", &CALLERS[2..], "x".repeat(4_000));
        headers.insert("traceparent", later.parse().unwrap());
        let metadata = MetadataMap::from_headers(headers.clone());
        let started = placed(callers(&headers), async { trace_parent(&metadata) }).await;
        assert_eq!(started, CALLERS);
    }

    #[tokio::test]
    async fn what_goes_on_after_the_answer_stands_in_the_trace_of_its_request() {
        let (answered, place) = placed(None, async { (current_trace_id(), here()) }).await;
        assert_eq!(placed_at(place, async { current_trace_id() }).await, answered);
    }
}
