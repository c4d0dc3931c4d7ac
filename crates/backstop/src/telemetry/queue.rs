//! The queue before the exporter of spans, which counts what it drops: the SDK's batch processor keeps that number to
//! itself.
//!
//! # Invariants
//! * Nothing waits: what finds the queue full, and what the collector does not take, is counted and gone
//!   (`a_collector_that_is_not_there_holds_up_nothing`).

use crate::config::SpansQueue;
use backstop_engine::metrics::table::{self, Metric};
use opentelemetry::metrics::Counter;
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A bounded queue of spans, and the thread that sends them.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    batches: Arc<BatchSpanProcessor>,
    counts: Arc<Counts>,
    max: usize,
}

/// What has become of spans.
#[derive(Debug)]
struct Counts {
    waiting: AtomicUsize,
    exported: Counter<u64>,
    dropped: Counter<u64>,
}

impl Queue {
    /// A queue before this exporter. Its counters are on the global meter.
    pub(super) fn new(
        mut exporter: impl SpanExporter + 'static,
        settings: SpansQueue,
        resource: &Resource,
    ) -> Self {
        exporter.set_resource(resource);
        let meter = global::meter("backstop");
        let counter =
            |metric: &Metric| meter.u64_counter(metric.instrument().0).with_description(metric.tells).build();
        let (exported, dropped) = (counter(&table::SPANS_EXPORTED), counter(&table::SPANS_DROPPED));
        exported.add(0, &[]);
        for reason in ["queue_full", "export_failed", "retelling_queue_full"] {
            dropped.add(0, &[KeyValue::new("reason", reason)]);
        }
        let counts = Arc::new(Counts { waiting: AtomicUsize::new(0), exported, dropped });
        let config = BatchConfigBuilder::default()
            // The bound is kept here, where it is counted.
            .with_max_queue_size(settings.queue_max.saturating_add(1))
            .with_max_export_batch_size(settings.batch_max)
            .with_scheduled_delay(settings.every)
            .build();
        let exporter = Counting { exporter, counts: Arc::clone(&counts) };
        let batches = Arc::new(BatchSpanProcessor::new(exporter, config));
        Self { batches, counts, max: settings.queue_max }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.counts.waiting.fetch_add(1, Ordering::Relaxed) < self.max {
            self.batches.on_end(span);
        } else {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.add(1, &[KeyValue::new("reason", "queue_full")]);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }
}

/// An exporter that tells how it went.
#[derive(Debug)]
struct Counting<E> {
    exporter: E,
    counts: Arc<Counts>,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        let number = spans as u64;
        match &result {
            Ok(()) => self.counts.exported.add(number, &[]),
            Err(_) => self.counts.dropped.add(number, &[KeyValue::new("reason", "export_failed")]),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
