//! Postgres keeps the contract, and what only a server can do wrong. Each test has a database of its own in
//! one throw-away cluster; those that crash the server have a cluster of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_engine::ports::store::{Append, Appended, Share, Store, StoreError};
use backstop_engine::store_contract::sample::{Sample, id};
use backstop_engine::store_contract::{Bench, run};
use backstop_sql::testing::Postgres;
use backstop_sql::{OpenError, PostgresSettings, PostgresStore, postgres_migrate};
use common::{database, execute, open};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::time::Duration;

async fn contract_in(arguments: &'static [&'static str]) {
    run(async || {
        let url = Postgres::shared().unwrap().create_database_with(arguments).unwrap();
        postgres_migrate(&url).await.unwrap();
        let (store, second) = (Arc::new(open(&url).await), Arc::new(open(&url).await));
        Bench { store, second, exclusive: false }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_keeps_the_contract() {
    contract_in(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_database_of_a_language_does_not_change_any_order() {
    let icu =
        ["--template", "template0", "--locale-provider", "icu", "--icu-locale", "de-AT", "--locale", "C"];
    let url = Postgres::shared().unwrap().create_database_with(&icu).unwrap();
    let mut db = PgConnection::connect(&url).await.unwrap();
    let by_language: bool = sqlx::query_scalar("SELECT 'a' < 'B'").fetch_one(&mut db).await.unwrap();
    assert!(by_language, "this database would sort by language");
    db.close().await.unwrap();
    contract_in(&[
        "--template",
        "template0",
        "--locale-provider",
        "icu",
        "--icu-locale",
        "de-AT",
        "--locale",
        "C",
    ])
    .await;
}

#[tokio::test]
async fn a_schema_that_is_not_this_programs_is_refused_and_told_what_to_do() {
    let url = Postgres::shared().unwrap().create_database().unwrap();
    let older = PostgresStore::connect(&url, PostgresSettings::default()).await.unwrap_err();
    assert!(matches!(older, OpenError::SchemaOlder { found: 0, needed: 5 }), "{older:?}");
    assert!(older.to_string().contains("run `backstop migrate`"), "{older}");
    postgres_migrate(&url).await.unwrap();
    postgres_migrate(&url).await.unwrap();
    drop(open(&url).await);
    execute(
        &url,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'of tomorrow', true, ''::bytea, 0)",
    )
    .await;
    // A migration that only adds leaves programs before it in: one of them may have to be restarted meanwhile.
    drop(open(&url).await);
    postgres_migrate(&url).await.unwrap();
    execute(&url, "UPDATE schema_compatibility SET oldest_migration = 99").await;
    let newer = PostgresStore::connect(&url, PostgresSettings::default()).await.unwrap_err();
    assert!(matches!(newer, OpenError::SchemaNewer { found: 99, needed: 5 }), "{newer:?}");
    assert!(matches!(postgres_migrate(&url).await, Err(OpenError::SchemaNewer { .. })), "and left alone");
    execute(
        &url,
        "DELETE FROM _sqlx_migrations WHERE version = 99; UPDATE _sqlx_migrations SET checksum = ''",
    )
    .await;
    let other = PostgresStore::connect(&url, PostgresSettings::default()).await.unwrap_err();
    assert!(matches!(other, OpenError::SchemaDiffers(1)), "{other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_programs_may_migrate_at_once() {
    let url = Postgres::shared().unwrap().create_database().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { postgres_migrate(&url).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    drop(open(&url).await);
}

#[tokio::test]
async fn no_error_tells_the_password() {
    for url in [
        "postgres://ada:s3cret@127.0.0.1:1/bank",
        "postgres://ada:s3cret@127.0.0.1:port/bank",
        "ada:s3cret",
        "postgres://ada:s3cret@127.0.0.1:1/bank?sslmode=s3cret",
    ] {
        let error = PostgresStore::connect(url, PostgresSettings::default()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{url}: {error:?}");
        let error = postgres_migrate(url).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_harms_nobody_else() {
    for (column, value) in common::UNREADABLE {
        let url = database().await;
        let store = open(&url).await;
        let (start, other) = common::plant(&store).await;
        execute(&url, &format!("UPDATE saga_event SET {column} = {value} WHERE saga_id = 'bad' AND seq = 2"))
            .await;
        common::assert_only_one_is_unreadable(&store, &start, &other, column).await;
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_named_and_harms_no_journal() {
    let url = database().await;
    let store = open(&url).await;
    common::plant(&store).await;
    execute(&url, "UPDATE saga SET state = 'OF_TOMORROW' WHERE id = 'bad'").await;
    for result in [store.head(&id("bad")).await.map(|_| ()), store.journal(&id("bad")).await.map(|_| ())] {
        let Err(StoreError::Unreadable(text)) = result else { panic!("{result:?}") };
        assert_eq!(text, "the head of saga bad: state \"OF_TOMORROW\" is unknown");
    }
    assert!(store.head(&id("good")).await.unwrap().is_some());
    assert_eq!(store.orphans(Share::ALL, 10).await.unwrap().len(), 2, "recovery finds both");
}

#[tokio::test]
async fn a_journal_ahead_of_its_head_loses_its_saga_and_not_the_batch() {
    let url = database().await;
    let store = open(&url).await;
    let batch = common::plant_taken(&store).await;
    execute(&url, "UPDATE saga SET seq = 1 WHERE id = 'torn'").await;
    common::assert_only_the_torn_one_is_lost(&store, &batch).await;
}

#[tokio::test]
async fn the_view_shows_the_last_event_of_each_step() {
    let url = database().await;
    common::plant_for_view(&open(&url).await).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    let rows: Vec<common::ViewRow> = sqlx::query_as(common::VIEW).fetch_all(&mut db).await.unwrap();
    common::assert_view(&rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_append_whose_caller_went_away_is_whole_or_not_there() {
    common::abandon_appends(Arc::new(open(&database().await).await)).await;
}

#[tokio::test]
async fn every_session_waits_for_the_disk_and_says_who_it_is() {
    let url = database().await;
    let store = open(&url).await;
    store.append(&[Sample::start("seen").1]).await.unwrap();
    store.now().await.unwrap();
    let mut db = PgConnection::connect(&url).await.unwrap();
    let sessions: Vec<String> = sqlx::query_scalar(
        "SELECT application_name::text FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    assert!(sessions.len() >= 3 && sessions.iter().all(|name| name == "backstop"), "{sessions:?}");
    // A database whose default is to answer before the disk has it.
    let lax = Postgres::shared().unwrap().create_database().unwrap();
    let name = lax.rsplit('/').next().unwrap();
    execute(&lax, &format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    postgres_migrate(&lax).await.unwrap();
    let store = open(&lax).await;
    execute(
        &lax,
        "CREATE FUNCTION check_session() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF current_setting('synchronous_commit') <> 'on' THEN RAISE 'not durable'; END IF;
             IF current_setting('statement_timeout') <> '10s' THEN RAISE 'no timeout'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER check_session BEFORE INSERT ON saga FOR EACH ROW EXECUTE FUNCTION check_session()",
    )
    .await;
    assert_eq!(store.append(&[Sample::start("durable").1]).await, Ok(vec![Appended::Written]));
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_surely_not_applied() {
    let url = database().await;
    let settings =
        PostgresSettings { statement_timeout: Duration::from_millis(200), ..PostgresSettings::default() };
    let store = PostgresStore::connect(&url, settings).await.unwrap();
    let (mut saga, start) = Sample::start("held");
    store.append(&[start]).await.unwrap();
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    sqlx::query("UPDATE saga SET epoch = 1 WHERE id = 'held'").execute(&mut *tx).await.unwrap();
    let done = saga.succeed(0, b"done");
    let held = store.append(std::slice::from_ref(&done)).await;
    assert!(matches!(held, Err(StoreError::NotApplied(_))), "{held:?}");
    tx.rollback().await.unwrap();
    assert_eq!(store.append(&[done]).await, Ok(vec![Appended::Written]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_written_survives_a_crash_of_the_server_and_the_store_goes_on() {
    let cluster = Postgres::start().unwrap();
    let url = cluster.create_database().unwrap();
    postgres_migrate(&url).await.unwrap();
    let store = Arc::new(open(&url).await);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut written = Vec::new();
            for n in 0.. {
                let append = Sample::start(&format!("crash-{n}")).1;
                match store.append(std::slice::from_ref(&append)).await {
                    Ok(results) => written.extend(std::iter::zip([append], results)),
                    Err(error) => return (written, append, error),
                }
            }
            unreachable!("the server is killed")
        })
    };
    // Far enough for the crash to fall among appends.
    while store.events(&id("crash-50"), backstop_core::Seq(0), 1).await.unwrap().is_empty() {}
    cluster.kill().unwrap();
    let (written, cut, error) = writer.await.unwrap();
    assert!(written.len() > 50);
    assert!(!matches!(error, StoreError::Unreadable(_)), "{error}");
    let down = store.append(std::slice::from_ref(&cut)).await;
    assert!(matches!(down, Err(StoreError::NotApplied(_))), "it could not even connect: {down:?}");
    cluster.restart().unwrap();
    for (append, result) in written {
        assert_eq!(result, Appended::Written);
        let journal = store.journal(&append.saga).await;
        let journal = if journal.is_err() { store.journal(&append.saga).await } else { journal };
        assert_eq!(journal.unwrap().unwrap().events, append.events, "acknowledged, so there");
    }
    assert_eq!(
        store.append(&[cut]).await,
        Ok(vec![Appended::Written]),
        "its fate is settled by repeating it"
    );
}

#[tokio::test]
async fn a_connection_that_is_cut_leaves_its_append_unknown_and_repeating_settles_it() {
    let url = database().await;
    let store = Arc::new(open(&url).await);
    let (mut saga, start) = Sample::start("cut");
    store.append(&[start]).await.unwrap();
    let done = saga.succeed(0, b"done");
    // A row lock of ours holds the append where it can be cut off.
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    sqlx::query("UPDATE saga SET epoch = 1 WHERE id = 'cut'").execute(&mut *tx).await.unwrap();
    let append = {
        let (store, done) = (store.clone(), done.clone());
        tokio::spawn(async move { store.append(&[done]).await })
    };
    let mut cut = false;
    while !cut {
        cut = sqlx::query_scalar(
            "SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    }
    let result = append.await.unwrap();
    assert!(matches!(result, Err(StoreError::Unknown(_))), "{result:?}");
    tx.rollback().await.unwrap();
    assert_eq!(store.append(std::slice::from_ref(&done)).await, Ok(vec![Appended::Written]));
    assert_eq!(store.append(&[done]).await, Ok(vec![Appended::Written]));
}

#[tokio::test]
async fn two_batches_that_wait_for_each_other_are_settled_by_repeating() {
    let url = database().await;
    let store = open(&url).await;
    let (mut a, a_start) = Sample::start("a");
    let (mut b, b_start) = Sample::start("b");
    store.append(&[a_start, b_start]).await.unwrap();
    let batch: [Append; 2] = [a.succeed(0, b"a"), b.succeed(0, b"b")];
    // We hold b and want a; the store holds a and wants b.
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    sqlx::query("SET LOCAL deadlock_timeout = '1h'").execute(&mut *tx).await.unwrap();
    sqlx::query("UPDATE saga SET epoch = 1 WHERE id = 'b'").execute(&mut *tx).await.unwrap();
    let ours = async {
        let mut waiting = false;
        let mut watch = PgConnection::connect(&url).await.unwrap();
        while !waiting {
            waiting = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                                WHERE datname = current_database() AND wait_event_type = 'Lock')",
            )
            .fetch_one(&mut watch)
            .await
            .unwrap();
        }
        sqlx::query("UPDATE saga SET epoch = 1 WHERE id = 'a'").execute(&mut *tx).await.unwrap();
        tx.rollback().await.unwrap();
    };
    let (refused, ()) = tokio::join!(store.append(&batch), ours);
    assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{refused:?}");
    assert_eq!(store.append(&batch).await, Ok(vec![Appended::Written, Appended::Written]));
}
