//! One call after another.

use crate::common::{
    Books, World, action, assert_refused_without_effect, call, compensation, insufficient, on_both_engines,
    seen,
};
use backstop_participant::{Context, Entered, Fingerprint, Phase, Stop};
use tonic::{Code, Status};

on_both_engines!(
    peer_18_a_duplicate_gets_the_first_reply_and_books_nothing,
    peer_18_a_refusal_is_kept_with_its_details_though_its_work_is_rolled_back,
    a_database_error_in_the_work_rolls_back_and_a_refusal_after_it_is_still_kept,
    a_temporary_failure_is_not_kept,
    a_failure_with_a_code_that_speaks_for_its_key_is_kept,
    a_compensation_undoes_once_and_may_read_what_the_action_replied,
    peer_18_a_compensation_without_an_action_does_nothing_and_shuts_the_action_out,
    a_compensation_of_a_refused_action_does_nothing,
    peer_18_an_action_after_its_compensation_is_refused_though_it_once_took_effect,
    a_refused_compensation_may_be_tried_again,
    another_request_under_the_same_key_is_refused_and_says_nothing_about_the_first,
    another_step_and_another_saga_are_other_calls,
    an_action_from_an_older_epoch_of_a_saga_that_rolls_back_is_refused,
    a_transaction_of_ones_own_keeps_what_was_written_before,
    work_that_ends_the_transaction_itself_is_noticed,
);

async fn peer_18_a_duplicate_gets_the_first_reply_and_books_nothing<DB: Books>(world: World<DB>) {
    let first = world.take(&action("s"), 7).await.unwrap();
    let again = world.take(&Context { attempt: 2, clock: 30, epoch: 2, ..action("s") }, 7).await.unwrap();
    assert_eq!((first.as_str(), again.as_str()), ("s/debit/action", "s/debit/action"));
    assert_eq!(world.entries().await, [("s/debit/action".to_owned(), 7)]);
}

async fn peer_18_a_refusal_is_kept_with_its_details_though_its_work_is_rolled_back<DB: Books>(
    world: World<DB>,
) {
    let first = world.take(&action("s"), -7).await.unwrap_err();
    assert_eq!(seen(&first).0, Code::FailedPrecondition);
    assert_eq!(seen(&first).1, seen(&insufficient()).1);
    assert_eq!(seen(&first), seen(&world.take(&action("s"), -7).await.unwrap_err()));
    use tonic_types::StatusExt;
    let violations = first.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "amount");
    assert_eq!(first.get_details_localized_message().unwrap().message, "余额不足");
    assert_eq!(world.entries().await, []);
}

