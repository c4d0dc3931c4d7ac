//! Leases, and sagas that somebody should take over. All by the store's clock: a lease of no time has run
//! out at once, one of an hour lives as long as the story.

use super::Bench;
use super::appending::write_all;
use super::sample::{LONG_AGO, Sample, coordinator, definition};
use crate::ports::store::{Orphan, Share, Store};
use backstop_core::{Code, Evidence, Input, Phase, SagaState, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

async fn orphans(store: &dyn Store) -> Vec<(String, bool)> {
    let mut found: Vec<(String, bool)> = store
        .orphans(Share::ALL, 1000)
        .await
        .unwrap()
        .into_iter()
        .map(|Orphan { saga, owner }| (saga.to_string(), owner.is_none()))
        .collect();
    found.sort();
    found
}

pub(super) async fn peer_39_a_lease_is_renewed_while_it_lives_and_never_afterwards(bench: &Bench) {
    let store = bench.store.as_ref();
    let (alive, dead) = (coordinator("alive"), coordinator("dead"));
    assert_eq!(store.renew(&dead, HOUR).await, Ok(None), "never there");
    store.enter(&dead, "", Duration::ZERO).await.unwrap();
    assert_eq!(store.renew(&dead, HOUR).await, Ok(None), "it has run out");
    assert!(store.coordinators().await.unwrap().iter().all(|row| row.expired), "and stays so");
    let started = store.now().await.unwrap();
    store.enter(&alive, "", HOUR).await.unwrap();
    let told = store.renew(&alive, 2 * HOUR).await.unwrap().expect("it lives");
    assert!(told >= started && told <= store.now().await.unwrap(), "with the store's time");
    let rows = store.coordinators().await.unwrap();
    let row = rows.iter().find(|row| row.coordinator == alive).unwrap();
    assert!(row.expires_at.since(row.started_at) >= 2 * HOUR, "renewed for as long as was asked");
    assert!(!row.expired);
    assert!(store.renew(&alive, Duration::ZERO).await.unwrap().is_some(), "and may be cut short");
    assert_eq!(store.renew(&alive, HOUR).await, Ok(None));
}

pub(super) async fn a_coordinator_that_left_is_gone(bench: &Bench) {
    let store = bench.store.as_ref();
    let who = coordinator("leaver");
    store.enter(&who, "", HOUR).await.unwrap();
    store.leave(&who).await.unwrap();
    assert_eq!(store.renew(&who, HOUR).await, Ok(None));
    assert!(store.coordinators().await.unwrap().is_empty());
    store.leave(&who).await.unwrap();
}

pub(super) async fn entering_tells_who_is_there(bench: &Bench) {
    let store = bench.store.as_ref();
    let before = store.now().await.unwrap();
    store.enter(&coordinator("first"), "127.0.0.1:7000 \0'", HOUR).await.unwrap();
    store.enter(&coordinator("second"), "127.0.0.1:7001", HOUR).await.unwrap();
    let rows = bench.second.coordinators().await.unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.coordinator.as_str()).collect();
    if bench.exclusive {
        assert_eq!(names, ["second"], "only one can use the store: the others' leases are over");
        assert_eq!(store.renew(&coordinator("first"), HOUR).await, Ok(None));
    } else {
        assert_eq!(names, ["first", "second"], "by start");
        assert_eq!(rows[0].address, "127.0.0.1:7000 \0'");
        assert!(store.renew(&coordinator("first"), HOUR).await.unwrap().is_some());
    }
    assert!(rows.iter().all(|row| row.started_at >= before && !row.expired));
    assert!(store.now().await.unwrap() >= rows[0].started_at);
}

pub(super) async fn peer_40_sagas_of_the_living_are_no_orphans_and_those_of_the_dead_are(bench: &Bench) {
    let store = bench.store.as_ref();
    // Owners beside, before and after each other in the order of names; `never` has no row at all.
    if !bench.exclusive {
        store.enter(&coordinator("c"), "", Duration::ZERO).await.unwrap();
        store.enter(&coordinator("a"), "", HOUR).await.unwrap();
    }
    store.enter(&coordinator("c10"), "", HOUR).await.unwrap();
    let owners: &[&str] = if bench.exclusive { &["c", "c10", "never"] } else { &["a", "c", "c10", "never"] };
    for owner in owners {
        for n in 0..3 {
            let (mut saga, start) = wide(&format!("{owner}-{n}"), owner);
            write_all(store, &[start]).await;
            let done = saga.succeed(0, b"");
            write_all(store, &[done]).await;
        }
    }
    let expected = |owner: &str| (0..3).map(move |n| (format!("{owner}-{n}"), false)).collect::<Vec<_>>();
    assert_eq!(orphans(store).await, [expected("c"), expected("never")].concat());
    store.leave(&coordinator("c10")).await.unwrap();
    assert_eq!(orphans(store).await, [expected("c"), expected("c10"), expected("never")].concat());
}

/// A saga whose start already names this owner.
fn wide(saga: &str, owner: &str) -> (Sample, crate::ports::store::Append) {
    let (sample, mut start) = Sample::start_with(
        saga,
        &definition("wide", 2),
        LONG_AGO,
        BTreeMap::new(),
        Bytes::from_static(b"{}"),
    );
    start.head.owner = Some(coordinator(owner));
    (sample.owned_by(owner), start)
}

