//! Wire messages to and from protobuf's JSON mapping, by the descriptors of the contract.
//!
//! Invariants: every message of the contract can be shown (`every_message_of_the_contract_has_a_mapping`);
//! what is printed holds no character that could act on a terminal.
//!
//! Not here: reading files with positions (`file`).

use super::error::CliError;
use super::text::is_harmful;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use std::fmt::Write;
use std::sync::OnceLock;

/// The contract's descriptor of a message, such as `backstop.v1.Saga`.
pub(crate) fn descriptor(full_name: &str) -> Result<MessageDescriptor, CliError> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(backstop_proto::DESCRIPTORS).ok())
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(full_name))
        .ok_or_else(|| CliError::Mapping(format!("this program's contract has no message {full_name}")))
}

/// The message with its descriptor, for walking through its fields.
pub(crate) fn reflect(full_name: &str, message: &impl Message) -> Result<DynamicMessage, CliError> {
    let mut dynamic = DynamicMessage::new(descriptor(full_name)?);
    dynamic.transcode_from(message).map_err(|error| CliError::Mapping(format!("{full_name}: {error}")))?;
    Ok(dynamic)
}

/// The JSON mapping of a message, over several lines.
pub(crate) fn pretty(full_name: &str, message: &impl Message) -> Result<String, CliError> {
    let value = value(full_name, message)?;
    Ok(harmless(&format!("{value:#}")))
}

/// The JSON mapping of a message on one line, for streams.
pub(crate) fn line(full_name: &str, message: &impl Message) -> Result<String, CliError> {
    Ok(harmless(&value(full_name, message)?.to_string()))
}

/// A document of the program's own making.
pub(crate) fn document(value: &serde_json::Value) -> String {
    harmless(&format!("{value:#}"))
}

fn value(full_name: &str, message: &impl Message) -> Result<serde_json::Value, CliError> {
    reflect(full_name, message)?
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .map_err(|error| CliError::Mapping(format!("{full_name}: {error}")))
}

/// A `google.protobuf.Struct` as JSON: whole numbers without a fraction, as people wrote them.
pub(crate) fn of_struct(message: &prost_types::Struct) -> serde_json::Value {
    message.fields.iter().map(|(key, value)| (key.clone(), of_value(value))).collect()
}

fn of_value(value: &prost_types::Value) -> serde_json::Value {
    use prost_types::value::Kind;
    use serde_json::Value as Json;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(*value),
        Some(Kind::NumberValue(number)) => of_number(*number),
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(of_value).collect(),
        Some(Kind::StructValue(inner)) => of_struct(inner),
    }
}

fn of_number(number: f64) -> serde_json::Value {
    /// Below this every whole double is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53")]
        let whole = number as i64;
        serde_json::Value::from(whole)
    } else {
        serde_json::Value::from(number)
    }
}

/// JSON text with every harmful character written as an escape. They can only stand within strings, so
/// the meaning stays; newlines are the layout's own.
pub(crate) fn harmless(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        if is_harmful(c) && c != '\n' {
            // All harmful characters are within the basic plane: one escape of four digits.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use backstop_proto::v1;

    #[test]
    fn every_message_of_the_contract_has_a_mapping() {
        let pool = DescriptorPool::decode(backstop_proto::DESCRIPTORS).unwrap();
        let methods: Vec<_> = pool
            .services()
            .filter(|service| service.full_name().starts_with("backstop.v1."))
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect();
        assert_eq!(methods.len(), 19, "all four services are there");
        for method in methods {
            assert!(descriptor(method.output().full_name()).is_ok());
        }
    }

    #[test]
    fn sixty_four_bits_travel_as_strings_and_names_as_the_mapping_has_them() {
        let saga = v1::Saga {
            id: "pay-7".into(),
            seq: u64::MAX,
            fin_code: "FIN-40005".into(),
            ..Default::default()
        };
        assert_eq!(
            line("backstop.v1.Saga", &saga).unwrap(),
            r#"{"finCode":"FIN-40005","id":"pay-7","seq":"18446744073709551615"}"#
        );
    }

    #[test]
    fn json_cannot_act_on_a_terminal_and_means_the_same() {
        let text = "a\u{9b}31m\u{202e}\u{7f}\u{1b}";
        let saga = v1::Saga { id: text.into(), ..Default::default() };
        let json = pretty("backstop.v1.Saga", &saga).unwrap();
        assert!(!json.chars().any(|c| is_harmful(c) && c != '\n'), "{json:?}");
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["id"], text);
    }
}
