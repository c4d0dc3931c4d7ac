//! Stories of the way forward: what runs when, what is tried again, and what failures say.

use super::common::plan::Plan;
use super::common::story::Story;
use super::diamond;
use backstop_core::failure::{CUT_MARK, MESSAGE_BYTES_MAX, PUSHBACK_MAX, Pushback};
use backstop_core::{
    Answer, Clock, Code, Details, ErrorTable, Evidence, FinCode, Input, NoAnswer, NotSent, Outcome, Phase,
    RetryRule, Row, SagaState, Tier,
};
use bytes::Bytes;
use std::time::Duration;

#[test]
fn steps_that_do_not_wait_for_each_other_run_at_once() {
    let mut story = Story::start(&diamond());
    assert_eq!(story.calls(), ["a action #1"]);
    story.ok("a");
    assert_eq!(story.calls(), ["b action #1", "c action #1"]);
    story.ok("c");
    assert_eq!(story.calls(), ["b action #1"], "d waits for both");
    story.ok("b");
    story.ok("d");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 c        succeeded      #1  10.0ms
        0004 b        succeeded      #1  10.0ms
        0005 d        succeeded      #1  10.0ms
        0006 saga     succeeded
        ",
    );
}

#[test]
fn what_is_unavailable_is_tried_again_and_then_undone() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).step("credit", &["debit"]).dedup());
    story.ok("debit");
    for _ in 0..2 {
        story.says("credit", Code::Unavailable, "");
        assert_eq!(story.calls(), Vec::<String>::new(), "it waits before it tries again");
        story.later();
    }
    story.says("credit", Code::Unavailable, "");
    story.ok("credit");
    story.ok("debit");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    succeeded      #1  10.0ms
        0003 credit   will retry     #1  FIN-50302 UNAVAILABLE in doubt
        0004 credit   will retry     #2  FIN-50302 UNAVAILABLE in doubt
        0005 credit   failed         #3  FIN-50302 UNAVAILABLE in doubt
        0006 saga     rolling back   cause credit
        0007 credit   compensated    #1  10.0ms
        0008 debit    compensated    #1  10.0ms
        0009 saga     rolled back
        ",
    );
}

#[test]
fn an_internal_error_is_not_tried_again_blindly() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup());
    story.says("debit", Code::Internal, "null pointer");
    assert_eq!(story.saga.cause.as_ref().unwrap().failure.as_ref().unwrap().tier, Tier::L1);
    story.ok("debit");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    failed         #1  FIN-50001 INTERNAL in doubt  null pointer
        0003 saga     rolling back   cause debit
        0004 debit    compensated    #1  10.0ms
        0005 saga     rolled back
        ",
    );
}

#[test]
fn a_lost_race_is_tried_again_since_it_had_no_effect() {
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.says("debit", Code::Aborted, "");
    story.later();
    story.ok("debit");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 debit    will retry     #1  FIN-50099 ABORTED
        0003 debit    succeeded      #2  10.0ms
        0004 saga     succeeded
        ",
    );
}

#[test]
fn peer_13_a_misconfiguration_is_neither_tried_again_nor_undone() {
    for code in [Code::Unimplemented, Code::Unauthenticated, Code::PermissionDenied, Code::NotFound] {
        let mut story = Story::start(&Plan::new().step("debit", &[]));
        story.says("debit", code, "");
        story.is(SagaState::RolledBack);
        assert_eq!(story.saga.cause.as_ref().unwrap().failure.as_ref().unwrap().tier, Tier::L1);
    }
}

#[test]
fn an_attempt_that_was_never_sent_is_tried_again_with_anybody() {
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.fails("debit", Evidence::NotSent(NotSent::BreakerOpen));
    story.later();
    story.fails("debit", Evidence::NotSent(NotSent::NoConnection));
    story.later();
    story.fails("debit", Evidence::NotSent(NotSent::NoPermit));
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    will retry     #1  FIN-50302 UNAVAILABLE (breaker open)
        0003 debit    will retry     #2  FIN-50302 UNAVAILABLE (no connection)
        0004 debit    failed         #3  FIN-50302 UNAVAILABLE (no permit)
        0005 saga     rolling back   cause debit
        0006 saga     rolled back
        ",
    );
}

