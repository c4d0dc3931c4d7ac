//! What participants send, and what is made of it: statuses, replies, message types, and the templates that read them.
//!
//! # Not here
//! What clients send: `crate::fuzz`.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::codec::{self, Reply};
use super::evidence::Failed;
use super::fixture::{self, cause, saga};
use super::plan::{Plan, Source};
use super::template::{Scope, Template, Visible};
use super::{GatherError, descriptors};
use backstop_core::failure::{DETAILS_BYTES_MAX, MESSAGE_BYTES_MAX};
use backstop_core::{DefinitionSpec, Fault, Phase};
use backstop_fuzz::{Kind, Target};
use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use prost_reflect::DynamicMessage;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic_types::pb;

const BYTES_MAX: usize = 1 << 20;

fn target(name: &'static str, kind: Kind) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"), kind)
}

pub(crate) fn bank_files() -> FileDescriptorSet {
    fixture::files()
}

pub(crate) fn bank_definition() -> DefinitionSpec {
    let credit = json!({"amount_minor": "${input.amount}", "lines": "${steps.debit.response.lines}", "extra": "${input}",
        "money": "${steps.debit.response.money}", "account": "${saga.id}"});
    fixture::spec(vec![
        fixture::step("debit", &[], "{}"),
        fixture::step("credit", &["debit"], &credit.to_string()),
    ])
}

