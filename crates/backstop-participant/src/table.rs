//! The table `backstop_barrier` on both engines: the same statements, word for word.
//!
//! # Invariants
//! * A row is claimed by one insert: of two transactions the second waits until the first has ended
//!   (Postgres on the unique index, SQLite on its one writer), and then finds the row or may claim it.
//! * Only a row that is `started` or `fenced` changes; one that is gone or changed is noticed.
//! * Nobody waits for a lock for ever: a call that was given up keeps its connection no longer than its caller would have
//!   waited (`tests/contract/abandoned.rs`). On SQLite that is the pool's `busy_timeout`.
//!
//! # Not here
//! What a row means: `barrier`, `outside`.

use crate::context::{Context, Phase};
use crate::sql;
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr, SqlStr, SqliteConnection};
use std::time::Duration;

/// A database that the barrier stands in: SQLite or Postgres.
pub trait Engine: sqlx::Database + sealed::Sealed {
    /// Creates the barrier's table and its index, if they are not there. Put it among your migrations.
    const SCHEMA: &'static str;
    /// Begins a transaction that may write, and that waits for one lock for so long.
    #[doc(hidden)]
    fn begin(lock_wait: Duration) -> SqlStr;
    #[doc(hidden)]
    fn db(connection: &mut Self::Connection) -> Db<'_>;
}

mod sealed {
    /// The barrier's rules are proven for these engines only.
    pub trait Sealed {}
    impl Sealed for sqlx::Sqlite {}
    impl Sealed for sqlx::Postgres {}
}

impl Engine for sqlx::Sqlite {
    const SCHEMA: &'static str = include_str!("schema/sqlite.sql");
    fn begin(_lock_wait: Duration) -> SqlStr {
        // A transaction that reads first and writes later may find that it cannot any more.
        SqlStr::from_static("BEGIN IMMEDIATE")
    }
    fn db(connection: &mut SqliteConnection) -> Db<'_> {
        Db::Sqlite(connection)
    }
}

impl Engine for sqlx::Postgres {
    const SCHEMA: &'static str = include_str!("schema/postgres.sql");
    fn begin(lock_wait: Duration) -> SqlStr {
        // 0 would be for ever.
        let millis = lock_wait.as_millis().clamp(1, LOCK_WAIT_MILLIS_MAX);
        // A duplicate has to see what the one that it waited for has committed. Both statements in one go.
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {millis}");
        AssertSqlSafe(begin).into_sql_str()
    }
    fn db(connection: &mut PgConnection) -> Db<'_> {
        Db::Postgres(connection)
    }
}

/// Longest `lock_timeout` that Postgres takes.
const LOCK_WAIT_MILLIS_MAX: u128 = 2_147_483_647;

/// A connection of either engine.
#[doc(hidden)]
#[derive(Debug)]
pub enum Db<'a> {
    /// SQLite.
    Sqlite(&'a mut SqliteConnection),
    /// Postgres.
    Postgres(&'a mut PgConnection),
}

/// A statement that answers how many rows it changed.
macro_rules! execute {
    ($db:expr, $sql:expr $(, $bind:expr)*) => {
        match $db {
            Db::Sqlite(db) => sqlx::query($sql)$(.bind($bind))*.execute(&mut **db).await?.rows_affected(),
            Db::Postgres(db) => sqlx::query($sql)$(.bind($bind))*.execute(&mut **db).await?.rows_affected(),
        }
    };
}

/// A query for all rows.
macro_rules! fetch {
    ($db:expr, $sql:expr $(, $bind:expr)*) => {
        match $db {
            Db::Sqlite(db) => sqlx::query_as($sql)$(.bind($bind))*.fetch_all(&mut **db).await?,
            Db::Postgres(db) => sqlx::query_as($sql)$(.bind($bind))*.fetch_all(&mut **db).await?,
        }
    };
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Under way: visible to others only if it works outside the transaction.
    Started,
    /// Took effect; the reply is kept.
    Done,
    /// Refused; the status is kept.
    Refused,
    /// Never ran and never will.
    Barred,
    /// Did not run before this clock; a later call may.
    Fenced,
}

impl State {
    const ALL: [Self; 5] = [Self::Started, Self::Done, Self::Refused, Self::Barred, Self::Fenced];

    fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Barred => "barred",
            Self::Fenced => "fenced",
        }
    }
}

/// A row as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) phase: String,
    pub(crate) state: State,
    pub(crate) fingerprint: Option<Vec<u8>>,
    pub(crate) reply: Option<Vec<u8>>,
}

/// The rows of one step of one saga.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    pub(crate) fn of(&self, phase: Phase) -> Option<&Row> {
        self.0.iter().find(|row| row.phase == phase.as_str())
    }
}

