//! Text of any content in a text column. Postgres text cannot hold NUL; one message with a NUL in it
//! must not keep a whole batch from the journal.
//!
//! # Invariants
//! * `from_column(to_column(text)) == text` for every text, and text without control characters stands
//!   in the column as it is (`any_text_comes_back_as_it_was`).

use super::DecodeError;
use std::borrow::Cow;

/// Begins an escape: SUBSTITUTE, which hardly any text holds.
const ESCAPE: char = '\u{1a}';

/// True if a column holds the text as it is.
pub(crate) fn is_plain(text: &str) -> bool {
    // Byte by byte, since both are ASCII: a search for one of several characters goes through a machine of its own.
    !text.bytes().any(|byte| byte == b'\0' || byte == ESCAPE as u8)
}

/// The text as a column holds it.
pub(crate) fn to_column(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match char {
            '\0' => escaped.extend([ESCAPE, '0']),
            ESCAPE => escaped.extend([ESCAPE, '1']),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// The inverse of [`to_column`].
pub(crate) fn from_column(column: &'static str, text: &str) -> Result<String, DecodeError> {
    if !text.contains(ESCAPE) {
        return Ok(text.to_owned());
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != ESCAPE {
            plain.push(char);
            continue;
        }
        match chars.next() {
            Some('0') => plain.push('\0'),
            Some('1') => plain.push(ESCAPE),
            _ => return Err(DecodeError::malformed(column, "a broken escape")),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back_as_it_was() {
        for text in ["", "plain ünïcode ' \" \\ %", "a\0b", "\u{1a}", "\u{1a}0\0\u{1a}1", "\0\0"] {
            let column = to_column(text);
            assert!(!column.contains('\0'), "{text:?}");
            assert_eq!(from_column("message", &column).as_deref(), Ok(text));
        }
        assert!(matches!(to_column("as it is \\ ' \n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_broken_escape_is_an_error_and_not_a_guess() {
        assert!(from_column("message", "\u{1a}").is_err());
        assert!(from_column("message", "\u{1a}2").is_err());
    }
}
