//! `google.protobuf.Struct` and JSON text.
//!
//! A Struct's numbers are doubles: a whole number of 2^53 or more has been rounded before we see it, if it
//! was not exact. So it is refused; 64-bit integers travel as strings, as protobuf's JSON mapping has it.

use backstop_core::Fault;
use backstop_core::failure::bounded_text;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::{Map, Number};

/// Whole numbers below this are held exactly by a double, and so are all their neighbours.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Most faults told of one Struct, each with its path: what nobody reads must not take memory.
const FAULTS_MAX: usize = 100;
/// Longest name of a field within a path, in bytes; the rest is cut.
const KEY_BYTES_MAX: usize = 64;

/// The canonical JSON text of a Struct, for the path it stands at; at most [`FAULTS_MAX`] faults are told.
pub(crate) fn text(path: &str, wire: &Struct, faults: &mut Vec<Fault>) -> String {
    let faults_max = faults.len().saturating_add(FAULTS_MAX);
    Reader { faults, faults_max }.object(&Place::Root(path), wire).to_string()
}

/// Where a value stands. It becomes text only if there is something wrong with it: a name of half a mebibyte
/// would otherwise be copied for every number below it.
enum Place<'a> {
    Root(&'a str),
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn text(&self) -> String {
        match self {
            Self::Root(path) => (*path).to_owned(),
            Self::Field(above, key) => format!("{}.{}", above.text(), bounded_text(key, KEY_BYTES_MAX)),
            Self::Item(above, index) => format!("{}[{index}]", above.text()),
        }
    }
}

struct Reader<'a> {
    faults: &'a mut Vec<Fault>,
    faults_max: usize,
}

impl Reader<'_> {
    fn object(&mut self, at: &Place<'_>, wire: &Struct) -> serde_json::Value {
        let fields = wire.fields.iter();
        let map: Map<_, _> =
            fields.map(|(key, field)| (key.clone(), self.value(&Place::Field(at, key), field))).collect();
        serde_json::Value::Object(map)
    }

    fn value(&mut self, at: &Place<'_>, wire: &Value) -> serde_json::Value {
        match &wire.kind {
            None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
            Some(Kind::BoolValue(bool)) => serde_json::Value::Bool(*bool),
            Some(Kind::StringValue(text)) => serde_json::Value::String(text.clone()),
            Some(Kind::NumberValue(number)) => match exact_number(*number) {
                Ok(number) => serde_json::Value::Number(number),
                Err(reason) => {
                    if self.faults.len() < self.faults_max {
                        self.faults.push(Fault::new(at.text(), reason));
                    }
                    serde_json::Value::Null
                }
            },
            Some(Kind::StructValue(inner)) => self.object(at, inner),
            Some(Kind::ListValue(list)) => {
                let items = list.values.iter().enumerate();
                items.map(|(index, item)| self.value(&Place::Item(at, index), item)).collect()
            }
        }
    }
}

fn exact_number(number: f64) -> Result<Number, &'static str> {
    if number.fract() == 0.0 {
        if number.abs() >= EXACT_BELOW {
            return Err("a whole number of 2^53 or more may have been rounded: send it as a string");
        }
        #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return Ok(Number::from(number as i64));
    }
    Number::from_f64(number).ok_or("a number must be finite")
}

/// A Struct of JSON text; empty for text that is no object.
pub(crate) fn structure(text: &[u8]) -> Struct {
    match serde_json::from_slice(text) {
        Ok(serde_json::Value::Object(map)) => Struct { fields: fields(map) },
        Ok(_) | Err(_) => Struct::default(),
    }
}

fn fields(map: Map<String, serde_json::Value>) -> std::collections::BTreeMap<String, Value> {
    map.into_iter().map(|(key, value)| (key, wire_value(value))).collect()
}

fn wire_value(value: serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(bool) => Kind::BoolValue(bool),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(items) => {
            let values = items.into_iter().map(wire_value).collect();
            Kind::ListValue(prost_types::ListValue { values })
        }
        serde_json::Value::Object(map) => Kind::StructValue(Struct { fields: fields(map) }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn number(number: f64) -> (String, Vec<Fault>) {
        let mut faults = Vec::new();
        let field = Value { kind: Some(Kind::NumberValue(number)) };
        let wire = Struct { fields: [("amount".to_owned(), field)].into() };
        (text("input", &wire, &mut faults), faults)
    }

    #[test]
    fn a_number_that_may_have_been_rounded_is_refused_by_its_path() {
        assert_eq!(number(12.0), (r#"{"amount":12}"#.to_owned(), vec![]));
        assert_eq!(number(-0.5).0, r#"{"amount":-0.5}"#);
        assert_eq!(number(9_007_199_254_740_991.0).0, r#"{"amount":9007199254740991}"#);
        for too_big in [9_007_199_254_740_992.0, -1e300, f64::INFINITY] {
            assert_eq!(number(too_big).1[0].path, "input.amount", "{too_big}");
        }
        assert_eq!(number(f64::NAN).1[0].path, "input.amount");
    }

    #[test]
    fn a_flood_of_faults_below_a_long_name_takes_no_memory() {
        let bad = Value { kind: Some(Kind::NumberValue(f64::NAN)) };
        let list = prost_types::ListValue { values: vec![bad; 50_000] };
        let field = Value { kind: Some(Kind::ListValue(list)) };
        let wire = Struct { fields: [("n".repeat(500_000), field)].into() };
        let mut faults = vec![Fault::new("saga_id", "of its own")];
        text("input", &wire, &mut faults);
        assert_eq!(faults.len(), 1 + FAULTS_MAX);
        assert!(faults.iter().all(|fault| fault.path.len() < 100), "{}", faults[1].path.len());
        assert!(
            faults[1].path.starts_with("input.nnn") && faults[1].path.ends_with("[0]"),
            "{}",
            faults[1].path
        );
    }

    #[test]
    fn a_struct_survives_the_way_there_and_back() {
        let json = r#"{"a":[1,"x",null,{"b":true}],"c":-2.5}"#;
        let mut faults = Vec::new();
        assert_eq!(text("input", &structure(json.as_bytes()), &mut faults), json);
        assert!(faults.is_empty());
    }
}
