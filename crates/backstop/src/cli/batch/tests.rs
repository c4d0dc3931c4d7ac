//! Stories of many at once, against a server that remembers what it was asked.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::cli::ConnectArgs;
use crate::cli::out::captured;
use crate::cli::tests::canned::{Canned, Server};
use crate::cli::tests::interventions::refused;
use crate::cli::tests::{Ran, run as run_line, run_at};
use backstop_proto::v1::{Saga, SagaState};
use tonic_types::{ErrorDetails, StatusExt};

fn no(code: tonic::Code, reason: &str) -> tonic::Status {
    let details = ErrorDetails::with_error_info(reason, "backstop", [("k".to_owned(), "v".to_owned())]);
    tonic::Status::with_error_details(code, "it says why", details)
}

fn commands(server: &Server) -> Vec<String> {
    server
        .asked()
        .into_iter()
        .filter(|asked| !asked.starts_with("List") && !asked.starts_with("GetSaga"))
        .collect()
}

async fn three() -> Server {
    let sagas = (0..3).map(|n| refused(&format!("pay-{n}"), n * 1_000)).collect();
    Canned { sagas, ..Canned::default() }.serve().await
}

const RETRY: [&str; 8] =
    ["branch", "retry", "--all", "--reason", "rights restored", "--by", "ann", "--rate=1000"];

async fn retry(server: &Server, more: &[&str]) -> Ran {
    run_line(&server.url, &[&RETRY, more].concat()).await
}