pub(super) async fn peer_34_a_parked_saga_is_an_orphan_when_its_time_has_come(bench: &Bench) {
    let store = bench.store.as_ref();
    store.enter(&coordinator("c1"), "", HOUR).await.unwrap();
    let now = store.now().await.unwrap();
    for (name, wake_at) in [("past", LONG_AGO), ("now", now), ("later", now.plus(HOUR))] {
        let (mut saga, start) = wide(name, "c1");
        let parked = saga.parked(Some(wake_at));
        write_all(store, &[start, parked]).await;
    }
    assert_eq!(orphans(store).await, [("now".to_owned(), true), ("past".to_owned(), true)]);
}

pub(super) async fn what_waits_for_a_person_or_is_over_is_no_orphan(bench: &Bench) {
    let store = bench.store.as_ref();
    // Over, and its owner and a wake-up time forgotten in the head row: still over.
    let (mut over, start) = Sample::start("over");
    let mut end = over.succeed(0, b"");
    assert!(end.head.state.is_final());
    end.head.owner = Some(coordinator("nobody"));
    end.head.wake_at = Some(LONG_AGO);
    write_all(store, &[start, end]).await;
    // Stuck: a compensation that is refused until a person must decide.
    let (mut stuck, start) = wide("stuck", "c1");
    let mut appends = vec![start, stuck.succeed(0, b""), stuck.refuse(1, Code::InvalidArgument, "no")];
    // No person is called before every listener was told.
    for (participant, _) in stuck.saga.signals.clone() {
        appends.push(stuck.turn(Input::SignalReport { participant, attempts: 1, error: None }));
    }
    while stuck.saga.state == SagaState::RollingBack {
        let refusal = super::sample::failed(Evidence::ParticipantSaid(Code::NotFound), "no");
        appends.push(stuck.answer(0, Phase::Compensation, refusal));
        assert!(appends.len() < 20, "the compensation gets stuck");
    }
    stuck.owner = None;
    let last = appends.len() - 1;
    appends[last].head = stuck.head();
    assert_eq!(appends[last].head.state, SagaState::NeedsIntervention);
    write_all(store, &appends).await;
    assert_eq!(orphans(store).await, []);
    // Somebody retries it: it is to be woken.
    let step = backstop_core::StepName::parse("s0").unwrap();
    stuck.wake_at = Some(Timestamp(0));
    let retried = stuck.turn(Input::RetryBranch { step, by: "ada".to_owned(), reason: "mended".to_owned() });
    write_all(store, &[retried]).await;
    assert_eq!(orphans(store).await, [("stuck".to_owned(), true)]);
}

pub(super) async fn orphans_come_in_bites(bench: &Bench) {
    let store = bench.store.as_ref();
    for n in 0..10 {
        let (mut saga, start) = wide(&format!("o{n}"), "dead");
        write_all(store, &[start]).await;
        if n % 2 == 0 {
            write_all(store, &[saga.parked(Some(LONG_AGO))]).await;
        }
    }
    assert_eq!(store.orphans(Share::ALL, 3).await.unwrap().len(), 3);
    assert_eq!(store.orphans(Share::ALL, 10).await.unwrap().len(), 10);
    assert_eq!(store.orphans(Share::ALL, 0).await.unwrap().len(), 0);
}

pub(super) async fn peer_35_each_orphan_is_in_exactly_one_share_of_any_number_and_names_its_last_owner(
    bench: &Bench,
) {
    let store = bench.store.as_ref();
    let lasts: Vec<char> = ('!'..='~').collect();
    for (n, last) in lasts.iter().enumerate() {
        let (mut saga, start) = wide(&format!("share-{last}"), "dead");
        write_all(store, &[start]).await;
        if n % 2 == 0 {
            write_all(store, &[saga.parked(Some(LONG_AGO))]).await;
        }
    }
    for of in [1, 2, 3, 7, 200] {
        let mut seen = Vec::new();
        for index in 0..of {
            let share = Share { index, of };
            let found = store.orphans(share, 1000).await.unwrap();
            assert!(found.iter().all(|orphan| share.holds(&orphan.saga)), "{share:?}");
            seen.extend(found);
        }
        seen.sort_by(|a, b| a.saga.cmp(&b.saga));
        assert_eq!(seen.len(), lasts.len(), "of {of}");
        assert!(seen.windows(2).all(|two| two[0].saga != two[1].saga), "of {of}");
        let owners = seen.iter().filter(|orphan| orphan.owner == Some(coordinator("dead"))).count();
        assert_eq!(owners, lasts.len() / 2, "the others were let go of");
    }
}

pub(super) async fn a_coordinator_that_drains_is_marked_and_lives_on(bench: &Bench) {
    let store = bench.store.as_ref();
    let who = coordinator("drainer");
    store.set_draining(&who).await.unwrap();
    store.enter(&who, "", HOUR).await.unwrap();
    assert!(!bench.second.coordinators().await.unwrap()[0].draining);
    store.set_draining(&who).await.unwrap();
    store.set_draining(&who).await.unwrap();
    let rows = bench.second.coordinators().await.unwrap();
    assert!(rows[0].draining && !rows[0].expired);
    assert!(store.renew(&who, HOUR).await.unwrap().is_some(), "its lease runs on");
    assert!(bench.second.coordinators().await.unwrap()[0].draining, "and it goes on draining");
}
