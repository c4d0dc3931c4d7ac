//! What an operator sees of one saga and one definition, with the real binary: and that what it says to type next
//! does what it says.

use crate::common::api::{branch, shown, state};
use crate::common::server::backstop;
use crate::common::tool::said;
use crate::common::{Backstop, Bank, Engine, Gate, Reply, definition, step};
use crate::operator::stuck;
use backstop_proto::v1;
use serde_json::json;
use std::process::Output;
use tonic::Code;

/// Runs the binary against a server, as from a shell without a terminal.
fn cli(server: &Backstop, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("http://{}", server.address());
    backstop(directory.path(), &[&["--server", &address], arguments].concat())
}

/// What a command that must end well prints.
fn prints(server: &Backstop, arguments: &[&str]) -> String {
    let output = cli(server, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    assert!(output.stderr.is_empty(), "{arguments:?}: {}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\u{1b}'), "colours only on a terminal: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_saga_says_why_what_is_exposed_and_a_command_that_can_be_pasted() {
    let (server, api, bank) = stuck(Engine::Sqlite, "pay$7").await;
    let screen = prints(&server, &["saga", "show", "pay$7"]);
    for line in [
        "state       NEEDS_INTERVENTION: nothing goes on until a person decides",
        "cause       step credit failed: the participant answered FAILED_PRECONDITION: closed",
        "waits       step debit cannot be undone: the participant answered PERMISSION_DENIED: not today",
        "2 effects stand: 2 for certain",
        "key pay$7/debit/action at bank (testbank.v1.Bank/Act)",
        "3 attempts to undo it, none with effect:",
        "key pay$7/debit/compensation at bank (testbank.v1.Bank/Undo)",
        "hold   is undone after debit",
        "debit  waits for a person, nothing is tried by itself",
        "docs/errors/FIN-50099.md",
    ] {
        assert!(screen.contains(line), "{line:?} is not in\n{screen}");
    }
    let drawn = screen.split("STEPS\n").nth(1).unwrap().split("\n\n").next().unwrap();
    assert_eq!(drawn.lines().count(), 3, "a chain, one step a line: {drawn}");
    assert!(screen.contains("debit undo") && screen.contains("3 x, last "), "{screen}");

    bank.answers(|_| Reply::Done);
    let command = screen.lines().find(|line| line.contains(" branch resolve ")).expect("a command");
    let shell =
        format!("{} --by ann", command.trim().replace("backstop ", "\"$0\" ").replace('…', "'by hand'"));
    let binary = crate::common::server::BINARY;
    let pasted = std::process::Command::new("sh").args(["-c", &shell, binary]).output().unwrap();
    assert!(pasted.status.success(), "{shell}: {}", said(&pasted));
    let saga = api.rest("pay$7").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let screen = prints(&server, &["saga", "show", "pay$7", "--only", "exposed,next"]);
    assert!(screen.contains("nothing stands; on a person's word, undone by hand: debit"), "{screen}");
    assert!(!screen.contains("NEXT"), "nothing is left to do: {screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_under_way_says_what_is_out_and_what_will_be_tried_when() {
    let server = Backstop::start(Engine::Sqlite).await;
    let api = server.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let steps = [
        step("debit", "bank").with("/compensation/retry/giveUpAfter", "3600s"),
        step("credit", "bank").after(&["debit"]).with("/action/timeout", "3000s"),
    ];
    api.define(definition("slow", steps)).await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |seen| match (seen.step().as_str(), seen.phase().as_str()) {
        ("credit", "action") => Reply::status(Code::FailedPrecondition, "closed").after(&held),
        ("debit", "compensation") => Reply::status(Code::Unavailable, "closed for the night"),
        _ => Reply::Done,
    });
    api.start("slow", "night").await;
    bank.until_seen("step credit", |seen| seen.step() == "credit").await;
    let saga = api.get("night").await.unwrap();
    assert!(branch(&saga, "credit").turn_time.is_some() && !branch(&saga, "credit").asking);
    let screen = prints(&server, &["saga", "show", "night"]);
    for line in [
        "state       RUNNING: going forward",
        "action #1 is out to bank for",
        "of at most 50m 0s",
        "in doubt: may be taking effect now: its call is out",
        "saga cancel night --reason …",
    ] {
        assert!(screen.contains(line), "{line:?} is not in\n{screen}");
    }

    gate.open();
    let fails = |saga: &v1::Saga| branch(saga, "debit").compensation_attempts > 1;
    let saga = api.until("night", "to be refused its undo", fails).await;
    assert!(branch(&saga, "debit").give_up_time.is_some(), "{}", shown(&saga));
    let screen = prints(&server, &["saga", "show", "night", "--only", "head,exposed,awaited,next"]);
    for line in [
        "state       ROLLING_BACK: what was done is being undone; it will not commit any more",
        "1 effect stands: 1 for certain",
        "certain: took effect, being undone",
        "of which one may have worked",
        "; left to a person from ",
        "last: the participant answered UNAVAILABLE: closed for the night (FIN-50302, L2, in doubt)",
        "it goes on by itself",
    ] {
        assert!(screen.contains(line), "{line:?} is not in\n{screen}");
    }
    bank.answers(|_| Reply::Done);
    let saga = api.rest("night").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_printed_again_and_ends_by_its_count() {
    let (server, _api, _bank) = stuck(Engine::Sqlite, "watched").await;
    let list = [
        "saga",
        "list",
        "--state",
        "needs-intervention",
        "--since",
        "1h",
        "--watch",
        "100ms",
        "--count",
        "3",
    ];
    let printed = prints(&server, &list);
    assert_eq!(printed.matches("SAGA ").count(), 3, "{printed}");
    assert_eq!(printed.matches("watched ").count(), 3, "{printed}");
    let printed = prints(&server, &["saga", "list", "--until", "1h"]);
    assert_eq!(printed.lines().count(), 1, "it was not there an hour ago: {printed}");
    let printed = prints(&server, &["saga", "list", "--columns", "state,id"]);
    assert_eq!(printed, "STATE               SAGA\nNEEDS_INTERVENTION  watched\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn diagrams_are_well_formed_and_hold_every_step() {
    let (server, _api, _bank) = stuck(Engine::Sqlite, "drawn").await;
    let steps = ["hold", "debit", "credit"];
    for arguments in [
        ["saga", "show", "drawn", "--mermaid"].as_slice(),
        &["saga", "show", "drawn", "--mermaid=attempts"],
        &["definition", "show", "transfer", "--mermaid"],
        &["definition", "simulate", "transfer", "--mermaid"],
        &["definition", "simulate", "transfer", "--step", "credit", "--mermaid"],
    ] {
        let text = prints(&server, arguments);
        let kind = text.lines().find(|line| !line.starts_with("%%")).unwrap();
        assert!(matches!(kind, "flowchart TD" | "sequenceDiagram"), "{text}");
        for name in steps {
            assert!(text.contains(name), "{arguments:?}: {name} is not in\n{text}");
        }
        for line in text.lines() {
            assert_eq!(line.matches('"').count() % 2, 0, "{line}");
            assert_eq!(line.matches('[').count(), line.matches(']').count(), "{line}");
        }
        if kind == "flowchart TD" {
            assert_eq!(text.matches(" --> ").count(), 2, "{text}");
        }
    }
    for arguments in [["saga", "show", "drawn", "--dot"], ["definition", "show", "transfer", "--dot"]] {
        let text = prints(&server, &arguments);
        assert!(text.starts_with("digraph \"") && text.ends_with("}\n"), "{text}");
        assert_eq!((text.matches('{').count(), text.matches('}').count()), (1, 1), "{text}");
        assert_eq!(text.matches(" -> ").count(), 2, "{text}");
        for name in steps {
            assert!(text.contains(&format!("[label=\"{name}")), "{name} is not in\n{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_lists_what_needs_a_person_and_why() {
    let (server, _api, bank) = stuck(Engine::Sqlite, "played").await;
    let before = bank.seen().len();
    let table = prints(&server, &["definition", "simulate", "transfer"]);
    let row = |step: &str, how: &str| {
        let found = table.lines().find(|line| line.starts_with(step) && line.contains(how));
        found.unwrap_or_else(|| panic!("{step} {how} is not in\n{table}")).to_owned()
    };
    let words =
        |row: String| row.split("  ").map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect();
    let refused: Vec<String> = words(row("credit", "refused"));
    assert_eq!(refused, ["credit", "refused", "ROLLED_BACK", "hold, debit, credit", "debit, hold"]);
    assert!(row("debit", "undo refused").contains("NEEDS_INTERVENTION"));
    let people = table.split(" runs need a person:\n").nth(1).expect("some need a person");
    assert!(people.contains("debit: undo refused\n    its effect stands"), "{table}");
    let one = prints(&server, &["definition", "simulate", "transfer", "--step", "credit", "--transcripts"]);
    assert!(!one.lines().any(|line| line.starts_with("hold ")), "only that step fails: {one}");
    assert!(one.contains("credit: refused\n  0001 saga"), "{one}");
    assert_eq!(bank.seen().len(), before, "nobody is called");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_asked_about_says_so() {
    let server = Backstop::start(Engine::Sqlite).await;
    let api = server.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let debit = step("debit", "bank").with("/inDoubt", "IN_DOUBT_QUERY").with(
        "/query",
        json!({ "participant": "bank", "method": "testbank.v1.Bank/Ask", "request": {}, "timeout": "3000s" }),
    );
    api.define(definition("asked", [debit])).await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |seen| match seen.phase().as_str() {
        "query" => Reply::Done.after(&held),
        _ => Reply::status(Code::Unavailable, "who knows"),
    });
    api.start("asked", "asked").await;
    bank.until_seen("the question", |seen| seen.phase() == "query").await;
    assert!(branch(&api.get("asked").await.unwrap(), "debit").asking);
    let screen = prints(&server, &["saga", "show", "asked"]);
    for line in [
        "question #1 is out to bank for",
        "in doubt: may have taken effect: no attempt has settled it",
        "debit question",
    ] {
        assert!(screen.contains(line), "{line:?} is not in\n{screen}");
    }
    gate.open();
    let saga = api.rest("asked").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    assert!(!branch(&saga, "debit").asking && branch(&saga, "debit").turn_time.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_watched_list_cleanly() {
    use std::io::{BufRead, BufReader};
    let (server, _api, _bank) = stuck(Engine::Sqlite, "looked-at").await;
    let address = format!("http://{}", server.address());
    let mut looking = std::process::Command::new(crate::common::server::BINARY)
        .args(["--server", &address, "saga", "list", "--watch", "100ms"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(looking.stdout.take().unwrap()).lines();
    // The second table: by then it listens for the signal.
    for _ in 0..4 {
        lines.next().expect("it goes on").unwrap();
    }
    let pid = looking.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let drained = lines.map_while(Result::ok).count();
    let status = looking.wait().unwrap();
    assert_eq!(status.code(), Some(0), "after {drained} more lines");
}
