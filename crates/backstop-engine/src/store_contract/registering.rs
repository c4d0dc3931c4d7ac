//! Definitions and participants.

use super::Bench;
use super::sample::{LONG_AGO, definition};
use crate::ports::store::{Participant, Store, StoredRevision};
use backstop_core::{DefinitionName, ParticipantName, Revision, Timestamp};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn name(text: &str) -> DefinitionName {
    DefinitionName::parse(text).unwrap()
}

/// Puts content number `content` of a definition.
async fn put(store: &dyn Store, definition_name: &str, content: u8) -> StoredRevision {
    let mut spec = definition(definition_name, 2);
    spec.description = format!("content {content}");
    let descriptors = Bytes::from(vec![content; 3]);
    let at = Timestamp(LONG_AGO.0 + i64::from(content));
    store.put_revision(&name(definition_name), &spec, &descriptors, [content; 32], at).await.unwrap()
}

pub(super) async fn the_same_content_is_the_same_revision(bench: &Bench) {
    let store = bench.store.as_ref();
    let first = put(store, "transfer", 1).await;
    assert_eq!(first.reference.revision, Revision(1));
    assert_eq!(first.spec.description, "content 1");
    assert_eq!(put(bench.second.as_ref(), "transfer", 1).await, first);
    let second = put(store, "transfer", 2).await;
    assert_eq!(second.reference.revision, Revision(2));
    assert_eq!(store.revision(&name("transfer"), Some(Revision(1))).await.unwrap(), Some(first));
    assert_eq!(store.revision(&name("transfer"), Some(Revision(2))).await.unwrap(), Some(second.clone()));
    assert_eq!(store.revision(&name("transfer"), None).await.unwrap(), Some(second));
    assert_eq!(store.revision(&name("transfer"), Some(Revision(3))).await, Ok(None));
}

pub(super) async fn only_the_newest_revision_is_compared(bench: &Bench) {
    let store = bench.store.as_ref();
    put(store, "back-and-forth", 1).await;
    put(store, "back-and-forth", 2).await;
    let third = put(store, "back-and-forth", 1).await;
    assert_eq!(third.reference.revision, Revision(3), "what was once there may come again");
}

pub(super) async fn concurrent_puts_make_one_common_or_different_revisions(bench: &Bench) {
    let put_all = |definition_name: &'static str, contents: [u8; 12]| {
        let tasks = contents.into_iter().enumerate().map(|(n, content)| {
            let store = Arc::clone(if n % 2 == 0 { &bench.store } else { &bench.second });
            tokio::spawn(async move { put(store.as_ref(), definition_name, content).await })
        });
        let tasks: Vec<_> = tasks.collect();
        async move {
            let mut stored = Vec::new();
            for task in tasks {
                stored.push(task.await.unwrap());
            }
            stored
        }
    };
    let common = put_all("common", [5; 12]).await;
    assert!(common.iter().all(|stored| *stored == common[0]), "one common revision");
    let different = put_all("different", std::array::from_fn(|n| n as u8)).await;
    let numbers: BTreeSet<u32> = different.iter().map(|stored| stored.reference.revision.0).collect();
    assert_eq!(numbers, (1..=12).collect(), "twelve revisions without a gap");
    for stored in different {
        let found = bench.store.revision(&stored.reference.name, Some(stored.reference.revision)).await;
        assert_eq!(found, Ok(Some(stored)), "and each is the one that its caller was told");
    }
}

pub(super) async fn definitions_are_paged_by_name_each_with_its_newest_revision(bench: &Bench) {
    let store = bench.store.as_ref();
    let mut names = vec!["b", "a", "a-1", "a.1", "a1", "a_1", "aa", "z"];
    for (n, definition_name) in names.iter().enumerate() {
        for content in 0..=(n as u8 % 3) {
            put(store, definition_name, content).await;
        }
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = store.definitions(after.as_ref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.reference.name.clone());
        seen.extend(page);
    }
    let revision =
        |definition_name: &&str| names.iter().position(|n| n == definition_name).unwrap() as u32 % 3 + 1;
    let mut expected: Vec<_> = names.iter().map(|n| format!("{n}@{}", revision(n))).collect();
    expected.sort_by_key(|text| text.split('@').next().unwrap().to_owned());
    names.sort_unstable();
    assert_eq!(seen.iter().map(|stored| stored.reference.to_string()).collect::<Vec<_>>(), expected);
    assert_eq!(
        seen.iter().map(|s| s.spec.name.as_str()).collect::<Vec<_>>(),
        names,
        "bytes decide the order"
    );
}

pub(super) async fn participants_are_replaced_and_paged_by_name(bench: &Bench) {
    let store = bench.store.as_ref();
    let participant = |text: &str, n: u32| Participant {
        name: ParticipantName::parse(text).unwrap(),
        endpoints: vec![format!("http://127.0.0.1:{n}"), "https://ledger.bank:443/'\"\\".to_owned()],
        deduplicates_by_key: n.is_multiple_of(2),
        rollback_listener: !n.is_multiple_of(2),
        in_flight_max: n,
        keepalive: Duration::from_micros(u64::from(n)),
        updated_at: Timestamp(i64::from(n)),
    };
    let names = ["risk", "ledger-b", "ledger", "ledger.a", "audit"];
    for (n, text) in names.iter().enumerate() {
        store.put_participant(&participant(text, n as u32)).await.unwrap();
    }
    let mut changed = participant("ledger", u32::MAX);
    changed.endpoints.clear();
    store.put_participant(&changed).await.unwrap();
    assert_eq!(bench.second.participant(&changed.name).await, Ok(Some(changed.clone())));
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = store.participants(after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        seen.extend(page);
    }
    let expected = |text: &&str| match *text {
        "ledger" => changed.clone(),
        other => participant(other, names.iter().position(|n| *n == other).unwrap() as u32),
    };
    let mut all: Vec<Participant> = names.iter().map(expected).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(seen, all);
}

pub(super) async fn every_registration_changes_the_mark(bench: &Bench) {
    let store = bench.store.as_ref();
    let mut participant = Participant {
        name: ParticipantName::parse("ledger").unwrap(),
        endpoints: vec!["http://127.0.0.1:1".to_owned()],
        deduplicates_by_key: true,
        rollback_listener: false,
        in_flight_max: 1,
        keepalive: Duration::from_secs(1),
        updated_at: LONG_AGO,
    };
    let mut marks = vec![store.participants_mark().await.unwrap()];
    // The same time again, and a clock that goes back.
    for (name, updated_at) in [("ledger", 5), ("ledger", 5), ("ledger", 3), ("audit", 5), ("ledger", 5)] {
        participant.name = ParticipantName::parse(name).unwrap();
        participant.updated_at = Timestamp(updated_at);
        store.put_participant(&participant).await.unwrap();
        let mark = bench.second.participants_mark().await.unwrap();
        assert!(!marks.contains(&mark), "{mark} among {marks:?}");
        assert_eq!(bench.second.participants_mark().await, Ok(mark.clone()), "it stays as nothing changes");
        marks.push(mark);
    }
}
