//! `participant check` against services of three kinds: the SDK's, one in Python that knows only the page, and one
//! that does what it is asked each time it is asked.

mod ledger;

use crate::common::api::{branch, shown, state};
use crate::common::server::{BINARY, backstop};
use crate::common::tool::{self, said};
use crate::common::{Backstop, Engine};
use ledger::{Ledger, descriptors, example};
use prost::Message;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const ACTION: [&str; 8] = [
    "--action",
    "example.ledger.v1.LedgerService/Debit",
    "--action-request",
    r#"{"transfer_id": "${saga.id}", "account": "alice", "amount_minor": "7"}"#,
    "--compensation",
    "example.ledger.v1.LedgerService/ReverseDebit",
    "--compensation-request",
    r#"{"transfer_id": "${saga.id}"}"#,
];
const MORE: [&str; 14] = [
    "--other-request",
    r#"{"transfer_id": "${saga.id}", "account": "alice", "amount_minor": "8"}"#,
    "--refused-request",
    r#"{"transfer_id": "${saga.id}", "account": "alice", "amount_minor": "999999999"}"#,
    "--query",
    "example.ledger.v1.LedgerService/GetDebit",
    "--query-request",
    r#"{"transfer_id": "${saga.id}"}"#,
    "--read",
    "example.ledger.v1.LedgerService/GetAccount",
    "--read-request",
    r#"{"account": "alice"}"#,
    "--read-path",
    "available_minor",
];

fn check(address: &str, flags: &[&str]) -> Output {
    let all = [["participant", "check", address].as_slice(), &ACTION, flags].concat();
    backstop(Path::new("."), &all)
}

/// A ledger as a process of its own.
struct Process {
    process: Child,
    address: String,
}

impl Process {
    async fn python(arguments: &[&str]) -> Self {
        let mut python = Command::new(tool::python());
        python.args(arguments).current_dir(example()).env("PYTHONDONTWRITEBYTECODE", "1");
        Self::run(&mut python).await
    }

