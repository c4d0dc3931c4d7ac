//! `/metrics` of real processes: what is counted, under which names, and that no name is there that the table of
//! metrics does not have.

use crate::common::api::{Api, shown, state};
use crate::common::{Backstop, Bank, Engine, Reply, definition, eventually, get, step};
use backstop_engine::metrics::table::{self, Kind, Metric};
use backstop_proto::v1;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use tonic::{Code, Request};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// Told by the exporter itself.
const TARGET_INFO: &str = "target_info";
/// Told only where spans are exported.
const WITH_A_COLLECTOR: [&str; 2] = [table::SPANS_EXPORTED.name, table::SPANS_DROPPED.name];

async fn metrics(backstop: &Backstop) -> String {
    get(&backstop.metrics_address().await, "/metrics").await
}

/// The lines of these metrics, in order.
fn lines(text: &str, metrics: &[Metric]) -> Vec<String> {
    let is_of = |line: &&str| {
        metrics
            .iter()
            .any(|metric| line.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with(['{', ' '])))
    };
    let mut lines: Vec<String> = text.lines().filter(is_of).map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A bank with two services, so that who acts and who undoes can be told apart, and what can go wrong by the name of
/// the saga.
struct Banks {
    bank: Bank,
    vault: Bank,
}

impl Banks {
    async fn open(api: &Api) -> Self {
        let (bank, vault) = (Bank::start("bank").await, Bank::start("vault").await);
        for service in [&bank, &vault] {
            api.enlist_as(service, json!({ "rollbackListener": true })).await;
        }
        let debit = step("debit", "bank").with("/compensation/participant", "vault");
        api.define(definition("transfer", [debit, step("credit", "bank").after(&["debit"])])).await;
        let note = step("note", "bank").kind("RETRIABLE").after(&["pay"]);
        api.define(definition("payout", [step("pay", "bank").kind("PIVOT"), note])).await;
        bank.answers(|seen| match (seen.saga().as_str(), seen.step().as_str(), seen.phase().as_str()) {
            ("saga-l1", "credit", "action") => Reply::status(Code::Internal, "a stack trace"),
            ("saga-ok", ..) => Reply::Done,
            ("saga-payout", "note", "action") | (_, "credit", "action") => {
                Reply::status(Code::FailedPrecondition, "account closed")
            }
            _ => Reply::Done,
        });
        vault.answers(|seen| match (seen.saga().as_str(), seen.attempt()) {
            ("saga-flaky", 1 | 2) => Reply::status(Code::Unavailable, "closed for lunch"),
            ("saga-stuck", _) => Reply::status(Code::PermissionDenied, "not today"),
            (saga, _) if saga.starts_with("open") => Reply::Hang,
            _ => Reply::Done,
        });
        Self { bank, vault }
    }
}

async fn run(api: &Api, definition: &str, saga: &str, expected: &str) {
    let mut request = Request::new(Api::start_request(json!({
        "definition": definition, "sagaId": saga, "input": { "account": "acc-1", "cents": "1250" },
    })));
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    api.sagas().start_saga(request).await.unwrap();
    let saga = api.rest(saga).await;
    assert_eq!(state(&saga), expected, "{}", shown(&saga));
}

