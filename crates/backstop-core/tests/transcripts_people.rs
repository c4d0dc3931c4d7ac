//! Stories of one saga each: pivots and people, deadlines and cancellations, crashes and signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_core::{
    BranchState, Code, CompensationOrder, Evidence, Input, NotSent, OnFailure, ParticipantName, Refused,
    Resolution, SagaState,
};
use common::plan::Plan;
use common::story::Story;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// A reservation, the transfer that cannot be taken back, and a notice that must get out.
fn payment() -> Plan {
    Plan::new().step("reserve", &[]).pivot("pay", &["reserve"]).retriable("notify", &["pay"])
}

#[test]
fn a_pivot_that_is_refused_is_rolled_back_like_any_step() {
    let mut story = Story::start(&payment());
    story.ok("reserve");
    story.says("pay", Code::FailedPrecondition, "limit exceeded");
    story.ok("reserve");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 reserve  succeeded      #1  10.0ms
        0003 pay      failed         #1  FIN-40005 FAILED_PRECONDITION  limit exceeded
        0004 saga     rolling back   cause pay
        0005 reserve  compensated    #1  10.0ms
        0006 saga     rolled back
        ",
    );
}

#[test]
fn a_pivot_in_doubt_goes_to_a_person_who_finds_it_done() {
    let mut story = Story::start(&payment());
    story.ok("reserve");
    story.times_out("pay");
    story.is(SagaState::NeedsIntervention);
    assert_eq!(story.calls(), Vec::<String>::new(), "neither sent again nor undone");
    assert_eq!(story.resolve("pay", Resolution::Undone), Err(Refused::WrongResolution));
    story.resolve("pay", Resolution::TookEffect).unwrap();
    assert_eq!(story.cancel(), Err(Refused::PastPivot));
    story.ok("notify");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 reserve  succeeded      #1  10.0ms
        0003 pay      failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0004 saga     needs a person
        0005 pay      resolved by    ben: TOOK_EFFECT  looked at the books
        0006 notify   succeeded      #1  10.0ms
        0007 saga     succeeded
        ",
    );
}

#[test]
fn a_pivot_in_doubt_goes_to_a_person_who_finds_that_nothing_happened() {
    let mut story = Story::start(&payment());
    story.ok("reserve");
    story.times_out("pay");
    story.resolve("pay", Resolution::NoEffect).unwrap();
    assert_eq!(story.calls(), ["reserve compensation #1"]);
    story.ok("reserve");
    story.is(SagaState::RolledBack);
    assert_eq!(story.saga.branches[2].state, BranchState::Skipped);
    story.tells(
        "
        0002 reserve  succeeded      #1  10.0ms
        0003 pay      failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0004 saga     needs a person
        0005 pay      resolved by    ben: NO_EFFECT  looked at the books
        0006 saga     rolling back   cause pay, resolved by hand
        0007 reserve  compensated    #1  10.0ms
        0008 saga     rolled back
        ",
    );
}

#[test]
fn a_pivot_in_doubt_is_sent_again_if_a_person_says_so() {
    let mut story = Story::start(&payment());
    story.ok("reserve");
    story.times_out("pay");
    story.retry("pay").unwrap();
    assert_eq!(story.calls(), ["pay action #2"]);
    story.says("pay", Code::FailedPrecondition, "");
    story.is(SagaState::NeedsIntervention);
    story.retry("pay").unwrap();
    story.ok("pay");
    story.ok("notify");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 reserve  succeeded      #1  10.0ms
        0003 pay      failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0004 saga     needs a person
        0005 pay      retried by     ben: mended
        0006 pay      failed         #2  FIN-40005 FAILED_PRECONDITION
        0007 saga     needs a person
        0008 pay      retried by     ben: mended
        0009 pay      succeeded      #3  10.0ms
        0010 notify   succeeded      #1  10.0ms
        0011 saga     succeeded
        ",
    );
}