/// A file with the methods that the bank's definition calls, and nothing in their messages.
pub(crate) fn bare_bank() -> FileDescriptorProto {
    let message = |name: &str| DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() };
    let method = |name: &str| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".bank.v1.Request".to_owned()),
        output_type: Some(".bank.v1.Reply".to_owned()),
        ..MethodDescriptorProto::default()
    };
    FileDescriptorProto {
        package: Some("bank.v1".to_owned()),
        message_type: vec![message("Request"), message("Reply")],
        service: vec![ServiceDescriptorProto {
            name: Some("Ledger".to_owned()),
            method: vec![method("Debit"), method("Undo")],
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    }
}

pub(crate) fn from_given(spec: &DefinitionSpec, given: FileDescriptorSet) -> Result<Bytes, GatherError> {
    descriptors::from_given(spec, given)
}

pub(crate) struct Compiled(Plan);

pub(crate) fn compile(spec: &DefinitionSpec, descriptors: &[u8]) -> Result<Compiled, Vec<Fault>> {
    Plan::compile(spec, descriptors).map(Compiled)
}

/// Every call of a definition, with nothing, junk and a message of the bank as what came before.
pub(crate) fn render_all(Compiled(plan): &Compiled, spec: &DefinitionSpec) {
    let input = json!({"amount": "7", "to": {"account": "B"}, "list": [1, 2.5, null], "": {}});
    for response in [None, Some(Bytes::new()), Some(Bytes::from_static(b"\x0a\x03e-9\x10\x07"))] {
        let before: Vec<(&str, Bytes)> =
            spec.steps.iter().filter_map(|step| Some((step.name.as_str(), response.clone()?))).collect();
        let Some(mut saga) = fixture::try_saga(spec, &input, &before) else { return };
        saga.cause = Some(Arc::new(cause("debit", "m")));
        for step in 0..spec.steps.len() {
            for phase in [Phase::Action, Phase::Query, Phase::Compensation] {
                let Some(call) = plan.call(step, phase) else { continue };
                let Source::Template(template) = &call.request else { continue };
                let once = template.render(&saga, step, BYTES_MAX);
                assert_eq!(once, template.render(&saga, step, BYTES_MAX), "two attempts differ");
                assert!(
                    once.as_ref().is_ok_and(|bytes| bytes.len() <= BYTES_MAX)
                        || once.is_err_and(|e| !e.is_empty())
                );
            }
        }
    }
}

/// A template over the bank's messages, in `google.rpc.Status` as a box: message = the template, first detail = the
/// input, second detail = the reply of the step before.
#[test]
fn template() {
    const WORDS: &[&str] = &[
        "${input.a}",
        "${",
        "}",
        "$${",
        "input",
        "steps.debit.response",
        ".lines",
        ".money",
        ".extra",
        ".map(x, x)",
        ".filter(x, x > 1)",
        ".exists(y, y == x)",
        "size(",
        "string(",
        "bytes(",
        "has(",
        " in ",
        "[0]",
        "['k']",
        "null",
        "9223372036854775807",
        "-9223372036854775808",
        "1.0 / 0.0",
        "b'\\xff'",
        "\"any\":",
        "\"totals\":",
        "\"at\":",
        "\"within\":",
        "\"limit\":",
        "\"by_day\":",
        "\"list\":",
        "\"anything\":",
        "\"currencies\":",
        "cause.message",
    ];
    with_room(|| {
        let spec = bank_definition();
        let reply = fixture::message_type("bank.v1.Reply");
        let request = fixture::message_type("bank.v1.Request");
        target("template", Kind::Protobuf).words(WORDS).run(400, |input| {
            let Ok(case) = pb::Status::decode(input) else { return };
            let detail = |n: usize| case.details.get(n).map(|any| any.value.clone()).unwrap_or_default();
            let steps = BTreeMap::from([("debit", Visible { index: 0, response: Some(reply.clone()) })]);
            let scope = Scope {
                phase: Phase::Compensation,
                steps: &steps,
                ancestors: &|index| index == 0,
                response: Some(reply.clone()),
            };
            let mut faults = Vec::new();
            let compiled = Template::compile(&case.message, &request, &scope, "request", &mut faults);
            let Some(template) = compiled else {
                assert!(
                    !faults.is_empty() && faults.iter().all(|fault| fault.path.starts_with("request")),
                    "{faults:?}"
                );
                return;
            };
            let mut saga = saga(&spec, &json!({}), &[("debit", detail(1).into())]);
            let mut started = (*saga.started).clone();
            started.input = detail(0).into();
            saga.started = Arc::new(started);
            saga.cause = Some(Arc::new(cause("credit", "m")));
            let rendered = template.render(&saga, 0, BYTES_MAX);
            assert_eq!(rendered, template.render(&saga, 0, BYTES_MAX), "two attempts differ");
            match rendered {
                Ok(bytes) => {
                    let read = DynamicMessage::decode(request.clone(), bytes.clone()).unwrap();
                    assert_eq!(super::template::encoded(&read), bytes, "it reads as what was meant");
                }
                Err(text) => assert!(!text.is_empty() && text.len() < 8_192, "{} bytes of words", text.len()),
            }
        });
    });
}

#[test]
fn expression() {
    const WORDS: &[&str] = &[
        "input",
        ".s",
        ".l",
        ".o",
        ".d",
        "steps.debit.response",
        ".lines",
        ".extra",
        ".token",
        "saga.id",
        "cause",
        "response",
        ".map(x, x)",
        ".map(x, x > 1, x)",
        ".filter(x, true)",
        ".exists(x, x == 1)",
        ".exists_one(x, x)",
        ".all(x, x)",
        "size(",
        "int(",
        "uint(",
        "double(",
        "string(",
        "bytes(",
        "bool(",
        "has(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "!=",
        "<",
        "<=",
        "in",
        "&&",
        "||",
        "!",
        "?",
        ":",
        ",",
        "'a'",
        "\"\"\"",
        "r'",
        "b'",
        "\\x",
        "\\u",
        "\\U0010ffff",
        "\\U00110000",
        "\\777",
        "1u",
        "0x",
        "1e999",
        ".5",
        "null",
        "true",
        "//",
        "matches(",
        "timestamp(",
        "dyn(",
        "type(",
        "google.protobuf.Struct{}",
        "@",
        "?.",
        "[?0]",
        "optional.none()",
    ];
    let long = "x".repeat(1 << 13);
    let input = json!({"s": long, "l": (0..300).collect::<Vec<_>>(), "o": {long.clone(): 1, "a": {"b": [1, 2]}},
        "d": 0.1, "n": null, "t": true, "big": "9223372036854775807"});
    let reply = fixture::message(
        "bank.v1.Reply",
        &json!({"entryId": "e", "lines": [{"account": long}, {}], "extra": {"l": (0..300).collect::<Vec<_>>()},
            "token": "AAAA", "totals": {"a": "7"}, "rate": "NaN", "limit": "3", "at": "2026-01-01T00:00:00Z"}),
    );
    with_room(|| {
        let spec = bank_definition();
        let ty = fixture::message_type("bank.v1.Reply");
        let request = fixture::message_type("bank.v1.Request");
        let mut saga = saga(&spec, &input, &[("debit", reply.encode_to_vec().into())]);
        saga.cause = Some(Arc::new(cause("credit", "m")));
        target("expression", Kind::Text).words(WORDS).run(400, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            let steps = BTreeMap::from([("debit", Visible { index: 0, response: Some(ty.clone()) })]);
            let scope = Scope {
                phase: Phase::Compensation,
                steps: &steps,
                ancestors: &|_| true,
                response: Some(ty.clone()),
            };
            let mut faults = Vec::new();
            let json = json!({"anything": format!("${{{text}}}")}).to_string();
            let Some(template) = Template::compile(&json, &request, &scope, "request", &mut faults) else {
                assert!(faults.iter().all(|fault| fault.path == "request.anything"), "{faults:?}");
                return;
            };
            // As much as the work of one rendering can put together, and no more.
            let most = usize::try_from(super::template::EVALUATION_STEPS_MAX).unwrap() * 64;
            let bytes = template.render(&saga, 0, usize::MAX).unwrap_or_default();
            assert!(bytes.len() <= most + input.len(), "{} bytes of {text}", bytes.len());
        });
    });
}

