//! Sagas that a peer is known to have ended, to be held against its books.

use super::Way;
use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts while the loops run.
#[derive(Debug, Default)]
pub(super) struct Counted {
    succeeded: AtomicU64,
    rolled_back: AtomicU64,
}

impl Counted {
    /// One more, which has ended as it should.
    pub(super) fn count(&self, way: Way) {
        let which = match way {
            Way::Concurrent | Way::Sequential => &self.succeeded,
            Way::RolledBack => &self.rolled_back,
        };
        which.fetch_add(1, Ordering::Relaxed);
    }

    /// Holds them against a peer's books: so many succeeded, so many rolled back, and so many in all.
    ///
    /// # Errors
    /// With the difference.
    pub(super) fn agrees(&self, succeeded: u64, rolled_back: u64, all: u64) -> Result<()> {
        let counted = (self.succeeded.load(Ordering::Relaxed), self.rolled_back.load(Ordering::Relaxed));
        ensure!(
            counted == (succeeded, rolled_back) && all == succeeded + rolled_back,
            "{} succeeded and {} rolled back were counted; its books say {succeeded} and {rolled_back} of {all}",
            counted.0,
            counted.1,
        );
        Ok(())
    }
}