#[test]
fn a_read_only_step_is_never_in_doubt_and_never_undone() {
    let plan = || Plan::new().read_only("risk", &[]).step("debit", &["risk"]);
    let mut story = Story::start(&plan());
    story.times_out("risk");
    story.later();
    story.ok("risk");
    story.says("debit", Code::FailedPrecondition, "");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 risk     will retry     #1  FIN-50302 DEADLINE_EXCEEDED (deadline)
        0003 risk     succeeded      #2  10.0ms
        0004 debit    failed         #1  FIN-40005 FAILED_PRECONDITION
        0005 saga     rolling back   cause debit
        0006 saga     rolled back
        ",
    );
    let mut story = Story::start(&plan());
    story.says("risk", Code::FailedPrecondition, "too risky");
    story.is(SagaState::RolledBack);
}

#[test]
fn late_and_duplicate_answers_change_nothing() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup().step("credit", &["debit"]));
    let first = story.answer_of("debit", Outcome::Done(Bytes::new()));
    story.times_out("debit");
    story.later();
    let before = story.saga.clone();
    assert_eq!(
        story.input(Input::Answer(first.clone())),
        Ok(0),
        "attempt 1 is over; attempt 2 speaks for it"
    );
    let beyond = Answer { step: 99, ..first.clone() };
    assert_eq!(story.input(Input::Answer(beyond)), Ok(0), "no such step");
    let unasked = Answer { phase: Phase::Query, ..first.clone() };
    assert_eq!(story.input(Input::Answer(unasked)), Ok(0), "nobody asked");
    let undone = Answer { phase: Phase::Compensation, ..first };
    assert_eq!(story.input(Input::Answer(undone)), Ok(0), "nobody undid");
    assert_eq!(story.saga, before);
    story.ok("debit");
    let late = story.answer_of("credit", Outcome::Done(Bytes::new()));
    story.ok("credit");
    story.is(SagaState::Succeeded);
    assert_eq!(story.input(Input::Answer(late)), Ok(0), "the saga has ended");
}

#[test]
fn a_participant_says_when_to_try_again_and_when_not_to() {
    let wait = Duration::from_secs(7);
    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup());
    story.says_with("debit", Code::ResourceExhausted, Details::default(), Some(Pushback::After(wait)));
    assert_eq!(story.agenda().wake_at, Some(story.now.plus(wait)), "longer than the backoff would be");
    story.later();
    story.says_with("debit", Code::Unavailable, Details::default(), Some(Pushback::After(Duration::ZERO)));
    assert!(story.agenda().wake_at.unwrap() > story.now, "shorter than the backoff is not believed");
    story.later();
    story.ok("debit");
    story.is(SagaState::Succeeded);

    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup());
    let years = Duration::from_secs(10 * 365 * 86_400);
    story.says_with("debit", Code::Unavailable, Details::default(), Some(Pushback::After(years)));
    assert_eq!(story.agenda().wake_at, Some(story.now.plus(PUSHBACK_MAX)), "nobody waits for years");

    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup());
    story.says_with("debit", Code::Unavailable, Details::default(), Some(Pushback::Stop));
    story.ok("debit");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    failed         #1  FIN-50302 UNAVAILABLE in doubt
        0003 saga     rolling back   cause debit
        0004 debit    compensated    #1  10.0ms
        0005 saga     rolled back
        ",
    );
}

#[test]
fn a_participant_chooses_its_own_fin_code() {
    let details = Details { reason: Some("FIN-40017".to_owned()), ..Details::default() };
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.says_with("debit", Code::FailedPrecondition, details, None);
    story.tells(
        "
        0002 debit    failed         #1  FIN-40017 FAILED_PRECONDITION
        0003 saga     rolling back   cause debit
        0004 saga     rolled back
        ",
    );
    let details = Details { reason: Some("ACCOUNT_CLOSED".to_owned()), ..Details::default() };
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.says_with("debit", Code::FailedPrecondition, details, None);
    let failure = story.saga.branches[0].failure.clone().unwrap();
    assert_eq!(failure.fin_code, FinCode::REFUSED, "a reason of another form is only carried along");
    assert_eq!(failure.details.reason.as_deref(), Some("ACCOUNT_CLOSED"));
}

