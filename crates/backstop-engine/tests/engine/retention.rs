//! What has ended is kept as long as configured, and its id protects it as long as configured.

use crate::common::plan::Plan;
use crate::common::{World, id, ms, request};
use backstop_core::SagaState;
use backstop_engine::EngineError;
use backstop_engine::ports::store::Retention;

#[tokio::test(start_paused = true)]
async fn peer_17_journals_go_first_then_the_ids_and_what_has_not_ended_stays() {
    let world = World::new();
    let node = world
        .node_with(|settings| {
            settings.retention = Retention { journals_for: ms(600_000), ids_for: ms(1_200_000) };
            settings.retention_batch_max = 3;
        })
        .await;
    node.register(&Plan::new("one").step("a", &[])).await;
    for n in 0..10 {
        node.run("one", &format!("pay-{n}")).await;
    }
    world.bank.action("a", |_| crate::common::bank::Reply::Held);
    node.start("one", "open").await;
    tokio::time::sleep(ms(500_000)).await;
    assert!(!node.coordinator.head(&id("pay-3")).await.unwrap().retired);
    tokio::time::sleep(ms(200_000)).await;
    let error = node.coordinator.get_saga(&id("pay-3")).await.unwrap_err();
    let EngineError::Retired { head } = error else { panic!("{error:?}") };
    assert_eq!(head.state, SagaState::Succeeded, "its end is known as long as its id");
    // The id still protects: the same request is not started again.
    let again = node.coordinator.start_saga(request("one", "pay-3")).await.unwrap_err();
    assert!(matches!(again, EngineError::Retired { .. }), "{again:?}");
    let mut other = request("one", "pay-3");
    other.fingerprint = [8; 32];
    let taken = node.coordinator.start_saga(other).await.unwrap_err();
    assert!(matches!(taken, EngineError::AlreadyExists { .. }), "{taken:?}");
    tokio::time::sleep(ms(600_000)).await;
    assert!((0..10).all(|n| world.state(&format!("pay-{n}")).is_none()), "nothing is left of them");
    assert_eq!(world.state("open"), Some(SagaState::Running), "however old");
    world.bank.let_go("a", crate::common::bank::Reply::Ok);
}
