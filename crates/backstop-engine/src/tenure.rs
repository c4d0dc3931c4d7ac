//! The time during which this process may drive sagas: from one `enter` to the lease's end.
//!
//! # Invariants
//! * Whoever asks [`Tenure::may_act`] and hears yes has a lease that, by our monotonic clock, runs for at
//!   least [`MARGIN`] more: it was counted from *before* the renewal was sent.
//! * A tenure that has ended never begins again; its coordinator id is not used twice.

use backstop_core::CoordinatorId;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long before its end a lease counts as over: a call decided now must be on its way by then.
pub(crate) const MARGIN: Duration = Duration::from_millis(500);

/// One tenure.
#[derive(Debug)]
pub struct Tenure {
    /// Under which name.
    pub coordinator: CoordinatorId,
    sure_until: Mutex<Instant>,
    ended: CancellationToken,
}

impl Tenure {
    /// A tenure whose lease was asked for at `asked_at`.
    #[must_use]
    pub fn new(coordinator: CoordinatorId, asked_at: Instant, ttl: Duration) -> Self {
        Self { coordinator, sure_until: Mutex::new(asked_at + ttl), ended: CancellationToken::new() }
    }

    /// True if it is certain that nobody else may drive our sagas yet.
    #[must_use]
    pub fn may_act(&self) -> bool {
        let sure_until = *self.sure_until.lock().unwrap_or_else(PoisonError::into_inner);
        !self.ended.is_cancelled() && Instant::now() + MARGIN < sure_until
    }

    /// Time until the lease runs out unless it is renewed; zero once the tenure has ended.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.has_ended() {
            return Duration::ZERO;
        }
        let sure_until = *self.sure_until.lock().unwrap_or_else(PoisonError::into_inner);
        sure_until.saturating_duration_since(Instant::now())
    }

    /// The lease was renewed; the renewal was asked for at `asked_at`.
    pub fn renewed(&self, asked_at: Instant, ttl: Duration) {
        let mut sure_until = self.sure_until.lock().unwrap_or_else(PoisonError::into_inner);
        *sure_until = (asked_at + ttl).max(*sure_until);
    }

    /// Ends it: every runner drops its saga without another word.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// True if it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }
}