/// One of each kind of fate.
async fn run_each(api: &Api) {
    for (definition, saga, expected) in [
        ("transfer", "saga-ok", "SUCCEEDED"),
        ("transfer", "saga-l3", "ROLLED_BACK"),
        ("transfer", "saga-l1", "ROLLED_BACK"),
        ("transfer", "saga-flaky", "ROLLED_BACK"),
        ("transfer", "saga-stuck", "NEEDS_INTERVENTION"),
        ("payout", "saga-payout", "NEEDS_INTERVENTION"),
    ] {
        run(api, definition, saga, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_each_fate_of_a_branch_and_name_the_saga_of_an_l1_failure() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let _banks = Banks::open(&api).await;
    run_each(&api).await;
    let text = metrics(&backstop).await;

    let transfer = |step: &str, result: &str, count: u32| {
        format!(r#"backstop_branches_total{{definition="transfer",result="{result}",step="{step}"}} {count}"#)
    };
    let payout = |step: &str, result: &str| {
        format!(r#"backstop_branches_total{{definition="payout",result="{result}",step="{step}"}} 1"#)
    };
    assert_eq!(
        lines(&text, &[table::BRANCHES]),
        [
            payout("note", "failed"),
            payout("pay", "succeeded"),
            transfer("credit", "failed", 3),
            transfer("credit", "in_doubt", 1),
            transfer("credit", "succeeded", 1),
            transfer("debit", "succeeded", 5),
        ]
    );
    assert_eq!(
        lines(&text, &[table::BRANCHES_STUCK, table::COMPENSATION_RETRIES]),
        [
            r#"backstop_branches_stuck_total{definition="payout",fin_code="FIN-40005",participant="bank",step="note"} 1"#,
            r#"backstop_branches_stuck_total{definition="transfer",fin_code="FIN-50099",participant="vault",step="debit"} 1"#,
            r#"backstop_compensation_retries_total{definition="transfer",fin_code="FIN-50099",participant="vault",step="debit"} 2"#,
            r#"backstop_compensation_retries_total{definition="transfer",fin_code="FIN-50302",participant="vault",step="debit"} 2"#,
        ]
    );
    let l1 = |rest: &str, saga: &str, step: &str| {
        format!(
            r#"backstop_l1_failure{{definition="transfer",{rest},saga_id="{saga}",step="{step}",trace_id="{TRACE}"}} 1"#
        )
    };
    assert_eq!(
        lines(&text, &[table::L1_FAILURE]),
        [
            l1(r#"fin_code="FIN-50001",grpc_code="INTERNAL",participant="bank""#, "saga-l1", "credit"),
            l1(
                r#"fin_code="FIN-50099",grpc_code="PERMISSION_DENIED",participant="vault""#,
                "saga-stuck",
                "debit"
            ),
        ]
    );
    // Whoever was called has failed, not whoever acts for that step.
    let failures = lines(&text, &[table::BRANCH_FAILURES]);
    let refusals = r#"backstop_branch_failures_total{definition="transfer",fin_code="FIN-50099",grpc_code="PERMISSION_DENIED",participant="vault",step="debit",tier="L1"} 3"#;
    assert!(failures.iter().any(|line| line == refusals), "{failures:#?}");

    let text = eventually("the interventions to be counted", || async {
        let text = metrics(&backstop).await;
        match lines(&text, &[table::INTERVENTIONS]).as_slice() {
            [line] if line == "backstop_interventions 2" => Ok(text),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(
        lines(&text, &[table::INTERVENTIONS_BY_DEFINITION]),
        [
            r#"backstop_interventions_by_definition{definition="payout"} 1"#,
            r#"backstop_interventions_by_definition{definition="transfer"} 1"#,
        ]
    );
    let ages = lines(&text, &[table::INTERVENTION_AGE]);
    assert_eq!(ages.len(), 2, "{ages:?}");
    for age in &ages {
        let seconds: f64 = age.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!((0.0..600.0).contains(&seconds), "{age}");
    }
    assert_eq!(lines(&text, &[table::ROLLBACK_AGE]), [""; 0], "nothing is rolling back");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        lines(&text, &[table::BUILD_INFO]),
        [format!(r#"backstop_build_info{{version="{version}"}} 1"#)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_name_no_saga_where_none_is_wanted_and_none_for_longer_than_wanted() {
    for (name, value) in [("MAX", "0"), ("FOR", "1ms")] {
        let setting = format!("BACKSTOP_TELEMETRY__L1_SHOWN_{name}");
        let backstop = Backstop::start_with(Engine::Sqlite, &[(&setting, value)]).await;
        let api = backstop.api();
        let _banks = Banks::open(&api).await;
        run(&api, "transfer", "saga-l1", "ROLLED_BACK").await;
        eventually("no saga to be named", || async {
            let text = metrics(&backstop).await;
            let failed = lines(&text, &[table::BRANCH_FAILURES]).len();
            let named = lines(&text, &[table::L1_FAILURE]);
            if failed == 1 && named.is_empty() { Ok(()) } else { Err(format!("{failed}, {named:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_a_takeover_counts_nothing_twice() {
    let mut backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let banks = Banks::open(&api).await;
    // Its rollback is decided, what failed has been counted, and its compensation is out.
    let open = json!({
        "definition": "transfer", "sagaId": "open-1", "input": { "account": "acc-1", "cents": "1250" },
    });
    api.start_with(open).await.unwrap();
    banks.vault.until_seen("the compensation", |seen| seen.saga() == "open-1").await;
    let text = metrics(&backstop).await;
    assert_eq!(lines(&text, &[table::BRANCHES]).len(), 2, "{text}");
    backstop.kill();
    banks.vault.answers(|_| Reply::Done);
    backstop.start_again().await;
    assert_eq!(state(&backstop.api().rest("open-1").await), "ROLLED_BACK");
    let text = metrics(&backstop).await;
    let counted = [table::SAGAS_STARTED, table::BRANCHES, table::BRANCHES_STUCK, table::SAGAS_ENDED];
    assert_eq!(
        lines(&text, &counted),
        [r#"backstop_sagas_ended_total{definition="transfer",state="ROLLED_BACK"} 1"#],
        "the rest was counted in its first life"
    );
    // The attempt that was lost with the first life is news.
    assert_eq!(
        lines(&text, &[table::COMPENSATION_RETRIES]),
        [
            r#"backstop_compensation_retries_total{definition="transfer",fin_code="FIN-50302",participant="vault",step="debit"} 1"#
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_every_step_under_its_name_however_many_there_are() {
    const DEFINITIONS: usize = 9;
    const STEPS: usize = 256;
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    for n in 0..DEFINITIONS {
        let name = format!("wide-{n}");
        api.define(definition(&name, (0..STEPS).map(|step_| step(&format!("s_{step_}"), "bank")))).await;
        assert_eq!(state(&api.run(&name, &name).await), "SUCCEEDED");
    }
    let told = lines(&metrics(&backstop).await, &[table::BRANCHES]);
    assert_eq!(told.len(), DEFINITIONS * STEPS);
    let nameless: Vec<_> = told.iter().filter(|line| !line.contains("step=\"s_")).collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}

/// Each family of the text with its type and the names of its labels.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = line.split_once(['{', ' ']).unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.strip_suffix(end));
        let name = of_histogram.filter(|name| families.contains_key(*name)).unwrap_or(sample);
        let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
        // No value of a label holds `="` in these tests.
        let labels = labels.map(|(labels, _)| labels.split("\",").filter_map(|pair| pair.split_once("=\"")));
        let (_, named) = families.get_mut(name).unwrap_or_else(|| panic!("{line} has no type"));
        named.extend(labels.into_iter().flatten().map(|(label, _)| label.to_owned()).filter(|l| l != "le"));
    }
    families
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_every_name_in_the_table_is_shown_and_no_other() {
    let backstop = Backstop::start_with(Engine::Sqlite, &[("BACKSTOP_LIMITS__LIVE_SAGAS_MAX", "3")]).await;
    let api = backstop.api();
    let banks = Banks::open(&api).await;
    run_each(&api).await;
    // Rollbacks that do not end, until there is no room for another saga.
    let mut refused = None;
    for n in 0..9 {
        let open = json!({
            "definition": "transfer", "sagaId": format!("open-{n}"), "input": { "account": "acc-1", "cents": "1250" },
        });
        if let Err(status) = api.start_with(open).await {
            refused = Some(status.code());
            break;
        }
        banks.vault.until_seen("the compensation", |seen| seen.saga() == format!("open-{n}")).await;
    }
    assert_eq!(refused, Some(Code::ResourceExhausted));
    api.operator().run_doctor(v1::RunDoctorRequest { full: true, sample: 0 }).await.unwrap();
    assert!(!banks.bank.signals().is_empty());

    let expected: BTreeMap<String, (String, BTreeSet<String>)> = table::ALL
        .iter()
        .filter(|metric| !WITH_A_COLLECTOR.contains(&metric.name))
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            (metric.name.to_owned(), (metric.kind.as_str().to_owned(), labels))
        })
        .collect();
    eventually("every metric of the table, and no other", || async {
        let mut told = families(&metrics(&backstop).await);
        told.remove(TARGET_INFO);
        told.retain(|name, _| !WITH_A_COLLECTOR.contains(&name.as_str()));
        let missing: Vec<_> = expected.iter().filter(|(name, what)| told.get(*name) != Some(*what)).collect();
        let others: Vec<_> = told.iter().filter(|(name, what)| expected.get(*name) != Some(*what)).collect();
        if missing.is_empty() && others.is_empty() {
            return Ok(());
        }
        Err(format!("not as in the table: {missing:#?}, instead: {others:#?}"))
    })
    .await;
    let histograms = table::ALL.iter().filter(|metric| metric.kind == Kind::Histogram);
    assert!(histograms.count() >= 5, "the kinds are told apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_the_doctor_comes_by_itself_and_says_once_what_it_finds() {
    let settings = [("BACKSTOP_DOCTOR__EVERY", "500ms"), ("BACKSTOP_LEASE__TAKEOVER_EVERY", "1h")];
    let backstop = Backstop::start_with(Engine::Postgres, &settings).await;
    let api = backstop.api();
    let _banks = Banks::open(&api).await;
    run(&api, "transfer", "saga-ok", "SUCCEEDED").await;
    let told = |lines_: &'static [&'static str]| {
        let backstop = &backstop;
        async move {
            eventually("the doctor to tell", || async {
                let told = lines(&metrics(backstop).await, &[table::DOCTOR_FINDINGS]);
                let has = |line: &&str| told.iter().any(|told| told == line);
                if told.len() == 10 && lines_.iter().all(has) { Ok(()) } else { Err(format!("{told:#?}")) }
            })
            .await;
        }
    };
    told(&[r#"backstop_doctor_findings{kind="head_differs"} 0"#]).await;

    let mut database = PgConnection::connect(&backstop.store_url()).await.unwrap();
    sqlx::raw_sql("UPDATE saga SET state = 'ROLLED_BACK'").execute(&mut database).await.unwrap();
    told(&[
        r#"backstop_doctor_findings{kind="head_differs"} 1"#,
        r#"backstop_doctor_findings{kind="journal_broken"} 0"#,
    ])
    .await;
    let runs = || async {
        let runs = lines(&metrics(&backstop).await, &[table::DOCTOR_RUNS]);
        let count = |result: &str| -> u64 {
            let line = runs.iter().find(|line| line.contains(&format!("result=\"{result}\""))).unwrap();
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        [count("clean"), count("findings"), count("failed")]
    };
    eventually("more runs that find it again", || async {
        let runs = runs().await;
        if runs[0] >= 1 && runs[1] >= 3 { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    let log = backstop.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("the doctor found")).collect();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(["WARN", "head_differs", "saga-ok"].iter().all(|word| said[0].contains(word)), "{said:?}");

    sqlx::raw_sql("UPDATE saga SET state = 'SUCCEEDED'").execute(&mut database).await.unwrap();
    told(&[r#"backstop_doctor_findings{kind="head_differs"} 0"#]).await;
    // Nobody gets through while the tables are locked.
    sqlx::raw_sql("BEGIN; LOCK TABLE saga IN ACCESS EXCLUSIVE MODE").execute(&mut database).await.unwrap();
    eventually("a run that fails", || async {
        let runs = runs().await;
        if runs[2] >= 1 { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    database.close().await.unwrap();
}
