//! A database in trouble: a connection lost at any byte, one that says nothing, no connection to be had, refusals.
//! Whatever happens, the answer is true: `NotApplied` means that nothing is there, and repeating word for word
//! settles everything else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_core::{SagaId, Seq};
use backstop_engine::ports::store::{Append, Appended, Retention, Share, Store, StoreError};
use backstop_engine::store_contract::sample::{LONG_AGO, Sample, coordinator, id};
use backstop_sql::testing::{Direction, Postgres, Proxy};
use backstop_sql::{PostgresSettings, PostgresStore};
use common::{database, execute, open};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

async fn proxied(url: &str) -> (Proxy, PostgresStore) {
    let proxy = Proxy::start(Postgres::shared().unwrap().address()).await.unwrap();
    let settings = PostgresSettings {
        connections_max: 3,
        acquire_timeout: Duration::from_secs(2),
        statement_timeout: Duration::from_secs(2),
        ..PostgresSettings::default()
    };
    let store = PostgresStore::connect(&proxy.url(url), settings).await.unwrap();
    (proxy, store)
}

/// Where to cut a stream of Postgres' messages: at every beginning of a message and in its head, and in steps
/// between.
fn offsets(stream: &[u8], step: usize) -> BTreeSet<u64> {
    let mut offsets: BTreeSet<usize> = (0..stream.len()).step_by(step).collect();
    let mut at = 0;
    while at + 5 <= stream.len() {
        let length = u32::from_be_bytes(stream[at + 1..at + 5].try_into().unwrap()) as usize;
        offsets.extend([at, at + 1, at + 5, at + length]);
        at += 1 + length;
    }
    assert_eq!(at, stream.len(), "whole messages");
    offsets.insert(stream.len());
    offsets.into_iter().filter(|at| *at <= stream.len()).map(|at| at as u64).collect()
}

/// A batch that begins one saga and goes on with another, which `beside` has begun.
async fn batch(beside: &dyn Store, n: u64) -> [Append; 2] {
    let (mut old, start) = Sample::start(&format!("old-{n:06}"));
    assert_eq!(beside.append(&[start]).await, Ok(vec![Appended::Written]));
    [Sample::start(&format!("new-{n:06}")).1, old.succeed(0, b"done")]
}

