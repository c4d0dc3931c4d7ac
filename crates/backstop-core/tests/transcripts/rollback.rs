//! Stories of the way back: who is undone, in which order, and who is not.

use super::common::plan::Plan;
use super::common::story::{Story, failed};
use super::diamond;
use backstop_core::{
    Code, CompensationOrder, Details, Evidence, Input, NotSent, OnFailure, Outcome, SagaState,
};
use bytes::Bytes;
use std::time::Duration;

#[test]
fn a_refusal_is_undone_in_reverse_order() {
    let mut story =
        Story::start(&Plan::new().step("debit", &[]).step("fee", &["debit"]).step("credit", &["fee"]));
    story.ok("debit");
    story.ok("fee");
    story.says("credit", Code::FailedPrecondition, "account closed");
    assert_eq!(
        story.calls(),
        ["fee compensation #1"],
        "the refused step had no effect, and debit waits for fee"
    );
    story.ok("fee");
    story.ok("debit");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 debit    succeeded      #1  10.0ms
        0003 fee      succeeded      #1  10.0ms
        0004 credit   failed         #1  FIN-40005 FAILED_PRECONDITION  account closed
        0005 saga     rolling back   cause credit
        0006 fee      compensated    #1  10.0ms
        0007 debit    compensated    #1  10.0ms
        0008 saga     rolled back
        ",
    );
}

#[test]
fn what_is_in_flight_is_awaited_and_its_answer_is_knowledge() {
    let plan = Plan::new().step("a", &[]).step("b", &[]).step("c", &[]).step("d", &["a"]);
    let mut story = Story::start(&plan);
    story.says("c", Code::FailedPrecondition, "");
    assert_eq!(story.calls(), ["(a action #1)", "(b action #1)"], "awaited, and not to be sent any more");
    story.ok("a");
    assert_eq!(story.calls(), ["a compensation #1", "(b action #1)"], "a need not wait for b");
    story.says("b", Code::Unavailable, "");
    story.ok("b");
    story.ok("a");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 c        failed         #1  FIN-40005 FAILED_PRECONDITION
        0003 saga     rolling back   cause c
        0004 a        succeeded      #1  10.0ms
        0005 b        failed         #1  FIN-50302 UNAVAILABLE in doubt
        0006 b        compensated    #1  10.0ms
        0007 a        compensated    #1  10.0ms
        0008 saga     rolled back
        ",
    );
}

#[test]
fn an_attempt_that_is_withdrawn_before_it_was_sent_leaves_nothing_to_undo() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &[]).dedup());
    story.says("a", Code::FailedPrecondition, "");
    story.fails("b", Evidence::NotSent(NotSent::Withdrawn));
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        failed         #1  FIN-40005 FAILED_PRECONDITION
        0003 saga     rolling back   cause a
        0004 b        failed         #1  FIN-50302 UNAVAILABLE (withdrawn)
        0005 saga     rolled back
        ",
    );
}

#[test]
fn what_is_in_flight_is_cut_off_and_counts_as_done_if_the_definition_says_so() {
    let plan = Plan::new().step("a", &[]).step("b", &[]).read_only("risk", &[]).on_failure(OnFailure::Cancel);
    let mut story = Story::start(&plan);
    let late = story.answer_of("b", Outcome::Done(Bytes::new()));
    story.says("a", Code::FailedPrecondition, "");
    assert_eq!(story.calls(), ["b compensation #1"], "b may have happened, and a risk check changes nothing");
    assert_eq!(story.input(Input::Answer(late)), Ok(0), "its answer comes too late");
    story.ok("b");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        failed         #1  FIN-40005 FAILED_PRECONDITION
        0003 saga     rolling back   cause a
        0004 b        compensated    #1  10.0ms
        0005 saga     rolled back
        ",
    );
}

#[test]
fn a_retry_that_is_waiting_when_the_rollback_is_decided_is_never_sent() {
    let mut story = Story::start(&Plan::new().step("a", &[]).dedup().step("b", &[]).step("c", &[]));
    story.times_out("a");
    story.fails("b", Evidence::NotSent(NotSent::Draining));
    story.says("c", Code::FailedPrecondition, "");
    assert_eq!(story.calls(), ["a compensation #1"], "a may have happened, b has not");
    story.ok("a");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        will retry     #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0003 b        will retry     #1  FIN-50302 UNAVAILABLE (draining)
        0004 c        failed         #1  FIN-40005 FAILED_PRECONDITION
        0005 saga     rolling back   cause c
        0006 a        compensated    #1  10.0ms
        0007 saga     rolled back
        ",
    );
}

#[test]
fn peer_43_a_diamond_is_undone_in_reverse_causal_order() {
    let mut story = Story::start(&diamond());
    ["a", "c", "b"].iter().for_each(|step| story.ok(step));
    story.times_out("d");
    assert_eq!(story.calls(), ["d compensation #1"]);
    story.ok("d");
    assert_eq!(story.calls(), ["b compensation #1", "c compensation #1"], "side by side");
    story.ok("b");
    assert_eq!(story.calls(), ["c compensation #1"], "a waits for both");
    story.ok("c");
    story.ok("a");
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 c        succeeded      #1  10.0ms
        0004 b        succeeded      #1  10.0ms
        0005 d        failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0006 saga     rolling back   cause d
        0007 d        compensated    #1  10.0ms
        0008 b        compensated    #1  10.0ms
        0009 c        compensated    #1  10.0ms
        0010 a        compensated    #1  10.0ms
        0011 saga     rolled back
        ",
    );
}

