//! What is registered on one coordinator holds on all of them.

use crate::common::bank::Reply;
use crate::common::plan::Plan;
use crate::common::{World, ms, quiet, request};
use backstop_core::SagaState;

#[tokio::test(start_paused = true)]
async fn traits_that_were_registered_on_another_coordinator_hold_here_a_second_later() {
    let world = World::new();
    let plan = Plan::new("one").step("a", &[]);
    let (node, other) = (world.node_for(&plan).await, world.node().await);
    // The other one compiles the definition while its participant does not deduplicate.
    other.run("one", "pay-1").await;
    node.register(&plan.clone().dedup()).await;
    tokio::time::sleep(ms(1_100)).await;
    world.bank.action("a", |call| if call.attempt == 1 { Reply::Hang } else { Reply::Ok });
    assert_eq!(other.run("one", "pay-2").await.state, SagaState::Succeeded, "{}", world.told("pay-2"));
    assert_eq!(world.bank.calls_of("pay-2"), ["a action #1", "a action #2"], "in doubt, and sent again");
}

#[tokio::test(start_paused = true)]
async fn a_participant_that_stops_deduplicating_is_never_again_sent_what_is_in_doubt() {
    let world = World::new();
    let plan = Plan::new("one").step("a", &[]);
    let (node, other) = (world.node_for(&plan.clone().dedup()).await, world.node().await);
    other.run("one", "pay-1").await;
    node.register(&plan).await;
    tokio::time::sleep(ms(1_100)).await;
    world.bank.action("a", |_| Reply::Hang);
    assert_eq!(other.run("one", "pay-2").await.state, SagaState::RolledBack);
    assert_eq!(world.bank.calls_of("pay-2"), ["a action #1", "a compensation #1"]);
    quiet().await;
}

#[tokio::test(start_paused = true)]
async fn one_start_asks_for_the_newest_revision_in_good_time_and_the_others_go_on() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[])).await;
    // By then the registrations are known here, and this one asks.
    tokio::time::sleep(ms(2_000)).await;
    node.coordinator.start_saga(request("one", "pay-0")).await.unwrap();
    tokio::time::sleep(ms(600)).await;
    // Whoever asks now is told that it cannot be read.
    world.disk.break_definitions(true);
    let starts = (1..=16).map(|n| node.coordinator.start_saga(request("one", &format!("pay-{n}"))));
    let started = futures::future::join_all(starts).await;
    assert_eq!(started.iter().filter(|answer| answer.is_err()).count(), 1);
    world.disk.break_definitions(false);
    // It was not answered: from a second on nobody goes by what was known then.
    tokio::time::sleep(ms(500)).await;
    world.disk.break_definitions(true);
    assert!(node.coordinator.start_saga(request("one", "pay-17")).await.is_err());
    quiet().await;
}
