//! What the engine counts, as it happens.
//!
//! # Invariants
//! * Events are counted when they are durable, by the coordinator that wrote them, and never when a journal is read:
//!   a takeover counts nothing twice (`metrics_a_takeover_counts_nothing_twice`, on real processes).
//! * No label is unbounded: see [`table`].
//!
//! # Not here
//! Names and what they tell: [`table`]. What is read off a coordinator when somebody asks: [`gauges`].

pub(crate) mod gauges;
mod l1;
pub mod table;

use crate::doctor::Findings;
use crate::interventions::Interventions;
use crate::ports::store::Retired;
use crate::settings::Settings;
use backstop_core::{
    Branch, BranchState, Event, EventKind, Failure, Next, Phase, Saga, Step, StepName, Tier,
};
use l1::{L1Failure, L1Failures};
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use opentelemetry::{KeyValue, global};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use table::Metric;
use tokio::time::Instant;

/// Bounds of every time histogram, in seconds: they resolve 0.1 ms to 60 s.
const SECONDS: [f64; 20] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];
/// Bounds of the histogram of events in one write.
const EVENTS: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// The instruments.
#[derive(Debug, Clone)]
pub struct Metrics {
    started: Counter<u64>,
    ended: Counter<u64>,
    branches: Counter<u64>,
    failures: Counter<u64>,
    stuck: Counter<u64>,
    compensation_retries: Counter<u64>,
    duration: Histogram<f64>,
    call: Histogram<f64>,
    overhead: Histogram<f64>,
    append: Histogram<f64>,
    batch: Histogram<u64>,
    live: UpDownCounter<i64>,
    pub(crate) interventions: Arc<Interventions>,
    pub(crate) findings: Arc<Findings>,
    doctor_runs: Counter<u64>,
    l1_failures: Arc<Mutex<L1Failures>>,
    signals: Counter<u64>,
    lost: Counter<u64>,
    journal_failures: Counter<u64>,
    leases_lost: Counter<u64>,
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
    metrics.journal_failures.add(0, &[]);
    metrics.leases_lost.add(0, &[]);
    metrics.quarantined.add(0, &[]);
    metrics.retired(&Retired::default());
    for result in ["clean", "findings", "failed"] {
        metrics.doctor_runs.add(0, &[KeyValue::new("result", result)]);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::of_process(&Settings::default())
    }
}

impl Metrics {
    /// Instruments of the process's meter.
    #[must_use]
    pub(crate) fn of_process(settings: &Settings) -> Self {
        Self::new(&global::meter("backstop"), settings)
    }

