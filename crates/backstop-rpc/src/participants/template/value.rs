//! The values that expressions work on.
//!
//! # Invariants
//! * Integers stay integers: nothing here passes one through a double.
//! * Maps are ordered, so whatever is made from one is the same each time (I9).
//! * Nothing is copied from `input` or a response until it is used.
//! * A copy of a value costs the same whatever it holds (`Held`): what an expression repeats is not there
//!   twice. What does grow with a value is told by `bytes…`, for the account of work (`tests/limits.rs`).

use super::types::{Shape, WellKnown, wrapped};
use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

/// Largest whole number up to which doubles hold every whole number: 2^53 - 1.
pub(super) const WHOLE_DOUBLE_MAX: u64 = (1 << 53) - 1;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Held<'a, str>),
    Bytes(Bytes),
    List(Arc<Vec<Val<'a>>>),
    Map(Arc<BTreeMap<Key, Val<'a>>>),
    /// A JSON array or object, not yet read.
    Json(&'a Json),
    /// A message that is no well-known type.
    Message(Held<'a, DynamicMessage>),
}

/// What is borrowed from the data, or shared by all copies of what an expression made.
#[derive(Debug)]
pub(super) enum Held<'a, T: ?Sized> {
    Of(&'a T),
    Own(Arc<T>),
}

impl<T: ?Sized> Clone for Held<'_, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Of(held) => Self::Of(held),
            Self::Own(held) => Self::Own(Arc::clone(held)),
        }
    }
}

impl<T: ?Sized> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Of(held) => held,
            Self::Own(held) => held,
        }
    }
}

impl From<String> for Held<'_, str> {
    fn from(text: String) -> Self {
        Self::Own(text.into())
    }
}

impl<'a> From<&'a str> for Held<'a, str> {
    fn from(text: &'a str) -> Self {
        Self::Of(text)
    }
}

/// A key of a map. Whole numbers are one kind of key, whatever their type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Bool(bool),
    Int(i128),
    Str(String),
}

