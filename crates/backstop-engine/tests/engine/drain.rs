//! Going away in order: what is finished, what is handed over, and what a successor makes of it.

use crate::common::bank::{Listen, Reply, says};
use crate::common::plan::Plan;
use crate::common::{Node, World, id, ms, quiet, request, until};
use backstop_core::{Code, SagaState, Seq};
use backstop_engine::EngineError;
use std::time::Duration;
use tokio::task::JoinHandle;

fn line() -> Plan {
    Plan::new("line").step("a", &[]).step("b", &["a"])
}

fn drain(node: &Node, at_most: Duration) -> JoinHandle<()> {
    let coordinator = node.coordinator.clone();
    tokio::spawn(async move { coordinator.drain(at_most).await })
}

#[tokio::test(start_paused = true)]
async fn peer_25_a_drain_sends_nothing_new_journals_what_comes_in_and_hands_over_without_any_doubt() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    let draining = drain(&node, ms(10_000));
    tokio::time::sleep(ms(500)).await;
    assert!(!node.coordinator.is_serving());
    assert!(!draining.is_finished(), "it waits for the answer of the call that is out");
    world.bank.let_go("a", Reply::Ok);
    draining.await.unwrap();
    assert_eq!(world.bank.calls(), ["a action #1"]);
    assert_eq!(world.owner("pay-7"), None);

    let next = world.node_for(&line()).await;
    world.ends("pay-7", SagaState::Succeeded).await;
    drop(next);
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1"]);
    world.tells(
        "pay-7",
        "
        0001 saga     started        line@1
        0002 a        succeeded      #1
        0003 saga     handed over
        0004 saga     taken over     epoch 2
        0005 b        succeeded      #1
        0006 saga     succeeded
        ",
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_coordinator_takes_over_while_the_first_one_drains() {
    let world = World::new();
    let (first, second) = (world.node_for(&line()).await, world.node_for(&line()).await);
    world.bank.action("a", |_| Reply::Held);
    for saga in ["pay-1", "pay-2"] {
        first.start("line", saga).await;
    }
    quiet().await;
    let draining = drain(&first, ms(10_000));
    quiet().await;
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-1", SagaState::Succeeded).await;
    assert!(!draining.is_finished(), "the other one's call is still out");
    assert_eq!(world.state("pay-2"), Some(SagaState::Running));
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-2", SagaState::Succeeded).await;
    draining.await.unwrap();
    assert!(second.coordinator.is_serving());
    assert_eq!(second.coordinator.coordinators().await.unwrap().len(), 1, "the first one's lease is ended");
    tokio::time::sleep(ms(30_000)).await;
    assert_eq!(second.coordinator.coordinators().await.unwrap().len(), 1, "and does not come back");
}

#[tokio::test(start_paused = true)]
async fn peer_45_a_saga_that_waits_for_its_next_attempt_is_handed_over_with_its_time() {
    let world = World::new();
    let node = world.node_for(&line().dedup()).await;
    world.bank.action("b", |_| says(Code::Unavailable));
    node.start("line", "pay-7").await;
    quiet().await;
    drain(&node, ms(10_000)).await.unwrap();
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1"]);
    world.bank.action("b", |_| Reply::Ok);
    let _next = world.node_for(&line()).await;
    world.ends("pay-7", SagaState::Succeeded).await;
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1", "b action #2"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_a_gate_is_handed_over_unsent() {
    let world = World::new();
    let plan = Plan::new("one").step("a", &[]).in_flight_max(1);
    let node = world.node_for(&plan).await;
    world.bank.action("a", |_| Reply::Held);
    for saga in ["pay-1", "pay-2"] {
        node.start("one", saga).await;
    }
    quiet().await;
    let draining = drain(&node, ms(10_000));
    quiet().await;
    world.bank.let_go("a", Reply::Ok);
    draining.await.unwrap();
    assert_eq!(world.bank.calls().len(), 1, "the freed permit lets nothing new out");
    world.bank.action("a", |_| Reply::Ok);
    let _next = world.node_for(&plan).await;
    world.ends("pay-2", SagaState::Succeeded).await;
    assert_eq!(world.bank.calls_of("pay-2"), ["a action #1"]);
    assert_eq!(world.state("pay-1"), Some(SagaState::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_in_time_is_left_to_takeover() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    let began = tokio::time::Instant::now();
    drain(&node, ms(3_000)).await.unwrap();
    assert!(began.elapsed() < ms(3_100), "{:?}", began.elapsed());
    let _next = world.node_for(&line()).await;
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(world.bank.calls(), ["a action #1", "a compensation #1"], "it may have been sent: undone");
}

#[tokio::test(start_paused = true)]
async fn a_draining_coordinator_takes_nothing_on() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    let draining = drain(&node, ms(3_000));
    quiet().await;
    let error = node.coordinator.start_saga(request("line", "pay-8")).await.unwrap_err();
    assert_eq!(error, EngineError::NotServing);
    world.bank.let_go("a", Reply::Ok);
    draining.await.unwrap();
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(world.told("pay-7").matches("handed over").count(), 1, "{}", world.told("pay-7"));
    assert_eq!(world.state("pay-8"), None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_in_the_middle_of_a_takeover_does_not_take_back_what_it_has_let_go_of() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    for n in 0..5 {
        node.start("line", &format!("pay-{n}")).await;
    }
    quiet().await;
    node.crash();
    let next = world.node_for(&line()).await;
    tokio::time::sleep(ms(4_500)).await;
    world.disk.block();
    until("it takes over", || world.disk.tries().last().unwrap().len() == 5).await;
    let draining = drain(&next, ms(3_000));
    quiet().await;
    world.disk.unblock();
    draining.await.unwrap();
    for n in 0..5 {
        assert!(world.epoch(&format!("pay-{n}")) <= 2, "{}", world.told(&format!("pay-{n}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_signals_of_a_saga_that_has_just_ended() {
    let world = World::new();
    let plan = Plan::new("two").step("a", &[]).listens().step("b", &["a"]);
    let node = world.node_for(&plan).await;
    world.bank.listener("a", Listen::Hang);
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    assert_eq!(node.run("two", "pay-7").await.state, SagaState::RolledBack);
    let draining = drain(&node, ms(10_000));
    quiet().await;
    assert!(!draining.is_finished(), "a delivery is under way");
    world.bank.listener("a", Listen::Ok);
    draining.await.unwrap();
    assert_eq!(world.bank.told(), ["pay-7 a"; 2]);
    assert!(world.told("pay-7").contains("a        signalled      #2"), "{}", world.told("pay-7"));
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_ends_during_a_drain_still_tells_its_listeners() {
    let world = World::new();
    let plan = Plan::new("two").step("a", &[]).listens().step("b", &[]);
    let node = world.node_for(&plan).await;
    for step in ["a", "b"] {
        world.bank.action(step, |_| Reply::Held);
    }
    node.start("two", "pay-7").await;
    quiet().await;
    let draining = drain(&node, ms(10_000));
    quiet().await;
    world.bank.let_go("b", says(Code::FailedPrecondition));
    quiet().await;
    assert_eq!(world.state("pay-7"), Some(SagaState::RollingBack));
    world.bank.let_go("a", says(Code::FailedPrecondition));
    draining.await.unwrap();
    assert_eq!(world.state("pay-7"), Some(SagaState::RolledBack));
    assert_eq!(world.bank.told(), ["pay-7 a"]);
    assert!(world.told("pay-7").contains("a        signalled      #1"), "{}", world.told("pay-7"));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_never_answers_does_not_hold_up_a_drain_for_longer_than_it_may_take() {
    let world = World::new();
    let plan = Plan::new("two").step("a", &[]).listens().step("b", &["a"]);
    let node = world.node_for(&plan).await;
    world.bank.listener("a", Listen::Hang);
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    node.run("two", "pay-7").await;
    let began = tokio::time::Instant::now();
    drain(&node, ms(3_000)).await.unwrap();
    assert!(began.elapsed() >= ms(3_000) && began.elapsed() < ms(3_100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn watchers_and_waiters_are_let_go_by_the_end_of_a_drain() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    let started = node.start("line", "pay-7").await;
    quiet().await;
    let (watcher, waiter) = (node.coordinator.clone(), node.coordinator.clone());
    let watching = tokio::spawn(async move { watcher.next_events(&id("pay-7"), Seq(1)).await });
    let waiting = tokio::spawn(async move { waiter.wait(started, ms(600_000)).await });
    quiet().await;
    drain(&node, ms(1_000)).await.unwrap();
    quiet().await;
    assert!(watching.is_finished() && waiting.is_finished());
    assert_eq!(watching.await.unwrap(), Err(EngineError::NotServing), "an end would be taken for the saga's");
    assert_eq!(waiting.await.unwrap().unwrap().state, SagaState::Running);
}