    /// Instruments of a meter.
    #[must_use]
    pub fn new(meter: &Meter, settings: &Settings) -> Self {
        let counter =
            |metric: &Metric| meter.u64_counter(metric.instrument().0).with_description(metric.tells).build();
        let seconds = |metric: &Metric| {
            let (name, unit) = metric.instrument();
            let histogram = meter.f64_histogram(name).with_unit(unit).with_description(metric.tells);
            histogram.with_boundaries(SECONDS.to_vec()).build()
        };
        let batch = meter.u64_histogram(table::JOURNAL_BATCH_EVENTS.instrument().0);
        let live = meter.i64_up_down_counter(table::LIVE_SAGAS.instrument().0);
        Self {
            started: counter(&table::SAGAS_STARTED),
            ended: counter(&table::SAGAS_ENDED),
            branches: counter(&table::BRANCHES),
            failures: counter(&table::BRANCH_FAILURES),
            stuck: counter(&table::BRANCHES_STUCK),
            compensation_retries: counter(&table::COMPENSATION_RETRIES),
            duration: seconds(&table::SAGA_DURATION),
            call: seconds(&table::CALL_DURATION),
            overhead: seconds(&table::OVERHEAD),
            append: seconds(&table::JOURNAL_APPEND),
            batch: batch
                .with_description(table::JOURNAL_BATCH_EVENTS.tells)
                .with_boundaries(EVENTS.to_vec())
                .build(),
            live: live.with_description(table::LIVE_SAGAS.tells).build(),
            interventions: Arc::default(),
            findings: Arc::default(),
            doctor_runs: counter(&table::DOCTOR_RUNS),
            l1_failures: Arc::new(Mutex::new(L1Failures::new(settings.l1_shown_max, settings.l1_shown_for))),
            signals: counter(&table::ROLLBACK_SIGNALS),
            lost: counter(&table::APPENDS_LOST),
            journal_failures: counter(&table::JOURNAL_FAILURES),
            leases_lost: counter(&table::LEASES_LOST),
            refused: counter(&table::ADMISSIONS_REFUSED),
            quarantined: counter(&table::SAGAS_QUARANTINED),
            retired_journals: counter(&table::RETIRED_JOURNALS),
            retired_sagas: counter(&table::RETIRED_SAGAS),
            dropped_partitions: counter(&table::DROPPED_PARTITIONS),
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

    /// The store did not take a write, or did not say whether it took it.
    pub(crate) fn journal_failed(&self) {
        self.journal_failures.add(1, &[]);
    }

    /// The lease has run out although this process lives.
    pub(crate) fn lease_lost(&self) {
        self.leases_lost.add(1, &[]);
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

    /// A run of the doctor ended `clean`, with `findings`, or `failed`.
    pub(crate) fn doctor_ran(&self, result: &'static str) {
        self.doctor_runs.add(1, &[KeyValue::new("result", result)]);
    }

    fn l1_failures(&self) -> MutexGuard<'_, L1Failures> {
        self.l1_failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what events that are now durable say; `saga` is as they have made it. `called` is the time during which
    /// at least one of the saga's calls was out.
    pub(crate) fn committed(&self, saga: &Saga, events: &[Event], called: Duration) {
        let definition = || KeyValue::new("definition", saga.definition.reference.name.to_string());
        for event in events {
            match &event.kind {
                EventKind::Started(_) => self.started.add(1, &[definition()]),
                EventKind::Succeeded | EventKind::RolledBack => {
                    let labels = [definition(), KeyValue::new("state", saga.state.as_str())];
                    let lasted = event.at.since(saga.started_at);
                    self.ended.add(1, &labels);
                    self.duration.record(lasted.as_secs_f64(), &labels);
                    self.overhead.record(lasted.saturating_sub(called).as_secs_f64(), &labels[..1]);
                }
                EventKind::ActionFailed { step, failure, next, .. } => {
                    self.failed(saga, step, Phase::Action, failure, matches!(next, Next::RetryAt(_)));
                }
                EventKind::QueryFailed { step, failure, next, .. } => {
                    self.failed(saga, step, Phase::Query, failure, *next != Next::GiveUp);
                }
                EventKind::CompensationFailed { step, failure, next, .. } => {
                    self.failed(saga, step, Phase::Compensation, failure, *next != Next::GiveUp);
                    let labels = who(saga, step, Phase::Compensation, Some(failure));
                    if *next == Next::GiveUp { &self.stuck } else { &self.compensation_retries }
                        .add(1, &labels);
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
        // Not one event ends a branch's forward path but many kinds do, a rollback's decision several branches at once.
        let Some(first) = events.first() else { return };
        for (index, (step, branch)) in saga.pairs().enumerate() {
            if branch.settled >= Some(first.clock) {
                self.forward_ended(saga, index, step, branch);
            }
        }
    }

    fn forward_ended(&self, saga: &Saga, index: usize, step: &Step, branch: &Branch) {
        let result = match (branch.doubt, &branch.response) {
            (true, _) => "in_doubt",
            (false, Some(_)) => "succeeded",
            (false, None) => "failed",
        };
        let definition = saga.definition.reference.name.to_string();
        self.branches.add(
            1,
            &[
                KeyValue::new("definition", definition),
                KeyValue::new("step", step.name.to_string()),
                KeyValue::new("result", result),
            ],
        );
        // A STUCK one was counted with its compensation's failure.
        if branch.state != BranchState::Stuck && saga.needs_person(index) {
            self.stuck.add(1, &who(saga, &step.name, Phase::Action, branch.failure.as_deref()));
        }
    }

    fn failed(&self, saga: &Saga, step: &StepName, phase: Phase, failure: &Failure, is_tried_again: bool) {
        let [definition, name, participant, fin_code] = who(saga, step, phase, Some(failure));
        if failure.tier == Tier::L1 && !is_tried_again {
            let failure = L1Failure {
                saga: saga.id.to_string(),
                trace: saga.trace_id().unwrap_or_default().to_owned(),
                definition: saga.definition.reference.name.to_string(),
                step: step.to_string(),
                participant: participant.value.to_string(),
                grpc_code: failure.code().name(),
                fin_code: failure.fin_code.to_string(),
            };
            self.l1_failures().happened(failure, Instant::now());
        }
        let grpc_code = KeyValue::new("grpc_code", failure.code().name());
        let tier = KeyValue::new("tier", failure.tier.as_str());
        self.failures.add(1, &[definition, name, participant, grpc_code, fin_code, tier]);
    }
}

/// Which branch, whose service was called, and how that failed.
fn who(saga: &Saga, step: &StepName, phase: Phase, failure: Option<&Failure>) -> [KeyValue; 4] {
    let definition = &saga.definition;
    let call = definition.index_of(step).and_then(|index| definition.steps[index].call(phase));
    [
        KeyValue::new("definition", definition.reference.name.to_string()),
        KeyValue::new("step", step.to_string()),
        KeyValue::new("participant", call.map_or_else(String::new, |call| call.participant.to_string())),
        KeyValue::new("fin_code", failure.map_or_else(String::new, |failure| failure.fin_code.to_string())),
    ]
}
