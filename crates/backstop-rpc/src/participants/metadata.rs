//! What a call says beside its request: DESIGN 3.2, to the letter, and nothing else of ours.

use crate::wire_failure;
use backstop_core::{Call, Clock, DefinitionRef, Phase, Saga};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use prost::Message;
use std::time::Duration;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

/// Room for all that a call says, [`protocol`] included, so that the map is made once.
const HEADERS: usize = 16;
const CLOCK: &str = "backstop-clock";
/// Largest `backstop-cause-bin` before base64, which adds a third. With all other metadata it stays below
/// the 8 KiB of headers that some servers (Netty) take at most.
pub(crate) const CAUSE_BYTES_MAX: usize = 4608;

/// What all attempts of one step's call say alike, made once for each revision.
#[derive(Debug)]
pub(super) struct Fixed {
    step: HeaderValue,
    phase: HeaderValue,
}

impl Fixed {
    pub(super) fn new(step: &str, phase: Phase) -> Self {
        Self { step: text(step), phase: HeaderValue::from_static(phase.as_str()) }
    }
}

/// How calls name their revision.
pub(super) fn definition(reference: &DefinitionRef) -> HeaderValue {
    text(&reference.to_string())
}

/// The metadata of one attempt, but for [`protocol`] and `traceparent`.
pub(super) fn of_call(definition: &HeaderValue, fixed: &Fixed, saga: &Saga, call: &Call) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    let mut put = |name: &'static str, value| headers.insert(HeaderName::from_static(name), value);
    put("backstop-saga-id", once(saga.id.as_str()));
    put("backstop-definition", definition.clone());
    put("backstop-step", fixed.step.clone());
    put("backstop-phase", fixed.phase.clone());
    put("backstop-attempt", call.attempt.into());
    put(CLOCK, call.clock.0.into());
    put("backstop-epoch", saga.epoch.0.into());
    put("idempotency-key", once(call.key(saga).as_str()));
    if let (Phase::Compensation, Some(cause)) = (call.phase, &saga.cause) {
        let cause = wire_failure::bounded_cause(&saga.definition.errors, cause, CAUSE_BYTES_MAX);
        put_binary(&mut headers, "backstop-cause-bin", cause.encode_to_vec().into());
    }
    headers
}

/// Ids and names are visible ASCII by their own rules, so nothing is ever left empty.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

/// A value that no other call bears: HPACK is told not to index it (RFC 7541, 7.1.3). Indexed, each of them pushes
/// out of the connection's small table what all calls share, at both ends.
fn once(value: &str) -> HeaderValue {
    let mut value = text(value);
    value.set_sensitive(true);
    value
}

/// The saga's or the call's place in its trace.
pub(super) fn trace_parent(headers: &mut HeaderMap, value: &str) {
    headers.insert("traceparent", once(value));
}

/// What gRPC itself wants, with the time that is left.
pub(super) fn protocol(headers: &mut HeaderMap, left: Duration) {
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("backstop/", env!("CARGO_PKG_VERSION"))));
    headers.insert("grpc-timeout", once(&grpc_timeout(left)));
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
