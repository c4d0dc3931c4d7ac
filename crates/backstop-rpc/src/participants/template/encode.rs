//! Encodes a message so that the same message gives the same bytes.
//!
//! `DynamicMessage` keeps map entries in a hash map and would encode them in another order each time; two
//! attempts with one idempotency key must not differ (I9). Everything else is as protobuf has it: fields
//! by number, repeated numbers packed where the file says so.

use prost::encoding::{self, WireType};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

/// The bytes of a message.
pub(in crate::participants) fn message(message: &DynamicMessage) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(message, &mut out);
    out
}

fn put_message(message: &DynamicMessage, out: &mut Vec<u8>) {
    let mut fields: Vec<(FieldDescriptor, &Value)> = message.fields().collect();
    fields.sort_by_key(|(field, _)| field.number());
    for (field, value) in fields {
        put_field(&field, value, out);
    }
    // Extensions (proto2) are encoded by the library, one by one and in order.
    let mut extensions: Vec<_> = message.extensions().collect();
    extensions.sort_by_key(|(extension, _)| extension.number());
    for (extension, value) in extensions {
        let mut one = DynamicMessage::new(message.descriptor());
        one.set_extension(&extension, value.clone());
        out.extend(prost::Message::encode_to_vec(&one));
    }
    for unknown in message.unknown_fields() {
        unknown.encode(out);
    }
}

fn put_field(field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) {
    let (number, kind) = (field.number(), field.kind());
    match value {
        Value::Map(entries) => {
            let Kind::Message(entry) = &kind else { return };
            let (key_field, value_field) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                let mut body = Vec::new();
                put_value(1, &key_field.kind(), false, &Value::from(key.clone()), &mut body);
                put_value(2, &value_field.kind(), false, value, &mut body);
                put_bytes(number, &body, out);
            }
        }
        Value::List(values) if field.is_packed() => {
            let mut body = Vec::new();
            for value in values {
                put_scalar(&kind, value, &mut body);
            }
            if !values.is_empty() {
                put_bytes(number, &body, out);
            }
        }
        Value::List(values) => {
            for value in values {
                put_value(number, &kind, field.is_group(), value, out);
            }
        }
        // `DynamicMessage::fields` has left out what is the default and cannot be told from unset.
        value => put_value(number, &kind, field.is_group(), value, out),
    }
}

fn put_value(number: u32, kind: &Kind, is_group: bool, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => put_bytes(number, text.as_bytes(), out),
        Value::Bytes(bytes) => put_bytes(number, bytes, out),
        Value::Message(message) if is_group => {
            encoding::encode_key(number, WireType::StartGroup, out);
            put_message(message, out);
            encoding::encode_key(number, WireType::EndGroup, out);
        }
        Value::Message(message) => {
            let mut body = Vec::new();
            put_message(message, &mut body);
            put_bytes(number, &body, out);
        }
        scalar => {
            encoding::encode_key(number, kind.wire_type(), out);
            put_scalar(kind, scalar, out);
        }
    }
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encoding::encode_key(number, WireType::LengthDelimited, out);
    encoding::encode_varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX), out);
    out.extend_from_slice(bytes);
}

/// A number, without its key.
#[allow(clippy::cast_sign_loss)] // two's complement is what the wire wants
fn put_scalar(kind: &Kind, value: &Value, out: &mut Vec<u8>) {
    match (value, kind) {
        (Value::Bool(value), _) => encoding::encode_varint((*value).into(), out),
        (Value::I32(value), Kind::Sint32) => {
            encoding::encode_varint(((*value << 1) ^ (*value >> 31)) as u32 as u64, out)
        }
        (Value::I32(value), Kind::Sfixed32) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::I32(value) | Value::EnumNumber(value), _) => {
            encoding::encode_varint(i64::from(*value) as u64, out)
        }
        (Value::I64(value), Kind::Sint64) => {
            encoding::encode_varint(((*value << 1) ^ (*value >> 63)) as u64, out)
        }
        (Value::I64(value), Kind::Sfixed64) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::I64(value), _) => encoding::encode_varint(*value as u64, out),
        (Value::U32(value), Kind::Fixed32) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::U32(value), _) => encoding::encode_varint((*value).into(), out),
        (Value::U64(value), Kind::Fixed64) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::U64(value), _) => encoding::encode_varint(*value, out),
        (Value::F32(value), _) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::F64(value), _) => out.extend_from_slice(&value.to_le_bytes()),
        // These have lengths, or are no values of a field; `put_value` and `put_field` see to them.
        (Value::String(_) | Value::Bytes(_) | Value::Message(_) | Value::List(_) | Value::Map(_), _) => {}
    }
}
