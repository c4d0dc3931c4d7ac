//! Logs, traces and metrics of a server: set up once, flushed at the end.
//!
//! Trace ids exist also when nothing is exported, so that errors and logs always name one.

mod outside;
mod queue;

pub(crate) use outside::{Caller, service_spans};

use crate::config::Telemetry;
use anyhow::Context;
use backstop_engine::metrics::table;
use backstop_engine::ports::traces::{NoTraces, Traces};
use backstop_rpc::traces::SagaSpans;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use queue::Queue;
use std::io::IsTerminal;
use std::sync::Arc;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Most time series of one metric that tells steps apart. Past it the library counts what is new under
/// `otel_metric_overflow="true"` and under no name; its own limit of 2,000 would be reached with a few hundred steps.
const SERIES_BY_STEP_MAX: usize = 20_000;

/// What has to be flushed at the end.
pub(crate) struct Running {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
    /// What `/metrics` shows.
    pub(crate) registry: prometheus::Registry,
    /// Where sagas' spans go.
    pub(crate) sagas: Arc<dyn Traces>,
}

/// Sets everything up for this process.
pub(crate) fn start(settings: &Telemetry) -> anyhow::Result<Running> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let resource = Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let registry = prometheus::Registry::new();
    let metrics = metrics(settings, resource.clone(), &registry)?;
    // The meter comes first: the queue of spans counts on it.
    global::set_meter_provider(metrics.clone());
    let (traces, sagas) = traces(settings, resource)?;
    global::set_tracer_provider(traces.clone());
    tell_version();
    // A line says itself which saga it is about; the spans around it are for traces.
    let filter = || -> anyhow::Result<_> {
        let filter = EnvFilter::try_new(&settings.log_filter).context("telemetry.log_filter")?;
        Ok(filter.and(filter_fn(|metadata| metadata.is_event())))
    };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let log = if settings.json {
        log.json().flatten_event(true).with_filter(filter()?).boxed()
    } else {
        log.with_target(false).with_filter(filter()?).boxed()
    };
    let started = match settings.otlp_endpoint {
        // Nobody would see them, so none is made. (A layer that is `None` will not do: it wants every span of every
        // library, which took a third of all instructions.)
        None => tracing_subscriber::registry().with(log).try_init(),
        // Spans are for traces whatever the log shows; those of libraries are not ours to export.
        Some(_) => {
            let spans = tracing_opentelemetry::layer()
                .with_tracer(traces.tracer("backstop"))
                .with_filter(EnvFilter::new("off,backstop=info,backstop_rpc=info,backstop_engine=info"));
            tracing_subscriber::registry().with(log).with(spans).try_init()
        }
    };
    started.context("a logger is set up already")?;
    Ok(Running { traces, metrics, registry, sagas })
}

/// The provider of `tracing` spans, and the way of sagas' own spans: one queue, one exporter.
fn traces(settings: &Telemetry, resource: Resource) -> anyhow::Result<(SdkTracerProvider, Arc<dyn Traces>)> {
    let builder = SdkTracerProvider::builder().with_resource(resource.clone());
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok((builder.with_sampler(Sampler::AlwaysOff).build(), Arc::new(NoTraces)));
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(settings.spans.timeout)
        .build()
        .context("the exporter of traces")?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio)));
    let queue = Queue::new(exporter, settings.spans, &resource);
    let sagas = Arc::new(SagaSpans::new(Arc::new(queue.clone())));
    Ok((builder.with_sampler(sampler).with_span_processor(queue).build(), sagas))
}

fn metrics(
    settings: &Telemetry,
    resource: Resource,
    registry: &prometheus::Registry,
) -> anyhow::Result<SdkMeterProvider> {
    let exposed = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()
        .context("the exporter of /metrics")?;
    let mut builder =
        SdkMeterProvider::builder().with_resource(resource).with_reader(exposed).with_view(room_for_steps);
    if let Some(endpoint) = &settings.otlp_endpoint {
        let exporter = opentelemetry_otlp::MetricExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .context("the exporter of metrics")?;
        builder = builder.with_periodic_exporter(exporter);
    }
    Ok(builder.build())
}

/// Room for every step of many definitions, where a metric tells them apart.
fn room_for_steps(instrument: &Instrument) -> Option<Stream> {
    let is_it = |metric: &&table::Metric| metric.instrument().0 == instrument.name();
    let metric = table::ALL.iter().find(is_it)?;
    let by_step = metric.labels.contains(&"step");
    by_step.then(|| Stream::builder().with_cardinality_limit(SERIES_BY_STEP_MAX).build().ok()).flatten()
}

/// Tells which version runs, so that a roll-out can be seen.
fn tell_version() {
    let _registered = global::meter("backstop")
        .u64_observable_gauge(table::BUILD_INFO.instrument().0)
        .with_description(table::BUILD_INFO.tells)
        .with_callback(|observer| observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]))
        .build();
}

impl Running {
    /// Sends what has not been sent yet.
    pub(crate) fn stop(self) {
        let stopped = [("traces", self.traces.shutdown()), ("metrics", self.metrics.shutdown())];
        for (what, result) in stopped {
            if let Err(error) = result {
                tracing::warn!(%error, "the last {what} could not be sent");
            }
        }
    }
}
