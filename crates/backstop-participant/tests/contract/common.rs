//! A small participant on either engine: its books are one table of effects.

use backstop_participant::{Barrier, Context, Engine, Entered, Fingerprint, FirstCall, Phase, Stop};
use backstop_sql::testing::Postgres;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgConnection, Pool, SqliteConnection};
use std::future::Future;
use std::time::Duration;
use tonic::Status;

/// Holds a story on both engines.
macro_rules! on_both_engines {
    ($($story:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $story() {
                super::$story(crate::common::World::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $story() {
                super::$story(crate::common::World::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both_engines;

/// What the stories need of an engine beside the barrier.
pub(crate) trait Books: Engine {
    /// Writes one effect.
    fn book(
        db: &mut Self::Connection,
        what: &str,
        amount: i64,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    /// The effects in the order in which they were written.
    fn entries(pool: &Pool<Self>) -> impl Future<Output = Vec<(String, i64)>> + Send;
    /// Rolls a transaction back behind the barrier's back.
    fn end(db: &mut Self::Connection) -> impl Future<Output = ()> + Send;
    /// Runs a statement and answers how many rows it changed.
    fn run(pool: &Pool<Self>, sql: &'static str) -> impl Future<Output = u64> + Send;
    /// A number.
    fn number(pool: &Pool<Self>, sql: &'static str) -> impl Future<Output = i64> + Send;
}

macro_rules! books {
    ($engine:ty, $connection:ty) => {
        impl Books for $engine {
            async fn book(db: &mut $connection, what: &str, amount: i64) -> Result<(), sqlx::Error> {
                let insert = sqlx::query("INSERT INTO entry (what, amount) VALUES ($1, $2)");
                insert.bind(what).bind(amount).execute(db).await.map(|_| ())
            }
            async fn entries(pool: &Pool<Self>) -> Vec<(String, i64)> {
                sqlx::query_as("SELECT what, amount FROM entry ORDER BY id").fetch_all(pool).await.unwrap()
            }
            async fn end(db: &mut $connection) {
                sqlx::raw_sql("ROLLBACK").execute(db).await.unwrap();
            }
            async fn run(pool: &Pool<Self>, sql: &'static str) -> u64 {
                sqlx::query(sql).execute(pool).await.unwrap().rows_affected()
            }
            async fn number(pool: &Pool<Self>, sql: &'static str) -> i64 {
                let row: (i64,) = sqlx::query_as(sql).fetch_one(pool).await.unwrap();
                row.0
            }
        }
    };
}
books!(sqlx::Sqlite, SqliteConnection);
books!(sqlx::Postgres, PgConnection);

/// A participant with its database.
#[derive(Debug)]
pub(crate) struct World<DB: Engine> {
    pub(crate) pool: Pool<DB>,
    pub(crate) barrier: Barrier<DB>,
    _folder: Option<std::sync::Arc<tempfile::TempDir>>,
}

impl<DB: Engine> Clone for World<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), barrier: self.barrier.clone(), _folder: self._folder.clone() }
    }
}

impl World<sqlx::Sqlite> {
    pub(crate) async fn sqlite() -> Self {
        Self::sqlite_with(8, 1 << 20).await
    }

    /// On one connection, with a disk of so many pages.
    pub(crate) async fn sqlite_of_pages(pages_max: u32) -> Self {
        Self::sqlite_with(1, pages_max).await
    }

    async fn sqlite_with(connections_max: u32, pages_max: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("books.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("max_page_count", pages_max.to_string())
            .busy_timeout(Duration::from_secs(60));
        let pool =
            SqlitePoolOptions::new().max_connections(connections_max).connect_with(options).await.unwrap();
        sqlx::raw_sql(<sqlx::Sqlite as Engine>::SCHEMA).execute(&pool).await.unwrap();
        let entry = "CREATE TABLE entry (id INTEGER PRIMARY KEY, what TEXT UNIQUE, amount INTEGER)";
        sqlx::raw_sql(entry).execute(&pool).await.unwrap();
        Self { barrier: Barrier::new(pool.clone()), pool, _folder: Some(std::sync::Arc::new(folder)) }
    }
}

impl World<sqlx::Postgres> {
    pub(crate) async fn postgres() -> Self {
        let url = Postgres::shared().unwrap().create_database().unwrap();
        let pool = PgPoolOptions::new().max_connections(8).connect(&url).await.unwrap();
        sqlx::raw_sql(<sqlx::Postgres as Engine>::SCHEMA).execute(&pool).await.unwrap();
        let entry = "CREATE TABLE entry (id BIGSERIAL PRIMARY KEY, what TEXT UNIQUE, amount BIGINT)";
        sqlx::raw_sql(entry).execute(&pool).await.unwrap();
        Self { barrier: Barrier::new(pool.clone()), pool, _folder: None }
    }
}

/// A call as Backstop makes it.
pub(crate) fn call(saga: &str, phase: Phase) -> Context {
    Context {
        saga_id: saga.to_owned(),
        definition: "transfer@1".to_owned(),
        step: "debit".to_owned(),
        phase,
        attempt: 1,
        clock: 5,
        epoch: 1,
        idempotency_key: format!("{saga}/debit/{}", phase.as_str()),
        traceparent: None,
        deadline: None,
        cause: None,
    }
}

pub(crate) fn action(saga: &str) -> Context {
    call(saga, Phase::Action)
}

pub(crate) fn compensation(saga: &str) -> Context {
    Context { clock: 9, ..call(saga, Phase::Compensation) }
}

pub(crate) fn query(saga: &str) -> Context {
    Context { clock: 7, ..call(saga, Phase::Query) }
}

impl<DB: Books> World<DB> {
    /// Takes a call in whose request is `amount`: an action books it, a compensation books its reverse, and
    /// both reply with what the entry is called. A negative amount is refused after it was booked.
    pub(crate) async fn take(&self, context: &Context, amount: i64) -> Result<String, Status> {
        let print = Fingerprint::of(context.phase.as_str(), &amount);
        match self.barrier.enter::<String>(context, print).await? {
            Entered::Answered(answer) => answer.map(tonic::Response::into_inner),
            Entered::First(mut call) => {
                let outcome = work(&mut call, amount).await;
                call.finish(outcome).await.map(tonic::Response::into_inner)
            }
        }
    }

    pub(crate) async fn entries(&self) -> Vec<(String, i64)> {
        DB::entries(&self.pool).await
    }

    pub(crate) async fn sum(&self) -> i64 {
        self.entries().await.iter().map(|(_, amount)| amount).sum()
    }
}

async fn work<DB: Books>(call: &mut FirstCall<'_, DB, String>, amount: i64) -> Result<String, Stop> {
    let what = call.context().idempotency_key.clone();
    let signed = if call.context().phase == Phase::Action { amount } else { -amount };
    DB::book(call.db(), &what, signed).await?;
    if amount < 0 { Err(insufficient().into()) } else { Ok(what) }
}

/// A business refusal with details.
pub(crate) fn insufficient() -> Status {
    use tonic_types::StatusExt;
    let mut details = tonic_types::ErrorDetails::with_bad_request_violation("amount", "more than there is");
    details.set_localized_message("zh-CN", "余额不足");
    Status::with_error_details(tonic::Code::FailedPrecondition, "insufficient funds: 余额不足", details)
}

/// Everything that a caller sees of a status.
pub(crate) fn seen(status: &Status) -> (tonic::Code, String, Vec<u8>) {
    (status.code(), status.message().to_owned(), status.details().to_vec())
}

/// Asserts that a status refuses without effect, for a reason.
#[track_caller]
pub(crate) fn assert_refused_without_effect(status: &Status, reason: &str) {
    use tonic_types::StatusExt;
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.reason, reason);
    assert_eq!(info.domain, backstop_participant::DOMAIN);
    assert_eq!(info.metadata.get("effect").map(String::as_str), Some("none"));
}