#[test]
fn a_domain_says_what_its_statuses_mean_to_people_and_whether_to_try_again() {
    let row = |retry| Row {
        fin_code: FinCode::parse("FIN-40404").unwrap(),
        tier: Tier::L3,
        http_status: 404,
        retry,
    };
    let errors = ErrorTable::default().with(Code::NotFound, row(RetryRule::Never));
    let mut story = Story::start(&Plan::new().step("debit", &[]).errors(errors));
    story.says("debit", Code::NotFound, "no such account");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    failed         #1  FIN-40404 NOT_FOUND  no such account
        0003 saga     rolling back   cause debit
        0004 saga     rolled back
        ",
    );
    let errors = ErrorTable::default().with(Code::NotFound, row(RetryRule::Policy));
    let mut story = Story::start(&Plan::new().step("debit", &[]).errors(errors));
    story.says("debit", Code::NotFound, "not yet replicated");
    story.later();
    story.ok("debit");
    story.is(SagaState::Succeeded);
}

#[test]
fn a_request_that_cannot_be_made_is_the_definitions_fault_and_leaves_nothing_to_undo() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).step("credit", &["debit"]));
    story.ok("debit");
    story.fails("credit", Evidence::NotRendered);
    story.ok("debit");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    succeeded      #1  10.0ms
        0003 credit   failed         #1  FIN-40005 INVALID_ARGUMENT (not rendered)
        0004 saga     rolling back   cause credit
        0005 debit    compensated    #1  10.0ms
        0006 saga     rolled back
        ",
    );
}

#[test]
fn an_answer_that_is_none_is_in_doubt() {
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.fails("debit", Evidence::BadAnswer);
    story.ok("debit");
    story.tells(
        "
        0002 debit    failed         #1  FIN-50001 INTERNAL (bad answer) in doubt
        0003 saga     rolling back   cause debit
        0004 debit    compensated    #1  10.0ms
        0005 saga     rolled back
        ",
    );
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.fails("debit", Evidence::NoAnswer(NoAnswer::ConnectionLost));
    story.ok("debit");
    story.tells(
        "
        0002 debit    failed         #1  FIN-50302 UNAVAILABLE (connection lost) in doubt
        0003 saga     rolling back   cause debit
        0004 debit    compensated    #1  10.0ms
        0005 saga     rolled back
        ",
    );
}

#[test]
fn peer_11_a_message_of_any_length_is_kept_within_bounds_and_shown_on_one_line() {
    let message = format!("first line\nsecond\u{1b}[31m {}", "x".repeat(10 * MESSAGE_BYTES_MAX));
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.says("debit", Code::FailedPrecondition, &message);
    let kept = &story.saga.branches[0].failure.as_ref().unwrap().message;
    assert_eq!(kept.len(), MESSAGE_BYTES_MAX);
    assert!(kept.ends_with(CUT_MARK));
    assert!(!story.told().contains('\u{1b}'), "a terminal is not to be written to by a participant");
    assert_eq!(story.told().lines().count(), 4, "one line an event:\n{}", story.told());
    assert!(story.told().lines().all(|line| line.chars().count() < 200));
}

#[test]
fn the_clock_takes_in_what_a_participant_answers_and_believes_nothing_absurd() {
    let clock_after = |peer: u64| {
        let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]));
        let answer = story.answer_of("a", Outcome::Done(Bytes::new()));
        story.input(Input::Answer(Answer { peer_clock: Some(Clock(peer)), ..answer })).unwrap();
        let clock = story.saga.clock;
        assert_eq!(story.call("b").clock, Clock(clock.0 + 1), "what comes after is later than all it knows");
        story.ok("b");
        story.is(SagaState::Succeeded);
        clock
    };
    assert_eq!(clock_after(0), Clock(3), "after the call's own 2");
    assert_eq!(clock_after(1000), Clock(1001));
    assert_eq!(clock_after(u64::MAX), Clock(3), "else the next event could not have a later one");
    assert_eq!(clock_after(u64::MAX - 1), Clock(3));
}
