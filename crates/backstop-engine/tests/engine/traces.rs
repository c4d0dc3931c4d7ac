//! What of a saga's story is told to its trace, when, and by whom.

use crate::common::bank::{Reply, says};
use crate::common::plan::Plan;
use crate::common::{World, ms, quiet, request};
use backstop_core::{Code, SagaState};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn chain() -> Plan {
    Plan::new("chain").step("a", &[]).step("b", &["a"])
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_not_sampled_and_succeeds_is_not_told() {
    let world = World::new();
    world.node_for(&chain()).await.run("chain", "pay-7").await;
    assert!(world.traces.of("pay-7", false).is_empty());
    assert!(world.traces.of("pay-7", true).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sampled_saga_is_told_as_it_happens_each_event_once() {
    let world = World::new();
    let node = world.node_for(&chain()).await;
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    let mut start = request("chain", "pay-7");
    start.trace_parent = Some(SAMPLED.to_owned());
    node.coordinator.start_saga(start).await.unwrap();
    world.ends("pay-7", SagaState::RolledBack).await;
    quiet().await;
    let last = world.disk.journal(&crate::common::id("pay-7")).unwrap().head.seq.0;
    assert_eq!(world.traces.of("pay-7", false), (1..=last).collect::<Vec<_>>());
    assert!(world.traces.of("pay-7", true).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_was_not_sampled_and_fails_is_told_from_its_start() {
    let world = World::new();
    let node = world.node_for(&chain()).await;
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    node.start("chain", "pay-7").await;
    world.ends("pay-7", SagaState::RolledBack).await;
    quiet().await;
    world.tells(
        "pay-7",
        "0001 saga     started        chain@1
         0002 a        succeeded      #1
         0003 b        failed         #1  FIN-40005 FAILED_PRECONDITION
         0004 saga     rolling back   cause b
         0005 a        compensated    #1
         0006 saga     rolled back",
    );
    // The decision and what led to it were one write.
    assert_eq!(world.traces.of("pay-7", true), [1, 2]);
    assert_eq!(world.traces.of("pay-7", false), [3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_saga_over_tells_what_the_dead_one_may_not_have_told() {
    let world = World::new();
    let node = world.node_for(&chain()).await;
    world.bank.action("b", |_| Reply::Held);
    let mut start = request("chain", "pay-7");
    start.trace_parent = Some(SAMPLED.to_owned());
    node.coordinator.start_saga(start).await.unwrap();
    quiet().await;
    node.crash();
    let _other = world.node_for(&chain()).await;
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    world.ends("pay-7", SagaState::RolledBack).await;
    quiet().await;
    let last = world.disk.journal(&crate::common::id("pay-7")).unwrap().head.seq.0;
    assert_eq!(world.traces.of("pay-7", true), [1, 2], "{}", world.told("pay-7"));
    // The first two were told by the dead one too, as it happens.
    assert_eq!(world.traces.of("pay-7", false), (1..=last).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_happened_long_before_a_takeover_is_not_told_again() {
    let world = World::new();
    let node = world.node_for(&chain()).await;
    world.bank.action("b", |_| Reply::Held);
    let mut start = request("chain", "pay-7");
    start.trace_parent = Some(SAMPLED.to_owned());
    node.coordinator.start_saga(start).await.unwrap();
    quiet().await;
    node.crash();
    // The lease alone takes longer to run out.
    let other = world.node_with(|settings| settings.retold_within = ms(100)).await;
    other.register(&chain()).await;
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    world.ends("pay-7", SagaState::RolledBack).await;
    quiet().await;
    assert!(world.traces.of("pay-7", true).is_empty(), "{}", world.told("pay-7"));
}

#[tokio::test(start_paused = true)]
async fn a_saga_does_not_wait_for_its_story_to_be_told() {
    let world = World::new();
    let node = world.node_with(|settings| settings.retelling_queue_max = 1).await;
    node.register(&chain()).await;
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    node.stall(true);
    let sagas: Vec<String> = (0..5).map(|n| format!("pay-{n}")).collect();
    for saga in &sagas {
        node.start("chain", saga).await;
    }
    tokio::time::sleep(ms(1_000)).await;
    for saga in &sagas {
        assert_eq!(world.state(saga), Some(SagaState::RolledBack), "{}", world.told(saga));
    }
    // One is being read, one waits, and the others are counted.
    assert_eq!(world.traces.untold(), 3);
}
