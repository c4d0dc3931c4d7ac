//! The store's clock: it runs a little fast or slow, and jumps.

use crate::held;
use backstop_core::Timestamp;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// When every world begins.
const BEGINNING: Timestamp = Timestamp(1_700_000_000_000_000);

/// The store's clock.
pub(crate) struct StoreTime {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    /// Microseconds that it is ahead of the world's time, without its drift.
    ahead: i64,
    /// Millionths by which it runs fast.
    drift: i64,
}

impl StoreTime {
    pub(crate) fn new(drift: i64) -> Self {
        Self { began: Instant::now(), state: Mutex::new(State { ahead: 0, drift }) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let since = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        let state = held(&self.state);
        Timestamp(BEGINNING.0 + since + state.ahead + since / 1_000 * state.drift / 1_000)
    }

    pub(crate) fn jump(&self, forward: bool, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(0);
        held(&self.state).ahead += if forward { by } else { -by };
    }
}
