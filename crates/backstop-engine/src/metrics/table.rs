//! Every metric that a coordinator tells: its name as `/metrics` shows it, its type, its labels, what it tells.
//!
//! Alerts, dashboards and documents are checked against `docs/metrics.md`, which is this table in print.
//!
//! # Invariants
//! * An instrument has its name and description from here and nowhere else: `/metrics` of a coordinator that has done
//!   everything holds these names and no others (`metrics_every_name_in_the_table_is_shown_and_no_other`, on real
//!   processes).
//! * No label is unbounded: definitions, steps, participants, codes and tiers. [`L1_FAILURE`] alone names sagas; how
//!   many and for how long is bounded ([`super::l1`]).
//! * `docs/metrics.md` is this table (`the_document_is_the_table`).
//!
//! # Not here
//! When each is counted: [`super`]. How each is read off: [`super::gauges`].

use std::fmt::Write;

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Shown with the suffixes `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl Kind {
    /// As in a `# TYPE` line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As `/metrics` shows it.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells, in a line.
    pub tells: &'static str,
}

impl Metric {
    /// The name and the unit that make the exporter show [`Metric::name`].
    #[must_use]
    pub fn instrument(&self) -> (&'static str, &'static str) {
        let name = match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        };
        name.strip_suffix("_seconds").map_or((name, ""), |name| (name, "s"))
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], tells: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, tells }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], tells: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, tells }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], tells: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, tells }
}

/// Names each metric once, as a constant and in [`ALL`].
macro_rules! metrics {
    ($($constant:ident = $kind:ident($name:literal, [$($label:literal),*], $tells:literal);)*) => {
        $(#[doc = $tells] pub const $constant: Metric = $kind($name, &[$($label),*], $tells);)*
        /// The whole table, in the order of the document.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    SAGAS_STARTED = counter("backstop_sagas_started_total", ["definition"], "Sagas accepted");
    SAGAS_ENDED = counter("backstop_sagas_ended_total", ["definition", "state"],
        "Sagas ended, by end state: `SUCCEEDED` or `ROLLED_BACK`");
    SAGA_DURATION = histogram("backstop_saga_duration_seconds", ["definition", "state"],
        "From a saga's start to its end");
    OVERHEAD = histogram("backstop_overhead_seconds", ["definition"],
        "What the coordinator adds to a saga: all but the time in which a call of it was out");
    LIVE_SAGAS = gauge("backstop_live_sagas", [], "Sagas in memory");
    LIVE_SAGAS_MAX = gauge("backstop_live_sagas_max", [], "Bound of backstop_live_sagas: past it StartSaga is refused");
    ADMISSIONS_REFUSED = counter("backstop_admissions_refused_total", ["limit"],
        "StartSaga calls refused for load, by the limit that was reached");

    BRANCHES = counter("backstop_branches_total", ["definition", "step", "result"],
        "Branches whose forward path ended: `succeeded`, `failed` (without effect) or `in_doubt`; once more after an operator's retry");
    BRANCH_FAILURES = counter("backstop_branch_failures_total",
        ["definition", "step", "participant", "grpc_code", "fin_code", "tier"],
        "Failed attempts of actions, queries and compensations, as judged");
    BRANCHES_STUCK = counter("backstop_branches_stuck_total", ["definition", "step", "participant", "fin_code"],
        "Branches that became a person's: a compensation STUCK, a pivot in doubt, a step after the pivot failed");
    COMPENSATION_RETRIES = counter("backstop_compensation_retries_total",
        ["definition", "step", "participant", "fin_code"],
        "Failed attempts of compensations that will be tried again");
    L1_FAILURE = gauge("backstop_l1_failure",
        ["saga_id", "trace_id", "definition", "step", "participant", "grpc_code", "fin_code"],
        "1 for each of the newest L1 failures that are not tried again, at most telemetry.l1_shown_max and each for telemetry.l1_shown_for, on the coordinator that saw it");
    ROLLBACK_SIGNALS = counter("backstop_rollback_signals_total", ["result"],
        "Rollback signals: `delivered`, or `failed` after all attempts");

    INTERVENTIONS = gauge("backstop_interventions", [],
        "Sagas in the store that wait for a person, quarantined ones included; the same on every coordinator");
    INTERVENTIONS_BY_DEFINITION = gauge("backstop_interventions_by_definition", ["definition"],
        "The same by definition; not shown for a definition of which none waits");
    INTERVENTION_AGE = gauge("backstop_intervention_age_seconds", ["definition"],
        "How long the one that waits longest has waited since its last event; the same on every coordinator");
    ROLLBACK_AGE = gauge("backstop_rollback_age_seconds", ["definition"],
        "Time since the start of the oldest saga that is ROLLING_BACK; the same on every coordinator");
    SAGAS_QUARANTINED = counter("backstop_sagas_quarantined_total", [],
        "Sagas that this coordinator has set aside: their journals cannot be followed");

    CALL_DURATION = histogram("backstop_call_duration_seconds", ["participant", "phase"],
        "From dispatch of a call to its answer");
    CALLS_IN_FLIGHT = gauge("backstop_calls_in_flight", ["participant"], "Calls that are out to a participant");
    CALLS_IN_FLIGHT_MAX = gauge("backstop_calls_in_flight_max", ["participant"], "Bound of backstop_calls_in_flight");
    CALLS_WAITING = gauge("backstop_calls_waiting", ["participant"], "Calls that wait at a participant's gate");
    CALLS_WAITING_MAX = gauge("backstop_calls_waiting_max", [], "Bound of backstop_calls_waiting, for each participant");
    BREAKER_OPEN = gauge("backstop_breaker_open", ["participant"],
        "1 while a participant's circuit breaker keeps calls back");

    JOURNAL_APPEND = histogram("backstop_journal_append_seconds", [],
        "From handing events to the journal to their being on disk");
    JOURNAL_BATCH_EVENTS = histogram("backstop_journal_batch_events", [], "Events in one write");
    JOURNAL_QUEUE = gauge("backstop_journal_queue", [], "Appends that wait for the journal's writer");
    JOURNAL_QUEUE_MAX = gauge("backstop_journal_queue_max", [], "Bound of backstop_journal_queue");
    JOURNAL_FAILURES = counter("backstop_journal_failures_total", [],
        "Writes that the store did not take, or did not say whether it took; each is tried again");
    APPENDS_LOST = counter("backstop_appends_lost_total", [],
        "Appends that came too late: another coordinator has the saga");

    LEASE_REMAINING = gauge("backstop_lease_remaining_seconds", [],
        "Time until the coordinator's lease runs out unless it is renewed");
    LEASES_LOST = counter("backstop_leases_lost_total", [],
        "Leases that ran out although the process lived: it begins anew, its sagas are taken over");

    DOCTOR_FINDINGS = gauge("backstop_doctor_findings", ["kind"],
        "Findings of the newest run of the doctor on this coordinator that ended, by kind (RunDoctor's names in lower case: `saga_forsaken` …); 0 for a kind that is well; not shown before the first run");
    DOCTOR_RUNS = counter("backstop_doctor_runs_total", ["result"],
        "Runs of the doctor, by itself or asked for: `clean`, `findings` or `failed`");

    RETIRED_JOURNALS = counter("backstop_retired_journals_total", [], "Ended sagas whose journals were taken away");
    RETIRED_SAGAS = counter("backstop_retired_sagas_total", [], "Ended sagas of which nothing is left");
    DROPPED_PARTITIONS = counter("backstop_dropped_partitions_total", [], "Partitions of the journal dropped whole");

    SPANS_EXPORTED = counter("backstop_spans_exported_total", [], "Spans that the collector took");
    SPANS_DROPPED = counter("backstop_spans_dropped_total", ["reason"],
        "Spans that were not sent: `queue_full`, `export_failed`, or `retelling_queue_full` (one for each saga)");
    BUILD_INFO = gauge("backstop_build_info", ["version"], "1, with the version of the program");
}

/// The table as `docs/metrics.md` has it.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(HEAD);
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind.as_str(), metric.tells);
    }
    text
}

