//! The journal's writer and what a saga does when writing fails.

use crate::common::bank::{Reply, after, says};
use crate::common::disk::{Disk, DiskOf, Fault};
use crate::common::plan::Plan;
use crate::common::process::Process;
use crate::common::{World, id, ms, quiet, request, until};
use backstop_core::{Code, OnFailure, SagaState, Seq};
use backstop_engine::group_commit::{GroupCommit, Limits, Settled};
use backstop_engine::metrics::Metrics;
use backstop_engine::ports::machine::ThisMachine;
use backstop_engine::ports::store::{Append, StoreError};
use backstop_engine::store_contract::sample::{LONG_AGO, Sample, definition};
use backstop_engine::{EngineError, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn line() -> Plan {
    Plan::new("line").step("a", &[]).step("b", &["a"])
}

const LINE_TOLD: &str = "
    0001 saga     started        line@1
    0002 a        succeeded      #1
    0003 b        succeeded      #1
    0004 saga     succeeded
    ";

#[tokio::test(start_paused = true)]
async fn peer_09_a_lost_append_drops_the_saga_before_any_further_call() {
    let world = World::new();
    let node = world.node_with(|settings| settings.live_sagas_max = 1).await;
    node.register(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    let started = node.start("line", "pay-7").await;
    quiet().await;
    world.disk.steal_at_next_append("pay-7");
    world.bank.let_go("a", Reply::Ok);
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(world.bank.calls(), ["a action #1"], "the loser does not go on with b");
    assert_eq!(world.owner("pay-7").as_deref(), Some("thief"));
    let saga = node.coordinator.wait(started, ms(1_000)).await.unwrap();
    assert_eq!(
        (saga.state, saga.epoch.0),
        (SagaState::Running, 2),
        "wait tells of the saga as it is on disk"
    );
    world.bank.action("a", |_| Reply::Ok);
    node.run("line", "pay-8").await;
}

#[tokio::test(start_paused = true)]
async fn peer_09_after_a_lost_append_a_call_that_waits_for_its_connection_does_not_go_out_either() {
    for on_failure in [OnFailure::Drain, OnFailure::Cancel] {
        let world = World::new();
        let plan = Plan::new("two").step("a", &[]).step("b", &[]).on_failure(on_failure);
        let node = world.node_for(&plan).await;
        world.bank.connects_in("a", ms(300));
        world.bank.action("b", |_| after(ms(100), says(Code::FailedPrecondition)));
        node.start("two", "pay-7").await;
        world.disk.steal_at_next_append("pay-7");
        tokio::time::sleep(ms(5_000)).await;
        assert_eq!(world.owner("pay-7").as_deref(), Some("thief"));
        assert_eq!(world.bank.calls(), ["b action #1"], "{on_failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_fate_is_settled_by_writing_it_again() {
    for fault in [Fault::Refuse, Fault::ApplyAndForget, Fault::Forget, Fault::Panic, Fault::ApplyAndPanic] {
        for times in 1..4 {
            let world = World::new();
            let node = world.node_for(&line()).await;
            world.disk.fail_next([fault].repeat(times));
            let started = node.start("line", "pay-7").await;
            assert!(started.created, "{fault:?}: it was this call that started it");
            world.disk.fail_next([fault].repeat(times));
            world.ends("pay-7", SagaState::Succeeded).await;
            world.tells("pay-7", LINE_TOLD);
            assert_eq!(world.bank.calls(), ["a action #1", "b action #1"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn peer_09_a_commit_of_unknown_fate_that_another_has_built_upon_is_not_acted_upon() {
    // The start of the saga; then the success of a.
    for appends_before in [0, 1] {
        let world = World::new();
        let node = world.node_for(&line()).await;
        world.bank.action("a", |_| Reply::Held);
        if appends_before == 0 {
            world.disk.fail_next([Fault::ApplyAndForget]);
            world.disk.steal_at_next_append("pay-7");
        }
        let started = node.start("line", "pay-7").await;
        assert!(started.created, "it is on disk, whoever drives it");
        quiet().await;
        if appends_before == 1 {
            world.disk.fail_next([Fault::ApplyAndForget]);
            world.bank.let_go("a", Reply::Ok);
            world.disk.steal_at_next_but_one_append("pay-7");
        }
        tokio::time::sleep(ms(20_000)).await;
        assert_eq!(world.owner("pay-7").as_deref(), Some("thief"));
        assert_eq!(world.bank.calls().len(), appends_before, "{:?}", world.bank.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_of_the_store_loses_nothing_and_repeats_nothing() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    world.disk.down(true);
    world.bank.let_go("a", Reply::Ok);
    tokio::time::sleep(ms(2_000)).await;
    world.disk.down(false);
    world.ends("pay-7", SagaState::Succeeded).await;
    world.tells("pay-7", LINE_TOLD);
    assert_eq!(world.bank.calls(), ["a action #1", "b action #1"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_lease_loses_nothing_either() {
    for outage in [6_000, 60_000, 1_000_000] {
        let world = World::new();
        let node = world.node_for(&line().dedup()).await;
        world.bank.action("a", |_| Reply::Held);
        world.bank.action("b", |_| Reply::Held);
        for saga in ["pay-1", "pay-2"] {
            node.start("line", saga).await;
        }
        quiet().await;
        world.bank.let_go("a", Reply::Ok);
        quiet().await;
        assert_eq!(world.bank.calls_of("pay-1"), ["a action #1", "b action #1"]);
        world.disk.down(true);
        // One answer comes in before the lease is over; the other call is still out when it is.
        world.bank.let_go("a", Reply::Ok);
        tokio::time::sleep(ms(outage)).await;
        assert_eq!(world.bank.calls_of("pay-2"), ["a action #1"]);
        world.disk.down(false);
        world.bank.action("a", |_| Reply::Ok);
        world.bank.action("b", |_| Reply::Ok);
        for saga in ["pay-1", "pay-2"] {
            // b deduplicates, so what is in doubt is sent again; a does not, so it may be undone.
            until("it is over", || world.state(saga).is_some_and(SagaState::is_final)).await;
            assert_eq!(world.epoch(saga), 2);
        }
        assert_eq!(world.state("pay-1"), Some(SagaState::Succeeded));
        assert_eq!(world.bank.calls_of("pay-1"), ["a action #1", "b action #1", "b action #2"]);
        // The success that was waiting for the disk was not forgotten with the lease.
        assert_eq!(world.state("pay-2"), Some(SagaState::Succeeded), "{}", world.told("pay-2"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_the_store_cannot_swallow_does_not_hold_up_the_others() {
    for panics in [false, true] {
        let world = World::new();
        let node = world.node_for(&line()).await;
        world.disk.poison_panics(panics);
        world.disk.poison("bad", true);
        let coordinator = node.coordinator.clone();
        let bad = tokio::spawn(async move { coordinator.start_saga(request("line", "bad")).await });
        quiet().await;
        for n in 0..5 {
            node.run("line", &format!("good-{n}")).await;
        }
        assert_eq!(world.bank.calls_of("bad"), Vec::<String>::new());
        world.disk.poison("bad", false);
        assert!(bad.await.unwrap().unwrap().created);
        world.ends("bad", SagaState::Succeeded).await;
    }
}

fn writer(disk: &Arc<Disk>, batch_events_max: usize, batch_bytes_max: usize) -> GroupCommit {
    let store = DiskOf { disk: Arc::clone(disk), process: Process::new(1) };
    let limits = Limits { queue_max: 1_000, batch_events_max, batch_bytes_max };
    GroupCommit::spawn(&ThisMachine, Arc::new(store), limits, Metrics::default())
}

/// A saga of two steps, and the append that starts it.
fn sample(saga: &str, input: &[u8]) -> (Sample, Append) {
    Sample::start_with(
        saga,
        &definition("transfer", 2),
        LONG_AGO,
        BTreeMap::new(),
        bytes::Bytes::copy_from_slice(input),
    )
}

/// Three appends of one saga, one after the other: of 1, 1 and 2 events.
fn three_appends(saga: &str) -> Vec<Append> {
    let (mut sample, first) = sample(saga, b"");
    vec![first, sample.succeed(0, b"1"), sample.succeed(1, b"2")]
}

#[tokio::test(start_paused = true)]
async fn a_batch_holds_one_append_of_a_saga_is_bounded_and_keeps_the_order() {
    let disk = Disk::new();
    let journal = writer(&disk, 3, usize::MAX);
    disk.block();
    let mut appends = tokio::task::JoinSet::new();
    let mut sagas: Vec<_> = (0..6).map(|n| three_appends(&format!("pay-{n}")).into_iter()).collect();
    for n in [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0, 0, 1, 2, 3, 4, 5] {
        let (journal, append) = (journal.clone(), sagas[n].next().unwrap());
        appends.spawn(async move { journal.append(append, false).await.unwrap() });
        // Each is in the queue before the next.
        quiet().await;
    }
    disk.unblock();
    let answers = appends.join_all().await;
    assert!(answers.iter().all(|answer| *answer == Settled::Written), "{answers:?}");
    let tries = disk.tries();
    for batch in &tries {
        let sagas: BTreeSet<_> = batch.iter().map(|(saga, _)| saga).collect();
        assert_eq!(sagas.len(), batch.len(), "one append of a saga in a batch: {batch:?}");
        let events: usize = batch.iter().map(|(_, events)| events).sum();
        assert!(events <= 3, "{events} events in one batch: {batch:?}");
    }
    assert!(tries.iter().any(|batch| batch.len() > 1), "they do share their writes: {tries:?}");
    for n in 0..6 {
        let seqs: Vec<u64> =
            disk.journal(&id(&format!("pay-{n}"))).unwrap().events.iter().map(|event| event.seq.0).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_bigger_than_a_batch_goes_in_alone() {
    for (events, bytes) in [(1, usize::MAX), (usize::MAX, 1)] {
        let disk = Disk::new();
        let journal = writer(&disk, events, bytes);
        let mut answers = Vec::new();
        for append in three_appends("pay-7") {
            answers.push(journal.append(append, false).await.unwrap());
        }
        assert_eq!(answers, [Settled::Written; 3]);
        assert_eq!(disk.journal(&id("pay-7")).unwrap().head.seq, Seq(4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_in_bytes() {
    let disk = Disk::new();
    let journal = writer(&disk, 1_000, 2_500);
    disk.block();
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..10 {
        let saga = format!("pay-{n}");
        let (_, first) = sample(&saga, &[b'x'; 1_000]);
        let journal = journal.clone();
        appends.spawn(async move { journal.append(first, false).await.unwrap() });
        quiet().await;
    }
    disk.unblock();
    assert!(appends.join_all().await.iter().all(|answer| *answer == Settled::Written));
    let sizes: Vec<usize> = disk.tries().iter().map(Vec::len).collect();
    assert!(sizes.iter().all(|size| *size <= 2) && sizes.contains(&2), "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn starts_are_refused_while_the_journals_queue_is_full() {
    let world = World::new();
    let change = |settings: &mut Settings| {
        settings.journal_queue_max = 4;
        settings.batch_events_max = 1;
    };
    let node = world.node_with(change).await;
    node.register(&line()).await;
    world.disk.block();
    let mut starts = Vec::new();
    for n in 0..10 {
        let coordinator = node.coordinator.clone();
        starts.push(tokio::spawn(async move {
            coordinator.start_saga(request("line", &format!("pay-{n}"))).await
        }));
        quiet().await;
    }
    let refused = starts.iter().filter(|start| start.is_finished()).count();
    assert!(refused >= 3, "only {refused} were refused: the queue has no bound");
    world.disk.unblock();
    let mut accepted = 0;
    for start in starts {
        match start.await.unwrap() {
            Ok(started) => accepted += usize::from(started.created),
            Err(error) => assert!(
                matches!(error, EngineError::Busy { retry_after, .. } if retry_after > ms(0)),
                "{error:?}"
            ),
        }
    }
    assert_eq!(accepted + refused, 10);
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(world.bank.calls().len(), 2 * accepted, "those that were refused never ran");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slow_disk_is_bounded() {
    let world = World::new();
    let change = |settings: &mut Settings| {
        settings.journal_queue_max = 4;
        settings.batch_events_max = 2;
    };
    let node = world.node_with(change).await;
    node.register(&line()).await;
    world.disk.slow(ms(1_000));
    let mut starts = Vec::new();
    for n in 0..1_000 {
        let coordinator = node.coordinator.clone();
        starts.push(tokio::spawn(async move {
            coordinator.start_saga(request("line", &format!("pay-{n}"))).await
        }));
        tokio::time::sleep(ms(10)).await;
    }
    let waiting = starts.iter().filter(|start| !start.is_finished()).count();
    // A batch at the disk, one gathered behind it, and the queue.
    assert!(waiting <= 2 + 2 + 4, "{waiting} starts wait for the disk");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_writer_leaves_a_fate_open_and_it_goes_on_with_the_queue() {
    let disk = Disk::new();
    let journal = writer(&disk, 100, usize::MAX);
    disk.block();
    // It is written, nobody hears of it, and the look whether the store lives is one too many.
    disk.fail_next([Fault::ApplyAndForget]);
    disk.panic_when_asked_for_the_time();
    let first = three_appends("pay-1").remove(0);
    let hand_in = |append| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.append(append, false).await })
    };
    let in_hand = hand_in(first.clone());
    until("it is at the disk", || disk.tries().len() == 1).await;
    let in_the_queue = hand_in(three_appends("pay-2").remove(0));
    quiet().await;
    disk.unblock();
    let error = in_hand.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unknown(_)), "it is on disk: {error:?}");
    assert_eq!(in_the_queue.await.unwrap(), Ok(Settled::Written));
    assert_eq!(journal.append(first, true).await, Ok(Settled::Written), "the repetition settles it");
}
