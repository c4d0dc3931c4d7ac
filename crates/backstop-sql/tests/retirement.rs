//! Retirement in Postgres, where the journal has partitions. What every store promises of it is told by the
//! contract; here is what only partitions and a server can do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_core::{Seq, Timestamp};
use backstop_engine::ports::store::{Append, Appended, Retention, Retired, Store, StoreError};
use backstop_engine::store_contract::sample::{LONG_AGO, Sample, definition, id};
use backstop_sql::{PostgresSettings, PostgresStore};
use bytes::Bytes;
use common::{database, execute, open};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DAY: i64 = 24 * 3600 * 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const JOURNALS: Retention = Retention { journals_for: HOUR, ids_for: AGES };
const ALL: Retention = Retention { journals_for: HOUR, ids_for: HOUR };

/// The partition of a day after [`LONG_AGO`], as the program would have made it then.
async fn plant_partition(url: &str, day: i64) -> String {
    let (name, from) = (format!("journal_day_{day}"), LONG_AGO.0 + day * DAY);
    execute(
        url,
        &format!(
            "CREATE TABLE {name} (LIKE journal INCLUDING DEFAULTS, PRIMARY KEY (saga_id, seq));
             ALTER TABLE journal ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({})",
            from + DAY
        ),
    )
    .await;
    name
}

fn born(saga: &str, day: i64) -> (Sample, Append) {
    let (spec, at) = (definition("transfer", 1), Timestamp(LONG_AGO.0 + day * DAY + 1_000));
    Sample::start_with(saga, &spec, at, BTreeMap::new(), Bytes::from_static(b"{}"))
}

async fn write(store: &dyn Store, appends: &[Append]) {
    for append in appends {
        assert_eq!(store.append(std::slice::from_ref(append)).await, Ok(vec![Appended::Written]));
    }
}

/// A saga that has ended.
async fn plant(store: &dyn Store, saga: &str, day: i64) -> [Append; 2] {
    let (mut sample, start) = born(saga, day);
    let end = sample.succeed(0, b"done");
    write(store, &[start.clone(), end.clone()]).await;
    [start, end]
}

async fn retire_all(store: &dyn Store, retention: Retention) -> Retired {
    let mut sum = Retired::default();
    for _ in 0..1000 {
        let bite = store.retire(retention, 100).await.unwrap();
        sum.journals += bite.journals;
        sum.sagas += bite.sagas;
        sum.partitions += bite.partitions;
        if !bite.more {
            return sum;
        }
    }
    panic!("it does not end: {sum:?}")
}

async fn number(url: &str, sql: &str) -> i64 {
    let mut db = PgConnection::connect(url).await.unwrap();
    let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut db).await.unwrap();
    db.close().await.unwrap();
    number
}

async fn is_there(url: &str, table: &str) -> bool {
    number(url, &format!("SELECT (to_regclass('{table}') IS NOT NULL)::int::bigint")).await == 1
}

