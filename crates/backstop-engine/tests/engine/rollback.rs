//! Going back: what must not go out any more, what is awaited, reset, undone and told.

use crate::common::bank::{End, Listen, Reply, after, says};
use crate::common::plan::Plan;
use crate::common::{World, ms, quiet};
use backstop_core::{Code, CompensationOrder, OnFailure, Phase, SagaState};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn peer_21_after_a_rollback_is_decided_not_even_a_due_retry_goes_out() {
    let world = World::new();
    let node = world.node_for(&Plan::new("two").step("a", &[]).step("b", &[]).dedup()).await;
    world.bank.action("a", |_| Reply::Held);
    world.bank.action("b", |_| says(Code::Unavailable));
    node.start("two", "pay-7").await;
    quiet().await;
    world.disk.block();
    world.bank.let_go("a", says(Code::Internal));
    // The retry falls due while the decision is on its way to the disk.
    tokio::time::sleep(ms(2_000)).await;
    world.disk.unblock();
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(world.bank.calls()[..2], ["a action #1", "b action #1"]);
    assert!(
        world.bank.calls()[2..].iter().all(|call| call.contains("compensation")),
        "{:?}",
        world.bank.calls()
    );
}

#[tokio::test(start_paused = true)]
async fn an_action_that_never_went_out_is_withdrawn_while_others_are_awaited() {
    let world = World::new();
    // One turn brings the success that y waits for and the failure of z; w is still out.
    let plan = Plan::new("four").step("x", &[]).step("y", &["x"]).step("z", &[]).step("w", &[]);
    // LIFO: nothing is undone while w is out, so nothing waits for the withdrawal to be on disk.
    let node = world.node_for(&plan.order(CompensationOrder::Lifo)).await;
    for step in ["x", "z", "w"] {
        world.bank.action(step, |_| Reply::Held);
    }
    node.start("four", "pay-7").await;
    quiet().await;
    world.bank.let_go("x", Reply::Ok);
    world.bank.let_go("z", says(Code::Internal));
    tokio::time::sleep(ms(1_000)).await;
    world.bank.let_go("w", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(world.bank.calls().iter().filter(|call| call.starts_with('y')).count(), 0);
    assert!(world.told("pay-7").contains("y        failed         #1  FIN-50302 UNAVAILABLE (withdrawn)"));
}

/// x and y at one participant that takes one call at a time; z fails while y waits for its permit.
async fn a_rollback_while_an_action_waits_for_its_permit(on_failure: OnFailure) {
    let world = World::new();
    let plan =
        Plan::new("gate").step("x", &[]).at("p").in_flight_max(1).step("y", &[]).at("p").in_flight_max(1);
    let node = world.node_for(&plan.step("z", &[]).on_failure(on_failure)).await;
    for step in ["x", "z"] {
        world.bank.action(step, |_| Reply::Held);
    }
    node.start("gate", "pay-7").await;
    quiet().await;
    assert_eq!(world.bank.out(), ["x action #1", "z action #1"]);
    world.bank.let_go("z", says(Code::FailedPrecondition));
    quiet().await;
    world.bank.let_go("x", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
    tokio::time::sleep(ms(5_000)).await;
    assert!(!world.bank.calls().contains(&"y action #1".to_owned()), "{:?}", world.bank.calls());
}

#[tokio::test(start_paused = true)]
async fn an_action_that_waits_for_its_permit_does_not_go_out_after_the_rollback_is_decided() {
    a_rollback_while_an_action_waits_for_its_permit(OnFailure::Drain).await;
}

#[tokio::test(start_paused = true)]
async fn nor_if_those_in_flight_are_cancelled() {
    a_rollback_while_an_action_waits_for_its_permit(OnFailure::Cancel).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_is_awaited_and_then_undone() {
    let world = World::new();
    let node = world.node_for(&Plan::new("two").step("a", &[]).step("b", &[])).await;
    world.bank.action("a", |_| Reply::Held);
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    node.start("two", "pay-7").await;
    tokio::time::sleep(ms(1_500)).await;
    assert_eq!(world.state("pay-7"), Some(SagaState::RollingBack));
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1"], "its answer is knowledge");
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
    world.tells(
        "pay-7",
        "
        0001 saga     started        two@1
        0002 b        failed         #1  FIN-40005 FAILED_PRECONDITION
        0003 saga     rolling back   cause b
        0004 a        succeeded      #1
        0005 a        compensated    #1
        0006 saga     rolled back
        ",
    );
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_given_up_are_reset_at_the_permitted_rate_and_the_saga_does_not_wait_for_that() {
    let world = World::new();
    let node = world.node_with(|settings| settings.resets_per_second_max = 2).await;
    let plan = Plan::new("five").step("a", &[]).step("b", &[]).step("c", &[]).step("d", &[]).step("e", &[]);
    node.register(&plan.on_failure(OnFailure::Cancel)).await;
    for step in ["a", "b", "c", "d"] {
        world.bank.action(step, |_| Reply::Held);
    }
    world.bank.action("e", |_| after(ms(100), says(Code::Internal)));
    let began = Instant::now();
    let saga = node.run("five", "pay-7").await;
    assert_eq!(saga.state, SagaState::RolledBack);
    assert!(began.elapsed() < ms(200), "the compensations went out at once");
    tokio::time::sleep(ms(5_000)).await;
    let mut resets: Vec<Instant> = Vec::new();
    for call in world.bank.seen().iter().filter(|call| call.phase == Phase::Action) {
        match call.end {
            End::Dropped(at) => resets.push(at),
            End::Answered => assert_eq!(call.step, "e"),
            End::Out => panic!("{} was never reset", call.step),
        }
    }
    resets.sort();
    assert_eq!(resets.len(), 4);
    assert!(resets.windows(2).all(|pair| pair[1] - pair[0] >= ms(500)), "{resets:?}");
    let compensated = world.bank.seen().iter().filter(|call| call.phase == Phase::Compensation).count();
    assert_eq!(compensated, 5, "all of them count as in doubt");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_hangs_delays_no_compensation_and_is_reported_after_the_end() {
    let world = World::new();
    let plan = Plan::new("two").step("a", &[]).listens().step("b", &["a"]);
    let node = world.node_for(&plan).await;
    world.bank.listener("a", Listen::Hang);
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    let began = Instant::now();
    let saga = node.run("two", "pay-7").await;
    assert_eq!(saga.state, SagaState::RolledBack);
    assert!(began.elapsed() < ms(50), "{:?}", began.elapsed());
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(world.bank.told(), ["pay-7 a"; 3]);
    world.tells(
        "pay-7",
        "
        0001 saga     started        two@1
        0002 a        succeeded      #1
        0003 b        failed         #1  FIN-40005 FAILED_PRECONDITION
        0004 saga     rolling back   cause b
        0005 a        compensated    #1
        0006 saga     rolled back
        0007 a        not signalled  #3  no answer in time
        ",
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_is_told_once_if_it_hears() {
    let world = World::new();
    let plan = Plan::new("two").step("a", &[]).listens().step("b", &["a"]);
    let node = world.node_for(&plan).await;
    world.bank.undo("a", |_| after(Duration::from_secs(3), Reply::Ok));
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    node.run("two", "pay-7").await;
    assert_eq!(world.bank.told(), ["pay-7 a"]);
    assert!(world.told("pay-7").contains("a        signalled      #1"));
}

#[tokio::test(start_paused = true)]
async fn a_compensation_is_tried_until_the_participant_is_there_again() {
    let world = World::new();
    let node = world.node_for(&Plan::new("two").step("a", &[]).step("b", &["a"])).await;
    world.bank.action("b", |_| says(Code::FailedPrecondition));
    world.bank.undo("a", |call| if call.attempt < 12 { says(Code::Unavailable) } else { Reply::Ok });
    let saga = node.run("two", "pay-7").await;
    assert_eq!(saga.state, SagaState::RolledBack);
    let undone = world.bank.seen().iter().filter(|call| call.phase == Phase::Compensation).count();
    assert_eq!(undone, 12);
}
