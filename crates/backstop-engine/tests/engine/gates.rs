//! What stands between sagas and a participant: permits and the circuit breaker.

use crate::common::bank::{Reply, after, says};
use crate::common::plan::Plan;
use crate::common::{World, ms, quiet, until};
use backstop_core::breaker::BreakerPolicy;
use backstop_core::{Code, NotSent, ParticipantName, Phase, SagaState, Timestamp};
use backstop_engine::gate::{Barred, Gates, Manner};
use backstop_engine::ports::clock::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

fn quick_breaker(settings: &mut backstop_engine::Settings) {
    settings.breaker = BreakerPolicy { calls_min: 4, ..BreakerPolicy::default() };
}

#[tokio::test(start_paused = true)]
async fn while_the_breaker_is_open_actions_fail_fast_and_compensations_wait_and_then_go() {
    let world = World::new();
    let node = world.node_with(quick_breaker).await;
    node.register(&Plan::new("one").step("a", &[]).attempts(1)).await;
    let mended = Arc::new(AtomicBool::new(false));
    let works = Arc::clone(&mended);
    let script = move |_: &_| if works.load(Ordering::Relaxed) { Reply::Ok } else { says(Code::Unavailable) };
    world.bank.action("a", script.clone());
    world.bank.undo("a", script);
    for saga in ["pay-1", "pay-2"] {
        node.start("one", saga).await;
    }
    let participant = ParticipantName::parse("a").unwrap();
    until("the breaker is open", || node.coordinator.load_of(&participant).breaker_open).await;
    let sent = world.bank.calls().len();
    assert_eq!(sent, 4, "four failures open it");

    let refused = node.run("one", "pay-3").await;
    assert_eq!(refused.state, SagaState::RolledBack);
    world.tells(
        "pay-3",
        "
        0001 saga     started        one@1
        0002 a        failed         #1  FIN-50302 UNAVAILABLE (breaker open)  the participant's circuit breaker is open
        0003 saga     rolling back   cause a
        0004 saga     rolled back
        ",
    );
    tokio::time::sleep(ms(4_000)).await;
    assert_eq!(world.bank.calls().len(), sent, "nothing reaches the participant meanwhile");
    assert_eq!(world.state("pay-1"), Some(SagaState::RollingBack), "an undo is never given up for load");
    mended.store(true, Ordering::Relaxed);
    for saga in ["pay-1", "pay-2"] {
        world.ends(saga, SagaState::RolledBack).await;
    }
    assert!(!node.coordinator.load_of(&participant).breaker_open);
}

#[tokio::test(start_paused = true)]
async fn peer_08_a_dead_participant_slows_only_its_own_sagas() {
    let world = World::new();
    let node = world.node().await;
    node.register(&Plan::new("dead").step("d", &[]).in_flight_max(2).dedup()).await;
    node.register(&Plan::new("well").step("w", &[])).await;
    world.bank.action("d", |_| Reply::Hang);
    for n in 0..40 {
        node.start("dead", &format!("dead-{n}")).await;
    }
    for n in 0..20 {
        let began = tokio::time::Instant::now();
        assert_eq!(node.run("well", &format!("well-{n}")).await.state, SagaState::Succeeded);
        assert!(began.elapsed() < ms(5), "{:?}", began.elapsed());
        tokio::time::sleep(ms(300)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_flight_max_holds_and_all_get_their_turn() {
    let world = Arc::new(World::new());
    let node = world.node_for(&Plan::new("one").step("a", &[]).in_flight_max(3)).await;
    world.bank.action("a", |_| after(ms(100), Reply::Ok));
    for n in 0..12 {
        node.start("one", &format!("pay-{n}")).await;
    }
    let mut most = 0;
    while (0..12).any(|n| world.state(&format!("pay-{n}")) != Some(SagaState::Succeeded)) {
        most = most.max(world.bank.out().len());
        quiet().await;
    }
    assert_eq!(most, 3);
}

#[tokio::test(start_paused = true)]
async fn an_action_without_a_permit_in_time_was_certainly_not_sent() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[]).in_flight_max(1).attempts(1)).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("one", "pay-1").await;
    quiet().await;
    let saga = node.run("one", "pay-2").await;
    assert_eq!(saga.state, SagaState::RolledBack);
    assert_eq!(world.bank.calls(), ["a action #1"], "not called, so not undone");
    assert!(world.told("pay-2").contains("(no permit)"), "{}", world.told("pay-2"));
}

#[tokio::test(start_paused = true)]
async fn the_time_at_the_gate_is_part_of_the_calls_timeout() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[]).in_flight_max(1)).await;
    world.bank.action("a", |_| after(ms(1_500), Reply::Ok));
    for saga in ["pay-1", "pay-2"] {
        node.start("one", saga).await;
    }
    world.ends("pay-2", SagaState::Succeeded).await;
    let timeouts: Vec<Duration> = world.bank.seen().iter().map(|call| call.timeout).collect();
    assert_eq!(timeouts[0], ms(2_000));
    assert!(timeouts[1] <= ms(501), "{timeouts:?}");
}

