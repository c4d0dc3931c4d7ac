//! Stories that both engines tell, each in its own way of planting.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use backstop_core::{Code, Seq};
use backstop_engine::ports::store::{Append, Appended, SagaFilter, Share, Store, StoreError};
use backstop_engine::store_contract::sample::{LONG_AGO, Sample, definition, failed, id};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A column of `saga_event` and what makes the second event of saga `bad` unreadable.
pub(crate) const UNREADABLE: &[(&str, &str)] = &[
    ("kind", "'of_tomorrow'"),
    ("format", "0"),
    ("step", "NULL"),
    ("phase", "'sideways'"),
    ("attempt", "-1"),
    ("clock", "-1"),
    ("status", "'GREAT'"),
    ("evidence", "'hearsay'"),
    ("effect", "'maybe'"),
    ("fin_code", "'40005'"),
    ("tier", "'L4'"),
    ("message", "NULL"),
    ("payload", "''"),
];

/// A saga `bad` with a failure as its second event, and a saga `good`.
pub(crate) async fn plant(store: &dyn Store) -> (Append, Append) {
    let spec = definition("transfer", 2);
    let (mut bad, start) =
        Sample::start_with("bad", &spec, LONG_AGO, BTreeMap::new(), Bytes::from_static(b"{}"));
    let refused = bad.refuse(0, Code::InvalidArgument, "no");
    let good = Sample::start("good").1;
    for append in [&start, &refused, &good] {
        assert_eq!(store.append(std::slice::from_ref(append)).await.unwrap(), [Appended::Written]);
    }
    (start, good)
}

pub(crate) async fn damage_sqlite(path: &Path, column: &str, value: &str) {
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let value = if column == "payload" { "x''" } else { value };
    let sql = format!("UPDATE saga_event SET {column} = {value} WHERE saga_id = 'bad' AND seq = 2");
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut db).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
    db.close().await.unwrap();
}

pub(crate) async fn assert_only_one_is_unreadable(
    store: &dyn Store,
    start: &Append,
    good: &Append,
    what: &str,
) {
    for result in
        [store.journal(&id("bad")).await.map(|_| ()), store.events(&id("bad"), Seq(0), 100).await.map(|_| ())]
    {
        let Err(StoreError::Unreadable(text)) = result else { panic!("{what}: {result:?}") };
        assert!(text.starts_with("event 2 of saga bad: "), "{what}: {text}");
    }
    assert_eq!(store.events(&id("bad"), Seq(0), 1).await.unwrap(), start.events, "what comes before it");
    assert_eq!(store.journal(&id("good")).await.unwrap().unwrap().events, good.events, "another saga");
    assert_eq!(store.list(&SagaFilter::default(), None, 10).await.unwrap().len(), 2, "lists");
    assert_eq!(store.orphans(Share::ALL, 10).await.unwrap().len(), 2, "recovery");
}

/// Saga `torn` with two events more than its head row will admit to, and a batch that goes on with it.
pub(crate) async fn plant_taken(store: &dyn Store) -> [Append; 3] {
    let (mut torn, start) = Sample::start("torn");
    let mut rival = torn.clone();
    let (mut left, left_start) = Sample::start("left");
    let right_start = Sample::start("right").1;
    let batch = [start, torn.succeed(0, b"torn"), left_start];
    for append in &batch {
        assert_eq!(store.append(std::slice::from_ref(append)).await.unwrap(), [Appended::Written]);
    }
    [left.succeed(0, b"left"), rival.succeed(0, b"rival"), right_start]
}

pub(crate) async fn assert_only_the_torn_one_is_lost(store: &dyn Store, batch: &[Append; 3]) {
    let results = store.append(batch).await.unwrap();
    assert_eq!(results, [Appended::Written, Appended::Lost, Appended::Written]);
    assert_eq!(store.head(&id("torn")).await.unwrap().unwrap().seq, Seq(1), "its head is as it was");
    assert_eq!(store.events(&id("torn"), Seq(0), 9).await.unwrap().len(), 3);
    assert_eq!(store.events(&id("left"), Seq(0), 9).await.unwrap().len(), 3);
    assert_eq!(store.events(&id("right"), Seq(0), 9).await.unwrap().len(), 1);
}

/// Appends dropped half-way; afterwards each is whole or not there, and the store works.
pub(crate) async fn abandon_appends<S: Store>(store: Arc<S>) {
    let spec = definition("wide", 8);
    for n in 0..60_usize {
        let name = format!("abandoned-{n}");
        let (mut saga, start) =
            Sample::start_with(&name, &spec, LONG_AGO, BTreeMap::new(), Bytes::from(vec![1; 4096]));
        let events = [start, saga.succeed(0, b"a"), saga.succeed(1, b"b")];
        let whole = Append {
            saga: saga.saga.id.clone(),
            expected: Seq(0),
            events: events.iter().flat_map(|append| append.events.clone()).collect(),
            head: saga.head(),
        };
        let (for_task, appended) = (store.clone(), whole.clone());
        let task = tokio::spawn(async move { for_task.append(&[appended]).await });
        for _ in 0..n {
            tokio::task::yield_now().await;
        }
        task.abort();
        let _ = task.await;
        // Written again it is recognised, or goes in: both are the same to the caller.
        assert_eq!(store.append(std::slice::from_ref(&whole)).await.unwrap(), [Appended::Written]);
        assert_eq!(store.events(&whole.saga, Seq(0), 99).await.unwrap(), whole.events);
    }
}

pub(crate) type ViewRow = (String, String, Option<String>, Option<i64>, Option<String>, String);

pub(crate) const VIEW: &str = "SELECT step, last_event, phase, attempt, fin_code, saga_state FROM saga_step WHERE saga_id = 'seen' ORDER BY step";

/// Saga `seen`: step 0 done and undone in vain once, step 1 refused, step 2 never answered.
pub(crate) async fn plant_for_view(store: &dyn Store) {
    use backstop_core::{Evidence, Phase};
    let spec = definition("wide", 3);
    let (mut saga, start) =
        Sample::start_with("seen", &spec, LONG_AGO, BTreeMap::new(), Bytes::from_static(b"{}"));
    let appends = [
        start,
        saga.succeed(0, b""),
        saga.refuse(1, Code::InvalidArgument, "account closed"),
        saga.answer(0, Phase::Compensation, failed(Evidence::ParticipantSaid(Code::Unavailable), "later")),
    ];
    for append in appends {
        assert_eq!(store.append(&[append]).await.unwrap(), [Appended::Written]);
    }
}

pub(crate) fn assert_view(rows: &[ViewRow]) {
    let row = |step: &str, event: &str, phase: &str, fin: &str| {
        let text = |text: &str| Some(text.to_owned());
        (step.to_owned(), event.to_owned(), text(phase), Some(1), text(fin), "ROLLING_BACK".to_owned())
    };
    assert_eq!(
        rows,
        [
            row("s0", "compensation_failed", "compensation", "FIN-50302"),
            row("s1", "action_failed", "action", "FIN-40005"),
        ]
    );
}
