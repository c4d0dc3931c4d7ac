//! Writes the valid samples of the binary targets, for when a message has got new fields:
//! `cargo test -p backstop-rpc --lib -- --ignored write_the_valid_samples`. What was found stays as it is.

use crate::convert::definition::wire_spec;
use crate::participants::fuzz as inside;
use backstop_proto::v1;
use prost::Message;
use prost_types::Any;
use serde_json::json;
use tonic_types::{ErrorDetails, StatusExt, pb};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(name), bytes).unwrap();
}

fn structure(json: &serde_json::Value) -> Option<prost_types::Struct> {
    Some(crate::convert::json::structure(json.to_string().as_bytes()))
}

fn boxed(message: &str, details: Vec<(&str, Vec<u8>)>) -> Vec<u8> {
    let details = details.into_iter().map(|(name, value)| Any { type_url: name.to_owned(), value }).collect();
    pb::Status { code: 9, message: message.to_owned(), details }.encode_to_vec()
}

#[test]
#[ignore = "writes files"]
fn write_the_valid_samples() {
    let bank = inside::bank_definition();
    let wire = wire_spec(&bank);
    let request = |definition, descriptors| v1::RegisterDefinitionRequest {
        definition,
        descriptors,
        validate_only: false,
    };
    write("definition", "bank", &request(Some(wire.clone()), None).encode_to_vec());
    write(
        "definition",
        "with-descriptors",
        &request(Some(wire.clone()), Some(inside::bank_files())).encode_to_vec(),
    );
    let mut pivot = wire;
    for (step, kind) in pivot.steps.iter_mut().zip([v1::StepKind::Pivot, v1::StepKind::Retriable]) {
        step.kind = kind.into();
        step.compensation = None;
        step.query = step.action.clone();
        step.in_doubt = v1::InDoubt::Query.into();
    }
    pivot.deadline = Some(prost_types::Duration { seconds: 30, nanos: 1 });
    write("definition", "pivot-and-query", &request(Some(pivot), None).encode_to_vec());
    write("descriptors", "bank", &inside::bank_files().encode_to_vec());

    let input =
        json!({"amount": "7", "n": 5, "half": 0.5, "list": [1, null, {"x": true}], "名": "é", "": {}});
    let saga = v1::StartSagaRequest {
        definition: "transfer".to_owned(),
        revision: 2,
        saga_id: "pay/7".to_owned(),
        input: structure(&input),
        payloads: [("debit".to_owned(), vec![8_u8, 1].into())].into(),
        labels: [("customer".to_owned(), "4711".to_owned())].into(),
        wait: Some(prost_types::Duration { seconds: 2, nanos: 5 }),
    };
    write("start_saga", "whole", &saga.encode_to_vec());
    let participant = v1::Participant {
        name: "ledger".to_owned(),
        endpoints: vec!["http://ledger:50051".to_owned(), "https://[::1]:8443/".to_owned()],
        deduplicates_by_key: true,
        in_flight_max: 7,
        keepalive_interval: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
        ..v1::Participant::default()
    };
    write("participant", "whole", &participant.encode_to_vec());

    let reply = inside::a_reply();
    let template = json!({"amount_minor": "${input.amount}", "account": "to ${saga.id} $${x}", "extra": {"a": ["${input}", 1]},
        "lines": "${steps.debit.response.lines}", "totals": {"k": "${input.n}"}, "money": {"minor": "3"}, "list": [1, "${null}"]});
    write(
        "template",
        "bank",
        &boxed(
            &template.to_string(),
            vec![("input", input.to_string().into_bytes()), ("debit", reply.clone())],
        ),
    );
    let plain = json!({"token": "/+8=", "at": "2026-11-23T01:02:03Z", "within": "1.5s", "limit": "9", "currency": "CURRENCY_EUR",
        "by_day": {"-3": {"account": "z"}}, "anything": [1.5, {"a": null}], "rate": "NaN", "iban": "DE1", "currencies": [1, "CURRENCY_CNY"]});
    write(
        "template",
        "plain",
        &boxed(&plain.to_string(), vec![("input", b"{}".to_vec()), ("debit", reply.clone())]),
    );
    let passed = json!({"extra": "${response.extra}", "anything": "${response}", "at": "${response.at}", "numbers": "${[1, 2].map(x, x * 2)}",
        "account": "${has(response.money) ? response.money.currency : cause.message}"});
    write(
        "template",
        "passed-on",
        &boxed(&passed.to_string(), vec![("input", b"{}".to_vec()), ("debit", reply.clone())]),
    );
    write("reply", "whole", &[&[0_u8, 0, 0, 0, 0, u8::try_from(reply.len()).unwrap()][..], &reply].concat());
    write("reply", "empty-in-pieces", &[9, 0, 0, 0, 0, 0]);

    let mut rich = ErrorDetails::new();
    rich.set_error_info("FIN-40017", "ledger.bank", [("effect".to_owned(), "none".to_owned())])
        .add_bad_request_violation("amount_minor", "must be positive")
        .add_precondition_failure_violation("ACCOUNT", "accounts/7", "closed")
        .set_localized_message("zh-CN", "账户已关闭")
        .set_retry_info(Some(std::time::Duration::from_millis(1500)));
    let status = tonic::Status::with_error_details(tonic::Code::FailedPrecondition, "closed", rich);
    let headers = vec![
        ("grpc-status", b"9".to_vec()),
        ("grpc-message", b"account%20closed %E4%B8".to_vec()),
        ("grpc-status-details-bin", status.details().to_vec()),
        ("grpc-retry-pushback-ms", b"250".to_vec()),
        ("backstop-clock", b"17".to_vec()),
    ];
    write("trailers", "rich", &boxed("", headers));
    write("trailers", "bare", &boxed("", vec![("grpc-status", b"14".to_vec())]));
}
