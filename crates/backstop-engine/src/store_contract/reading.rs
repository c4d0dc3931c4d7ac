//! What comes out again.

use super::Bench;
use super::appending::{assert_journal, write_all};
use super::sample::{self, HARD_TEXT, LONG_AGO, Sample, definition, id};
use crate::ports::store::{Append, Journal, Store};
use backstop_core::{Code, DefinitionName, Input, ParticipantName, Phase, Revision, Seq, StepName};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(super) async fn every_kind_of_event_comes_back_as_it_was(bench: &Bench) {
    let append = sample::of_every_kind("every-kind");
    write_all(bench.store.as_ref(), std::slice::from_ref(&append)).await;
    assert_journal(bench.store.as_ref(), &[&append]).await;
    assert_journal(bench.second.as_ref(), &[&append]).await;
}

pub(super) async fn a_head_comes_back_as_it_was_at_every_turn(bench: &Bench) {
    let store = bench.store.as_ref();
    let labels = BTreeMap::from([("branch".to_owned(), "wien".to_owned())]);
    let (mut saga, start) =
        Sample::start_with("turns", &definition("wide", 2), LONG_AGO, labels, Bytes::from_static(b"{}"));
    let mut appends = vec![start, saga.succeed(0, b"done"), saga.refuse(1, Code::InvalidArgument, "no")];
    appends.push(saga.parked(Some(LONG_AGO)));
    let mut saga = saga.owned_by("c2");
    saga.wake_at = None;
    appends.push(saga.turn(Input::Adopt { coordinator: sample::coordinator("c2"), handed_over: true }));
    appends.push(saga.answer(0, Phase::Compensation, backstop_core::Outcome::Done(Bytes::new())));
    for append in &appends {
        write_all(store, std::slice::from_ref(append)).await;
        assert_eq!(store.head(&append.saga).await.unwrap().as_ref(), Some(&append.head));
    }
    let last = &appends[appends.len() - 1].head;
    assert!(last.state.is_final() && last.ended_at.is_some() && last.fin_code.is_some(), "reached the end");
    assert!(appends.iter().any(|a| a.head.wake_at.is_some()) && last.wake_at.is_none(), "parked, and woken");
    assert!(last.epoch > appends[0].head.epoch, "and taken over");
    assert_journal(store, &appends.iter().collect::<Vec<_>>()).await;
}

