//! A server that is no longer the one to write to: after a failover, or read-only by somebody's setting. It is refused
//! by name, no lease is judged by what it says, and no session on it outlives it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_engine::ports::store::{Append, Appended, Share, Store, StoreError, StoreResult};
use backstop_engine::store_contract::sample::{Sample, coordinator, id};
use backstop_sql::testing::Postgres;
use backstop_sql::{OpenError, PostgresSettings, PostgresStore, postgres_migrate};
use common::{database, execute};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const STANDBY: &str = "the server is a standby";
const READ_ONLY: &str = "the server takes no writes from this session";

/// One connection in the pool, and little patience.
fn settings() -> PostgresSettings {
    PostgresSettings {
        connections_max: 3,
        acquire_timeout: Duration::from_secs(1),
        ..PostgresSettings::default()
    }
}

async fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(url, settings()).await.unwrap()
}

fn start(saga: &str) -> Append {
    Sample::start(saga).1
}

async fn append(store: &dyn Store, append: &Append) -> StoreResult<Vec<Appended>> {
    store.append(std::slice::from_ref(append)).await
}

/// Uses each session of a store: the journal's, the lease's, and the one of the pool.
async fn use_all(store: &dyn Store, n: usize) -> [StoreResult<()>; 3] {
    [
        append(store, &start(&format!("used-{n}"))).await.map(drop),
        store.enter(&coordinator("c1"), "", HOUR).await,
        store.orphans(Share::ALL, 9).await.map(drop),
    ]
}

/// Every way in is refused, with these words.
async fn assert_refused(store: &dyn Store, url: &str, words: &str) {
    // What was cut off is noticed by whoever comes next.
    let _ = use_all(store, 0).await;
    for refused in use_all(store, 1).await {
        let Err(StoreError::NotApplied(text)) = &refused else { panic!("{refused:?}") };
        assert!(text.contains(words), "{text}");
    }
    let refused = PostgresStore::connect(url, settings()).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Unreachable(text) if text.contains(words)), "{refused:?}");
}

async fn assert_serves(store: &dyn Store, n: usize) {
    for served in use_all(store, n).await {
        assert_eq!(served, Ok(()));
    }
    assert!(store.head(&id(&format!("used-{n}"))).await.unwrap().is_some());
}

async fn end_sessions(url: &str) {
    execute(
        url,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await;
}

/// The sessions of stores.
async fn sessions(db: &mut PgConnection) -> Vec<i32> {
    sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'backstop' ORDER BY pid",
    )
    .fetch_all(db)
    .await
    .unwrap()
}

/// Until none of these sessions is left: a server needs a moment to notice that one has ended.
async fn assert_all_end(db: &mut PgConnection, mut left: Vec<i32>) {
    for _ in 0..600 {
        let there = sessions(db).await;
        left.retain(|session| there.contains(session));
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("still there: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_only_reads_is_refused_by_name_and_served_once_it_writes_again() {
    let (url, beside) = (database().await, Postgres::shared().unwrap().url("postgres"));
    let name = url.rsplit('/').next().unwrap();
    let store = connect(&url).await;
    assert_serves(&store, 10).await;
    execute(&beside, &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    end_sessions(&url).await;
    assert_refused(&store, &url, READ_ONLY).await;
    execute(&beside, &format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    assert_serves(&store, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_refused_by_name_and_served_once_it_is_the_primary() {
    let cluster = Postgres::start().unwrap();
    let url = cluster.create_database().unwrap();
    postgres_migrate(&url).await.unwrap();
    let store = connect(&url).await;
    assert_serves(&store, 10).await;
    cluster.demote().unwrap();
    let mut db = PgConnection::connect(&url).await.unwrap();
    let behind: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut db).await.unwrap();
    assert!(behind, "it answers reads");
    assert_refused(&store, &url, STANDBY).await;
    let refused = sessions(&mut db).await;
    assert_all_end(&mut db, refused).await;
    cluster.promote().unwrap();
    assert_serves(&store, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_turns_read_only_is_given_up() {
    let cluster = Postgres::start().unwrap();
    let url = cluster.create_database().unwrap();
    postgres_migrate(&url).await.unwrap();
    let store = connect(&url).await;
    assert_serves(&store, 10).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    let before = sessions(&mut db).await;
    assert_eq!(before.len(), 3);
    execute(&url, "ALTER SYSTEM SET default_transaction_read_only = on").await;
    execute(&url, "SELECT pg_reload_conf()").await;
    // Each session reads the settings when it comes to it.
    let mut n = 100;
    while use_all(&store, n).await.iter().any(Result::is_ok) {
        n += 1;
        assert!(n < 10_000, "a session goes on as if nothing had been said");
    }
    assert_refused(&store, &url, READ_ONLY).await;
    assert_all_end(&mut db, before).await;
    execute(&url, "ALTER SYSTEM RESET default_transaction_read_only").await;
    execute(&url, "SELECT pg_reload_conf()").await;
    let mut tries = 0;
    while use_all(&store, 1).await.iter().any(Result::is_err) {
        tries += 1;
        assert!(tries < 100, "it does not come back");
    }
    assert_serves(&store, 11).await;
}

#[tokio::test]
async fn types_that_were_made_anew_cost_one_append() {
    let url = database().await;
    let store = connect(&url).await;
    for n in 0..3 {
        assert_eq!(append(&store, &start(&format!("before-{n}"))).await, Ok(vec![Appended::Written]));
    }
    // As restoring a dump over the tables does it: under the same names, with other numbers.
    let types = include_str!("../../../migrations/postgres/0004_append_rows.sql");
    execute(&url, &format!("DROP TYPE append_head, append_event; {types}")).await;
    let refused = append(&store, &start("after")).await;
    assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{refused:?}");
    assert_eq!(append(&store, &start("after")).await, Ok(vec![Appended::Written]));
}
