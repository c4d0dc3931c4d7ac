//! Spans of what is no coordinator: the demo's services, and this program as a caller.
//!
//! They go where the standard environment of OpenTelemetry says (`OTEL_EXPORTER_OTLP_ENDPOINT`), and nowhere without it.

use anyhow::Context as _;
use opentelemetry::propagation::{Injector, TextMapPropagator};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::collections::HashMap;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};

/// Names the endpoint, by the specification of OpenTelemetry.
const OTEL_EXPORTER_OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Sets up the spans of a service as this whole process; keep what comes back, and shut it down at the end.
///
/// # Errors
/// If the endpoint cannot be one.
pub(crate) fn service_spans(service: &str) -> anyhow::Result<Option<SdkTracerProvider>> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = provider(service)?;
    if let Some(provider) = &provider {
        global::set_tracer_provider(provider.clone());
    }
    Ok(provider)
}

fn provider(service: &str) -> anyhow::Result<Option<SdkTracerProvider>> {
    if std::env::var_os(OTEL_EXPORTER_OTLP_ENDPOINT).is_none_or(|endpoint| endpoint.is_empty()) {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .build()
        .with_context(|| format!("{OTEL_EXPORTER_OTLP_ENDPOINT} cannot be sent to"))?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    Ok(Some(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build()))
}

/// A call of ours as a span: below the one that `TRACEPARENT` names, if it names one.
pub(crate) struct Caller {
    provider: SdkTracerProvider,
    span: Context,
}

impl Caller {
    /// Begins the span of a call and names it to the server, if spans go anywhere.
    ///
    /// # Errors
    /// If the endpoint cannot be one.
    pub(crate) fn begin(method: &'static str, metadata: &mut MetadataMap) -> anyhow::Result<Option<Self>> {
        let Some(provider) = provider("backstop-cli")? else { return Ok(None) };
        let tracer = provider.tracer("backstop");
        let propagator = TraceContextPropagator::new();
        // As build tools hand a trace to what they start.
        let handed: HashMap<String, String> = ["traceparent", "tracestate"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), std::env::var(name.to_ascii_uppercase()).ok()?)))
            .collect();
        let span = tracer
            .span_builder(method)
            .with_kind(SpanKind::Client)
            .with_attributes([KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method)])
            .start_with_context(&tracer, &propagator.extract(&handed));
        let span = Context::new().with_span(span);
        propagator.inject_context(&span, &mut Metadata(metadata));
        Ok(Some(Self { provider, span }))
    }

    /// Ends it, and sends it.
    pub(crate) async fn end(self, failed: bool) {
        if failed {
            self.span.span().set_status(Status::error("the call failed"));
        }
        self.span.span().end();
        // The exporter needs this runtime, which must not be blocked meanwhile. What cannot be sent is not told.
        let _sent_or_not = tokio::task::spawn_blocking(move || self.provider.shutdown()).await;
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) =
            (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value))
        {
            self.0.insert(key, value);
        }
    }
}
