//! A coordinator acts only while it is sure of its lease.

use crate::common::bank::{End, Reply, says};
use crate::common::plan::Plan;
use crate::common::{World, ms, quiet, request, until};
use backstop_core::{Code, SagaState};
use backstop_engine::EngineError;

fn line() -> Plan {
    Plan::new("line").step("a", &[]).step("b", &["a"]).dedup()
}

#[tokio::test(start_paused = true)]
async fn calls_stop_before_the_lease_can_have_passed() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    for saga in ["pay-1", "pay-2", "pay-3"] {
        node.start("line", saga).await;
    }
    tokio::time::sleep(ms(10_100)).await;
    // The last renewal was asked for 100 ms ago: it is good for 4.9 s from here, less the margin.
    world.disk.renewals_fail(true);
    tokio::time::sleep(ms(4_000)).await;
    world.bank.let_go("a", Reply::Ok);
    quiet().await;
    assert_eq!(world.bank.calls_of("pay-1"), ["a action #1", "b action #1"], "it is still sure of its lease");
    tokio::time::sleep(ms(450)).await;
    world.bank.let_go("a", Reply::Ok);
    tokio::time::sleep(ms(20_000)).await;
    assert_eq!(world.bank.calls_of("pay-2"), ["a action #1"]);
    assert!(world.told("pay-2").contains("a        succeeded"), "what it learns it still writes down");
    assert!(!node.coordinator.is_serving());
    let error = node.coordinator.start_saga(request("line", "pay-4")).await.unwrap_err();
    assert_eq!(error, EngineError::NotServing);
    world.disk.renewals_fail(false);
    world.ends("pay-2", SagaState::Succeeded).await;
    assert!(node.coordinator.is_serving(), "a new tenure");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_over_once_is_not_renewed_by_a_clock_that_goes_back() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    let before = world.owner("pay-7");
    world.disk.renewals_fail(true);
    tokio::time::sleep(ms(6_000)).await;
    // By now another may have driven it; then the store's clock forgets that the lease was over.
    world.disk.set_back(ms(12_000));
    world.disk.renewals_fail(false);
    tokio::time::sleep(ms(3_000)).await;
    world.bank.let_go("a", Reply::Ok);
    quiet().await;
    assert_eq!(world.bank.calls_of("pay-7"), ["a action #1"], "nobody goes on under the old name");
    node.start("line", "pay-8").await;
    assert_ne!(world.owner("pay-8"), before, "it has begun anew");
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_a_gate_does_not_go_out_after_the_lease() {
    let world = World::new();
    let plan = Plan::new("one").step("a", &[]).in_flight_max(1).dedup();
    let node = world.node_with(|settings| settings.lease_ttl = ms(2_000)).await;
    node.register(&plan).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("one", "pay-1").await;
    quiet().await;
    world.disk.renewals_fail(true);
    tokio::time::sleep(ms(1_000)).await;
    node.start("one", "pay-2").await;
    // Its permit comes free within its timeout, but after the lease.
    tokio::time::sleep(ms(1_500)).await;
    world.bank.let_go("a", Reply::Ok);
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(world.bank.calls(), ["a action #1"]);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_waits_at_an_open_breaker_does_not_go_out_after_the_lease() {
    let world = World::new();
    let node = world.node_with(|settings| settings.breaker.calls_min = 2).await;
    node.register(&Plan::new("one").step("a", &[])).await;
    world.bank.action("a", |_| says(Code::Unavailable));
    world.bank.undo("a", |_| says(Code::Unavailable));
    node.start("one", "pay-1").await;
    until("the breaker is open", || world.bank.calls().len() == 2).await;
    world.disk.renewals_fail(true);
    tokio::time::sleep(ms(20_000)).await;
    assert_eq!(world.bank.calls().len(), 2, "{:?}", world.bank.calls());
    world.disk.renewals_fail(false);
    world.bank.undo("a", |_| Reply::Ok);
    world.ends("pay-1", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn peer_39_a_lease_that_is_gone_drops_the_sagas_and_a_new_tenure_adopts_them() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("b", |_| Reply::Held);
    for n in 0..10 {
        node.start("line", &format!("pay-{n}")).await;
    }
    quiet().await;
    world.bank.action("b", |_| Reply::Ok);
    world.disk.end_all_leases();
    for n in 0..10 {
        let saga = format!("pay-{n}");
        world.ends(&saga, SagaState::Succeeded).await;
        assert_eq!(world.epoch(&saga), 2);
        assert_eq!(world.bank.calls_of(&saga), ["a action #1", "b action #1", "b action #2"]);
    }
    let dropped = world.bank.seen().iter().filter(|call| matches!(call.end, End::Dropped(_))).count();
    assert_eq!(dropped, 10, "the calls of the old tenure were let go");
    let rows = node.coordinator.coordinators().await.unwrap();
    assert_eq!(rows.len(), 1, "one new name, and the old one is gone");
}

#[tokio::test(start_paused = true)]
async fn peer_20_a_stalled_coordinator_that_wakes_does_no_harm() {
    let world = World::new();
    let (stalled, other) = (world.node_for(&line()).await, world.node_for(&line()).await);
    world.bank.action("a", |_| Reply::Held);
    stalled.start("line", "pay-7").await;
    quiet().await;
    // Its lease ends without its knowing, and the other one is quick.
    world.disk.forget_lease_of(&world.owner("pay-7").unwrap());
    until("the other one has it", || world.epoch("pay-7") == 2).await;
    if world.bank.out() == ["a action #1"] {
        // It has not noticed: now it hears the answer of its call.
        world.bank.let_go("a", Reply::Ok);
    }
    world.bank.action("b", |_| Reply::Ok);
    until("it is over", || world.state("pay-7").is_some_and(SagaState::is_final)).await;
    let from_the_stalled = world.bank.seen().iter().filter(|call| call.process == 1).count();
    assert_eq!(from_the_stalled, 1, "nothing more came from the one that had lost it");
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn the_signals_of_a_saga_that_ends_while_the_lease_is_in_doubt_go_out_once_it_is_renewed() {
    let world = World::new();
    let node = world.node_with(|settings| settings.lease_renew_every = ms(300)).await;
    node.register(&Plan::new("two").step("a", &[]).listens().step("b", &[])).await;
    for step in ["a", "b"] {
        world.bank.action(step, |_| Reply::Held);
    }
    node.start("two", "pay-7").await;
    world.disk.renewals_fail(true);
    until("it is not sure of its lease any more", || !node.coordinator.is_serving()).await;
    for step in ["b", "a"] {
        world.bank.let_go(step, says(Code::FailedPrecondition));
        quiet().await;
    }
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(world.bank.told(), Vec::<String>::new());
    world.disk.renewals_fail(false);
    tokio::time::sleep(ms(500)).await;
    assert_eq!((world.bank.told(), world.epoch("pay-7")), (vec!["pay-7 a".to_owned()], 1));
}
