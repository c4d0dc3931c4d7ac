//! Stories of pivots, stuck branches and the person who decides about them.

use super::common::plan::Plan;
use super::common::story::Story;
use super::payment;
use backstop_core::{
    BranchState, Code, CompensationOrder, Evidence, NotSent, Refused, Resolution, SagaState,
};

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
fn peer_19_a_compensation_that_is_refused_three_times_is_stuck_and_others_go_on_as_far_as_they_may() {
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
    let plan =
        |order| Plan::new().step("a", &[]).step("b", &[]).refusals(1).step("c", &["a", "b"]).order(order);
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
