//! What has ended is taken away in time, and nothing else. Sample sagas ended in 2023: an hour ago is long enough.

use super::Bench;
use super::appending::{assert_journal, write, write_all};
use super::sample::{Sample, definition, id};
use crate::ports::store::{Append, Appended, Head, Retention, Retired, SagaFilter, Store};
use backstop_core::{Clock, Event, EventKind, ParticipantName, Seq, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
/// Longer ago than any sample's end.
const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The journals go, the ids stay.
const JOURNALS: Retention = Retention { journals_for: HOUR, ids_for: AGES };
const ALL: Retention = Retention { journals_for: HOUR, ids_for: HOUR };
/// More bites than any story needs.
const BITES_MAX: usize = 1000;

/// Bites until there is no more.
pub(super) async fn retire_all(store: &dyn Store, retention: Retention, limit: usize) -> Retired {
    let mut sum = Retired::default();
    for _ in 0..BITES_MAX {
        let bite = store.retire(retention, limit).await.unwrap();
        assert!(bite.journals <= limit as u64 || bite.partitions > 0, "{bite:?}");
        assert!(bite.sagas <= limit as u64, "{bite:?}");
        sum.journals += bite.journals;
        sum.sagas += bite.sagas;
        sum.partitions += bite.partitions;
        if !bite.more {
            return sum;
        }
    }
    panic!("it does not end: {sum:?}");
}

/// A saga that has started then, and ended a few milliseconds later.
fn ended(saga: &str, at: Timestamp) -> [Append; 2] {
    let spec = definition("transfer", 1);
    let (mut sample, start) = Sample::start_with(saga, &spec, at, BTreeMap::new(), Bytes::from_static(b"{}"));
    let end = sample.succeed(0, b"done");
    assert!(end.head.ended_at.is_some());
    [start, end]
}

fn old(saga: &str) -> [Append; 2] {
    ended(saga, super::sample::LONG_AGO)
}

pub(super) async fn only_what_ended_long_enough_ago_loses_its_journal(bench: &Bench) {
    let store = bench.store.as_ref();
    let now = store.now().await.unwrap();
    let long_ago = old("old");
    let [start, end] = ended("young", Timestamp(now.0 - 60_000_000));
    write_all(store, &long_ago).await;
    write_all(store, &[start.clone(), end.clone()]).await;
    let nothing = retire_all(store, Retention { journals_for: AGES, ids_for: AGES }, 10).await;
    assert_eq!(nothing, Retired::default());
    assert_journal(store, &[&long_ago[0], &long_ago[1]]).await;
    let done = retire_all(store, JOURNALS, 10).await;
    assert_eq!((done.journals, done.sagas), (1, 0));
    assert_journal(store, &[&start, &end]).await;
    // Seen by everybody, in every way of reading.
    let store = bench.second.as_ref();
    let left = store.journal(&id("old")).await.unwrap().unwrap();
    assert!(left.head.retired && left.events.is_empty(), "{left:?}");
    assert_eq!(left.head.state, long_ago[1].head.state, "its head row still tells how it ended");
    assert_eq!(store.head(&id("old")).await.unwrap().as_ref(), Some(&left.head));
    assert_eq!(store.journals(&[id("old")]).await.unwrap(), [Ok(Some(left.clone()))]);
    assert_eq!(store.events(&id("old"), Seq(0), 9).await, Ok(vec![]));
    let listed = store.list(&SagaFilter::default(), None, 9).await.unwrap();
    assert_eq!(listed.iter().map(|head| head.retired).collect::<Vec<_>>(), [false, true]);
    assert_eq!(retire_all(store, JOURNALS, 10).await, Retired::default(), "once");
}

pub(super) async fn peer_41_an_id_is_taken_until_its_own_time_has_come(bench: &Bench) {
    let store = bench.store.as_ref();
    let appends = old("taken");
    write_all(store, &appends).await;
    assert_eq!(retire_all(store, JOURNALS, 10).await.journals, 1);
    assert_eq!(write(store, &appends[0]).await, Appended::Lost, "started again, it is there already");
    assert_eq!(write(store, &appends[1]).await, Appended::Lost);
    assert_eq!(retire_all(store, ALL, 10).await.sagas, 1);
    assert_eq!(store.head(&id("taken")).await, Ok(None));
    assert_eq!(store.journal(&id("taken")).await, Ok(None));
    write_all(store, &appends[..1]).await;
    assert_journal(store, &[&appends[0]]).await;
}

pub(super) async fn a_head_row_never_goes_before_its_journal(bench: &Bench) {
    let store = bench.store.as_ref();
    write_all(store, &old("order")).await;
    let wrong = Retention { journals_for: AGES, ids_for: HOUR };
    assert_eq!(retire_all(store, wrong, 10).await, Retired::default(), "ids are kept as long as journals");
    assert!(store.journal(&id("order")).await.unwrap().is_some_and(|journal| !journal.events.is_empty()));
}

pub(super) async fn retirement_comes_in_bites(bench: &Bench) {
    let store = bench.store.as_ref();
    for n in 0..10 {
        write_all(store, &old(&format!("bite-{n}"))).await;
    }
    assert_eq!(store.retire(ALL, 0).await, Ok(Retired::default()));
    let first = store.retire(JOURNALS, 4).await.unwrap();
    assert_eq!((first.journals, first.more), (4, true));
    let left = store.list(&SagaFilter::default(), None, 99).await.unwrap();
    assert_eq!(left.iter().filter(|head| head.retired).count(), 4);
    for head in left {
        let events = store.events(&head.saga, Seq(0), 99).await.unwrap();
        assert_eq!(events.is_empty(), head.retired, "both or neither: {}", head.saga);
    }
    assert_eq!(retire_all(store, JOURNALS, 4).await.journals, 6);
    assert_eq!(retire_all(store, ALL, 3).await.sagas, 10);
    assert_eq!(store.list(&SagaFilter::default(), None, 9).await, Ok(vec![]));
}

pub(super) async fn peer_17_the_unfinished_and_the_set_aside_stay_however_old(bench: &Bench) {
    let store = bench.store.as_ref();
    let running = Sample::start("running").1;
    write_all(store, std::slice::from_ref(&running)).await;
    let (mut parked, start) = Sample::start("parked");
    let release = parked.parked(None);
    write_all(store, &[start.clone(), release.clone()]).await;
    // Set aside, and what its last owner would have ended it with came too late: it is a case for people.
    let [begin, end] = old("aside");
    write_all(store, std::slice::from_ref(&begin)).await;
    assert_eq!(store.quarantine(&begin.saga, begin.head.owner.as_ref(), "odd").await, Ok(true));
    assert_eq!(store.append(std::slice::from_ref(&end)).await, Ok(vec![Appended::Lost]));
    assert_eq!(retire_all(store, ALL, 10).await, Retired::default());
    assert_journal(store, &[&running]).await;
    assert_journal(store, &[&start, &release]).await;
    let aside = store.journal(&begin.saga).await.unwrap().unwrap();
    assert_eq!(aside.events, begin.events);
    assert!(!aside.head.retired && aside.head.quarantine.is_some());
}

pub(super) async fn a_report_that_comes_after_its_journal_was_retired_is_lost(bench: &Bench) {
    let store = bench.store.as_ref();
    let [begin, end] = old("reported");
    write_all(store, &[begin, end.clone()]).await;
    assert_eq!(retire_all(store, JOURNALS, 10).await.journals, 1);
    let (seq, last) = (end.head.seq.next(), end.events.last().unwrap());
    let kind = EventKind::SignalReported {
        participant: ParticipantName::parse("ledger").unwrap(),
        attempts: 1,
        error: None,
    };
    let report = Event { seq, clock: Clock(last.clock.0 + 1), at: last.at, kind };
    let head = Head { seq, ..end.head.clone() };
    let late = Append { saga: end.saga.clone(), expected: end.head.seq, events: vec![report], head };
    assert_eq!(store.append(&[late]).await, Ok(vec![Appended::Lost]));
    let there = store.journal(&end.saga).await.unwrap().unwrap();
    assert!(there.head.retired && there.events.is_empty(), "it does not come back to life");
}

pub(super) async fn two_retirers_at_once_take_each_journal_once(bench: &Bench) {
    for n in 0..40 {
        write_all(bench.store.as_ref(), &old(&format!("twice-{n}"))).await;
    }
    let tasks: Vec<_> = [bench.store.clone(), bench.second.clone()]
        .into_iter()
        .map(|store| tokio::spawn(async move { retire_all(store.as_ref(), ALL, 7).await }))
        .collect();
    let mut sum = Retired::default();
    for task in tasks {
        let done = task.await.unwrap();
        sum.journals += done.journals;
        sum.sagas += done.sagas;
    }
    // One may have stopped when all that was left was in the other's hands.
    let rest = retire_all(bench.store.as_ref(), ALL, 7).await;
    assert_eq!((sum.journals + rest.journals, sum.sagas + rest.sagas), (40, 40));
    assert_eq!(bench.store.list(&SagaFilter::default(), None, 9).await, Ok(vec![]));
}