/// Ends the backend that waits for a lock, as soon as one does.
async fn terminate_who_waits(url: &str) {
    let mut watch = PgConnection::connect(url).await.unwrap();
    let mut cut = false;
    while !cut {
        cut = sqlx::query_scalar(
            "SELECT coalesce(bool_or(pg_terminate_backend(pid, 10000)), false) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut watch)
        .await
        .unwrap();
    }
}

async fn assert_whole(store: &PostgresStore, appends: &[Append]) {
    let journal = store.journal(&appends[0].saga).await.unwrap().unwrap();
    let events: Vec<_> = appends.iter().flat_map(|append| append.events.clone()).collect();
    assert_eq!(journal.events, events);
    assert!(!journal.head.retired);
}

async fn assert_retired(store: &PostgresStore, saga: &str) {
    let journal = store.journal(&id(saga)).await.unwrap().unwrap();
    assert!(journal.head.retired && journal.events.is_empty(), "{saga}: {journal:?}");
    assert!(store.head(&id(saga)).await.unwrap().unwrap().retired);
    assert_eq!(store.events(&id(saga), Seq(0), 9).await, Ok(vec![]));
}

#[tokio::test]
async fn the_partitions_to_come_are_made_and_events_go_to_the_one_of_their_sagas_birth() {
    let url = database().await;
    let (store, _second) = tokio::join!(open(&url), open(&url));
    let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'journal'::regclass";
    assert_eq!(number(&url, sql).await, 2 + 8, "legacy, default, today and a week");
    let now = store.now().await.unwrap();
    let (mut sample, start) = Sample::start_with(
        "today",
        &definition("transfer", 1),
        now,
        BTreeMap::new(),
        Bytes::from_static(b"{}"),
    );
    write(&store, &[start, sample.succeed(0, b"")]).await;
    assert_eq!(number(&url, "SELECT count(*) FROM journal_default").await, 0);
    assert_eq!(number(&url, "SELECT count(*) FROM journal_legacy").await, 0);
    assert_eq!(store.misfits(HOUR, HOUR, 9).await, Ok(vec![]));
    plant(&store, "before-any-partition", 0).await;
    assert_eq!(store.misfits(HOUR, HOUR, 9).await.unwrap().len(), 1, "the default partition holds something");
}

#[tokio::test]
async fn a_span_in_which_all_has_ended_is_dropped_whole_and_its_ids_stay_taken() {
    let url = database().await;
    let store = open(&url).await;
    let dropped = plant_partition(&url, 0).await;
    let kept = plant_partition(&url, 1).await;
    let mut first = Vec::new();
    for saga in ["a", "b", "c"] {
        first.push(plant(&store, saga, 0).await);
    }
    let running = born("running", 1).1;
    write(&store, std::slice::from_ref(&running)).await;
    let bite = store.retire(JOURNALS, 10).await.unwrap();
    assert_eq!(bite, Retired { journals: 3, sagas: 0, partitions: 1, more: true });
    assert!(!is_there(&url, &dropped).await && is_there(&url, &kept).await);
    for saga in ["a", "b", "c"] {
        assert_retired(&store, saga).await;
    }
    assert_whole(&store, std::slice::from_ref(&running)).await;
    assert_eq!(store.append(&first[0][..1]).await, Ok(vec![Appended::Lost]), "its id is taken");
    assert_eq!(retire_all(&store, JOURNALS).await, Retired::default());
    assert_eq!(number(&url, "SELECT count(*) FROM saga WHERE retired").await, 0, "no head row was written");
    assert_eq!(retire_all(&store, ALL).await.sagas, 3);
    assert_eq!(number(&url, "SELECT count(*) FROM retired_span").await, 0, "nobody is left to be told of it");
    write(&store, &first[0]).await;
}

#[tokio::test]
async fn one_unfinished_saga_keeps_its_partition_and_the_others_journals_go_row_by_row() {
    let url = database().await;
    let store = open(&url).await;
    let partition = plant_partition(&url, 0).await;
    for saga in ["a", "b", "c"] {
        plant(&store, saga, 0).await;
    }
    let (mut running, start) = born("running", 0);
    write(&store, std::slice::from_ref(&start)).await;
    let done = retire_all(&store, JOURNALS).await;
    assert_eq!((done.journals, done.partitions), (3, 0));
    assert!(is_there(&url, &partition).await);
    assert_eq!(number(&url, &format!("SELECT count(DISTINCT saga_id) FROM {partition}")).await, 1);
    assert_retired(&store, "b").await;
    assert_whole(&store, std::slice::from_ref(&start)).await;
    write(&store, &[running.succeed(0, b"at last")]).await;
    let done = retire_all(&store, JOURNALS).await;
    assert_eq!((done.journals, done.partitions), (1, 1), "now it goes whole");
    assert_retired(&store, "running").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_and_readers_go_on_while_partitions_are_dropped() {
    let url = database().await;
    let store = Arc::new(open(&url).await);
    for day in 0..12 {
        plant_partition(&url, day).await;
        plant(store.as_ref(), &format!("old-{day}"), day).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, over) = (Arc::new(open(&url).await), over.clone());
        tokio::spawn(async move {
            let mut written = 0;
            while !over.load(Ordering::Relaxed) {
                plant(store.as_ref(), &format!("new-{written}"), 100 + written).await;
                written += 1;
            }
            written
        })
    };
    let reader = {
        let (store, over) = (Arc::new(open(&url).await), over.clone());
        tokio::spawn(async move {
            let sagas: Vec<_> = (0..12).map(|day| id(&format!("old-{day}"))).collect();
            while !over.load(Ordering::Relaxed) {
                for journal in store.journals(&sagas).await.unwrap() {
                    let journal = journal.unwrap().unwrap();
                    assert_eq!(journal.head.retired, journal.events.is_empty(), "both or neither");
                }
            }
        })
    };
    let mut partitions = 0;
    while partitions < 12 {
        partitions +=
            store.retire(Retention { journals_for: HOUR, ids_for: AGES }, 1).await.unwrap().partitions;
    }
    over.store(true, Ordering::Relaxed);
    reader.await.unwrap();
    assert!(writer.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_reads_for_long_keeps_a_partition_and_holds_up_nobody_else() {
    let url = database().await;
    let store = Arc::new(open(&url).await);
    let partition = plant_partition(&url, 0).await;
    plant(store.as_ref(), "old", 0).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM journal").fetch_one(&mut *tx).await.unwrap();
    let retiring = {
        let store = store.clone();
        tokio::spawn(async move { store.retire(JOURNALS, 10).await })
    };
    let mut n = 0;
    while !retiring.is_finished() {
        plant(store.as_ref(), &format!("new-{n}"), 100).await;
        n += 1;
    }
    assert_eq!(retiring.await.unwrap().unwrap().partitions, 0, "it gave up");
    assert!(is_there(&url, &partition).await);
    tx.rollback().await.unwrap();
    assert!(retire_all(store.as_ref(), JOURNALS).await.partitions <= 1);
    assert_retired(&store, "old").await;
}

#[tokio::test]
async fn a_span_that_cannot_be_looked_at_in_time_ends_the_looking_and_not_the_bite() {
    let url = database().await;
    let settings = PostgresSettings {
        connections_max: 3,
        statement_timeout: Duration::from_secs(1),
        ..PostgresSettings::default()
    };
    let store = PostgresStore::connect(&url, settings).await.unwrap();
    for day in 0..3 {
        plant_partition(&url, day).await;
        plant(&store, &format!("old-{day}"), day).await;
    }
    // Whoever reads all head rows of a span, as the last look at it does, comes to no end.
    execute(
        &url,
        "CREATE SEQUENCE looks;
         CREATE FUNCTION be_slow() RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             IF current_query() LIKE '%bool_and(%' THEN
                 PERFORM nextval('looks');
                 PERFORM pg_sleep(3600);
             END IF;
             RETURN true;
         END $$;
         ALTER TABLE saga RENAME TO saga_itself;
         CREATE VIEW saga AS SELECT * FROM saga_itself WHERE be_slow()",
    )
    .await;
    let bite = store.retire(JOURNALS, 10).await;
    assert_eq!(bite, Ok(Retired { journals: 3, ..Retired::default() }), "row by row");
    assert_eq!(
        number(&url, "SELECT last_value FROM looks WHERE is_called").await,
        1,
        "the next span was not looked at, too"
    );
    execute(&url, "CREATE OR REPLACE VIEW saga AS SELECT * FROM saga_itself").await;
    assert_eq!(retire_all(&store, JOURNALS).await.partitions, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn peer_41_an_interrupted_drop_leaves_the_partition_and_no_mark() {
    let url = database().await;
    let store = Arc::new(open(&url).await);
    let partition = plant_partition(&url, 0).await;
    let appends = plant(store.as_ref(), "old", 0).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    // The mark is written when the drop begins to wait for this.
    sqlx::query("SELECT count(*) FROM journal").fetch_one(&mut *tx).await.unwrap();
    let retiring = {
        let store = store.clone();
        tokio::spawn(async move { store.retire(JOURNALS, 10).await })
    };
    terminate_who_waits(&url).await;
    let cut = retiring.await.unwrap();
    assert!(matches!(cut, Err(StoreError::NotApplied(_))), "{cut:?}");
    assert_eq!(number(&url, "SELECT count(*) FROM retired_span").await, 0);
    assert!(is_there(&url, &partition).await);
    assert_whole(&store, &appends).await;
    tx.rollback().await.unwrap();
    assert_eq!(retire_all(store.as_ref(), JOURNALS).await.partitions, 1);
    assert_retired(&store, "old").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_interrupted_bite_leaves_events_and_no_mark() {
    let url = database().await;
    let store = Arc::new(open(&url).await);
    let appends = plant(store.as_ref(), "old", 0).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    sqlx::query("SELECT seq FROM journal WHERE saga_id = 'old' AND seq = 2 FOR UPDATE")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let retiring = {
        let store = store.clone();
        tokio::spawn(async move { store.retire(JOURNALS, 10).await })
    };
    terminate_who_waits(&url).await;
    let cut = retiring.await.unwrap();
    assert!(matches!(cut, Err(StoreError::NotApplied(_))), "{cut:?}");
    assert_whole(&store, &appends).await;
    tx.rollback().await.unwrap();
    assert_eq!(retire_all(store.as_ref(), JOURNALS).await.journals, 1);
    assert_retired(&store, "old").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_retirers_at_once_drop_each_partition_once() {
    let url = database().await;
    let stores = [Arc::new(open(&url).await), Arc::new(open(&url).await)];
    for day in 0..6 {
        plant_partition(&url, day).await;
        plant(stores[0].as_ref(), &format!("a-{day}"), day).await;
        plant(stores[0].as_ref(), &format!("b-{day}"), day).await;
    }
    let tasks = stores.clone().map(|s| tokio::spawn(async move { retire_all(s.as_ref(), JOURNALS).await }));
    let mut sum = retire_all(stores[0].as_ref(), JOURNALS).await;
    for task in tasks {
        let done = task.await.unwrap();
        sum.journals += done.journals;
        sum.partitions += done.partitions;
    }
    let rest = retire_all(stores[0].as_ref(), JOURNALS).await;
    assert_eq!(sum.journals + rest.journals, 12, "each once, by whom and however");
    assert_eq!(
        number(&url, "SELECT count(*) FROM retired_span").await as u64,
        sum.partitions + rest.partitions
    );
    for day in 0..6 {
        assert_retired(&stores[1], &format!("b-{day}")).await;
    }
}
