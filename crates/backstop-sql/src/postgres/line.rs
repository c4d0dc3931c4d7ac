//! One connection of the store's own, made again when it breaks.
//!
//! # Invariants
//! * A connection goes back into use only after a statement that ended in order, or was refused for what it found in
//!   the rows. After an error of the connection, a timeout or a dropped future it is closed: nothing of the one before
//!   can be read as the answer to the next. After any other refusal, too: it may be the session that is refused, for
//!   ever (`tests/failover.rs`).
//! * What fails before the statement is handed over is `NotApplied`.
//!
//! # Not here
//! What a session relies on: `session`.

use super::PostgresSettings;
use super::session::{self, Plans};
use crate::error;
use backstop_engine::ports::store::{StoreError, StoreResult};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// How much longer than the server's own limit an answer is awaited.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

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
            session::prepare(&mut connection, self.statement_timeout, self.plans).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let late = || StoreError::NotApplied("the database could not be connected to in time".to_owned());
        in_time(connect, self.acquire_timeout)
            .await
            .ok_or_else(late)?
            .map_err(|error| StoreError::NotApplied(session::text(&error)))
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

async fn in_time<T>(what: impl Future<Output = T>, limit: Duration) -> Option<T> {
    tokio::time::timeout(limit, what).await.ok()
}