#[test]
fn a_pivot_in_doubt_is_resent_where_that_is_safe_whatever_the_status_was() {
    let mut story = Story::start(&Plan::new().pivot("pay", &[]).dedup());
    story.says("pay", Code::Internal, "");
    story.later();
    story.times_out("pay");
    story.later();
    story.fails("pay", Evidence::NotSent(NotSent::BreakerOpen));
    story.is(SagaState::NeedsIntervention);
    story.retry("pay").unwrap();
    story.says("pay", Code::FailedPrecondition, "the same answer as ever");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 pay      will retry     #1  FIN-50001 INTERNAL in doubt
        0003 pay      will retry     #2  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0004 pay      failed         #3  FIN-50302 UNAVAILABLE (breaker open)
        0005 saga     needs a person
        0006 pay      retried by     ben: mended
        0007 pay      failed         #4  FIN-40005 FAILED_PRECONDITION  the same answer as ever
        0008 saga     rolling back   cause pay
        0009 saga     rolled back
        ",
    );
}

#[test]
fn a_pivot_in_doubt_is_asked_about_and_asked_again_after_a_persons_retry() {
    let mut story = Story::start(&payment_with_query());
    story.times_out("pay");
    story.times_out("pay");
    story.later();
    story.times_out("pay");
    story.is(SagaState::NeedsIntervention);
    story.retry("pay").unwrap();
    assert_eq!(story.calls(), ["pay query #3"], "sending it again could pay twice");
    story.ok("pay");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 pay      will ask       #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0003 pay      will ask again #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0004 pay      in doubt       #2  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0005 saga     needs a person
        0006 pay      retried by     ben: mended
        0007 pay      took effect    #3  10.0ms
        0008 saga     succeeded
        ",
    );
}

fn payment_with_query() -> Plan {
    Plan::new().pivot("pay", &[]).query().attempts(2)
}

#[test]
fn a_retriable_step_that_fails_for_good_waits_for_a_person_and_is_tried_again() {
    let mut story = Story::start(&payment());
    story.ok("reserve");
    story.ok("pay");
    story.says("notify", Code::FailedPrecondition, "unknown address");
    story.is(SagaState::NeedsIntervention);
    assert_eq!(story.resolve("notify", Resolution::NoEffect), Err(Refused::WrongResolution));
    assert_eq!(story.resolve("notify", Resolution::Undone), Err(Refused::WrongResolution));
    assert_eq!(story.retry("pay"), Err(Refused::NotWaiting));
    story.retry("notify").unwrap();
    assert_eq!(story.calls(), ["notify action #2"]);
    story.says("notify", Code::Internal, "");
    story.is(SagaState::NeedsIntervention);
    story.resolve("notify", Resolution::TookEffect).unwrap();
    story.is(SagaState::Succeeded);
    assert_eq!(story.retry("notify"), Err(Refused::Ended));
    story.tells(
        "
        0002 reserve  succeeded      #1  10.0ms
        0003 pay      succeeded      #1  10.0ms
        0004 notify   failed         #1  FIN-40005 FAILED_PRECONDITION  unknown address
        0005 saga     needs a person
        0006 notify   retried by     ben: mended
        0007 notify   failed         #2  FIN-50001 INTERNAL in doubt
        0008 saga     needs a person
        0009 notify   resolved by    ben: TOOK_EFFECT  looked at the books
        0010 saga     succeeded
        ",
    );
}

#[test]
fn a_retriable_step_that_is_only_unavailable_is_tried_without_end() {
    let mut story = Story::start(&Plan::new().pivot("pay", &[]).retriable("notify", &["pay"]).dedup());
    story.ok("pay");
    for _ in 0..50 {
        story.says("notify", Code::Unavailable, "");
        story.later();
    }
    story.ok("notify");
    story.is(SagaState::Succeeded);
}

#[test]
fn one_retriable_step_that_waits_for_a_person_does_not_hold_up_the_others() {
    let plan = Plan::new().pivot("pay", &[]).retriable("notify", &["pay"]).retriable("book", &["pay"]);
    let mut story = Story::start(&plan.retriable("report", &["book"]));
    story.ok("pay");
    story.says("notify", Code::InvalidArgument, "");
    story.ok("book");
    story.is(SagaState::Running);
    story.ok("report");
    story.is(SagaState::NeedsIntervention);
    story.retry("notify").unwrap();
    story.ok("notify");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 pay      succeeded      #1  10.0ms
        0003 notify   failed         #1  FIN-40005 INVALID_ARGUMENT
        0004 book     succeeded      #1  10.0ms
        0005 report   succeeded      #1  10.0ms
        0006 saga     needs a person
        0007 notify   retried by     ben: mended
        0008 notify   succeeded      #2  10.0ms
        0009 saga     succeeded
        ",
    );
}