/// The grammar's parser goes down by recursion, and a stack overflow ends the process: so the deepest that it goes,
/// before its limit on nesting or ours on bytes stops it, must leave most of the room unused.
#[test]
fn the_deepest_that_the_parser_goes_takes_less_than_a_quarter_of_its_stack() {
    let request = fixture::message_type("bank.v1.Request");
    let compile = move |text: &str| {
        let (steps, mut faults) = (BTreeMap::new(), Vec::new());
        let scope = Scope { phase: Phase::Action, steps: &steps, ancestors: &|_| false, response: None };
        let json = json!({"anything": format!("${{{text}}}")}).to_string();
        Template::compile(&json, &request, &scope, "request", &mut faults).is_some()
    };
    let compiled = std::thread::Builder::new().stack_size(super::plan::STACK_BYTES / 4).spawn(move || {
        let mut deepest = BTreeMap::new();
        for (open, inner, close) in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("{1:", "1", "}"),
            ("size(", "''", ")"),
            ("-", "1", ""),
            ("!", "true", ""),
            ("-(", "1", ")"),
            ("[1][", "0", "]"),
            ("true ? ", "1", " : 2"),
            ("true ? 1 : ", "2", ""),
            ("1 + (", "1", ")"),
            ("1 == (", "1", ")"),
            ("true && (", "true", ")"),
            ("[1].map(x, ", "1", ")"),
            ("[1].map(x, true, [", "1", "])"),
            ("input.a(", "1", ")"),
            ("a{b:", "1", "}"),
        ] {
            let most = 4_000 / (open.len() + close.len());
            for levels in [1, 16].into_iter().chain(60..=65).chain([500, 4_000]).filter(|n| *n <= most) {
                if compile(&[&open.repeat(levels), inner, &close.repeat(levels)].concat()) {
                    deepest.insert(open, levels);
                }
            }
        }
        deepest
    });
    let deepest = compiled.unwrap().join().unwrap();
    assert!(
        deepest["("] >= 10 && deepest["size("] >= 10,
        "what people write is far from the limit: {deepest:?}"
    );
}

/// As definitions are compiled: with room for the parser of CEL.
fn with_room(run: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().stack_size(super::plan::STACK_BYTES).spawn_scoped(scope, run);
        if let Err(cause) = thread.unwrap().join() {
            std::panic::resume_unwind(cause);
        }
    });
}

