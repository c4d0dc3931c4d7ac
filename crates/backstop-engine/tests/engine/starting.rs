//! StartSaga and waiting: what a caller hears, and what happens when nobody listens any more.

use crate::common::bank::{Reply, says};
use crate::common::plan::Plan;
use crate::common::{Node, World, id, ms, quiet, request, until};
use backstop_core::{Code, SagaState, Seq};
use backstop_engine::ports::store::StoreError;
use backstop_engine::{EngineError, StartSaga, StartedSaga};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::task::Poll;

fn one() -> Plan {
    Plan::new("one").step("a", &[])
}

/// Two coordinators, and saga `pay-7` with its call out at the first; what a start at the second finds.
async fn found_from_beside() -> (World, [Node; 2], StartedSaga) {
    let world = World::new();
    let (first, second) = (world.node_for(&one()).await, world.node_for(&one()).await);
    world.bank.action("a", |_| Reply::Held);
    first.start("one", "pay-7").await;
    quiet().await;
    let found = second.start("one", "pay-7").await;
    assert!(!found.created);
    (world, [first, second], found)
}

fn another_request(saga: &str) -> StartSaga {
    StartSaga { input: Bytes::from_static(b"{\"amount\":1}"), fingerprint: [8; 32], ..request("one", saga) }
}

#[tokio::test(start_paused = true)]
async fn sixteen_starts_at_once_with_one_id_make_one_saga() {
    let world = World::new();
    let node = world.node_for(&one()).await;
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let coordinator = node.coordinator.clone();
        starts.spawn(async move { coordinator.start_saga(request("one", "pay-7")).await.unwrap() });
    }
    let answers = starts.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
    world.ends("pay-7", SagaState::Succeeded).await;
    assert_eq!(world.bank.calls(), ["a action #1"]);
}

