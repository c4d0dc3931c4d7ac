//! What a call says beside its request: DESIGN 3.2, to the letter, and nothing else of ours.

use crate::wire_failure;
use backstop_core::{Call, Clock, Phase, Saga};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use prost::Message;
use std::time::Duration;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

const CLOCK: &str = "backstop-clock";
/// Largest `backstop-cause-bin` before base64, which adds a third. With all other metadata it stays below
/// the 8 KiB of headers that some servers (Netty) take at most.
pub(crate) const CAUSE_BYTES_MAX: usize = 4608;

/// The metadata of one attempt, but for [`protocol`] and `traceparent`.
pub(super) fn of_call(saga: &Saga, call: &Call) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    let mut put = |name: &'static str, text: &str| {
        // Ids and names are visible ASCII by their own rules, and the rest is numbers.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let step = saga.definition.steps.get(call.step);
    put("backstop-saga-id", saga.id.as_str());
    put("backstop-definition", &saga.definition.reference.to_string());
    put("backstop-step", step.map_or("", |step| step.name.as_str()));
    put("backstop-phase", call.phase.as_str());
    put("backstop-attempt", &call.attempt.to_string());
    put(CLOCK, &call.clock.0.to_string());
    put("backstop-epoch", &saga.epoch.0.to_string());
    put("idempotency-key", call.key(saga).as_str());
    if let (Phase::Compensation, Some(cause)) = (call.phase, &saga.cause) {
        let cause = wire_failure::bounded_cause(&saga.definition.errors, cause, CAUSE_BYTES_MAX);
        put_binary(&mut headers, "backstop-cause-bin", cause.encode_to_vec().into());
    }
    headers
}

/// The saga's or the call's place in its trace.
pub(super) fn trace_parent(headers: &mut HeaderMap, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert("traceparent", value);
    }
}

/// What gRPC itself wants, with the time that is left.
pub(super) fn protocol(headers: &mut HeaderMap, left: Duration) {
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("backstop/", env!("CARGO_PKG_VERSION"))));
    if let Ok(value) = HeaderValue::from_str(&grpc_timeout(left)) {
        headers.insert("grpc-timeout", value);
    }
}

/// The participant's Lamport clock, from the headers or trailers of its answer; the later of the two.
pub(super) fn peer_clock(headers: &HeaderMap, trailers: &HeaderMap) -> Option<Clock> {
    let clock = |headers: &HeaderMap| headers.get(CLOCK)?.to_str().ok()?.parse().ok().map(Clock);
    clock(headers).max(clock(trailers))
}

fn put_binary(headers: &mut HeaderMap, name: &'static str, bytes: Bytes) {
    let mut one = MetadataMap::with_capacity(1);
    one.insert_bin(name, BinaryMetadataValue::from_bytes(&bytes));
    headers.extend(one.into_headers());
}

/// At most eight digits and a unit, rounded down to no more than what is left.
fn grpc_timeout(left: Duration) -> String {
    const DIGITS_MAX: u128 = 99_999_999;
    if left.as_micros() <= DIGITS_MAX {
        format!("{}u", left.as_micros())
    } else if left.as_millis() <= DIGITS_MAX {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", u128::from(left.as_secs()).min(DIGITS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_at_most_eight_digits_and_never_says_more_than_is_left() {
        for (left, text) in [
            (Duration::ZERO, "0u"),
            (Duration::from_nanos(1999), "1u"),
            (Duration::from_secs(2), "2000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(grpc_timeout(left), text);
        }
    }

    #[test]
    fn the_later_clock_of_headers_and_trailers_counts_and_garbage_is_no_clock() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CLOCK, value.parse().unwrap());
            headers
        };
        assert_eq!(peer_clock(&with("7"), &with("9")), Some(Clock(9)));
        assert_eq!(peer_clock(&with("7"), &HeaderMap::new()), Some(Clock(7)));
        assert_eq!(peer_clock(&with("-7"), &with("late")), None);
    }
}
