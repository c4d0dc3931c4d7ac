//! What a call's end proves about the participant's books.
//!
//! The one place where evidence becomes [`Effect`]. A gRPC status alone is not evidence: clients make
//! statuses up (a lost connection reads as UNKNOWN, our own deadline as CANCELLED), so `backstop-rpc`
//! first establishes *who says so*, and this module judges only that.

/// The canonical gRPC status codes (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// Every code, in numeric order.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code with this number; a number gRPC does not define is UNKNOWN, as gRPC says.
    #[must_use]
    pub fn from_number(number: i32) -> Self {
        usize::try_from(number).ok().and_then(|n| Self::ALL.get(n)).copied().unwrap_or(Self::Unknown)
    }

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> i32 {
        i32::from(self as u8)
    }

    /// `FAILED_PRECONDITION` and the like.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The inverse of [`Code::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// Why a request certainly never reached the participant's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotSent {
    /// No connection could be made in time.
    NoConnection,
    /// Our circuit breaker for the participant was open.
    BreakerOpen,
    /// No permit was free before the call's timeout, or the participant took no further stream.
    NoPermit,
    /// The connection was already closing when the call came.
    Draining,
    /// The peer's transport refused the stream (`REFUSED_STREAM`).
    Refused,
    /// A rollback was decided before the attempt went out.
    Withdrawn,
}

impl NotSent {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::NoConnection,
        Self::BreakerOpen,
        Self::NoPermit,
        Self::Draining,
        Self::Refused,
        Self::Withdrawn,
    ];

    /// As it stands in the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoConnection => "no_connection",
            Self::BreakerOpen => "breaker_open",
            Self::NoPermit => "no_permit",
            Self::Draining => "draining",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Why a request that may have arrived has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoAnswer {
    /// Our own deadline passed.
    Deadline,
    /// The connection or the stream broke.
    ConnectionLost,
    /// The coordinator that had sent it, or could have, is gone.
    CoordinatorLost,
}

impl NoAnswer {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Deadline, Self::ConnectionLost, Self::CoordinatorLost];

    /// As it stands in the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::ConnectionLost => "connection_lost",
            Self::CoordinatorLost => "coordinator_lost",
        }
    }
}

/// Who says that a call failed, and what they can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The participant's side wrote this status, in headers or trailers.
    ParticipantSaid(Code),
    /// We never sent it.
    NotSent(NotSent),
    /// We may have sent it and heard nothing.
    NoAnswer(NoAnswer),
    /// Something came back that is no gRPC answer, cannot be decoded or is too large.
    BadAnswer,
    /// No request could be made from the definition's template: nothing was sent.
    NotRendered,
}

impl Evidence {
    /// The status under which the failure is recorded and looked up in the error table.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::ParticipantSaid(code) => code,
            Self::NotSent(_) | Self::NoAnswer(NoAnswer::ConnectionLost | NoAnswer::CoordinatorLost) => {
                Code::Unavailable
            }
            Self::NoAnswer(NoAnswer::Deadline) => Code::DeadlineExceeded,
            Self::BadAnswer => Code::Internal,
            Self::NotRendered => Code::InvalidArgument,
        }
    }

    /// As it stands in the journal; `code()` holds what this leaves out.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ParticipantSaid(_) => "participant_said",
            Self::NotSent(reason) => reason.as_str(),
            Self::NoAnswer(reason) => reason.as_str(),
            Self::BadAnswer => "bad_answer",
            Self::NotRendered => "not_rendered",
        }
    }

    /// The inverse of [`Evidence::as_str`] together with [`Evidence::code`].
    #[must_use]
    pub fn parse(text: &str, code: Code) -> Option<Self> {
        match text {
            "participant_said" => return Some(Self::ParticipantSaid(code)),
            "bad_answer" => return Some(Self::BadAnswer),
            "not_rendered" => return Some(Self::NotRendered),
            _ => {}
        }
        let not_sent = NotSent::ALL.into_iter().find(|r| r.as_str() == text).map(Self::NotSent);
        let no_answer = || NoAnswer::ALL.into_iter().find(|r| r.as_str() == text).map(Self::NoAnswer);
        not_sent.or_else(no_answer)
    }
}

/// What a failed call did to the participant's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Certainly nothing.
    None,
    /// It may have taken effect or still do so.
    InDoubt,
}

/// Judges one attempt by its evidence. It speaks for that attempt only: another attempt's doubt is
/// settled by [`crate::decide()`], which knows whether the participant deduplicates.
#[must_use]
pub fn effect(evidence: Evidence) -> Effect {
    match evidence {
        Evidence::NotSent(_) | Evidence::NotRendered => Effect::None,
        Evidence::NoAnswer(_) | Evidence::BadAnswer => Effect::InDoubt,
        Evidence::ParticipantSaid(code) => match code {
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Aborted
            | Code::NotFound
            | Code::OutOfRange => Effect::None,
            // A proxy may have written these after the service ran; OK that failed is no answer at all.
            Code::Ok
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::AlreadyExists
            | Code::Cancelled
            | Code::DataLoss => Effect::InDoubt,
        },
    }
}

/// True if a refusal under one key speaks for every attempt with it, coming from a participant that
/// deduplicates by key: its business code has seen the key and refused for good.
///
/// What never reached that code (nothing was sent, credentials or method were wrong) knows nothing of other
/// attempts, and ABORTED may have lost its race against one of them.
#[must_use]
pub fn speaks_for_its_key(evidence: Evidence) -> bool {
    match evidence {
        Evidence::NotSent(_) | Evidence::NoAnswer(_) | Evidence::BadAnswer | Evidence::NotRendered => false,
        Evidence::ParticipantSaid(code) => match code {
            Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::OutOfRange => true,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated => false,
        },
    }
}