async fn a_database_error_in_the_work_rolls_back_and_a_refusal_after_it_is_still_kept<DB: Books>(
    world: World<DB>,
) {
    let mut seen_twice = Vec::new();
    for _ in 0..2 {
        let status =
            match world.barrier.enter::<String>(&action("s"), Fingerprint::of("m", &7_i64)).await.unwrap() {
                Entered::Answered(answer) => answer.unwrap_err(),
                Entered::First(mut call) => {
                    DB::book(call.db(), "twice", 1).await.unwrap();
                    // Postgres takes nothing more in this transaction after an error.
                    DB::book(call.db(), "twice", 1).await.unwrap_err();
                    call.finish(Err(Stop::Refused(insufficient()))).await.unwrap_err()
                }
            };
        seen_twice.push(seen(&status));
    }
    assert_eq!(seen_twice[0].0, Code::FailedPrecondition);
    assert_eq!(seen_twice[0], seen_twice[1]);
    assert_eq!(world.entries().await, []);
    // Whoever goes on as if nothing had happened is not believed on Postgres, and keeps half on SQLite.
    let Entered::First(mut call) =
        world.barrier.enter::<String>(&action("t"), Fingerprint::of("m", &7_i64)).await.unwrap()
    else {
        panic!("a new call");
    };
    DB::book(call.db(), "thrice", 1).await.unwrap();
    let error = DB::book(call.db(), "thrice", 1).await.unwrap_err();
    assert_eq!(call.finish(Err(error.into())).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(world.entries().await, []);
}

async fn a_temporary_failure_is_not_kept<DB: Books>(world: World<DB>) {
    let print = Fingerprint::of("action", &7_i64);
    let Entered::First(mut call) = world.barrier.enter::<String>(&action("s"), print).await.unwrap() else {
        panic!("a new call");
    };
    DB::book(call.db(), "half", 1).await.unwrap();
    let status = call.finish(Err(Stop::from(Status::unavailable("later")))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(world.entries().await, []);
    world.take(&action("s"), 7).await.unwrap();
    assert_eq!(world.sum().await, 7);
}

async fn a_failure_with_a_code_that_speaks_for_its_key_is_kept<DB: Books>(world: World<DB>) {
    let print = Fingerprint::of("action", &7_i64);
    let Entered::First(call) = world.barrier.enter::<String>(&action("s"), print).await.unwrap() else {
        panic!("a new call");
    };
    call.finish(Err(Stop::Failed(Status::not_found("no account")))).await.unwrap_err();
    assert_eq!(world.take(&action("s"), 7).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(world.entries().await, []);
}

async fn a_compensation_undoes_once_and_may_read_what_the_action_replied<DB: Books>(world: World<DB>) {
    world.take(&action("s"), 7).await.unwrap();
    let undo = Fingerprint::of("compensation", &7_i64);
    let Entered::First(mut call) = world.barrier.enter::<String>(&compensation("s"), undo).await.unwrap()
    else {
        panic!("a new call");
    };
    assert_eq!(call.action_reply::<String>().as_deref(), Some("s/debit/action"));
    DB::book(call.db(), "undone", -7).await.unwrap();
    call.finish(Ok("undone".to_owned())).await.unwrap();
    assert_eq!(world.take(&compensation("s"), 7).await.unwrap(), "undone");
    assert_eq!(world.entries().await, [("s/debit/action".to_owned(), 7), ("undone".to_owned(), -7)]);
}

async fn peer_18_a_compensation_without_an_action_does_nothing_and_shuts_the_action_out<DB: Books>(
    world: World<DB>,
) {
    assert_eq!(world.take(&compensation("s"), 7).await.unwrap(), "");
    assert_eq!(world.take(&compensation("s"), 7).await.unwrap(), "");
    let late = Context { attempt: 4, clock: 99, epoch: 99, ..action("s") };
    for late in [action("s"), late] {
        assert_refused_without_effect(&world.take(&late, 7).await.unwrap_err(), "COMPENSATED");
    }
    assert_eq!(world.entries().await, []);

    // With an answer of one's own.
    let undo = Fingerprint::of("compensation", &7_i64);
    for _ in 0..2 {
        let answer = world.barrier.enter_or(&compensation("t"), undo, || "nothing".to_owned()).await.unwrap();
        let Entered::Answered(answer) = answer else { panic!("nothing to do") };
        assert_eq!(answer.unwrap().into_inner(), "nothing");
    }
}

async fn a_compensation_of_a_refused_action_does_nothing<DB: Books>(world: World<DB>) {
    let refused = world.take(&action("s"), -7).await.unwrap_err();
    assert_eq!(world.take(&compensation("s"), 7).await.unwrap(), "");
    assert_eq!(seen(&world.take(&action("s"), -7).await.unwrap_err()), seen(&refused));
    assert_eq!(world.entries().await, []);
}

async fn peer_18_an_action_after_its_compensation_is_refused_though_it_once_took_effect<DB: Books>(
    world: World<DB>,
) {
    world.take(&action("s"), 7).await.unwrap();
    world.take(&compensation("s"), 7).await.unwrap();
    assert_refused_without_effect(&world.take(&action("s"), 7).await.unwrap_err(), "COMPENSATED");
    assert_eq!(world.entries().await.len(), 2);
    assert_eq!(world.sum().await, 0);
}

async fn a_refused_compensation_may_be_tried_again<DB: Books>(world: World<DB>) {
    world.take(&action("s"), 7).await.unwrap();
    let undo = Fingerprint::of("compensation", &7_i64);
    let Entered::First(mut call) = world.barrier.enter::<String>(&compensation("s"), undo).await.unwrap()
    else {
        panic!("a new call");
    };
    DB::book(call.db(), "half", -1).await.unwrap();
    let refusal = call.finish(Err(Stop::Refused(insufficient()))).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert_eq!(world.take(&action("s"), 7).await.unwrap(), "s/debit/action", "it is not undone");
    world.take(&compensation("s"), 7).await.unwrap();
    assert_eq!(world.sum().await, 0);
}

async fn another_request_under_the_same_key_is_refused_and_says_nothing_about_the_first<DB: Books>(
    world: World<DB>,
) {
    world.take(&action("s"), 7).await.unwrap();
    let other = world.take(&action("s"), 8).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists, "a code that leaves the key's own effect open");
    world.take(&compensation("s"), 7).await.unwrap();
    assert_eq!(world.take(&compensation("s"), 8).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(world.sum().await, 0);
    assert_eq!(world.entries().await.len(), 2);
}

async fn another_step_and_another_saga_are_other_calls<DB: Books>(world: World<DB>) {
    for (saga, step) in [("pay-7", "debit"), ("pay-70", "debit"), ("pay-7", "debit2"), ("pay-", "7")] {
        let key = format!("{saga}/{step}/action");
        world.take(&Context { step: step.into(), idempotency_key: key, ..action(saga) }, 1).await.unwrap();
    }
    assert_eq!(world.sum().await, 4);
}

async fn an_action_from_an_older_epoch_of_a_saga_that_rolls_back_is_refused<DB: Books>(world: World<DB>) {
    let other = |epoch, phase| Context {
        step: "credit".into(),
        idempotency_key: format!("s/credit/{}", Phase::as_str(phase)),
        epoch,
        ..call("s", phase)
    };
    world.take(&other(3, Phase::Compensation), 7).await.unwrap();
    let ghost = Context { epoch: 2, ..action("s") };
    for _ in 0..2 {
        assert_refused_without_effect(&world.take(&ghost, 7).await.unwrap_err(), "COMPENSATED");
    }
    let other_step = |epoch| Context {
        step: "third".into(),
        idempotency_key: "s/third/action".into(),
        epoch,
        ..action("s")
    };
    world.take(&other_step(3), 7).await.unwrap();
    assert_eq!(world.sum().await, 7, "the same tenure may have called it before it decided");

    // A signal does the same.
    world.barrier.close("t", 4).await.unwrap();
    world.barrier.close("t", 2).await.unwrap();
    let refused = world.take(&Context { epoch: 3, ..action("t") }, 7).await.unwrap_err();
    assert_refused_without_effect(&refused, "COMPENSATED");
    world.take(&Context { epoch: 3, ..compensation("t") }, 7).await.unwrap();
    assert_eq!(world.sum().await, 7);
}

async fn a_transaction_of_ones_own_keeps_what_was_written_before<DB: Books>(world: World<DB>) {
    let mut tx = world.barrier.begin().await.unwrap();
    DB::book(&mut tx, "before", 100).await.unwrap();
    let entered =
        world.barrier.enter_in(tx, &action("s"), Fingerprint::of("m", &1_i64), String::new).await.unwrap();
    let Entered::First(mut call) = entered else { panic!("a new call") };
    DB::book(call.db(), "work", 1).await.unwrap();
    call.finish(Err(Stop::Refused(insufficient()))).await.unwrap_err();
    assert_eq!(world.entries().await, [("before".to_owned(), 100)]);
}

async fn work_that_ends_the_transaction_itself_is_noticed<DB: Books>(world: World<DB>) {
    let print = Fingerprint::of("action", &7_i64);
    let Entered::First(mut call) = world.barrier.enter::<String>(&action("s"), print).await.unwrap() else {
        panic!("a new call");
    };
    DB::end(call.db()).await;
    let status = call.finish(Ok("done".to_owned())).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    world.take(&action("s"), 7).await.unwrap();
}
