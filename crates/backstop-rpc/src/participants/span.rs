//! The client span of a call, with the names that OpenTelemetry gives to it, and the place of the call in
//! the saga's trace. The one module that knows these names: `rpc.status_code` was renamed only lately.

use backstop_core::{Call, Details, Evidence, Saga, tier};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Version, trace id, span id, flags.
const TRACE_PARENT_BYTES: usize = 55;

/// Opens the span of one attempt, as a child of the saga's own span.
pub(super) fn of_call(saga: &Saga, call: &Call, method: &str, participant: &str) -> Span {
    let step = saga.definition.steps.get(call.step).map_or("", |step| step.name.as_str());
    let span = tracing::info_span!(
        "call",
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
        backstop.step = step,
        backstop.phase = call.phase.as_str(),
        backstop.attempt = call.attempt,
        backstop.fin_code = tracing::field::Empty,
        backstop.tier = tracing::field::Empty,
    );
    set_parent(&span, saga);
    span
}

/// Opens the span of a rollback signal.
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
    set_parent(&span, saga);
    span
}

/// Notes how the call ended; `None` is OK.
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

/// Notes how loud a failure is, by the saga's own table.
pub(super) fn judged(span: &Span, saga: &Saga, evidence: Evidence, details: &Details) {
    let row = tier(&saga.definition.errors, evidence.code());
    span.record("backstop.fin_code", tracing::field::display(details.fin_code().unwrap_or(row.fin_code)));
    span.record("backstop.tier", row.tier.as_str());
}

/// `traceparent` of what the call starts: the span's own place if spans are exported, else a new place in
/// the saga's trace. `None` if the saga has no trace.
pub(super) fn trace_parent(span: &Span, saga: &Saga) -> Option<String> {
    let context = span.context();
    let own = context.span().span_context().clone();
    let place = if own.is_valid() {
        own
    } else {
        let saga = parse(saga.started.trace_parent.as_deref()?)?;
        SpanContext::new(saga.trace_id(), fresh_span_id(), saga.trace_flags(), false, TraceState::default())
    };
    Some(format!("00-{}-{}-{:02x}", place.trace_id(), place.span_id(), place.trace_flags().to_u8()))
}

fn set_parent(span: &Span, saga: &Saga) {
    if let Some(parent) = saga.started.trace_parent.as_deref().and_then(parse) {
        // An error says that spans are not exported, or that this one was filtered out: no parent needed.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Reads a W3C `traceparent` of version 00, or of a later one that begins like it.
pub(crate) fn parse(text: &str) -> Option<SpanContext> {
    let (head, tail) = (text.get(..TRACE_PARENT_BYTES)?, text.get(TRACE_PARENT_BYTES..)?);
    let mut parts = head.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let well_formed =
        lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
    let tail_fits = tail.is_empty() || (version != "00" && tail.starts_with('-'));
    if !well_formed || version == "ff" || !tail_fits {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

/// The random half of a UUIDv7.
fn fresh_span_id() -> SpanId {
    let (_, low) = uuid::Uuid::now_v7().as_u64_pair();
    SpanId::from_bytes(low.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_parent_is_taken_for_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse(good).unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(parse(&format!("cc{}-what-comes-later", &good[2..])).is_some());
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c8031é-b7ad6b7169203331-01",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