#[tokio::test]
async fn a_dry_run_shows_each_and_asks_nobody_to_do_anything() {
    let server = three().await;
    let ran = retry(&server, &["--dry-run"]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    for id in ["pay-0", "pay-1", "pay-2", "3 branches were found"] {
        assert!(ran.out.contains(id), "{}", ran.out);
    }
    assert_eq!(ran.err, "dry run: nothing was done\n");
    assert!(commands(&server).is_empty(), "{:?}", commands(&server));
}

#[tokio::test]
async fn a_wrong_count_does_nothing() {
    let server = three().await;
    let ran = retry(&server, &["--yes", "4"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(ran.err, "error: --yes 4, but 3 branches were found: nothing was done\n");
    let ran = retry(&server, &[]).await;
    assert!(ran.err.contains("nobody is there to ask: nothing was done; --yes 3 does it"), "{}", ran.err);
    for typed in ["2\n", "\n", "yes\n", ""] {
        let (terminal, out, err) = captured::terminal();
        let exit = run_at(&server.url, &RETRY, &mut terminal.answering(typed)).await;
        assert_eq!(exit, Exit::Failed, "{typed:?}: {} {}", out.text(), err.text());
        assert!(err.text().contains("not agreed to: nothing was done"), "{}", err.text());
    }
    assert!(commands(&server).is_empty(), "{:?}", commands(&server));
}

#[tokio::test]
async fn each_is_told_once_with_the_reason_and_the_person() {
    for typed in [None, Some("3\n")] {
        let server = three().await;
        let (terminal, out, err) = captured::terminal();
        let exit = match typed {
            Some(typed) => run_at(&server.url, &RETRY, &mut terminal.answering(typed)).await,
            None => run_at(&server.url, &[&RETRY[..], &["--yes", "3"]].concat(), &mut { terminal }).await,
        };
        assert_eq!(exit, Exit::Done, "{}", err.text());
        let told = commands(&server);
        assert_eq!(told.len(), 3, "{told:?}");
        for (n, told) in told.iter().enumerate() {
            for part in [&format!("pay-{n}"), "step: \"debit\"", "by: \"ann\"", "reason: \"rights restored\""]
            {
                assert!(told.contains(part), "{part} is not in {told}");
            }
        }
        assert!(
            out.text().ends_with("done 3, already done 0, refused 0, no answer 0, not tried 0\n"),
            "{}",
            out.text()
        );
    }
}

#[tokio::test]
async fn one_refusal_does_not_keep_the_others_from_being_told() {
    let sagas = (0..4).map(|n| refused(&format!("pay-{n}"), n * 1_000)).collect();
    let refusals = [
        ("pay-0".to_owned(), no(tonic::Code::FailedPrecondition, "BRANCH_NOT_WAITING")),
        ("pay-1".to_owned(), no(tonic::Code::DataLoss, "JOURNAL_UNREADABLE")),
        ("pay-2".to_owned(), no(tonic::Code::NotFound, "NOT_FOUND")),
    ];
    let server = Canned { sagas, refusals: refusals.into(), ..Canned::default() }.serve().await;
    let ran = retry(&server, &["--yes", "4", "--json"]).await;
    assert_eq!(ran.exit, Exit::Failed, "one was refused");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let outcomes: Vec<_> =
        json["targets"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ALREADY_DONE", "NO_ANSWER", "REFUSED", "DONE"]);
    assert_eq!(json["targets"][2]["detail"], "NOT_FOUND: it says why");
    assert_eq!(commands(&server).len(), 4);
}

#[tokio::test]
async fn a_resolution_is_only_said_where_it_can_be_true() {
    let server = three().await;
    let line = ["branch", "resolve", "--participant", "ledger_a", "--reason", "x", "--by", "ann"];
    let ran =
        run_line(&server.url, &[&line[..], &["--resolution", "took-effect", "--yes", "0"]].concat()).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert!(ran.out.contains("left out: 3 of which"), "{}", ran.out);
    assert!(commands(&server).is_empty());
    let ran = run_line(&server.url, &[&line[..], &["--resolution", "undone", "--yes", "3"]].concat()).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert!(commands(&server).iter().all(|told| told.contains("Undone")), "{:?}", commands(&server));
}

#[tokio::test]
async fn many_are_cancelled_by_filter_and_those_going_back_count_as_done() {
    let running = |id: &str| Saga { id: id.into(), state: SagaState::Running.into(), ..Saga::default() };
    let cause = backstop_proto::v1::RollbackCause { by: "bob".into(), ..Default::default() };
    let server = Canned {
        sagas: vec![running("a"), running("b")],
        saga: Saga { cause: Some(cause), ..running("a") },
        ..Canned::default()
    }
    .serve()
    .await;
    let line = ["saga", "cancel", "--definition", "transfer", "--label", "customer=42", "--by", "ann"];
    let ran = run_line(&server.url, &[&line[..], &["--yes", "2"]].concat()).await;
    assert!(ran.err.contains("--reason and --by must say"), "{}", ran.err);
    let ran =
        run_line(&server.url, &[&line[..], &["--reason", "fraud", "--rate", "500", "--yes", "2"]].concat())
            .await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert!(ran.out.contains("already done 2"), "{}", ran.out);
    let list = &server.asked()[0];
    for term in ["RUNNING", "definition = ", "labels.customer = "] {
        assert!(list.contains(term), "{list}");
    }
}

#[test]
fn one_and_many_cannot_be_meant_at_once() {
    use crate::cli::tests::wrong_usage;
    for line in [
        &["saga", "cancel", "--reason", "x"][..],
        &["saga", "cancel", "pay-7", "--dry-run"],
        &["saga", "cancel", "pay-7", "--definition", "transfer"],
        &["saga", "cancel", "--reason", "x", "--yes", "3"],
        &["branch", "retry", "--reason", "x", "--by", "ann"],
        &["branch", "retry", "pay-7", "--reason", "x", "--by", "ann"],
        &["branch", "retry", "pay-7", "debit", "--all", "--reason", "x", "--by", "ann"],
        &["branch", "retry", "pay-7", "debit", "--dry-run", "--reason", "x", "--by", "ann"],
        &["branch", "retry", "--all", "--reason", "x", "--by", "ann", "--rate", "0"],
    ] {
        wrong_usage(line);
    }
}

#[tokio::test]
async fn an_interrupt_ends_it_after_the_present_one() {
    let server = three().await;
    let args = ConnectArgs::at(&server.url);
    let (mut terminal, _out, err) = captured::terminal();
    let mut session = Session { connect: &args, terminal: &mut terminal };
    let connection = session.open().await.unwrap();
    let target = |n| Target { saga: format!("pay-{n}"), step: "debit".into(), ..Target::default() };
    let plan = Plan { targets: (0..3).map(target).collect(), ..Plan::default() };
    let order = Order { by: "ann".into(), reason: "x".into(), word: Word::Retry };
    // Comes while the first is being told: it is seen to be asked for.
    let interrupt = async {
        while commands(&server).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let pause = Duration::from_millis(1);
    let report = carry_out(&mut session, &connection, &order, plan, pause, interrupt).await.unwrap();
    assert_eq!(commands(&server).len(), 1, "the second is never told");
    assert_eq!(report.targets[0].outcome, Outcome::Done, "the present one is awaited");
    assert_eq!(report.targets[1].outcome, Outcome::Untried);
    assert!(err.text().contains("stopped: 1 of 3 were tried"), "{}", err.text());
    assert!(!report.is_all_well());
}

#[tokio::test]
async fn a_server_that_is_gone_ends_it() {
    let refusals = (0..9).map(|n| (format!("pay-{n}"), no(tonic::Code::Unavailable, "STORE"))).collect();
    let sagas = (0..9).map(|n| refused(&format!("pay-{n}"), n * 1_000)).collect();
    let server = Canned { sagas, refusals, ..Canned::default() }.serve().await;
    let ran = retry(&server, &["--yes", "9"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(commands(&server).len(), SILENT_MAX);
    assert!(ran.out.ends_with("no answer 5, not tried 4\n"), "{}", ran.out);
    assert!(ran.err.contains("the rest was not tried"), "{}", ran.err);
}
