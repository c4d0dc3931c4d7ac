//! What goes into a journal, and what does not.

use super::Bench;
use super::sample::{LONG_AGO, Sample, definition, id};
use crate::ports::store::{Append, Appended, Store, StoreError};
use backstop_core::{SagaId, Seq, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

const WRITERS: usize = 16;

/// Writes one append.
pub(super) async fn write(store: &dyn Store, append: &Append) -> Appended {
    let mut results = store.append(std::slice::from_ref(append)).await.unwrap();
    assert_eq!(results.len(), 1, "one answer for each append");
    results.remove(0)
}

/// Writes appends that must go in.
pub(super) async fn write_all(store: &dyn Store, appends: &[Append]) {
    for append in appends {
        assert_eq!(write(store, append).await, Appended::Written, "{append:?}");
    }
}

/// The saga's journal is these appends, whole, and its head the last one's.
pub(super) async fn assert_journal(store: &dyn Store, appends: &[&Append]) {
    let saga = &appends[0].saga;
    let journal = store.journal(saga).await.unwrap().expect("the saga is there");
    let events: Vec<_> = appends.iter().flat_map(|append| append.events.clone()).collect();
    assert_eq!(journal.events, events, "journal of {saga}");
    assert_eq!(journal.head, appends[appends.len() - 1].head, "head of {saga}");
}

fn wide(saga: &str) -> (Sample, Append) {
    Sample::start_with(saga, &definition("wide", 8), LONG_AGO, BTreeMap::new(), Bytes::from_static(b"{}"))
}

pub(super) async fn an_append_goes_in_only_as_the_next_seq(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, start) = wide("next");
    let first = saga.succeed(0, b"one");
    let second = saga.succeed(1, b"two");
    assert_eq!(write(store, &first).await, Appended::Lost, "before the saga is there");
    write_all(store, std::slice::from_ref(&start)).await;
    assert_eq!(write(store, &second).await, Appended::Lost, "with a gap before it");
    assert_journal(store, &[&start]).await;
    write_all(store, &[first.clone(), second.clone()]).await;
    assert_journal(store, &[&start, &first, &second]).await;
}

pub(super) async fn a_lost_append_leaves_nothing_behind_not_even_its_later_events(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut ours, start) = wide("late");
    let mut theirs = ours.clone();
    let winner = theirs.succeed(0, b"theirs");
    // Three events in one append: the later two have seqs that nobody has taken.
    let events = [ours.succeed(1, b"a"), ours.succeed(2, b"b"), ours.succeed(3, b"c")];
    let loser = Append {
        saga: start.saga.clone(),
        expected: start.head.seq,
        events: events.iter().flat_map(|append| append.events.clone()).collect(),
        head: ours.head(),
    };
    write_all(store, &[start.clone(), winner.clone()]).await;
    assert_eq!(write(store, &loser).await, Appended::Lost);
    assert_journal(store, &[&start, &winner]).await;
}

pub(super) async fn a_repeated_append_is_recognised_as_its_own_and_is_there_once(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, start) = Sample::start("twice");
    let done = saga.succeed(0, b"done");
    assert!(done.events.len() > 1, "an append of several events");
    for append in [&start, &done] {
        for _ in 0..3 {
            assert_eq!(write(store, append).await, Appended::Written);
        }
    }
    assert_journal(store, &[&start, &done]).await;
    assert_eq!(write(bench.second.as_ref(), &done).await, Appended::Written, "over another connection too");
}

pub(super) async fn a_repeated_append_is_recognised_after_the_saga_has_gone_on(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, start) = wide("gone-on");
    let first = saga.succeed(0, b"one");
    let second = saga.succeed(1, b"two");
    write_all(store, &[start.clone(), first.clone(), second.clone()]).await;
    assert_eq!(write(store, &start).await, Appended::Written);
    assert_eq!(write(store, &first).await, Appended::Written);
    assert_journal(store, &[&start, &first, &second]).await;
}

