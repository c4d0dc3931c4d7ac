//! A queue of sagas that wait for a person, for different reasons: found, told apart, and worked off by one command.

use crate::cli::{DONE, FAILED, NEEDS_INTERVENTION, cli, ends};
use crate::common::api::{shown, state};
use crate::common::{Api, Backstop, Bank, Engine, Gate, Reply, definition, step};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Code;

async fn sql(backstop: &Backstop, text: &str) {
    let mut database = PgConnection::connect(&backstop.store_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

/// Definitions whose sagas get stuck in three ways: an undoing that is refused, a pivot that nobody knows about, and a
/// step after the pivot that is refused.
async fn three_ways(api: &Api, bank: &Bank, other: &Bank) {
    api.enlist(bank).await;
    api.enlist(other).await;
    api.define(definition("undoing", [step("debit", "bank"), step("credit", "other").after(&["debit"])]))
        .await;
    let pivot = [step("debit", "bank"), step("settle", "other").kind("PIVOT").after(&["debit"])];
    api.define(definition("doubtful", pivot)).await;
    let after = [
        step("debit", "bank"),
        step("settle", "bank").kind("PIVOT").after(&["debit"]),
        step("notify", "other").kind("RETRIABLE").after(&["settle"]),
    ];
    api.define(definition("forward", after)).await;
    bank.answers(|seen| match (seen.step().as_str(), seen.phase().as_str()) {
        ("debit", "compensation") => Reply::status(Code::PermissionDenied, "not today"),
        _ => Reply::Done,
    });
    other.answers(|seen| match seen.step().as_str() {
        "credit" => Reply::status(Code::FailedPrecondition, "closed"),
        "settle" => Reply::status(Code::Internal, "a bug"),
        "notify" => Reply::status(Code::InvalidArgument, "no such customer"),
        _ => Reply::Done,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_person_is_listed_with_the_reason_and_what_is_exposed() {
    let mut server = Backstop::start(Engine::Postgres).await;
    let (bank, other) = (Bank::start("bank").await, Bank::start("other").await);
    three_ways(&server.api(), &bank, &other).await;
    for (definition, id) in
        [("undoing", "u-1"), ("doubtful", "d-1"), ("forward", "f-1"), ("forward", "broken")]
    {
        let saga = server.api().run(definition, id).await;
        assert_eq!(state(&saga), "NEEDS_INTERVENTION", "{}", shown(&saga));
    }
    // The fourth reason: a journal that cannot be followed, found when somebody's word has it taken up.
    sql(&server, "UPDATE saga_event SET payload = '\\xff' WHERE saga_id = 'broken'").await;
    sql(&server, "UPDATE saga SET state = 'RUNNING', wake_at = 1 WHERE id = 'broken'").await;
    server.kill();
    server.start_again().await;
    server.api().until("broken", "to be set aside", |saga| !saga.quarantine.is_empty()).await;

    let folder = tempfile::tempdir().unwrap();
    let list = |more: &[&str]| cli(&server, folder.path(), &[&["intervention", "list"], more].concat());
    let text = ends(&list(&[]), DONE);
    let row = |id: &str| {
        let row = text
            .lines()
            .find(|line| line.contains(&format!(" {id} ")))
            .unwrap_or_else(|| panic!("{id}: {text}"));
        row.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("u-1"), "undoing@1 u-1 debit bank FIN-50099 L1 debit@bank PERMISSION_DENIED: not today");
    assert_eq!(
        row("d-1"),
        "doubtful@1 d-1 settle other FIN-50001 L1 debit@bank settle@other? INTERNAL: a bug"
    );
    assert_eq!(
        row("f-1"),
        "forward@1 f-1 notify other FIN-40005 L3 debit@bank settle@bank INVALID_ARGUMENT: no such customer"
    );
    assert!(row("broken").starts_with("forward@1 broken - - - - unknown quarantined: "), "{text}");
    assert!(text.contains("4 sagas wait for a person."), "{text}");
    // The commands at the end are about the one that has waited longest, and are complete but for the reason.
    let first = text.lines().nth(1).unwrap().split_whitespace().nth(2).unwrap();
    assert!(text.contains(&format!("backstop saga show {first}")), "{text}");

    let ids = |more: &[&str]| -> Vec<String> {
        let json: Value =
            serde_json::from_str(&ends(&list(&[&["--output", "json"], more].concat()), DONE)).unwrap();
        let all = json["interventions"].as_array().unwrap().iter();
        let mut ids: Vec<_> = all.map(|one| one["sagaId"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&[]), ["broken", "d-1", "f-1", "u-1"]);
    assert_eq!(ids(&["--participant", "other"]), ["d-1", "f-1"]);
    assert_eq!(ids(&["--fin-code", "FIN-50001"]), ["d-1"]);
    assert_eq!(ids(&["--definition", "undoing"]), ["u-1"]);
    assert_eq!(ids(&["--older-than", "1000h"]), Vec::<String>::new());
    let text = ends(&list(&["--limit", "1"]), DONE);
    assert!(text.contains("there are more"), "{text}");
    ends(&list(&["--fail-if-any"]), NEEDS_INTERVENTION);
    ends(&list(&["--definition", "nothing", "--fail-if-any"]), DONE);
}

/// Transfers whose undoing is refused.
async fn stuck(count: usize) -> (Backstop, Bank, Bank) {
    let server = Backstop::start(Engine::Sqlite).await;
    let (bank, other) = (Bank::start("bank").await, Bank::start("other").await);
    three_ways(&server.api(), &bank, &other).await;
    for n in 0..count {
        server.api().start("undoing", &format!("u-{n}")).await;
    }
    server.api().start("doubtful", "d-1").await;
    for id in (0..count).map(|n| format!("u-{n}")).chain(["d-1".to_owned()]) {
        let saga = server.api().rest(&id).await;
        assert_eq!(state(&saga), "NEEDS_INTERVENTION", "{}", shown(&saga));
    }
    (server, bank, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_heals_all_that_fit_once_their_number_is_agreed_to() {
    let (server, bank, _other) = stuck(5).await;
    let folder = tempfile::tempdir().unwrap();
    let retry = |more: &[&str]| {
        let line = [
            &["branch", "retry", "--all", "--definition", "undoing", "--participant", "bank"],
            &["--fin-code", "FIN-50099", "--by", "ann", "--reason", "rights restored", "--rate", "100"][..],
            more,
        ];
        cli(&server, folder.path(), &line.concat())
    };
    let before: Vec<u64> = seqs(&server, 5).await;
    bank.answers(|_| Reply::Done);
    let text = ends(&retry(&["--dry-run"]), DONE);
    assert!(text.contains("5 branches were found") && text.contains("dry run: nothing was done"), "{text}");
    assert!(text.contains("u-0") && !text.contains("d-1"), "the set is named, and is what fits: {text}");
    let text = ends(&retry(&["--yes", "6"]), FAILED);
    assert!(text.contains("--yes 6, but 5 branches were found: nothing was done"), "{text}");
    let text = ends(&retry(&[]), FAILED);
    assert!(text.contains("nobody is there to ask: nothing was done"), "{text}");
    assert_eq!(seqs(&server, 5).await, before, "no journal has grown");

    let text = ends(&retry(&["--yes", "5"]), DONE);
    assert!(text.contains("done 5, already done 0, refused 0, no answer 0, not tried 0"), "{text}");
    for n in 0..5 {
        let saga = server.api().rest(&format!("u-{n}")).await;
        assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
        let hand =
            saga.transcript.iter().filter(|line| line.contains("ann") && line.contains("rights restored"));
        assert_eq!(hand.count(), 1, "who and why stay in each journal: {}", shown(&saga));
    }
    assert_eq!(
        state(&server.api().get("d-1").await.unwrap()),
        "NEEDS_INTERVENTION",
        "what does not fit is left"
    );
    let text = ends(&retry(&["--yes", "0"]), DONE);
    assert!(text.contains("0 sagas were found"), "a second time there is nothing to do: {text}");

    // What is in doubt is settled by what is true of it; what cannot be true is left out.
    let resolve = |resolution: &str, yes: &str| {
        let who = ["--by", "ann", "--reason", "the bank's books say so", "--yes", yes];
        let line = [&["branch", "resolve", "--all", "--resolution", resolution], &who[..]].concat();
        cli(&server, folder.path(), &line)
    };
    let text = ends(&resolve("undone", "0"), DONE);
    assert!(text.contains("left out: 1"), "{text}");
    ends(&resolve("took-effect", "1"), DONE);
    assert_eq!(state(&server.api().rest("d-1").await), "SUCCEEDED");
}

async fn seqs(server: &Backstop, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    for n in 0..count {
        seqs.push(server.api().get(&format!("u-{n}")).await.unwrap().seq);
    }
    seqs
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_cancelled_at_a_rate_and_no_others() {
    let server = Backstop::start(Engine::Sqlite).await;
    let api = server.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    for name in ["wrong", "right"] {
        let long = |name: &str| step(name, "bank").with("/action/timeout", "60s");
        api.define(definition(name, [long("debit"), long("credit").after(&["debit"])])).await;
    }
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |seen| match (seen.step().as_str(), seen.phase().as_str()) {
        ("debit", "action") => Reply::Done.after(&held),
        _ => Reply::Done,
    });
    for n in 0..6 {
        api.start("wrong", &format!("w-{n}")).await;
    }
    api.start("right", "r-1").await;
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let who = ["--by", "ann", "--reason", "wrong rate of exchange", "--rate", "10", "--yes", "6", "--json"];
    let line = [&["saga", "cancel", "--definition", "wrong"], &who[..]].concat();
    let json: Value = serde_json::from_str(&ends(&cli(&server, folder.path(), &line), DONE)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500), "six at ten a second: five pauses of 100 ms");
    assert_eq!((&json["found"], &json["done"]), (&6.into(), &6.into()), "{json:#}");
    gate.open();
    for n in 0..6 {
        let saga = api.rest(&format!("w-{n}")).await;
        assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
        let cause = saga.cause.as_ref().unwrap();
        assert_eq!((cause.by.as_str(), cause.reason.as_str()), ("ann", "wrong rate of exchange"));
    }
    assert_eq!(state(&api.rest("r-1").await), "SUCCEEDED", "the other definition's saga went on");
    assert_eq!(listed_files(folder.path()), 0, "nothing is left behind");
}

fn listed_files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}
