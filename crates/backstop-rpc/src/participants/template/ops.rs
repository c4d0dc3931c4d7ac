//! Operators and functions of expressions, as CEL defines them.
//!
//! Numbers of different types compare by value but are not calculated with each other; overflow is an
//! error, never a wrap-around.

use super::eval::{Env, EvalError, Evaluated, wrong};
use super::expr::{Function, Op};
use super::value::{Key, Val, WHOLE_DOUBLE_MAX, whole};
use bytes::Bytes;
use prost::Message;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

/// Bytes that the sum of two values takes, for the account of work; a list counts 64 for each element.
pub(super) fn size_of_sum(left: &Val<'_>, right: &Val<'_>) -> usize {
    let size = |val: &Val<'_>| match val {
        Val::Str(text) => text.len(),
        Val::Bytes(bytes) => bytes.len(),
        Val::List(_) | Val::Map(_) | Val::Json(_) => val.len().unwrap_or(0).saturating_mul(64),
        Val::Null | Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Message(_) => 0,
    };
    size(left).saturating_add(size(right))
}

pub(super) fn add<'a>(left: Val<'a>, right: Val<'a>) -> Evaluated<'a> {
    match (&left, &right) {
        (Val::Str(a), Val::Str(b)) => return Ok(Val::Str([&**a, &**b].concat().into())),
        (Val::Bytes(a), Val::Bytes(b)) => return Ok(Val::Bytes(Bytes::from([&a[..], &b[..]].concat()))),
        _ => {}
    }
    if let (Some(a), Some(b)) = (left.items(), right.items()) {
        return Ok(Val::List(Arc::new(a.iter().chain(b.iter()).cloned().collect())));
    }
    arithmetic(Op::Add, &left, &right)
}

pub(super) fn arithmetic<'a>(op: Op, left: &Val<'a>, right: &Val<'a>) -> Evaluated<'a> {
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => match op {
            Op::Add => checked(a.checked_add(*b).map(Val::Int)),
            Op::Subtract => checked(a.checked_sub(*b).map(Val::Int)),
            Op::Multiply => checked(a.checked_mul(*b).map(Val::Int)),
            Op::Divide if *b != 0 => checked(a.checked_div(*b).map(Val::Int)),
            Op::Modulo if *b != 0 => checked(a.checked_rem(*b).map(Val::Int)),
            _ => wrong("division by zero"),
        },
        (Val::Uint(a), Val::Uint(b)) => match op {
            Op::Add => checked(a.checked_add(*b).map(Val::Uint)),
            Op::Subtract => checked(a.checked_sub(*b).map(Val::Uint)),
            Op::Multiply => checked(a.checked_mul(*b).map(Val::Uint)),
            Op::Divide if *b != 0 => checked(a.checked_div(*b).map(Val::Uint)),
            Op::Modulo if *b != 0 => checked(a.checked_rem(*b).map(Val::Uint)),
            _ => wrong("division by zero"),
        },
        (Val::Double(a), Val::Double(b)) => match op {
            Op::Add => Ok(Val::Double(a + b)),
            Op::Subtract => Ok(Val::Double(a - b)),
            Op::Multiply => Ok(Val::Double(a * b)),
            Op::Divide => Ok(Val::Double(a / b)),
            _ => wrong("doubles have no remainder"),
        },
        _ => wrong(format!("{} and {} cannot be combined; convert one of them", left.kind(), right.kind())),
    }
}

fn checked(val: Option<Val<'static>>) -> Evaluated<'static> {
    val.map_or_else(|| wrong("the result does not fit 64 bits"), Ok)
}

pub(super) fn negate<'a>(val: &Val<'a>) -> Evaluated<'a> {
    match val {
        Val::Int(value) => checked(value.checked_neg().map(Val::Int)),
        Val::Double(value) => Ok(Val::Double(-value)),
        other => wrong(format!("{} cannot be negated", other.kind())),
    }
}

/// Order of two values.
pub(super) fn compare(env: &Env<'_>, left: &Val<'_>, right: &Val<'_>) -> Result<Ordering, EvalError> {
    env.spend_bytes(left.bytes().min(right.bytes()))?;
    let order = match (left, right) {
        (Val::Str(a), Val::Str(b)) => Some((**a).cmp(&**b)),
        (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        _ => compare_numbers(left, right),
    };
    order.map_or_else(|| wrong(format!("{} and {} have no order", left.kind(), right.kind())), Ok)
}

fn compare_numbers(left: &Val<'_>, right: &Val<'_>) -> Option<Ordering> {
    match (left, right) {
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Double(a), b) => double_to_whole(*a, integer(b)?),
        (a, Val::Double(b)) => double_to_whole(*b, integer(a)?).map(Ordering::reverse),
        (a, b) => Some(integer(a)?.cmp(&integer(b)?)),
    }
}

fn integer(val: &Val<'_>) -> Option<i128> {
    match val {
        Val::Int(value) => Some((*value).into()),
        Val::Uint(value) => Some((*value).into()),
        Val::Null
        | Val::Bool(_)
        | Val::Double(_)
        | Val::Str(_)
        | Val::Bytes(_)
        | Val::List(_)
        | Val::Map(_)
        | Val::Json(_)
        | Val::Message(_) => None,
    }
}

/// Compares exactly: by the whole part, then by the fraction.
#[allow(clippy::cast_possible_truncation)] // saturates at i128's ends, far beyond any 64-bit integer
fn double_to_whole(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    let fraction = double.fract().partial_cmp(&0.0)?;
    Some((double.trunc() as i128).cmp(&whole).then(fraction))
}