pub(super) async fn an_append_that_differs_in_one_event_is_not_taken_for_its_own(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, start) = Sample::start("differs");
    let mut rival = saga.clone();
    let done = saga.succeed(0, b"done");
    write_all(store, &[start, done.clone()]).await;
    assert_eq!(write(store, &rival.succeed(0, b"dono")).await, Appended::Lost, "another answer");

    let last = done.events.len() - 1;
    let change = |change: fn(&mut backstop_core::Event)| {
        let mut append = done.clone();
        change(&mut append.events[last]);
        append
    };
    let later = change(|event| event.at = Timestamp(event.at.0 + 1));
    assert_eq!(write(store, &later).await, Appended::Lost, "at another time");
    let clock = change(|event| event.clock.0 += 1);
    assert_eq!(write(store, &clock).await, Appended::Lost, "with another clock");
    let kind = change(|event| event.kind = backstop_core::EventKind::RolledBack);
    assert_eq!(write(store, &kind).await, Appended::Lost, "of another kind");
    let longer = with_one_more(&done);
    assert_eq!(write(store, &longer).await, Appended::Lost, "of which the end is not there");
}

pub(super) async fn of_sixteen_writers_at_one_seq_exactly_one_is_written(bench: &Bench) {
    let (saga, start) = wide("race");
    write_all(bench.store.as_ref(), std::slice::from_ref(&start)).await;
    let rivals = (0..WRITERS).map(|n| saga.clone().succeed(n % 8, format!("{n}").as_bytes())).collect();
    let winner = exactly_one_wins(bench, rivals).await;
    assert_journal(bench.store.as_ref(), &[&start, &winner]).await;
}

pub(super) async fn of_sixteen_creators_of_one_saga_exactly_one_is_written(bench: &Bench) {
    let create = |n: usize| {
        let input = Bytes::from(format!("{{\"n\":{n}}}"));
        Sample::start_with("born", &definition("wide", 8), LONG_AGO, BTreeMap::new(), input).1
    };
    let winner = exactly_one_wins(bench, (0..WRITERS).map(create).collect()).await;
    assert_journal(bench.store.as_ref(), &[&winner]).await;
}

/// Writes them all at once, through both openings, and answers the one that is written.
async fn exactly_one_wins(bench: &Bench, rivals: Vec<Append>) -> Append {
    let tasks: Vec<_> = rivals
        .into_iter()
        .enumerate()
        .map(|(n, append)| {
            let store = Arc::clone(if n % 2 == 0 { &bench.store } else { &bench.second });
            tokio::spawn(async move { (write(store.as_ref(), &append).await, append) })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        let (appended, append) = task.await.unwrap();
        if appended == Appended::Written {
            winners.push(append);
        }
    }
    assert_eq!(winners.len(), 1, "exactly one of {WRITERS} is written");
    winners.remove(0)
}

pub(super) async fn crossing_batches_of_two_writers_write_each_saga_once(bench: &Bench) {
    const SAGAS: usize = 40;
    let sagas: Vec<(Sample, Append)> = (0..SAGAS).map(|n| wide(&format!("cross-{n}"))).collect();
    let starts: Vec<Append> = sagas.iter().map(|(_, start)| start.clone()).collect();
    bench.store.append(&starts).await.unwrap();
    let batch = |answer: &'static [u8]| -> Vec<Append> {
        let mut sagas = sagas.clone();
        sagas.iter_mut().map(|(saga, _)| saga.succeed(0, answer)).collect()
    };
    let ours = batch(b"ours");
    let mut theirs = batch(b"theirs");
    theirs.reverse();
    let write = |store: &Arc<dyn Store>, batch: Vec<Append>| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            loop {
                match store.append(&batch).await {
                    Ok(results) => return batch.into_iter().zip(results).collect::<Vec<_>>(),
                    // What was certainly not applied may be tried again.
                    Err(StoreError::NotApplied(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        })
    };
    let (first, second) = (write(&bench.store, ours), write(&bench.second, theirs));
    let mut winners: BTreeMap<SagaId, Vec<Append>> = BTreeMap::new();
    for (append, result) in first.await.unwrap().into_iter().chain(second.await.unwrap()) {
        if result == Appended::Written {
            winners.entry(append.saga.clone()).or_default().push(append);
        }
    }
    for start in &starts {
        let winners = winners.get(&start.saga).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(winners.len(), 1, "{} has one winner", start.saga);
        assert_journal(bench.store.as_ref(), &[start, &winners[0]]).await;
    }
}

pub(super) async fn a_batch_with_lost_appends_still_writes_the_others(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut stale, stale_start) = wide("stale");
    let mut rival = stale.clone();
    let (mut fine, fine_start) = wide("fine");
    let taken =
        Sample::start_with("taken", &definition("wide", 1), LONG_AGO, BTreeMap::new(), Bytes::new()).1;
    let ahead = rival.succeed(1, b"rival");
    write_all(store, &[stale_start.clone(), fine_start.clone(), taken.clone(), ahead.clone()]).await;

    let lost = stale.succeed(0, b"stale");
    let lost_too = Sample::start("taken").1;
    let written = fine.succeed(0, b"fine");
    let born = Sample::start("newborn").1;
    let again = fine_start.clone();
    let batch = [lost, written.clone(), lost_too, born.clone()];
    let expected = [Appended::Lost, Appended::Written, Appended::Lost, Appended::Written];
    assert_eq!(store.append(&batch).await.unwrap(), expected);
    assert_eq!(write(store, &again).await, Appended::Written);
    assert_journal(store, &[&stale_start, &ahead]).await;
    assert_journal(store, &[&fine_start, &written]).await;
    assert_journal(store, &[&taken]).await;
    assert_journal(store, &[&born]).await;
}

