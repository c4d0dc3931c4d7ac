//! From the schema of the version before to this one's, with coordinators of both running on it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_core::Seq;
use backstop_engine::ports::store::{Append, Appended, Retention, Share, Store};
use backstop_engine::store_contract::sample::{LONG_AGO, Sample, coordinator, definition, id};
use backstop_sql::postgres_migrate;
use backstop_sql::testing::Postgres;
use bytes::Bytes;
use common::{database, open};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row, SqlSafeStr};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// The statements of commit 3b0eb08 (schema 1), word for word: what a coordinator that has not been upgraded yet
/// goes on to send. Never changed.
mod before {
    pub(crate) const APPEND: &str = "
WITH head AS (
    SELECT * FROM UNNEST(
        $1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[],
        $8::text[], $9::bigint[], $10::text[], $11::text[], $12::bytea[], $13::bigint[], $14::bigint[],
        $15::bigint[]
    ) AS h (id, expected, definition, revision, state, seq, epoch, owner, wake_at, fin_code, labels,
            fingerprint, created_at, updated_at, ended_at)
), created AS (
    INSERT INTO saga (id, definition, revision, state, seq, epoch, owner, wake_at, fin_code, labels,
                      fingerprint, created_at, updated_at, ended_at)
    SELECT id, definition, revision, state, seq, epoch, owner, wake_at, fin_code, labels::jsonb,
           fingerprint, created_at, updated_at, ended_at
    FROM head WHERE expected = 0
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), moved AS (
    UPDATE saga SET state = head.state, seq = head.seq, epoch = head.epoch, owner = head.owner,
                    wake_at = head.wake_at, fin_code = head.fin_code, updated_at = head.updated_at,
                    ended_at = head.ended_at
    FROM head
    WHERE head.expected > 0 AND saga.id = head.id AND saga.seq = head.expected
    RETURNING saga.id
), written AS (
    SELECT id FROM created UNION ALL SELECT id FROM moved
), journal AS (
    INSERT INTO saga_event (saga_id, seq, kind, step, phase, attempt, status, evidence, effect, fin_code,
                            tier, clock, epoch, at, elapsed_us, message, format, payload)
    SELECT * FROM UNNEST(
        $16::text[], $17::bigint[], $18::text[], $19::text[], $20::text[], $21::bigint[], $22::text[],
        $23::text[], $24::text[], $25::text[], $26::text[], $27::bigint[], $28::bigint[], $29::bigint[],
        $30::bigint[], $31::text[], $32::smallint[], $33::bytea[]
    ) AS e (saga_id, seq, kind, step, phase, attempt, status, evidence, effect, fin_code, tier, clock,
            epoch, at, elapsed_us, message, format, payload)
    WHERE (e.saga_id IN (SELECT id FROM written)) IS TRUE
)
SELECT id FROM written";

    pub(crate) const EVENTS: &str =
        "SELECT * FROM saga_event WHERE saga_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";

    pub(crate) const READ_ROWS: &str = "
SELECT saga_event.* FROM UNNEST($1::text[], $2::bigint[]) AS wanted (saga_id, seq)
JOIN saga_event ON saga_event.saga_id = wanted.saga_id AND saga_event.seq = wanted.seq";

    pub(crate) const ENTER: &str =
        "WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now),
              gone AS (DELETE FROM coordinator USING clock
                       WHERE coordinator.id <> $1 AND coordinator.expires_at < clock.now - $4)
         INSERT INTO coordinator (id, address, started_at, expires_at)
         SELECT $1, $2, now, now + $3 FROM clock
         ON CONFLICT (id) DO UPDATE SET
             address = excluded.address, started_at = excluded.started_at, expires_at = excluded.expires_at";

    pub(crate) const PUT_PARTICIPANT: &str =
        "INSERT INTO participant (name, endpoints, deduplicates_by_key, rollback_listener, in_flight_max,
                                  keepalive_us, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (name) DO UPDATE SET
             endpoints = excluded.endpoints, deduplicates_by_key = excluded.deduplicates_by_key,
             rollback_listener = excluded.rollback_listener, in_flight_max = excluded.in_flight_max,
             keepalive_us = excluded.keepalive_us, updated_at = excluded.updated_at";
}

/// A coordinator of the version before: one session, whose statements stay prepared.
struct Before {
    session: PgConnection,
    /// Where rows are made as they are stored; format 1 has not changed.
    scratch: String,
}