#[test]
fn a_diamond_is_undone_newest_first_and_one_at_a_time() {
    let mut story = Story::start(&diamond().order(CompensationOrder::Lifo));
    ["a", "c", "b"].iter().for_each(|step| story.ok(step));
    story.says("d", Code::FailedPrecondition, "");
    for step in ["b", "c", "a"] {
        assert_eq!(story.calls(), [format!("{step} compensation #1")]);
        story.ok(step);
    }
    story.is(SagaState::RolledBack);
    story.tells(
        "
        0002 a        succeeded      #1  10.0ms
        0003 c        succeeded      #1  10.0ms
        0004 b        succeeded      #1  10.0ms
        0005 d        failed         #1  FIN-40005 FAILED_PRECONDITION
        0006 saga     rolling back   cause d
        0007 b        compensated    #1  10.0ms
        0008 c        compensated    #1  10.0ms
        0009 a        compensated    #1  10.0ms
        0010 saga     rolled back
        ",
    );
}

#[test]
fn newest_first_waits_for_what_may_yet_turn_out_newer() {
    let mut story = Story::start(
        &Plan::new().step("a", &[]).step("b", &[]).step("c", &[]).order(CompensationOrder::Lifo),
    );
    story.ok("a");
    story.says("b", Code::FailedPrecondition, "");
    assert_eq!(story.calls(), ["(c action #1)"]);
    story.ok("c");
    story.ok("c");
    story.ok("a");
    story.is(SagaState::RolledBack);
}

#[test]
fn a_diamond_whose_compensations_commute_is_undone_at_once() {
    let mut story = Story::start(&diamond().order(CompensationOrder::Concurrent));
    ["a", "c", "b"].iter().for_each(|step| story.ok(step));
    story.says("d", Code::FailedPrecondition, "");
    assert_eq!(story.calls(), ["a compensation #1", "b compensation #1", "c compensation #1"]);
    ["a", "b", "c"].iter().for_each(|step| story.ok(step));
    story.is(SagaState::RolledBack);
}

#[test]
fn a_compensation_that_is_only_unavailable_is_tried_without_end() {
    let mut story = Story::start(&Plan::new().step("debit", &[]).refusals(1));
    story.times_out("debit");
    for _ in 0..50 {
        story.says("debit", Code::Unavailable, "");
        story.later();
    }
    story.fails("debit", Evidence::NotSent(NotSent::BreakerOpen));
    story.later();
    story.ok("debit");
    story.is(SagaState::RolledBack);
}

#[test]
fn a_compensation_that_is_unavailable_for_too_long_waits_for_a_person() {
    let plan = Plan::new().step("debit", &[]).refusals(1).gives_up_after(Duration::from_secs(1));
    let mut story = Story::start(&plan);
    story.times_out("debit");
    story.says("debit", Code::Unavailable, "");
    story.wait(Duration::from_secs(1));
    story.crash();
    story.is(SagaState::RollingBack);
    story.says("debit", Code::Unavailable, "");
    story.is(SagaState::NeedsIntervention);
    story.tells(
        "
        0002 debit    failed         #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0003 saga     rolling back   cause debit
        0004 debit    undo failed    #1  FIN-50302 UNAVAILABLE in doubt
        0005 saga     taken over     epoch 2 by b
        0006 debit    undo failed    #2  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had called, or could have, is gone
        0007 debit    stuck          #3  FIN-50302 UNAVAILABLE in doubt
        0008 saga     needs a person
        ",
    );
    story.retry("debit").unwrap();
    story.says("debit", Code::Unavailable, "");
    story.is(SagaState::RollingBack);
    story.later();
    story.ok("debit");
    story.is(SagaState::RolledBack);
}

#[test]
fn an_open_breaker_makes_a_compensation_wait_no_longer_than_it_may() {
    let plan = Plan::new().step("debit", &[]).gives_up_after(Duration::from_secs(60));
    let mut story = Story::start(&plan);
    story.times_out("debit");
    story.later();
    assert_eq!(story.calls(), ["debit compensation #1"], "nothing follows of the time alone");
    story.fails("debit", Evidence::NotSent(NotSent::BreakerOpen));
    story.is(SagaState::NeedsIntervention);
}

#[test]
fn a_compensation_that_swears_that_nothing_happened_is_still_only_refused() {
    let no_effect = Details { metadata: [("effect".into(), "none".into())].into(), ..Details::default() };
    let mut story = Story::start(&Plan::new().step("debit", &[]).refusals(1));
    story.times_out("debit");
    let answer = story
        .answer_of("debit", failed(Evidence::ParticipantSaid(Code::FailedPrecondition), "", no_effect, None));
    story.input(Input::Answer(answer)).unwrap();
    story.is(SagaState::NeedsIntervention);
}
