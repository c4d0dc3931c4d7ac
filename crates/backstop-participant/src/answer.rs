//! What a call is answered, and how that is kept so that it can be said again.
//!
//! # Invariants
//! * A refusal is answered the first time exactly as a duplicate will read it: it is bounded before both.
//! * A status whose code speaks for its key (`speaks_for_its_key`) is always a refusal that is kept: Backstop
//!   takes it from a participant that deduplicates as "no attempt had or will have an effect".
//!
//! # Not here
//! When what is answered: `barrier`.

use crate::DOMAIN;
use prost::Message;
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

/// Longest message of a refusal that is kept and answered; what is longer ends in `…[cut]`.
pub const MESSAGE_BYTES_MAX: usize = 2048;
/// Most bytes of details of a refusal. More would break the status itself on its way.
pub const DETAILS_BYTES_MAX: usize = 6144;
/// Largest reply that is kept: what gRPC libraries take by default.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The mark of a message that was cut.
const CUT: &str = "…[cut]";

/// Why the work did not succeed. You decide; `?` on a [`Status`] decides by its code, and on an
/// [`sqlx::Error`] says [`Stop::Failed`].
#[derive(Debug, Clone)]
pub enum Stop {
    /// A business refusal: what the work wrote is rolled back, and every later attempt gets this status.
    ///
    /// A compensation's refusal is not kept: the next attempt, or a person's, runs the work again.
    Refused(Status),
    /// A temporary failure: everything is rolled back, nothing is kept, and the next attempt runs the work.
    ///
    /// With a code that speaks for its key (INVALID_ARGUMENT, FAILED_PRECONDITION, NOT_FOUND, OUT_OF_RANGE)
    /// an action's failure is kept like a refusal, for that is what Backstop reads in it. For a step after the pivot, which a
    /// person may want to try again, say ABORTED.
    Failed(Status),
}

impl Stop {
    /// The status.
    #[must_use]
    pub fn status(&self) -> &Status {
        match self {
            Self::Refused(status) | Self::Failed(status) => status,
        }
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        if speaks_for_its_key(status.code()) { Self::Refused(status) } else { Self::Failed(status) }
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(storage_failed(error))
    }
}

/// True if Backstop takes a status with this code as the answer to every attempt.
pub(crate) fn speaks_for_its_key(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::OutOfRange)
}

/// The database said no before a commit was asked for: this attempt has no effect.
pub(crate) fn storage_failed(error: sqlx::Error) -> Status {
    let (code, reason) =
        if is_lost_race(&error) { (Code::Aborted, "CONFLICT") } else { (Code::Unavailable, "STORAGE") };
    let mut status = no_effect(code, reason, "the participant's database could not do it now");
    status.set_source(std::sync::Arc::new(error));
    status
}

/// A serialization failure, a deadlock or a lock that was not to be had.
fn is_lost_race(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        Some("40001" | "40P01" | "55P03") => true,
        // SQLite's extended codes hold the primary one, BUSY or LOCKED, in their lowest byte.
        Some(code) => code.len() <= 4 && code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6)),
        None => false,
    }
}

/// A status of the barrier's own that says: this attempt did nothing and will do nothing.
pub(crate) fn no_effect(code: Code, reason: &str, message: &str) -> Status {
    said(code, reason, message, HashMap::from([("effect".to_owned(), "none".to_owned())]))
}

/// A status of the barrier's own that leaves open what the call did.
pub(crate) fn in_doubt(code: Code, reason: &str, message: &str) -> Status {
    said(code, reason, message, HashMap::new())
}

fn said(code: Code, reason: &str, message: &str, metadata: HashMap<String, String>) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}

/// A refusal as it is kept: an encoded `google.rpc.Status`, bounded.
pub(crate) fn refusal_bytes(status: &Status) -> Vec<u8> {
    let said = pb::Status::decode(status.details()).unwrap_or_default();
    let mut left = DETAILS_BYTES_MAX;
    let mut details = Vec::new();
    for any in said.details {
        let Some(rest) = left.checked_sub(any.encoded_len()) else { continue };
        left = rest;
        details.push(any);
    }
    let message = bounded(status.message());
    pb::Status { code: status.code() as i32, message, details }.encode_to_vec()
}

/// The inverse of [`refusal_bytes`]; none if these are no refusal's bytes.
pub(crate) fn refusal(bytes: &[u8]) -> Option<Status> {
    let said = pb::Status::decode(bytes).ok()?;
    let code = Code::from_i32(said.code);
    if code == Code::Ok {
        return None;
    }
    if said.details.is_empty() {
        return Some(Status::new(code, said.message));
    }
    Some(Status::with_details(code, said.message, bytes.to_vec().into()))
}

fn bounded(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let kept = message.floor_char_boundary(MESSAGE_BYTES_MAX - CUT.len());
    format!("{}{CUT}", message.get(..kept).unwrap_or_default())
}