impl Before {
    async fn new(url: &str) -> Self {
        Self { session: PgConnection::connect(url).await.unwrap(), scratch: database().await }
    }

    /// Writes as the version before does; answers whether it was written.
    async fn append(&mut self, append: &Append) -> bool {
        let mut db = PgConnection::connect(&self.scratch).await.unwrap();
        sqlx::raw_sql("TRUNCATE saga, journal").execute(&mut db).await.unwrap();
        let mut first = append.clone();
        // The head row of a first append with these events, whatever their numbers.
        for (n, event) in first.events.iter_mut().enumerate() {
            event.seq = Seq(n as u64 + 1);
        }
        first.expected = Seq(0);
        first.head.seq = Seq(first.events.len() as u64);
        let store = open(&self.scratch).await;
        assert_eq!(store.append(&[first]).await, Ok(vec![Appended::Written]));
        let head =
            sqlx::query("SELECT *, labels::text AS labels_text FROM saga").fetch_one(&mut db).await.unwrap();
        let events: Vec<PgRow> =
            sqlx::query("SELECT * FROM saga_event ORDER BY seq").fetch_all(&mut db).await.unwrap();
        let text = |name: &str| vec![head.get::<Option<String>, _>(name)];
        let number = |name: &str| vec![head.get::<Option<i64>, _>(name)];
        let texts = |name: &str| events.iter().map(|e| e.get::<Option<String>, _>(name)).collect::<Vec<_>>();
        let numbers = |name: &str| events.iter().map(|e| e.get::<Option<i64>, _>(name)).collect::<Vec<_>>();
        let expected = append.expected.0 as i64;
        let seqs: Vec<i64> = (1..=events.len() as i64).map(|n| expected + n).collect();
        let written = sqlx::query(before::APPEND)
            .bind(text("id"))
            .bind(vec![expected])
            .bind(text("definition"))
            .bind(number("revision"))
            .bind(text("state"))
            .bind(vec![append.head.seq.0 as i64])
            .bind(number("epoch"))
            .bind(text("owner"))
            .bind(number("wake_at"))
            .bind(text("fin_code"))
            .bind(text("labels_text"))
            .bind(vec![head.get::<Vec<u8>, _>("fingerprint")])
            .bind(number("created_at"))
            .bind(number("updated_at"))
            .bind(number("ended_at"))
            .bind(texts("saga_id"))
            .bind(seqs)
            .bind(texts("kind"))
            .bind(texts("step"))
            .bind(texts("phase"))
            .bind(numbers("attempt"))
            .bind(texts("status"))
            .bind(texts("evidence"))
            .bind(texts("effect"))
            .bind(texts("fin_code"))
            .bind(texts("tier"))
            .bind(numbers("clock"))
            .bind(numbers("epoch"))
            .bind(numbers("at"))
            .bind(numbers("elapsed_us"))
            .bind(texts("message"))
            .bind(events.iter().map(|e| e.get::<i16, _>("format")).collect::<Vec<_>>())
            .bind(events.iter().map(|e| e.get::<Vec<u8>, _>("payload")).collect::<Vec<_>>())
            .fetch_all(&mut self.session)
            .await
            .unwrap();
        written.len() == 1
    }

    /// The numbers of the events that it reads, in two ways.
    async fn seqs(&mut self, saga: &str) -> Vec<i64> {
        let rows = sqlx::query(before::EVENTS).bind(saga).bind(0_i64).bind(99_i64);
        let rows = rows.fetch_all(&mut self.session).await.unwrap();
        let seqs: Vec<i64> = rows.iter().map(|row| row.get("seq")).collect();
        let wanted = sqlx::query(before::READ_ROWS).bind(vec![saga; seqs.len()]).bind(&seqs);
        assert_eq!(wanted.fetch_all(&mut self.session).await.unwrap().len(), seqs.len());
        seqs
    }
}

/// Migrations as they are released, by their numbers from 1.
const RELEASED: [(&str, &str); 3] = [
    ("journal", include_str!("../../../migrations/postgres/0001_journal.sql")),
    ("retirement", include_str!("../../../migrations/postgres/0002_retirement.sql")),
    ("journal_partitions", include_str!("../../../migrations/postgres/0003_journal_partitions.sql")),
];