#[tokio::test(start_paused = true)]
async fn peer_44_sixteen_starts_at_once_on_two_coordinators_make_one_saga() {
    let world = World::new();
    let nodes = [world.node_for(&one()).await, world.node_for(&one()).await];
    let mut starts = tokio::task::JoinSet::new();
    for n in 0..16 {
        let coordinator = nodes[n % 2].coordinator.clone();
        starts.spawn(async move { coordinator.start_saga(request("one", "pay-7")).await.unwrap() });
    }
    let answers = starts.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
    world.ends("pay-7", SagaState::Succeeded).await;
    assert_eq!(world.bank.calls(), ["a action #1"]);
    for answer in answers {
        let saga = nodes[1].coordinator.wait(answer, ms(1_000)).await.unwrap();
        assert_eq!(saga.state, SagaState::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_start_waits_for_the_disk_that_the_first_one_waits_for() {
    let world = World::new();
    let node = world.node_for(&one()).await;
    world.disk.block();
    let starts = [(); 2].map(|()| {
        let coordinator = node.coordinator.clone();
        tokio::spawn(async move { coordinator.start_saga(request("one", "pay-7")).await })
    });
    tokio::time::sleep(ms(1_000)).await;
    assert!(starts.iter().all(|start| !start.is_finished()));
    world.disk.unblock();
    let [first, second] = starts;
    assert!(first.await.unwrap().unwrap().created);
    assert!(!second.await.unwrap().unwrap().created);
}

#[tokio::test(start_paused = true)]
async fn peer_23_another_request_with_the_same_id_is_told_what_differs_while_it_runs_and_after_its_end() {
    let world = World::new();
    let node = world.node_for(&one()).await;
    node.register(&Plan::new("two").step("a", &[]).step("b", &[])).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("one", "pay-7").await;
    quiet().await;
    let same = || StartSaga { fingerprint: [8; 32], ..request("one", "pay-7") };
    let labels = BTreeMap::from([("branch".to_owned(), "wien".to_owned())]);
    let others = [
        (another_request("pay-7"), "input"),
        (StartSaga { labels: labels.clone(), ..same() }, "labels"),
        (StartSaga { labels, ..another_request("pay-7") }, "labels, input"),
        (StartSaga { fingerprint: [8; 32], ..request("two", "pay-7") }, "definition"),
        (same(), "whether it names a revision or an input"),
    ];
    for _ in 0..2 {
        for (other, expected) in others.clone() {
            match node.coordinator.start_saga(other).await.unwrap_err() {
                EngineError::AlreadyExists { difference, .. } => assert_eq!(difference, expected),
                error => panic!("{error:?}"),
            }
        }
        if world.state("pay-7") == Some(SagaState::Running) {
            world.bank.let_go("a", Reply::Ok);
            world.ends("pay-7", SagaState::Succeeded).await;
        }
    }
    assert_eq!(world.bank.calls(), ["a action #1"]);
    // Once its journal is gone, only what the head row holds can be told apart.
    world.disk.plant("pay-7", |journal| {
        journal.events.clear();
        journal.head.retired = true;
    });
    let error = node.coordinator.start_saga(another_request("pay-7")).await.unwrap_err().to_string();
    assert!(error.ends_with("differs in input, payloads or whether it names a revision"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn peer_01_a_repeated_start_answers_the_live_outcome_whatever_it_is() {
    for (answer, end) in [
        (Reply::Ok, SagaState::Succeeded),
        (says(Code::FailedPrecondition), SagaState::RolledBack),
        (says(Code::Internal), SagaState::NeedsIntervention),
    ] {
        let world = World::new();
        let node = world.node_for(&Plan::new("one").step("a", &[]).refusals(1)).await;
        world.bank.action("a", |_| Reply::Held);
        world.bank.undo("a", |_| says(Code::FailedPrecondition));
        node.start("one", "pay-7").await;
        quiet().await;
        let again = node.start("one", "pay-7").await;
        assert_eq!((again.created, again.saga.state), (false, SagaState::Running));
        world.bank.let_go("a", answer);
        let saga = node.coordinator.wait(again, ms(60_000)).await.unwrap();
        assert_eq!(saga.state, end);
        let calls = world.bank.calls();
        let after_the_end = node.start("one", "pay-7").await;
        assert_eq!((after_the_end.created, after_the_end.saga.state), (false, end));
        assert_eq!(world.bank.calls(), calls, "nothing is called for asking");
    }
}

#[tokio::test(start_paused = true)]
async fn peer_10_ids_that_begin_alike_are_different_sagas() {
    let world = World::new();
    let node = world.node_for(&one()).await;
    for saga in ["pay-7", "pay-70", "pay-7/a", "pay-7/a/action"] {
        assert_eq!(node.run("one", saga).await.state, SagaState::Succeeded);
        assert_eq!(world.bank.calls_of(saga), ["a action #1"]);
    }
}

/// Lets StartSaga come `polls` steps far, then gives it up. True if it was done by then.
async fn start_and_give_up(node: &Node, saga: &str, polls: usize) -> bool {
    let mut starting = Box::pin(node.coordinator.start_saga(request("one", saga)));
    for _ in 0..polls {
        let done = std::future::poll_fn(|context| match starting.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(answer) = done.await {
            assert!(answer.unwrap().created);
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_at_any_point_neither_loses_a_saga_nor_leaks_its_place() {
    let mut ran = [false; 2];
    let mut polls = 0;
    loop {
        let world = World::new();
        let node = world.node_with(|settings| settings.live_sagas_max = 1).await;
        node.register(&one()).await;
        let done = start_and_give_up(&node, "pay-7", polls).await;
        tokio::time::sleep(ms(500)).await;
        match world.state("pay-7") {
            Some(state) => {
                ran[1] = true;
                assert_eq!(state, SagaState::Succeeded, "after {polls} polls");
            }
            None => ran[0] = true,
        }
        // The one place is free again, and the same request finds or makes the one saga.
        let again = node.start("one", "pay-7").await;
        node.coordinator.wait(again, ms(60_000)).await.unwrap();
        assert_eq!(world.bank.calls(), ["a action #1"], "after {polls} polls");
        quiet().await;
        assert_eq!(node.run("one", "pay-8").await.state, SagaState::Succeeded);
        if done {
            break;
        }
        polls += 1;
    }
    assert!(polls > 2, "it was given up at no point at all");
    assert_eq!(ran, [true; 2], "both before and after it was accepted");
}

#[tokio::test(start_paused = true)]
async fn past_live_sagas_max_a_start_is_told_when_to_come_back() {
    let world = World::new();
    let node = world.node_with(|settings| settings.live_sagas_max = 2).await;
    node.register(&one()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("one", "pay-1").await;
    node.start("one", "pay-2").await;
    quiet().await;
    let error = node.coordinator.start_saga(request("one", "pay-3")).await.unwrap_err();
    assert!(matches!(error, EngineError::Busy { retry_after, .. } if retry_after == ms(500)), "{error:?}");
    assert!(!node.start("one", "pay-1").await.created, "a repeat is answered also when there is no room");
    let error = node.coordinator.start_saga(another_request("pay-1")).await.unwrap_err();
    assert!(matches!(error, EngineError::AlreadyExists { .. }), "{error:?}");
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-1", SagaState::Succeeded).await;
    quiet().await;
    assert!(node.start("one", "pay-3").await.created, "its place came back");
}

#[tokio::test(start_paused = true)]
async fn peer_07_waiting_is_honest() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[]).refusals(1)).await;
    world.bank.action("a", |_| Reply::Held);
    world.bank.undo("a", |_| Reply::Held);
    let started = node.start("one", "pay-7").await;
    let saga = node.coordinator.wait(started.clone(), ms(700)).await.unwrap();
    assert_eq!(saga.state, SagaState::Running, "when the time is up");
    world.bank.let_go("a", says(Code::Internal));
    quiet().await;
    let saga = node.coordinator.wait(started.clone(), ms(700)).await.unwrap();
    assert_eq!(saga.state, SagaState::RollingBack, "when the time is up");
    world.bank.let_go("a", says(Code::FailedPrecondition));
    let saga = node.coordinator.wait(started.clone(), ms(60_000)).await.unwrap();
    assert_eq!(saga.state, SagaState::NeedsIntervention);
    // Nobody drives it now; the answer comes from the store, and at once.
    quiet().await;
    let before = tokio::time::Instant::now();
    let again = node.start("one", "pay-7").await;
    let saga = node.coordinator.wait(again, ms(60_000)).await.unwrap();
    assert_eq!(saga.state, SagaState::NeedsIntervention);
    assert_eq!(before.elapsed(), ms(0));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_saga_of_another_coordinator_hears_of_its_end() {
    let (world, [_first, second], found) = found_from_beside().await;
    let saga = second.coordinator.wait(found.clone(), ms(700)).await.unwrap();
    assert_eq!(saga.state, SagaState::Running);
    let coordinator = second.coordinator.clone();
    let waiting = tokio::spawn(async move { coordinator.wait(found, ms(60_000)).await });
    quiet().await;
    world.bank.let_go("a", Reply::Ok);
    assert_eq!(waiting.await.unwrap().unwrap().state, SagaState::Succeeded);
    assert_eq!(second.coordinator.get_saga(&id("pay-7")).await.unwrap().owner, None);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_repeated_while_the_clock_is_held_back_runs_nothing_twice() {
    let world = World::new();
    let node = world.node_for(&Plan::new("one").step("a", &[])).await;
    tokio::time::sleep(ms(3_500)).await;
    world.disk.set_back(ms(60_000));
    // The renewal of the lease brings the news, and from then on the coordinator's clock is held back.
    tokio::time::sleep(ms(510)).await;
    node.run("one", "pay-7").await;
    for _ in 0..5 {
        assert!(!node.start("one", "pay-7").await.created);
        quiet().await;
    }
    assert_eq!(world.bank.calls(), ["a action #1"]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_not_answered_with_another_requests_saga_that_is_not_on_disk() {
    let (world, [_first, second], early) = found_from_beside().await;
    // A request that will be refused, since the id is taken; so far it only waits for the disk.
    world.disk.block();
    let coordinator = second.coordinator.clone();
    let refused = tokio::spawn(async move { coordinator.start_saga(another_request("pay-7")).await });
    quiet().await;
    let late = second.start("one", "pay-7").await;
    for found in [early, late] {
        assert_eq!(found.saga.started.input, "{}");
        let saga = second.coordinator.wait(found, ms(700)).await.unwrap();
        assert_eq!(saga.started.input, "{}", "the input of another request");
        assert_eq!(saga.seq, Seq(1));
    }
    world.disk.unblock();
    let error = refused.await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::AlreadyExists { .. }), "{error:?}");
    // Nor is what happens to the saga elsewhere missed for it.
    world.bank.let_go("a", Reply::Ok);
    let again = second.start("one", "pay-7").await;
    let saga = second.coordinator.wait(again, ms(60_000)).await.unwrap();
    assert_eq!(saga.state, SagaState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_with_the_writer_when_the_lease_ends_is_not_answered_as_refused() {
    let world = World::new();
    let node = world.node_for(&one().dedup()).await;
    world.disk.block();
    let starts = [None, Some(id("pay-7"))].map(|id| {
        let coordinator = node.coordinator.clone();
        let request = StartSaga { id, ..request("one", "any") };
        tokio::spawn(async move { coordinator.start_saga(request).await })
    });
    quiet().await;
    world.disk.end_all_leases();
    for start in starts {
        let error = start.await.unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Store(StoreError::Unknown(_))), "{error:?}");
    }
    world.disk.unblock();
    until("both are there", || world.disk.written().iter().flatten().count() >= 2).await;
    for append in world.disk.written().iter().flatten() {
        world.ends(append.saga.as_str(), SagaState::Succeeded).await;
        assert_eq!(world.bank.calls_of(append.saga.as_str()), ["a action #2"]);
    }
    assert!(!node.start("one", "pay-7").await.created, "a repeated start finds it");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_start_finds_its_saga_though_the_newest_revision_wants_another_request() {
    let world = World::new();
    let node = world.node_for(&one()).await;
    assert!(node.start("one", "pay-7").await.created);
    // In the next revision a step's request is to come with the start.
    let mut next = one().step("b", &["a"]);
    next.spec.steps[1].action.request.clear();
    node.register(&next).await;
    let error = node.coordinator.start_saga(request("one", "pay-8")).await.unwrap_err();
    assert!(matches!(error, EngineError::Invalid(_)), "{error:?}");
    let again = node.start("one", "pay-7").await;
    assert!(!again.created);
    let error = node.coordinator.start_saga(another_request("pay-7")).await.unwrap_err();
    assert!(matches!(error, EngineError::AlreadyExists { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_hears_that_it_was_accepted_though_the_store_cannot_be_asked_how_it_stands() {
    let (world, [_first, second], found) = found_from_beside().await;
    world.disk.down(true);
    let saga = second.coordinator.wait(found, ms(700)).await.unwrap();
    assert_eq!(saga.state, SagaState::Running);
    world.disk.down(false);
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::Succeeded).await;
}
