//! What the engine counts. Names as in DESIGN 7; the exporter adds `_total` and the unit.
//!
//! # Invariants
//! * No label is unbounded: definitions, steps, participants, codes and tiers, never a saga id.

use crate::gate::Gate;
use crate::interventions::Interventions;
use crate::ports::store::Retired;
use crate::shared::Shared;
use backstop_core::{Definition, Event, EventKind, Failure, Saga, StepName};
use opentelemetry::metrics::{AsyncInstrument, Counter, Histogram, Meter, UpDownCounter};
use opentelemetry::{KeyValue, global};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Bounds of every time histogram, in seconds: they resolve 0.1 ms to 60 s.
const SECONDS: [f64; 20] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// The instruments.
#[derive(Debug, Clone)]
pub struct Metrics {
    started: Counter<u64>,
    ended: Counter<u64>,
    failures: Counter<u64>,
    duration: Histogram<f64>,
    call: Histogram<f64>,
    overhead: Histogram<f64>,
    append: Histogram<f64>,
    batch: Histogram<u64>,
    live: UpDownCounter<i64>,
    pub(crate) interventions: Arc<Interventions>,
    signals: Counter<u64>,
    lost: Counter<u64>,
    refused: Counter<u64>,
    quarantined: Counter<u64>,
    retired_journals: Counter<u64>,
    retired_sagas: Counter<u64>,
    dropped_partitions: Counter<u64>,
}

/// Shows what is nothing yet as 0, so that a dashboard has it from the first minute on.
pub(crate) fn show_zeros(metrics: &Metrics) {
    metrics.live.add(0, &[]);
    metrics.lost.add(0, &[]);
    metrics.quarantined.add(0, &[]);
    metrics.retired(&Retired::default());
}

/// Reads off a coordinator what changes without an event, and the bounds that it stands at.
pub(crate) fn observe(shared: &Weak<Shared>) {
    let meter = global::meter("backstop");
    let gauge = |name: &'static str, what: &'static str, read: fn(&Shared) -> usize| {
        let coordinator = Weak::clone(shared);
        let observe = move |observer: &dyn AsyncInstrument<u64>| {
            if let Some(shared) = coordinator.upgrade() {
                observer.observe(read(&shared) as u64, &[]);
            }
        };
        let _registered =
            meter.u64_observable_gauge(name).with_description(what).with_callback(observe).build();
    };
    gauge("backstop_live_sagas_max", "Bound of backstop_live_sagas", |shared| shared.settings.live_sagas_max);
    gauge(
        "backstop_interventions",
        "Sagas in the store that wait for a person; the same on every coordinator",
        |shared| usize::try_from(shared.metrics.interventions.open()).unwrap_or(usize::MAX),
    );
    gauge("backstop_journal_queue", "Appends that wait for the journal's writer", |shared| {
        shared.journal.waiting()
    });
    gauge("backstop_journal_queue_max", "Bound of backstop_journal_queue", |shared| {
        shared.settings.journal_queue_max
    });
    gauge("backstop_calls_waiting_max", "Bound of backstop_calls_waiting, for each participant", |shared| {
        shared.settings.calls_waiting_max
    });
    let per_participant = |name: &'static str, what: &'static str, read: fn(&Gate) -> usize| {
        let coordinator = Weak::clone(shared);
        let observe = move |observer: &dyn AsyncInstrument<u64>| {
            for (name, gate) in coordinator.upgrade().iter().flat_map(|shared| shared.gates.all()) {
                observer.observe(read(&gate) as u64, &[KeyValue::new("participant", name.to_string())]);
            }
        };
        let _registered =
            meter.u64_observable_gauge(name).with_description(what).with_callback(observe).build();
    };
    per_participant(
        "backstop_breaker_open",
        "1 while a participant's circuit breaker keeps calls back",
        |gate| usize::from(gate.is_open()),
    );
    per_participant("backstop_calls_in_flight", "Calls that are out to a participant", Gate::in_flight);
    per_participant("backstop_calls_in_flight_max", "Bound of backstop_calls_in_flight", Gate::in_flight_max);
    per_participant("backstop_calls_waiting", "Calls that wait at a participant's gate", Gate::waiting);
    let coordinator = Weak::clone(shared);
    let _registered = meter
        .f64_observable_gauge("backstop_lease_remaining")
        .with_unit("s")
        .with_description("Time until the coordinator's lease runs out unless it is renewed")
        .with_callback(move |observer| {
            if let Some(shared) = coordinator.upgrade() {
                observer.observe(shared.tenure().remaining().as_secs_f64(), &[]);
            }
        })
        .build();
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&global::meter("backstop"))
    }
}