/// A database as a version left it whose newest migration this was.
async fn schema(newest: usize) -> String {
    let url = Postgres::shared().unwrap().create_database().unwrap();
    let migration = |(at, (name, sql)): (usize, &(&'static str, &'static str))| {
        let (number, name) = (at as i64 + 1, Cow::Borrowed(*name));
        Migration::new(number, name, MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator =
        Migrator::with_migrations(RELEASED[..newest].iter().enumerate().map(migration).collect());
    migrator.set_locking(false);
    let mut db = PgConnection::connect(&url).await.unwrap();
    migrator.run_direct(None, &mut db, false).await.unwrap();
    url
}

fn wide(saga: &str, at: backstop_core::Timestamp) -> (Sample, Append) {
    Sample::start_with(saga, &definition("wide", 6), at, BTreeMap::new(), Bytes::from_static(b"{}"))
}

#[tokio::test]
async fn the_version_before_runs_on_beside_this_one_and_both_drive_one_saga() {
    let url = schema(1).await;
    let mut before = Before::new(&url).await;
    let (mut saga, start) = wide("shared", LONG_AGO);
    let mut all = vec![start, saga.succeed(0, b"before")];
    for append in &all {
        assert!(before.append(append).await);
    }
    // Its statements are prepared now, and stay so over the migration.
    assert_eq!(before.seqs("shared").await, [1, 2]);
    postgres_migrate(&url).await.unwrap();
    let store = open(&url).await;
    let read = async |all: &[Append]| {
        let journal = store.journal(&id("shared")).await.unwrap().unwrap();
        let events: Vec<_> = all.iter().flat_map(|append| append.events.clone()).collect();
        assert_eq!(journal.events, events);
        assert_eq!(store.journals(&[id("shared")]).await.unwrap(), [Ok(Some(journal.clone()))]);
        assert_eq!(store.events(&id("shared"), Seq(0), 99).await.unwrap(), events);
        journal.head
    };
    assert_eq!(read(&all).await, all[1].head);
    for step in 1..5 {
        let next = saga.succeed(step, b"on");
        if step % 2 == 1 {
            assert_eq!(store.append(std::slice::from_ref(&next)).await, Ok(vec![Appended::Written]));
            assert!(!before.append(&next).await, "at a seq that is taken, whoever took it");
        } else {
            assert!(before.append(&next).await);
            // Recognised although it stands in the other partition.
            assert_eq!(store.append(std::slice::from_ref(&next)).await, Ok(vec![Appended::Written]));
        }
        all.push(next);
        assert_eq!(read(&all).await, all[all.len() - 1].head);
        assert_eq!(before.seqs("shared").await.len() as u64, saga.saga.seq.0);
    }
    let mut db = PgConnection::connect(&url).await.unwrap();
    let count = async |db: &mut PgConnection, sql: &'static str| -> i64 {
        sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
    };
    assert_eq!(count(&mut db, "SELECT count(*) FROM journal_legacy").await, 4);
    assert_eq!(count(&mut db, "SELECT count(*) FROM journal_default").await, 2);
    assert_eq!(count(&mut db, "SELECT count(*) FROM saga_step WHERE saga_id = 'shared'").await, 5);
    let end = saga.succeed(5, b"end");
    assert!(before.append(&end).await);
    let done = store.retire(Retention { journals_for: HOUR, ids_for: 1_000_000 * HOUR }, 9).await.unwrap();
    assert_eq!(done.journals, 1, "out of both partitions");
    assert_eq!(count(&mut db, "SELECT count(*) FROM saga_event").await, 0);
    assert!(store.head(&id("shared")).await.unwrap().unwrap().retired);
}

/// The number by which the server knows a table or an index; none if it is not there, or not for us to see.
async fn oid(db: &mut PgConnection, name: &str) -> Option<i64> {
    sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint").bind(name).fetch_one(db).await.unwrap()
}

#[tokio::test]
async fn a_reader_that_takes_long_holds_up_the_end_of_a_migration_and_undoes_no_index() {
    let url = schema(3).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut watch = PgConnection::connect(&url).await.unwrap();
    let mut reader = PgConnection::connect(&url).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM saga").fetch_one(&mut *reading).await.unwrap();
    let migrating = tokio::spawn({
        let url = url.clone();
        async move { postgres_migrate(&url).await }
    });
    let mut waits = async || -> bool {
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                                  WHERE datname = current_database() AND wait_event_type = 'Lock')";
        sqlx::query_scalar(sql).fetch_one(&mut watch).await.unwrap()
    };
    while !waits().await {
        assert!(!migrating.is_finished(), "it waits for the reader");
    }
    let built = [oid(&mut db, "saga_by_birth").await, oid(&mut db, "saga_of_definition").await];
    assert!(built.iter().all(Option::is_some), "built, and there for all to see: {built:?}");
    while waits().await {}
    assert!(!migrating.is_finished(), "it tries again");
    reading.rollback().await.unwrap();
    migrating.await.unwrap().unwrap();
    assert_eq!([oid(&mut db, "saga_by_birth").await, oid(&mut db, "saga_of_definition").await], built);
    for gone in ["saga_by_age", "saga_by_definition", "saga_by_end"] {
        assert_eq!(oid(&mut db, gone).await, None, "{gone}");
    }
    drop(open(&url).await);
}

