//! Going forward: what goes out when, and what it waits for.

use crate::common::bank::{Reply, after, says};
use crate::common::plan::Plan;
use crate::common::{World, ms, quiet, request, until};
use backstop_core::{Code, SagaState};
use std::sync::Arc;

fn three() -> Plan {
    Plan::new("three").step("a", &[]).step("b", &[]).step("c", &[])
}

fn line() -> Plan {
    Plan::new("line").step("a", &[]).step("b", &["a"])
}

#[tokio::test(start_paused = true)]
async fn branches_that_do_not_wait_for_each_other_are_all_out_at_once_and_cost_two_writes() {
    let world = World::new();
    let node = world.node_for(&three()).await;
    for step in ["a", "b", "c"] {
        world.bank.action(step, |_| Reply::Held);
    }
    node.start("three", "pay-7").await;
    quiet().await;
    assert_eq!(world.bank.out(), ["a action #1", "b action #1", "c action #1"]);
    for step in ["b", "c", "a"] {
        world.bank.let_go(step, Reply::Ok);
        tokio::time::sleep(ms(20)).await;
    }
    assert_eq!(world.state("pay-7"), Some(SagaState::Succeeded));
    let sizes: Vec<usize> = world.disk.written().iter().map(|batch| batch[0].events.len()).collect();
    assert_eq!(sizes, [1, 4], "the start, and then all the rest together");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_called_before_the_start_is_on_disk() {
    let world = World::new();
    let node = world.node_for(&three()).await;
    world.disk.block();
    let coordinator = node.coordinator.clone();
    let starting = tokio::spawn(async move { coordinator.start_saga(request("three", "pay-7")).await });
    tokio::time::sleep(ms(3_000)).await;
    assert!(!starting.is_finished(), "it is not accepted before it is durable");
    assert_eq!(world.bank.calls(), Vec::<String>::new());
    world.disk.unblock();
    assert!(starting.await.unwrap().unwrap().created);
    world.ends("pay-7", SagaState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_is_not_called_before_the_success_that_it_waits_for_is_on_disk() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    world.disk.block();
    world.bank.let_go("a", Reply::Ok);
    tokio::time::sleep(ms(3_000)).await;
    assert_eq!(world.bank.calls(), ["a action #1"]);
    world.disk.unblock();
    quiet().await;
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_undone_and_nobody_told_before_the_rollback_is_on_disk() {
    let world = World::new();
    let node = world.node_for(&line().listens()).await;
    world.bank.action("b", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    world.disk.block();
    world.bank.let_go("b", says(Code::Internal));
    tokio::time::sleep(ms(3_000)).await;
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1"]);
    assert_eq!(world.bank.told(), Vec::<String>::new());
    world.disk.unblock();
    quiet().await;
    assert_eq!(world.bank.told(), ["pay-7 b"]);
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1", "b compensation #1", "a compensation #1"]);
}

#[tokio::test(start_paused = true)]
async fn a_success_that_nothing_waits_for_rides_along_but_not_for_ever() {
    let world = World::new();
    let node = world.node_for(&three()).await;
    world.bank.action("a", |_| Reply::Held);
    world.bank.action("b", |_| after(ms(10), Reply::Ok));
    world.bank.action("c", |_| after(ms(30), Reply::Ok));
    node.start("three", "pay-7").await;
    tokio::time::sleep(ms(100)).await;
    assert_eq!(world.disk.written().len(), 1, "both successes wait for company");
    tokio::time::sleep(ms(20)).await;
    let sizes: Vec<usize> = world.disk.written().iter().map(|batch| batch[0].events.len()).collect();
    assert_eq!(sizes, [1, 2], "but not longer than ride_along_max after the first of them");
    tokio::time::sleep(ms(2_000)).await;
    assert_eq!(world.bank.calls().len(), 3, "and nothing was sent again meanwhile");
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_tried_again_when_its_time_has_come() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[]).dedup()).await;
    world.bank.action("a", |call| if call.attempt < 3 { says(Code::Unavailable) } else { Reply::Ok });
    let saga = node.run("one", "pay-7").await;
    assert_eq!(saga.state, SagaState::Succeeded);
    let seen = world.bank.seen();
    assert_eq!(world.bank.calls(), ["a action #1", "a action #2", "a action #3"]);
    assert!(seen.iter().all(|call| call.key == "pay-7/a/action"), "one key for all attempts");
    assert!(seen.windows(2).all(|pair| pair[0].clock < pair[1].clock));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_forward_path_and_bounds_its_calls() {
    let world = World::new();
    let node = world.node_for(&line().dedup().deadline(ms(500))).await;
    world.bank.action("b", |_| Reply::Hang);
    let saga = node.run("line", "pay-7").await;
    assert_eq!(saga.state, SagaState::RolledBack);
    let b = world.bank.seen().into_iter().find(|call| call.step == "b").unwrap();
    assert!(b.timeout <= ms(500), "a call does not get more time than the saga has");
    world.tells(
        "pay-7",
        "
        0001 saga     started        line@1
        0002 a        succeeded      #1
        0003 b        will retry     #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
        0004 saga     rolling back   cause deadline
        0005 b        compensated    #1
        0006 a        compensated    #1
        0007 saga     rolled back
        ",
    );
}

#[tokio::test(start_paused = true)]
async fn a_hundred_sagas_run_beside_each_other_and_share_their_writes() {
    let world = World::new();
    let node = world.node_for(&three()).await;
    for step in ["a", "b", "c"] {
        world.bank.action(step, |_| after(ms(10), Reply::Ok));
    }
    let mut starts = tokio::task::JoinSet::new();
    for n in 0..100 {
        let coordinator = node.coordinator.clone();
        starts.spawn(
            async move { coordinator.start_saga(request("three", &format!("pay-{n}"))).await.unwrap() },
        );
    }
    starts.join_all().await;
    let world = Arc::new(world);
    let all = Arc::clone(&world);
    until("all are done", move || {
        (0..100).all(|n| all.state(&format!("pay-{n}")) == Some(SagaState::Succeeded))
    })
    .await;
    assert_eq!(world.bank.calls().len(), 300);
    let writes = world.disk.written().len();
    assert!(writes <= 20, "{writes} writes for 200 appends");
}
