//! Who says that a call failed, and what they can know: DESIGN 3.3's first question, answered here alone.
//!
//! # Invariants
//! * `NotSent` is never said of a request that the application may have seen: it is said only when there
//!   was no connection, when the connection did not take the request, or when the peer's transport refused
//!   the stream before it answered anything (`tests/participants/evidence.rs`, a test for each way to fail).
//! * `ParticipantSaid` is said only of a `grpc-status` that came over the wire.
//!
//! # Not here
//! What the failure did to the books, and what is done about it: `backstop_core::effect` and the core.

use super::codec::{Reply, Unread};
use super::details::{self, Said};
use super::metadata;
use backstop_core::failure::Pushback;
use backstop_core::{Clock, Code, Details, Evidence, NoAnswer, NotSent, Outcome};
use backstop_engine::ports::participants::CallReply;

/// An attempt that did not end in OK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) evidence: Evidence,
    /// For people. Never holds anything of a payload.
    pub(super) message: String,
    pub(super) details: Details,
    pub(super) pushback: Option<Pushback>,
    /// `backstop-clock` of what the participant said.
    pub(super) peer_clock: Option<Clock>,
}

impl Failed {
    /// An observation of ours.
    pub(super) fn new(evidence: Evidence, message: impl Into<String>) -> Self {
        Self {
            evidence,
            message: message.into(),
            details: Details::default(),
            pushback: None,
            peer_clock: None,
        }
    }

    pub(super) fn not_sent(reason: NotSent, message: impl Into<String>) -> Self {
        Self::new(Evidence::NotSent(reason), message)
    }

    /// What the participant itself said.
    pub(super) fn said(reply: &Reply) -> Self {
        let Said { message, details, pushback } = details::read(&reply.trailers);
        let evidence = Evidence::ParticipantSaid(Code::from_number(reply.status));
        let peer_clock = metadata::peer_clock(&reply.headers, &reply.trailers);
        Self { evidence, message, details, pushback, peer_clock }
    }

    /// A call that a connection took and that ended without response headers.
    ///
    /// A GOAWAY that names an earlier stream as the last is no proof here: it is as good as the peer's bookkeeping of what it
    /// has begun, of all streams at once and at a moment when it is failing. A doubt costs a question; the opposite, money.
    pub(super) fn without_headers(error: &h2::Error) -> Self {
        let refused =
            error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if refused {
            return Self::not_sent(NotSent::Refused, "the peer's transport refused the stream");
        }
        Self::new(broken(error), error.to_string())
    }

    /// A reply that could not be read to its end.
    pub(super) fn unread(unread: Unread) -> Self {
        match unread {
            Unread::NoAnswerOfGrpc(message) => Self::new(Evidence::BadAnswer, message),
            Unread::Broken(error) => Self::new(broken(&error), error.to_string()),
        }
    }

    /// As the core takes it in.
    pub(super) fn reply(self) -> CallReply {
        let Self { evidence, message, details, pushback, peer_clock } = self;
        CallReply { outcome: Outcome::Failed { evidence, message, details, pushback }, peer_clock }
    }
}

/// The peer may have had the request. Either nothing more can be heard, or what was heard makes no sense
/// as HTTP/2 (an HTTP/1 server, headers beyond the limit).
fn broken(error: &h2::Error) -> Evidence {
    let makes_no_sense = !error.is_remote()
        && matches!(
            error.reason(),
            Some(
                h2::Reason::PROTOCOL_ERROR
                    | h2::Reason::FRAME_SIZE_ERROR
                    | h2::Reason::COMPRESSION_ERROR
                    | h2::Reason::FLOW_CONTROL_ERROR
                    | h2::Reason::STREAM_CLOSED
            )
        );
    if makes_no_sense { Evidence::BadAnswer } else { Evidence::NoAnswer(NoAnswer::ConnectionLost) }
}
