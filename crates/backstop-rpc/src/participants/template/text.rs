//! Finds the `${…}` in a string of a template.
//!
//! A brace inside a CEL string literal or a CEL map does not end the expression. `$${` stands for a
//! literal `${`.

/// A piece of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    /// What stood between `${` and `}`.
    Expression(String),
}

/// Splits a string.
///
/// # Errors
/// An expression has no end.
pub(super) fn split(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = from.strip_prefix("$${") {
            literal.push_str("${");
            rest = after;
        } else if let Some(after) = from.strip_prefix("${") {
            let end = end_of_expression(after).ok_or("a \"${\" has no closing \"}\"")?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            let (expression, tail) = after.split_at(end);
            parts.push(Part::Expression(expression.to_owned()));
            rest = tail.get(1..).unwrap_or_default();
        } else {
            literal.push('$');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() || parts.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// Offset of the brace that closes the expression at the beginning of `text`.
fn end_of_expression(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            b'"' | b'\'' => {
                at = end_of_string(bytes, at)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Offset after the string literal that begins with the quote at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = *bytes.get(start)?;
    let is_raw =
        start.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(|b| matches!(b, b'r' | b'R'));
    let triple = [quote; 3];
    let delimiter: &[u8] = if bytes.get(start..)?.starts_with(&triple) { &triple } else { &triple[..1] };
    let mut at = start + delimiter.len();
    loop {
        let rest = bytes.get(at..)?;
        if rest.starts_with(delimiter) {
            return Some(at + delimiter.len());
        }
        let escaped = *rest.first()? == b'\\' && !is_raw;
        at += if escaped { 2 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    fn expression(text: &str) -> Part {
        Part::Expression(text.to_owned())
    }

    #[test]
    fn expressions_are_found_between_literal_text() {
        assert_eq!(split("plain").unwrap(), [literal("plain")]);
        assert_eq!(split("").unwrap(), [literal("")]);
        assert_eq!(split("${a.b}").unwrap(), [expression("a.b")]);
        assert_eq!(
            split("a ${b} c ${d}").unwrap(),
            [literal("a "), expression("b"), literal(" c "), expression("d")]
        );
        assert_eq!(split("5 $ and $5, $$").unwrap(), [literal("5 $ and $5, $$")]);
    }

    #[test]
    fn a_doubled_dollar_stands_for_a_literal_one() {
        assert_eq!(split("$${a}").unwrap(), [literal("${a}")]);
        assert_eq!(split("x$${a}${b}").unwrap(), [literal("x${a}"), expression("b")]);
        assert_eq!(split("$$${b}").unwrap(), [literal("$${b}")]);
    }

    #[test]
    fn braces_in_strings_and_maps_do_not_end_an_expression() {
        for inner in
            ["{'a': {'b': 1}}", "'}'", r#""\"}""#, r"'\'}'", r"r'\' + '}'", "'''it's }'''", "size('{')"]
        {
            assert_eq!(split(&format!("${{{inner}}}")).unwrap(), [expression(inner)], "{inner}");
        }
    }

    #[test]
    fn an_expression_without_an_end_is_refused() {
        for text in ["${", "a ${b", "${'}", "${ {'a': 1}", "${'a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
