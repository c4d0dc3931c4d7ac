//! A saga's trace: spans made of its events, handed to an exporter.
//!
//! The spans of our own RPCs and of rollback signals are `tracing` spans; those of calls and appends are made here, of
//! what is durable. So a saga that is not sampled and succeeds costs no span at all, one that fails is told whole, and a
//! coordinator that takes a saga over tells it under the same ids.
//!
//! # Not here
//! When a story is told: `backstop_engine::retelling` and the runner. Queue and export: whoever gives the processor.

pub(crate) mod place;
mod spans;

use backstop_core::Saga;
use backstop_engine::metrics::table;
use backstop_engine::ports::traces::{Chapter, Traces};
use opentelemetry::metrics::Counter;
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::trace::SpanProcessor;
use std::sync::Arc;

/// Hands spans to a processor, which must neither wait nor fail.
#[derive(Debug)]
pub struct SagaSpans {
    processor: Arc<dyn SpanProcessor>,
    dropped: Counter<u64>,
}

impl SagaSpans {
    /// Spans for this processor; what is not told at all counts as dropped on the global meter.
    #[must_use]
    pub fn new(processor: Arc<dyn SpanProcessor>) -> Self {
        let (name, _) = table::SPANS_DROPPED.instrument();
        let dropped =
            global::meter("backstop").u64_counter(name).with_description(table::SPANS_DROPPED.tells).build();
        Self { processor, dropped }
    }
}

impl Traces for SagaSpans {
    fn wants(&self, saga: &Saga) -> bool {
        place::is_told(saga)
    }

    fn tell(&self, chapter: &Chapter<'_>) {
        for span in spans::of(chapter) {
            self.processor.on_end(span);
        }
    }

    fn untold(&self, sagas: u64) {
        self.dropped.add(sagas, &[KeyValue::new("reason", "retelling_queue_full")]);
    }
}
