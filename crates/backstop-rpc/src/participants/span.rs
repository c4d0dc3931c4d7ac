//! The client span of a rollback signal. It is a span of this moment, and not made of an event: the journal keeps how
//! the signal ended, and not when each attempt of it went out.
//!
//! # Not here
//! Spans of calls: `crate::traces`.

use crate::traces::place;
use backstop_core::{Evidence, Saga};
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Opens the span of a rollback signal; it links to the failure that it tells of.
pub(super) fn of_signal(saga: &Saga, method: &str, participant: &str) -> Span {
    let span = tracing::info_span!(
        "signal",
        otel.name = method,
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.status_code = tracing::field::Empty,
        server.address = participant,
        error.type = tracing::field::Empty,
        backstop.saga.id = saga.id.as_str(),
        backstop.definition = %saga.definition.reference,
    );
    if let Some(parent) = place::of_saga_now(saga) {
        // An error says that spans are not exported, or that this one was filtered out: no parent needed.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
    if let Some(cause) = place::of_cause(saga) {
        span.add_link(cause);
    }
    span
}

/// Notes how it ended; `None` is OK.
pub(super) fn ended(span: &Span, failure: Option<Evidence>) {
    match failure {
        None => {
            span.record("rpc.status_code", "OK");
        }
        Some(evidence) => {
            span.record("rpc.status_code", evidence.code().name());
            span.record("error.type", evidence.as_str());
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// `traceparent` of what the listener starts: the span's own place if spans are exported, else the saga's.
pub(super) fn trace_parent(span: &Span, saga: &Saga) -> Option<String> {
    let context = span.context();
    let own = context.span().span_context().clone();
    let place = if own.is_valid() { own } else { place::of_saga_now(saga)? };
    Some(place::written(&place))
}