#[tokio::test]
async fn an_index_that_was_not_built_to_its_end_is_named_and_no_other_goes_for_it() {
    let url = schema(3).await;
    // As a CREATE INDEX CONCURRENTLY leaves it that was broken off.
    common::execute(
        &url,
        "CREATE INDEX saga_of_definition ON saga (definition, created_at);
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'saga_of_definition'::regclass",
    )
    .await;
    let refused = postgres_migrate(&url).await.unwrap_err().to_string();
    let advice = "run \"DROP INDEX IF EXISTS saga_of_definition\" and \"CREATE INDEX CONCURRENTLY saga_of_definition ON \
                  saga (definition, created_at)\", and migrate again";
    assert!(refused.contains("the index saga_of_definition on saga is not there or not valid"), "{refused}");
    assert!(refused.contains(advice), "{refused}");
    let mut db = PgConnection::connect(&url).await.unwrap();
    assert!(oid(&mut db, "saga_by_definition").await.is_some());
    common::execute(&url, "DROP INDEX IF EXISTS saga_of_definition").await;
    common::execute(&url, "CREATE INDEX CONCURRENTLY saga_of_definition ON saga (definition, created_at)")
        .await;
    postgres_migrate(&url).await.unwrap();
    assert_eq!(oid(&mut db, "saga_by_definition").await, None);
}

#[tokio::test]
async fn a_partition_stays_while_the_version_before_has_events_of_its_span_elsewhere() {
    let url = database().await;
    let (store, mut before) = (open(&url).await, Before::new(&url).await);
    let mut db = PgConnection::connect(&url).await.unwrap();
    let sql = format!(
        "CREATE TABLE journal_then (LIKE journal INCLUDING DEFAULTS, PRIMARY KEY (saga_id, seq));
         ALTER TABLE journal ATTACH PARTITION journal_then FOR VALUES FROM ({}) TO ({})",
        LONG_AGO.0,
        LONG_AGO.0 + 3_600_000_000
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut db).await.unwrap();
    let (mut saga, start) = Sample::start("both");
    assert_eq!(store.append(&[start]).await, Ok(vec![Appended::Written]));
    assert!(before.append(&saga.succeed(0, b"")).await);
    let keep = Retention { journals_for: HOUR, ids_for: 1_000_000 * HOUR };
    let first = store.retire(keep, 9).await.unwrap();
    assert_eq!((first.journals, first.partitions), (1, 0), "row by row, out of both");
    let second = store.retire(keep, 9).await.unwrap();
    assert_eq!((second.journals, second.partitions), (0, 1), "and then whole");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM journal").fetch_one(&mut db).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn leases_and_registrations_of_the_version_before_are_seen() {
    let url = database().await;
    let (store, mut before) = (open(&url).await, Before::new(&url).await);
    let enter = sqlx::query(before::ENTER).bind("c1").bind("").bind(3_600_000_000_i64).bind(0_i64);
    enter.execute(&mut before.session).await.unwrap();
    let rows = store.coordinators().await.unwrap();
    assert!(rows[0].coordinator == coordinator("c1") && !rows[0].draining);
    assert_eq!(store.append(&[Sample::start("driven").1]).await, Ok(vec![Appended::Written]));
    assert_eq!(store.orphans(Share::ALL, 9).await, Ok(vec![]));
    let mut marks = vec![store.participants_mark().await.unwrap()];
    for at in 1..4_i64 {
        let put = sqlx::query(before::PUT_PARTICIPANT).bind("ledger").bind("[]").bind(true).bind(true);
        let put = put.bind(1_i64).bind(1_i64).bind(at);
        put.execute(&mut before.session).await.unwrap();
        marks.push(store.participants_mark().await.unwrap());
    }
    marks.dedup();
    assert_eq!(marks.len(), 4, "{marks:?}");
}
