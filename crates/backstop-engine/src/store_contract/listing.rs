//! Lists of sagas.

use super::Bench;
use super::appending::write_all;
use super::sample::{HARD_TEXT, Sample, definition, id};
use crate::ports::store::{Append, SagaCursor, SagaFilter, Store};
use backstop_core::{Code, DefinitionName, FinCode, SagaId, SagaState, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;

fn start(saga: &str, definition_name: &str, at: i64, labels: &[(&str, &str)]) -> (Sample, Append) {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Sample::start_with(
        saga,
        &definition(definition_name, 2),
        Timestamp(at),
        labels,
        Bytes::from_static(b"{}"),
    )
}

async fn pages(store: &dyn Store, filter: &SagaFilter, size: usize) -> Vec<SagaId> {
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = store.list(filter, cursor.as_ref(), size).await.unwrap();
        assert!(page.len() <= size);
        let Some(last) = page.last() else { return seen };
        cursor = Some(SagaCursor { created_at: last.created_at, saga: last.saga.clone() });
        seen.extend(page.into_iter().map(|head| head.saga));
    }
}

pub(super) async fn paging_sees_each_saga_once_in_order_with_equal_times(bench: &Bench) {
    let store = bench.store.as_ref();
    // Ids whose order by byte is not the order of any language.
    let ids = ["B", "a", "A", "b", "a-1", "a1", "a_1", "~", "Z", "10", "9", "a/1", "AA", "aa"];
    let mut expected = Vec::new();
    for at in [1_000, 2_000, 3_000] {
        for text in ids {
            let name = format!("{text}@{at}");
            write_all(store, &[start(&name, "transfer", at, &[]).1]).await;
            expected.push((Timestamp(at), id(&name)));
        }
    }
    expected.sort();
    expected.reverse();
    let expected: Vec<SagaId> = expected.into_iter().map(|(_, saga)| saga).collect();
    for size in [1, 2, 5, 14, 1000] {
        assert_eq!(pages(store, &SagaFilter::default(), size).await, expected, "pages of {size}");
    }
    assert_eq!(store.list(&SagaFilter::default(), None, 0).await, Ok(vec![]));
}

pub(super) async fn each_filter_narrows_and_all_are_joined(bench: &Bench) {
    let store = bench.store.as_ref();
    let mut appends = Vec::new();
    let (mut done, begin) = start("done", "transfer", 1_000, &[("branch", "wien"), ("channel", "app")]);
    appends.extend([begin, done.succeed(0, b""), done.succeed(1, b"")]);
    let (mut back, begin) = start("back", "transfer", 2_000, &[("branch", "wien")]);
    appends.extend([begin, back.succeed(0, b""), back.refuse(1, Code::InvalidArgument, "no")]);
    let (mut paged, begin) = start("paged", "transfer-2", 3_000, &[("branch", "graz")]);
    appends.extend([begin, paged.succeed(0, b""), paged.refuse(1, Code::NotFound, "where?")]);
    appends.push(start("live", "transfer-2", 4_000, &[]).1);
    write_all(store, &appends).await;

    let everything = SagaFilter::default();
    let states = |states: &[SagaState]| SagaFilter { states: states.to_vec(), ..SagaFilter::default() };
    let labels = |labels: &[(&str, &str)]| SagaFilter {
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..SagaFilter::default()
    };
    let cases: Vec<(SagaFilter, &[&str])> = vec![
        (everything.clone(), &["live", "paged", "back", "done"]),
        (states(&[SagaState::Succeeded]), &["done"]),
        (states(&[SagaState::RollingBack]), &["paged", "back"]),
        (states(&[SagaState::Running, SagaState::Succeeded]), &["live", "done"]),
        (states(&[SagaState::NeedsIntervention]), &[]),
        (states(&SagaState::ALL), &["live", "paged", "back", "done"]),
        (
            SagaFilter { definition: Some(DefinitionName::parse("transfer").unwrap()), ..everything.clone() },
            &["back", "done"],
        ),
        (SagaFilter { fin_code: Some(FinCode::REFUSED), ..everything.clone() }, &["back"]),
        (SagaFilter { fin_code: Some(FinCode::OTHER), ..everything.clone() }, &["paged"]),
        (labels(&[("branch", "wien")]), &["back", "done"]),
        (labels(&[("branch", "wien"), ("channel", "app")]), &["done"]),
        (labels(&[("branch", "")]), &[]),
        (SagaFilter { created_from: Some(Timestamp(3_000)), ..everything.clone() }, &["live", "paged"]),
        (SagaFilter { created_before: Some(Timestamp(3_000)), ..everything.clone() }, &["back", "done"]),
        (
            SagaFilter {
                states: vec![SagaState::RollingBack, SagaState::Succeeded],
                definition: Some(DefinitionName::parse("transfer").unwrap()),
                fin_code: Some(FinCode::REFUSED),
                labels: BTreeMap::from([("branch".to_owned(), "wien".to_owned())]),
                created_from: Some(Timestamp(2_000)),
                created_before: Some(Timestamp(2_001)),
            },
            &["back"],
        ),
    ];
    for (filter, expected) in cases {
        let expected: Vec<SagaId> = expected.iter().map(|text| id(text)).collect();
        assert_eq!(pages(store, &filter, 1).await, expected, "{filter:?}");
        assert_eq!(pages(store, &filter, 10).await, expected, "{filter:?}");
    }
}

pub(super) async fn labels_match_exactly_whatever_they_hold(bench: &Bench) {
    let store = bench.store.as_ref();
    let texts = [
        "", "a", "A", "a%", "%", "a_", "'", "\"", "\\", "a.b", "$.a", "null", "1", "[\"a\"]", "ü", HARD_TEXT,
    ];
    let pairs: Vec<(String, &str, &str)> = texts
        .iter()
        .enumerate()
        .flat_map(|(k, key)| {
            texts.iter().enumerate().map(move |(v, value)| (format!("l-{k}-{v}"), *key, *value))
        })
        .collect();
    let appends: Vec<Append> =
        pairs.iter().map(|(saga, key, value)| start(saga, "transfer", 1_000, &[(key, value)]).1).collect();
    store.append(&appends).await.unwrap();
    for (saga, key, value) in &pairs {
        let labels = BTreeMap::from([((*key).to_owned(), (*value).to_owned())]);
        let found = store
            .list(&SagaFilter { labels: labels.clone(), ..SagaFilter::default() }, None, 9)
            .await
            .unwrap();
        assert_eq!(found.iter().map(|head| head.saga.as_str()).collect::<Vec<_>>(), [saga], "{labels:?}");
        assert_eq!(found[0].labels, labels);
    }
}