/// CEL's equality: numbers by value, otherwise values of different types are different.
pub(super) fn equal(env: &Env<'_>, left: &Val<'_>, right: &Val<'_>) -> Result<bool, EvalError> {
    env.spend(1)?;
    match (left, right) {
        (Val::Null, Val::Null) => return Ok(true),
        (Val::Bool(a), Val::Bool(b)) => return Ok(a == b),
        (Val::Str(a), Val::Str(b)) => {
            env.spend_bytes(a.len().min(b.len()))?;
            return Ok(**a == **b);
        }
        (Val::Bytes(a), Val::Bytes(b)) => {
            env.spend_bytes(a.len().min(b.len()))?;
            return Ok(a == b);
        }
        (Val::Message(a), Val::Message(b)) => {
            env.spend_bytes(a.encoded_len())?;
            return Ok(**a == **b);
        }
        _ => {}
    }
    if left.len() != right.len() {
        return Ok(false);
    }
    env.spend_elements(left)?;
    env.spend_elements(right)?;
    if let (Some(a), Some(b)) = (left.items(), right.items()) {
        for (a, b) in a.iter().zip(b.iter()) {
            if !equal(env, a, b)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if let (Some(a), Some(b)) = (left.entries(), right.entries()) {
        for ((a_key, a), (b_key, b)) in a.iter().zip(&b) {
            if a_key != b_key || !equal(env, a, b)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    Ok(compare_numbers(left, right) == Some(Ordering::Equal))
}

pub(super) fn call<'a>(function: Function, first: &Val<'a>, second: Option<&Val<'a>>) -> Evaluated<'a> {
    match function {
        Function::Size => size(first),
        Function::Contains | Function::StartsWith | Function::EndsWith => {
            let (Val::Str(text), Some(Val::Str(part))) = (first, second) else {
                return wrong("contains, startsWith and endsWith are for strings");
            };
            Ok(Val::Bool(match function {
                Function::StartsWith => text.starts_with(&**part),
                Function::EndsWith => text.ends_with(&**part),
                _ => text.contains(&**part),
            }))
        }
        Function::Int => to_int(first),
        Function::Uint => to_uint(first),
        Function::Double => to_double(first),
        Function::Bool => match first {
            Val::Bool(value) => Ok(Val::Bool(*value)),
            Val::Str(text) if &**text == "true" => Ok(Val::Bool(true)),
            Val::Str(text) if &**text == "false" => Ok(Val::Bool(false)),
            other => cannot(other, "bool"),
        },
        Function::String => to_string(first),
        Function::Bytes => match first {
            Val::Bytes(bytes) => Ok(Val::Bytes(bytes.clone())),
            Val::Str(text) => Ok(Val::Bytes(Bytes::copy_from_slice(text.as_bytes()))),
            other => cannot(other, "bytes"),
        },
    }
}

fn cannot<'a>(val: &Val<'_>, what: &str) -> Evaluated<'a> {
    wrong(format!("{} cannot be made into {what}", val.kind()))
}

fn size<'a>(val: &Val<'a>) -> Evaluated<'a> {
    let size = match val {
        Val::Str(text) => Some(text.chars().count()),
        Val::Bytes(bytes) => Some(bytes.len()),
        other => other.len(),
    };
    match size.and_then(|size| i64::try_from(size).ok()) {
        Some(size) => Ok(Val::Int(size)),
        None => wrong(format!("{} has no size", val.kind())),
    }
}

fn to_int<'a>(val: &Val<'a>) -> Evaluated<'a> {
    let int = match val {
        Val::Int(value) => Some(*value),
        Val::Uint(value) => i64::try_from(*value).ok(),
        Val::Double(value) => whole(value.trunc()),
        Val::Str(text) => text.parse().ok(),
        _ => None,
    };
    int.map_or_else(|| cannot(val, "an int"), |int| Ok(Val::Int(int)))
}

fn to_uint<'a>(val: &Val<'a>) -> Evaluated<'a> {
    let uint = match val {
        Val::Int(value) => u64::try_from(*value).ok(),
        Val::Uint(value) => Some(*value),
        Val::Double(value) => whole(value.trunc()).and_then(|value| u64::try_from(value).ok()),
        Val::Str(text) => text.parse().ok(),
        _ => None,
    };
    uint.map_or_else(|| cannot(val, "a uint"), |uint| Ok(Val::Uint(uint)))
}

fn to_double<'a>(val: &Val<'a>) -> Evaluated<'a> {
    let double = match val {
        Val::Double(value) => Some(*value),
        Val::Str(text) => text.parse().ok(),
        other => exact_double(other),
    };
    double.map_or_else(|| cannot(val, "a double without loss"), |double| Ok(Val::Double(double)))
}

/// An integer as a double, if a double holds it beyond doubt.
#[allow(clippy::cast_precision_loss)] // checked: within 2^53
pub(super) fn exact_double(val: &Val<'_>) -> Option<f64> {
    match val {
        Val::Int(value) if value.unsigned_abs() <= WHOLE_DOUBLE_MAX => Some(*value as f64),
        Val::Uint(value) if *value <= WHOLE_DOUBLE_MAX => Some(*value as f64),
        _ => None,
    }
}

fn to_string<'a>(val: &Val<'a>) -> Evaluated<'a> {
    let text = match val {
        Val::Str(text) => return Ok(Val::Str(text.clone())),
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Uint(value) => value.to_string(),
        Val::Double(value) => value.to_string(),
        Val::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return wrong("the bytes are not UTF-8"),
        },
        other => return cannot(other, "a string"),
    };
    Ok(Val::Str(text.into()))
}

/// A key as protobuf's JSON mapping writes it.
pub(super) fn key_text(key: &Key) -> Cow<'_, str> {
    match key {
        Key::Bool(value) => value.to_string().into(),
        Key::Int(value) => value.to_string().into(),
        Key::Str(text) => text.into(),
    }
}