impl Metrics {
    /// Instruments of a meter.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, what: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(what)
                .with_boundaries(SECONDS.to_vec())
                .build()
        };
        let counter =
            |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        Self {
            started: meter.u64_counter("backstop_sagas_started").with_description("Sagas accepted").build(),
            ended: meter
                .u64_counter("backstop_sagas_ended")
                .with_description("Sagas ended, by end state")
                .build(),
            failures: meter
                .u64_counter("backstop_branch_failures")
                .with_description("Failed attempts of branches, as judged")
                .build(),
            duration: seconds("backstop_saga_duration", "From a saga's start to its end"),
            call: seconds("backstop_call_duration", "From dispatch of a call to its answer"),
            overhead: seconds(
                "backstop_overhead",
                "What the coordinator adds to a saga: all but the time of its calls",
            ),
            append: seconds(
                "backstop_journal_append",
                "From handing events to the journal to their being on disk",
            ),
            batch: meter
                .u64_histogram("backstop_journal_batch_events")
                .with_description("Events in one write")
                .with_boundaries(vec![
                    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0,
                ])
                .build(),
            live: meter
                .i64_up_down_counter("backstop_live_sagas")
                .with_description("Sagas in memory")
                .build(),
            interventions: Arc::default(),
            signals: meter
                .u64_counter("backstop_rollback_signals")
                .with_description("Rollback signals, by result")
                .build(),
            lost: counter(
                "backstop_appends_lost",
                "Appends that came too late: another coordinator has the saga",
            ),
            refused: counter("backstop_admissions_refused", "StartSaga calls refused for load, by limit"),
            quarantined: counter(
                "backstop_sagas_quarantined",
                "Sagas set aside: their journals cannot be followed",
            ),
            retired_journals: counter(
                "backstop_retired_journals",
                "Ended sagas whose journals were taken away",
            ),
            retired_sagas: counter("backstop_retired_sagas", "Ended sagas of which nothing is left"),
            dropped_partitions: counter(
                "backstop_dropped_partitions",
                "Partitions of the journal dropped whole",
            ),
        }
    }

    pub(crate) fn live_changed(&self, by: i64) {
        self.live.add(by, &[]);
    }

    pub(crate) fn call_ended(&self, participant: &str, phase: &'static str, elapsed: Duration) {
        let labels = [KeyValue::new("participant", participant.to_owned()), KeyValue::new("phase", phase)];
        self.call.record(elapsed.as_secs_f64(), &labels);
    }

    pub(crate) fn written(&self, events: usize) {
        self.batch.record(events as u64, &[]);
    }

    pub(crate) fn appended(&self, elapsed: Duration) {
        self.append.record(elapsed.as_secs_f64(), &[]);
    }

    /// Another writer was there first.
    pub(crate) fn append_lost(&self) {
        self.lost.add(1, &[]);
    }

    pub(crate) fn refused(&self, limit: &'static str) {
        self.refused.add(1, &[KeyValue::new("limit", limit)]);
    }

    pub(crate) fn quarantined(&self, sagas: u64) {
        self.quarantined.add(sagas, &[]);
        self.interventions.changed();
    }

    /// A saga has come out of quarantine.
    pub(crate) fn released(&self) {
        self.interventions.changed();
    }

    pub(crate) fn retired(&self, bite: &Retired) {
        self.retired_journals.add(bite.journals, &[]);
        self.retired_sagas.add(bite.sagas, &[]);
        self.dropped_partitions.add(bite.partitions, &[]);
    }

    /// Counts what events that are now durable say. `called` is the time during which at least one of the
    /// saga's calls was out.
    pub(crate) fn committed(&self, saga: &Saga, events: &[Event], called: Duration) {
        let definition = saga.definition.reference.name.to_string();
        for event in events {
            match &event.kind {
                EventKind::Started(_) => {
                    self.started.add(1, &[KeyValue::new("definition", definition.clone())])
                }
                EventKind::Succeeded | EventKind::RolledBack => {
                    let state = KeyValue::new("state", saga.state.as_str());
                    let labels = [KeyValue::new("definition", definition.clone()), state];
                    let lasted = event.at.since(saga.started_at);
                    self.ended.add(1, &labels);
                    self.duration.record(lasted.as_secs_f64(), &labels);
                    self.overhead.record(lasted.saturating_sub(called).as_secs_f64(), &labels[..1]);
                }
                EventKind::ActionFailed { step, failure, .. }
                | EventKind::QueryFailed { step, failure, .. }
                | EventKind::CompensationFailed { step, failure, .. } => {
                    self.failures.add(1, &failure_labels(&saga.definition, step, failure));
                }
                EventKind::SignalReported { error, .. } => {
                    let result = if error.is_none() { "delivered" } else { "failed" };
                    self.signals.add(1, &[KeyValue::new("result", result)]);
                }
                EventKind::InterventionOpened
                | EventKind::BranchRetried { .. }
                | EventKind::BranchResolved { .. } => self.interventions.changed(),
                EventKind::Adopted { .. }
                | EventKind::Released
                | EventKind::ActionSucceeded { .. }
                | EventKind::QueryAnswered { .. }
                | EventKind::RollbackDecided { .. }
                | EventKind::CompensationSucceeded { .. } => {}
            }
        }
    }
}

fn failure_labels(definition: &Definition, step: &StepName, failure: &Failure) -> [KeyValue; 6] {
    let participant = definition
        .index_of(step)
        .map_or_else(String::new, |index| definition.steps[index].action.participant.to_string());
    [
        KeyValue::new("definition", definition.reference.name.to_string()),
        KeyValue::new("step", step.to_string()),
        KeyValue::new("participant", participant),
        KeyValue::new("grpc_code", failure.code().name()),
        KeyValue::new("fin_code", failure.fin_code.to_string()),
        KeyValue::new("tier", failure.tier.as_str()),
    ]
}