#[test]
fn a_compensation_that_is_refused_three_times_is_stuck_and_others_go_on_as_far_as_they_may() {
    let plan = Plan::new().step("a", &[]).step("b", &["a"]).step("c", &["a"]).step("d", &["b", "c"]);
    let mut story = Story::start(&plan);
    ["a", "b", "c"].iter().for_each(|step| story.ok(step));
    story.says("d", Code::FailedPrecondition, "");
    story.says("b", Code::FailedPrecondition, "already paid out");
    story.later();
    story.says("b", Code::Unavailable, "does not count");
    story.later();
    story.says("b", Code::Internal, "");
    story.later();
    story.says("b", Code::FailedPrecondition, "already paid out");
    story.is(SagaState::RollingBack);
    story.ok("c");
    story.is(SagaState::NeedsIntervention);
    assert_eq!(story.saga.branches[0].state, BranchState::Succeeded, "a waits for b");
    story.retry("b").unwrap();
    story.is(SagaState::RollingBack);
    for _ in 0..2 {
        story.says("b", Code::FailedPrecondition, "");
        story.later();
    }
    story.says("b", Code::FailedPrecondition, "");
    story.is(SagaState::NeedsIntervention);
    assert_eq!(story.resolve("b", Resolution::TookEffect), Err(Refused::WrongResolution));
    assert_eq!(story.resolve("b", Resolution::NoEffect), Err(Refused::WrongResolution));
    story.resolve("b", Resolution::Undone).unwrap();
    story.ok("a");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 b        succeeded      #1  10.0ms
        0004 c        succeeded      #1  10.0ms
        0005 d        failed         #1  FIN-40005 FAILED_PRECONDITION
        0006 saga     rolling back   cause d
        0007 b        undo failed    #1  FIN-40005 FAILED_PRECONDITION  already paid out
        0008 b        undo failed    #2  FIN-50302 UNAVAILABLE in doubt  does not count
        0009 b        undo failed    #3  FIN-50001 INTERNAL in doubt
        0010 b        stuck          #4  FIN-40005 FAILED_PRECONDITION  already paid out
        0011 c        compensated    #1  10.0ms
        0012 saga     needs a person
        0013 b        retried by     ben: mended
        0014 b        undo failed    #5  FIN-40005 FAILED_PRECONDITION
        0015 b        undo failed    #6  FIN-40005 FAILED_PRECONDITION
        0016 b        stuck          #7  FIN-40005 FAILED_PRECONDITION
        0017 saga     needs a person
        0018 b        resolved by    ben: UNDONE  looked at the books
        0019 a        compensated    #1  10.0ms
        0020 saga     rolled back
        ",
    );
}

#[test]
fn a_stuck_compensation_holds_up_all_before_it_newest_first_and_nothing_if_they_commute() {
    let plan = |order| Plan::new().step("a", &[]).step("b", &[]).refusals(1).step("c", &["a", "b"]).order(order);
    let stuck = |order| {
        let mut story = Story::start(&plan(order));
        ["a", "b"].iter().for_each(|step| story.ok(step));
        story.says("c", Code::FailedPrecondition, "");
        story.says("b", Code::FailedPrecondition, "");
        story
    };
    let mut story = stuck(CompensationOrder::Lifo);
    story.is(SagaState::NeedsIntervention);
    story.retry("b").unwrap();
    story.ok("b");
    story.ok("a");
    story.is(SagaState::RolledBack);
    let mut story = stuck(CompensationOrder::Concurrent);
    story.is(SagaState::RollingBack);
    story.ok("a");
    story.is(SagaState::NeedsIntervention);
    story.resolve("b", Resolution::Undone).unwrap();
    story.is(SagaState::RolledBack);
}

