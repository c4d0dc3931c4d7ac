//! Pages of lists (google.aip.dev/158): sizes, and opaque tokens.
//!
//! A token grants nothing: it only says where to go on, and is checked like any other input. It is sealed with a
//! checksum, not a signature: one that was cut, mixed up or changed is refused instead of going on elsewhere.
//!
//! # Invariants
//! * A token of ours is taken as it was given; with any bit changed it is refused (`fuzz::requests::page_token`).

use backstop_core::{Fault, SagaId, Timestamp};
use backstop_engine::ports::store::SagaCursor;
use sha2::{Digest, Sha256};

/// Page size if none is asked for.
pub(crate) const PAGE_SIZE_DEFAULT: usize = 50;
/// Largest page.
pub(crate) const PAGE_SIZE_MAX: usize = 500;

/// The size that a page really has.
pub(crate) fn size(asked: i32) -> Result<usize, Fault> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
        Err(_) => Err(Fault::new("page_size", "must not be negative")),
    }
}

/// The token of the page after a saga, for one filter.
pub(crate) fn saga_token(cursor: &SagaCursor, filter: &str) -> String {
    sealed(&format!("{}\n{}\n{}", mark(filter), cursor.created_at.0, cursor.saga))
}

/// What a token says; `None` for the first page.
pub(crate) fn saga_cursor(token: &str, filter: &str) -> Result<Option<SagaCursor>, Fault> {
    if token.is_empty() {
        return Ok(None);
    }
    let fault = |what: &str| Fault::new("page_token", what);
    let text = opened(token).ok_or_else(|| fault("is not a token of ours"))?;
    let mut parts = text.splitn(3, '\n');
    let (Some(of_filter), Some(at), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(fault("is not a token of ours"));
    };
    if of_filter != mark(filter) {
        return Err(fault("belongs to another filter"));
    }
    match (at.parse(), SagaId::parse(id)) {
        (Ok(at), Ok(saga)) => Ok(Some(SagaCursor { created_at: Timestamp(at), saga })),
        (Err(_), _) | (_, Err(_)) => Err(fault("is not a token of ours")),
    }
}

/// The token of the page after a name.
pub(crate) fn name_token(name: &str) -> String {
    sealed(name)
}

/// The name that a token stands for; `None` for the first page.
pub(crate) fn name_after<T, E>(
    token: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Fault> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = opened(token).and_then(|text| parse(&text).ok());
    parsed.map(Some).ok_or_else(|| Fault::new("page_token", "is not a token of ours"))
}

/// Hexadecimal digits of a [`mark`].
const MARK_DIGITS: usize = 12;

/// The beginning of a text's SHA-256.
fn mark(text: &str) -> String {
    let mut digits = hex(&Sha256::digest(text.as_bytes()));
    digits.truncate(MARK_DIGITS);
    digits
}

/// Longest token that is looked at, in bytes: a saga's id and what stands before it, twice over.
const TOKEN_BYTES_MAX: usize = 1_024;

fn sealed(text: &str) -> String {
    format!("{}{}", mark(text), hex(text.as_bytes()))
}

fn opened(token: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let text = unhex(token.get(MARK_DIGITS..)?)?;
    // Only the very digits that were written: an upper-case token, too, has been through other hands.
    (sealed(&text) == token).then_some(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<String> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    String::from_utf8(digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_went_and_only_for_its_filter() {
        let cursor = SagaCursor { created_at: Timestamp(-5), saga: SagaId::parse("pay/7-x").unwrap() };
        let token = saga_token(&cursor, "state = \"RUNNING\"");
        assert_eq!(saga_cursor(&token, "state = \"RUNNING\"").unwrap(), Some(cursor));
        assert!(saga_cursor(&token, "").is_err());
        for junk in ["zz", "a", "00ff", "é", &"ab".repeat(5000)] {
            assert_eq!(saga_cursor(junk, "").unwrap_err().path, "page_token");
        }
    }

    #[test]
    fn a_page_is_bounded_and_never_negative() {
        assert_eq!(size(0).unwrap(), PAGE_SIZE_DEFAULT);
        assert_eq!(size(i32::MAX).unwrap(), PAGE_SIZE_MAX);
        assert_eq!(size(-1).unwrap_err().path, "page_size");
    }
}
