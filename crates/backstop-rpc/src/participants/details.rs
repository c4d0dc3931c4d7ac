//! What a participant's status says besides its code: message, `google.rpc` details, and when to try again.
//!
//! # Invariants
//! * Any bytes are read without an error: what makes no sense is left out, never guessed.
//! * The code is not read here, so nothing in a message or in details can change it.
//!
//! # Choices
//! * Several details of one type: violations add up; of anything else the first counts.
//! * `grpc-retry-pushback-ms` that is negative or no number means "do not try again" (gRFC A6), and so
//!   beats a `RetryInfo`. Otherwise the longer of the two waits counts.
//! * A `RetryInfo` without a delay, or with a negative one, says nothing.

use crate::convert::time::std_duration;
use backstop_core::failure::Pushback;
use backstop_core::{Details, FieldViolation, PreconditionViolation};
use http::HeaderMap;
use prost::Message;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic_types::pb;

/// Most details of one status that are looked at.
const DETAILS_MAX: usize = 64;

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    pub(super) message: String,
    pub(super) details: Details,
    pub(super) pushback: Option<Pushback>,
}

/// Reads the trailers, or the headers of an answer that has only those.
pub(super) fn read(trailers: &HeaderMap) -> Said {
    let message = trailers.get("grpc-message").map(|value| percent_decoded(value.as_bytes()));
    let (details, delay) = details_bin(trailers);
    Said {
        message: message.unwrap_or_default(),
        details: details.bounded(),
        pushback: pushback(trailers, delay),
    }
}

fn details_bin(trailers: &HeaderMap) -> (Details, Option<Duration>) {
    let mut details = Details::default();
    let mut delay = None;
    let Some(value) = trailers.get("grpc-status-details-bin") else {
        return (details, delay);
    };
    let mut one = HeaderMap::new();
    one.insert("grpc-status-details-bin", value.clone());
    let bytes = MetadataMap::from_headers(one)
        .get_bin("grpc-status-details-bin")
        .and_then(|value| value.to_bytes().ok());
    let Some(status) = bytes.and_then(|bytes| pb::Status::decode(bytes).ok()) else {
        return (details, delay);
    };
    details.truncated = status.details.len() > DETAILS_MAX;
    for any in status.details.into_iter().take(DETAILS_MAX) {
        let bytes = any.value.as_slice();
        match any.type_url.rsplit('/').next() {
            Some("google.rpc.ErrorInfo") => error_info(&mut details, bytes),
            Some("google.rpc.BadRequest") => bad_request(&mut details, bytes),
            Some("google.rpc.PreconditionFailure") => precondition_failure(&mut details, bytes),
            Some("google.rpc.LocalizedMessage") => localized_message(&mut details, bytes),
            Some("google.rpc.RetryInfo") => delay = delay.or_else(|| retry_delay(bytes)),
            Some(_) | None => {}
        }
    }
    (details, delay)
}

fn error_info(details: &mut Details, bytes: &[u8]) {
    if details.reason.is_some() {
        return;
    }
    if let Ok(info) = pb::ErrorInfo::decode(bytes) {
        details.reason = Some(info.reason);
        details.domain = Some(info.domain);
        details.metadata = info.metadata.into_iter().collect();
    }
}

fn bad_request(details: &mut Details, bytes: &[u8]) {
    let Ok(found) = pb::BadRequest::decode(bytes) else {
        return;
    };
    details.field_violations.extend(
        found
            .field_violations
            .into_iter()
            .map(|v| FieldViolation { field: v.field, description: v.description }),
    );
}

fn precondition_failure(details: &mut Details, bytes: &[u8]) {
    let Ok(found) = pb::PreconditionFailure::decode(bytes) else {
        return;
    };
    details.precondition_violations.extend(found.violations.into_iter().map(|v| PreconditionViolation {
        kind: v.r#type,
        subject: v.subject,
        description: v.description,
    }));
}

fn localized_message(details: &mut Details, bytes: &[u8]) {
    if details.localized.is_some() {
        return;
    }
    if let Ok(found) = pb::LocalizedMessage::decode(bytes) {
        details.localized = Some((found.locale, found.message));
    }
}

fn retry_delay(bytes: &[u8]) -> Option<Duration> {
    let delay = pb::RetryInfo::decode(bytes).ok()?.retry_delay?;
    std_duration(delay)
}

fn pushback(trailers: &HeaderMap, delay: Option<Duration>) -> Option<Pushback> {
    let Some(value) = trailers.get("grpc-retry-pushback-ms") else {
        return delay.map(Pushback::After);
    };
    match value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        Some(ms) => {
            let wait = Duration::from_millis(ms);
            Some(Pushback::After(delay.map_or(wait, |delay| delay.max(wait))))
        }
        None => Some(Pushback::Stop),
    }
}