#[test]
fn two_stuck_compensations_are_settled_one_by_one() {
    let plan = Plan::new().step("a", &[]).refusals(1).step("b", &[]).refusals(1).step("c", &["a", "b"]);
    let mut story = Story::start(&plan);
    ["a", "b"].iter().for_each(|step| story.ok(step));
    story.says("c", Code::FailedPrecondition, "");
    story.says("a", Code::FailedPrecondition, "");
    story.says("b", Code::FailedPrecondition, "");
    story.is(SagaState::NeedsIntervention);
    story.resolve("a", Resolution::Undone).unwrap();
    story.is(SagaState::NeedsIntervention);
    story.retry("b").unwrap();
    story.is(SagaState::RollingBack);
    story.ok("b");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 b        succeeded      #1  10.0ms
        0004 c        failed         #1  FIN-40005 FAILED_PRECONDITION
        0005 saga     rolling back   cause c
        0006 a        stuck          #1  FIN-40005 FAILED_PRECONDITION
        0007 b        stuck          #1  FIN-40005 FAILED_PRECONDITION
        0008 saga     needs a person
        0009 a        resolved by    ben: UNDONE  looked at the books
        0010 saga     needs a person
        0011 b        retried by     ben: mended
        0012 b        compensated    #2  10.0ms
        0013 saga     rolled back
        ",
    );
}

#[test]
fn an_operator_is_told_what_cannot_be() {
    let mut story = Story::start(&Plan::new().step("a", &[]));
    assert_eq!(story.retry("a"), Err(Refused::NotWaiting));
    assert_eq!(story.retry("b"), Err(Refused::NoSuchStep));
    assert_eq!(story.resolve("a", Resolution::TookEffect), Err(Refused::NotWaiting));
    story.ok("a");
    assert_eq!(story.retry("a"), Err(Refused::Ended));
    assert_eq!(story.resolve("a", Resolution::Undone), Err(Refused::Ended));
    assert_eq!(story.cancel(), Err(Refused::Ended));
    assert_eq!(story.journal.len(), 3, "nothing that was refused is journaled");
}

#[test]
fn a_deadline_turns_a_saga_back() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]).deadline(LIMIT));
    story.ok("a");
    story.later();
    assert_eq!(story.calls(), ["(b action #1)"]);
    story.times_out("b");
    story.ok("b");
    story.ok("a");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 saga     rolling back   cause deadline
        0004 b        failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0005 b        compensated    #1  10.0ms
        0006 a        compensated    #1  10.0ms
        0007 saga     rolled back
        ",
    );
}

#[test]
fn a_wake_before_the_deadline_does_nothing() {
    let mut story = Story::start(&Plan::new().step("a", &[]).deadline(LIMIT));
    story.wait(LIMIT - Duration::from_micros(1));
    assert_eq!(story.input(Input::Wake), Ok(0));
    story.wait(Duration::from_micros(1));
    assert_eq!(story.input(Input::Wake), Ok(1));
    assert_eq!(story.input(Input::Wake), Ok(0), "once");
}

#[test]
fn a_deadline_waits_while_the_pivot_is_out_and_means_nothing_once_it_is_done() {
    let mut story = Story::start(&payment().deadline(LIMIT));
    story.ok("reserve");
    assert_eq!(story.agenda().wake_at, None, "the pivot's answer decides");
    story.wait(LIMIT * 2);
    assert_eq!(story.input(Input::Wake), Ok(0));
    story.ok("pay");
    assert_eq!(story.agenda().wake_at, None);
    assert_eq!(story.input(Input::Wake), Ok(0));
    story.ok("notify");
    story.is(SagaState::Succeeded);
}

#[test]
fn a_deadline_that_passed_while_the_pivot_was_out_counts_as_soon_as_it_has_had_no_effect() {
    let mut story = Story::start(&payment().deadline(LIMIT));
    story.ok("reserve");
    story.wait(LIMIT * 2);
    story.fails("pay", Evidence::NotSent(NotSent::NoConnection));
    story.later();
    story.ok("reserve");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 reserve  succeeded      #1  10.0ms
        0003 pay      will retry     #1  FIN-50302 UNAVAILABLE (no connection)
        0004 saga     rolling back   cause deadline
        0005 reserve  compensated    #1  10.0ms
        0006 saga     rolled back
        ",
    );
}

#[test]
fn a_saga_is_cancelled_once_and_the_first_reason_stays() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]).on_failure(OnFailure::Cancel));
    story.ok("a");
    assert_eq!(story.cancel(), Ok(1));
    assert_eq!(story.cancel(), Ok(0), "asking again is not an error");
    story.ok("b");
    story.ok("a");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 saga     rolling back   cancelled by ann: wrong account
        0004 b        compensated    #1  10.0ms
        0005 a        compensated    #1  10.0ms
        0006 saga     rolled back
        ",
    );
}

