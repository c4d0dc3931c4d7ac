//! Puts a value into a field: protobuf's JSON mapping, with integers kept whole.
//!
//! # Choices
//! * Text goes into number, bytes (base64) and enum fields, as the JSON mapping has it.
//! * A double goes into an integer field only if it is whole and below 2^53: `input` is JSON, where 5.0 is 5.
//! * What an expression found to be null leaves a field unset that can be unset; for any other field it is
//!   an error, for an amount that is missing must not become 0.
//! * Faults and failures tell kinds of values, never values.

use super::eval::Env;
use super::ops::{exact_double, key_text};
use super::types::{Shape, WellKnown, kind_name, wrapped};
use super::value::{Key, Val, whole};
use backstop_core::bounded_text;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost::Message;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use std::collections::HashMap;

/// Either alphabet, with or without padding, as the JSON mapping allows.
const BASE64: [GeneralPurpose; 2] = {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [
        GeneralPurpose::new(&base64::alphabet::STANDARD, config),
        GeneralPurpose::new(&base64::alphabet::URL_SAFE, config),
    ]
};

/// Why a value cannot go where it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    /// Where, from the field on: `.lines[3].amount`; empty for the field itself.
    pub(super) path: String,
    /// Why, for people.
    pub(super) text: String,
}

impl Misfit {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { path: String::new(), text: text.into() }
    }

    /// The same, seen from one level up.
    pub(super) fn under(mut self, step: &str) -> Self {
        self.path.insert_str(0, step);
        self
    }
}

/// Longest name in a path, in bytes; the rest is cut.
const NAME_BYTES_MAX: usize = 64;

/// `.name`, or `["odd name"]`.
pub(super) fn path_step(name: &str) -> String {
    let name = &*bounded_text(name, NAME_BYTES_MAX);
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain { format!(".{name}") } else { format!("[{name:?}]") }
}

/// A value for a field; `None` leaves it unset.
pub(super) fn field(
    env: &Env<'_>,
    val: &Val<'_>,
    descriptor: &FieldDescriptor,
) -> Result<Option<Value>, Misfit> {
    let shape = Shape::of(descriptor);
    let takes_null =
        matches!(&shape, Shape::Single(Kind::Message(m)) if WellKnown::of(m) == Some(WellKnown::Value));
    if matches!(val, Val::Null) && !takes_null {
        if descriptor.supports_presence() {
            return Ok(None);
        }
        return Err(Misfit::new(format!("null cannot go into {shape}, which is never unset")));
    }
    shaped(env, val, &shape).map(Some)
}

fn shaped(env: &Env<'_>, val: &Val<'_>, shape: &Shape) -> Result<Value, Misfit> {
    match shape {
        Shape::Single(kind) => single(env, val, kind),
        Shape::List(kind) => {
            let items = val.items().ok_or_else(|| misfit(val, &shape.to_string()))?;
            let fitted = items.iter().enumerate().map(|(place, item)| {
                single(env, item, kind).map_err(|misfit| misfit.under(&format!("[{place}]")))
            });
            fitted.collect::<Result<_, _>>().map(Value::List)
        }
        Shape::Map { key: key_kind, value: kind } => {
            let entries = val.entries().ok_or_else(|| misfit(val, &shape.to_string()))?;
            env.spend_elements(val).map_err(|error| Misfit::new(error.text()))?;
            let mut map = HashMap::with_capacity(entries.len());
            for (key, item) in entries {
                let under = |misfit: Misfit| misfit.under(&path_step(&key_text(&key)));
                let item_key = map_key(&key, key_kind).map_err(under)?;
                let item = single(env, &item, kind).map_err(under)?;
                if map.insert(item_key, item).is_some() {
                    return Err(under(Misfit::new("the key is there twice")));
                }
            }
            Ok(Value::Map(map))
        }
    }
}

fn misfit(val: &Val<'_>, what: &str) -> Misfit {
    Misfit::new(format!("{} cannot go into {what}", val.kind()))
}

