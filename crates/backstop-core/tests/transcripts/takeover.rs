//! Stories of crashes and handovers: what counts as sent, and what a journal must not hold.

use super::common::plan::Plan;
use super::common::story::Story;
use super::payment;
use backstop_core::{Code, Evidence, NotSent, OnFailure, Resolution, SagaState};
use backstop_core::{replay, start};
use std::time::Duration;

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
fn a_journal_replays_to_the_same_saga_however_its_participants_are_registered_today() {
    let plan = || Plan::new().step("a", &[]).step("b", &[]).query().on_failure(OnFailure::Cancel);
    let mut story = Story::start(&plan().dedup());
    story.says("a", Code::FailedPrecondition, "");
    assert_eq!(story.calls(), ["b query #1"], "it was reset, and can be asked about");
    story.says("b", Code::NotFound, "");
    story.is(SagaState::RolledBack);
    let other = replay(story.saga.id.clone(), plan().build(), &story.journal).unwrap();
    assert_eq!(other.branches, story.saga.branches);
    assert_ne!(other.definition.steps[1].deduplicates, story.saga.definition.steps[1].deduplicates);
}

#[test]
fn if_the_clock_has_gone_back_since_every_timer_may_have_come_and_counts_as_sent() {
    let plan = Plan::new().step("a", &[]).step("b", &[]);
    let mut story = Story::start(&plan);
    story.ok("a");
    story.wait(Duration::from_secs(3600));
    story.fails("b", Evidence::NotSent(NotSent::NoConnection));
    assert!(story.calls().is_empty(), "b waits for its next attempt");
    // The database has failed over to a machine that is an hour behind; whoever sent b #2 in time is gone.
    story.back(Duration::from_secs(3600));
    story.crash();
    assert_eq!(story.calls(), ["a compensation #1", "b compensation #1"], "b #2 may have been sent");
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

#[test]
fn a_journal_of_another_saga_is_corrupt_and_never_guessed_at() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]));
    story.ok("a");
    story.ok("b");
    let again = |events: &[backstop_core::Event]| {
        replay(story.saga.id.clone(), story.saga.definition.clone(), events)
            .map_err(|corrupt| corrupt.to_string())
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
        vec![start(&Plan::new().step("a", &[]).build(), story.now, super::common::story::start_of("a")); 2],
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