#[test]
fn a_saga_that_has_done_nothing_yet_is_cancelled_at_once() {
    let mut story = Story::start(&Plan::new().step("a", &[]));
    story.fails("a", Evidence::NotSent(NotSent::NoConnection));
    assert_eq!(story.cancel(), Ok(2));
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        will retry     #1  FIN-50302 UNAVAILABLE (no connection)
        0003 saga     rolling back   cancelled by ann: wrong account
        0004 saga     rolled back
        ",
    );
}

#[test]
fn a_cancellation_is_refused_while_the_pivot_is_out_in_doubt_or_done() {
    let mut story = Story::start(&payment());
    story.ok("reserve");
    assert_eq!(story.cancel(), Err(Refused::PivotOpen));
    story.fails("pay", Evidence::NotSent(NotSent::NoConnection));
    let mut unsent = Story::start(&payment());
    unsent.ok("reserve");
    unsent.fails("pay", Evidence::NotSent(NotSent::NoConnection));
    assert_eq!(unsent.cancel(), Ok(1), "it waits for its second attempt, and the first was never sent");
    story.later();
    story.times_out("pay");
    story.is(SagaState::NeedsIntervention);
    assert_eq!(story.cancel(), Err(Refused::PivotOpen), "only a person knows");
    story.resolve("pay", Resolution::TookEffect).unwrap();
    assert_eq!(story.cancel(), Err(Refused::PastPivot));
    story.ok("notify");
    assert_eq!(story.cancel(), Err(Refused::Ended));
}

#[test]
fn after_a_crash_going_forward_what_may_have_been_sent_counts_as_sent() {
    let plan = Plan::new().read_only("risk", &[]).step("a", &[]).dedup().step("b", &[]).query();
    let mut story = Story::start(&plan);
    story.crash();
    assert_eq!(story.calls(), ["risk action #2", "a action #2", "b query #1"]);
    story.ok("risk");
    story.ok("a");
    story.says("b", Code::NotFound, "");
    assert_eq!(story.calls(), ["b action #2"], "what a crash took costs no attempt");
    story.ok("b");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 saga     taken over     epoch 2 by b
        0003 risk     will retry     #1  FIN-50302 UNAVAILABLE (coordinator lost)  the coordinator that had called, or could have, is gone
        0004 a        will retry     #1  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0005 b        will ask       #1  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0006 risk     succeeded      #2  10.0ms
        0007 a        succeeded      #2  10.0ms
        0008 b        had no effect  #1  10.0ms  asked: no effect
        0009 b        succeeded      #2  10.0ms
        0010 saga     succeeded
        ",
    );
}

#[test]
fn after_a_crash_what_can_be_neither_resent_nor_asked_about_is_undone() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &[]).dedup());
    story.crash();
    assert_eq!(story.calls(), ["a compensation #1", "(b action #2)"], "b #2 is not sent any more");
    story.fails("b", Evidence::NotSent(NotSent::Withdrawn));
    assert_eq!(story.calls(), ["a compensation #1", "b compensation #1"], "but b #1 may have been");
    story.ok("a");
    story.ok("b");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 saga     taken over     epoch 2 by b
        0003 a        failed         #1  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0004 b        will retry     #1  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0005 saga     rolling back   cause a
        0006 b        failed         #2  FIN-50302 UNAVAILABLE (withdrawn)
        0007 a        compensated    #1  10.0ms
        0008 b        compensated    #1  10.0ms
        0009 saga     rolled back
        ",
    );
}

#[test]
fn a_retry_that_was_nearly_due_at_a_crash_counts_as_sent() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &[]));
    story.fails("b", Evidence::NotSent(NotSent::NoConnection));
    assert_eq!(story.calls(), ["a action #1"], "b waits, for less than the margin");
    story.crash();
    assert_eq!(
        story.calls(),
        ["a compensation #1", "b compensation #1"],
        "the clock of the one that is gone may have been ahead, and a's loss does not hide b's"
    );
    story.tells(
        "
        0002 b        will retry     #1  FIN-50302 UNAVAILABLE (no connection)
        0003 saga     taken over     epoch 2 by b
        0004 a        failed         #1  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0005 b        failed         #2  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0006 saga     rolling back   cause a
        ",
    );
}

