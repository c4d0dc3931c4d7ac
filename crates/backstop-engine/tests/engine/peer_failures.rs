//! How others lost money, told of this engine: failures of other orchestrators, by their rows in
//! `docs/peer-failures.md`. Rows that another story tells anyway are there, under their numbers.

use crate::common::bank::{Reply, after, says};
use crate::common::plan::Plan;
use crate::common::{Node, World, id, ms, quiet, request, until};
use backstop_core::{Code, EventKind, Input, SagaState, StepName};
use backstop_engine::{Reach, StartSaga};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::task::Poll;

fn line() -> Plan {
    Plan::new("line").step("a", &[]).step("b", &["a"])
}

#[tokio::test(start_paused = true)]
async fn peer_02_a_running_saga_started_again_with_whatever_input_is_not_called_a_second_time() {
    let world = World::new();
    let nodes = [world.node_for(&line()).await, world.node_for(&line()).await];
    world.bank.action("a", |_| Reply::Held);
    nodes[0].start("line", "pay-7").await;
    quiet().await;
    for node in &nodes {
        assert!(!node.start("line", "pay-7").await.created);
        let input = Bytes::from_static(b"{\"amount\":\"2\"}");
        let other = StartSaga { input, fingerprint: [8; 32], ..request("line", "pay-7") };
        node.coordinator.start_saga(other).await.unwrap_err();
        quiet().await;
        assert_eq!(world.bank.calls(), ["a action #1"], "nothing beside the first");
    }
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::Succeeded).await;
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1"]);
}

#[tokio::test(start_paused = true)]
async fn peer_06_the_number_of_open_interventions_outlives_coordinators() {
    let world = World::new();
    let plan = Plan::new("two").step("a", &[]).refusals(1).step("b", &[]).refusals(1).step("c", &["a", "b"]);
    let node = world.node_for(&plan).await;
    world.bank.action("c", |_| says(Code::FailedPrecondition));
    world.bank.undo("a", |_| says(Code::FailedPrecondition));
    world.bank.undo("b", |_| says(Code::FailedPrecondition));
    for n in 0..3 {
        assert_eq!(node.run("two", &format!("pay-{n}")).await.state, SagaState::NeedsIntervention);
    }
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(node.coordinator.interventions(), 3, "sagas, not branches");
    let beside = world.node().await;
    node.crash();
    let next = world.node().await;
    tokio::time::sleep(ms(1_000)).await;
    for node in [&beside, &next] {
        assert_eq!(node.coordinator.interventions(), 3, "whoever starts later knows of them");
    }
    world.bank.undo("a", |_| Reply::Ok);
    world.bank.undo("b", |_| Reply::Ok);
    for step in ["a", "b"] {
        let step = StepName::parse(step).unwrap();
        let retry = Input::RetryBranch { step, by: "ben".to_owned(), reason: "mended".to_owned() };
        next.coordinator.command(&id("pay-1"), retry, Reach::Anywhere).await.unwrap();
    }
    world.ends("pay-1", SagaState::RolledBack).await;
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(next.coordinator.interventions(), 2, "and it is counted down where it was answered");
    tokio::time::sleep(ms(20_000)).await;
    assert_eq!(beside.coordinator.interventions(), 2, "and elsewhere in its turn");
}