impl Db<'_> {
    /// Claims the row of a call: false if somebody has it.
    pub(crate) async fn claim(
        &mut self,
        context: &Context,
        phase: Phase,
        state: State,
        fingerprint: Option<&[u8]>,
        now_unix_micros: i64,
    ) -> Result<bool, sqlx::Error> {
        let finished = (state != State::Started).then_some(now_unix_micros);
        let inserted = execute!(
            self,
            sql::CLAIM,
            context.saga_id.as_str(),
            context.step.as_str(),
            phase.as_str(),
            state.as_str(),
            context.epoch.cast_signed(),
            context.clock.cast_signed(),
            fingerprint,
            now_unix_micros,
            finished
        );
        Ok(inserted == 1)
    }

    /// Opens a fenced action again for a call that was made after the question.
    pub(crate) async fn pass_fence(
        &mut self,
        context: &Context,
        fingerprint: &[u8],
    ) -> Result<bool, sqlx::Error> {
        let changed = execute!(
            self,
            sql::PASS_FENCE,
            context.saga_id.as_str(),
            context.step.as_str(),
            context.epoch.cast_signed(),
            context.clock.cast_signed(),
            fingerprint
        );
        Ok(changed == 1)
    }

    /// Moves a fenced action's fence on, or bars it for good.
    pub(crate) async fn refence(
        &mut self,
        context: &Context,
        state: State,
        now_unix_micros: i64,
    ) -> Result<(), sqlx::Error> {
        execute!(
            self,
            sql::REFENCE,
            context.saga_id.as_str(),
            context.step.as_str(),
            state.as_str(),
            context.clock.cast_signed(),
            now_unix_micros
        );
        Ok(())
    }

    /// Ends a call that is under way: false if it is not, or not any more.
    pub(crate) async fn finish(
        &mut self,
        context: &Context,
        phase: Phase,
        state: State,
        reply: Option<&[u8]>,
        now_unix_micros: i64,
    ) -> Result<bool, sqlx::Error> {
        let changed = execute!(
            self,
            sql::FINISH,
            context.saga_id.as_str(),
            context.step.as_str(),
            phase.as_str(),
            state.as_str(),
            reply,
            now_unix_micros
        );
        Ok(changed == 1)
    }

    /// The rows of a call's step.
    pub(crate) async fn rows(&mut self, context: &Context) -> Result<Rows, sqlx::Error> {
        type Columns = (String, String, Option<Vec<u8>>, Option<Vec<u8>>);
        let rows: Vec<Columns> = fetch!(self, sql::ROWS, context.saga_id.as_str(), context.step.as_str());
        let row = |(phase, state, fingerprint, reply): Columns| {
            let known = State::ALL.into_iter().find(|known| known.as_str() == state);
            let state =
                known.ok_or_else(|| sqlx::Error::Decode("unknown state of a barrier's row".into()))?;
            Ok(Row { phase, state, fingerprint, reply })
        };
        rows.into_iter().map(row).collect::<Result<_, sqlx::Error>>().map(Rows)
    }

    /// Whether an action has no business any more: its own compensation came, or the saga was closed under a
    /// later epoch.
    pub(crate) async fn is_closed_to(&mut self, context: &Context) -> Result<bool, sqlx::Error> {
        let rows: Vec<(i64,)> = fetch!(
            self,
            sql::CLOSED,
            context.saga_id.as_str(),
            context.step.as_str(),
            context.epoch.cast_signed()
        );
        Ok(rows.first().is_some_and(|(count,)| *count > 0))
    }

    /// Remembers that a saga rolls back.
    pub(crate) async fn close(
        &mut self,
        saga_id: &str,
        epoch: u64,
        now_unix_micros: i64,
    ) -> Result<(), sqlx::Error> {
        execute!(self, sql::CLOSE, saga_id, epoch.cast_signed(), now_unix_micros);
        Ok(())
    }

    /// Deletes ended rows, the oldest first, of steps about which nothing newer is kept.
    pub(crate) async fn purge(&mut self, before_unix_micros: i64, rows_max: u32) -> Result<u64, sqlx::Error> {
        Ok(execute!(self, sql::PURGE, before_unix_micros, i64::from(rows_max)))
    }

    /// Marks the place to which the work is rolled back if it refuses.
    pub(crate) async fn mark(&mut self) -> Result<(), sqlx::Error> {
        execute!(self, sql::MARK);
        Ok(())
    }

    /// Rolls the work back, and nothing before it.
    pub(crate) async fn roll_back_work(&mut self) -> Result<(), sqlx::Error> {
        execute!(self, sql::ROLL_BACK_WORK);
        Ok(())
    }
}