/// One value, not a list and not a map.
pub(super) fn single(env: &Env<'_>, val: &Val<'_>, kind: &Kind) -> Result<Value, Misfit> {
    let spent = env.spend(1).and_then(|()| env.spend_bytes(val.bytes_to_copy()));
    spent.map_err(|error| Misfit::new(error.text()))?;
    let no = || misfit(val, kind_name(kind));
    let range = || Misfit::new(format!("the number does not fit {}", kind_name(kind)));
    match kind {
        Kind::Bool => match val {
            Val::Bool(value) => Ok(Value::Bool(*value)),
            _ => Err(no()),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            let int = integer(val).ok_or_else(no)?;
            int.try_into().map(Value::I32).map_err(|_| range())
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            let int = integer(val).ok_or_else(no)?;
            int.try_into().map(Value::I64).map_err(|_| range())
        }
        Kind::Uint32 | Kind::Fixed32 => {
            let int = integer(val).ok_or_else(no)?;
            int.try_into().map(Value::U32).map_err(|_| range())
        }
        Kind::Uint64 | Kind::Fixed64 => {
            let int = integer(val).ok_or_else(no)?;
            int.try_into().map(Value::U64).map_err(|_| range())
        }
        Kind::Double => double(val).map(Value::F64).ok_or_else(no),
        Kind::Float => float(double(val).ok_or_else(no)?).map(Value::F32).ok_or_else(range),
        Kind::String => match val {
            Val::Str(text) => Ok(Value::String((**text).to_owned())),
            _ => Err(no()),
        },
        Kind::Bytes => match val {
            Val::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
            Val::Str(text) => {
                from_base64(text).map(Value::Bytes).ok_or_else(|| Misfit::new("the text is not base64"))
            }
            _ => Err(no()),
        },
        Kind::Enum(descriptor) => match val {
            Val::Str(name) => descriptor
                .get_value_by_name(name)
                .map(|value| Value::EnumNumber(value.number()))
                .ok_or_else(|| Misfit::new(format!("{} has no value of that name", descriptor.full_name()))),
            other => {
                let number = integer(other).ok_or_else(no)?;
                number.try_into().map(Value::EnumNumber).map_err(|_| range())
            }
        },
        Kind::Message(descriptor) => {
            let nested = env.enter().map_err(|error| Misfit::new(error.text()))?;
            let built = message(env, val, descriptor).map(Value::Message);
            drop(nested);
            built
        }
    }
}

fn integer(val: &Val<'_>) -> Option<i128> {
    match val {
        Val::Int(value) => Some((*value).into()),
        Val::Uint(value) => Some((*value).into()),
        Val::Double(value) => whole(*value).map(Into::into),
        Val::Str(text) => {
            // The plain decimal form, as the JSON mapping writes 64-bit integers; no sign but "-".
            let digits = text.strip_prefix('-').unwrap_or(text);
            let plain =
                !digits.is_empty() && digits.len() <= 20 && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { text.parse().ok() } else { None }
        }
        _ => None,
    }
}

fn double(val: &Val<'_>) -> Option<f64> {
    match val {
        Val::Double(value) => Some(*value),
        Val::Str(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok().filter(|value: &f64| value.is_finite()),
        },
        other => exact_double(other),
    }
}

#[allow(clippy::cast_possible_truncation)] // a float field is inexact by its author's choice; overflow is refused
fn float(value: f64) -> Option<f32> {
    let float = value as f32;
    (float.is_finite() || !value.is_finite()).then_some(float)
}

fn from_base64(text: &str) -> Option<Bytes> {
    BASE64.iter().find_map(|engine| engine.decode(text).ok()).map(Bytes::from)
}

pub(super) fn map_key(key: &Key, kind: &Kind) -> Result<MapKey, Misfit> {
    let no = || Misfit::new(format!("the key cannot be {}", kind_name(kind)));
    let number = || match key {
        Key::Int(value) => Some(*value),
        Key::Str(text) => integer(&Val::Str(text.as_str().into())),
        Key::Bool(_) => None,
    };
    match kind {
        Kind::String => Ok(MapKey::String(key_text(key).into_owned())),
        Kind::Bool => match key {
            Key::Bool(value) => Ok(MapKey::Bool(*value)),
            Key::Str(text) => text.parse().map(MapKey::Bool).map_err(|_| no()),
            Key::Int(_) => Err(no()),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            number().and_then(|n| n.try_into().ok()).map(MapKey::I32).ok_or_else(no)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            number().and_then(|n| n.try_into().ok()).map(MapKey::I64).ok_or_else(no)
        }
        Kind::Uint32 | Kind::Fixed32 => {
            number().and_then(|n| n.try_into().ok()).map(MapKey::U32).ok_or_else(no)
        }
        Kind::Uint64 | Kind::Fixed64 => {
            number().and_then(|n| n.try_into().ok()).map(MapKey::U64).ok_or_else(no)
        }
        Kind::Double | Kind::Float | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) => Err(no()),
    }
}

