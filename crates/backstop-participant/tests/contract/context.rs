//! Metadata, whole and broken.

use backstop_participant::{Context, ContextError, Phase, RollbackCause};
use std::time::Duration;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const WHOLE: [(&str, &str); 10] = [
    ("backstop-saga-id", "pay-7"),
    ("backstop-definition", "transfer@3"),
    ("backstop-step", "debit"),
    ("backstop-phase", "compensation"),
    ("backstop-attempt", "2"),
    ("backstop-clock", "12"),
    ("backstop-epoch", "3"),
    ("idempotency-key", "pay-7/debit/compensation"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("grpc-timeout", "1500m"),
];

fn metadata(pairs: &[(&'static str, &str)]) -> MetadataMap {
    let mut map = MetadataMap::new();
    for (key, value) in pairs {
        map.append(*key, value.parse().unwrap());
    }
    map
}

fn with(key: &'static str, value: Option<&str>) -> Result<Option<Context>, ContextError> {
    let mut map = metadata(&WHOLE);
    map.remove(key);
    if let Some(value) = value {
        map.insert(key, value.parse().unwrap());
    }
    Context::read(&map)
}

#[test]
fn whole_metadata_are_read_to_the_letter() {
    use prost::Message;
    let cause = RollbackCause { step: "credit".into(), ..RollbackCause::default() };
    let mut map = metadata(&WHOLE);
    map.insert_bin("backstop-cause-bin", MetadataValue::from_bytes(&cause.encode_to_vec()));
    let context = Context::require(&map).unwrap();
    assert_eq!(
        context,
        Context {
            saga_id: "pay-7".into(),
            definition: "transfer@3".into(),
            step: "debit".into(),
            phase: Phase::Compensation,
            attempt: 2,
            clock: 12,
            epoch: 3,
            idempotency_key: "pay-7/debit/compensation".into(),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            deadline: Some(Duration::from_millis(1500)),
            cause: Some(cause),
        }
    );
}

#[test]
fn a_call_without_any_of_our_metadata_is_a_plain_callers() {
    let plain = metadata(&[("idempotency-key", "mine"), ("traceparent", "00-x"), ("grpc-timeout", "1S")]);
    assert_eq!(Context::read(&plain), Ok(None));
    assert_eq!(Context::require(&plain), Err(ContextError::PlainCaller));
    let status = Status::from(ContextError::PlainCaller);
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[test]
fn what_is_missing_is_named_by_its_key() {
    for (key, _) in &WHOLE[..8] {
        assert_eq!(with(key, None), Err(ContextError::Missing { key }));
        let status = Status::from(ContextError::Missing { key });
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, *key);
    }
    for key in ["traceparent", "grpc-timeout"] {
        assert!(with(key, None).unwrap().is_some(), "{key} may be left out");
    }
}

#[test]
fn a_trace_header_never_costs_a_transfer() {
    let long = "x".repeat(300);
    let mut twice = metadata(&WHOLE);
    twice.append("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".parse().unwrap());
    let mut foreign = metadata(&WHOLE);
    foreign.insert("traceparent", MetadataValue::try_from(&b"00-\xe9"[..]).unwrap());
    for read in [
        with("traceparent", Some(&long)),
        with("traceparent", Some("")),
        Context::read(&twice),
        Context::read(&foreign),
    ] {
        let context = read.unwrap().unwrap();
        assert_eq!((context.saga_id.as_str(), context.traceparent), ("pay-7", None));
    }
}

#[test]
fn what_cannot_be_right_is_named_by_its_key() {
    let long = "x".repeat(300);
    for (key, value) in [
        ("backstop-saga-id", ""),
        ("backstop-saga-id", "with space"),
        ("backstop-saga-id", &long),
        ("backstop-step", "a/b"),
        ("backstop-phase", "Action"),
        ("backstop-attempt", "0"),
        ("backstop-attempt", "-1"),
        ("backstop-attempt", "4294967296"),
        ("backstop-clock", "+1"),
        ("backstop-clock", "9223372036854775808"),
        ("backstop-epoch", "1.0"),
        ("idempotency-key", "pay-7/debit/action"),
        ("grpc-timeout", "S"),
        ("grpc-timeout", "123456789S"),
        ("grpc-timeout", "1x"),
        ("grpc-timeout", "-1S"),
    ] {
        match with(key, Some(value)) {
            Err(ContextError::Malformed { key: named, .. }) => assert_eq!(named, key, "{value:?}"),
            other => panic!("{key}: {value:?}: {other:?}"),
        }
    }
    let mut twice = metadata(&WHOLE);
    twice.append("backstop-epoch", "4".parse().unwrap());
    assert!(matches!(Context::read(&twice), Err(ContextError::Malformed { key: "backstop-epoch", .. })));
    let mut cause = metadata(&WHOLE);
    cause.insert_bin("backstop-cause-bin", MetadataValue::from_bytes(&[0xff; 9]));
    assert!(matches!(Context::read(&cause), Err(ContextError::Malformed { key: "backstop-cause-bin", .. })));
}
