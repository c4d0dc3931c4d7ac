//! Stories of starting, showing, listing and settling sagas.

use super::canned::Canned;
use super::fixtures::{rolled_back, stuck};
use super::{run, wrong_usage};
use crate::cli::Exit;
use backstop_proto::v1::failure::Evidence;
use backstop_proto::v1::{Saga, SagaState};
use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

#[tokio::test]
async fn a_saga_is_shown_with_its_cause_in_a_sentence_and_its_transcript_as_sent() {
    let server = Canned { saga: rolled_back(), ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["saga", "show", "pay-7"]).await;
    assert_eq!(ran.exit, Exit::Done, "to show a saga that was rolled back is no failure");
    assert_eq!(
        ran.out,
        "\
saga        pay-7
definition  transfer@3
state       ROLLED_BACK: nothing of it stands any more
cause       step credit failed: the participant answered FAILED_PRECONDITION: account \\u{1b}[31mclosed
            account: is closed
fin code    FIN-40005, tier L3: the caller can mend it; docs/errors/FIN-40005.md
started     2026-11-24 00:00:00Z, ended after 34.0ms
labels      customer=42  region=eu
trace       4bf92f3577b34da6a3ce929d0e0e4736

TRANSCRIPT
0001 saga     started        transfer@3
0002 saga     rolled back
"
    );
    assert!(server.asked()[0].contains("view: Basic"));
}

#[tokio::test]
async fn a_status_of_our_own_making_is_not_put_into_the_participants_mouth() {
    let mut saga = rolled_back();
    let failure = saga.cause.as_mut().unwrap().failure.as_mut().unwrap();
    failure.evidence = Evidence::ConnectionLost.into();
    failure.message.clear();
    let server = Canned { saga, ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["saga", "show", "pay-7"]).await;
    assert!(
        ran.out.contains("cause       step credit failed: the connection broke during the call\n"),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn a_stuck_saga_says_which_branch_waits_and_what_to_type() {
    let server = Canned { saga: stuck(), ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["saga", "show", "pay-7"]).await;
    assert!(
        ran.out
            .contains("\nwaits       step debit cannot be undone: the participant did not answer in time\n"),
        "{}",
        ran.out
    );
    for command in ["retry pay-7 debit --reason …", "resolve pay-7 debit --resolution undone --reason …"]
    {
        assert!(ran.out.contains(&format!("\n    backstop branch {command}\n")), "{}", ran.out);
    }
    assert!(!ran.out.contains("step credit cannot"), "a refused action waits for nobody: {}", ran.out);
    assert!(ran.err.is_empty(), "{}", ran.err);
}

#[tokio::test]
async fn with_wait_the_end_of_the_saga_is_the_exit_code() {
    let running = Saga { state: SagaState::Running.into(), ..rolled_back() };
    let succeeded = Saga { state: SagaState::Succeeded.into(), cause: None, ..rolled_back() };
    for (saga, exit) in [
        (succeeded, Exit::Done),
        (rolled_back(), Exit::RolledBack),
        (stuck(), Exit::NeedsIntervention),
        (running.clone(), Exit::Failed),
    ] {
        let server = Canned { saga, created: true, ..Canned::default() }.serve().await;
        let ran = run(&server.url, &["saga", "start", "transfer", "--wait", "3s"]).await;
        assert_eq!(ran.exit, exit, "{}", ran.out);
        assert!(server.asked()[0].contains("wait: Some(Duration { seconds: 3, nanos: 0 })"));
        assert_eq!(ran.err.contains("still RUNNING after 3.0s"), exit == Exit::Failed, "{}", ran.err);
    }
    let server = Canned { saga: running, created: true, ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["saga", "start", "transfer"]).await;
    assert_eq!(ran.exit, Exit::Done, "accepted, which is all that was asked");
}

#[tokio::test]
async fn start_sends_what_was_typed_and_an_id_of_its_own() {
    let server = Canned { saga: rolled_back(), ..Canned::default() }.serve().await;
    let args = ["saga", "start", "transfer@3", "--input", r#"{"amount": "1050"}"#, "--label", "a=b=c"];
    let ran = run(&server.url, &args).await;
    assert!(ran.err.contains("was there already"), "{}", ran.err);
    let asked = &server.asked()[0];
    for part in ["definition: \"transfer\", revision: 3", "StringValue(\"1050\")", "{\"a\": \"b=c\"}"] {
        assert!(asked.contains(part), "{asked}");
    }
    let id = asked.split("saga_id: \"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
}

#[tokio::test]
async fn an_input_from_a_file_shows_the_servers_faults_in_it() {
    let dir = std::env::temp_dir().join(format!("backstop-cli-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("input.json");
    std::fs::write(&path, "{\n  \"amount\": \"x\"\n}\n").unwrap();
    let mut details = ErrorDetails::new();
    details.set_bad_request(vec![FieldViolation::new("input.amount", "is no number")]);
    let refusal = Status::with_error_details(tonic::Code::InvalidArgument, "1 fault", details);
    let server = Canned { refusal: Some(refusal), ..Canned::default() }.serve().await;
    let ran =
        run(&server.url, &["saga", "start", "transfer", "--input", &format!("@{}", path.display())]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("input.json:2:13  input.amount: is no number\n"), "{}", ran.err);
    assert!(!ran.err.contains("may have been started"), "a refusal leaves no doubt");
    let ran = run(&server.url, &["saga", "start", "transfer", "--input", "{amount: 9007199254740993}"]).await;
    assert!(ran.err.starts_with("--input:1:10  amount: 9007199254740993 is beyond 2^53"), "{}", ran.err);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_start_without_an_answer_says_how_to_find_the_saga() {
    let server = Canned { is_silent: true, ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["--timeout", "50ms", "saga", "start", "transfer", "--id", "pay-7"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("saga pay-7 may have been started"), "{}", ran.err);
    assert!(ran.err.contains("did not answer within 50.0ms"), "{}", ran.err);
}

#[tokio::test]
async fn a_list_turns_pages_until_it_has_what_was_asked_for() {
    let sagas: Vec<Saga> =
        (0..1_200).map(|number| Saga { id: format!("pay-{number}"), ..rolled_back() }).collect();
    let server = Canned { sagas, ..Canned::default() }.serve().await;
    let all = run(&server.url, &["saga", "list", "--limit", "0"]).await;
    assert_eq!(all.out.lines().count(), 1_201);
    assert!(all.out.lines().last().unwrap().starts_with("pay-1199  transfer@3  ROLLED_BACK  FIN-40005  "));
    assert_eq!((server.asked().len(), all.err.as_str()), (3, ""));
    let some = run(&server.url, &["saga", "list"]).await;
    assert_eq!(some.out.lines().count(), 51);
    assert!(some.err.contains("only the newest 50 are shown"), "{}", some.err);
}

#[tokio::test]
async fn a_list_has_the_columns_that_were_asked_for_and_the_default_fits_100_columns() {
    let id = uuid::Uuid::now_v7().to_string();
    let stuck = Saga { id, owner: "host-1".to_owned(), ..stuck() };
    let server = Canned { sagas: vec![rolled_back(), stuck], ..Canned::default() }.serve().await;
    let columns = "id,state,started,ended,took,owner,labels,label.customer";
    let ran = run(&server.url, &["saga", "list", "--columns", columns]).await;
    let cells: Vec<&str> =
        ran.out.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let (started, ended) = ("2026-11-24T00:00:00Z", "2026-11-24T00:00:00.034Z");
    let expected = ["pay-7", "ROLLED_BACK", started, ended, "34.0ms", "-", "customer=42 region=eu", "42"];
    assert_eq!(cells, expected, "{}", ran.out);
    let ran = run(&server.url, &["saga", "list"]).await;
    assert!(ran.out.starts_with("SAGA") && ran.out.contains("  AGE "), "{}", ran.out);
    assert!(ran.out.lines().all(|line| line.chars().count() <= 100), "{}", ran.out);
    assert!(wrong_usage(&["saga", "list", "--columns", "trace"]).contains("label.KEY"));
}

#[tokio::test]
async fn a_list_is_watched_as_often_as_was_asked_for() {
    let server = Canned { sagas: vec![rolled_back()], ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["saga", "list", "--watch", "1ms", "--count", "3"]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert_eq!(ran.out.matches("pay-7").count(), 3, "{}", ran.out);
    assert_eq!(server.asked().len(), 3);
    assert!(!ran.out.contains('\u{1b}'), "nothing is drawn over where nobody looks: {:?}", ran.out);
    let refused = Canned { refusal: Some(Status::unavailable("no store")), ..Canned::default() };
    let server = refused.serve().await;
    let ran = run(&server.url, &["saga", "list", "--watch", "1ms"]).await;
    assert_eq!(ran.exit, Exit::Failed, "a first look that fails ends it");
    assert!(wrong_usage(&["saga", "list", "--count", "3"]).contains("--watch"));
    assert!(wrong_usage(&["saga", "list", "--watch", "0s"]).contains("not more often"));
}

#[tokio::test]
async fn since_and_until_are_instants_or_times_ago() {
    let server = Canned::default().serve().await;
    let args = ["saga", "list", "--since", "2d", "--until", "2026-11-23T01:00:00+01:00"];
    let ran = run(&server.url, &args).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let asked = server.asked().remove(0);
    let since = asked.split("create_time >= \\\"").nth(1).unwrap().split('\\').next().unwrap().to_owned();
    let ago = jiff::Timestamp::now().as_second() - since.parse::<jiff::Timestamp>().unwrap().as_second();
    assert!((172_800..172_900).contains(&ago), "{since}");
    assert!(asked.contains("AND create_time < \\\"2026-11-23T00:00:00Z\\\""), "{asked}");
    assert!(wrong_usage(&["saga", "list", "--since", "yesterday"]).contains("how long ago"));
}

#[tokio::test]
async fn show_prints_only_what_was_asked_for() {
    let server = Canned { saga: stuck(), ..Canned::default() }.serve().await;
    let ran = run(&server.url, &["saga", "show", "pay-7", "--only", "next"]).await;
    assert!(ran.out.starts_with("  once ") && !ran.out.contains("TRANSCRIPT"), "{}", ran.out);
    let ran = run(&server.url, &["saga", "show", "pay-7", "--mermaid"]).await;
    assert!(ran.out.starts_with("%% pay-7 NEEDS_INTERVENTION (transfer@3)\nflowchart TD\n"), "{}", ran.out);
    let ran = run(&server.url, &["saga", "show", "pay-7", "--dot"]).await;
    assert!(ran.out.starts_with("digraph ") && ran.out.ends_with("}\n"), "{}", ran.out);
    let ran = run(&server.url, &["saga", "show", "pay-7", "--mermaid=attempts"]).await;
    assert!(ran.out.contains("\nsequenceDiagram\n"), "{}", ran.out);
}

#[tokio::test]
async fn the_flags_of_a_list_become_one_filter() {
    let server = Canned::default().serve().await;
    let ran = run(
        &server.url,
        &[
            "saga",
            "list",
            "--state",
            "ROLLED_BACK",
            "--state",
            "needs-intervention",
            "--definition",
            "transfer",
            "--fin-code",
            "FIN-40005",
            "--label",
            "customer=4\"2",
            "--label",
            "a.b=c",
            "--filter",
            "create_time >= \"2026-11-23T00:00:00Z\"",
        ],
    )
    .await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let expected = "(state = \"ROLLED_BACK\" OR state = \"NEEDS_INTERVENTION\") AND definition = \"transfer\" \
                    AND fin_code = \"FIN-40005\" AND labels.customer = \"4\\\"2\" AND labels.a.b = \"c\" \
                    AND create_time >= \"2026-11-23T00:00:00Z\"";
    assert!(server.asked()[0].contains(&format!("filter: {expected:?}")), "{:?}", server.asked());
}

#[tokio::test]
async fn cancel_and_the_operators_verbs_say_who_and_why() {
    let server = Canned { saga: stuck(), ..Canned::default() }.serve().await;
    let who = ["--by", "ann", "--reason", "ticket 4711"];
    for (verb, words) in [
        ("saga cancel", vec!["saga", "cancel", "pay-7"]),
        ("branch retry", vec!["branch", "retry", "pay-7", "debit"]),
        ("branch resolve", vec!["branch", "resolve", "pay-7", "debit", "--resolution", "no-effect"]),
    ] {
        let ran = run(&server.url, &[words.as_slice(), &who].concat()).await;
        assert_eq!(ran.exit, Exit::Done, "{verb}: {}", ran.err);
        let asked = server.asked().pop().unwrap();
        assert!(asked.contains("\"ann\"") && asked.contains("\"ticket 4711\""), "{asked}");
    }
    assert!(server.asked()[2].contains("resolution: NoEffect"));
}
