//! Stories of doubt: what settles it, what does not, and what is done about it.

use super::common::plan::Plan;
use super::common::story::Story;
use backstop_core::{Code, Details, Evidence, InDoubt, NotSent, SagaState, Tier};
use bytes::Bytes;

#[test]
fn peer_31_a_doubt_about_a_participant_that_does_not_deduplicate_is_undone_at_once() {
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.times_out("debit");
    assert_eq!(story.calls(), ["debit compensation #1"], "sending it again could debit twice");
    story.ok("debit");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0003 saga     rolling back   cause debit
        0004 debit    compensated    #1  10.0ms
        0005 saga     rolled back
        ",
    );
}

#[test]
fn a_refusal_on_the_second_attempt_settles_the_first_if_the_participant_deduplicates() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup());
    story.times_out("debit");
    story.later();
    story.says("debit", Code::FailedPrecondition, "insufficient funds");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    will retry     #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0003 debit    failed         #2  FIN-40005 FAILED_PRECONDITION  insufficient funds
        0004 saga     rolling back   cause debit
        0005 saga     rolled back
        ",
    );
}

#[test]
fn only_a_refusal_of_the_business_code_settles_an_earlier_attempt() {
    let nothing_known = [
        Evidence::NotSent(NotSent::BreakerOpen),
        Evidence::NotSent(NotSent::NoConnection),
        Evidence::NotRendered,
        Evidence::ParticipantSaid(Code::Aborted),
        Evidence::ParticipantSaid(Code::Unauthenticated),
        Evidence::ParticipantSaid(Code::PermissionDenied),
        Evidence::ParticipantSaid(Code::Unimplemented),
    ];
    for evidence in nothing_known {
        let mut story = Story::start(&Plan::new().step("debit", &[]).dedup().attempts(2));
        story.times_out("debit");
        story.later();
        story.fails("debit", evidence);
        assert_eq!(story.calls(), ["debit compensation #1"], "{evidence:?} says nothing of attempt 1");
    }
    for code in [Code::FailedPrecondition, Code::InvalidArgument, Code::NotFound, Code::OutOfRange] {
        let mut story = Story::start(&Plan::new().step("debit", &[]).dedup().attempts(2));
        story.times_out("debit");
        story.later();
        story.says("debit", code, "");
        story.is(SagaState::RolledBack);
    }
}

#[test]
fn a_participant_that_swears_that_nothing_happened_settles_that_attempt_and_no_other() {
    let no_effect = || Details { metadata: [("effect".into(), "none".into())].into(), ..Details::default() };
    let mut story = Story::start(&Plan::new().step("debit", &[]));
    story.says_with("debit", Code::Internal, no_effect(), None);
    story.is(SagaState::RolledBack);

    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup().attempts(2));
    story.times_out("debit");
    story.later();
    story.says_with("debit", Code::Unavailable, no_effect(), None);
    story.ok("debit");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    will retry     #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0003 debit    failed         #2  FIN-50302 UNAVAILABLE
        0004 saga     rolling back   cause debit
        0005 debit    compensated    #1  10.0ms
        0006 saga     rolled back
        ",
    );
}

#[test]
fn a_doubt_is_asked_about_and_found_to_be_done() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).query().step("credit", &["debit"]));
    story.times_out("debit");
    assert_eq!(story.calls(), ["debit query #1"]);
    story.ok("debit");
    assert_eq!(story.saga.branches[0].response, Some(Bytes::from_static(b"debit is done")));
    story.ok("credit");
    story.is(SagaState::Succeeded);
    story.tells(
        "
        0002 debit    will ask       #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0003 debit    took effect    #1  10.0ms
        0004 credit   succeeded      #1  10.0ms
        0005 saga     succeeded
        ",
    );
}

#[test]
fn a_doubt_that_is_found_to_be_nothing_is_sent_again() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).query());
    story.times_out("debit");
    story.says("debit", Code::NotFound, "");
    story.later();
    story.times_out("debit");
    story.says("debit", Code::NotFound, "");
    story.later();
    story.times_out("debit");
    story.says("debit", Code::NotFound, "");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    will ask       #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0003 debit    had no effect  #1  10.0ms  asked: no effect
        0004 debit    will ask       #2  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0005 debit    had no effect  #2  10.0ms  asked: no effect
        0006 debit    will ask       #3  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0007 debit    failed         #3  10.0ms  asked: no effect
        0008 saga     rolling back   cause debit
        0009 saga     rolled back
        ",
    );
}

#[test]
fn a_question_that_nobody_answers_leaves_the_doubt_and_it_is_undone() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).query().attempts(2));
    story.says("debit", Code::Internal, "disk full");
    story.times_out("debit");
    story.later();
    story.says("debit", Code::Unavailable, "");
    let cause = story.saga.cause.clone().unwrap().failure.clone().unwrap();
    assert_eq!((cause.code(), cause.tier), (Code::Internal, Tier::L1), "the cause is what the action said");
    story.ok("debit");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    will ask       #1  FIN-50001 INTERNAL in doubt  disk full
        0003 debit    will ask again #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0004 debit    in doubt       #2  FIN-50302 UNAVAILABLE in doubt
        0005 saga     rolling back   cause debit
        0006 debit    compensated    #1  10.0ms
        0007 saga     rolled back
        ",
    );
}

#[test]
fn how_the_question_failed_does_not_decide_whether_the_action_is_sent_again() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).query());
    story.says("debit", Code::Internal, "");
    story.says("debit", Code::Unavailable, "the question is worth another try");
    story.later();
    story.says("debit", Code::NotFound, "");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    will ask       #1  FIN-50001 INTERNAL in doubt
        0003 debit    will ask again #1  FIN-50302 UNAVAILABLE in doubt  the question is worth another try
        0004 debit    failed         #2  10.0ms  asked: no effect
        0005 saga     rolling back   cause debit
        0006 saga     rolled back
        ",
    );
}

#[test]
fn a_deduplicating_participant_may_still_be_asked_or_undone_if_the_step_says_so() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup().in_doubt(InDoubt::Compensate));
    story.times_out("debit");
    assert_eq!(story.calls(), ["debit compensation #1"]);
    let mut story = Story::start(&Plan::new().step("debit", &[]).dedup().query().in_doubt(InDoubt::Query));
    story.times_out("debit");
    assert_eq!(story.calls(), ["debit query #1"]);
}