fn message(env: &Env<'_>, val: &Val<'_>, descriptor: &MessageDescriptor) -> Result<DynamicMessage, Misfit> {
    let no = || misfit(val, descriptor.full_name());
    match (WellKnown::of(descriptor), val) {
        (Some(WellKnown::Value | WellKnown::Struct | WellKnown::ListValue), _) => {
            dynamic(env, val, descriptor)
        }
        (Some(WellKnown::Wrapper), _) => {
            let (field, kind) = wrapped(descriptor).ok_or_else(no)?;
            let mut wrapper = DynamicMessage::new(descriptor.clone());
            wrapper.set_field(&field, single(env, val, &kind)?);
            Ok(wrapper)
        }
        (Some(WellKnown::Timestamp), Val::Str(text)) => {
            let parsed = text
                .parse::<prost_types::Timestamp>()
                .map_err(|_| Misfit::new("the text is no RFC 3339 time"))?;
            recoded(&parsed, descriptor)
        }
        (Some(WellKnown::Duration), Val::Str(text)) => {
            let parsed = text.parse::<prost_types::Duration>();
            recoded(&parsed.map_err(|_| Misfit::new("the text is no duration like \"1.5s\""))?, descriptor)
        }
        (Some(WellKnown::FieldMask), Val::Str(text)) => {
            let paths = text.split(',').filter(|path| !path.is_empty()).map(snake_case).collect();
            recoded(&prost_types::FieldMask { paths }, descriptor)
        }
        (None, Val::Message(own)) if own.descriptor().full_name() == descriptor.full_name() => {
            Ok((**own).clone())
        }
        (None, Val::Map(_) | Val::Json(serde_json::Value::Object(_))) => {
            let mut built = DynamicMessage::new(descriptor.clone());
            for (key, item) in val.entries().unwrap_or_default() {
                let name = key_text(&key);
                // Put together only for a misfit: for each field of each line it was an eighth of a long list.
                let under = |misfit: Misfit| misfit.under(&path_step(&name));
                let inner = named_field(descriptor, &name).ok_or_else(|| {
                    under(Misfit::new(format!("{} has no such field", descriptor.full_name())))
                })?;
                if let Some(value) = field(env, &item, &inner).map_err(under)? {
                    built.set_field(&inner, value);
                }
            }
            Ok(built)
        }
        _ => Err(no()),
    }
}

/// A field by its name in the proto file, or by its JSON name.
pub(super) fn named_field(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name))
}

fn recoded(of: &impl Message, descriptor: &MessageDescriptor) -> Result<DynamicMessage, Misfit> {
    DynamicMessage::decode(descriptor.clone(), of.encode_to_vec().as_slice())
        .map_err(|_| Misfit::new(format!("{} is not what it should be", descriptor.full_name())))
}

fn snake_case(path: &str) -> String {
    let mut snake = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// `Struct`, `Value` and `ListValue`. Their numbers are doubles, so whole numbers that a double may not
/// hold go in as text, as the JSON mapping writes 64-bit integers.
fn dynamic(env: &Env<'_>, val: &Val<'_>, descriptor: &MessageDescriptor) -> Result<DynamicMessage, Misfit> {
    env.spend(1).map_err(|error| Misfit::new(error.text()))?;
    let no = || misfit(val, descriptor.full_name());
    let by_name = |name: &str| descriptor.get_field_by_name(name).ok_or_else(no);
    let mut built = DynamicMessage::new(descriptor.clone());
    if let Val::Message(own) = val {
        let json = serde_json::to_value(&**own).map_err(|_| no())?;
        return dynamic(env, &Val::of_json(&json).into_owned(), descriptor);
    }
    match WellKnown::of(descriptor) {
        Some(WellKnown::Struct) => {
            val.entries().ok_or_else(no)?;
            let fields = by_name("fields")?;
            built.set_field(&fields, shaped(env, val, &Shape::of(&fields))?);
        }
        Some(WellKnown::ListValue) => {
            let values = by_name("values")?;
            built.set_field(&values, shaped(env, val, &Shape::of(&values))?);
        }
        _ => {
            let (name, value) = match val {
                Val::Null => ("null_value", Value::EnumNumber(0)),
                Val::Bool(value) => ("bool_value", Value::Bool(*value)),
                Val::Str(text) => ("string_value", Value::String((**text).to_owned())),
                Val::Double(value) if value.is_finite() => ("number_value", Value::F64(*value)),
                Val::Int(_) | Val::Uint(_) => match exact_double(val) {
                    Some(value) => ("number_value", Value::F64(value)),
                    None => ("string_value", Value::String(integer(val).unwrap_or_default().to_string())),
                },
                Val::Bytes(bytes) => {
                    ("string_value", Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)))
                }
                Val::List(_) | Val::Json(serde_json::Value::Array(_)) => {
                    let field = by_name("list_value")?;
                    ("list_value", single(env, val, &field.kind())?)
                }
                Val::Map(_) | Val::Json(_) => {
                    let field = by_name("struct_value")?;
                    ("struct_value", single(env, val, &field.kind())?)
                }
                Val::Double(_) | Val::Message(_) => return Err(no()),
            };
            let field = by_name(name)?;
            built.set_field(&field, value);
        }
    }
    Ok(built)
}