async fn seq(store: &dyn Store, saga: &SagaId) -> Seq {
    store.head(saga).await.unwrap().map_or(Seq(0), |head| head.seq)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_cut_at_any_byte_is_settled_by_repeating() {
    let url = database().await;
    let beside = open(&url).await;
    let (proxy, store) = proxied(&url).await;
    let mut n = 0;
    // Once to prepare the statement, once to see what goes over the wire.
    for _ in 0..2 {
        proxy.record();
        let appends = batch(&beside, n).await;
        assert_eq!(store.append(&appends).await, Ok(vec![Appended::Written; 2]));
        n += 1;
    }
    let (mut answers, mut applied) = (BTreeSet::new(), BTreeSet::new());
    let whole = |direction, step| (direction, offsets(&proxy.recorded(direction), step));
    for (direction, offsets) in [whole(Direction::Up, 151), whole(Direction::Down, 1)] {
        for at in offsets {
            n += 1;
            let appends = batch(&beside, n).await;
            proxy.cut_after_bytes(direction, at);
            let answer = store.append(&appends).await;
            proxy.heal();
            match &answer {
                Ok(written) => assert_eq!(*written, [Appended::Written; 2]),
                Err(StoreError::NotApplied(_)) => {
                    for append in &appends {
                        assert_eq!(seq(&beside, &append.saga).await, append.expected, "{direction:?} {at}");
                    }
                }
                Err(StoreError::Unknown(_)) => {
                    applied.insert(seq(&beside, &appends[0].saga).await > Seq(0));
                }
                Err(other) => panic!("{direction:?} {at}: {other:?}"),
            }
            answers.insert(match answer {
                Ok(_) => "ok",
                Err(StoreError::Unknown(_)) => "unknown",
                Err(_) => "not applied",
            });
            // Cut after the whole answer, the connection is found dead by the next one.
            let again = store.append(&appends).await;
            let again = if again.is_err() { store.append(&appends).await } else { again };
            assert_eq!(again, Ok(vec![Appended::Written; 2]), "{direction:?} {at}");
            for append in &appends {
                let events = beside.events(&append.saga, Seq(0), 99).await.unwrap();
                let seqs: Vec<u64> = events.iter().map(|event| event.seq.0).collect();
                assert_eq!(seqs, (1..=append.head.seq.0).collect::<Vec<_>>(), "each event once");
                assert!(append.events.iter().all(|event| events.contains(event)));
            }
            // The next one is cut at its own bytes, not at those of making a connection.
            assert!(store.append(&batch(&beside, n + 500_000).await).await.is_ok());
        }
    }
    assert!(answers.contains("unknown"), "{answers:?}");
    assert_eq!(applied, BTreeSet::from([false, true]), "some of them were written, some were not");
}

/// Lets a read come so many steps far, then gives it up. True if it was done by then.
async fn read_and_give_up(store: &dyn Store, saga: &SagaId, steps: usize) -> bool {
    let mut reading = Box::pin(store.journal(saga));
    for _ in 0..steps {
        let done =
            std::future::poll_fn(|context| Poll::Ready(reading.as_mut().poll(context).is_ready())).await;
        if done {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_or_is_given_up_leaves_no_transaction_behind() {
    let url = database().await;
    let beside = open(&url).await;
    // One connection in the pool: whoever comes next has the one of the read before.
    let settings = PostgresSettings { connections_max: 3, ..PostgresSettings::default() };
    let store = PostgresStore::connect(&url, settings).await.unwrap();
    let start = Sample::start("there").1;
    assert_eq!(beside.append(std::slice::from_ref(&start)).await, Ok(vec![Appended::Written]));
    for table in ["journal", "saga"] {
        execute(&url, &format!("ALTER TABLE {table} RENAME TO {table}_aside")).await;
        assert!(matches!(store.journal(&start.saga).await, Err(StoreError::NotApplied(_))), "{table}");
        assert!(store.journals(std::slice::from_ref(&start.saga)).await.is_err(), "{table}");
        execute(&url, &format!("ALTER TABLE {table}_aside RENAME TO {table}")).await;
        assert_eq!(store.journal(&start.saga).await.unwrap().unwrap().events, start.events, "{table}");
    }
    let (mut steps, mut given_up) = (0, 0);
    while !read_and_give_up(&store, &start.saga, steps).await {
        given_up += usize::from(steps > 0);
        let new = Sample::start(&format!("new-{steps}")).1;
        assert_eq!(store.head(&new.saga).await, Ok(None));
        assert_eq!(beside.append(std::slice::from_ref(&new)).await, Ok(vec![Appended::Written]));
        let seen = store.head(&new.saga).await.unwrap();
        assert_eq!(seen, Some(new.head), "after {steps} steps: an old snapshot is read");
        steps += 1;
    }
    assert!(given_up > 0, "it was given up at no point at all");
    let mut db = PgConnection::connect(&url).await.unwrap();
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    assert_eq!(open, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_call_that_is_cut_says_so_and_works_again_afterwards() {
    let url = database().await;
    let (proxy, store) = proxied(&url).await;
    let (mut over, start) = Sample::start("over");
    let end = over.succeed(0, b"");
    for append in [start, end, Sample::start("open").1] {
        store.append(&[append]).await.unwrap();
    }
    let (who, sagas) = (coordinator("c1"), [id("over"), id("open")]);
    let mild = Retention { journals_for: 1_000_000 * HOUR, ids_for: 1_000_000 * HOUR };
    let typed = |call: &str, result: Result<(), StoreError>| match result {
        Ok(()) | Err(StoreError::NotApplied(_) | StoreError::Unknown(_)) => result.is_ok(),
        Err(other) => panic!("{call}: {other:?}"),
    };
    let calls = [
        "enter", "renew", "draining", "leave", "journal", "journals", "events", "orphans", "misfits",
        "retire",
    ];
    let call = async |name: &str| match name {
        "enter" => store.enter(&who, "", HOUR).await,
        "renew" => store.renew(&who, HOUR).await.map(drop),
        "draining" => store.set_draining(&who).await,
        "leave" => store.leave(&who).await,
        "journal" => {
            store.journal(&sagas[0]).await.map(|journal| assert_eq!(journal.unwrap().events.len(), 3))
        }
        "journals" => store.journals(&sagas).await.map(|all| assert!(all.iter().all(Result::is_ok))),
        "events" => store.events(&sagas[0], Seq(0), 9).await.map(|events| assert_eq!(events.len(), 3)),
        "orphans" => store.orphans(Share::ALL, 9).await.map(drop),
        "misfits" => store.misfits(HOUR, HOUR, 9).await.map(drop),
        "retire" => store.retire(mild, 9).await.map(|bite| assert_eq!(bite.journals, 0)),
        other => panic!("{other}"),
    };
    for name in calls {
        let mut failed = 0;
        for direction in [Direction::Up, Direction::Down] {
            for at in (0..400).step_by(13) {
                proxy.cut_after_bytes(direction, at);
                failed += usize::from(!typed(name, call(name).await));
                proxy.heal();
                // What was cut off may break one more; then it works.
                let again = typed(name, call(name).await) || typed(name, call(name).await);
                assert!(again, "{name} {direction:?} {at}");
            }
        }
        // The pool asks a connection whether it lives before it is used, and makes another: reads may never fail.
        assert!(failed > 0 || !["enter", "renew", "leave"].contains(&name), "{name} was cut");
    }
    assert_eq!(store.journal(&sagas[0]).await.unwrap().unwrap().events.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_41_an_interrupted_retirement_takes_each_journal_whole_or_not() {
    let url = database().await;
    let beside = open(&url).await;
    let (proxy, store) = proxied(&url).await;
    let retention = Retention { journals_for: HOUR, ids_for: 1_000_000 * HOUR };
    let mut cut = 0;
    for (n, at) in (0..6000).step_by(211).enumerate() {
        let (mut saga, start) = Sample::start(&format!("r-{n}"));
        for append in [start, saga.succeed(0, b"")] {
            beside.append(&[append]).await.unwrap();
        }
        proxy.cut_after_bytes(
            if n % 2 == 0 { Direction::Up } else { Direction::Down },
            at / (1 + n as u64 % 2),
        );
        match store.retire(retention, 5).await {
            Ok(_) => {}
            Err(StoreError::NotApplied(_) | StoreError::Unknown(_)) => cut += 1,
            Err(other) => panic!("{at}: {other:?}"),
        }
        proxy.heal();
        let journal = beside.journal(&id(&format!("r-{n}"))).await.unwrap().unwrap();
        assert_eq!(journal.head.retired, journal.events.is_empty(), "both or neither");
    }
    assert!(cut > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_keeps_nobody_for_ever() {
    let url = database().await;
    let (proxy, store) = proxied(&url).await;
    let (mut saga, start) = Sample::start("silent");
    store.append(&[start]).await.unwrap();
    let done = saga.succeed(0, b"");
    proxy.black_hole();
    let held = id("silent");
    let who = coordinator("c1");
    let (append, enter, read) = tokio::join!(
        store.append(std::slice::from_ref(&done)),
        store.enter(&who, "", HOUR),
        store.journal(&held),
    );
    assert!(matches!(append, Err(StoreError::Unknown(_))), "{append:?}");
    assert!(matches!(enter, Err(StoreError::Unknown(_) | StoreError::NotApplied(_))), "{enter:?}");
    assert!(matches!(read, Err(StoreError::NotApplied(_))), "{read:?}");
    proxy.heal();
    assert_eq!(store.append(&[done]).await, Ok(vec![Appended::Written]));
    store.enter(&who, "", HOUR).await.unwrap();
    let read = store.journal(&id("silent")).await;
    let read = if read.is_err() { store.journal(&id("silent")).await } else { read };
    assert_eq!(read.unwrap().unwrap().events.len(), 3);
    proxy.refuse();
    let refused = store.append(&[Sample::start("refused").1]).await;
    assert!(refused.is_err());
    let refused = store.append(&[Sample::start("refused").1]).await;
    assert!(matches!(refused, Err(StoreError::NotApplied(_))), "it could not even connect: {refused:?}");
    proxy.heal();
    assert_eq!(store.append(&[Sample::start("refused").1]).await, Ok(vec![Appended::Written]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_no_connection_in_time_has_changed_nothing() {
    let url = database().await;
    let settings = PostgresSettings {
        connections_max: 3,
        acquire_timeout: Duration::from_millis(300),
        statement_timeout: Duration::from_secs(60),
        ..PostgresSettings::default()
    };
    let store = Arc::new(PostgresStore::connect(&url, settings).await.unwrap());
    let (mut saga, start) = Sample::start("held");
    store.append(&[start]).await.unwrap();
    let done = saga.succeed(0, b"");
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    sqlx::query("LOCK TABLE saga IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.head(&id("held")).await }
    });
    let writing = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move { store.append(&[done]).await }
    });
    let mut watch = PgConnection::connect(&url).await.unwrap();
    let mut waiting = 0_i64;
    while waiting < 2 {
        waiting = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut watch)
        .await
        .unwrap();
    }
    let other = Sample::start("other").1;
    let refused = store.append(std::slice::from_ref(&other)).await;
    assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{refused:?}");
    let refused = store.quarantine(&id("held"), None, "why").await;
    assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{refused:?}");
    let refused = store.participants_mark().await;
    assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{refused:?}");
    tx.rollback().await.unwrap();
    assert_eq!(writing.await.unwrap(), Ok(vec![Appended::Written]));
    assert!(reading.await.unwrap().unwrap().is_some());
    assert_eq!(store.head(&other.saga).await, Ok(None), "nothing was changed");
    assert_eq!(store.append(&[other]).await, Ok(vec![Appended::Written]));
}

#[tokio::test]
async fn a_serialization_failure_has_changed_nothing_and_the_repeat_goes_in() {
    let url = database().await;
    let store = open(&url).await;
    execute(
        &url,
        "CREATE SEQUENCE refusals;
         CREATE FUNCTION refuse_once() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('refusals') = 1 THEN RAISE 'try again' USING ERRCODE = '40001'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse_once BEFORE INSERT ON saga FOR EACH ROW EXECUTE FUNCTION refuse_once()",
    )
    .await;
    let append = Sample::start("again").1;
    assert!(append.head.created_at == LONG_AGO);
    let refused = store.append(std::slice::from_ref(&append)).await;
    assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{refused:?}");
    assert_eq!(store.head(&append.saga).await, Ok(None));
    assert_eq!(store.append(&[append]).await, Ok(vec![Appended::Written]));
}
