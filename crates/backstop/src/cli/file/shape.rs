//! Holds a document against a message of the contract, and makes it protobuf's JSON mapping.
//!
//! Files may be kinder than the mapping: names in snake_case or lowerCamelCase, enum values without their
//! prefix (`PIVOT`), durations with any unit (`50ms`). All faults are found at once, each with its place.
//!
//! Not here: what a definition must fulfil beyond its shape; the server judges that.

use super::Fault;
use super::number;
use super::tree::{Entry, Node, Path, Value};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value as Json;
use std::collections::HashMap;

/// The document as the JSON mapping of the message, ready to be taken by prost-reflect.
pub(super) fn message(descriptor: &MessageDescriptor, root: &Node) -> Result<Json, Vec<Fault>> {
    let mut shaper = Shaper { path: Path::default(), faults: Vec::new() };
    let json = shaper.message(descriptor, root);
    if shaper.faults.is_empty() { Ok(json) } else { Err(shaper.faults) }
}

struct Shaper {
    path: Path,
    faults: Vec<Fault>,
}

impl Shaper {
    /// Notes a fault; what stands in for the value is never sent.
    fn fault(&mut self, node: &Node, problem: impl Into<String>) -> Json {
        self.faults.push(Fault { at: node.at, path: self.path.to_string(), problem: problem.into() });
        Json::Null
    }

    fn message(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Json {
        match descriptor.full_name() {
            "google.protobuf.Struct" => return self.object(node),
            "google.protobuf.Value" => return self.any(node),
            "google.protobuf.Duration" => return self.duration(node),
            "google.protobuf.Timestamp" => return self.timestamp(node),
            _ => {}
        }
        let Value::Map(entries) = &node.value else {
            let problem = format!("here go the fields of a {}, not {}", descriptor.name(), node.value.kind());
            return self.fault(node, problem);
        };
        let mut object = serde_json::Map::new();
        // Two spellings of one field are one field.
        let mut first_lines = HashMap::new();
        for entry in entries {
            self.path.push_key(&entry.key);
            match field(descriptor, &entry.key) {
                None => self.unknown_field(descriptor, entry),
                Some(field) => {
                    if let Some(line) = first_lines.insert(field.number(), entry.at.line) {
                        let problem = format!("the field is here a second time; the first is in line {line}");
                        self.fault_at_key(entry, problem);
                    }
                    let value = self.field(&field, &entry.node);
                    object.insert(field.json_name().to_owned(), value);
                }
            }
            self.path.pop();
        }
        Json::Object(object)
    }

    fn fault_at_key(&mut self, entry: &Entry, problem: String) {
        self.faults.push(Fault { at: entry.at, path: self.path.to_string(), problem });
    }

    fn unknown_field(&mut self, descriptor: &MessageDescriptor, entry: &Entry) {
        let names: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
        let hint = match nearest(&entry.key, &names) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("it has {}", names.join(", ")),
        };
        self.fault_at_key(entry, format!("a {} has no such field; {hint}", descriptor.name()));
    }

