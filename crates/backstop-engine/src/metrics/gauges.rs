//! What is read off a coordinator whenever somebody asks: it changes without an event, or is a bound.
//!
//! # Not here
//! What is counted as it happens: [`super::Metrics`].

use super::table::{self, Metric};
use crate::gate::Gate;
use crate::ports::store::Unsettled;
use crate::shared::Shared;
use backstop_core::Timestamp;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use opentelemetry::{KeyValue, global};
use std::sync::Weak;
use tokio::time::Instant;

/// What a gauge says at one look: a value and its labels.
type Reading<T> = (T, Vec<KeyValue>);

/// The gauges of one coordinator. They say nothing any more once it is gone.
struct Gauges {
    meter: Meter,
    coordinator: Weak<Shared>,
}

impl Gauges {
    fn counts(&self, metric: &Metric, read: fn(&Shared) -> Vec<Reading<u64>>) {
        let ((name, _), coordinator) = (metric.instrument(), Weak::clone(&self.coordinator));
        let _registered = self
            .meter
            .u64_observable_gauge(name)
            .with_description(metric.tells)
            .with_callback(move |observer| observe(&coordinator, read, observer))
            .build();
    }

    fn seconds(&self, metric: &Metric, read: fn(&Shared) -> Vec<Reading<f64>>) {
        let ((name, unit), coordinator) = (metric.instrument(), Weak::clone(&self.coordinator));
        let _registered = self
            .meter
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(metric.tells)
            .with_callback(move |observer| observe(&coordinator, read, observer))
            .build();
    }
}

fn observe<T>(
    coordinator: &Weak<Shared>,
    read: fn(&Shared) -> Vec<Reading<T>>,
    observer: &dyn AsyncInstrument<T>,
) {
    for (value, labels) in coordinator.upgrade().iter().flat_map(|shared| read(shared)) {
        observer.observe(value, &labels);
    }
}

/// Makes them all.
pub(crate) fn observe_coordinator(shared: &Weak<Shared>) {
    let gauges = Gauges { meter: global::meter("backstop"), coordinator: Weak::clone(shared) };
    gauges.counts(&table::LIVE_SAGAS_MAX, |shared| one(shared.settings.live_sagas_max));
    gauges.counts(&table::JOURNAL_QUEUE, |shared| one(shared.journal.waiting()));
    gauges.counts(&table::JOURNAL_QUEUE_MAX, |shared| one(shared.settings.journal_queue_max));
    gauges.counts(&table::CALLS_WAITING_MAX, |shared| one(shared.settings.calls_waiting_max));
    gauges.counts(&table::BREAKER_OPEN, |shared| per_participant(shared, |gate| usize::from(gate.is_open())));
    gauges.counts(&table::CALLS_IN_FLIGHT, |shared| per_participant(shared, Gate::in_flight));
    gauges.counts(&table::CALLS_IN_FLIGHT_MAX, |shared| per_participant(shared, Gate::in_flight_max));
    gauges.counts(&table::CALLS_WAITING, |shared| per_participant(shared, Gate::waiting));
    gauges.seconds(&table::LEASE_REMAINING, |shared| {
        vec![(shared.tenure().remaining().as_secs_f64(), Vec::new())]
    });
    gauges.counts(&table::L1_FAILURE, l1_failures);
    gauges.counts(&table::INTERVENTIONS, |shared| vec![(shared.metrics.interventions.open(), Vec::new())]);
    gauges.counts(&table::INTERVENTIONS_BY_DEFINITION, |shared| {
        by_definition(shared, |of| (of.waiting > 0).then_some(of.waiting))
    });
    gauges.counts(&table::DOCTOR_FINDINGS, |shared| {
        let counted = shared.metrics.findings.counted().into_iter();
        counted.map(|(kind, count)| (count, vec![KeyValue::new("kind", kind.as_str())])).collect()
    });
    gauges.seconds(&table::INTERVENTION_AGE, |shared| ages(shared, |of| of.waiting_since));
    gauges.seconds(&table::ROLLBACK_AGE, |shared| ages(shared, |of| of.rolling_back_since));
}

fn one(value: usize) -> Vec<Reading<u64>> {
    vec![(value as u64, Vec::new())]
}

fn per_participant(shared: &Shared, read: fn(&Gate) -> usize) -> Vec<Reading<u64>> {
    let label = |name: &dyn ToString| vec![KeyValue::new("participant", name.to_string())];
    shared.gates.all().into_iter().map(|(name, gate)| (read(&gate) as u64, label(&name))).collect()
}

fn by_definition<T>(shared: &Shared, read: impl Fn(&Unsettled) -> Option<T>) -> Vec<Reading<T>> {
    let counted = shared.metrics.interventions.counted();
    let reading = |of: &Unsettled| {
        read(of).map(|value| (value, vec![KeyValue::new("definition", of.definition.to_string())]))
    };
    counted.iter().filter_map(reading).collect()
}

fn ages(shared: &Shared, since: fn(&Unsettled) -> Option<Timestamp>) -> Vec<Reading<f64>> {
    let now = shared.clock.now();
    by_definition(shared, |of| since(of).map(|at| now.since(at).as_secs_f64()))
}

fn l1_failures(shared: &Shared) -> Vec<Reading<u64>> {
    let failures = shared.metrics.l1_failures();
    let labels = failures.shown(Instant::now()).map(|failure| {
        vec![
            KeyValue::new("saga_id", failure.saga.clone()),
            KeyValue::new("trace_id", failure.trace.clone()),
            KeyValue::new("definition", failure.definition.clone()),
            KeyValue::new("step", failure.step.clone()),
            KeyValue::new("participant", failure.participant.clone()),
            KeyValue::new("grpc_code", failure.grpc_code),
            KeyValue::new("fin_code", failure.fin_code.clone()),
        ]
    });
    labels.map(|labels| (1, labels)).collect()
}