pub(super) async fn text_of_any_content_comes_back_as_it_was(bench: &Bench) {
    let store = bench.store.as_ref();
    let labels: BTreeMap<String, String> =
        [(HARD_TEXT, HARD_TEXT), ("", ""), ("empty", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let input = Bytes::from(vec![0, 159, 146, 150]);
    let (mut saga, start) = Sample::start_with("text", &definition("wide", 2), LONG_AGO, labels, input);
    let refused = saga.refuse(0, Code::Internal, HARD_TEXT);
    // One saga's text must not keep another's events out.
    let other = Sample::start("text-beside").1;
    store.append(&[start.clone(), other.clone()]).await.unwrap();
    write_all(store, std::slice::from_ref(&refused)).await;
    assert_journal(store, &[&start, &refused]).await;
    assert_journal(store, &[&other]).await;
}

pub(super) async fn a_saga_of_256_steps_comes_back_whole(bench: &Bench) {
    let store = bench.store.as_ref();
    let spec = definition("huge", 256);
    let payload = |n: usize| (StepName::parse(&format!("s{n}")).unwrap(), Bytes::from(format!("raw {n}")));
    let (mut saga, mut start) =
        Sample::start_with("steps", &spec, LONG_AGO, BTreeMap::new(), Bytes::from_static(b"{}"));
    if let backstop_core::EventKind::Started(started) = &mut start.events[0].kind {
        started.payloads = (0..256).map(payload).collect();
    }
    let forward: Vec<Append> = (0..256).map(|step| saga.succeed(step, b"done")).collect();
    let events = forward.iter().flat_map(|append| append.events.clone()).collect();
    let all = Append { saga: start.saga.clone(), expected: Seq(1), events, head: saga.head() };
    assert_eq!(all.head.seq, Seq(258), "256 steps, a start and an end");
    write_all(store, &[start.clone(), all.clone()]).await;
    assert_journal(store, &[&start, &all]).await;

    let revision = put(store, &spec).await;
    assert_eq!(revision.spec.steps.len(), 256);
    let name = DefinitionName::parse("huge").unwrap();
    assert_eq!(store.revision(&name, Some(Revision(1))).await.unwrap(), Some(revision));
}

/// Every one of them is an id. Prefixes of each other, patterns, quotes, placeholders, the longest.
pub(super) fn adversarial_ids() -> Vec<String> {
    let longest = "x".repeat(128);
    let ids = [
        "pay-7",
        "pay-70",
        "pay-7/",
        "pay-7/x",
        "pay-7%",
        "pay-_",
        "pay-%",
        "%",
        "_",
        "'",
        "''",
        "\"",
        "\\",
        "\\'",
        "PAY-7",
        "pay-7;--",
        "$1",
        "?",
        "{}",
        "[]",
        "*",
        "null",
        "0",
        "00",
        "../x",
        "~",
        "!",
        &longest,
        &longest[1..],
    ];
    ids.map(str::to_owned).to_vec()
}

async fn put(store: &dyn Store, spec: &backstop_core::DefinitionSpec) -> crate::ports::store::StoredRevision {
    let name = DefinitionName::parse(&spec.name).unwrap();
    store.put_revision(&name, spec, &Bytes::from(vec![0; 1 << 20]), [1; 32], LONG_AGO).await.unwrap()
}

pub(super) async fn a_payload_of_a_mebibyte_comes_back_whole(bench: &Bench) {
    let store = bench.store.as_ref();
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let (mut saga, start) = Sample::start_with(
        "large",
        &definition("transfer", 1),
        LONG_AGO,
        BTreeMap::new(),
        Bytes::from(large.clone()),
    );
    let done = saga.succeed(0, &large);
    write_all(store, &[start.clone(), done.clone()]).await;
    assert_journal(store, &[&start, &done]).await;
    write_all(store, std::slice::from_ref(&done)).await;
}

pub(super) async fn events_resume_after_a_seq(bench: &Bench) {
    let store = bench.store.as_ref();
    let append = sample::of_every_kind("resumes");
    write_all(store, std::slice::from_ref(&append)).await;
    let (mut after, mut seen) = (Seq(0), Vec::new());
    loop {
        let page = store.events(&append.saga, after, 7).await.unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        after = last.seq;
        seen.extend(page);
    }
    assert_eq!(seen, append.events);
    assert_eq!(store.events(&append.saga, Seq(u64::MAX), 7).await, Ok(vec![]));
    assert_eq!(store.events(&append.saga, Seq(0), usize::MAX).await.unwrap(), append.events);
    assert_eq!(store.events(&append.saga, Seq(0), 0).await, Ok(vec![]));
}

pub(super) async fn what_is_not_there_is_none_and_no_error(bench: &Bench) {
    let store = bench.store.as_ref();
    assert_eq!(store.journal(&id("nobody")).await, Ok(None));
    assert_eq!(store.head(&id("nobody")).await, Ok(None));
    assert_eq!(store.events(&id("nobody"), Seq(0), 9).await, Ok(vec![]));
    let (definition, participant) =
        (DefinitionName::parse("none").unwrap(), ParticipantName::parse("none").unwrap());
    assert_eq!(store.revision(&definition, None).await, Ok(None));
    assert_eq!(store.revision(&definition, Some(Revision(1))).await, Ok(None));
    assert_eq!(store.participant(&participant).await, Ok(None));
}

pub(super) async fn peer_10_ids_that_are_prefixes_of_each_other_do_not_see_each_other(bench: &Bench) {
    let store = bench.store.as_ref();
    let ids = adversarial_ids();
    let mut all = Vec::new();
    for (n, text) in ids.iter().enumerate() {
        let (mut saga, start) = Sample::start(text);
        write_all(store, std::slice::from_ref(&start)).await;
        all.push((start, saga.succeed(0, format!("{n}").as_bytes())));
    }
    // Half of them end; the other half must not notice.
    for (_, done) in all.iter().step_by(2) {
        write_all(store, std::slice::from_ref(done)).await;
    }
    for (n, (start, done)) in all.iter().enumerate() {
        if n % 2 == 0 {
            assert_journal(store, &[start, done]).await;
        } else {
            assert_journal(store, &[start]).await;
        }
    }
}

pub(super) async fn journals_come_in_the_order_asked_for(bench: &Bench) {
    let store = bench.store.as_ref();
    let mut expected = Vec::new();
    for n in 0..20 {
        // Born far from each other: a store may keep them in different places.
        let born = LONG_AGO.plus(std::time::Duration::from_secs(n * 7 * 24 * 3600));
        let spec = definition("wide", 2);
        let name = format!("many-{n}");
        let (mut saga, start) =
            Sample::start_with(&name, &spec, born, BTreeMap::new(), Bytes::from_static(b"{}"));
        let done = saga.succeed(0, b"done");
        write_all(store, &[start.clone(), done.clone()]).await;
        let events = [start.events, done.events].concat();
        expected.push((done.saga, Ok(Some(Journal { head: done.head, events }))));
    }
    expected.reverse();
    expected.insert(7, (id("nobody"), Ok(None)));
    expected.push(expected[3].clone());
    let (sagas, journals): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
    assert_eq!(bench.second.journals(&sagas).await, Ok(journals));
    assert_eq!(store.journals(&[]).await, Ok(vec![]));
}
