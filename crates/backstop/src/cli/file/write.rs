//! A definition as a YAML file that registers the same definition again.
//!
//! Invariant: what is written reads back as the same message (`what_is_shown_can_be_registered_again`).

use super::super::error::CliError;
use super::super::json;
use super::shape::enum_prefix;
use backstop_proto::v1;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};
use serde_json::Value as Json;

/// The definition as YAML, without what only the server says (revision, time).
pub(crate) fn definition(definition: &v1::Definition) -> Result<String, CliError> {
    let own = v1::Definition { revision: 0, create_time: None, ..definition.clone() };
    let message = json::reflect("backstop.v1.Definition", &own)?;
    let mut out = String::new();
    for line in message_lines(&message)? {
        out.push_str(&line);
        out.push('\n');
    }
    // A message with nothing in it is a document too.
    if out.is_empty() {
        out.push_str("{}\n");
    }
    Ok(out)
}

fn message_lines(message: &DynamicMessage) -> Result<Vec<String>, CliError> {
    let mut lines = Vec::new();
    for (field, value) in message.fields() {
        let nested = match value {
            Value::List(items) if matches!(field.kind(), Kind::Message(_)) => list_lines(items)?,
            Value::Message(inner) => match well_known(&field, inner)? {
                Some(whole) => {
                    lines.extend(whole);
                    continue;
                }
                None => message_lines(inner)?,
            },
            Value::List(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| plain(&field, item)).collect();
                lines.push(format!("{}: [{}]", field.name(), items?.join(", ")));
                continue;
            }
            other => {
                lines.push(format!("{}: {}", field.name(), plain(&field, other)?));
                continue;
            }
        };
        // A message that is set and has no fields is not the same as one that is not set.
        if nested.is_empty() {
            lines.push(format!("{}: {{}}", field.name()));
        } else {
            lines.push(format!("{}:", field.name()));
            lines.extend(nested.into_iter().map(|line| format!("  {line}")));
        }
    }
    Ok(lines)
}

fn list_lines(items: &[Value]) -> Result<Vec<String>, CliError> {
    let mut lines = Vec::new();
    for item in items {
        let Value::Message(item) = item else {
            return Err(CliError::Mapping("a list of messages holds something else".to_owned()));
        };
        let nested = message_lines(item)?;
        if nested.is_empty() {
            lines.push("- {}".to_owned());
        }
        for (place, line) in nested.into_iter().enumerate() {
            lines.push(format!("{} {line}", if place == 0 { "-" } else { " " }));
        }
    }
    Ok(lines)
}

/// Messages that the JSON mapping has as one value: durations on the field's line, objects below it.
fn well_known(field: &FieldDescriptor, message: &DynamicMessage) -> Result<Option<Vec<String>>, CliError> {
    let wrong = |error: prost::DecodeError| CliError::Mapping(format!("{}: {error}", field.full_name()));
    let name = field.name();
    match message.descriptor().full_name() {
        "google.protobuf.Duration" => {
            let duration: prost_types::Duration = message.transcode_to().map_err(wrong)?;
            Ok(Some(vec![format!("{name}: {duration}")]))
        }
        "google.protobuf.Struct" => {
            let object: prost_types::Struct = message.transcode_to().map_err(wrong)?;
            Ok(Some(block(name, &json::of_struct(&object))))
        }
        _ => Ok(None),
    }
}

/// A key and its JSON value: objects a line a field, everything else behind the key.
fn block(key: &str, value: &Json) -> Vec<String> {
    match value {
        Json::Object(fields) if !fields.is_empty() => std::iter::once(format!("{}:", word(key)))
            .chain(fields.iter().flat_map(|(key, value)| block(key, value)).map(|line| format!("  {line}")))
            .collect(),
        Json::Object(_) | Json::Array(_) | Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) => {
            vec![format!("{}: {}", word(key), flow(value))]
        }
    }
}

fn plain(field: &FieldDescriptor, value: &Value) -> Result<String, CliError> {
    match (value, field.kind()) {
        (Value::EnumNumber(number), Kind::Enum(values)) => {
            let prefix = enum_prefix(values.name());
            let value = values.get_value(*number);
            let name = value.as_ref().map(|value| value.name().strip_prefix(&prefix).unwrap_or(value.name()));
            // A value that this program's contract does not know yet.
            name.map(str::to_owned)
                .ok_or_else(|| CliError::Mapping(format!("{} has no value {number}", values.full_name())))
        }
        (Value::String(text), _) => Ok(word(text)),
        (Value::Bool(value), _) => Ok(value.to_string()),
        (Value::I32(number), _) => Ok(number.to_string()),
        (Value::I64(number), _) => Ok(number.to_string()),
        (Value::U32(number), _) => Ok(number.to_string()),
        (Value::U64(number), _) => Ok(number.to_string()),
        _ => Err(CliError::Mapping(format!("{} cannot be written as YAML", field.full_name()))),
    }
}

/// JSON on one line, which is YAML too.
fn flow(value: &Json) -> String {
    match value {
        Json::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Json::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(key, value)| format!("{}: {}", word(key), flow(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::String(text) => quoted(text),
        Json::Null | Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

/// A text without quotes where nothing else can be read into it.
fn word(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// In double quotes, as JSON and YAML both read them.
fn quoted(text: &str) -> String {
    json::harmless(&Json::String(text.to_owned()).to_string())
}
