//! A saga that waits for long waits in the store: it costs no memory, and comes back when its time has come.

use crate::common::bank::{End, Reply, after, says};
use crate::common::plan::Plan;
use crate::common::{World, id, ms, quiet, until};
use backstop_core::breaker::BreakerPolicy;
use backstop_core::{Code, Input, ParticipantName, SagaState, StepName};
use backstop_engine::Reach;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A saga whose next attempt is up to two minutes away.
fn slow() -> Plan {
    Plan::new("slow").step("a", &[]).waits(ms(120_000)).dedup()
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_leaves_memory_and_comes_back_in_time() {
    let world = World::new();
    let node = world.node_for(&slow()).await;
    world.bank.action("a", |call| if call.attempt == 1 { says(Code::Unavailable) } else { Reply::Ok });
    node.start("slow", "pay-7").await;
    until("it is parked", || world.owner("pay-7").is_none()).await;
    assert_eq!(node.coordinator.live_sagas(), 0);
    let journal = world.disk.journal(&id("pay-7")).unwrap();
    let due = journal.head.wake_at.expect("it has a time");
    assert!(due.since(journal.head.updated_at) > ms(10_000), "shorter waits stay in memory");
    world.ends("pay-7", SagaState::Succeeded).await;
    let late = world.disk.journal(&id("pay-7")).unwrap().head.updated_at.since(due);
    assert!(late < ms(300), "one look later at most: {late:?}");
    world.tells(
        "pay-7",
        "
        0001 saga     started        slow@1
        0002 a        will retry     #1  FIN-50302 UNAVAILABLE in doubt
        0003 saga     handed over
        0004 saga     taken over     epoch 2
        0005 a        succeeded      #2
        0006 saga     succeeded
        ",
    );
}

#[tokio::test(start_paused = true)]
async fn peer_34_a_parked_saga_comes_back_also_when_the_one_that_parked_it_is_dead() {
    let world = World::new();
    let node = world.node_for(&slow()).await;
    world.bank.action("a", |call| if call.attempt == 1 { says(Code::Unavailable) } else { Reply::Ok });
    node.start("slow", "pay-7").await;
    until("it is parked", || world.owner("pay-7").is_none()).await;
    node.crash();
    let _other = world.node().await;
    world.ends("pay-7", SagaState::Succeeded).await;
    assert_eq!(world.bank.calls(), ["a action #1", "a action #2"], "it knows that nothing was in flight");
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_stays_in_memory() {
    let world = World::new();
    let node = world.node_for(&Plan::new("quick").step("a", &[]).waits(ms(9_000)).dedup()).await;
    world.bank.action("a", |call| if call.attempt < 3 { says(Code::Unavailable) } else { Reply::Ok });
    assert_eq!(node.run("quick", "pay-7").await.state, SagaState::Succeeded);
    assert!(!world.told("pay-7").contains("handed over"), "{}", world.told("pay-7"));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_wakes_a_parked_saga_too() {
    let world = World::new();
    let node = world.node_for(&slow().deadline(ms(60_000))).await;
    // With this id the second attempt is due long after the deadline.
    world.bank.action("a", |_| says(Code::Unavailable));
    node.start("slow", "pay-1").await;
    until("it is parked", || world.owner("pay-1").is_none()).await;
    world.ends("pay-1", SagaState::RolledBack).await;
    assert!(world.told("pay-1").contains("deadline"), "{}", world.told("pay-1"));
}

#[tokio::test(start_paused = true)]
async fn undos_of_a_dead_participant_wait_in_the_store_and_do_not_fill_memory() {
    let world = World::new();
    let node = world
        .node_with(|settings| {
            settings.live_sagas_max = 30;
            settings.breaker = BreakerPolicy { calls_min: 4, ..BreakerPolicy::default() };
        })
        .await;
    node.register(&Plan::new("dead").step("d", &[]).step("x", &["d"])).await;
    node.register(&Plan::new("well").step("w", &[])).await;
    let mended = Arc::new(AtomicBool::new(false));
    let works = Arc::clone(&mended);
    world.bank.action("x", |_| says(Code::FailedPrecondition));
    world.bank.undo(
        "d",
        move |_| {
            if works.load(Ordering::Relaxed) { Reply::Ok } else { says(Code::Unavailable) }
        },
    );
    for n in 0..20 {
        node.start("dead", &format!("dead-{n}")).await;
    }
    let was_parked = |n| world.told(&format!("dead-{n}")).contains("handed over");
    while !(0..20).all(was_parked) {
        tokio::time::sleep(ms(500)).await;
    }
    // The longer it lasts, the rarer they come back in vain.
    let events = || -> usize {
        (0..20).map(|n| world.disk.journal(&id(&format!("dead-{n}"))).unwrap().events.len()).sum()
    };
    tokio::time::sleep(ms(900_000)).await;
    let first = events();
    tokio::time::sleep(ms(900_000)).await;
    let second = events() - first;
    assert!(
        second < first && second < 20 * 25,
        "{first} events in a quarter of an hour, {second} in the next"
    );
    // Those whose turn it is to find out whether it is back are in memory for a moment, the rest are not.
    for _ in 0..50 {
        assert!(node.coordinator.live_sagas() <= 10, "{} of 20 are in memory", node.coordinator.live_sagas());
        tokio::time::sleep(ms(7_000)).await;
    }
    assert_eq!(node.run("well", "well-1").await.state, SagaState::Succeeded);
    mended.store(true, Ordering::Relaxed);
    for n in 0..20 {
        world.ends(&format!("dead-{n}"), SagaState::RolledBack).await;
    }
}

#[tokio::test(start_paused = true)]
async fn sagas_past_their_pivot_wait_for_a_dead_participant_in_the_store_and_leave_room_for_others() {
    let world = World::new();
    let settings = |settings: &mut backstop_engine::Settings| {
        settings.live_sagas_max = 4;
        settings.breaker = BreakerPolicy { calls_min: 4, ..BreakerPolicy::default() };
    };
    let node = world.node_with(settings).await;
    node.register(&Plan::new("dead").pivot("p", &[]).retriable("r", &["p"]).dedup()).await;
    node.register(&Plan::new("well").step("w", &[])).await;
    world.bank.action("r", |_| says(Code::Unavailable));
    for n in 0..4 {
        node.start("dead", &format!("dead-{n}")).await;
    }
    let has_begun = |n| world.bank.calls_of(&format!("dead-{n}")).len() > 1;
    until("they are past their pivots", || (0..4).all(has_begun)).await;
    // All of its room is theirs, and a saga of somebody who dies is to be taken over.
    let other = world.node_with(settings).await;
    world.bank.action("w", |_| Reply::Held);
    other.start("well", "well-1").await;
    quiet().await;
    world.bank.action("w", |_| Reply::Ok);
    other.crash();
    world.ends("well-1", SagaState::RolledBack).await;
    tokio::time::sleep(ms(600_000)).await;
    let events = world.disk.journal(&id("dead-0")).unwrap().events.len();
    assert!(events < 300, "{events} events in ten minutes: an open breaker is nothing to write down");
    world.bank.action("r", |_| Reply::Ok);
    for n in 0..4 {
        world.ends(&format!("dead-{n}"), SagaState::Succeeded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn undos_of_a_participant_that_stays_dead_wait_for_a_person_once_their_time_is_over() {
    let world = World::new();
    let node = world
        .node_with(|settings| settings.breaker = BreakerPolicy { calls_min: 4, ..BreakerPolicy::default() })
        .await;
    let limit = ms(300_000);
    node.register(&Plan::new("dead").step("d", &[]).gives_up_after(limit).step("x", &["d"])).await;
    world.bank.action("x", |_| says(Code::FailedPrecondition));
    world.bank.undo("d", |_| says(Code::Unavailable));
    for n in 0..20 {
        node.start("dead", &format!("dead-{n}")).await;
    }
    for n in 0..20 {
        world.ends(&format!("dead-{n}"), SagaState::NeedsIntervention).await;
        let journal = world.disk.journal(&id(&format!("dead-{n}"))).unwrap();
        let took = journal.head.updated_at.since(journal.events[0].at);
        assert!(took >= limit, "{took:?}: too early\n{}", world.told(&format!("dead-{n}")));
        assert!(took < limit + ms(10_000), "{took:?}: too late\n{}", world.told(&format!("dead-{n}")));
    }
    assert!(world.told("dead-0").contains("handed over"), "it did not wait in memory");
    // The participant is back: a person's word is enough.
    world.bank.undo("d", |_| Reply::Ok);
    let input = Input::RetryBranch {
        step: StepName::parse("d").unwrap(),
        by: "ben".to_owned(),
        reason: "it is back".to_owned(),
    };
    node.coordinator.command(&id("dead-3"), input, Reach::Anywhere).await.unwrap();
    world.ends("dead-3", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_does_not_use_up_the_attempts_of_its_sagas_nor_keep_out_what_is_new() {
    let world = World::new();
    let plan = Plan::new("one").step("a", &[]).in_flight_max(4).attempts(1).dedup();
    let node = world.node_for(&plan).await;
    world.bank.action("a", |_| Reply::Held);
    for n in 0..400 {
        node.start("one", &format!("old-{n}")).await;
    }
    quiet().await;
    node.crash();
    // Each call takes a second and four may be out: the last of the backlog waits for minutes.
    world.bank.action("a", |_| after(ms(1_000), Reply::Ok));
    let next = world.node().await;
    until("it is taken over", || world.epoch("old-0") == 2).await;
    for n in 0..20 {
        let began = tokio::time::Instant::now();
        assert_eq!(next.run("one", &format!("new-{n}")).await.state, SagaState::Succeeded);
        assert!(began.elapsed() <= ms(2_100), "new-{n} waited {:?}", began.elapsed());
    }
    for n in 0..400 {
        world.ends(&format!("old-{n}"), SagaState::Succeeded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn undos_of_a_backlog_do_not_keep_out_what_is_new_either() {
    let world = World::new();
    let plan = |permits| Plan::new("two").step("a", &[]).in_flight_max(permits).step("x", &["a"]);
    let node = world.node_for(&plan(0)).await;
    world.bank.action("x", |_| says(Code::FailedPrecondition));
    world.bank.undo("a", |_| Reply::Held);
    for n in 0..40 {
        node.start("two", &format!("old-{n}")).await;
    }
    until("all are to be undone", || {
        (0..40).all(|n| world.state(&format!("old-{n}")) == Some(SagaState::RollingBack))
    })
    .await;
    node.crash();
    world.bank.action("x", |_| Reply::Ok);
    world.bank.undo("a", |_| after(ms(1_000), Reply::Ok));
    let next = world.node_for(&plan(4)).await;
    until("all are taken over", || (0..40).all(|n| world.epoch(&format!("old-{n}")) == 2)).await;
    quiet().await;
    let undone_at_once =
        || world.bank.seen().iter().filter(|call| call.process == 2 && call.end == End::Out).count();
    assert_eq!(undone_at_once(), 2, "half of the permits");
    for n in 0..5 {
        let began = tokio::time::Instant::now();
        assert_eq!(next.run("two", &format!("new-{n}")).await.state, SagaState::Succeeded);
        assert!(began.elapsed() <= ms(100), "new-{n} waited {:?}", began.elapsed());
    }
    // None of them is given up: what found no permit in time waits in the store and comes back.
    for n in 0..40 {
        world.ends(&format!("old-{n}"), SagaState::RolledBack).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_all_kinds_of_calls_gets_through_one_permit_and_an_open_breaker() {
    let world = World::new();
    let plan = |permits| {
        let plan = Plan::new("three").step("a", &[]).at("p").pivot("b", &["a"]).at("p");
        plan.retriable("c", &["b"]).at("p").in_flight_max(permits).dedup()
    };
    let breaker = |settings: &mut backstop_engine::Settings| settings.breaker.calls_min = 4;
    let node = world.node_with(breaker).await;
    node.register(&plan(0)).await;
    let held_if = |held: bool| if held { Reply::Held } else { Reply::Ok };
    world.bank.action("a", move |call| held_if(call.saga.starts_with("first")));
    world.bank.action("b", |call| {
        if call.saga.starts_with("back") { says(Code::FailedPrecondition) } else { Reply::Ok }
    });
    world.bank.undo("a", |_| Reply::Held);
    world.bank.action("c", |_| Reply::Held);
    let sagas: Vec<String> = (0..12).map(|n| format!("{}-{n}", ["first", "back", "last"][n % 3])).collect();
    for saga in &sagas {
        node.start("three", saga).await;
    }
    quiet().await;
    assert_eq!(world.bank.out().len(), sagas.len(), "{:?}", world.bank.out());
    node.crash();
    let next = world.node_with(breaker).await;
    next.register(&plan(1)).await;
    for step in ["a", "b"] {
        world.bank.action(step, |_| after(ms(100), Reply::Ok));
    }
    world.bank.undo("a", |_| after(ms(100), Reply::Ok));
    // While it opens, others wait for the permit.
    world.bank.action("c", |_| after(ms(100), says(Code::Unavailable)));
    let participant = ParticipantName::parse("p").unwrap();
    until("the breaker is open", || next.coordinator.load_of(&participant).breaker_open).await;
    world.bank.action("c", |_| after(ms(100), Reply::Ok));
    for saga in &sagas {
        until("it is over", || world.state(saga).is_some_and(SagaState::is_final)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_at_one_participant_is_full_for_its_own_sagas_only() {
    let world = World::new();
    let node = world.node_with(|settings| settings.calls_waiting_max = 5).await;
    node.register(&Plan::new("dead").step("d", &[]).in_flight_max(1)).await;
    node.register(&Plan::new("well").step("w", &[])).await;
    world.bank.action("d", |_| Reply::Held);
    for n in 0..6 {
        node.start("dead", &format!("dead-{n}")).await;
        quiet().await;
    }
    let refused = node.coordinator.start_saga(crate::common::request("dead", "dead-6")).await.unwrap_err();
    assert!(
        matches!(refused, backstop_engine::EngineError::Busy { limit: "participants.calls_waiting_max", .. }),
        "{refused:?}"
    );
    assert!(!node.start("dead", "dead-3").await.created, "a repeated start finds its saga all the same");
    assert_eq!(node.run("well", "well-1").await.state, SagaState::Succeeded);
    for _ in 0..6 {
        quiet().await;
        world.bank.let_go("d", Reply::Ok);
    }
}
