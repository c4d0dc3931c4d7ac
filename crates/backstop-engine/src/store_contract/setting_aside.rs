//! Quarantine, and the checks that find what is not as it must be.

use super::Bench;
use super::appending::{assert_journal, write_all};
use super::sample::{LONG_AGO, Sample, coordinator, definition, id};
use crate::ports::store::{Append, Appended, Head, Misfit, MisfitKind, Share, Store};
use backstop_core::SagaState;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
/// Longer than the age of every sample.
const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const REASON: &str = "event 3 of saga odd: it does not follow \0'";

pub(super) async fn what_is_set_aside_is_nobodys_and_keeps_its_journal(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, start) = Sample::start("odd");
    let parked = saga.parked(Some(LONG_AGO));
    write_all(store, &[start.clone(), parked.clone()]).await;
    assert_eq!(store.orphans(Share::ALL, 9).await.unwrap().len(), 1);
    assert_eq!(store.quarantine(&start.saga, None, REASON).await, Ok(true));
    assert_eq!(bench.second.orphans(Share::ALL, 9).await, Ok(vec![]));
    let journal = bench.second.journal(&start.saga).await.unwrap().unwrap();
    let expected = Head {
        wake_at: None,
        state: SagaState::NeedsIntervention,
        quarantine: Some(REASON.to_owned()),
        ..parked.head.clone()
    };
    assert_eq!(journal.head, expected, "and nothing else of its head has changed");
    assert_eq!(journal.events, [start.events, parked.events].concat());
}

pub(super) async fn only_the_owner_that_was_seen_is_deprived(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, start) = Sample::start("seen");
    let end = saga.succeed(0, b"");
    write_all(store, std::slice::from_ref(&start)).await;
    for owner in [None, Some(coordinator("c2"))] {
        assert_eq!(store.quarantine(&start.saga, owner.as_ref(), REASON).await, Ok(false), "{owner:?}");
    }
    assert_journal(store, &[&start]).await;
    assert_eq!(store.quarantine(&id("nobody"), None, REASON).await, Ok(false));
    write_all(store, std::slice::from_ref(&end)).await;
    assert_eq!(store.quarantine(&start.saga, None, REASON).await, Ok(false), "it is over");
    assert_journal(store, &[&start, &end]).await;
}

pub(super) async fn an_append_neither_writes_quarantine_nor_passes_it(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, start) = Sample::start("late");
    let mut parked = saga.parked(Some(LONG_AGO));
    parked.head.quarantine = Some("by an append".to_owned());
    parked.head.retired = true;
    write_all(store, &[start.clone(), parked.clone()]).await;
    let head = store.head(&start.saga).await.unwrap().unwrap();
    assert_eq!((head.quarantine, head.retired), (None, false));
    assert_eq!(store.quarantine(&start.saga, None, REASON).await, Ok(true));
    // Its last owner was on its way when it was set aside.
    let mut saga = saga.owned_by("c2");
    saga.wake_at = None;
    let adopted =
        saga.turn(backstop_core::Input::Adopt { coordinator: coordinator("c2"), handed_over: true });
    assert_eq!(store.append(&[adopted]).await, Ok(vec![Appended::Lost]), "it comes too late");
    let head = store.head(&start.saga).await.unwrap().unwrap();
    assert_eq!((head.quarantine.as_deref(), head.seq), (Some(REASON), parked.head.seq));
    assert_eq!(store.orphans(Share::ALL, 9).await, Ok(vec![]));
    let (_, other) = Sample::start_with(
        "late",
        &definition("other", 2),
        LONG_AGO,
        BTreeMap::new(),
        Bytes::from_static(b"{}"),
    );
    assert_eq!(store.append(&[other]).await, Ok(vec![Appended::Lost]), "nor is it created once more");
    assert_eq!(store.append(&[parked]).await, Ok(vec![Appended::Written]), "what was there before is known");
}

pub(super) async fn restoring_takes_out_only_what_is_in_quarantine(bench: &Bench) {
    let store = bench.store.as_ref();
    let (mut saga, start) = Sample::start("mended");
    let parked = saga.parked(Some(LONG_AGO));
    write_all(store, &[start.clone(), parked.clone()]).await;
    let mut mended = parked.head.clone();
    mended.labels.insert("mended".to_owned(), "yes".to_owned());
    assert_eq!(store.restore(&mended).await, Ok(false));
    assert_eq!(store.head(&start.saga).await.unwrap(), Some(parked.head.clone()));
    assert_eq!(store.quarantine(&start.saga, None, REASON).await, Ok(true));
    let behind = Head { seq: start.head.seq, ..mended.clone() };
    assert_eq!(store.restore(&behind).await, Ok(false), "its journal goes on from another event");
    let elsewhen = Head { created_at: backstop_core::Timestamp(1), ..mended.clone() };
    assert_eq!(store.restore(&elsewhen).await, Ok(true));
    let journal = store.journal(&start.saga).await.unwrap().unwrap();
    assert_eq!(journal.head, mended, "all but its birth, which never changes");
    assert_eq!(journal.events.len(), start.events.len() + parked.events.len());
    assert_eq!(store.orphans(Share::ALL, 9).await.unwrap().len(), 1, "it is driven again");
    assert_eq!(store.restore(&mended).await, Ok(false));
}