    async fn run(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = tokio::task::spawn_blocking(move || lines.next()).await.unwrap();
        let address = first.expect("it says where it listens").unwrap();
        let address = format!("http://{}", address.strip_prefix("listening ").expect("listening HOST:PORT"));
        Self { process, address }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn assert_passes_everything(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    assert!(said(output).ends_with("\n17 passed, 0 failed, 0 skipped\n"), "{}", said(output));
    assert!(!said(output).contains('\u{1b}'), "colours only on a terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_with_the_sdk_passes_every_check() {
    let ledger = Ledger::start(true).await;
    assert_passes_everything(&check(&ledger.address, &MORE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_participant_written_from_the_page_alone_passes_every_check() {
    let books = tempfile::tempdir().unwrap();
    let file = books.path().join("books.db");
    let python = Process::python(&["ledger.py", file.to_str().unwrap()]).await;
    assert_passes_everything(&check(&python.address, &MORE));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_own_ledger_passes_all_that_it_offers() {
    let books = tempfile::tempdir().unwrap();
    let mut demo = Command::new(BINARY);
    demo.args(["demo-service", "ledger", "--name", "ledger_a", "--listen", "127.0.0.1:0", "--db"]);
    let ledger = Process::run(demo.arg(books.path().join("books.db")).stderr(Stdio::null())).await;
    let account = json!({ "account": "accounts/alice", "currency": "EUR", "openingMinor": "1000" });
    let host = ledger.address.trim_start_matches("http://");
    tool::call_ok(host, &["-d", &account.to_string()], &["bank.ledger.v1.LedgerService/OpenAccount"]);
    let debit = |amount: &str| {
        json!({ "transferId": "${saga.id}", "account": "accounts/alice", "currency": "EUR", "amountMinor": amount })
            .to_string()
    };
    let (action, other, refused) = (debit("7"), debit("8"), debit("100000"));
    let output = backstop(
        Path::new("."),
        &[
            ["participant", "check", &ledger.address].as_slice(),
            &["--action", "bank.ledger.v1.LedgerService/Debit", "--action-request", &action],
            &["--other-request", &other, "--refused-request", &refused],
            &["--compensation", "bank.ledger.v1.LedgerService/ReverseDebit"],
            &["--compensation-request", r#"{"transferId": "${saga.id}"}"#],
            &["--read", "bank.ledger.v1.LedgerService/GetBalances", "--read-request", "{}"],
            &["--read-path", "accounts.0.available_minor"],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).ends_with("\n14 passed, 0 failed, 3 skipped\n"), "{}", said(&output));
}

/// Its races may end either way.
const BY_CHANCE: &str = "action-and-compensation-at-once";

#[tokio::test(flavor = "multi_thread")]
async fn peer_18_a_service_that_does_all_that_it_is_asked_fails_and_the_report_says_what_it_did_twice() {
    let naive = Process::python(&["naive.py"]).await;
    let output = check(&naive.address, &MORE);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let shown = said(&output);
    let verdicts: Vec<String> = shown
        .lines()
        .filter(|line| line.starts_with("PASS") || line.starts_with("FAIL"))
        .filter(|line| !line.contains(BY_CHANCE))
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    insta::assert_snapshot!(verdicts.join("\n"), @r"
    PASS metadata-accepted
    FAIL duplicate-action
    FAIL concurrent-duplicates
    PASS refusal-is-settled
    FAIL duplicate-refusal
    PASS compensation-undoes
    FAIL duplicate-compensation
    FAIL concurrent-compensations
    FAIL compensation-without-action
    FAIL late-action-after-empty-compensation
    FAIL late-action-after-compensation
    FAIL same-key-other-request
    FAIL similar-ids
    FAIL query-after-action
    PASS query-without-action
    FAIL query-fences
    ");
    let (_, first) = shown.split_once("FAIL").expect("a failure");
    let (first, _) = first.split_once("\nFAIL").expect("another failure");
    insta::assert_snapshot!(format!("FAIL{first}"), @r#"
    FAIL     duplicate-action                      a duplicate gets the first reply and has no effect
               sent      read GetAccount {"account":"alice"}
                 came    available_minor = 1000000
               sent      action Debit {"account":"alice","amount_minor":"7","transfer_id":"check-…-duplicate-action"}, attempt 1
                 came    OK {"availableMinor":"999993","entryId":"2"}
               sent      action Debit {"account":"alice","amount_minor":"7","transfer_id":"check-…-duplicate-action"}, attempt 2
                 came    OK {"availableMinor":"999986","entryId":"3"}
               sent      read GetAccount {"account":"alice"}
                 came    available_minor = 999986
               expected  the action stands in the books once
               found     the number has moved by -14: it stands there twice
               why       Backstop sends an action again when its answer was lost: without this the customer pays twice
               rule      2 of docs/participant-contract.md
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_given_is_skipped_and_said_and_json_says_all_of_it() {
    let ledger = Ledger::start(false).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.bin");
    std::fs::write(&file, descriptors().encode_to_vec()).unwrap();
    let types = ["--descriptors", file.to_str().unwrap()];
    let output = check(&ledger.address, &types);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("SKIPPED  query-fences"), "{}", said(&output));
    assert!(said(&output).contains("no --query was given"), "{}", said(&output));
    assert!(said(&output).contains("\n11 passed, 0 failed, 6 skipped\n"), "{}", said(&output));
    assert!(said(&output).contains("replies were judged, not effects"), "{}", said(&output));

    let output = check(&ledger.address, &[types.as_slice(), &["--json"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    assert_eq!((report["passed"].as_u64(), report["failed"].as_u64()), (Some(11), Some(0)));
    assert_eq!(report["effects_judged"], false);
    let duplicate = &report["checks"][1];
    assert_eq!((duplicate["name"].as_str(), duplicate["rule"].as_u64()), (Some("duplicate-action"), Some(2)));
    assert_eq!(duplicate["exchanges"].as_array().map(Vec::len), Some(2), "{duplicate}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_right_books_nothing_and_says_why() {
    let ledger = Ledger::start(true).await;
    let fails = |address: &str, flags: &[&str], text: &str| {
        let all = [["participant", "check", address].as_slice(), flags].concat();
        let output = backstop(Path::new("."), &all);
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {}", said(&output));
        assert!(said(&output).contains(text), "{text}: {}", said(&output));
    };
    let with = |place: usize, value: &'static str| {
        let mut flags = ACTION.to_vec();
        flags[place] = value;
        flags
    };
    let address = ledger.address.as_str();
    fails("http://127.0.0.1:1", &ACTION, "no participant answers at http://127.0.0.1:1");
    fails(address, &with(1, "example.ledger.v1.LedgerService/Nothing"), "has no method");
    fails(address, &with(1, "Debit"), "is not of the form");
    fails(
        address,
        &with(1, "example.ledger.v9.LedgerService/Debit"),
        "server reflection on example.ledger.v9",
    );
    fails(address, &with(3, "{"), "--action-request: it is no JSON");
    fails(address, &with(3, r#"{"amount": 1}"#), "--action-request: ");
    fails(address, &with(3, r#"{"account": "${input.x}"}"#), "a check knows ${saga.id}");
    let read_nowhere = [
        ACTION.as_slice(),
        &[
            "--read",
            "example.ledger.v1.LedgerService/GetAccount",
            "--read-request",
            r#"{"account": "alice"}"#,
        ],
        &["--read-path", "balance"],
    ]
    .concat();
    fails(address, &read_nowhere, "GetAccount shows a number at balance");
    let same = [ACTION.as_slice(), &["--other-request", ACTION[3]]].concat();
    fails(address, &same, "--other-request is the same");
    let usage = backstop(Path::new("."), &["participant", "check", address]);
    assert_eq!(usage.status.code(), Some(2), "{}", said(&usage));

    // Nothing was booked by any of these.
    let output = check(address, &MORE);
    assert_passes_everything(&output);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ledgers_take_part_in_one_saga_and_what_the_second_refuses_the_first_undoes() {
    let server = Backstop::start(Engine::Sqlite).await;
    let api = server.api();
    let rust = Ledger::start(true).await;
    let books = tempfile::tempdir().unwrap();
    let file = books.path().join("books.db");
    let python = Process::python(&["ledger.py", file.to_str().unwrap()]).await;
    for (name, address) in [("rust", &rust.address), ("python", &python.address)] {
        let participant = json!({ "name": name, "endpoints": [address], "deduplicatesByKey": true });
        api.register_participant(participant).await.unwrap();
    }
    let step = |participant: &str, amount: &str, after: &[&str]| {
        let call = |method: &str, request: Value| {
            let method = format!("example.ledger.v1.LedgerService/{method}");
            json!({ "participant": participant, "method": method, "request": request })
        };
        let id = json!("${saga.id}");
        json!({
            "name": participant,
            "dependsOn": after,
            "action": call("Debit", json!({ "transfer_id": id, "account": "alice", "amount_minor": amount })),
            "compensation": call("ReverseDebit", json!({ "transfer_id": id })),
        })
    };
    let steps = [step("rust", "7", &[]), step("python", "${input.amount}", &["rust"])];
    api.define(json!({ "name": "both", "steps": steps })).await;
    for (id, amount, end) in [("pays", "9", "SUCCEEDED"), ("fails", "999999999", "ROLLED_BACK")] {
        let start = json!({ "definition": "both", "sagaId": id, "input": { "amount": amount } });
        api.start_with(start).await.unwrap();
        let saga = api.rest(id).await;
        assert_eq!(state(&saga), end, "{}", shown(&saga));
    }
    let saga = api.rest("fails").await;
    let failure = branch(&saga, "python").failure.clone().expect("the failure is shown");
    assert_eq!(
        (failure.grpc_code.as_str(), failure.message.as_str()),
        ("FAILED_PRECONDITION", "insufficient funds")
    );
    assert_eq!(rust.available().await, 1_000_000 - 7, "the second debit was given back");
    let rows = rust.rows().await;
    let row =
        |saga: &str, phase: &str| (saga.to_owned(), "rust".to_owned(), phase.to_owned(), "done".to_owned());
    assert_eq!(rows, [row("fails", "action"), row("fails", "compensation"), row("pays", "action")]);
}
