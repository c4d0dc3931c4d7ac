//! Stories of deadlines and cancellations, and of the pivot that stands in their way.

use super::common::plan::Plan;
use super::common::story::Story;
use super::payment;
use backstop_core::{Evidence, Input, NotSent, OnFailure, Refused, Resolution, SagaState};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

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
