//! How the coordinators are: rate, errors and duration; what they add; the journal; what they stand at.

use super::super::grafana::Shape::{Lines, Number, Stack};
use super::super::grafana::{Dashboard, Panel, Row};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    name: "service",
    title: "Backstop: service",
    choices: &[("instance", "backstop_live_sagas"), ("participant", "backstop_calls_in_flight_max")],
    rows: &[
        Row {
            title: "At a glance",
            panels: &[
                Panel {
                    title: "Coordinators down",
                    words: "Coordinators that Prometheus does not reach. The others take their sagas over.",
                    unit: "none",
                    shape: Number(1),
                    queries: &[(r#"count(up{job="backstop"} == 0) or vector(0)"#, "down")],
                },
                Panel {
                    title: "Interventions open",
                    words: "Sagas that wait for a person. More on the dashboard Money.",
                    unit: "none",
                    shape: Number(1),
                    queries: &[("max(backstop_interventions)", "open")],
                },
                Panel {
                    title: "Breakers open",
                    words: "Participants that take no calls.",
                    unit: "none",
                    shape: Number(1),
                    queries: &[("sum(max by (participant) (backstop_breaker_open))", "open")],
                },
                Panel {
                    title: "StartSaga refused",
                    words: "Refused for load within five minutes, by the bound that was reached.",
                    unit: "none",
                    shape: Number(1),
                    queries: &[(
                        "sum by (limit) (increase(backstop_admissions_refused_total[5m]))",
                        "{{limit}}",
                    )],
                },
                Panel {
                    title: "Doctor's findings",
                    words: "Of the newest run, by kind. Anything but 0 is somebody's hand in the database, or a fault of ours.",
                    unit: "none",
                    shape: Number(1),
                    queries: &[("max by (kind) (backstop_doctor_findings)", "{{kind}}")],
                },
                Panel {
                    title: "Versions",
                    words: "Coordinators by version: two only while an upgrade rolls.",
                    unit: "none",
                    shape: Number(1000),
                    queries: &[("count by (version) (backstop_build_info)", "{{version}}")],
                },
            ],
        },
        Row {
            title: "Sagas: rate, errors, duration",
            panels: &[
                Panel {
                    title: "Sagas started and ended",
                    words: "In a second, over all coordinators. Where more start than end, live sagas grow.",
                    unit: "ops",
                    shape: Lines,
                    queries: &[
                        (
                            r#"sum(rate(backstop_sagas_started_total{instance=~"$instance"}[$__rate_interval]))"#,
                            "started",
                        ),
                        (
                            r#"sum by (state) (rate(backstop_sagas_ended_total{instance=~"$instance"}[$__rate_interval]))"#,
                            "{{state}}",
                        ),
                    ],
                },
                Panel {
                    title: "Failed attempts of calls, by tier",
                    words: "L1 blocks and pages, L2 degrades and is tried again, L3 is a refusal by the business.",
                    unit: "ops",
                    shape: Stack,
                    queries: &[(
                        r#"sum by (tier) (rate(backstop_branch_failures_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "{{tier}}",
                    )],
                },
                Panel {
                    title: "A saga's duration",
                    words: "From its start to its end, participants' time and all.",
                    unit: "s",
                    shape: Lines,
                    queries: &[
                        (
                            r#"histogram_quantile(0.5, sum by (le) (rate(backstop_saga_duration_seconds_bucket{instance=~"$instance"}[$__rate_interval])))"#,
                            "p50",
                        ),
                        (
                            r#"histogram_quantile(0.99, sum by (le) (rate(backstop_saga_duration_seconds_bucket{instance=~"$instance"}[$__rate_interval])))"#,
                            "p99",
                        ),
                    ],
                },
            ],
        },
        Row {
            title: "What the coordinator adds, and what it waits for",
            panels: &[
                Panel {
                    title: "Overhead of a saga",
                    words: "What the coordinator itself adds: all but the time in which a call is out.",
                    unit: "s",
                    shape: Lines,
                    queries: &[
                        (
                            r#"histogram_quantile(0.5, sum by (le) (rate(backstop_overhead_seconds_bucket{instance=~"$instance"}[$__rate_interval])))"#,
                            "p50",
                        ),
                        (
                            r#"histogram_quantile(0.99, sum by (le) (rate(backstop_overhead_seconds_bucket{instance=~"$instance"}[$__rate_interval])))"#,
                            "p99",
                        ),
                    ],
                },
                Panel {
                    title: "Calls in a second",
                    words: "To each participant, by phase: actions, compensations and queries.",
                    unit: "ops",
                    shape: Lines,
                    queries: &[(
                        r#"sum by (participant, phase) (rate(backstop_call_duration_seconds_count{participant=~"$participant"}[$__rate_interval]))"#,
                        "{{participant}} {{phase}}",
                    )],
                },
                Panel {
                    title: "Time of a call, p99",
                    words: "From dispatch to answer, for each participant: who is slow.",
                    unit: "s",
                    shape: Lines,
                    queries: &[(
                        r#"histogram_quantile(0.99, sum by (participant, le) (rate(backstop_call_duration_seconds_bucket{participant=~"$participant"}[$__rate_interval])))"#,
                        "{{participant}}",
                    )],
                },
            ],
        },
        Row {
            title: "The journal",
            panels: &[
                Panel {
                    title: "An append's time",
                    words: "From handing events over to their being on disk. A saga waits for at least two; above 100 ms (p99) there is a ticket.",
                    unit: "s",
                    shape: Lines,
                    queries: &[
                        (
                            r#"histogram_quantile(0.5, sum by (instance, le) (rate(backstop_journal_append_seconds_bucket{instance=~"$instance"}[$__rate_interval])))"#,
                            "p50 {{instance}}",
                        ),
                        (
                            r#"histogram_quantile(0.99, sum by (instance, le) (rate(backstop_journal_append_seconds_bucket{instance=~"$instance"}[$__rate_interval])))"#,
                            "p99 {{instance}}",
                        ),
                    ],
                },
                Panel {
                    title: "Events in one write",
                    words: "On average. It grows with the load by itself: that is group commit.",
                    unit: "none",
                    shape: Lines,
                    queries: &[(
                        r#"sum by (instance) (rate(backstop_journal_batch_events_sum{instance=~"$instance"}[$__rate_interval])) / sum by (instance) (rate(backstop_journal_batch_events_count{instance=~"$instance"}[$__rate_interval]))"#,
                        "{{instance}}",
                    )],
                },
                Panel {
                    title: "Queue, as a share of its bound",
                    words: "Appends that wait for the writer. At 100 % StartSaga is refused.",
                    unit: "percentunit",
                    shape: Lines,
                    queries: &[(
                        r#"backstop_journal_queue{instance=~"$instance"} / backstop_journal_queue_max{instance=~"$instance"}"#,
                        "{{instance}}",
                    )],
                },
                Panel {
                    title: "Writes that Postgres did not take",
                    words: "They are repeated. Late appends are those of a coordinator that had lost the saga: after a freeze, nothing to mend.",
                    unit: "ops",
                    shape: Lines,
                    queries: &[
                        (
                            r#"sum by (instance) (rate(backstop_journal_failures_total{instance=~"$instance"}[$__rate_interval]))"#,
                            "failed {{instance}}",
                        ),
                        (
                            r#"sum by (instance) (rate(backstop_appends_lost_total{instance=~"$instance"}[$__rate_interval]))"#,
                            "too late {{instance}}",
                        ),
                    ],
                },
            ],
        },
        Row {
            title: "Bounds and leases",
            panels: &[
                Panel {
                    title: "Live sagas, as a share of the bound",
                    words: "Sagas in memory. At 100 % StartSaga is refused.",
                    unit: "percentunit",
                    shape: Lines,
                    queries: &[(
                        r#"backstop_live_sagas{instance=~"$instance"} / backstop_live_sagas_max{instance=~"$instance"}"#,
                        "{{instance}}",
                    )],
                },
                Panel {
                    title: "Lease left",
                    words: "Renewed every second and good for five: between 4 and 5 while all is well. At 0 the coordinator calls nobody.",
                    unit: "s",
                    shape: Lines,
                    queries: &[
                        (r#"backstop_lease_remaining_seconds{instance=~"$instance"}"#, "{{instance}}"),
                        (
                            r#"increase(backstop_leases_lost_total{instance=~"$instance"}[$__rate_interval])"#,
                            "lost {{instance}}",
                        ),
                    ],
                },
                Panel {
                    title: "Calls out, as a share of the bound",
                    words: "To each participant. At 100 % further calls wait at its gate.",
                    unit: "percentunit",
                    shape: Lines,
                    queries: &[(
                        r#"sum by (participant) (backstop_calls_in_flight{participant=~"$participant"}) / sum by (participant) (backstop_calls_in_flight_max{participant=~"$participant"})"#,
                        "{{participant}}",
                    )],
                },
                Panel {
                    title: "Calls at the gate, as a share of the bound",
                    words: "At 100 % StartSaga of a definition that calls this participant is refused.",
                    unit: "percentunit",
                    shape: Lines,
                    queries: &[(
                        r#"max by (participant) (backstop_calls_waiting{participant=~"$participant"}) / on () group_left () max(backstop_calls_waiting_max)"#,
                        "{{participant}}",
                    )],
                },
            ],
        },
        Row {
            title: "Participants and telemetry",
            panels: &[
                Panel {
                    title: "Circuit breakers",
                    words: "1 while a participant takes no calls.",
                    unit: "none",
                    shape: Lines,
                    queries: &[(
                        r#"max by (participant) (backstop_breaker_open{participant=~"$participant"})"#,
                        "{{participant}}",
                    )],
                },
                Panel {
                    title: "Rollback signals",
                    words: "Told to listeners, by result. They are news: a lost one holds nothing up.",
                    unit: "ops",
                    shape: Lines,
                    queries: &[(
                        "sum by (result) (rate(backstop_rollback_signals_total[$__rate_interval]))",
                        "{{result}}",
                    )],
                },
                Panel {
                    title: "Spans",
                    words: "Exported and dropped. No saga waits for one; the journal has everything.",
                    unit: "ops",
                    shape: Lines,
                    queries: &[
                        (
                            r#"sum(rate(backstop_spans_exported_total{instance=~"$instance"}[$__rate_interval]))"#,
                            "exported",
                        ),
                        (
                            r#"sum by (reason) (rate(backstop_spans_dropped_total{instance=~"$instance"}[$__rate_interval]))"#,
                            "dropped: {{reason}}",
                        ),
                    ],
                },
                Panel {
                    title: "Retention",
                    words: "Ended sagas whose journals, and of which the ids, were taken away; partitions dropped whole.",
                    unit: "ops",
                    shape: Lines,
                    queries: &[
                        ("sum(rate(backstop_retired_journals_total[$__rate_interval]))", "journals"),
                        ("sum(rate(backstop_retired_sagas_total[$__rate_interval]))", "ids"),
                        ("sum(rate(backstop_dropped_partitions_total[$__rate_interval]))", "partitions"),
                    ],
                },
            ],
        },
    ],
};