impl<'a> Val<'a> {
    /// A JSON value; a number without a fraction is an int, for JSON does not tell 5 from 5.0.
    pub(super) fn of_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::of_number(number),
            Json::String(text) => Self::Str(Held::Of(text)),
            Json::Array(_) | Json::Object(_) => Self::Json(json),
        }
    }

    fn of_number(number: &serde_json::Number) -> Self {
        if let Some(int) = number.as_i64() {
            return Self::Int(int);
        }
        if let Some(uint) = number.as_u64() {
            return Self::Uint(uint);
        }
        let double = number.as_f64().unwrap_or(f64::NAN);
        whole(double).map_or(Self::Double(double), Self::Int)
    }

    /// A field of a message. An unset message field reads as null where it stands for a plain value
    /// (timestamps, wrappers, `Value`), otherwise as the empty message, as CEL has it.
    pub(super) fn of_field(message: &Held<'a, DynamicMessage>, field: &FieldDescriptor) -> Self {
        let unset = field.supports_presence() && !message.has_field(field);
        let stands_for_plain = |kind| matches!(kind, Kind::Message(inner) if WellKnown::of(&inner).is_some());
        if unset && stands_for_plain(field.kind()) {
            return Self::Null;
        }
        let shape = Shape::of(field);
        match message {
            Held::Of(message) => match message.get_field(field) {
                Cow::Borrowed(value) => Self::of_shape(value, &shape),
                Cow::Owned(value) => Val::of_shape(&value, &shape).into_owned(),
            },
            Held::Own(message) => Val::of_shape(&message.get_field(field), &shape).into_owned(),
        }
    }

    fn of_shape(value: &'a Value, shape: &Shape) -> Self {
        match (value, shape) {
            (Value::List(values), Shape::List(kind)) => {
                Self::List(Arc::new(values.iter().map(|value| Self::of_value(value, kind)).collect()))
            }
            (Value::Map(values), Shape::Map { value: kind, .. }) => {
                let entries = values.iter().map(|(key, value)| (Key::of(key), Self::of_value(value, kind)));
                Self::Map(Arc::new(entries.collect()))
            }
            (value, Shape::Single(kind) | Shape::List(kind) | Shape::Map { value: kind, .. }) => {
                Self::of_value(value, kind)
            }
        }
    }

    fn of_value(value: &'a Value, kind: &Kind) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::I32(value) => Self::Int((*value).into()),
            Value::I64(value) => Self::Int(*value),
            Value::U32(value) => Self::Uint((*value).into()),
            Value::U64(value) => Self::Uint(*value),
            Value::F32(value) => Self::Double((*value).into()),
            Value::F64(value) => Self::Double(*value),
            Value::String(text) => Self::Str(Held::Of(text)),
            Value::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Value::EnumNumber(number) => {
                let named = kind.as_enum().and_then(|descriptor| descriptor.get_value(*number));
                named.map_or(Self::Int((*number).into()), |value| Self::Str(value.name().to_owned().into()))
            }
            Value::Message(message) => Self::of_message(message),
            // A list or map within a list or map is not to be had in protobuf.
            Value::List(_) | Value::Map(_) => Self::Null,
        }
    }

    /// A message, or the plain value for which a well-known one stands.
    pub(super) fn of_message(message: &'a DynamicMessage) -> Self {
        let descriptor = message.descriptor();
        match WellKnown::of(&descriptor) {
            None => Self::Message(Held::Of(message)),
            Some(WellKnown::Wrapper) => wrapped(&descriptor)
                .map_or(Self::Null, |(field, _)| Self::of_field(&Held::Of(message), &field)),
            Some(
                WellKnown::Timestamp
                | WellKnown::Duration
                | WellKnown::FieldMask
                | WellKnown::Struct
                | WellKnown::Value
                | WellKnown::ListValue,
            ) => serde_json::to_value(message).map_or(Self::Null, |json| Val::of_json(&json).into_owned()),
        }
    }

    /// The same, borrowing nothing.
    pub(super) fn into_owned(self) -> Val<'static> {
        match self {
            Self::Null => Val::Null,
            Self::Bool(value) => Val::Bool(value),
            Self::Int(value) => Val::Int(value),
            Self::Uint(value) => Val::Uint(value),
            Self::Double(value) => Val::Double(value),
            Self::Str(Held::Of(text)) => Val::Str(text.to_owned().into()),
            Self::Str(Held::Own(text)) => Val::Str(Held::Own(text)),
            Self::Bytes(bytes) => Val::Bytes(bytes),
            Self::List(items) => Val::List(Arc::new(items.iter().cloned().map(Val::into_owned).collect())),
            Self::Map(entries) => Val::Map(Arc::new(
                entries.iter().map(|(key, value)| (key.clone(), value.clone().into_owned())).collect(),
            )),
            Self::Json(Json::Array(items)) => {
                Val::List(Arc::new(items.iter().map(|item| Val::of_json(item).into_owned()).collect()))
            }
            Self::Json(Json::Object(entries)) => Val::Map(Arc::new(
                entries
                    .iter()
                    .map(|(key, value)| (Key::Str(key.clone()), Val::of_json(value).into_owned()))
                    .collect(),
            )),
            Self::Json(other) => Val::of_json(other).into_owned(),
            Self::Message(Held::Of(message)) => Val::Message(Held::Own(Arc::new(message.clone()))),
            Self::Message(Held::Own(message)) => Val::Message(Held::Own(message)),
        }
    }

    /// How many elements it has, if it is a list or a map.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::List(items) => Some(items.len()),
            Self::Map(entries) => Some(entries.len()),
            Self::Json(Json::Array(items)) => Some(items.len()),
            Self::Json(Json::Object(entries)) => Some(entries.len()),
            _ => None,
        }
    }

    /// Bytes of a text or of bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Str(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Bytes of its keys, which are copied whenever a map is read through.
    pub(super) fn bytes_of_keys(&self) -> usize {
        match self {
            Self::Map(entries) => entries.keys().map(Key::bytes).sum(),
            Self::Json(Json::Object(entries)) => entries.keys().map(String::len).sum(),
            _ => 0,
        }
    }

    /// Bytes that a copy into a field takes, without those of its elements: they are fields themselves.
    pub(super) fn bytes_to_copy(&self) -> usize {
        match self {
            Self::Message(message) => message.encoded_len(),
            Self::Map(_) | Self::Json(_) => self.bytes_of_keys(),
            _ => self.bytes(),
        }
    }

    /// Bytes that were put together for a value which has just been made of a message's field.
    pub(super) fn bytes_made(&self) -> usize {
        const ELEMENT: usize = 64;
        match self {
            Self::Str(Held::Own(text)) => text.len(),
            Self::List(items) => items.iter().map(|item| ELEMENT + item.bytes_made()).sum(),
            Self::Map(entries) => {
                entries.iter().map(|(key, item)| ELEMENT + key.bytes() + item.bytes_made()).sum()
            }
            Self::Message(Held::Own(message)) => message.encoded_len(),
            _ => 0,
        }
    }

    /// Its items, if it is a list.
    pub(super) fn items(&self) -> Option<Cow<'_, [Val<'a>]>> {
        match self {
            Self::List(items) => Some(Cow::Borrowed(items)),
            Self::Json(Json::Array(items)) => Some(items.iter().map(Val::of_json).collect()),
            _ => None,
        }
    }

    /// Its entries by key, if it is a map.
    pub(super) fn entries(&self) -> Option<Vec<(Key, Val<'a>)>> {
        match self {
            Self::Map(entries) => {
                Some(entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            }
            Self::Json(Json::Object(entries)) => {
                let entry = |(key, value): (&String, &'a Json)| (Key::Str(key.clone()), Val::of_json(value));
                let mut entries: Vec<_> = entries.iter().map(entry).collect();
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                Some(entries)
            }
            _ => None,
        }
    }

    /// What it is, without saying what it holds: for messages to people.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(_) => "a bool".to_owned(),
            Self::Int(_) => "an int".to_owned(),
            Self::Uint(_) => "a uint".to_owned(),
            Self::Double(_) => "a double".to_owned(),
            Self::Str(_) => "a string".to_owned(),
            Self::Bytes(_) => "bytes".to_owned(),
            Self::List(_) | Self::Json(Json::Array(_)) => "a list".to_owned(),
            Self::Map(_) | Self::Json(_) => "a map".to_owned(),
            Self::Message(message) => format!("a {}", message.descriptor().full_name()),
        }
    }
}