#[tokio::test(start_paused = true)]
async fn one_probe_decides_whether_the_breaker_closes() {
    let world = World::new();
    let node = world.node_with(quick_breaker).await;
    node.register(&Plan::new("one").step("a", &[]).attempts(1)).await;
    world.bank.action("a", |_| says(Code::Unavailable));
    world.bank.undo("a", |_| says(Code::Unavailable));
    for n in 0..6 {
        node.start("one", &format!("pay-{n}")).await;
    }
    quiet().await;
    let before = world.bank.calls().len();
    tokio::time::sleep(ms(16_000)).await;
    let probes = world.bank.seen().split_off(before);
    assert!((2..=4).contains(&probes.len()), "one probe each 5 s, not one for each saga: {}", probes.len());
    assert!(probes.iter().all(|probe| probe.phase == Phase::Compensation));
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_a_permit_while_the_breaker_opened_does_not_go_out() {
    let world = World::new();
    let node = world.node_with(|settings| settings.breaker.calls_min = 1).await;
    node.register(&Plan::new("one").step("a", &[]).in_flight_max(1).attempts(1)).await;
    world.bank.action("a", |_| Reply::Held);
    for saga in ["pay-1", "pay-2", "pay-3"] {
        node.start("one", saga).await;
    }
    quiet().await;
    world.bank.action("a", |_| Reply::Ok);
    world.bank.let_go("a", says(Code::Unavailable));
    quiet().await;
    for saga in ["pay-2", "pay-3"] {
        assert_eq!(world.bank.calls_of(saga), Vec::<String>::new());
        assert_eq!(world.state(saga), Some(SagaState::RolledBack));
        assert!(world.told(saga).contains("(breaker open)"), "{}", world.told(saga));
    }
    world.ends("pay-1", SagaState::RolledBack).await;
    // Their permits came back, and the breaker is closed again.
    assert_eq!(node.run("one", "pay-4").await.state, SagaState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn nor_does_what_is_tried_until_it_succeeds_before_a_probe_has_closed_it() {
    let world = World::new();
    let node = world.node_with(|settings| settings.breaker.calls_min = 1).await;
    node.register(&Plan::new("two").pivot("p", &[]).retriable("r", &["p"]).in_flight_max(1).dedup()).await;
    world.bank.action("r", |_| Reply::Held);
    for saga in ["pay-1", "pay-2", "pay-3"] {
        node.start("two", saga).await;
        quiet().await;
    }
    let (opened, participant) = (tokio::time::Instant::now(), ParticipantName::parse("r").unwrap());
    world.bank.let_go("r", says(Code::Unavailable));
    tokio::time::sleep(ms(4_000)).await;
    assert!(node.coordinator.load_of(&participant).breaker_open);
    assert_eq!(world.bank.out(), Vec::<String>::new(), "they wait");
    assert_eq!(node.coordinator.load_of(&participant).in_flight, 0, "and hold no permit meanwhile");
    until("the probe is out", || world.bank.out().len() == 1).await;
    assert!(opened.elapsed() >= ms(5_000), "{:?}", opened.elapsed());
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(world.bank.out().len(), 1, "it alone");
    world.bank.action("r", |_| Reply::Ok);
    world.bank.let_go("r", Reply::Ok);
    for saga in ["pay-1", "pay-2", "pay-3"] {
        world.ends(saga, SagaState::Succeeded).await;
    }
}

/// A clock that stands until it is moved.
struct Standing(AtomicI64);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_probe_itself_makes_room_for_another_when_it_is_given_up() {
    let clock = Arc::new(Standing(AtomicI64::new(0)));
    let policy = BreakerPolicy { calls_min: 1, ..BreakerPolicy::default() };
    let gate = Gates::new(Arc::clone(&clock) as _, policy, 8).of(&ParticipantName::parse("a").unwrap());
    let enter = || gate.enter(Manner::Prompt, false, ms(1_000), None);
    let old = enter().await.ok().unwrap();
    enter().await.ok().unwrap().report(true);
    assert_eq!(enter().await.err(), Some(Barred::NotSent(NotSent::BreakerOpen)));
    clock.0.fetch_add(6_000_000, Ordering::Relaxed);
    let probe = enter().await.ok().unwrap();
    drop(old);
    assert_eq!(enter().await.err(), Some(Barred::NotSent(NotSent::BreakerOpen)), "one is under way");
    drop(probe);
    enter().await.ok().unwrap().report(false);
    assert!(!gate.is_open());
    assert_eq!(gate.in_flight(), 0);
}
