//! Work that another system does.

use crate::common::{
    Books, World, action, assert_refused_without_effect, compensation, insufficient, on_both_engines, query,
    seen,
};
use backstop_participant::{Context, Fingerprint, Outside, OutsideCall, Stop};
use tonic::{Code, Status};

on_both_engines!(
    an_outcome_is_kept_and_answered_again,
    peer_18_a_call_that_was_begun_and_has_no_outcome_is_asked_about_and_not_done_again,
    of_two_who_ask_the_first_outcome_kept_is_everybodys,
    a_temporary_failure_leaves_it_begun,
    a_compensation_of_what_was_begun_shuts_its_outcome_out,
    a_compensation_of_what_is_done_reads_its_reply_and_is_asked_about_when_it_was_lost,
    a_compensation_without_an_action_does_nothing_outside_either,
    neither_local_work_nor_a_query_guesses_what_became_of_it,
);

async fn begin<DB: Books>(world: &World<DB>, context: &Context) -> Outside<DB, String> {
    world.barrier.begin_outside(context, Fingerprint::of("outside", &1_i64)).await.unwrap()
}

#[track_caller]
fn first<DB: Books>(found: Outside<DB, String>) -> OutsideCall<DB, String> {
    match found {
        Outside::First(call) => call,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unfinished<DB: Books>(found: Outside<DB, String>) -> OutsideCall<DB, String> {
    match found {
        Outside::Unfinished(call) => call,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn answered<DB: Books>(found: Outside<DB, String>) -> Result<String, Status> {
    match found {
        Outside::Answered(answer) => answer.map(tonic::Response::into_inner),
        other => panic!("{other:?}"),
    }
}

async fn an_outcome_is_kept_and_answered_again<DB: Books>(world: World<DB>) {
    let call = first(begin(&world, &action("s")).await);
    assert_eq!(call.finish(Ok("paid".to_owned())).await.unwrap().into_inner(), "paid");
    assert_eq!(answered(begin(&world, &action("s")).await).unwrap(), "paid");
    let call = first(begin(&world, &action("t")).await);
    let refused = call.finish(Err(Stop::Refused(insufficient()))).await.unwrap_err();
    assert_eq!(seen(&answered(begin(&world, &action("t")).await).unwrap_err()), seen(&refused));
    let other = world.barrier.begin_outside::<String>(&action("s"), Fingerprint::of("outside", &2_i64)).await;
    assert_eq!(answered(other.unwrap()).unwrap_err().code(), Code::AlreadyExists);
}

async fn peer_18_a_call_that_was_begun_and_has_no_outcome_is_asked_about_and_not_done_again<DB: Books>(
    world: World<DB>,
) {
    drop(first(begin(&world, &action("s")).await));
    for _ in 0..2 {
        let call = unfinished(begin(&world, &action("s")).await);
        assert_eq!(call.in_doubt().code(), Code::Unavailable);
    }
    let call = unfinished(begin(&world, &action("s")).await);
    call.finish(Ok("found".to_owned())).await.unwrap();
    assert_eq!(answered(begin(&world, &action("s")).await).unwrap(), "found");
}

async fn of_two_who_ask_the_first_outcome_kept_is_everybodys<DB: Books>(world: World<DB>) {
    let slow = first(begin(&world, &action("s")).await);
    let asker = unfinished(begin(&world, &action("s")).await);
    asker.finish(Ok("found".to_owned())).await.unwrap();
    assert_eq!(slow.finish(Ok("paid".to_owned())).await.unwrap().into_inner(), "found");
    let slow = first(begin(&world, &action("t")).await);
    unfinished(begin(&world, &action("t")).await)
        .finish(Err(Stop::Refused(insufficient())))
        .await
        .unwrap_err();
    assert_eq!(slow.finish(Ok("paid".to_owned())).await.unwrap_err().code(), Code::FailedPrecondition);
}

async fn a_temporary_failure_leaves_it_begun<DB: Books>(world: World<DB>) {
    let call = first(begin(&world, &action("s")).await);
    let status = call.finish(Err(Stop::Failed(Status::unavailable("later")))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    unfinished(begin(&world, &action("s")).await).finish(Ok("paid".to_owned())).await.unwrap();
}

async fn a_compensation_of_what_was_begun_shuts_its_outcome_out<DB: Books>(world: World<DB>) {
    let slow = first(begin(&world, &action("s")).await);
    let undo = unfinished(begin(&world, &compensation("s")).await);
    assert_eq!(undo.action_reply::<String>(), None);
    let late = answered(begin(&world, &action("s")).await).unwrap_err();
    assert_refused_without_effect(&late, "COMPENSATED");
    undo.finish(Ok("asked, and undone".to_owned())).await.unwrap();
    let meanwhile = slow.finish(Ok("paid".to_owned())).await.unwrap_err();
    assert_eq!(meanwhile.code(), Code::Internal, "not one that says that nothing was done");
    assert_eq!(answered(begin(&world, &compensation("s")).await).unwrap(), "asked, and undone");
    assert_refused_without_effect(&answered(begin(&world, &action("s")).await).unwrap_err(), "COMPENSATED");
}

async fn a_compensation_of_what_is_done_reads_its_reply_and_is_asked_about_when_it_was_lost<DB: Books>(
    world: World<DB>,
) {
    first(begin(&world, &action("s")).await).finish(Ok("paid".to_owned())).await.unwrap();
    let undo = first(begin(&world, &compensation("s")).await);
    assert_eq!(undo.action_reply::<String>().as_deref(), Some("paid"));
    let refused = undo.finish(Err(Stop::Refused(insufficient()))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let again = unfinished(begin(&world, &compensation("s")).await);
    assert_eq!(again.action_reply::<String>().as_deref(), Some("paid"));
    again.finish(Ok("paid back".to_owned())).await.unwrap();
    assert_eq!(answered(begin(&world, &compensation("s")).await).unwrap(), "paid back");
}

async fn a_compensation_without_an_action_does_nothing_outside_either<DB: Books>(world: World<DB>) {
    assert_eq!(answered(begin(&world, &compensation("s")).await).unwrap(), "");
    assert_refused_without_effect(&answered(begin(&world, &action("s")).await).unwrap_err(), "COMPENSATED");
}

async fn neither_local_work_nor_a_query_guesses_what_became_of_it<DB: Books>(world: World<DB>) {
    drop(first(begin(&world, &action("s")).await));
    assert_eq!(world.barrier.query::<String>(&query("s")).await.unwrap_err().code(), Code::Unavailable);
    let print = Fingerprint::of("outside", &1_i64);
    let backstop_participant::Entered::Answered(Err(status)) =
        world.barrier.enter::<String>(&action("s"), print).await.unwrap()
    else {
        panic!("it was begun outside");
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(world.take(&compensation("s"), 1).await.unwrap_err().code(), Code::Unavailable);
    // That compensation has left nothing behind: the action may still be settled.
    unfinished(begin(&world, &action("s")).await).finish(Ok("found".to_owned())).await.unwrap();
    assert_eq!(world.take(&compensation("s"), 1).await.unwrap(), "s/debit/compensation");
}
