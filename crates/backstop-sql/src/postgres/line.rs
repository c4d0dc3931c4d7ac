//! One connection of the store's own, made again when it breaks.
//!
//! # Invariants
//! * A connection goes back into use only after a statement that ended in order. After an error of the
//!   connection, a timeout or a dropped future it is closed: nothing of the one before can be read as the
//!   answer to the next.
//! * What fails before the statement is handed over is `NotApplied`.

use super::PostgresSettings;
use crate::error;
use backstop_engine::ports::store::{StoreError, StoreResult};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// How much longer than the server's own limit an answer is awaited.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// How the server may plan the statements of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plans {
    /// As it thinks best, anew for the values of each time: these decide which partitions of the journal it
    /// looks at (and locks) at all.
    Any,
    /// By key, one row at a time. The journal's statements are planned once and kept; planned while the
    /// tables are still small, they would read these whole from then on (measured with 200 000 sagas: some
    /// 40 ms for an append of one event, and by key no more than with an empty table).
    ByKey,
}

/// One connection, or none yet. Whoever runs a statement waits for the one before.
#[derive(Debug)]
pub(super) struct Line {
    options: PgConnectOptions,
    plans: Plans,
    acquire_timeout: Duration,
    statement_timeout: Duration,
    connection: Mutex<Option<PgConnection>>,
}

impl Line {
    pub(super) fn new(options: PgConnectOptions, settings: &PostgresSettings, plans: Plans) -> Self {
        Self {
            options,
            plans,
            acquire_timeout: settings.acquire_timeout,
            statement_timeout: settings.statement_timeout,
            connection: Mutex::new(None),
        }
    }

    /// Waits for the connection, making it first if there is none.
    ///
    /// # Errors
    /// `NotApplied`: nothing has been handed over.
    pub(super) async fn take(&self) -> StoreResult<Turn<'_>> {
        let busy = || StoreError::NotApplied("the connection was busy for too long".to_owned());
        let mut slot = in_time(self.connection.lock(), self.acquire_timeout).await.ok_or_else(busy)?;
        let connection = match slot.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Turn { slot, connection, limit: self.statement_timeout.saturating_add(ANSWER_MARGIN) })
    }

    async fn connect(&self) -> StoreResult<PgConnection> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            prepare_session(&mut connection, self.statement_timeout, self.plans).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let late = || StoreError::NotApplied("the database could not be connected to in time".to_owned());
        in_time(connect, self.acquire_timeout)
            .await
            .ok_or_else(late)?
            .map_err(|error| StoreError::NotApplied(error.to_string()))
    }
}

/// The connection, for one statement.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    slot: MutexGuard<'a, Option<PgConnection>>,
    connection: PgConnection,
    limit: Duration,
}

impl Turn<'_> {
    /// The connection, and how long to wait for it. The answer goes to [`Turn::end`].
    pub(super) fn parts(&mut self) -> (&mut PgConnection, Duration) {
        (&mut self.connection, self.limit)
    }

    /// Ends the turn. `None`: there was no answer in time.
    ///
    /// # Errors
    /// `Unknown` if there was no answer; otherwise what the driver says is handed through.
    pub(super) fn end<T>(
        mut self,
        answer: Option<Result<T, sqlx::Error>>,
    ) -> StoreResult<Result<T, sqlx::Error>> {
        let Some(answer) = answer else {
            return Err(StoreError::Unknown(format!("no answer within {} ms", self.limit.as_millis())));
        };
        if answer.as_ref().err().is_none_or(error::leaves_the_connection_usable) {
            *self.slot = Some(self.connection);
        }
        Ok(answer)
    }
}

/// Sets what every session of the store relies on.
pub(super) async fn prepare_session(
    connection: &mut PgConnection,
    statement_timeout: Duration,
    plans: Plans,
) -> Result<(), sqlx::Error> {
    let settings = format!(
        "SET synchronous_commit = on; SET statement_timeout = {}; SET default_transaction_isolation = 'read committed'",
        statement_timeout.as_millis()
    );
    connection.execute(sqlx::raw_sql(AssertSqlSafe(settings))).await?;
    let hints: &[&str] = match plans {
        Plans::Any => &[
            "plan_cache_mode = force_custom_plan",
            // Every look would start workers for a handful of rows.
            "max_parallel_workers_per_gather = 0",
            // A partition of today may not have been analysed yet, and the planner takes it for small: 128 journals
            // were looked for in all of it (measured with 300,000 sagas: 350 ms, and by index 1 ms). There is an
            // index for all that is asked here. What has none is dear on purpose then, and not to be compiled for it.
            "enable_seqscan = off",
            "jit = off",
        ],
        Plans::ByKey => {
            &["enable_seqscan = off", "enable_hashjoin = off", "enable_mergejoin = off", "jit = off"]
        }
    };
    for hint in hints {
        let set = connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("SET {hint}")))).await;
        match set {
            // Engines that merely speak the protocol do not know all of these, and plan otherwise.
            Ok(_) | Err(sqlx::Error::Database(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

async fn in_time<T>(what: impl Future<Output = T>, limit: Duration) -> Option<T> {
    tokio::time::timeout(limit, what).await.ok()
}
