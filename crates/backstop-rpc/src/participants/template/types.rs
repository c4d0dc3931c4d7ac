//! What is known of an expression's type before it is evaluated, and which types can go into which field.
//!
//! Only what is certain is refused here: `Dyn` (anything read from `input`) is judged when it is there.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use std::fmt;

/// A type, as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ty {
    /// Not known until evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    /// A list of these.
    List(Box<Ty>),
    /// A map of keys to these.
    Map(Box<Ty>),
    Message(MessageDescriptor),
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("a value"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("a bool"),
            Self::Int => f.write_str("an int"),
            Self::Uint => f.write_str("a uint"),
            Self::Double => f.write_str("a double"),
            Self::String => f.write_str("a string"),
            Self::Bytes => f.write_str("bytes"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
            Self::Message(message) => write!(f, "a {}", message.full_name()),
        }
    }
}

/// How a field holds its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Single(Kind),
    List(Kind),
    Map { key: Kind, value: Kind },
}

impl Shape {
    pub(super) fn of(field: &FieldDescriptor) -> Self {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => Self::Map {
                key: entry.map_entry_key_field().kind(),
                value: entry.map_entry_value_field().kind(),
            },
            kind if field.is_list() => Self::List(kind),
            kind => Self::Single(kind),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(kind) => f.write_str(kind_name(kind)),
            Self::List(kind) => write!(f, "repeated {}", kind_name(kind)),
            Self::Map { key, value } => write!(f, "map<{}, {}>", kind_name(key), kind_name(value)),
        }
    }
}

/// A kind as a proto file writes it.
pub(super) fn kind_name(kind: &Kind) -> &str {
    match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Message(message) => message.full_name(),
        Kind::Enum(descriptor) => descriptor.full_name(),
    }
}

/// Messages that protobuf's JSON mapping, and so a template, writes otherwise than as an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WellKnown {
    Timestamp,
    Duration,
    FieldMask,
    /// `google.protobuf.Int64Value` and its like: the value itself, or null.
    Wrapper,
    Struct,
    Value,
    ListValue,
}

impl WellKnown {
    pub(super) fn of(message: &MessageDescriptor) -> Option<Self> {
        match message.full_name().strip_prefix("google.protobuf.")? {
            "Timestamp" => Some(Self::Timestamp),
            "Duration" => Some(Self::Duration),
            "FieldMask" => Some(Self::FieldMask),
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => Some(Self::Wrapper),
            "Struct" => Some(Self::Struct),
            "Value" => Some(Self::Value),
            "ListValue" => Some(Self::ListValue),
            _ => None,
        }
    }
}

/// The kind that a wrapper message wraps.
pub(super) fn wrapped(message: &MessageDescriptor) -> Option<(FieldDescriptor, Kind)> {
    message.get_field(1).map(|field| {
        let kind = field.kind();
        (field, kind)
    })
}

impl Ty {
    /// What reading a field gives.
    pub(super) fn of_field(field: &FieldDescriptor) -> Self {
        match Shape::of(field) {
            Shape::Single(kind) => Self::of_kind(&kind),
            Shape::List(kind) => Self::List(Box::new(Self::of_kind(&kind))),
            Shape::Map { value, .. } => Self::Map(Box::new(Self::of_kind(&value))),
        }
    }

    fn of_kind(kind: &Kind) -> Self {
        match kind {
            Kind::Double | Kind::Float => Self::Double,
            Kind::Int32 | Kind::Int64 | Kind::Sint32 | Kind::Sint64 | Kind::Sfixed32 | Kind::Sfixed64 => {
                Self::Int
            }
            Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Self::Uint,
            Kind::Bool => Self::Bool,
            Kind::String | Kind::Enum(_) => Self::String,
            Kind::Bytes => Self::Bytes,
            Kind::Message(message) => match WellKnown::of(message) {
                Some(WellKnown::Timestamp | WellKnown::Duration | WellKnown::FieldMask) => Self::String,
                Some(WellKnown::Wrapper | WellKnown::Value) => Self::Dyn,
                Some(WellKnown::Struct) => Self::Map(Box::new(Self::Dyn)),
                Some(WellKnown::ListValue) => Self::List(Box::new(Self::Dyn)),
                None => Self::Message(message.clone()),
            },
        }
    }

    /// False if no value of this type can go into a field of that shape.
    pub(super) fn can_fill(&self, shape: &Shape) -> bool {
        match (self, shape) {
            (Self::Dyn, _) => true,
            (Self::List(element), Shape::List(kind)) => element.can_be(kind),
            (Self::Map(element), Shape::Map { value, .. }) => element.can_be(value),
            (_, Shape::List(_) | Shape::Map { .. }) => false,
            (_, Shape::Single(kind)) => self.can_be(kind),
        }
    }

    fn can_be(&self, kind: &Kind) -> bool {
        if let Kind::Message(message) = kind {
            return match (self, WellKnown::of(message)) {
                (Self::Dyn | Self::Null, _) | (_, Some(WellKnown::Value)) => true,
                (Self::Message(own), found) => {
                    own.full_name() == message.full_name() || found == Some(WellKnown::Struct)
                }
                (Self::Map(_), None | Some(WellKnown::Struct)) => true,
                (Self::List(_), Some(WellKnown::ListValue)) => true,
                (Self::String, Some(WellKnown::Timestamp | WellKnown::Duration | WellKnown::FieldMask)) => {
                    true
                }
                (_, Some(WellKnown::Wrapper)) => wrapped(message).is_some_and(|(_, kind)| self.can_be(&kind)),
                _ => false,
            };
        }
        match self {
            Self::Dyn => true,
            Self::Bool => matches!(kind, Kind::Bool),
            Self::Int | Self::Uint => !matches!(kind, Kind::Bool | Kind::String | Kind::Bytes),
            // Money never goes through a double: not back into an integer either.
            Self::Double => matches!(kind, Kind::Double | Kind::Float),
            Self::String => !matches!(kind, Kind::Bool),
            Self::Bytes => matches!(kind, Kind::Bytes),
            Self::Null | Self::List(_) | Self::Map(_) | Self::Message(_) => false,
        }
    }
}