/// Misfits but those of the schema, which depend on the engine.
async fn misfits(store: &dyn Store, grace: Duration, lease_max: Duration) -> Vec<(String, MisfitKind)> {
    let found = store.misfits(grace, lease_max, 1000).await.unwrap();
    let told = |misfit: Misfit| (misfit.kind != MisfitKind::Schema).then_some((misfit.subject, misfit.kind));
    let mut told: Vec<_> = found.into_iter().filter_map(told).collect();
    told.sort();
    told
}

fn with(append: &Append, change: impl FnOnce(&mut Head)) -> Append {
    let mut append = append.clone();
    change(&mut append.head);
    append
}

pub(super) async fn tables_in_order_have_no_misfits(bench: &Bench) {
    let store = bench.store.as_ref();
    store.enter(&coordinator("c1"), "", HOUR).await.unwrap();
    write_all(store, &[Sample::start("driven").1]).await;
    let (mut asleep, start) = Sample::start("asleep");
    let later = store.now().await.unwrap().plus(HOUR);
    write_all(store, &[start, asleep.parked(Some(later))]).await;
    let (mut over, start) = Sample::start("over");
    write_all(store, &[start, over.succeed(0, b"")]).await;
    let aside = Sample::start("aside").1;
    write_all(store, std::slice::from_ref(&aside)).await;
    assert_eq!(store.quarantine(&aside.saga, aside.head.owner.as_ref(), REASON).await, Ok(true));
    assert_eq!(misfits(store, Duration::ZERO, 2 * HOUR).await, []);
}

pub(super) async fn peer_34_each_kind_of_misfit_is_found(bench: &Bench) {
    let store = bench.store.as_ref();
    store.enter(&coordinator("c1"), "", HOUR).await.unwrap();
    let start = |saga: &str| Sample::start(saga).1;
    let (mut over, begin) = Sample::start("over");
    let end = over.succeed(0, b"");
    let stuck = |head: &mut Head| head.state = SagaState::NeedsIntervention;
    let appends = [
        start("driven"),
        with(&start("forsaken"), |head| head.owner = None),
        with(&start("both"), |head| head.wake_at = Some(LONG_AGO)),
        with(&start("stuck-and-driven"), stuck),
        with(&start("stuck"), |head| {
            head.owner = None;
            stuck(head);
        }),
        with(&start("gone"), |head| head.owner = Some(coordinator("c9"))),
        with(&start("overslept"), |head| {
            head.owner = None;
            head.wake_at = Some(LONG_AGO);
        }),
        begin,
        with(&end, |head| head.owner = Some(coordinator("c1"))),
    ];
    write_all(store, &appends).await;
    let expected = |late: bool| {
        let mut expected = vec![
            ("both", MisfitKind::Overdetermined),
            ("forsaken", MisfitKind::Forsaken),
            ("gone", MisfitKind::OwnerGone),
            ("over", MisfitKind::Overdetermined),
            ("overslept", MisfitKind::Overslept),
            ("stuck-and-driven", MisfitKind::Overdetermined),
        ];
        if !late {
            expected.retain(|(saga, _)| *saga != "overslept");
        }
        expected.into_iter().map(|(saga, kind)| (saga.to_owned(), kind)).collect::<Vec<_>>()
    };
    assert_eq!(misfits(store, HOUR, HOUR).await, expected(true));
    // Who has no row at all has been gone for longer than anybody can tell.
    assert_eq!(misfits(store, AGES, HOUR).await, expected(false), "what takeover may still see to");
    let lease = (String::from("c1"), MisfitKind::Lease);
    assert!(misfits(store, AGES, HOUR / 2).await.contains(&lease));
    assert!(store.misfits(HOUR, HOUR, 2).await.unwrap().len() <= 2);
    assert_eq!(store.misfits(HOUR, HOUR, 0).await, Ok(vec![]));
}

pub(super) async fn an_owner_whose_lease_is_just_over_is_not_gone_yet(bench: &Bench) {
    let store = bench.store.as_ref();
    store.enter(&coordinator("c1"), "", Duration::ZERO).await.unwrap();
    write_all(store, &[Sample::start("left-behind").1]).await;
    assert_eq!(misfits(store, HOUR, HOUR).await, []);
    let gone = ("left-behind".to_owned(), MisfitKind::OwnerGone);
    assert_eq!(misfits(store, Duration::ZERO, HOUR).await, [gone]);
}