/// Trailers, in `google.rpc.Status` as a box: each detail's type is a header's name and its value the header's; a name
/// that ends in `-bin` gets base64 of it.
#[test]
fn trailers() {
    const WORDS: &[&str] = &[
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "grpc-retry-pushback-ms",
        "backstop-clock",
        "google.rpc.ErrorInfo",
        "google.rpc.RetryInfo",
        "FIN-40005",
        "effect",
        "none",
        "%",
        "%E4%B8",
        "%00",
    ];
    target("trailers", Kind::Protobuf).words(WORDS).run(3_000, |input| {
        let Ok(case) = pb::Status::decode(input) else { return };
        let mut headers = HeaderMap::new();
        for any in &case.details {
            let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&any.value);
            let value = if any.type_url.ends_with("-bin") { encoded.as_bytes() } else { &any.value };
            let name = HeaderName::from_bytes(any.type_url.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        let Ok(status) = codec::status_of(&headers) else { return };
        let reply = Reply {
            trailers: headers.clone(),
            headers,
            status: status.unwrap_or(case.code),
            message: Bytes::new(),
        };
        let failed = Failed::said(&reply);
        let details = failed.details.clone();
        assert_eq!(details.clone().bounded(), details, "bounded already");
        let texts = details.metadata.iter().flat_map(|(key, value)| [key, value]);
        let violations = details.field_violations.iter().flat_map(|v| [&v.field, &v.description]);
        let bytes: usize =
            texts.chain(violations).chain(&details.reason).chain(&details.domain).map(String::len).sum();
        assert!(bytes <= DETAILS_BYTES_MAX, "{bytes} bytes of details");
        // What the core keeps of it is what goes on: into the journal, and to other participants.
        let kept = backstop_core::bounded_text(&failed.message, MESSAGE_BYTES_MAX);
        assert!(kept.len() <= MESSAGE_BYTES_MAX);
        let mut told = cause("debit", &kept);
        if let Some(failure) = &mut told.failure {
            (failure.evidence, failure.details, failure.pushback) =
                (failed.evidence, details, failed.pushback);
        }
        let limit = super::metadata::CAUSE_BYTES_MAX;
        let wire = crate::wire_failure::bounded_cause(&Arc::default(), &told, limit);
        assert!(wire.encoded_len() <= limit);
        let _ = failed.reply();
    });
}

/// The body of a reply: the first byte says into how many pieces the rest is cut.
#[test]
fn reply() {
    target("reply", Kind::Bytes).run(5_000, |input| {
        let Some((pieces, body)) = input.split_first() else { return };
        let size = (body.len() / (usize::from(*pieces) + 1)).max(1);
        let whole = codec::message_of(body.chunks(size).map(Bytes::copy_from_slice));
        match whole {
            Ok(message) => {
                assert_eq!([&[0, 0, 0][..], &body[3..5], &message].concat(), body, "nothing added or lost")
            }
            Err(codec::Unread::NoAnswerOfGrpc(text)) => assert!(!text.is_empty()),
            Err(codec::Unread::Broken(_)) => panic!("nothing was broken"),
        }
        let _: Json =
            fixture_reply(body).map_or(Json::Null, |read| serde_json::to_value(&read).unwrap_or_default());
    });
}

fn fixture_reply(bytes: &[u8]) -> Option<DynamicMessage> {
    DynamicMessage::decode(fixture::message_type("bank.v1.Reply"), bytes).ok()
}

/// A reply of the bank's, for samples.
pub(crate) fn a_reply() -> Vec<u8> {
    let json = json!({"entryId": "e-9", "balanceMinor": "-4", "money": {"currency": "CNY", "minor": "3"}, "rate": 0.1,
        "extra": {"a": [1.5, "b"]}, "lines": [{"account": "a", "amountMinor": "1"}], "totals": {"x": "1"}, "limit": "7"});
    fixture::message("bank.v1.Reply", &json).encode_to_vec()
}