const HEAD: &str = "\
# Metrics

Every metric that a coordinator tells on `/metrics` and over OTLP, under the names that Prometheus shows. A histogram
has the suffixes `_bucket`, `_sum` and `_count`. Beside these the exporter itself tells `target_info`, the resource's
attributes. A metric with the label `step` has room for 20,000 series; what is new past that is counted under
`otel_metric_overflow=\"true\"`.

This page is made of `crates/backstop-engine/src/metrics/table.rs`; a test compares the two, and
`BACKSTOP_TEST_REWRITE=1 cargo test -p backstop-engine the_document_is_the_table` writes it anew.

What is \"the same on every coordinator\" is counted in the store: take `max` over the instances, never `sum`. All else is
each coordinator's own. A counter with labels (all but `backstop_doctor_runs_total`) is told from its first count on; until then there is no
series, not a 0. So `increase()` does not see the first count of a series, which appears as 1: what must not be missed
is alerted on by a gauge.

| name | type | labels | what it tells |
| --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_document_is_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        if std::env::var_os("BACKSTOP_TEST_REWRITE").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), document(), "{}", path.display());
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} is there twice", metric.name);
            assert!(metric.name.starts_with("backstop_"), "{}", metric.name);
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.tells.contains(['|', '\n']), "{} breaks its line", metric.name);
        }
        assert_eq!(SAGA_DURATION.instrument(), ("backstop_saga_duration", "s"));
        assert_eq!(SAGAS_STARTED.instrument(), ("backstop_sagas_started", ""));
        assert_eq!(LIVE_SAGAS.instrument(), ("backstop_live_sagas", ""));
    }
}
