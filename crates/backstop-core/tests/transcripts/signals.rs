//! Stories of the rollback signal, and of the clock that orders what is sent.

use super::common::plan::Plan;
use super::common::story::Story;
use backstop_core::{Code, Input, ParticipantName, Refused, SagaState};

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
fn a_person_is_called_once_every_listener_was_told_so_that_no_crash_leaves_one_untold() {
    let mut story = Story::start(&Plan::new().step("a", &[]).listens().refusals(1).step("b", &["a"]));
    story.ok("a");
    story.says("b", Code::FailedPrecondition, "");
    story.says("a", Code::FailedPrecondition, "closed");
    story.is(SagaState::RollingBack);
    story.crash();
    assert_eq!(told(&story), ["a of [0]"], "a saga at rest would be nobody's, and this never said");
    assert_eq!(report(&mut story, "a", None), Ok(2));
    story.is(SagaState::NeedsIntervention);
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
