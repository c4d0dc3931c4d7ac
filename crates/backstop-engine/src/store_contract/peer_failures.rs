//! How others lost money, told of a store: failures of other orchestrators, by their rows in
//! `docs/peer-failures.md`. Rows that another story tells anyway are there, under their numbers.

use super::Bench;
use super::appending::{assert_journal, write, write_all};
use super::reading::adversarial_ids;
use super::retiring::retire_all;
use super::sample::{Sample, definition, id};
use crate::ports::store::{Appended, Retention, SagaCursor, SagaFilter, Share};
use backstop_core::{SagaId, SagaState, Seq};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) async fn peer_10_any_ids_are_told_apart_in_pages_takeover_quarantine_and_retirement(
    bench: &Bench,
) {
    const HOUR: Duration = Duration::from_secs(3600);
    let store = bench.store.as_ref();
    let mut sagas: Vec<SagaId> = adversarial_ids().iter().map(|text| id(text)).collect();
    sagas.sort();
    let mut kept = BTreeMap::new();
    // Their owner is dead. Every third has ended.
    for (n, saga) in sagas.iter().enumerate() {
        let (mut sample, start) = Sample::start(saga.as_str());
        let mut appends = vec![start];
        if n % 3 == 0 {
            appends.push(sample.succeed(0, format!("{n}").as_bytes()));
        }
        write_all(store, &appends).await;
        kept.insert(saga.clone(), appends);
    }
    // All were born at one instant, so that pages go on by the id alone.
    let newest_first: Vec<SagaId> = sagas.iter().rev().cloned().collect();
    for size in [1, 2, 7] {
        let (mut cursor, mut seen) = (None, Vec::new());
        loop {
            let page = store.list(&SagaFilter::default(), cursor.as_ref(), size).await.unwrap();
            let Some(last) = page.last() else { break };
            cursor = Some(SagaCursor { created_at: last.created_at, saga: last.saga.clone() });
            seen.extend(page.into_iter().map(|head| head.saga));
        }
        assert_eq!(seen, newest_first, "pages of {size}");
    }
    let unfinished = || sagas.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, saga)| saga.clone());
    let orphans = store.orphans(Share::ALL, 1_000).await.unwrap();
    let mut orphans: Vec<SagaId> = orphans.into_iter().map(|orphan| orphan.saga).collect();
    orphans.sort();
    assert_eq!(orphans, unfinished().collect::<Vec<_>>());
    let journals = store.journals(&sagas).await.unwrap();
    for (saga, journal) in sagas.iter().zip(journals) {
        let events: Vec<_> = kept[saga].iter().flat_map(|append| append.events.clone()).collect();
        assert_eq!(journal.unwrap().unwrap().events, events, "{saga}");
    }
    for saga in unfinished() {
        let owner = kept[&saga][0].head.owner.clone();
        assert_eq!(store.quarantine(&saga, owner.as_ref(), "odd").await, Ok(true), "{saga}");
        let aside = store.list(&SagaFilter::default(), None, 1_000).await.unwrap();
        let aside: Vec<_> = aside.iter().filter(|head| head.quarantine.is_some()).collect();
        assert_eq!(aside.iter().map(|head| head.saga.as_str()).collect::<Vec<_>>(), [saga.as_str()]);
        let back = kept[&saga][0].head.clone();
        assert_eq!(store.restore(&back).await, Ok(true), "{saga}");
    }
    let retention = Retention { journals_for: HOUR, ids_for: HOUR };
    let retired = retire_all(store, retention, 3).await;
    let ended = sagas.len() - unfinished().count();
    assert_eq!((retired.journals, retired.sagas), (ended as u64, ended as u64));
    for (n, saga) in sagas.iter().enumerate() {
        if n % 3 == 0 {
            assert_eq!(store.head(saga).await, Ok(None), "{saga}");
            assert_eq!(store.events(saga, Seq(0), 9).await, Ok(vec![]), "{saga}");
        } else {
            assert_journal(store, &[&kept[saga][0]]).await;
        }
    }
}

pub(super) async fn peer_36_a_stale_reader_cannot_write_over_an_end(bench: &Bench) {
    let store = bench.store.as_ref();
    let spec = definition("wide", 2);
    let (mut ours, start) = Sample::start_with(
        "over",
        &spec,
        super::sample::LONG_AGO,
        BTreeMap::new(),
        Bytes::from_static(b"{}"),
    );
    let stale = ours.clone();
    let first = ours.succeed(0, b"done");
    let a_little_stale = ours.clone();
    let end = ours.succeed(1, b"done");
    assert_eq!(end.head.state, SagaState::Succeeded);
    write_all(store, &[start.clone(), first.clone(), end.clone()]).await;
    let late = [
        stale.clone().succeed(1, b"stale"),
        a_little_stale.clone().refuse(1, backstop_core::Code::FailedPrecondition, "stale"),
        a_little_stale.clone().parked(None),
        stale.clone().parked(None),
    ];
    for append in late {
        assert!(!append.head.state.is_final());
        assert_eq!(write(bench.second.as_ref(), &append).await, Appended::Lost, "{append:?}");
        assert_journal(store, &[&start, &first, &end]).await;
    }
    let running = SagaFilter { states: vec![SagaState::Running], ..SagaFilter::default() };
    assert_eq!(store.list(&running, None, 9).await, Ok(vec![]), "COMPLETED is never RUNNING again");
}