#[tokio::test(start_paused = true)]
async fn peer_08_recovery_of_forty_sagas_of_a_hanging_participant_keeps_nobody_else_waiting() {
    let world = World::new();
    let dead = Plan::new("dead").step("d", &[]).dedup();
    let well = Plan::new("well").step("w", &[]).dedup();
    let node = world.node_for(&dead).await;
    node.register(&well).await;
    world.bank.action("d", |_| Reply::Held);
    world.bank.action("w", |_| Reply::Held);
    for n in 0..40 {
        node.start("dead", &format!("dead-{n}")).await;
    }
    for n in 0..40 {
        node.start("well", &format!("well-{n}")).await;
    }
    quiet().await;
    node.crash();
    world.bank.action("w", |_| Reply::Ok);
    let _next = world.node_with(|settings| settings.takeover_batch_max = 10).await;
    until("all are taken over", || (0..40).all(|n| world.epoch(&format!("dead-{n}")) == 2)).await;
    tokio::time::sleep(ms(1_000)).await;
    for n in 0..40 {
        assert_eq!(world.state(&format!("well-{n}")), Some(SagaState::Succeeded), "well-{n}");
        assert_eq!(world.state(&format!("dead-{n}")), Some(SagaState::Running), "dead-{n} hangs");
    }
    // The oldest calls are the dead coordinator's: nobody hears their answers.
    for _ in 0..80 {
        world.bank.let_go("d", Reply::Ok);
    }
    for n in 0..40 {
        world.ends(&format!("dead-{n}"), SagaState::Succeeded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn peer_20_a_saga_of_many_leases_is_driven_by_one_coordinator_beside_others() {
    let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    let long = names.iter().enumerate().fold(Plan::new("long"), |plan, (n, name)| match n {
        0 => plan.step(name, &[]),
        _ => plan.step(name, &[&names[n - 1]]),
    });
    let world = World::new();
    let node = world.node_for(&long).await;
    let _others = [world.node().await, world.node().await];
    for name in &names {
        world.bank.action(name, |_| after(ms(1_500), Reply::Ok));
    }
    let began = tokio::time::Instant::now();
    assert_eq!(node.run("long", "pay-7").await.state, SagaState::Succeeded);
    assert!(began.elapsed() > 2 * backstop_engine::Settings::default().lease_ttl, "longer than two leases");
    assert_eq!(world.epoch("pay-7"), 1);
    let calls: Vec<String> = names.iter().map(|name| format!("{name} action #1")).collect();
    assert_eq!(world.bank.calls(), calls);
    assert!(world.bank.seen().iter().all(|call| call.process == 1));
}

#[tokio::test(start_paused = true)]
async fn peer_24_ids_that_several_coordinators_make_at_once_are_all_different() {
    const EACH: usize = 250;
    let world = World::new();
    let plan = Plan::new("one").step("a", &[]);
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(world.node_for(&plan).await);
    }
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..EACH {
        for node in &nodes {
            let coordinator = node.coordinator.clone();
            // Time stands still meanwhile: the clock's part of every id is the same.
            let request = StartSaga { id: None, ..request("one", "none") };
            starts.spawn(async move { coordinator.start_saga(request).await.unwrap() });
        }
    }
    let started = starts.join_all().await;
    assert!(started.iter().all(|started| started.created));
    let ids: BTreeSet<String> = started.iter().map(|started| started.saga.id.to_string()).collect();
    assert_eq!(ids.len(), 4 * EACH);
    for id in &ids {
        assert_eq!((id.len(), &id[14..15]), (36, "7"), "{id} is a UUIDv7");
    }
    let rows = nodes[0].coordinator.coordinators().await.unwrap();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.coordinator.as_str()).collect();
    assert_eq!(names.len(), 4, "and so are their own: {names:?}");
    for id in &ids {
        world.ends(id, SagaState::Succeeded).await;
        assert_eq!(world.bank.calls_of(id), ["a action #1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_26_a_step_has_the_time_that_it_says_and_a_doubt_is_not_repeated_for_ever() {
    let world = World::new();
    let mut patient = Plan::new("patient").step("p", &[]);
    patient.spec.steps[0].action.timeout = ms(120_000);
    let node = world.node_for(&patient).await;
    world.bank.action("p", |_| after(ms(90_000), Reply::Ok));
    assert_eq!(node.run("patient", "slow").await.state, SagaState::Succeeded);
    assert_eq!(world.bank.calls_of("slow"), ["p action #1"], "it needs a minute and a half, and has it");

    // One that never answers in time: sent again only where that is safe, and only so often.
    node.register(&Plan::new("hangs").step("h", &[]).attempts(4).dedup()).await;
    node.register(&Plan::new("once").step("o", &[]).attempts(4)).await;
    world.bank.action("h", |_| Reply::Hang);
    world.bank.action("o", |_| Reply::Hang);
    assert_eq!(node.run("hangs", "bounded").await.state, SagaState::RolledBack);
    let attempts = (1..=4).map(|n| format!("h action #{n}"));
    let undone = std::iter::once("h compensation #1".to_owned());
    assert_eq!(world.bank.calls_of("bounded"), attempts.chain(undone).collect::<Vec<_>>());
    assert_eq!(node.run("once", "single").await.state, SagaState::RolledBack);
    assert_eq!(world.bank.calls_of("single"), ["o action #1", "o compensation #1"]);
}

#[tokio::test(start_paused = true)]
async fn peer_35_coordinators_come_and_go_in_any_number_and_every_saga_ends() {
    let world = World::new();
    let plan = line().dedup();
    let mut nodes = vec![world.node_for(&plan).await];
    world.bank.action("a", |_| after(ms(700), Reply::Ok));
    world.bank.action("b", |_| after(ms(700), Reply::Ok));
    let mut sagas = Vec::new();
    // What is there at each time: 1, 2, 5, 3 and 1 coordinators, never the same beside each other for long.
    for count in [1, 2, 5, 3, 1] {
        while nodes.len() < count {
            nodes.push(world.node_for(&plan).await);
        }
        for node in &nodes {
            for _ in 0..10 {
                let saga = format!("pay-{}", sagas.len());
                node.start("line", &saga).await;
                sagas.push(saga);
            }
        }
        while nodes.len() > count.min(2) {
            nodes.remove(0).crash();
        }
        tokio::time::sleep(ms(300)).await;
    }
    let last: Node = nodes.pop().unwrap();
    nodes.iter().for_each(Node::crash);
    let taken_over = || sagas.iter().filter(|saga| world.epoch(saga) > 1).count();
    for saga in &sagas {
        until("it has ended", || world.state(saga).is_some_and(SagaState::is_final)).await;
    }
    assert!(taken_over() > sagas.len() / 2, "most have changed hands: {} of {}", taken_over(), sagas.len());
    drop(last);
}

#[tokio::test(start_paused = true)]
async fn peer_37_a_lease_left_over_runs_out_by_itself_and_takeover_needs_nobody() {
    let world = World::new();
    let node = world.node_for(&line().dedup()).await;
    world.bank.action("b", |_| Reply::Held);
    for n in 0..5 {
        node.start("line", &format!("pay-{n}")).await;
    }
    quiet().await;
    let left_over = world.owner("pay-0").unwrap();
    // Gone without a word: its lease, and its name in every head row, stay where they are.
    node.crash();
    world.bank.action("b", |_| Reply::Ok);
    let next = world.node().await;
    assert_eq!(world.owner("pay-0").as_ref(), Some(&left_over));
    for n in 0..5 {
        world.ends(&format!("pay-{n}"), SagaState::Succeeded).await;
        assert_eq!(world.owner(&format!("pay-{n}")), None);
    }
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn peer_38_heartbeats_cost_one_row_a_coordinator_however_many_sagas_there_are() {
    let world = World::new();
    let node = world.node_for(&Plan::new("line").step("a", &[]).in_flight_max(1_000)).await;
    world.bank.action("a", |_| Reply::Held);
    for n in 0..1_000 {
        node.start("line", &format!("pay-{n}")).await;
    }
    quiet().await;
    let (appends, renewals) = (world.disk.tries().len(), world.disk.renewals());
    tokio::time::sleep(ms(60_000)).await;
    assert_eq!(world.disk.tries().len(), appends, "no saga is written to for being alive");
    let renewals = world.disk.renewals() - renewals;
    assert!((50..=70).contains(&renewals), "one renewal a second, not one a saga: {renewals}");
    assert_eq!(world.disk.coordinators(), 1);
    for _ in 0..1_000 {
        world.bank.let_go("a", Reply::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_40_a_coordinator_that_starts_beside_a_live_one_runs_none_of_its_sagas_again() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    for n in 0..20 {
        node.start("line", &format!("pay-{n}")).await;
    }
    quiet().await;
    for _ in 0..3 {
        let _beside = world.node().await;
        tokio::time::sleep(ms(20_000)).await;
    }
    assert_eq!(world.bank.calls().len(), 20, "each is called once");
    assert!((0..20).all(|n| world.epoch(&format!("pay-{n}")) == 1));
    for _ in 0..20 {
        world.bank.let_go("a", Reply::Ok);
    }
}

/// Lets StartSaga come `polls` steps far on a coordinator that is then gone. True if it was answered by then.
async fn start_and_crash(node: &Node, polls: usize) -> bool {
    let mut starting = Box::pin(node.coordinator.start_saga(request("one", "pay-7")));
    for _ in 0..polls {
        let answered = std::future::poll_fn(|context| {
            Poll::Ready(match starting.as_mut().poll(context) {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => None,
            })
        });
        if answered.await.is_some_and(|answer| answer.unwrap().created) {
            node.crash();
            return true;
        }
        tokio::task::yield_now().await;
    }
    node.crash();
    false
}

#[tokio::test(start_paused = true)]
async fn peer_44_one_create_call_across_a_crash_at_any_point_of_it_makes_one_saga() {
    let plan = Plan::new("one").step("a", &[]).dedup();
    let (mut polls, mut created_by_the_second) = (0, BTreeSet::new());
    loop {
        let world = World::new();
        let first = world.node_for(&plan).await;
        let done = start_and_crash(&first, polls).await;
        let second = world.node_for(&plan).await;
        // The caller has heard nothing, and asks again, of whoever leads now.
        let again = second.start("one", "pay-7").await;
        created_by_the_second.insert(again.created);
        assert!(!(done && again.created), "an acknowledged start is there");
        world.ends("pay-7", SagaState::Succeeded).await;
        let journal = world.disk.journal(&id("pay-7")).unwrap();
        let starts = journal.events.iter().filter(|event| matches!(event.kind, EventKind::Started(_)));
        assert_eq!(starts.count(), 1, "after {polls} polls");
        let keys: BTreeSet<String> = world.bank.seen().into_iter().map(|call| call.key).collect();
        assert_eq!(keys.len(), 1, "after {polls} polls: {keys:?}");
        if done {
            break;
        }
        polls += 1;
    }
    assert!(polls > 2, "the first was gone at no point at all");
    assert_eq!(created_by_the_second, BTreeSet::from([false, true]), "before and after it was on disk");
}

#[tokio::test(start_paused = true)]
async fn peer_46_255_concurrent_branches_and_their_join_run_to_either_end() {
    let names: Vec<String> = (0..255).map(|n| format!("s{n}")).collect();
    let fan = names.iter().fold(Plan::new("fan"), |plan, name| plan.step(name, &[]));
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let fan = fan.step("join", &all);
    let world = World::new();
    let node = world.node_for(&fan).await;
    names.iter().for_each(|name| world.bank.action(name, |_| Reply::Held));
    let started = node.start("fan", "good").await;
    until("all branches are out", || world.bank.out().len() == 255).await;
    names.iter().for_each(|name| world.bank.let_go(name, Reply::Ok));
    let saga = node.coordinator.wait(started, ms(60_000)).await.unwrap();
    assert_eq!(saga.state, SagaState::Succeeded);
    assert_eq!(world.bank.calls_of("good").len(), 256);
    names.iter().for_each(|name| world.bank.action(name, |_| Reply::Ok));
    world.bank.action("join", |_| says(Code::FailedPrecondition));
    assert_eq!(node.run("fan", "bad").await.state, SagaState::RolledBack);
    assert_eq!(world.bank.calls_of("bad").len(), 256 + 255);
}
