//! SIGTERM: no new sagas, those in flight are finished or handed over, the process ends in time; and
//! what a running server tells about itself.

use crate::common::api::{shown, state};
use crate::common::{Api, Backstop, Bank, Engine, Gate, Reply, definition, eventually, get, step};
use serde_json::json;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

async fn health(api: &Api) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest { service: String::new() };
    Ok(HealthClient::new(api.channel()).check(request).await?.into_inner().status())
}

async fn held_saga(backstop: &Backstop) -> (Bank, Gate) {
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "deduplicatesByKey": true })).await;
    let steps = ["one", "two"].map(|name| step(name, "bank").with("/action/timeout", "60s"));
    let [one, two] = steps;
    api.define(definition("slow", [one, two.after(&["one"])])).await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |seen| match seen.step().as_str() {
        "one" => Reply::Done.after(&held),
        _ => Reply::Done,
    });
    api.start("slow", "in-flight").await;
    bank.until_seen("step one", |seen| seen.step() == "one").await;
    (bank, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_stops_admitting_finishes_what_is_in_flight_and_is_gone() {
    let mut backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let (bank, gate) = held_saga(&backstop).await;
    assert_eq!(health(&api).await.unwrap(), ServingStatus::Serving);

    backstop.signal_to_end();

    eventually("health to be NOT_SERVING", || async {
        match health(&api).await {
            Ok(ServingStatus::NotServing) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let json = json!({ "definition": "slow", "sagaId": "late", "input": { "account": "a", "cents": "1" } });
    let refused = api.start_with(json).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    gate.open();
    let status = backstop.gone().await;
    assert!(status.success(), "a drain is a good end: {status}");

    backstop.start_again().await;
    let api = backstop.api();
    let saga = api.rest("in-flight").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    assert_eq!(api.get("late").await.unwrap_err().code(), Code::NotFound);
    let once = bank.seen_of("in-flight").iter().filter(|seen| seen.step() == "one").count();
    assert_eq!(once, 1, "its answer was awaited, not thrown away");
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_25_a_saga_that_outlasts_the_drain_is_handed_over_and_goes_on_after_the_restart() {
    let mut backstop = Backstop::start_with(Engine::Postgres, &[("BACKSTOP_DRAIN_TIME", "1s")]).await;
    let (bank, gate) = held_saga(&backstop).await;
    backstop.signal_to_end();
    let status = backstop.gone().await;
    assert!(status.success(), "handing over is a good end too: {status}");
    gate.open();
    backstop.start_again().await;
    let saga = backstop.api().rest("in-flight").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    let keys: std::collections::BTreeSet<_> = bank.seen_of("in-flight").iter().map(|s| s.key()).collect();
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["in-flight/one/action", "in-flight/two/action"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_bear_the_names_of_the_design() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "rollbackListener": true })).await;
    let steps = [step("debit", "bank"), step("credit", "bank").after(&["debit"])];
    api.define(definition("transfer", steps)).await;
    bank.answers(|seen| match (seen.saga().as_str(), seen.step().as_str(), seen.phase().as_str()) {
        ("bad", "credit", "action") => Reply::status(Code::FailedPrecondition, "closed"),
        _ => Reply::Done,
    });
    api.run("transfer", "good").await;
    api.run("transfer", "bad").await;

    let names = [
        "backstop_sagas_started_total",
        "backstop_sagas_ended_total",
        "backstop_branch_failures_total",
        "backstop_saga_duration_seconds_bucket",
        "backstop_call_duration_seconds_bucket",
        "backstop_overhead_seconds_bucket",
        "backstop_journal_append_seconds_bucket",
        "backstop_journal_batch_events_bucket",
        "backstop_live_sagas",
        "backstop_interventions",
        "backstop_breaker_open",
        "backstop_rollback_signals_total",
        "backstop_lease_remaining_seconds",
        "backstop_live_sagas_max",
        "backstop_calls_in_flight",
        "backstop_calls_in_flight_max",
        "backstop_calls_waiting",
        "backstop_calls_waiting_max",
        "backstop_journal_queue",
        "backstop_journal_queue_max",
        "backstop_appends_lost_total",
        "backstop_sagas_quarantined_total",
        "backstop_retired_journals_total",
        "backstop_retired_sagas_total",
        "backstop_dropped_partitions_total",
    ];
    // The signal may be reported after the saga's end.
    let text = eventually("every metric to be there", || async {
        let text = get(&backstop.metrics_address().await, "/metrics").await;
        let is_there = |name: &&&str| text.lines().any(|line| line.starts_with(**name));
        match names.iter().find(|name| !is_there(name)) {
            Some(missing) => Err(format!("{missing} is not in\n{text}")),
            None => Ok(text),
        }
    })
    .await;
    let line = |name: &str, labels: &[&str]| {
        let fits = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        text.lines().find(fits).unwrap_or_else(|| panic!("no {name}{labels:?} in\n{text}")).to_owned()
    };
    for state in ["SUCCEEDED", "ROLLED_BACK"] {
        let ended =
            line("backstop_sagas_ended_total", &[r#"definition="transfer""#, &format!("state=\"{state}\"")]);
        assert!(ended.ends_with(" 1"), "{ended}");
    }
    line(
        "backstop_branch_failures_total",
        &[
            r#"definition="transfer""#,
            r#"step="credit""#,
            r#"participant="bank""#,
            r#"grpc_code="FAILED_PRECONDITION""#,
            r#"fin_code="FIN-40005""#,
            r#"tier="L3""#,
        ],
    );
    assert!(!text.contains("\"good\"") && !text.contains("saga_id"), "no label without a bound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_is_reached_refuses_new_sagas_and_says_which_and_when_to_ask_again() {
    let settings =
        [("BACKSTOP_PARTICIPANTS__IN_FLIGHT_MAX", "1"), ("BACKSTOP_PARTICIPANTS__CALLS_WAITING_MAX", "2")];
    let backstop = Backstop::start_with(Engine::Sqlite, &settings).await;
    let api = backstop.api();
    let (slow, well) = (Bank::start("slow").await, Bank::start("well").await);
    for bank in [&slow, &well] {
        api.enlist(bank).await;
        let step = step("debit", &bank.name).with("/action/timeout", "120s");
        api.define(definition(&bank.name, [step])).await;
    }
    let gate = Gate::closed();
    let held = gate.clone();
    slow.answers(move |_| Reply::Done.after(&held));
    let mut accepted = 0;
    let refused = loop {
        let json = json!({
            "definition": "slow", "sagaId": format!("slow-{accepted}"), "input": { "account": "a", "cents": "1" },
        });
        match api.start_with(json).await {
            Ok(_) => accepted += 1,
            Err(status) => break status,
        }
        assert!(accepted < 100, "nothing is refused");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let details = tonic_types::StatusExt::get_error_details(&refused);
    assert!(details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{details:?}");
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!(info.metadata["limit"], "participants.calls_waiting_max");
    assert_eq!(state(&api.run("well", "well-1").await), "SUCCEEDED", "others are not held up");
    let text = get(&backstop.metrics_address().await, "/metrics").await;
    let counted = text.lines().any(|line| {
        line.starts_with("backstop_admissions_refused_total")
            && line.contains("participants.calls_waiting_max")
    });
    assert!(counted, "{text}");
    gate.open();
    for n in 0..accepted {
        assert_eq!(state(&api.rest(&format!("slow-{n}")).await), "SUCCEEDED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_too_every_line_of_the_log_is_there() {
    let mut backstop = Backstop::start(Engine::Postgres).await;
    let bank = Bank::start("bank").await;
    backstop.api().enlist(&bank).await;
    backstop.signal_to_end();
    assert!(backstop.gone().await.success());
    eventually("each thing that an operator must know", || async {
        let log = backstop.log();
        let lines = ["has its lease", "participant registered", "stopping", "drained"];
        match lines.iter().find(|line| !log.contains(**line)) {
            Some(missing) => Err(format!("{missing} is not in\n{log}")),
            None => Ok(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_15_logs_name_the_saga_and_never_show_a_payload() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("one", [step("debit", "bank")])).await;
    bank.answers(|seen| match seen.phase().as_str() {
        "action" => Reply::status(Code::Internal, "disk full"),
        _ => Reply::Done,
    });
    let json = json!({
        "definition": "one", "sagaId": "logged-saga", "input": { "account": "SECRET-IBAN", "cents": "123456789" },
    });
    api.start_with(json).await.unwrap();
    assert_eq!(state(&api.rest("logged-saga").await), "ROLLED_BACK");
    eventually("the log to name the saga", || async {
        if backstop.log().contains("logged-saga") { Ok(()) } else { Err(backstop.log()) }
    })
    .await;
    assert!(!backstop.log().contains('\u{1b}'), "colours only on a terminal: {}", backstop.log());
    assert!(!backstop.log().contains("SECRET-IBAN"), "{}", backstop.log());
    assert!(!backstop.log().contains("123456789"), "{}", backstop.log());
}