#[test]
fn after_a_crash_going_back_compensations_are_sent_again_and_actions_are_not() {
    let plan = Plan::new().step("a", &[]).step("b", &[]).step("c", &[]).dedup();
    let mut story = Story::start(&plan);
    story.ok("a");
    story.says("b", Code::FailedPrecondition, "");
    assert_eq!(story.calls(), ["a compensation #1", "(c action #1)"]);
    story.crash();
    assert_eq!(story.calls(), ["a compensation #2", "c compensation #1"]);
    story.ok("a");
    story.ok("c");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 b        failed         #1  FIN-40005 FAILED_PRECONDITION
        0004 saga     rolling back   cause b
        0005 saga     taken over     epoch 2 by b
        0006 a        undo failed    #1  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0007 c        failed         #1  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0008 a        compensated    #2  10.0ms
        0009 c        compensated    #1  10.0ms
        0010 saga     rolled back
        ",
    );
}

#[test]
fn a_compensation_that_crashes_take_away_is_never_stuck_for_it() {
    let mut story = Story::start(&Plan::new().step("a", &[]).refusals(1));
    story.times_out("a");
    for _ in 0..10 {
        story.crash();
    }
    story.ok("a");
    story.is(SagaState::RolledBack);
}

#[test]
fn a_saga_that_is_handed_over_goes_on_where_it_was() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]));
    story.ok("a");
    story.hand_over();
    assert_eq!(story.calls(), ["b action #1"], "nothing was in flight, so nothing is in doubt");
    story.ok("b");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 saga     handed over
        0004 saga     taken over     epoch 2 by b
        0005 b        succeeded      #1  10.0ms
        0006 saga     succeeded
        ",
    );
}

#[test]
fn a_crash_while_a_person_is_awaited_or_after_the_end_changes_nothing() {
    let mut story = Story::start(&payment());
    story.ok("reserve");
    story.times_out("pay");
    story.crash();
    story.is(SagaState::NeedsIntervention);
    story.resolve("pay", Resolution::TookEffect).unwrap();
    story.ok("notify");
    story.crash();
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 reserve  succeeded      #1  10.0ms
        0003 pay      failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0004 saga     needs a person
        0005 saga     taken over     epoch 2 by b
        0006 pay      resolved by    ben: TOOK_EFFECT  looked at the books
        0007 notify   succeeded      #1  10.0ms
        0008 saga     succeeded
        0009 saga     taken over     epoch 3 by b
        ",
    );
}

fn report(story: &mut Story, participant: &str, error: Option<&str>) -> Result<usize, Refused> {
    let participant = ParticipantName::parse(participant).unwrap();
    story.input(Input::SignalReport { participant, attempts: 1, error: error.map(str::to_owned) })
}

fn told(story: &Story) -> Vec<String> {
    let signals = story.agenda().signals;
    signals.iter().map(|signal| format!("{} of {:?}", signal.participant, signal.steps)).collect()
}

#[test]
fn listeners_that_are_concerned_are_told_at_once_and_never_hold_up_the_rollback() {
    let plan = Plan::new()
        .step("done", &[])
        .listens()
        .step("flying", &["done"])
        .listens()
        .step("doubtful", &["done"])
        .listens()
        .step("deaf", &["done"])
        .step("refused", &["done"])
        .listens()
        .step("pending", &["refused"])
        .listens();
    let mut story = Story::start(&plan);
    assert_eq!(report(&mut story, "done", None), Ok(0), "there is nothing to report yet");
    story.ok("done");
    story.says("refused", Code::FailedPrecondition, "");
    assert_eq!(told(&story), ["done of [0]", "flying of [1]", "doubtful of [2]"]);
    assert_eq!(report(&mut story, "done", None), Ok(1));
    assert_eq!(report(&mut story, "done", Some("late")), Ok(0), "reported once");
    assert_eq!(report(&mut story, "deaf", None), Ok(0), "was not to be told");
    story.ok("flying");
    story.times_out("doubtful");
    story.ok("deaf");
    story.ok("flying");
    story.ok("doubtful");
    story.ok("deaf");
    story.ok("done");
    assert_eq!(story.saga.state, SagaState::RolledBack, "two listeners have not been told yet");
    assert_eq!(report(&mut story, "flying", Some("connection refused\nby peer")), Ok(1));
    story.crash();
    assert_eq!(told(&story), ["doubtful of [2]"], "whoever takes over tells those who are left");
    assert_eq!(report(&mut story, "doubtful", None), Ok(1));
    assert!(story.agenda().is_idle());
    story.tells(
        "
        0002 done     succeeded      #1  10.0ms
        0003 refused  failed         #1  FIN-40005 FAILED_PRECONDITION
        0004 saga     rolling back   cause refused
        0005 done     signalled      #1
        0006 flying   succeeded      #1  10.0ms
        0007 doubtful failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0008 deaf     succeeded      #1  10.0ms
        0009 flying   compensated    #1  10.0ms
        0010 doubtful compensated    #1  10.0ms
        0011 deaf     compensated    #1  10.0ms
        0012 done     compensated    #1  10.0ms
        0013 saga     rolled back
        0014 flying   not signalled  #1  connection refused by peer
        0015 saga     taken over     epoch 2 by b
        0016 doubtful signalled      #1
        ",
    );
}

