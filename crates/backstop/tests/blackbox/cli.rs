//! The command line against a running server: what it prints, and how it ends.

use crate::common::server::{BINARY, backstop};
use crate::common::tool::{run, said};
use crate::common::{Backstop, Bank, Engine, Reply, definition, step};
use backstop_sql::testing::Postgres;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};
use tonic::Code;

pub(crate) const DONE: i32 = 0;
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
const ROLLED_BACK: i32 = 3;
pub(crate) const NEEDS_INTERVENTION: i32 = 4;

/// Runs the binary against a server.
pub(crate) fn cli(server: &Backstop, directory: &Path, arguments: &[&str]) -> Output {
    let server = format!("http://{}", server.address());
    let mut all = arguments.to_vec();
    all.extend(["--server", server.as_str()]);
    backstop(directory, &all)
}

pub(crate) fn ends(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(!said(output).contains('\u{1b}'), "colours only on a terminal: {}", said(output));
    said(output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_file_is_shown_with_file_line_and_path() {
    let server = Backstop::start(Engine::Sqlite).await;
    let bank = Bank::start("bank").await;
    server.api().enlist(&bank).await;
    let directory = tempfile::tempdir().unwrap();
    let yaml = "\
name: transfer
steps:
  - name: debit
    action:
      participant: bank
      method: testbank.v1.Bank/Act
      request:
        account: ${input.account}
        cents: much
    compensation:
      participant: bank
      method: testbank.v1.Bank/Undo
  - name: credit
    depends_on: [debit, nowhere]
    action:
      participant: bank
      method: testbank.v1.Bank/Act
";
    std::fs::write(directory.path().join("transfer.yaml"), yaml).unwrap();
    let shown = ends(&cli(&server, directory.path(), &["definition", "register", "transfer.yaml"]), FAILED);
    for (line, path) in
        [(9, "steps[0].action.request.cents"), (14, "steps[1].depends_on[1]"), (13, "steps[1].compensation")]
    {
        let place = format!("transfer.yaml:{line}");
        let found = shown.lines().any(|said| said.contains(&place) && said.contains(path));
        assert!(found, "{place} {path} is not in\n{shown}");
    }
    std::fs::write(directory.path().join("broken.yaml"), "name: [unclosed\nsteps: 7\n").unwrap();
    let shown = ends(&cli(&server, directory.path(), &["definition", "register", "broken.yaml"]), FAILED);
    assert!(shown.contains("broken.yaml:"), "{shown}");
    std::fs::write(directory.path().join("odd.yaml"), "name: transfer\nstpes: []\n").unwrap();
    let shown = ends(&cli(&server, directory.path(), &["definition", "register", "odd.yaml"]), FAILED);
    assert!(shown.contains("odd.yaml:2") && shown.contains("stpes"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_how_a_saga_ended() {
    let server = Backstop::start(Engine::Sqlite).await;
    let api = server.api();
    let bank = Bank::start("bank").await;
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    bank.answers(|seen| match (seen.saga().as_str(), seen.phase().as_str(), seen.step().as_str()) {
        ("bad" | "stuck", "action", "credit") => Reply::status(Code::FailedPrecondition, "account closed"),
        ("stuck", "compensation", _) => Reply::status(Code::PermissionDenied, "not today"),
        _ => Reply::Done,
    });
    let endpoint = bank.endpoint();
    ends(&cli(&server, here, &["participant", "register", "bank", "--endpoint", &endpoint]), DONE);
    let steps = [step("debit", "bank"), step("credit", "bank").after(&["debit"])];
    let file = here.join("transfer.json");
    std::fs::write(&file, definition("transfer", steps).to_string()).unwrap();
    let shown = ends(&cli(&server, here, &["definition", "register", "transfer.json"]), DONE);
    assert!(shown.contains("transfer@1"), "{shown}");
    let input = json!({ "account": "a", "cents": "5" }).to_string();
    let start = |id: &str| {
        cli(&server, here, &["saga", "start", "transfer", "--id", id, "--input", &input, "--wait", "30s"])
    };
    ends(&start("good"), DONE);
    let shown = ends(&start("bad"), ROLLED_BACK);
    assert!(shown.contains("account closed"), "the cause is shown: {shown}");
    ends(&start("stuck"), NEEDS_INTERVENTION);

    let shown = ends(&cli(&server, here, &["saga", "show", "bad"]), DONE);
    let transcript = api.get("bad").await.unwrap().transcript;
    for line in &transcript {
        assert!(shown.contains(line.as_str()), "{line:?} is not in\n{shown}");
    }
    let shown = ends(&cli(&server, here, &["saga", "show", "bad", "--json"]), DONE);
    let json: serde_json::Value = serde_json::from_str(&shown).expect("--json prints JSON");
    let text = json.to_string();
    assert!(text.contains("SAGA_STATE_ROLLED_BACK") && text.contains("FIN-40005"), "{text}");
    let shown = ends(&cli(&server, here, &["saga", "list", "--state", "ROLLED_BACK"]), DONE);
    assert!(shown.contains("bad") && !shown.contains("good"), "{shown}");

    bank.answers(|_| Reply::Done);
    let retry = ["branch", "retry", "stuck", "debit", "--by", "ann", "--reason", "rights restored"];
    ends(&cli(&server, here, &retry), DONE);
    assert_eq!(crate::common::api::state(&api.rest("stuck").await), "ROLLED_BACK");

    ends(&cli(&server, here, &["saga", "show", "nobody"]), FAILED);
    ends(&cli(&server, here, &["saga", "cancel", "good", "--reason", "late", "--by", "ann"]), FAILED);
    ends(&cli(&server, here, &["saga"]), USAGE);
    ends(&cli(&server, here, &["saga", "start"]), USAGE);
    ends(&cli(&server, here, &["nonsense"]), USAGE);
    ends(&backstop(here, &["saga", "list", "--server", "http://127.0.0.1:1"]), FAILED);
}

#[test]
fn a_setting_that_cannot_be_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for arguments in [
        ["serve", "--store", "mysql://localhost/x"],
        ["serve", "--store", ""],
        ["serve", "--listen", "nowhere"],
        ["serve", "--config", "absent.toml"],
    ] {
        let output = backstop(here, &arguments);
        let code = output.status.code();
        assert!(matches!(code, Some(FAILED | USAGE)), "{arguments:?} ends {code:?}: {}", said(&output));
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
    }
    std::fs::write(here.join("odd.toml"), "stroe = \"sqlite:x.db\"\nlisten = 7\n").unwrap();
    let output = backstop(here, &["serve", "--config", "odd.toml"]);
    assert_ne!(output.status.code(), Some(DONE));
    assert!(said(&output).contains("stroe"), "the unknown setting is named: {}", said(&output));
}

#[test]
fn peer_29_every_setting_that_cannot_be_is_named_at_once_wherever_it_was_set_and_nothing_starts() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let file = "stroe = \"sqlite:x.db\"\n[lease]\nttl = \"0s\"\n[limits]\nlabels_max = -1\n[journal]\nqueue_max = \"many\"\n\
                [telemetry]\nlog_format = \"xml\"\n[error_domains.payment.NOT_FOUND]\ntier = \"L9\"\n";
    std::fs::write(here.join("odd.toml"), file).unwrap();
    let mut command = Command::new("timeout");
    command.args(["60", BINARY, "serve", "--config", "odd.toml", "--store", "mysql://db/x"]);
    command.args(["--listen", "nowhere", "--metrics-listen", "elsewhere"]).current_dir(here).env_clear();
    command.env("BACKSTOP_DRAIN_TIME", "soon").env("BACKSTOP_LIMITS__WAIT_MAXX", "1s");
    let output = run(&mut command);
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(FAILED), "{shown}");
    for fault in [
        "stroe",
        "lease.ttl",
        "limits.labels_max",
        "journal.queue_max",
        "telemetry.log_format",
        "error_domains.payment.NOT_FOUND.tier",
        "store",
        "listen",
        "metrics_listen",
        "drain_time",
        "limits.wait_maxx",
    ] {
        let named = shown
            .lines()
            .any(|line| line.trim().to_lowercase().starts_with(&format!("{}:", fault.to_lowercase())));
        assert!(named, "{fault} is not named in\n{shown}");
    }
    assert!(!shown.contains("panicked") && !shown.contains("listening"), "{shown}");
    let left: Vec<_> = std::fs::read_dir(here).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["odd.toml"], "nothing was made before the settings were read");
}

#[test]
fn print_config_shows_what_is_in_force_and_hides_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["serve", "--print-config", "--store", "postgres://ann:hunter2@db.example/backstop"])
        .current_dir(directory.path());
    let output = run(command.env("BACKSTOP_LISTEN", "127.0.0.1:7999"));
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(DONE), "{shown}");
    assert!(shown.contains("127.0.0.1:7999"), "the environment counts: {shown}");
    assert!(shown.contains("db.example") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_postgres_is_used_only_once_it_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let url = Postgres::shared().expect("Postgres starts").create_database().unwrap();
    let early = backstop(here, &["serve", "--store", &url, "--listen", "127.0.0.1:0"]);
    assert_eq!(early.status.code(), Some(FAILED), "{}", said(&early));
    assert!(said(&early).contains("migrate"), "it says what to do: {}", said(&early));
    for round in 0..2 {
        let output = backstop(here, &["migrate", "--store", &url]);
        assert_eq!(output.status.code(), Some(DONE), "round {round}: {}", said(&output));
    }
}
