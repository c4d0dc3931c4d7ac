//! Where the money is: what ended how, what failed and at whom, what is stuck and waits for a person.

use super::super::grafana::Shape::{Lines, Number, Stack, Table};
use super::super::grafana::{Dashboard, Panel, Row};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    name: "money",
    title: "Backstop: money",
    choices: &[("definition", "backstop_sagas_started_total")],
    rows: &[
        Row {
            title: "Needs a person",
            panels: &[
                Panel {
                    title: "Interventions open",
                    words: "Sagas in NEEDS_INTERVENTION, by definition. What they are: backstop intervention list.",
                    unit: "none",
                    shape: Number(1),
                    queries: &[(
                        r#"max by (definition) (backstop_interventions_by_definition{definition=~"$definition"})"#,
                        "{{definition}}",
                    )],
                },
                Panel {
                    title: "Waits longest",
                    words: "How long the intervention that waits longest has waited. An hour pages again.",
                    unit: "s",
                    shape: Number(3600),
                    queries: &[(
                        r#"max by (definition) (backstop_intervention_age_seconds{definition=~"$definition"})"#,
                        "{{definition}}",
                    )],
                },
                Panel {
                    title: "Oldest rollback",
                    words: "Age of the oldest saga that still rolls back: somebody's money is booked and should not be. Ten minutes page.",
                    unit: "s",
                    shape: Number(600),
                    queries: &[(
                        r#"max by (definition) (backstop_rollback_age_seconds{definition=~"$definition"})"#,
                        "{{definition}}",
                    )],
                },
                Panel {
                    title: "Quarantined",
                    words: "Sagas set aside since the coordinators started, because their journals cannot be followed.",
                    unit: "none",
                    shape: Number(1),
                    queries: &[("sum(backstop_sagas_quarantined_total)", "set aside")],
                },
            ],
        },
        Row {
            title: "The newest failures of tier L1",
            panels: &[Panel {
                title: "L1, with the saga and its trace",
                words: "Each for ten minutes after it happened. backstop saga show SAGA_ID tells its story; the trace id leads to its trace.",
                unit: "none",
                shape: Table,
                queries: &[(
                    r#"max by (saga_id, trace_id, definition, step, participant, grpc_code, fin_code) (backstop_l1_failure{definition=~"$definition"})"#,
                    "",
                )],
            }],
        },
        Row {
            title: "How sagas end",
            panels: &[
                Panel {
                    title: "Sagas ended",
                    words: "In a second, by definition and end state.",
                    unit: "ops",
                    shape: Stack,
                    queries: &[(
                        r#"sum by (definition, state) (rate(backstop_sagas_ended_total{definition=~"$definition"}[$__rate_interval]))"#,
                        "{{definition}} {{state}}",
                    )],
                },
                Panel {
                    title: "Share that is rolled back",
                    words: "Of the sagas that ended.",
                    unit: "percentunit",
                    shape: Lines,
                    queries: &[(
                        r#"sum by (definition) (rate(backstop_sagas_ended_total{definition=~"$definition", state="ROLLED_BACK"}[$__rate_interval])) / sum by (definition) (rate(backstop_sagas_ended_total{definition=~"$definition"}[$__rate_interval]))"#,
                        "{{definition}}",
                    )],
                },
                Panel {
                    title: "Share of failed branches",
                    words: "Failed or in doubt, over ten minutes. Above 0.5 % and at least five: a page.",
                    unit: "percentunit",
                    shape: Lines,
                    queries: &[(
                        r#"sum by (definition) (increase(backstop_branches_total{definition=~"$definition", result!="succeeded"}[10m])) / sum by (definition) (increase(backstop_branches_total{definition=~"$definition"}[10m]))"#,
                        "{{definition}}",
                    )],
                },
            ],
        },
        Row {
            title: "What fails, and at whom",
            panels: &[
                Panel {
                    title: "Failed attempts by FIN code",
                    words: "What each code means: docs/errors.",
                    unit: "ops",
                    shape: Stack,
                    queries: &[(
                        r#"sum by (fin_code, tier) (rate(backstop_branch_failures_total{definition=~"$definition"}[$__rate_interval]))"#,
                        "{{fin_code}} {{tier}}",
                    )],
                },
                Panel {
                    title: "Failed attempts by participant",
                    words: "Whose answers, and which status.",
                    unit: "ops",
                    shape: Stack,
                    queries: &[(
                        r#"sum by (participant, grpc_code) (rate(backstop_branch_failures_total{definition=~"$definition"}[$__rate_interval]))"#,
                        "{{participant}} {{grpc_code}}",
                    )],
                },
                Panel {
                    title: "Of the last hour",
                    words: "Failed attempts by step, participant, status, FIN code and tier.",
                    unit: "none",
                    shape: Table,
                    queries: &[(
                        r#"sort_desc(sum by (definition, step, participant, grpc_code, fin_code, tier) (increase(backstop_branch_failures_total{definition=~"$definition"}[1h])) > 0)"#,
                        "",
                    )],
                },
            ],
        },
        Row {
            title: "Undoing",
            panels: &[
                Panel {
                    title: "Compensations tried again",
                    words: "Attempts to undo that failed and will be made again, without end.",
                    unit: "ops",
                    shape: Lines,
                    queries: &[(
                        r#"sum by (definition, step, participant, fin_code) (rate(backstop_compensation_retries_total{definition=~"$definition"}[$__rate_interval]))"#,
                        "{{definition}}/{{step}} {{fin_code}}",
                    )],
                },
                Panel {
                    title: "Stuck branches of the last day",
                    words: "Refused for good: each of them made, or will make, an intervention.",
                    unit: "none",
                    shape: Table,
                    queries: &[(
                        r#"sum by (definition, step, participant, fin_code) (increase(backstop_branches_stuck_total{definition=~"$definition"}[1d])) > 0"#,
                        "",
                    )],
                },
                Panel {
                    title: "Branches by outcome",
                    words: "Whose way forward has ended, in a second. In doubt: nobody knows yet whether it took effect; it is undone as if it had.",
                    unit: "ops",
                    shape: Stack,
                    queries: &[(
                        r#"sum by (result) (rate(backstop_branches_total{definition=~"$definition"}[$__rate_interval]))"#,
                        "{{result}}",
                    )],
                },
            ],
        },
    ],
};