impl Key {
    fn bytes(&self) -> usize {
        match self {
            Self::Str(text) => text.len(),
            Self::Bool(_) | Self::Int(_) => 0,
        }
    }

    pub(super) fn of(key: &MapKey) -> Self {
        match key {
            MapKey::Bool(value) => Self::Bool(*value),
            MapKey::I32(value) => Self::Int((*value).into()),
            MapKey::I64(value) => Self::Int((*value).into()),
            MapKey::U32(value) => Self::Int((*value).into()),
            MapKey::U64(value) => Self::Int((*value).into()),
            MapKey::String(text) => Self::Str(text.clone()),
        }
    }

    /// A value as a key, if it can be one.
    pub(super) fn of_val(val: &Val<'_>) -> Option<Self> {
        match val {
            Val::Bool(value) => Some(Self::Bool(*value)),
            Val::Int(value) => Some(Self::Int((*value).into())),
            Val::Uint(value) => Some(Self::Int((*value).into())),
            Val::Str(text) => Some(Self::Str((**text).to_owned())),
            Val::Null
            | Val::Double(_)
            | Val::Bytes(_)
            | Val::List(_)
            | Val::Map(_)
            | Val::Json(_)
            | Val::Message(_) => None,
        }
    }

    /// A key as a value.
    pub(super) fn into_val(self) -> Val<'static> {
        match self {
            Self::Bool(value) => Val::Bool(value),
            Self::Int(value) => match i64::try_from(value) {
                Ok(value) => Val::Int(value),
                Err(_) => u64::try_from(value).map_or(Val::Null, Val::Uint),
            },
            Self::Str(text) => Val::Str(text.into()),
        }
    }
}

/// The integer that a double holds exactly and beyond doubt.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // checked: whole, and within 2^53
pub(super) fn whole(double: f64) -> Option<i64> {
    (double.fract() == 0.0 && double.abs() <= WHOLE_DOUBLE_MAX as f64).then_some(double as i64)
}
