//! A person's word reaches a saga whichever coordinator is asked, and is carried out once.

use crate::common::bank::{Reply, says};
use crate::common::plan::Plan;
use crate::common::{Node, World, id, ms, quiet, until};
use backstop_core::{Code, Input, Refused, Saga, SagaState, StepName};
use backstop_engine::{EngineError, Reach};
use std::sync::Arc;

fn one() -> Plan {
    Plan::new("one").step("a", &[])
}

/// A saga that hangs in its only call on the first of two coordinators.
async fn two_nodes(world: &World) -> (Node, Node) {
    let (owner, other) = (world.node_for(&one()).await, world.node_for(&one()).await);
    world.bank.action("a", |_| Reply::Held);
    owner.start("one", "pay-7").await;
    quiet().await;
    (owner, other)
}

fn retry() -> Input {
    Input::RetryBranch {
        step: StepName::parse("a").unwrap(),
        by: "ben".to_owned(),
        reason: "mended".to_owned(),
    }
}

async fn word(node: &Node, input: Input) -> Result<Arc<Saga>, EngineError> {
    node.coordinator.command(&id("pay-7"), input, Reach::Anywhere).await
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_carried_to_the_coordinator_that_drives_the_saga() {
    let world = World::new();
    let (_owner, other) = two_nodes(&world).await;
    let saga = other.cancel("pay-7").await.unwrap();
    assert_eq!(saga.state, SagaState::RollingBack);
    assert_eq!((world.net.carried(), world.epoch("pay-7")), (1, 1), "nobody took it over for that");
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_comes_back_as_it_was_said() {
    let world = World::new();
    let (_owner, other) = two_nodes(&world).await;
    let refused = word(&other, retry()).await.unwrap_err();
    assert_eq!(refused, EngineError::Refused(Refused::NotWaiting));
    world.bank.let_go("a", Reply::Ok);
}

#[tokio::test(start_paused = true)]
async fn when_the_owner_dies_meanwhile_the_word_is_carried_out_by_who_takes_over() {
    let world = World::new();
    let (owner, other) = two_nodes(&world).await;
    owner.crash();
    let saga = other.cancel("pay-7").await.unwrap();
    assert!(matches!(saga.state, SagaState::RollingBack | SagaState::RolledBack));
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(world.epoch("pay-7"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_lives_and_cannot_be_reached_is_named_and_nothing_is_done_beside_it() {
    let world = World::new();
    let (_owner, other) = two_nodes(&world).await;
    world.net.cut(true);
    let error = other.cancel("pay-7").await.unwrap_err();
    let EngineError::NotHere { owner, .. } = error else { panic!("{error:?}") };
    assert_eq!(Some(owner.to_string()), world.owner("pay-7"));
    assert!(!world.told("pay-7").contains("rolling back"), "{}", world.told("pay-7"));
    world.net.cut(false);
    other.cancel("pay-7").await.unwrap();
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn a_word_whose_answer_is_lost_is_carried_out_once_and_not_answered_refused() {
    let world = World::new();
    let plan = Plan::new("one").step("a", &[]).refusals(1).step("b", &[]).step("x", &["a", "b"]);
    let (owner, other) = (world.node_for(&plan).await, world.node_for(&plan).await);
    world.bank.action("x", |_| says(Code::FailedPrecondition));
    world.bank.undo("a", |_| says(Code::FailedPrecondition));
    world.bank.undo("b", |_| Reply::Held);
    owner.start("one", "pay-7").await;
    until("a is stuck beside b, which is being undone", || world.told("pay-7").contains("stuck")).await;
    assert!(world.owner("pay-7").is_some(), "so it has an owner");
    world.bank.undo("a", |_| Reply::Held);
    world.net.lose_answers(true);
    // It is carried out, and nobody says so: the journal does.
    let saga = word(&other, retry()).await.unwrap();
    assert_eq!(saga.state, SagaState::RollingBack);
    assert_eq!(world.told("pay-7").matches("ben: mended").count(), 1, "{}", world.told("pay-7"));
    // Another person's word, which was not carried out, is refused all the same.
    let another = Input::RetryBranch {
        step: StepName::parse("a").unwrap(),
        by: "cyd".to_owned(),
        reason: "me too".to_owned(),
    };
    world.net.lose_answers(false);
    let refused = word(&other, another).await.unwrap_err();
    assert_eq!(refused, EngineError::Refused(Refused::NotWaiting));
    world.bank.let_go("a", Reply::Ok);
    world.bank.let_go("b", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_whose_answer_is_lost_is_answered_from_the_journal() {
    let world = World::new();
    let (_owner, other) = two_nodes(&world).await;
    world.net.lose_answers(true);
    let coordinator = other.coordinator.clone();
    let cancelling = tokio::spawn(async move {
        coordinator.cancel(&id("pay-7"), "ann".to_owned(), "wrong account".to_owned()).await
    });
    until("it is decided", || world.told("pay-7").contains("rolling back")).await;
    // The saga ends before the answer could be had: a plain look would now say "refused: it has ended".
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
    let saga = cancelling.await.unwrap().unwrap();
    assert!(saga.cause.is_some());
    assert_eq!(world.told("pay-7").matches("rolling back").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_word_to_a_parked_saga_brings_it_back_on_the_coordinator_that_was_asked() {
    let world = World::new();
    let plan = Plan::new("one").step("a", &[]).waits(ms(120_000)).dedup();
    let (owner, other) = (world.node_for(&plan).await, world.node_for(&plan).await);
    world.bank.action("a", |_| says(Code::Unavailable));
    owner.start("one", "pay-7").await;
    until("it is parked", || world.owner("pay-7").is_none()).await;
    other.cancel("pay-7").await.unwrap();
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(world.epoch("pay-7"), 2);
    assert_eq!(world.net.carried(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_an_end_that_is_not_on_disk() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[])).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("one", "pay-7").await;
    quiet().await;
    world.disk.block();
    // The answer that ends the saga and the cancellation come in by the same turn.
    world.bank.let_go("a", Reply::Ok);
    let mut cancelling = std::pin::pin!(node.cancel("pay-7"));
    let early = tokio::time::timeout(ms(1_000), &mut cancelling).await;
    assert!(early.is_err(), "refused for an end that a crash could still undo: {early:?}");
    world.disk.unblock();
    let refused = cancelling.await;
    assert!(matches!(refused, Err(EngineError::Refused(Refused::Ended))), "{refused:?}");
}
