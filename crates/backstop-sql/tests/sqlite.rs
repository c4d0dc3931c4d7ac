//! SQLite keeps the contract, and what only a file can do wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_core::Seq;
use backstop_engine::ports::store::Store;
use backstop_engine::store_contract::sample::{Sample, id};
use backstop_engine::store_contract::{Bench, run};
use backstop_sql::{OpenError, SqliteStore};
use sqlx::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_the_contract() {
    let folders = Mutex::new(Vec::new());
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path().join("backstop.db")).await.unwrap());
        folders.lock().unwrap().push(folder);
        Bench { store: store.clone(), second: store, exclusive: true }
    })
    .await;
}

#[tokio::test]
async fn what_was_written_is_there_after_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backstop.db");
    let (mut saga, start) = Sample::start("again");
    let done = saga.succeed(0, b"done");
    {
        let store = SqliteStore::open(&path).await.unwrap();
        store.append(std::slice::from_ref(&start)).await.unwrap();
        store.append(std::slice::from_ref(&done)).await.unwrap();
    }
    let store = SqliteStore::open(&path).await.unwrap();
    let journal = store.journal(&id("again")).await.unwrap().unwrap();
    assert_eq!(journal.events, [start.events, done.events].concat());
}

#[tokio::test]
async fn a_file_in_use_is_refused_by_whatever_name_and_free_again_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backstop.db");
    let link = folder.path().join("link.db");
    let store = SqliteStore::open(&path).await.unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let refused = SqliteStore::open(name).await;
        assert!(matches!(&refused, Err(OpenError::InUse(_))), "{refused:?}");
        assert!(refused.unwrap_err().to_string().contains("is in use by another coordinator"));
    }
    drop(store);
    // A child that another test forks at this moment holds the lock too until it has become another program.
    let mut opened = SqliteStore::open(&link).await;
    for _ in 0..100 {
        if !matches!(opened, Err(OpenError::InUse(_))) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        opened = SqliteStore::open(&link).await;
    }
    opened.unwrap();
}

#[tokio::test]
async fn a_file_in_use_is_refused_to_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backstop.db");
    let _store = SqliteStore::open(&path).await.unwrap();
    let lock = folder.path().join("backstop.db.lock");
    // flock(1) asks for the same lock from a process of its own.
    let ask = || std::process::Command::new("flock").args(["--nonblock"]).arg(&lock).arg("true").status();
    assert!(!ask().unwrap().success(), "the lock is held");
    drop(_store);
    assert!(ask().unwrap().success(), "and let go of");
}

#[tokio::test]
async fn a_path_that_cannot_be_used_says_so() {
    let refused = SqliteStore::open("/nowhere/at/all/backstop.db").await.unwrap_err();
    assert!(matches!(refused, OpenError::File { .. }));
    assert!(refused.to_string().starts_with("/nowhere/at/all/backstop.db: "), "{refused}");
}

async fn execute(path: &Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backstop.db");
    drop(SqliteStore::open(&path).await.unwrap());
    execute(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'of tomorrow', true, x'00', 0)",
    )
    .await;
    let refused = SqliteStore::open(&path).await;
    assert!(matches!(refused, Err(OpenError::SchemaNewer { found: 99, needed: 5 })), "{refused:?}");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_harms_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    for (column, value) in common::UNREADABLE {
        let path = folder.path().join(format!("{column}.db"));
        let store = SqliteStore::open(&path).await.unwrap();
        let (start, other) = common::plant(&store).await;
        common::damage_sqlite(&path, column, value).await;
        common::assert_only_one_is_unreadable(&store, &start, &other, column).await;
    }
}

#[tokio::test]
async fn a_journal_ahead_of_its_head_loses_its_saga_and_not_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backstop.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let batch = common::plant_taken(&store).await;
    execute(&path, "UPDATE saga SET seq = 1 WHERE id = 'torn'").await;
    common::assert_only_the_torn_one_is_lost(&store, &batch).await;
}

#[tokio::test]
async fn the_view_shows_the_last_event_of_each_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backstop.db");
    let store = SqliteStore::open(&path).await.unwrap();
    common::plant_for_view(&store).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let rows: Vec<common::ViewRow> = sqlx::query_as(common::VIEW).fetch_all(&mut db).await.unwrap();
    common::assert_view(&rows);
}

#[tokio::test]
async fn an_append_whose_caller_went_away_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path().join("backstop.db")).await.unwrap());
    common::abandon_appends(store.clone()).await;
    assert_eq!(store.events(&id("nobody"), Seq(0), 1).await, Ok(vec![]));
}
