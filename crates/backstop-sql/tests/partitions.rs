//! What thirty partitions cost: nothing that a reader or writer of one saga would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_core::{SagaState, Seq, Timestamp};
use backstop_engine::ports::store::{Append, Appended, MisfitKind, SagaFilter, Store};
use backstop_engine::store_contract::sample::{LONG_AGO, Sample, definition, id};
use backstop_sql::PostgresStore;
use bytes::Bytes;
use common::{database, execute, open};
use sqlx::{Connection, PgConnection, Row};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const DAY: i64 = 24 * 3600 * 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const DAYS: i64 = 30;

async fn plant_partitions(url: &str) {
    let mut sql = String::new();
    for day in 0..DAYS {
        let from = LONG_AGO.0 + day * DAY;
        sql += &format!(
            "CREATE TABLE journal_day_{day} (LIKE journal INCLUDING DEFAULTS, PRIMARY KEY (saga_id, seq));
             ALTER TABLE journal ATTACH PARTITION journal_day_{day} FOR VALUES FROM ({from}) TO ({});",
            from + DAY
        );
    }
    execute(url, &sql).await;
}

fn born(saga: &str, day: i64) -> (Sample, Append) {
    let (spec, at) = (definition("transfer", 1), Timestamp(LONG_AGO.0 + day * DAY));
    Sample::start_with(saga, &spec, at, BTreeMap::new(), Bytes::from_static(b"{}"))
}

/// How often each partition has been read.
async fn scans(db: &mut PgConnection) -> BTreeMap<String, i64> {
    let rows = sqlx::query(
        "SELECT relname::text, coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_user_tables
         WHERE relname LIKE 'journal_%'",
    );
    rows.fetch_all(db).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Until no session of this name is left but our own.
async fn sessions_end(db: &mut PgConnection, name: &str) {
    let mut sessions = 1_i64;
    while sessions > 0 {
        sessions = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()",
        )
        .bind(name)
        .fetch_one(&mut *db)
        .await
        .unwrap();
    }
}

async fn touched_since(db: &mut PgConnection, before: &BTreeMap<String, i64>) -> Vec<String> {
    let after = scans(db).await;
    after.into_iter().filter(|(name, scans)| before.get(name) != Some(scans)).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn whoever_reads_or_writes_a_saga_touches_its_own_partition_and_the_legacy_one() {
    let url = database().await;
    let store = open(&url).await;
    plant_partitions(&url).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    // To make a partition is to read it once.
    sessions_end(&mut db, "").await;
    let planted = scans(&mut db).await;
    let mut sagas = Vec::new();
    // More often than a statement is planned anew before the server may settle on one plan for all.
    for n in 0..12 {
        let (mut saga, start) = born(&format!("s-{n}"), 7);
        let done = saga.succeed(0, b"");
        for append in [start, done.clone(), done] {
            assert_eq!(store.append(std::slice::from_ref(&append)).await, Ok(vec![Appended::Written]));
            assert_eq!(store.append(std::slice::from_ref(&append)).await, Ok(vec![Appended::Written]));
        }
        sagas.push(saga.saga.id);
        assert_eq!(store.journal(&sagas[n]).await.unwrap().unwrap().events.len(), 3);
        assert_eq!(store.events(&sagas[n], Seq(1), 9).await.unwrap().len(), 2);
        assert!(store.journals(&sagas).await.unwrap().iter().all(Result::is_ok));
    }
    // What a session has counted is there for others when it has ended.
    drop(store);
    sessions_end(&mut db, "backstop").await;
    let touched = touched_since(&mut db, &planted).await;
    let others: Vec<_> = touched.iter().filter(|name| name.starts_with("journal_day_")).collect();
    assert_eq!(others, ["journal_day_7"], "{touched:?}");
    // Nobody has analysed that partition, and a planner left to itself takes it for small.
    let whole: i64 =
        sqlx::query_scalar("SELECT seq_scan - $1 FROM pg_stat_user_tables WHERE relname = 'journal_day_7'")
            .bind(planted["journal_day_7"])
            .fetch_one(&mut db)
            .await
            .unwrap();
    assert_eq!(whole, 0, "it is never read from end to end");
}

#[tokio::test]
async fn a_list_of_what_is_unfinished_reads_nothing_that_is_over() {
    let url = database().await;
    let store = open(&url).await;
    let mut newest = Vec::new();
    for day in 0..4 {
        let saga = format!("running-{day}");
        assert_eq!(store.append(&[born(&saga, day).1]).await, Ok(vec![Appended::Written]));
        newest.insert(0, id(&saga));
    }
    // All that is over was born after them: by birth, newest first, it comes before.
    execute(
        &url,
        "INSERT INTO saga (id, definition, revision, state, seq, epoch, labels, fingerprint, created_at, updated_at,
                           ended_at)
         SELECT 'over-' || n, definition, revision, 'SUCCEEDED', 9, epoch, labels, fingerprint, created_at + n, updated_at,
                updated_at
         FROM saga, generate_series(1, 5000) AS n WHERE id = 'running-3';
         ANALYZE saga",
    )
    .await;
    let unfinished = [SagaState::Running, SagaState::RollingBack, SagaState::NeedsIntervention];
    for states in [&unfinished[..1], &unfinished[..2], &unfinished[..]] {
        for definition in [None, Some(born("any", 0).1.head.definition.name)] {
            let filter = SagaFilter { states: states.to_vec(), definition, ..SagaFilter::default() };
            let listed = store.list(&filter, None, 10).await.unwrap();
            assert_eq!(listed.into_iter().map(|head| head.saga).collect::<Vec<_>>(), newest);
        }
    }
    let over = SagaFilter { states: vec![SagaState::Running, SagaState::Succeeded], ..SagaFilter::default() };
    assert_eq!(store.list(&over, None, 9999).await.unwrap().len(), 5004, "what is over is asked for, too");
    let mut db = PgConnection::connect(&url).await.unwrap();
    let by_birth = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
                    WHERE indexrelname IN ('saga_by_birth', 'saga_of_definition')";
    let whole = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'saga'";
    // What a session has counted is there for others when it has ended.
    drop(store);
    sessions_end(&mut db, "backstop").await;
    sessions_end(&mut db, "").await;
    let by_birth: i64 = sqlx::query_scalar(by_birth).fetch_one(&mut db).await.unwrap();
    assert!(by_birth <= 5004, "only the last one walks along all sagas: {by_birth}");
    let whole: i64 = sqlx::query_scalar(whole).fetch_one(&mut db).await.unwrap();
    assert!(whole < 5000, "none reads the table: {whole}");
}

