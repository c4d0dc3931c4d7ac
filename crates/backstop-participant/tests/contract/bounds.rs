//! Sizes, ages, and rows that make no sense.

use crate::common::{Books, World, action, compensation, on_both_engines, seen};
use backstop_participant::{
    DETAILS_BYTES_MAX, Entered, Fingerprint, MESSAGE_BYTES_MAX, REPLY_BYTES_MAX, Stop,
};
use std::time::{Duration, SystemTime};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

on_both_engines!(
    a_refusal_of_any_length_is_bounded_and_the_same_each_time,
    a_reply_larger_than_the_limit_is_rolled_back,
    a_refusal_with_the_status_ok_is_no_success,
    peer_18_a_purge_takes_old_rows_in_bounded_bites_and_leaves_the_rest,
    a_row_that_makes_no_sense_is_not_guessed,
);

async fn a_refusal_of_any_length_is_bounded_and_the_same_each_time<DB: Books>(world: World<DB>) {
    let mut details = ErrorDetails::with_error_info("FIN-40017", "bank", [("a".to_owned(), "b".to_owned())]);
    for n in 0..2000 {
        details.add_bad_request_violation(format!("field{n}"), "x".repeat(100));
    }
    let long = Status::with_error_details(Code::InvalidArgument, "账".repeat(5000), details);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let status =
            match world.barrier.enter::<String>(&action("s"), Fingerprint::of("m", &1_i64)).await.unwrap() {
                Entered::Answered(answer) => answer.unwrap_err(),
                Entered::First(call) => call.finish(Err(Stop::Refused(long.clone()))).await.unwrap_err(),
            };
        assert!(status.message().len() <= MESSAGE_BYTES_MAX && status.message().ends_with("…[cut]"));
        assert!(status.details().len() <= DETAILS_BYTES_MAX + MESSAGE_BYTES_MAX + 64);
        let info = status.get_details_error_info().expect("what fits is kept");
        assert_eq!(info.reason, "FIN-40017");
        answers.push(seen(&status));
    }
    assert_eq!(answers[0], answers[1]);
}

async fn a_reply_larger_than_the_limit_is_rolled_back<DB: Books>(world: World<DB>) {
    let Entered::First(mut call) =
        world.barrier.enter::<String>(&action("s"), Fingerprint::of("action", &7_i64)).await.unwrap()
    else {
        panic!("a new call");
    };
    DB::book(call.db(), "large", 1).await.unwrap();
    let status = call.finish(Ok("x".repeat(REPLY_BYTES_MAX))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(world.entries().await, []);
    world.take(&action("s"), 7).await.unwrap();
}

async fn a_refusal_with_the_status_ok_is_no_success<DB: Books>(world: World<DB>) {
    let print = Fingerprint::of("action", &7_i64);
    let Entered::First(call) = world.barrier.enter::<String>(&action("s"), print).await.unwrap() else {
        panic!("a new call");
    };
    let status = call.finish(Err(Stop::Refused(Status::ok("what?")))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    world.take(&action("s"), 7).await.unwrap();
}

async fn peer_18_a_purge_takes_old_rows_in_bounded_bites_and_leaves_the_rest<DB: Books>(world: World<DB>) {
    let day = Duration::from_secs(24 * 3600);
    let mut long_ago = world.clone();
    long_ago.barrier =
        world.barrier.clone().with_clock(|| SystemTime::now() - Duration::from_secs(100 * 24 * 3600));
    for n in 0..5 {
        long_ago.take(&action(&format!("old{n}")), 1).await.unwrap();
    }
    long_ago.take(&action("undone late"), 1).await.unwrap();
    world.take(&compensation("undone late"), 1).await.unwrap();
    world.take(&action("new"), 1).await.unwrap();
    DB::run(
        &world.pool,
        "INSERT INTO backstop_barrier VALUES ('open', 'debit', 'action', 'started', 1, 1, NULL, NULL, 0, NULL)",
    )
    .await;

    assert_eq!(world.barrier.purge(200 * day, 100).await.unwrap(), 0);
    assert_eq!(world.barrier.purge(90 * day, 2).await.unwrap(), 2);
    assert_eq!(world.barrier.purge(90 * day, 100).await.unwrap(), 3);
    assert_eq!(world.barrier.purge(90 * day, 100).await.unwrap(), 0);
    let left = "SELECT COUNT(*) FROM backstop_barrier WHERE saga_id IN ('undone late', 'new', 'open')";
    assert_eq!(DB::number(&world.pool, left).await, 4, "an action stays as long as its compensation");
    assert_eq!(DB::number(&world.pool, "SELECT COUNT(*) FROM backstop_barrier").await, 4);
    assert_eq!(world.barrier.purge(Duration::MAX, 100).await.unwrap(), 0);
    assert_eq!(world.barrier.purge(Duration::ZERO, 0).await.unwrap(), 0);
}

async fn a_row_that_makes_no_sense_is_not_guessed<DB: Books>(world: World<DB>) {
    world.take(&action("s"), 7).await.unwrap();
    DB::run(&world.pool, "UPDATE backstop_barrier SET reply = NULL").await;
    assert_eq!(world.take(&action("s"), 7).await.unwrap_err().code(), Code::Internal);
    world.take(&action("t"), -7).await.unwrap_err();
    DB::run(&world.pool, "UPDATE backstop_barrier SET reply = fingerprint").await;
    assert_eq!(world.take(&action("t"), -7).await.unwrap_err().code(), Code::Internal);
    assert_eq!(world.sum().await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_disk_that_was_full_the_next_call_is_served() {
    let world = World::sqlite_of_pages(30).await;
    for _ in 0..3 {
        let print = Fingerprint::of("m", &1_i64);
        let Entered::First(call) = world.barrier.enter::<String>(&action("full"), print).await.unwrap()
        else {
            panic!("nothing is kept of a call that did not fit");
        };
        let answer = call.finish(Ok("x".repeat(1 << 20))).await.map(|_| "OK");
        assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
    }
    world.take(&action("small"), 7).await.unwrap();
    assert_eq!(world.sum().await, 7);
}
