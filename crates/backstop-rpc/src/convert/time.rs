//! Durations and instants.

use backstop_core::{Fault, Timestamp};
use std::time::Duration;

/// Longest duration that a request may name. Instants and stored numbers have room for it many times over, so
/// nothing that is added to one can overflow.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// A duration that is not negative. The library negates what is, and the least number has no negative.
pub(crate) fn std_duration(wire: prost_types::Duration) -> Option<Duration> {
    let seconds = wire.seconds.max(-i64::MAX);
    Duration::try_from(prost_types::Duration { seconds, ..wire }).ok()
}

/// A duration from the wire. `None` for one that is not set, or is at fault.
pub(crate) fn duration(
    path: &str,
    wire: Option<&prost_types::Duration>,
    faults: &mut Vec<Fault>,
) -> Option<Duration> {
    let wire = wire?;
    match std_duration(*wire) {
        Some(duration) if duration <= DURATION_MAX => Some(duration),
        Some(_) => {
            let days = DURATION_MAX.as_secs() / (24 * 3_600);
            faults.push(Fault::new(path, format!("must not be longer than {days} days")));
            None
        }
        None => {
            faults.push(Fault::new(path, "must be a duration that is not negative"));
            None
        }
    }
}

/// A duration for the wire.
pub(crate) fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// An instant for the wire.
pub(crate) fn wire_timestamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos = at.0.rem_euclid(1_000_000) * 1_000;
    prost_types::Timestamp { seconds: at.0.div_euclid(1_000_000), nanos: i32::try_from(nanos).unwrap_or(0) }
}
