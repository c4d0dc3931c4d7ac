//! `backstop doctor` on a real database: silent where all is well, and naming each thing that a hand has planted
//! there. And what a quarantined or retired saga looks like from outside.

use crate::common::api::{shown, state};
use crate::common::server::backstop;
use crate::common::{Api, Backstop, Bank, Engine, Reply, definition, eventually, step, tool};
use backstop_proto::v1;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeSet;
use tonic::Code;

async fn sql(backstop: &Backstop, text: &str) {
    let mut database = PgConnection::connect(&backstop.store_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

/// What the CLI prints, and its exit code.
fn doctor(backstop_: &Backstop, arguments: &[&str]) -> (Option<i32>, Value) {
    let server = format!("http://{}", backstop_.address());
    let folder = tempfile::tempdir().unwrap();
    let all = [&["--server", &server, "--json", "doctor"], arguments].concat();
    let output = backstop(folder.path(), &all);
    let printed =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", tool::said(&output)));
    (output.status.code(), printed)
}

fn found(printed: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = printed["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().map(|finding| (text(&finding["kind"]), text(&finding["subject"]))).collect()
}

async fn bank_with_one_step(api: &Api) -> Bank {
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "deduplicatesByKey": true })).await;
    api.define(definition("one", [step("debit", "bank").with("/action/timeout", "300s")])).await;
    bank.answers(|seen| if seen.saga().starts_with("open") { Reply::Hang } else { Reply::Done });
    bank
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_34_the_doctor_finds_each_thing_that_was_planted_and_is_silent_on_a_healthy_database() {
    // Takeover looks away, or it would see to some of it before the doctor comes.
    let backstop = Backstop::start_with(Engine::Postgres, &[("BACKSTOP_LEASE__TAKEOVER_EVERY", "1h")]).await;
    let api = backstop.api();
    let bank = bank_with_one_step(&api).await;
    for n in 0..20 {
        api.run("one", &format!("done-{n}")).await;
    }
    for saga in ["open-well", "open-forsaken", "open-dead-owner"] {
        api.start("one", saga).await;
        bank.until_seen(saga, |seen| seen.saga() == saga).await;
    }
    let (code, healthy) = doctor(&backstop, &["--full"]);
    assert_eq!((code, found(&healthy)), (Some(0), BTreeSet::new()), "{healthy}");
    assert_eq!(healthy["journalsReplayed"], "23");

    sql(&backstop, "UPDATE saga SET owner = NULL, wake_at = NULL WHERE id = 'open-forsaken'").await;
    sql(&backstop, "DELETE FROM saga_event WHERE saga_id = 'done-1' AND seq = 2").await;
    sql(&backstop, "UPDATE saga SET state = 'ROLLED_BACK' WHERE id = 'done-2'").await;
    sql(
        &backstop,
        "INSERT INTO coordinator (id, address, started_at, expires_at) VALUES ('c-dead', '', 1, 2);
         UPDATE saga SET owner = 'c-dead' WHERE id = 'open-dead-owner'",
    )
    .await;
    sql(&backstop, "UPDATE saga SET wake_at = 1 WHERE id = 'open-well'").await;
    let (code, sick) = doctor(&backstop, &["--full"]);
    assert_eq!(code, Some(1));
    let expected = [
        ("KIND_SAGA_FORSAKEN", "open-forsaken"),
        ("KIND_JOURNAL_BROKEN", "done-1"),
        ("KIND_HEAD_DIFFERS", "done-2"),
        ("KIND_OWNER_GONE", "open-dead-owner"),
        ("KIND_SAGA_OVERDETERMINED", "open-well"),
    ];
    for (kind, saga) in expected {
        let wanted = (kind.to_owned(), saga.to_owned());
        assert!(found(&sick).contains(&wanted), "{wanted:?} is not in {sick:#}");
    }
    let others: Vec<_> = found(&sick)
        .into_iter()
        .filter(|(_, subject)| !expected.iter().any(|(_, saga)| saga == subject))
        .collect();
    assert!(others.is_empty(), "and nothing else: {others:?}");

    let negative = v1::RunDoctorRequest { full: false, sample: -1 };
    let refused = api.operator().run_doctor(negative).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_22_a_broken_journal_is_quarantined_stops_nothing_else_and_comes_back_once_it_is_mended() {
    let mut backstop = Backstop::start(Engine::Postgres).await;
    let api = backstop.api();
    let bank = bank_with_one_step(&api).await;
    for saga in ["open-broken", "open-good"] {
        api.start("one", saga).await;
        bank.until_seen(saga, |seen| seen.saga() == saga).await;
    }
    backstop.kill();
    sql(&backstop, "CREATE TABLE aside AS SELECT * FROM saga_event WHERE saga_id = 'open-broken'").await;
    sql(&backstop, "UPDATE saga_event SET payload = '\\xff' WHERE saga_id = 'open-broken'").await;
    bank.answers(|_| Reply::Done);
    backstop.start_again().await;
    let api = backstop.api();
    assert_eq!(state(&api.rest("open-good").await), "SUCCEEDED", "one bad saga does not stop the others");
    let saga = eventually("the quarantine", || async {
        let saga = api.get("open-broken").await.map_err(|status| status.to_string())?;
        if saga.quarantine.is_empty() { Err(shown(&saga)) } else { Ok(saga) }
    })
    .await;
    assert_eq!(state(&saga), "NEEDS_INTERVENTION", "{}", saga.quarantine);
    let waiting = api.list("state = \"NEEDS_INTERVENTION\"").await;
    assert_eq!(waiting.len(), 1, "whoever looks for what needs a person finds it");
    let (code, sick) = doctor(&backstop, &[]);
    let wanted = ("KIND_SAGA_QUARANTINED".to_owned(), "open-broken".to_owned());
    assert!(code == Some(1) && found(&sick).contains(&wanted), "{sick}");
    let release = v1::ReleaseSagaRequest {
        saga_id: "open-broken".into(),
        by: "ben".into(),
        reason: "restored from the backup".into(),
    };
    let refused = api.operator().release_saga(release.clone()).await.unwrap_err();
    assert!(matches!(refused.code(), Code::DataLoss | Code::Unavailable), "not mended yet: {refused}");

    sql(
        &backstop,
        "UPDATE saga_event SET payload = aside.payload FROM aside
         WHERE saga_event.saga_id = aside.saga_id AND saga_event.seq = aside.seq",
    )
    .await;
    api.operator().release_saga(release).await.expect("it can be followed again");
    let saga = api.rest("open-broken").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    assert_eq!(doctor(&backstop, &["--full"]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_41_a_retired_saga_still_answers_for_its_id() {
    // Postgres drops journals by whole spans of births: short ones, here.
    let settings = [
        ("BACKSTOP_RETENTION__JOURNALS_FOR", "1s"),
        ("BACKSTOP_RETENTION__EVERY", "100ms"),
        ("BACKSTOP_SIGNALS__TIMEOUT", "100ms"),
        ("BACKSTOP_POSTGRES__PARTITION_WIDTH", "3s"),
    ];
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let backstop = Backstop::start_with(engine, &settings).await;
        let api = backstop.api();
        let bank = bank_with_one_step(&api).await;
        api.run("one", "pay-7").await;

        api.start("one", "open-1").await;
        let saga = api.until("pay-7", "to be retired", |saga| saga.journal_retired).await;
        assert_eq!((state(&saga), saga.transcript.len()), ("SUCCEEDED", 0));
        assert_eq!(state(&api.start("one", "pay-7").await), "SUCCEEDED", "the same request: the same saga");
        let other = json!({
            "definition": "one", "sagaId": "pay-7", "input": { "account": "acc-2", "cents": "1" },
        });
        assert_eq!(api.start_with(other).await.unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(bank.seen_of("pay-7").len(), 1, "nothing is called twice");
        assert_eq!(state(&api.get("open-1").await.unwrap()), "RUNNING", "what has not ended stays");
        assert_eq!(doctor(&backstop, &["--full"]).0, Some(0), "and the doctor knows");
    }
}
