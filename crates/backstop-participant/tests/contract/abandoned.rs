//! Calls that are given up while they wait for a lock, on Postgres. SQLite's waits are its `busy_timeout`.

use crate::common::{Books, World, action, compensation};
use backstop_participant::{Barrier, Context, Entered, Fingerprint, FirstCall};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

/// Connections of the participant.
const CONNECTIONS: u32 = 3;
/// How long those wait that are given up.
const DEADLINE: Duration = Duration::from_millis(200);

const WAITING: &str = "SELECT COUNT(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// A participant of few connections, who has no patience for getting one.
async fn small_world() -> World<sqlx::Postgres> {
    let mut world = World::postgres().await;
    let options = (*world.pool.connect_options()).clone();
    world.pool.close().await;
    world.pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(DEADLINE * 50)
        .connect_with(options)
        .await
        .unwrap();
    world.barrier = Barrier::new(world.pool.clone());
    world
}

type Call = FirstCall<'static, sqlx::Postgres, String>;

/// An action that has claimed its row.
async fn claimed(world: &World<sqlx::Postgres>, context: &Context) -> Call {
    let print = Fingerprint::of("action", &7_i64);
    match world.barrier.enter::<String>(context, print).await.unwrap() {
        Entered::First(call) => call,
        Entered::Answered(answer) => panic!("not a new call: {answer:?}"),
    }
}

/// An action that has done its work and hangs.
async fn hanging(world: &World<sqlx::Postgres>, context: &Context) -> Call {
    let mut call = claimed(world, context).await;
    sqlx::Postgres::book(call.db(), "work", 7).await.unwrap();
    call
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_were_given_up_while_they_waited_give_their_connections_back() {
    let world = small_world().await;
    let mut beside = PgConnection::connect_with(&world.pool.connect_options()).await.unwrap();
    let call = hanging(&world, &action("s")).await;
    // Every other connection waits for the row, and nobody for the answers.
    for attempt in 1..CONNECTIONS {
        let context = Context { attempt, deadline: Some(DEADLINE), ..compensation("s") };
        let waiting = tokio::spawn({
            let world = world.clone();
            async move { world.take(&context, 7).await }
        });
        let mut waits = 0;
        while waits < i64::from(attempt) && !waiting.is_finished() {
            (waits,) = sqlx::query_as(WAITING).fetch_one(&mut beside).await.unwrap();
        }
        waiting.abort();
        let _ = waiting.await;
    }
    // The hanging one still hangs, and another saga's call comes to its turn.
    assert_eq!(world.take(&action("other"), 5).await.unwrap(), "other/debit/action");
    call.finish(Ok("done".to_owned())).await.unwrap();
    assert_eq!(world.take(&compensation("s"), 7).await.unwrap(), "s/debit/compensation");
    assert_eq!(world.sum().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_longer_than_its_caller_waits_ends_without_an_effect() {
    let world = small_world().await;
    let call = hanging(&world, &action("s")).await;
    let impatient = Barrier::new(world.pool.clone()).with_lock_wait(DEADLINE);
    let late = Context { deadline: Some(DEADLINE), ..compensation("s") };
    for (barrier, context) in [(&world.barrier, late), (&impatient, compensation("s"))] {
        let print = Fingerprint::of("compensation", &7_i64);
        let entering = barrier.enter::<String>(&context, print);
        let told = tokio::time::timeout(DEADLINE * 50, entering).await.expect("it waits on").unwrap_err();
        let info = told.get_details_error_info().unwrap();
        assert_eq!((told.code(), info.reason.as_str()), (Code::Aborted, "CONFLICT"));
        assert_eq!(info.metadata.get("effect").map(String::as_str), Some("none"));
    }
    // The work of a call is no more patient.
    let other = Context { deadline: Some(DEADLINE), ..action("other") };
    let mut second = claimed(&world, &other).await;
    let busy = sqlx::Postgres::book(second.db(), "work", 7).await.unwrap_err();
    assert_eq!(busy.as_database_error().and_then(|error| error.code()).as_deref(), Some("55P03"));
    drop(second);
    call.finish(Ok("done".to_owned())).await.unwrap();
    assert_eq!(world.take(&compensation("s"), 7).await.unwrap(), "s/debit/compensation");
    assert_eq!(world.sum().await, 0);
}