    fn field(&mut self, field: &FieldDescriptor, node: &Node) -> Json {
        if matches!(node.value, Value::Null) {
            return Json::Null; // As in the mapping: not set.
        }
        if !field.is_list() {
            return self.single(&field.kind(), node);
        }
        let Value::List(items) = &node.value else {
            return self.fault(node, format!("here goes a list, not {}", node.value.kind()));
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.path.push_index(index);
            list.push(match item.value {
                Value::Null => self.fault(item, "an item is empty"),
                Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                    self.single(&field.kind(), item)
                }
            });
            self.path.pop();
        }
        Json::Array(list)
    }

    fn single(&mut self, kind: &Kind, node: &Node) -> Json {
        match kind {
            Kind::Message(inner) => self.message(inner, node),
            Kind::Enum(values) => self.enum_value(values, node),
            Kind::String => match &node.value {
                Value::Text(text) => Json::String(text.clone()),
                Value::Number(_) | Value::Bool(_) => {
                    self.fault(node, format!("here goes a text, not {}: put it in quotes", node.value.kind()))
                }
                Value::Null | Value::List(_) | Value::Map(_) => {
                    self.fault(node, format!("here goes a text, not {}", node.value.kind()))
                }
            },
            Kind::Bool => match node.value {
                Value::Bool(value) => Json::Bool(value),
                Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                    self.fault(node, format!("here goes true or false, not {}", node.value.kind()))
                }
            },
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => self.whole(node, i32::MIN.into(), i32::MAX.into()),
            Kind::Uint32 | Kind::Fixed32 => self.whole(node, 0, u32::MAX.into()),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => self.whole(node, i64::MIN.into(), i64::MAX.into()),
            Kind::Uint64 | Kind::Fixed64 => self.whole(node, 0, u64::MAX.into()),
            // No field of a definition has these; the mapping itself judges them.
            Kind::Double | Kind::Float | Kind::Bytes => self.any(node),
        }
    }

    fn whole(&mut self, node: &Node, min: i128, max: i128) -> Json {
        let (Value::Number(text) | Value::Text(text)) = &node.value else {
            return self.fault(node, format!("here goes a whole number, not {}", node.value.kind()));
        };
        match text.parse::<i128>() {
            Ok(whole) if (min..=max).contains(&whole) => Json::String(whole.to_string()),
            Ok(_) => self.fault(node, format!("{text} is not within {min} and {max}")),
            Err(_) => self.fault(node, format!("here goes a whole number, not {text}")),
        }
    }

    fn enum_value(&mut self, values: &EnumDescriptor, node: &Node) -> Json {
        let prefix = enum_prefix(values.name());
        let Value::Text(text) = &node.value else {
            return self.fault(node, format!("here goes {}", choices(values, &prefix).join(" or ")));
        };
        let full = format!("{prefix}{text}");
        let found = values.values().find(|value| value.name() == text || value.name() == full);
        match found {
            Some(value) => Json::String(value.name().to_owned()),
            None => {
                let problem =
                    format!("there is no {text}; here goes {}", choices(values, &prefix).join(" or "));
                self.fault(node, problem)
            }
        }
    }

    fn duration(&mut self, node: &Node) -> Json {
        let Value::Text(text) = &node.value else {
            return self.fault(node, "here goes a duration with its unit, such as 50ms or 2s");
        };
        match text.parse::<jiff::SignedDuration>() {
            Ok(duration) => {
                let nanos = duration.as_nanos();
                let sign = if nanos < 0 { "-" } else { "" };
                let nanos = nanos.unsigned_abs();
                Json::String(format!("{sign}{}.{:09}s", nanos / 1_000_000_000, nanos % 1_000_000_000))
            }
            Err(_) => self.fault(node, format!("{text} is no duration; say 50ms, 2s or 1m 30s")),
        }
    }

    fn timestamp(&mut self, node: &Node) -> Json {
        let Value::Text(text) = &node.value else {
            return self.fault(node, "here goes an instant, such as 2026-11-23T00:00:00Z");
        };
        match text.parse::<jiff::Timestamp>() {
            Ok(at) => Json::String(at.to_string()),
            Err(_) => self.fault(node, format!("{text} is no instant; say 2026-11-23T00:00:00Z")),
        }
    }

    fn object(&mut self, node: &Node) -> Json {
        match &node.value {
            Value::Map(_) => self.any(node),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                self.fault(node, format!("here goes a mapping, not {}", node.value.kind()))
            }
        }
    }

    /// A value of a `google.protobuf.Struct`: any shape, but no number that a double would change.
    fn any(&mut self, node: &Node) -> Json {
        match &node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Text(text) => Json::String(text.clone()),
            Value::Number(text) => match number::exact(text) {
                Ok(number) => Json::Number(number),
                Err(problem) => self.fault(node, problem),
            },
            Value::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    self.path.push_index(index);
                    list.push(self.any(item));
                    self.path.pop();
                }
                Json::Array(list)
            }
            Value::Map(entries) => {
                let mut object = serde_json::Map::new();
                for entry in entries {
                    self.path.push_key(&entry.key);
                    let value = self.any(&entry.node);
                    self.path.pop();
                    object.insert(entry.key.clone(), value);
                }
                Json::Object(object)
            }
        }
    }
}

fn field(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name))
}

/// `STEP_KIND_` of `StepKind`.
pub(super) fn enum_prefix(name: &str) -> String {
    let mut prefix = String::new();
    for (place, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && place > 0 {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_uppercase());
    }
    prefix + "_"
}

fn choices(values: &EnumDescriptor, prefix: &str) -> Vec<String> {
    values
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| value.name().strip_prefix(prefix).unwrap_or(value.name()).to_owned())
        .collect()
}

/// The name that was probably meant: at most two letters off, and fewer than half of them.
fn nearest<'name>(typed: &str, names: &'name [String]) -> Option<&'name String> {
    names
        .iter()
        .map(|name| (distance(typed, name), name))
        .filter(|(letters, name)| *letters <= 2 && letters * 2 < name.len())
        .min_by_key(|(letters, _)| *letters)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, in bytes: field names are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let substituted = corner + usize::from(from != to);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
