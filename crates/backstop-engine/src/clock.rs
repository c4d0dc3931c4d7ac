//! The store's clock, carried on by our own monotonic one.
//!
//! # Invariants
//! * It never goes back, whatever the machine's wall clock does: only one reading of the store's clock
//!   enters, and monotonic time from then on.

use crate::ports::clock::Clock;
use crate::ports::store::{Store, StoreResult};
use backstop_core::Timestamp;
use tokio::time::Instant;

/// A clock set once by the store.
#[derive(Debug, Clone, Copy)]
pub struct StoreClock {
    read: Timestamp,
    at: Instant,
}

impl StoreClock {
    /// Reads the store's clock.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn read(store: &dyn Store) -> StoreResult<Self> {
        let before = Instant::now();
        let read = store.now().await?;
        Ok(Self { read, at: before })
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        self.read.plus(self.at.elapsed())
    }
}
