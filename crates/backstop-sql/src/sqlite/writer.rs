//! The one connection that writes.
//!
//! # Invariants
//! * It goes back into use only after a transaction that ended in order; after anything else, a dropped
//!   future included, it is closed, which rolls back, and made again.

use backstop_engine::ports::store::{StoreError, StoreResult};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard};

/// The connection, or none after an error.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    connection: Mutex<Option<SqliteConnection>>,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        Self { options, connection: Mutex::new(Some(connection)) }
    }

    /// Waits for the connection.
    ///
    /// # Errors
    /// `NotApplied`: nothing has been begun.
    pub(super) async fn take(&self) -> StoreResult<Turn<'_>> {
        let mut slot = self.connection.lock().await;
        let connection = match slot.take() {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(|e| StoreError::NotApplied(e.to_string()))?,
        };
        Ok(Turn { slot, connection })
    }
}

/// The connection, for one transaction.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    slot: MutexGuard<'a, Option<SqliteConnection>>,
    connection: SqliteConnection,
}

impl Turn<'_> {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Gives the connection back. Not called after an error.
    pub(super) fn end(mut self) {
        *self.slot = Some(self.connection);
    }
}
