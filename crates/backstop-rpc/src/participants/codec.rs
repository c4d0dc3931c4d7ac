//! gRPC's framing of one request and one reply, bytes in, bytes out.
//!
//! # Invariants
//! * A payload is copied once on the way out (behind its five-byte prefix) and not at all on the way in
//!   when it comes in one piece (`tests/participants/metadata.rs`).
//! * A reply is never collected beyond the limit.
//! * A status is reported only if the peer wrote one: nothing here makes one up (`tests/participants/answers.rs`).

use super::wire::Incoming;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, response};

/// Compression flag and length.
const PREFIX_BYTES: usize = 5;

/// One message behind its prefix: the whole body of a request.
///
/// # Errors
/// The message is longer than a prefix can say.
pub(super) fn framed(message: &Bytes) -> Result<Bytes, String> {
    let length = u32::try_from(message.len()).map_err(|_| "the request is longer than 4 GiB".to_owned())?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    Ok(framed.freeze())
}

/// What came back, with a status that the peer wrote.
#[derive(Debug)]
pub(super) struct Reply {
    /// Headers of the answer.
    pub(super) headers: HeaderMap,
    /// Where its status stands: the trailers, or headers that are all there is.
    pub(super) trailers: HeaderMap,
    /// `grpc-status`.
    pub(super) status: i32,
    /// The one message; there if the status is OK.
    pub(super) message: Bytes,
}

/// Why there is no [`Reply`].
#[derive(Debug)]
pub(super) enum Unread {
    /// What came is no answer to a unary call.
    NoAnswerOfGrpc(String),
    /// It broke off.
    Broken(h2::Error),
}

/// Reads a whole reply.
///
/// # Errors
/// [`Unread`]; the call may have taken effect.
pub(super) async fn read(
    parts: response::Parts,
    mut body: Incoming<'_>,
    bytes_max: usize,
) -> Result<Reply, Unread> {
    let early = status_of(&parts.headers)?;
    if let Some(status) = early.filter(|status| *status != 0) {
        return Ok(Reply {
            trailers: parts.headers.clone(),
            headers: parts.headers,
            status,
            message: Bytes::new(),
        });
    }
    if early.is_none() && !parts.status.is_success() {
        return Err(Unread::NoAnswerOfGrpc(format!("HTTP {} without a grpc-status", parts.status.as_u16())));
    }
    let is_grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if !parts.headers.get(http::header::CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(Unread::NoAnswerOfGrpc("the content-type is not application/grpc".to_owned()));
    }
    let mut collected = Collected::default();
    while let Some(data) = body.data().await.map_err(Unread::Broken)? {
        if collected.len() + data.len() > bytes_max.saturating_add(PREFIX_BYTES) {
            return Err(Unread::NoAnswerOfGrpc(format!("the reply has more than {bytes_max} bytes")));
        }
        collected.push(data);
    }
    let trailers = body.trailers().await.map_err(Unread::Broken)?;
    let late = trailers.as_ref().map(status_of).transpose()?.flatten();
    let Some(status) = late.or(early) else {
        return Err(Unread::NoAnswerOfGrpc("the reply ended without a grpc-status".to_owned()));
    };
    let message = if status == 0 { collected.message()? } else { Bytes::new() };
    Ok(Reply {
        trailers: trailers.unwrap_or_else(|| parts.headers.clone()),
        headers: parts.headers,
        status,
        message,
    })
}

pub(super) fn status_of(headers: &HeaderMap) -> Result<Option<i32>, Unread> {
    let Some(value) = headers.get("grpc-status") else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Unread::NoAnswerOfGrpc("the grpc-status is no number".to_owned()))
}

/// The body so far: untouched while it is one piece.
#[derive(Default)]
struct Collected {
    first: Bytes,
    rest: BytesMut,
}

impl Collected {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&self.first);
                self.first = Bytes::new();
            }
            self.rest.extend_from_slice(&data);
        }
    }

    /// The one message in it.
    fn message(self) -> Result<Bytes, Unread> {
        let all = if self.rest.is_empty() { self.first } else { self.rest.freeze() };
        let wrong = |what: &str| Err(Unread::NoAnswerOfGrpc(what.to_owned()));
        let Some((prefix, message)) = all.split_at_checked(PREFIX_BYTES) else {
            return wrong("OK without a message");
        };
        let [flag, length @ ..] = prefix else {
            return wrong("OK without a message");
        };
        if *flag != 0 {
            return wrong("the reply is compressed, which was not asked for");
        }
        let announced = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        if announced > message.len() {
            return wrong("OK with half a message");
        }
        if announced < message.len() {
            return wrong("OK with more than one message");
        }
        Ok(all.slice(PREFIX_BYTES..))
    }
}

/// The message of a body that came in these pieces.
#[cfg(test)]
pub(super) fn message_of(pieces: impl Iterator<Item = Bytes>) -> Result<Bytes, Unread> {
    let mut collected = Collected::default();
    pieces.for_each(|piece| collected.push(piece));
    collected.message()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_of(pieces: &[&'static [u8]]) -> Result<Bytes, Unread> {
        super::message_of(pieces.iter().map(|piece| Bytes::from_static(piece)))
    }

    #[test]
    fn a_message_is_read_whatever_the_pieces_it_comes_in() {
        assert_eq!(message_of(&[b"\0\0\0\0\x02hi"]).unwrap(), "hi");
        assert_eq!(message_of(&[b"\0\0", b"\0\0\x02", b"h", b"i"]).unwrap(), "hi");
        assert_eq!(message_of(&[b"\0\0\0\0\0"]).unwrap(), "");
    }

    #[test]
    fn anything_but_one_whole_plain_message_is_refused() {
        let wrong: [&[u8]; 5] = [b"", b"\0\0\0\0", b"\0\0\0\0\x02h", b"\0\0\0\0\x01hi", b"\x01\0\0\0\x01h"];
        for piece in wrong {
            assert!(matches!(message_of(&[piece]), Err(Unread::NoAnswerOfGrpc(_))), "{piece:?}");
        }
    }

    #[test]
    fn a_message_in_one_piece_is_not_copied() {
        let piece = Bytes::from_static(b"\0\0\0\0\x02hi");
        let mut collected = Collected::default();
        collected.push(piece.clone());
        let message = collected.message().unwrap();
        assert_eq!(message.as_ptr(), piece[PREFIX_BYTES..].as_ptr());
    }
}