pub(super) async fn the_same_id_with_another_creation_is_lost(bench: &Bench) {
    let store = bench.store.as_ref();
    let spec = definition("transfer", 1);
    let create = |now: i64, input: &'static [u8]| {
        Sample::start_with("same", &spec, Timestamp(now), BTreeMap::new(), Bytes::from_static(input)).1
    };
    let first = create(1, b"{\"amount\":\"1\"}");
    assert_eq!(write(store, &first).await, Appended::Written);
    assert_eq!(write(store, &create(1, b"{\"amount\":\"2\"}")).await, Appended::Lost, "another input");
    assert_eq!(
        write(store, &create(2, b"{\"amount\":\"1\"}")).await,
        Appended::Lost,
        "the same at another time"
    );
    assert_journal(store, &[&first]).await;
}

pub(super) async fn a_saga_that_does_not_exist_cannot_be_continued(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, _never_written) = Sample::start("ghost");
    assert_eq!(write(store, &saga.succeed(0, b"boo")).await, Appended::Lost);
    assert_eq!(store.head(&id("ghost")).await, Ok(None));
    assert_eq!(store.events(&id("ghost"), Seq(0), 10).await, Ok(vec![]));
}

pub(super) async fn a_batch_that_makes_no_sense_changes_nothing(bench: &Bench) {
    let store = bench.store.as_ref();
    let good = Sample::start("good").1;
    let (mut saga, start) = wide("twofold");
    let next = saga.succeed(0, b"x");
    let mut empty = Sample::start("empty").1;
    empty.events.clear();
    let mut gap = Sample::start("gap").1;
    gap.events[0].seq = Seq(2);
    let mut head = Sample::start("head").1;
    head.head.seq = Seq(7);
    for nonsense in [vec![start, next], vec![empty], vec![gap], vec![head]] {
        let saga = nonsense[0].saga.clone();
        let batch: Vec<Append> = std::iter::once(good.clone()).chain(nonsense).collect();
        let refused = store.append(&batch).await;
        assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{saga}: {refused:?}");
        assert_eq!(store.head(&saga).await, Ok(None), "{saga}");
    }
    assert_eq!(store.head(&good.saga).await, Ok(None), "nor what made sense");
}

pub(super) async fn an_empty_batch_is_written_at_once(bench: &Bench) {
    assert_eq!(bench.store.append(&[]).await, Ok(vec![]));
}

pub(super) async fn a_batch_of_any_size_goes_in_whole(bench: &Bench) {
    let store = bench.store.as_ref();
    for size in [1, 2, 3, 63, 64, 65, 130, 700] {
        let (mut sagas, starts): (Vec<Sample>, Vec<Append>) =
            (0..size).map(|n| Sample::start(&format!("batch-{size}-{n}"))).unzip();
        assert_eq!(store.append(&starts).await.unwrap(), vec![Appended::Written; size]);
        let ends: Vec<Append> = sagas.iter_mut().map(|saga| saga.succeed(0, b"done")).collect();
        assert_eq!(store.append(&ends).await.unwrap(), vec![Appended::Written; size]);
        for n in [0, size / 2, size - 1] {
            assert_journal(store, &[&starts[n], &ends[n]]).await;
        }
    }
}

/// `append`, with one more event at its end.
fn with_one_more(append: &Append) -> Append {
    let mut longer = append.clone();
    let mut event = longer.events[longer.events.len() - 1].clone();
    event.seq = event.seq.next();
    event.clock.0 += 1;
    event.kind = backstop_core::EventKind::Released;
    longer.head.seq = event.seq;
    longer.events.push(event);
    longer
}
