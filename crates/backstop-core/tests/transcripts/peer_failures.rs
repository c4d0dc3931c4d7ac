//! How others lost money, told of the rules: failures of other orchestrators, by their rows in
//! `docs/peer-failures.md`. Rows that another story tells anyway are there, under their numbers.

use super::common::plan::{BACKOFF, Plan};
use super::common::story::Story;
use backstop_core::failure::{CUT_MARK, MESSAGE_BYTES_MAX};
use backstop_core::{
    BranchState, Code, EventKind, InDoubt, Input, ParticipantName, Resolution, SagaState, StepName, Timestamp,
};
use std::time::Duration;

#[test]
fn peer_05_a_saga_that_a_person_has_had_a_hand_in_never_looks_like_a_clean_one() {
    let plan = || Plan::new().step("debit", &[]).refusals(1).step("credit", &["debit"]);
    let stuck = || {
        let mut story = Story::start(&plan());
        story.ok("debit");
        story.says("credit", Code::FailedPrecondition, "");
        story
    };
    let mut clean = stuck();
    clean.ok("debit");
    clean.is(SagaState::RolledBack);

    let mut by_hand = stuck();
    by_hand.says("debit", Code::FailedPrecondition, "");
    by_hand.resolve("debit", Resolution::Undone).unwrap();
    by_hand.is(SagaState::RolledBack);
    let branch = &by_hand.saga.branches[0];
    assert_eq!((branch.state, branch.resolution), (BranchState::Resolved, Some(Resolution::Undone)));
    assert_eq!(clean.saga.branches[0].state, BranchState::Compensated);
    assert!(by_hand.told().contains("resolved by    ben: UNDONE  looked at the books"), "{}", by_hand.told());

    let mut retried = stuck();
    retried.says("debit", Code::FailedPrecondition, "");
    retried.retry("debit").unwrap();
    retried.ok("debit");
    retried.is(SagaState::RolledBack);
    assert!(retried.told().contains("retried by     ben: mended"), "{}", retried.told());

    let mut cancelled = Story::start(&plan());
    cancelled.cancel().unwrap();
    cancelled.ok("debit");
    cancelled.ok("debit");
    cancelled.is(SagaState::RolledBack);
    assert!(cancelled.told().contains("cancelled by ann: wrong account"), "{}", cancelled.told());
}

#[test]
fn peer_05_nobody_can_write_lines_of_the_transcript_with_a_name_or_a_reason() {
    let forged = "ann\n0003 saga     succeeded\u{1b}[2K";
    let mut story = Story::start(&Plan::new().step("debit", &[]).refusals(1).step("credit", &["debit"]));
    story.ok("debit");
    story.input(Input::Cancel { by: forged.to_owned(), reason: forged.to_owned() }).unwrap();
    story.ok("credit");
    story.ok("credit");
    let step = StepName::parse("debit").unwrap();
    let (by, reason) = (forged.to_owned(), forged.to_owned());
    for _ in 0..2 {
        story.says("debit", Code::FailedPrecondition, forged);
        let retry = Input::RetryBranch { step: step.clone(), by: by.clone(), reason: reason.clone() };
        story.input(retry).unwrap();
    }
    story.says("debit", Code::FailedPrecondition, forged);
    let resolution = Resolution::Undone;
    story.input(Input::ResolveBranch { step, by, reason, resolution }).unwrap();
    story.is(SagaState::RolledBack);
    let told = story.told();
    assert_eq!(told.lines().count(), story.journal.len(), "one line an event:\n{told}");
    assert!(!told.chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
}

#[test]
fn peer_11_a_listeners_words_of_any_length_are_kept_within_bounds_with_a_mark() {
    let mut story = Story::start(&Plan::new().step("done", &[]).listens().step("refused", &["done"]));
    story.ok("done");
    story.says("refused", Code::FailedPrecondition, "");
    let participant = ParticipantName::parse("done").unwrap();
    let error = Some("é".repeat(100_000));
    story.input(Input::SignalReport { participant, attempts: 3, error }).unwrap();
    let kept = story.journal.iter().find_map(|event| match &event.kind {
        EventKind::SignalReported { error: Some(error), .. } => Some(error),
        _ => None,
    });
    let kept = kept.unwrap();
    assert!(kept.len() <= MESSAGE_BYTES_MAX && kept.ends_with(CUT_MARK), "{} bytes", kept.len());
}

#[test]
fn peer_14_attempts_are_counted_for_each_call_in_the_journal_and_waited_between() {
    let mut story = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]).step("c", &["b"]));
    // Two of three attempts of each step fail: a count for the whole saga would end it in its second step.
    for step in ["a", "b"] {
        for _ in 0..2 {
            story.says(step, Code::Aborted, "lost a race");
            let now = story.now;
            let due = story.agenda().wake_at.unwrap();
            assert!(
                story.calls().is_empty() && due > now && due <= now.plus(BACKOFF),
                "{due:?} after {now:?}"
            );
            // Nor does a count in memory get lost: who takes over goes on with it.
            story.hand_over();
            assert_eq!(story.agenda().wake_at, Some(due));
            story.later();
        }
        story.ok(step);
    }
    for _ in 0..2 {
        story.says("c", Code::Aborted, "lost a race");
        story.hand_over();
        story.later();
    }
    story.says("c", Code::Aborted, "lost a race");
    assert_eq!(story.saga.state, SagaState::RollingBack, "and its own three are all that it has");
    assert_eq!(story.calls(), ["b compensation #1"]);
}

