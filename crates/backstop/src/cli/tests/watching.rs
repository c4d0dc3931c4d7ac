//! Stories of `saga watch`.

use super::canned::{Canned, Streamed};
use super::run;
use crate::cli::Exit;
use crate::cli::connect::Connection;
use crate::cli::live::Live;
use crate::cli::out::captured;
use backstop_proto::v1::event::Type;
use backstop_proto::v1::{Event, Saga, SagaState, WatchSagaResponse};
use clap::Parser;
use std::collections::VecDeque;
use std::sync::Mutex;
use tonic::Status;

fn event(seq: u64, kind: Type, line: &str) -> Result<WatchSagaResponse, Status> {
    let event = Event { seq, r#type: kind.into(), line: line.to_owned(), ..Event::default() };
    Ok(WatchSagaResponse { event: Some(event) })
}

fn canned(state: SagaState, seq: u64, streams: impl IntoIterator<Item = Streamed>) -> Canned {
    Canned {
        saga: Saga { id: "pay-7".to_owned(), state: state.into(), seq, ..Saga::default() },
        streams: Mutex::new(streams.into_iter().collect::<VecDeque<_>>()),
        ..Canned::default()
    }
}

#[tokio::test]
async fn a_saga_is_watched_to_its_end_and_the_end_is_the_exit_code() {
    for (kind, exit) in [(Type::Succeeded, Exit::Done), (Type::RolledBack, Exit::RolledBack)] {
        let events = vec![
            event(1, Type::Started, "0001 saga     started        transfer@3"),
            event(2, kind, "0002 saga     over \u{1b}[2J"),
        ];
        let server = canned(SagaState::Running, 2, [events]).serve().await;
        let ran = run(&server.url, &["saga", "watch", "pay-7"]).await;
        assert_eq!(ran.exit, exit);
        assert_eq!(ran.out, "0001 saga     started        transfer@3\n0002 saga     over \\u{1b}[2J\n");
    }
}

#[tokio::test]
async fn a_broken_stream_goes_on_after_the_last_event() {
    let first = vec![
        event(1, Type::Started, "one"),
        event(2, Type::ActionSucceeded, "two"),
        Err(Status::unavailable("the coordinator is leaving")),
    ];
    // The next coordinator repeats an event, as one that ignores `after_seq` would.
    let second = vec![event(2, Type::ActionSucceeded, "two"), event(3, Type::Succeeded, "three")];
    let server = canned(SagaState::Running, 2, [first, second]).serve().await;
    let ran = run(&server.url, &["saga", "watch", "pay-7"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "one\ntwo\nthree\n"));
    let asked = server.asked();
    assert!(asked[0].contains("after_seq: 0") && asked[1].contains("after_seq: 2"), "{asked:?}");
}

#[tokio::test]
async fn a_stream_that_ends_early_loses_no_event_though_the_saga_is_over_by_then() {
    let first = vec![event(1, Type::Started, "one")];
    let second = vec![event(2, Type::RolledBack, "two")];
    let server = canned(SagaState::RolledBack, 2, [first, second]).serve().await;
    let ran = run(&server.url, &["saga", "watch", "pay-7"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::RolledBack, "one\ntwo\n"));
}

#[tokio::test]
async fn an_intervention_ends_the_watch_only_if_it_is_still_open() {
    let opened = vec![event(1, Type::Started, "one"), event(2, Type::InterventionOpened, "two")];
    let server = canned(SagaState::NeedsIntervention, 2, [opened]).serve().await;
    let ran = run(&server.url, &["saga", "watch", "pay-7"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::NeedsIntervention, "one\ntwo\n"));

    let resolved = vec![
        event(2, Type::InterventionOpened, "two"),
        event(3, Type::BranchResolved, "three"),
        event(4, Type::RolledBack, "four"),
    ];
    let server = canned(SagaState::RolledBack, 4, [resolved]).serve().await;
    let ran = run(&server.url, &["saga", "watch", "pay-7", "--after", "1"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::RolledBack, "two\nthree\nfour\n"));
}

#[tokio::test]
async fn a_saga_that_was_over_before_has_its_end_as_exit_code() {
    let server = canned(SagaState::RolledBack, 9, [vec![]]).serve().await;
    let ran = run(&server.url, &["saga", "watch", "pay-7", "--after", "9"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::RolledBack, ""));
}

#[tokio::test]
async fn what_another_attempt_cannot_mend_ends_the_watch() {
    let server =
        canned(SagaState::Running, 1, [vec![Err(Status::not_found("there is no saga pay-7"))]]).serve().await;
    let ran = run(&server.url, &["saga", "watch", "pay-7"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("NOT_FOUND"), "{}", ran.err);
    assert_eq!(server.asked().len(), 1, "it was not asked again");
}

#[tokio::test]
async fn a_stream_that_ends_again_and_again_is_given_up() {
    let server = canned(SagaState::Running, 1, []).serve().await;
    let ran = run(&server.url, &["saga", "watch", "pay-7"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("ends again and again"), "{}", ran.err);
}

#[tokio::test]
async fn json_comes_a_line_an_event() {
    let server = canned(SagaState::Succeeded, 1, [vec![event(1, Type::Succeeded, "one")]]).serve().await;
    let ran = run(&server.url, &["--json", "saga", "watch", "pay-7"]).await;
    assert_eq!(ran.out, "{\"event\":{\"line\":\"one\",\"seq\":\"1\",\"type\":\"TYPE_SUCCEEDED\"}}\n");
}

#[tokio::test]
async fn on_a_terminal_what_is_awaited_stands_below_the_events_and_is_gone_at_the_end() {
    let saga = super::fixtures::stuck();
    let server = Canned { saga, ..Canned::default() }.serve().await;
    let args = super::Program::try_parse_from(["backstop", "--server", &server.url, "saga", "list"]).unwrap();
    let connection = Connection::open(&args.connect).await.unwrap();
    let (mut terminal, out, _err) = captured::terminal();
    let mut live = Live::new("pay-7");
    let said = event(1, Type::Started, "").unwrap().event.unwrap();
    live.event(&mut terminal, &said, "0001 one").unwrap();
    assert_eq!(out.text(), "0001 one\n", "nothing is drawn before the saga was looked at");
    live.tick(&connection, &mut terminal).await.unwrap();
    let block = out.text().split_once("0001 one\n").unwrap().1.to_owned();
    assert!(block.starts_with("── pay-7 NEEDS_INTERVENTION for "), "{block:?}");
    let lines = block.lines().count();
    live.event(&mut terminal, &said, "0002 two").unwrap();
    let erased = format!("{block}\u{1b}[{lines}A\r\u{1b}[J0002 two\n── pay-7");
    assert!(out.text().contains(&erased), "{:?}", out.text());
    live.erase(&mut terminal).unwrap();
    assert!(out.text().ends_with(&format!("\u{1b}[{lines}A\r\u{1b}[J")), "{:?}", out.text());
}