/// gRPC's encoding of messages; what is not well-formed stands for itself.
fn percent_decoded(bytes: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::FinCode;
    use tonic_types::{ErrorDetails, StatusExt};

    fn trailers(status: &tonic::Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers
    }

    #[test]
    fn rich_details_are_read_as_the_participant_wrote_them() {
        let mut rich = ErrorDetails::new();
        rich.set_error_info("FIN-40017", "ledger.bank", [("effect".to_owned(), "none".to_owned())])
            .add_bad_request_violation("amount_minor", "must be positive")
            .add_precondition_failure_violation("ACCOUNT", "accounts/7", "closed")
            .set_localized_message("zh-CN", "账户已关闭")
            .set_retry_info(Some(Duration::from_millis(1500)));
        let status =
            tonic::Status::with_error_details(tonic::Code::FailedPrecondition, "账户 closed: 100%", rich);
        let said = read(&trailers(&status));
        assert_eq!(said.message, "账户 closed: 100%");
        assert_eq!(said.details.fin_code(), FinCode::parse("FIN-40017"));
        assert!(said.details.says_no_effect());
        assert_eq!(said.details.domain.as_deref(), Some("ledger.bank"));
        assert_eq!(said.details.field_violations[0].field, "amount_minor");
        assert_eq!(said.details.precondition_violations[0].subject, "accounts/7");
        assert_eq!(said.details.localized, Some(("zh-CN".to_owned(), "账户已关闭".to_owned())));
        assert_eq!(said.pushback, Some(Pushback::After(Duration::from_millis(1500))));
    }

    #[test]
    fn pushback_that_is_negative_or_no_number_means_stop_and_beats_retry_info() {
        let said = |pushback: &'static str| {
            let rich = ErrorDetails::with_retry_info(Some(Duration::from_secs(1)));
            let mut headers = trailers(&tonic::Status::with_error_details(tonic::Code::Aborted, "", rich));
            headers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
            read(&headers).pushback
        };
        for stop in ["-1", "soon", "", "1.5", "99999999999999999999999"] {
            assert_eq!(said(stop), Some(Pushback::Stop), "{stop:?}");
        }
        assert_eq!(said("250"), Some(Pushback::After(Duration::from_secs(1))), "the longer wait");
        assert_eq!(said("2500"), Some(Pushback::After(Duration::from_millis(2500))));
        let mut alone = HeaderMap::new();
        alone.insert("grpc-retry-pushback-ms", "0".parse().unwrap());
        assert_eq!(read(&alone).pushback, Some(Pushback::After(Duration::ZERO)));
    }

    #[test]
    fn a_negative_retry_delay_says_nothing() {
        let info = pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: -1, nanos: 0 }) };
        assert_eq!(retry_delay(&info.encode_to_vec()), None);
        assert_eq!(retry_delay(&pb::RetryInfo { retry_delay: None }.encode_to_vec()), None);
    }

    #[test]
    fn garbage_is_left_out_and_does_not_disturb_the_rest() {
        let any =
            |name: &str, value: Vec<u8>| prost_types::Any { type_url: format!("t/google.rpc.{name}"), value };
        let violation = pb::bad_request::FieldViolation { field: "a".into(), ..Default::default() };
        let status = pb::Status {
            code: 3,
            message: "other than grpc-message".into(),
            details: vec![
                any("ErrorInfo", vec![0xff; 40]),
                any("Unheard", vec![1, 2, 3]),
                prost_types::Any { type_url: String::new(), value: vec![7] },
                any("BadRequest", pb::BadRequest { field_violations: vec![violation] }.encode_to_vec()),
            ],
        };
        let headers = trailers(&tonic::Status::with_details(
            tonic::Code::InvalidArgument,
            "m",
            status.encode_to_vec().into(),
        ));
        let said = read(&headers);
        assert_eq!(said.message, "m");
        assert_eq!(said.details.field_violations.len(), 1);
        assert_eq!(said.details.reason, None);

        let mut garbage = HeaderMap::new();
        garbage.insert("grpc-status-details-bin", "!!! not base64 !!!".parse().unwrap());
        garbage.insert("grpc-message", "%zz%4%e4%b8".parse().unwrap());
        let said = read(&garbage);
        assert_eq!(said.details, Details::default());
        assert_eq!(said.message, "%zz%4\u{fffd}");
    }

    #[test]
    fn peer_11_a_flood_of_details_is_cut_and_says_so() {
        let violation = |n: usize| pb::bad_request::FieldViolation {
            field: format!("f{n}"),
            description: "x".repeat(1000),
            ..Default::default()
        };
        let found = pb::BadRequest { field_violations: (0..40).map(violation).collect() };
        let any =
            prost_types::Any { type_url: "t/google.rpc.BadRequest".into(), value: found.encode_to_vec() };
        let status = pb::Status { details: vec![any; DETAILS_MAX + 1], ..Default::default() };
        let headers = trailers(&tonic::Status::with_details(
            tonic::Code::InvalidArgument,
            "",
            status.encode_to_vec().into(),
        ));
        let said = read(&headers);
        assert!(said.details.truncated);
        assert_eq!(said.details.field_violations.len(), 4);
    }
}