#[tokio::test]
async fn a_running_sagas_updates_stay_on_their_page() {
    let url = database().await;
    let store = open(&url).await;
    let (mut saga, start) = Sample::start_with(
        "hot",
        &definition("wide", 9),
        LONG_AGO,
        BTreeMap::new(),
        Bytes::from_static(b"{}"),
    );
    let mut appends = vec![start];
    appends.extend((0..8).map(|step| saga.succeed(step, b"")));
    for append in appends {
        assert_eq!(store.append(&[append]).await, Ok(vec![Appended::Written]));
    }
    drop(store);
    let mut db = PgConnection::connect(&url).await.unwrap();
    sessions_end(&mut db, "backstop").await;
    let sql = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'saga'";
    let row = sqlx::query(sql).fetch_one(&mut db).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (8, 8), "no index is touched before the end");
}

#[tokio::test]
async fn checks_find_what_is_wrong_with_the_journals_tables() {
    let url = database().await;
    let store = open(&url).await;
    plant_partitions(&url).await;
    assert_eq!(store.append(&[born("whole", 3).1, born("headless", 4).1]).await.unwrap().len(), 2);
    execute(&url, "DELETE FROM saga WHERE id = 'headless'; UPDATE saga SET owner = NULL, wake_at = 9e15")
        .await;
    let misfits = store.misfits(HOUR, HOUR, 9).await.unwrap();
    assert_eq!(misfits.len(), 1, "{misfits:?}");
    assert_eq!((misfits[0].kind, misfits[0].subject.as_str()), (MisfitKind::WithoutHead, "headless"));
    execute(
        &url,
        "DELETE FROM journal WHERE saga_id = 'headless'; UPDATE _sqlx_migrations SET checksum = ''",
    )
    .await;
    let misfits = store.misfits(HOUR, HOUR, 9).await.unwrap();
    assert_eq!(misfits.iter().map(|misfit| misfit.kind).collect::<Vec<_>>(), [MisfitKind::Schema]);
    // Nobody has made partitions for days.
    let names = "SELECT string_agg(inhrelid::regclass::text, ', ') FROM pg_inherits
                 WHERE inhparent = 'journal'::regclass AND inhrelid::regclass::text ~ '_00'";
    let mut db = PgConnection::connect(&url).await.unwrap();
    let names: String = sqlx::query_scalar(names).fetch_one(&mut db).await.unwrap();
    execute(&url, &format!("DROP TABLE {names}")).await;
    assert_eq!(store.misfits(HOUR, HOUR, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_format_of_a_newer_program_is_told_as_such_and_harms_nobody_else() {
    let url = database().await;
    let store = open(&url).await;
    assert_eq!(store.append(&[born("newer", 0).1, born("good", 0).1]).await.unwrap().len(), 2);
    execute(&url, "UPDATE journal SET format = 2, kind = 'of_tomorrow' WHERE saga_id = 'newer'").await;
    use backstop_engine::ports::store::StoreError;
    let newer = store.journal(&id("newer")).await;
    assert!(
        matches!(&newer, Err(StoreError::Newer(text)) if text.starts_with("event 1 of saga newer: ")),
        "{newer:?}"
    );
    let both = store.journals(&[id("newer"), id("good")]).await.unwrap();
    assert!(matches!(both[0], Err(StoreError::Newer(_))), "{both:?}");
    assert!(both[1].as_ref().unwrap().is_some());
}

async fn batch(store: &PostgresStore, round: usize, name: &str) -> Duration {
    let starts: Vec<Append> =
        (0..64).map(|n| born(&format!("{name}-{round}-{n}"), round as i64 % DAYS).1).collect();
    let begin = Instant::now();
    let written = store.append(&starts).await.unwrap();
    let took = begin.elapsed();
    assert_eq!(written, vec![Appended::Written; 64]);
    took
}

/// Not a test of anything: prints what partitions cost an append. `cargo test --release … -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_partitions_cost_an_append_of_64() {
    let (plain_url, parted_url) = (database().await, database().await);
    let (plain, parted) = (open(&plain_url).await, open(&parted_url).await);
    plant_partitions(&parted_url).await;
    execute(
        &plain_url,
        "ALTER TABLE journal RENAME TO journal_parted;
         CREATE TABLE journal (LIKE journal_parted INCLUDING DEFAULTS, PRIMARY KEY (saga_id, seq))",
    )
    .await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..300 {
        without.push(batch(&plain, round, "plain").await);
        with.push(batch(&parted, round, "parted").await);
    }
    without.sort();
    with.sort();
    let ratio = |at: usize| with[at].as_secs_f64() / without[at].as_secs_f64();
    println!("one table: median {:?}, tenth {:?}", without[150], without[30]);
    println!("30 partitions: median {:?}, tenth {:?}", with[150], with[30]);
    println!("ratio: median {:.3}, tenth {:.3}", ratio(150), ratio(30));
}