#[test]
fn a_listener_with_several_steps_is_told_once_of_those_that_concern_it() {
    let mut plan = Plan::new().step("ledger", &[]).listens().step("b", &["ledger"]).step("c", &["b"]);
    for step in &mut plan.spec.steps {
        step.action.participant = "ledger".to_owned();
    }
    let mut story = Story::start(&plan);
    story.ok("ledger");
    story.ok("b");
    story.says("c", Code::FailedPrecondition, "");
    assert_eq!(told(&story), ["ledger of [0, 1]"]);
}

#[test]
fn the_clock_orders_the_way_there_and_the_way_back() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]).step("c", &["b"]));
    let mut sent = Vec::new();
    for step in ["a", "b"] {
        sent.push(story.call(step).clock);
        story.ok(step);
        sent.push(story.saga.branches[story.index(step)].settled.unwrap());
    }
    sent.push(story.call("c").clock);
    story.says("c", Code::FailedPrecondition, "");
    for step in ["b", "a"] {
        sent.push(story.call(step).clock);
        story.ok(step);
        sent.push(story.saga.clock);
    }
    assert!(sent.is_sorted_by(|a, b| a < b), "{sent:?}");
}

#[test]
fn a_journal_of_another_saga_is_corrupt_and_never_guessed_at() {
    use backstop_core::{replay, start};
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]));
    story.ok("a");
    story.ok("b");
    let again = |events: &[backstop_core::Event]| {
        replay(story.saga.id.clone(), story.saga.definition.clone(), events).map_err(|corrupt| corrupt.to_string())
    };
    assert!(again(&story.journal).is_ok());
    let reasons: Vec<String> = [
        Vec::new(),
        story.journal[1..].to_vec(),
        [&story.journal[..1], &story.journal[2..]].concat(),
        [&story.journal[..2], &story.journal[1..]].concat(),
        {
            let mut events = story.journal.clone();
            events[2].clock = events[1].clock;
            events
        },
        {
            let mut events = story.journal.clone();
            events.swap(1, 2);
            (events[1].seq, events[2].seq) = (events[2].seq, events[1].seq);
            (events[1].clock, events[2].clock) = (events[2].clock, events[1].clock);
            events
        },
        {
            let mut more = story.journal[1].clone();
            more.seq = story.saga.seq.next();
            more.clock.0 = 100;
            [story.journal.clone(), vec![more]].concat()
        },
        vec![start(&Plan::new().step("a", &[]).build(), story.now, common::story::start_of("a")); 2],
    ]
    .iter()
    .map(|events| again(events).unwrap_err())
    .collect();
    assert_eq!(
        reasons,
        [
            "event 1 does not fit: the journal is empty",
            "event 2 does not fit: a journal begins with Started",
            "event 3 does not fit: after event 1 comes another",
            "event 2 does not fit: after event 2 comes another",
            "event 3 does not fit: its clock does not grow",
            "event 2 does not fit: branch b is PENDING, not RUNNING",
            "event 5 does not fit: the saga has ended",
            "event 1 does not fit: after event 1 comes another",
        ]
    );
}
