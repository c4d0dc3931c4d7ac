//! What becomes of sagas whose coordinator is gone, and of those that cannot be taken over.

use crate::common::bank::{Reply, says};
use crate::common::plan::Plan;
use crate::common::{World, id, ms, quiet, request, until};
use backstop_core::{Code, Input, SagaState, StepName};
use backstop_engine::{EngineError, Reach};

fn line() -> Plan {
    Plan::new("line").step("a", &[]).step("b", &["a"])
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_a_deduplicating_participant_is_sent_the_same_key_again() {
    let world = World::new();
    let node = world.node_for(&line().dedup()).await;
    world.bank.action("b", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    node.crash();
    world.bank.action("b", |_| Reply::Ok);
    let _next = world.node_for(&line().dedup()).await;
    world.ends("pay-7", SagaState::Succeeded).await;
    let seen = world.bank.seen();
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1", "b action #2"]);
    assert_eq!(seen[1].key, seen[2].key);
    assert_eq!((seen[1].epoch, seen[2].epoch), (1, 2));
    assert!(seen[1].clock < seen[2].clock);
    assert_eq!((seen[1].process, seen[2].process), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn peer_31_after_a_crash_what_a_participant_may_have_done_is_undone() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("b", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    node.crash();
    let _next = world.node_for(&line()).await;
    world.ends("pay-7", SagaState::RolledBack).await;
    world.tells(
        "pay-7",
        "
        0001 saga     started        line@1
        0002 a        succeeded      #1
        0003 saga     taken over     epoch 2
        0004 b        failed         #1  FIN-50302 UNAVAILABLE (coordinator lost) in doubt  the coordinator that had \
         called, or could have, is gone
        0005 saga     rolling back   cause b
        0006 b        compensated    #1
        0007 a        compensated    #1
        0008 saga     rolled back
        ",
    );
}

#[tokio::test(start_paused = true)]
async fn peer_03_a_call_of_many_leases_is_sent_once_and_nobody_is_taken_over_while_its_lease_lives() {
    let world = World::new();
    let (node, _other) = (world.node_for(&line()).await, world.node_for(&line()).await);
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    tokio::time::sleep(ms(60_000)).await;
    assert_eq!(world.epoch("pay-7"), 1, "a call may last longer than any lease");
    assert_eq!(world.bank.calls(), ["a action #1"], "and is sent once");
    node.crash();
    tokio::time::sleep(ms(3_900)).await;
    assert_eq!(world.epoch("pay-7"), 1);
    world.ends("pay-7", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_goes_on_where_the_dead_one_left_it() {
    let world = World::new();
    let node = world.node_for(&line().listens()).await;
    world.bank.action("b", |_| says(Code::Internal));
    world.bank.undo("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    node.crash();
    world.bank.undo("a", |_| Reply::Ok);
    let _next = world.node_for(&line().listens()).await;
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(
        world.bank.calls(),
        ["a action #1", "b action #1", "b compensation #1", "a compensation #1", "a compensation #2"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_person_stays_put() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[]).refusals(1)).await;
    world.bank.action("a", |_| says(Code::Internal));
    world.bank.undo("a", |_| says(Code::FailedPrecondition));
    assert_eq!(node.run("one", "pay-7").await.state, SagaState::NeedsIntervention);
    node.crash();
    let _next = world.node().await;
    tokio::time::sleep(ms(60_000)).await;
    assert_eq!((world.epoch("pay-7"), world.bank.calls().len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn two_coordinators_share_what_a_dead_one_left_and_each_saga_has_one_of_them() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    for n in 0..600 {
        node.start("line", &format!("pay-{n}")).await;
    }
    quiet().await;
    node.crash();
    let _others = [world.node().await, world.node().await];
    until("all are undone", || {
        (0..600).all(|n| world.state(&format!("pay-{n}")) == Some(SagaState::RolledBack))
    })
    .await;
    assert!((0..600).all(|n| world.epoch(&format!("pay-{n}")) == 2));
}

#[tokio::test(start_paused = true)]
async fn peer_32_three_hundred_sagas_that_cannot_be_replayed_do_not_starve_a_healthy_one() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    for n in 0..300 {
        node.start("line", &format!("bad-{n}")).await;
        world.disk.tear(&format!("bad-{n}"));
    }
    node.start("line", "good").await;
    quiet().await;
    node.crash();
    let next = world.node().await;
    world.ends("good", SagaState::RolledBack).await;
    let error = next.coordinator.get_saga(&id("bad-7")).await.unwrap_err();
    assert!(error.to_string().contains("store failed") || matches!(error, EngineError::Quarantined { .. }));
    assert!((0..300).all(|n| world.epoch(&format!("bad-{n}")) == 1));
}

#[tokio::test(start_paused = true)]
async fn a_saga_whose_append_the_store_refuses_does_not_stop_the_takeover_of_others() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "bad").await;
    quiet().await;
    node.crash();
    world.disk.poison("bad", true);
    let second = world.node_for(&line()).await;
    tokio::time::sleep(ms(20_000)).await;
    // The one that tries to take it over is busy with it; another saga comes to need the same help.
    second.start("line", "good").await;
    quiet().await;
    let third = world.node().await;
    tokio::time::sleep(ms(20_000)).await;
    second.crash();
    world.ends("good", SagaState::RolledBack).await;
    world.disk.poison("bad", false);
    world.ends("bad", SagaState::RolledBack).await;
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn takeover_takes_only_what_there_is_room_for_and_the_rest_later() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    for n in 0..20 {
        node.start("line", &format!("pay-{n}")).await;
    }
    quiet().await;
    node.crash();
    let next = world.node_with(|settings| settings.live_sagas_max = 3).await;
    until("all are undone", || {
        (0..20).all(|n| world.state(&format!("pay-{n}")) == Some(SagaState::RolledBack))
    })
    .await;
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn an_intervention_survives_its_coordinator_and_can_be_answered_on_another() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[]).refusals(1)).await;
    world.bank.action("a", |_| says(Code::Internal));
    world.bank.undo("a", |_| says(Code::FailedPrecondition));
    node.run("one", "pay-7").await;
    node.crash();
    let next = world.node().await;
    world.bank.undo("a", |_| Reply::Ok);
    let retry = Input::RetryBranch {
        step: StepName::parse("a").unwrap(),
        by: "ben".to_owned(),
        reason: "mended".to_owned(),
    };
    next.coordinator.command(&id("pay-7"), retry, Reach::Anywhere).await.unwrap();
    world.ends("pay-7", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_late_to_a_takeover_does_not_rob_the_one_that_was_faster() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    world.bank.undo("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    node.crash();
    let late = world.node().await;
    late.stall(true);
    // It knows that the saga needs somebody, and is slow to read it.
    tokio::time::sleep(ms(6_000)).await;
    assert_eq!(world.epoch("pay-7"), 1);
    let _quick = world.node().await;
    until("the quick one has it", || world.epoch("pay-7") == 2).await;
    quiet().await;
    late.stall(false);
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(world.epoch("pay-7"), 2, "{}", world.told("pay-7"));
    // The oldest call is the dead one's: nobody hears its answer.
    world.bank.let_go("a", Reply::Ok);
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn old_news_of_a_hand_over_are_not_believed() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    let late = world.node().await;
    late.stall(true);
    let draining = {
        let coordinator = node.coordinator.clone();
        tokio::spawn(async move { coordinator.drain(ms(5_000)).await })
    };
    quiet().await;
    world.bank.let_go("a", Reply::Ok);
    draining.await.unwrap();
    world.bank.action("b", |_| Reply::Held);
    tokio::time::sleep(ms(2_000)).await;
    // It has heard that the saga was handed over. Another takes it, calls b, and dies.
    let quick = world.node().await;
    until("b is out", || world.bank.out() == ["b action #1"]).await;
    quick.crash();
    tokio::time::sleep(ms(6_000)).await;
    late.stall(false);
    world.ends("pay-7", SagaState::RolledBack).await;
    let calls = ["a action #1", "b action #1", "b compensation #1", "a compensation #1"];
    assert_eq!(world.bank.calls(), calls, "b may have been done: it is undone, not called again");
}

#[tokio::test(start_paused = true)]
async fn new_sagas_leave_room_for_those_of_a_dead_coordinator() {
    let world = World::new();
    let dead = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    dead.start("line", "left-1").await;
    dead.start("line", "left-2").await;
    quiet().await;
    let node = world.node_with(|settings| settings.live_sagas_max = 20).await;
    let mut accepted = 0;
    for n in 0..20 {
        match node.coordinator.start_saga(request("line", &format!("new-{n}"))).await {
            Ok(_) => accepted += 1,
            Err(error) => assert!(matches!(error, EngineError::Busy { .. }), "{error:?}"),
        }
    }
    assert_eq!(accepted, 18, "a tenth is left free");
    dead.crash();
    world.ends("left-1", SagaState::RolledBack).await;
    world.ends("left-2", SagaState::RolledBack).await;
}
