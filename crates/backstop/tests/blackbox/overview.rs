//! What a coordinator says of itself while it works, by bare RPC and by `backstop top`.

use crate::cli::{DONE, FAILED, cli, ends};
use crate::common::tool::call_ok;
use crate::common::{Backstop, Bank, Engine, Reply, definition, eventually, step};
use serde_json::{Value, json};
use tonic::Code;

/// A coordinator that has brought three sagas to a good end, undone one, and left one to a person.
async fn worked(engine: Engine) -> (Backstop, Bank) {
    let server = Backstop::start(engine).await;
    let api = server.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("transfer", [step("debit", "bank"), step("credit", "bank").after(&["debit"])]))
        .await;
    bank.answers(|seen| match (seen.saga().as_str(), seen.step().as_str(), seen.phase().as_str()) {
        ("bad" | "stuck", "credit", "action") => Reply::status(Code::FailedPrecondition, "closed"),
        ("stuck", _, "compensation") => Reply::status(Code::PermissionDenied, "not today"),
        _ => Reply::Done,
    });
    for id in ["good-1", "good-2", "good-3", "bad", "stuck"] {
        api.run("transfer", id).await;
    }
    (server, bank)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_tells_what_it_has_done_and_has_going_on() {
    let (mut server, _bank) = worked(Engine::Sqlite).await;
    let ask = |server: &Backstop| -> Value {
        let options = ["-emit-defaults", "-d", "{}"];
        let answer = call_ok(server.address(), &options, &["backstop.v1.OperatorService/GetOverview"]);
        serde_json::from_str(&answer).unwrap()
    };
    // Interventions are counted in the background.
    let overview = eventually("the intervention to be counted", || async {
        let overview = ask(&server);
        if overview["interventions"] == "1" { Ok(overview) } else { Err(overview.to_string()) }
    })
    .await;
    for (field, count) in [
        ("sagasStartedCount", "5"),
        ("sagasSucceededCount", "3"),
        ("sagasRolledBackCount", "1"),
        ("admissionsRefusedCount", "0"),
    ] {
        assert_eq!(overview[field], count, "{field}: {overview:#}");
    }
    assert_eq!(overview["liveSagasMax"], 10_000, "{overview:#}");
    assert!(overview["oldestInterventionTime"].is_string(), "{overview:#}");
    let appends: u64 = overview["journalAppends"]["count"].as_str().unwrap().parse().unwrap();
    assert!(appends >= 10, "each saga has at least its start and its end: {overview:#}");
    let bank = &overview["participants"][0];
    assert_eq!(
        (&bank["participant"], &bank["breakerState"]),
        (&json!("bank"), &json!("BREAKER_STATE_CLOSED"))
    );
    // Ten actions; one compensation, and three tries of the other.
    assert_eq!(bank["calls"]["count"], "14", "{bank:#}");
    assert_eq!(bank["failedCount"], "5", "{bank:#}");
    let manual = call_ok(server.address(), &[], &["describe", "backstop.v1.GetOverviewResponse"]);
    assert!(manual.contains("ask twice and take the difference"), "{manual}");

    server.kill();
    server.start_again().await;
    let anew = ask(&server);
    assert_ne!(anew["coordinator"], overview["coordinator"], "another process has another id");
    assert_eq!(anew["sagasStartedCount"], "0", "and has counted nothing yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_every_coordinator_and_says_which_does_not_answer() {
    let (server, _bank) = worked(Engine::Postgres).await;
    let mut other = server.beside(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let top =
        |more: &[&str]| cli(&server, folder.path(), &[&["top", "--once", "--every", "100ms"], more].concat());
    let text = ends(&top(&[]), DONE);
    assert!(text.contains("2 of 2 coordinators answer"), "{text}");
    for part in [server.address(), other.address(), "PARTICIPANT", "bank"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("no answer"), "{text}");
    eventually("the intervention to be counted", || async {
        let text = ends(&top(&[]), DONE);
        if text.contains("interventions  1, the oldest for") { Ok(()) } else { Err(text) }
    })
    .await;
    let gone = other.address().to_owned();
    other.kill();
    let text = ends(&top(&[]), DONE);
    assert!(text.contains("1 of 2 coordinators answer"), "{text}");
    let row = text.lines().find(|line| line.starts_with(&gone)).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains("no answer: "), "{row}");
    let json: Value = serde_json::from_str(&ends(&top(&["--output", "json"]), DONE)).unwrap();
    assert_eq!(json["total"]["coordinatorsAnswering"], 1, "{json:#}");
    let nowhere = ["top", "--once", "--server", "http://127.0.0.1:1"];
    ends(&crate::common::server::backstop(folder.path(), &nowhere), FAILED);
}
