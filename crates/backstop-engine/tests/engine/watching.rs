//! Watching a saga: each event once and in order, from any place, and without asking all the time.

use crate::common::bank::{Listen, Reply, says};
use crate::common::plan::Plan;
use crate::common::{World, id, ms, quiet};
use backstop_core::{Code, SagaState, Seq};
use backstop_engine::EngineError;
use std::time::Duration;

fn line() -> Plan {
    Plan::new("line").step("a", &[]).step("b", &["a"]).step("c", &["b"])
}

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_each_event_once_in_order_as_it_happens() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    for step in ["a", "b", "c"] {
        world.bank.action(step, |_| Reply::Held);
    }
    node.start("line", "pay-7").await;
    let coordinator = node.coordinator.clone();
    let watching = tokio::spawn(async move {
        let (mut after, mut seen) = (Seq(0), Vec::new());
        loop {
            let events = coordinator.next_events(&id("pay-7"), after).await.unwrap();
            let Some(last) = events.last() else { return seen };
            after = last.seq;
            seen.push(events.iter().map(|event| event.seq.0).collect::<Vec<_>>());
        }
    });
    for step in ["a", "b", "c"] {
        tokio::time::sleep(ms(1_000)).await;
        world.bank.let_go(step, Reply::Ok);
    }
    assert_eq!(watching.await.unwrap(), [vec![1], vec![2], vec![3], vec![4, 5]]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_resumes_from_any_place_also_after_the_end() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    node.run("line", "pay-7").await;
    quiet().await;
    for after in 0..7 {
        let rest: Vec<u64> = (after + 1..=5).collect();
        assert_eq!(node.watch("pay-7", Seq(after)).await, rest);
    }
    let error = node.coordinator.next_events(&id("pay-8"), Seq(0)).await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_another_coordinators_saga_gets_the_same() {
    let world = World::new();
    let (node, other) = (world.node_for(&line()).await, world.node_for(&line()).await);
    world.bank.action("c", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    let (seen, ()) = tokio::join!(other.watch("pay-7", Seq(0)), async {
        tokio::time::sleep(ms(1_000)).await;
        world.bank.let_go("c", Reply::Ok);
    });
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_what_is_reported_after_the_end() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[]).listens()).await;
    world.bank.listener("a", Listen::Hang);
    world.bank.action("a", |_| says(Code::Internal));
    node.run("one", "pay-7").await;
    let seen = node.watch("pay-7", Seq(0)).await;
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    assert!(world.told("pay-7").contains("0006 a        not signalled"));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_asks_the_store_only_when_something_has_happened() {
    let world = World::new();
    // The doctor's rounds begin at a moment of their own, and read too.
    let node = world.node_with(|settings| settings.doctor_every = Duration::ZERO).await;
    node.register(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    let coordinator = node.coordinator.clone();
    let watching = tokio::spawn(async move { coordinator.next_events(&id("pay-7"), Seq(1)).await });
    quiet().await;
    let before = world.disk.reads();
    tokio::time::sleep(ms(600_000)).await;
    assert_eq!(world.disk.reads(), before, "ten minutes of silence cost nothing");
    world.bank.let_go("a", Reply::Ok);
    assert_eq!(watching.await.unwrap().unwrap()[0].seq, Seq(2));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_a_saga_at_rest_asks_at_the_configured_rate() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[]).refusals(1)).await;
    world.bank.action("a", |_| says(Code::Internal));
    world.bank.undo("a", |_| says(Code::FailedPrecondition));
    let saga = node.run("one", "pay-7").await;
    assert_eq!(saga.state, SagaState::NeedsIntervention);
    let coordinator = node.coordinator.clone();
    let watching = tokio::spawn(async move { coordinator.next_events(&id("pay-7"), saga.seq).await });
    quiet().await;
    let before = world.disk.reads();
    tokio::time::sleep(ms(10_000)).await;
    let reads = world.disk.reads() - before;
    // 10 s at one look each 200 ms: at the head alone, for it tells that there is nothing new.
    assert!(reads <= 51, "{reads} reads");
    assert!(!watching.is_finished());
}