/// Whoever is handed the saga, or takes it over later, has the same timer.
fn is_woken_after_any_change_of_hands(story: &Story) -> Timestamp {
    let due = story.agenda().wake_at.unwrap_or_else(|| panic!("no timer:\n{}", story.told()));
    assert!(story.calls().is_empty(), "it waits:\n{}", story.told());
    story.replays();
    let Story { saga, journal, now, .. } = story;
    let mut other = Story::of(saga.clone(), journal.clone(), *now);
    other.hand_over();
    assert_eq!(other.agenda().wake_at, Some(due), "{}", other.told());
    due
}

#[test]
fn peer_45_the_timer_of_every_retry_is_read_off_the_journal() {
    let far = Duration::from_secs(3600);
    let mut action = Story::start(&Plan::new().step("a", &[]).dedup());
    for attempt in 1..3 {
        action.says("a", Code::Unavailable, "");
        let due = is_woken_after_any_change_of_hands(&action);
        action.now = due;
        assert_eq!(action.calls(), [format!("a action #{}", attempt + 1)], "at its time it goes out");
    }

    let mut query = Story::start(&Plan::new().step("a", &[]).query().in_doubt(InDoubt::Query));
    query.times_out("a");
    assert_eq!(query.calls(), ["a query #1"]);
    query.says("a", Code::Unavailable, "");
    query.now = is_woken_after_any_change_of_hands(&query);
    assert_eq!(query.calls(), ["a query #2"]);

    let mut undo = Story::start(&Plan::new().step("a", &[]).step("b", &["a"]).deadline(far));
    undo.ok("a");
    undo.says("b", Code::FailedPrecondition, "");
    for attempt in 1..20 {
        undo.says("a", Code::Unavailable, "");
        undo.now = is_woken_after_any_change_of_hands(&undo);
        assert_eq!(undo.calls(), [format!("a compensation #{}", attempt + 1)], "without end");
    }

    // The deadline is a timer too, and the earlier of two counts.
    let short = Duration::from_millis(1);
    let mut deadline = Story::start(&Plan::new().step("a", &[]).deadline(short));
    let due = deadline.now.plus(short);
    assert_eq!(deadline.agenda().wake_at, Some(due));
    deadline.says("a", Code::Aborted, "");
    assert!(deadline.now >= due && deadline.saga.state != SagaState::Succeeded);
    deadline.later();
    deadline.is(SagaState::RolledBack);
}
