//! Instants as the journal has them: microseconds since the Unix epoch, by this machine's clock. All
//! processes of a range run on one machine, so they share it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch.
pub type Moment = i64;

/// Now.
#[must_use]
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A duration in microseconds.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// `12.3s` or `45.6ms`, for people.
#[must_use]
pub fn shown(micros: i64) -> String {
    #[allow(clippy::cast_precision_loss)] // shown with one digit
    let millis = micros as f64 / 1_000.0;
    if millis >= 1_000.0 { format!("{:.2}s", millis / 1_000.0) } else { format!("{millis:.1}ms") }
}
