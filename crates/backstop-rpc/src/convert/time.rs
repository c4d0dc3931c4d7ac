//! Durations and instants.

use backstop_core::{Fault, Timestamp};
use std::time::Duration;

/// A duration from the wire. `None` for one that is not set, or is at fault.
pub(crate) fn duration(
    path: &str,
    wire: Option<&prost_types::Duration>,
    faults: &mut Vec<Fault>,
) -> Option<Duration> {
    let wire = wire?;
    match Duration::try_from(*wire) {
        Ok(duration) => Some(duration),
        Err(_) => {
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
