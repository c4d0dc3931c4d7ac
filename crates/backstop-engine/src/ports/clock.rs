//! The time by which sagas live.

use backstop_core::Timestamp;

/// Tells the time by the *store's* clock, so that all coordinators of one store agree.
pub trait Clock: Send + Sync + 'static {
    /// Now. Never goes back within one process.
    fn now(&self) -> Timestamp;
}
