//! Protobuf's wire format without any type: a tree of fields that can be changed and written again, so that
//! a change deep inside keeps the lengths around it right.
//!
//! What is a message and what is a string cannot be told from bytes; what parses as a message counts as one
//! half of the time.

use crate::random::Random;

/// Deepest nesting that is taken apart.
const DEPTH_MAX: usize = 12;
/// Most levels that a message is put into itself.
const NESTINGS_MAX: usize = 120;

/// A field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    number: u64,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
}

/// A message's fields; `None` if the bytes are none. Groups are not known.
pub(crate) fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(take(&mut bytes, 8)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?.to_vec())
            }
            5 => Value::Fixed32(take(&mut bytes, 4)?.try_into().ok()?),
            _ => return None,
        };
        fields.push(Field { number: key >> 3, value });
    }
    Some(fields)
}

pub(crate) fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for Field { number, value } in fields {
        let key = |kind: u64| number.wrapping_shl(3) | kind;
        match value {
            Value::Varint(value) => {
                put_varint(key(0), &mut out);
                put_varint(*value, &mut out);
            }
            Value::Fixed64(value) => {
                put_varint(key(1), &mut out);
                out.extend_from_slice(value);
            }
            Value::Bytes(value) => {
                put_varint(key(2), &mut out);
                put_varint(u64::try_from(value.len()).unwrap_or(0), &mut out);
                out.extend_from_slice(value);
            }
            Value::Fixed32(value) => {
                put_varint(key(5), &mut out);
                out.extend_from_slice(value);
            }
        }
    }
    out
}

/// Changes one thing in a message, near its top or deep inside.
pub(crate) fn mutate(
    fields: &mut Vec<Field>,
    other: &[Field],
    random: &mut Random,
    leaf: &mut dyn FnMut(&[u8]) -> Vec<u8>,
) {
    // From another message, from wherever it is.
    let donor = deep(other, random, DEPTH_MAX);
    change(fields, donor.as_ref(), random, leaf, 0);
}

fn change(
    fields: &mut Vec<Field>,
    donor: Option<&Field>,
    random: &mut Random,
    leaf: &mut dyn FnMut(&[u8]) -> Vec<u8>,
    depth: usize,
) {
    let at = random.below(fields.len());
    let Some(field) = fields.get_mut(at) else {
        fields.extend(donor.cloned());
        return;
    };
    // Mostly go deeper where there is something deeper.
    if let Value::Bytes(bytes) = &mut field.value
        && depth < DEPTH_MAX
        && !random.one_in(4)
        && let Some(mut inner) = parse(bytes).filter(|inner| !inner.is_empty())
    {
        change(&mut inner, donor, random, leaf, depth + 1);
        *bytes = encode(&inner);
        return;
    }
    match random.below(10) {
        0 => {
            fields.remove(at);
        }
        1 => {
            let copy = field.clone();
            let copies = if random.one_in(8) { 1 + random.below(300) } else { 1 };
            fields.splice(at..at, std::iter::repeat_n(copy, copies));
        }
        2 => {
            let to = random.below(fields.len());
            fields.swap(at, to);
        }
        3 => fields.extend(donor.cloned()),
        4 => {
            if let Some(donor) = donor {
                field.value = donor.value.clone();
            }
        }
        5 => field.number = [1, 2, 3, 15, 16, 999, 19_000, 536_870_911, field.number + 1][random.below(9)],
        6 if matches!(field.value, Value::Bytes(_)) => {
            // Into itself, as deep as a decoder would follow, and deeper.
            let levels = 1 + random.below(NESTINGS_MAX);
            for _ in 0..levels {
                let whole = encode(std::slice::from_ref(field));
                field.value = Value::Bytes(whole);
            }
        }
        _ => match &mut field.value {
            Value::Varint(value) => {
                *value = match random.below(6) {
                    0 => value.wrapping_add(1),
                    1 => value.wrapping_sub(1),
                    2 => u64::MAX,
                    3 => 1 << random.below(64),
                    4 => (1_u64 << random.below(64)).wrapping_sub(1),
                    _ => 0,
                }
            }
            Value::Fixed64(value) => {
                *value = [
                    [0; 8],
                    [0xff; 8],
                    f64::NAN.to_le_bytes(),
                    f64::INFINITY.to_le_bytes(),
                    1e300_f64.to_le_bytes(),
                    9_007_199_254_740_993_f64.to_le_bytes(),
                    (-0.0_f64).to_le_bytes(),
                    random.number().to_le_bytes(),
                ][random.below(8)];
            }
            Value::Fixed32(value) => *value = [[0; 4], [0xff; 4], f32::NAN.to_le_bytes()][random.below(3)],
            Value::Bytes(bytes) => *bytes = leaf(bytes),
        },
    }
}

/// Some field, at some depth.
fn deep(fields: &[Field], random: &mut Random, levels: usize) -> Option<Field> {
    let field = random.pick(fields)?;
    match &field.value {
        Value::Bytes(bytes) if levels > 0 && random.one_in(2) => match parse(bytes) {
            Some(inner) if !inner.is_empty() => deep(&inner, random, levels - 1),
            Some(_) | None => Some(field.clone()),
        },
        Value::Bytes(_) | Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_) => Some(field.clone()),
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_message_is_written_as_it_was_read() {
        let bytes = b"\x0a\x05hello\x10\x96\x01\x1d\x01\x02\x03\x04\x21\x01\x02\x03\x04\x05\x06\x07\x08\x22\x02\x08\x01";
        assert_eq!(encode(&parse(bytes).unwrap()), bytes);
        assert_eq!(parse(b"\x0a\x05hell"), None);
    }

    #[test]
    fn a_change_deep_inside_keeps_the_lengths_around_it_right() {
        let inner = encode(&[Field { number: 1, value: Value::Varint(5) }]);
        let outer = vec![Field { number: 3, value: Value::Bytes(inner) }];
        let mut random = Random::new(3);
        let mut changed_inside = 0;
        for _ in 0..500 {
            let mut fields = outer.clone();
            mutate(&mut fields, &outer, &mut random, &mut |bytes| bytes.to_vec());
            let bytes = encode(&fields);
            assert!(parse(&bytes).is_some(), "still a message");
            let first = fields.first().map(|field| &field.value);
            changed_inside +=
                usize::from(matches!(first, Some(Value::Bytes(b)) if parse(b).is_some() && fields != outer));
        }
        assert!(changed_inside > 100, "{changed_inside}");
    }
}
