//! The one place that turns a refusal or failure of ours into a gRPC status.
//!
//! Every status bears one `google.rpc.ErrorInfo` of the domain `backstop`, and what else helps the caller:
//! field violations, retry info. Nothing internal leaks: a store's words go to the log.
//!
//! # Invariants
//! * Whatever is at fault and however long its names are, the headers of a status stay below the 8 KiB that gRPC's Java
//!   clients take: a larger status would break itself (`the_largest_refusal_fits_into_the_headers_that_clients_take`).

use backstop_core::{Fault, FinCode, Refused, SagaId, SagaState, Tier, bounded_text};
use backstop_engine::EngineError;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Field violations in one status; more would not fit into its headers.
const FAULTS_SHOWN_MAX: usize = 32;
/// Bytes of one status message of ours. It is sent twice: once with what is not plain ASCII in three bytes each.
const MESSAGE_BYTES_MAX: usize = 512;
/// Bytes of one violation's description, and of its path.
const DESCRIPTION_BYTES_MAX: usize = 256;
/// Bytes of all violations together. They are sent in base64.
const VIOLATIONS_BYTES_MAX: usize = 3 << 10;

/// The status of an engine's refusal.
pub(crate) fn engine_error(error: &EngineError) -> Status {
    let (reply, message) = reply(error);
    reply.status(message)
}

/// The same of what was asked of one saga; `state` is where that stands, if it is known.
pub(crate) fn saga_error(error: &EngineError, saga: &SagaId, state: Option<SagaState>) -> Status {
    let (mut reply, message) = reply(error);
    reply = reply.with("saga_id", saga.as_str());
    if let Some(state) = state {
        reply = reply.with("state", state.as_str());
    }
    reply.status(message)
}

fn reply(error: &EngineError) -> (Reply, String) {
    let reply = match error {
        EngineError::Invalid(faults) => return faulty(faults),
        EngineError::NotFound { .. } => Reply::new(Code::NotFound, "NOT_FOUND"),
        EngineError::AlreadyExists { saga, difference } => Reply::new(Code::AlreadyExists, "SAGA_ID_TAKEN")
            .with("saga_id", saga.as_str())
            .with("differs", &bounded_text(difference, DESCRIPTION_BYTES_MAX)),
        EngineError::Refused(refused) => {
            let (code, reason) = refusal(*refused);
            Reply::new(code, reason)
        }
        EngineError::Busy { limit, retry_after } => {
            Reply::new(Code::ResourceExhausted, "BUSY").with("limit", limit).retry_after(*retry_after)
        }
        EngineError::NotServing => {
            Reply::new(Code::Unavailable, "NOT_SERVING").retry_after(Duration::from_secs(1))
        }
        EngineError::NotHere { saga, owner, last } => {
            tracing::warn!(%saga, %owner, last, "the coordinator that drives the saga did not answer");
            Reply::new(Code::Unavailable, OTHER_COORDINATOR)
                .with("saga_id", saga.as_str())
                .with("owner", owner.as_str())
                .retry_after(Duration::from_secs(1))
        }
        EngineError::Retired { head } => Reply::new(Code::NotFound, "JOURNAL_RETIRED")
            .with("saga_id", head.saga.as_str())
            .with("state", head.state.as_str()),
        EngineError::NotQuarantined { saga } => {
            Reply::new(Code::FailedPrecondition, "NOT_QUARANTINED").with("saga_id", saga.as_str())
        }
        EngineError::Quarantined { saga, .. } => {
            Reply::new(Code::DataLoss, "JOURNAL_UNREADABLE").with("saga_id", saga.as_str())
        }
        EngineError::Store(cause) => {
            tracing::error!(error = %cause, "a request failed at the store");
            let reply = Reply::new(Code::Unavailable, "STORE").retry_after(Duration::from_secs(1));
            // A start says under which saga_id.
            let text = "the store did not answer, and it may have been done all the same: ask again, with the same saga_id";
            return (reply, text.to_owned());
        }
    };
    (reply, error.to_string())
}

/// The status of a request whose caller waits no longer.
pub(crate) fn deadline_exceeded() -> Status {
    Reply::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
        .status("the caller's deadline has passed".to_owned())
}

/// How the rules' refusals are told. Each has a reason of its own, so that a coordinator that carried a command
/// to another reads it back ([`refused_for`]).
fn refusal(refused: Refused) -> (Code, &'static str) {
    match refused {
        Refused::Ended => (Code::FailedPrecondition, "SAGA_ENDED"),
        Refused::PastPivot => (Code::FailedPrecondition, "PAST_PIVOT"),
        Refused::PivotOpen => (Code::FailedPrecondition, "PIVOT_OPEN"),
        Refused::NoSuchStep => (Code::NotFound, "NO_SUCH_STEP"),
        Refused::NotWaiting => (Code::FailedPrecondition, "BRANCH_NOT_WAITING"),
        Refused::WrongResolution => (Code::FailedPrecondition, "WRONG_RESOLUTION"),
    }
}

/// The inverse of [`refusal`].
pub(crate) fn refused_for(reason: &str) -> Option<Refused> {
    [
        Refused::Ended,
        Refused::PastPivot,
        Refused::PivotOpen,
        Refused::NoSuchStep,
        Refused::NotWaiting,
        Refused::WrongResolution,
    ]
    .into_iter()
    .find(|refused| refusal(*refused).1 == reason)
}

/// Reason of the answer of a coordinator that does not drive the saga.
pub(crate) const OTHER_COORDINATOR: &str = "OTHER_COORDINATOR";

/// The status of a malformed request: one violation a fault.
pub(crate) fn invalid(faults: &[Fault]) -> Status {
    let (reply, message) = faulty(faults);
    reply.status(message)
}

fn faulty(faults: &[Fault]) -> (Reply, String) {
    let mut details = ErrorDetails::new();
    let (mut shown, mut bytes_left) = (0_usize, VIOLATIONS_BYTES_MAX);
    for fault in faults.iter().take(FAULTS_SHOWN_MAX) {
        let path = bounded_text(&fault.path, DESCRIPTION_BYTES_MAX);
        let description = bounded_text(&fault.description, DESCRIPTION_BYTES_MAX);
        let Some(left) = bytes_left.checked_sub(path.len() + description.len()) else { break };
        bytes_left = left;
        shown += 1;
        details.add_bad_request_violation(path, description);
    }
    let message = match faults {
        [only] => only.to_string(),
        [first, ..] => format!("{} faults; the first: {first}", faults.len()),
        [] => "the request is at fault".to_owned(),
    };
    let mut reply = Reply::new(Code::InvalidArgument, "INVALID_ARGUMENT");
    if faults.len() > shown {
        reply = reply.with("faults", &faults.len().to_string()).with("faults_shown", &shown.to_string());
    }
    reply.details = details;
    (reply, message)
}

/// A status in the making.
pub(crate) struct Reply {
    code: Code,
    reason: &'static str,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

impl Reply {
    /// With the FIN code, tier and HTTP status of a refusal of ours.
    pub(crate) fn new(code: Code, reason: &'static str) -> Self {
        let mut metadata = HashMap::new();
        if let Some((fin_code, tier, http_status)) = meaning(code) {
            metadata.insert("fin_code".to_owned(), fin_code.to_string());
            metadata.insert("tier".to_owned(), tier.as_str().to_owned());
            metadata.insert("http_status".to_owned(), http_status.to_string());
        }
        Self { code, reason, metadata, details: ErrorDetails::new() }
    }

    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.details.set_retry_info(Some(wait));
        self
    }

    /// What is longer than a status can bear is cut, and says so.
    pub(crate) fn status(mut self, message: String) -> Status {
        if let Some(trace) = crate::trace::current_trace_id() {
            self.metadata.insert("trace_id".to_owned(), trace);
        }
        self.details.set_error_info(self.reason, "backstop", self.metadata);
        Status::with_error_details(self.code, bounded_text(&message, MESSAGE_BYTES_MAX), self.details)
    }
}

/// What our own statuses mean for people. Not the error table, which judges participants: a caller who asks
/// for a saga that is not there is told so, and nobody is paged.
fn meaning(code: Code) -> Option<(FinCode, Tier, u16)> {
    match code {
        Code::InvalidArgument | Code::FailedPrecondition => Some((FinCode::REFUSED, Tier::L3, 400)),
        Code::NotFound => Some((FinCode::REFUSED, Tier::L3, 404)),
        Code::AlreadyExists => Some((FinCode::REFUSED, Tier::L3, 409)),
        Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded => {
            Some((FinCode::UNAVAILABLE, Tier::L2, 503))
        }
        Code::DataLoss | Code::Internal | Code::Unknown => Some((FinCode::INTERNAL, Tier::L1, 500)),
        Code::Unimplemented
        | Code::Ok
        | Code::Cancelled
        | Code::PermissionDenied
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use tonic_types::StatusExt;

    /// What Netty takes of headers, an entry counted with HTTP/2's 32 bytes.
    const HEADERS_BYTES_MAX: usize = 8 << 10;
    /// `:status`, `content-type` and `date` stand beside those of the status.
    const OTHER_HEADERS_BYTES: usize = 42 + 60 + 65;

    fn header_bytes(status: &Status) -> usize {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        bytes + OTHER_HEADERS_BYTES
    }

    fn saga() -> SagaId {
        SagaId::parse(&"s".repeat(128)).unwrap()
    }

    #[test]
    fn the_largest_refusal_fits_into_the_headers_that_clients_take() {
        // Many short ones and few long ones; of characters that need three bytes for each of theirs in `grpc-message`.
        for (faults, bytes) in
            [(10_000, 1), (10_000, 30), (10_000, 90), (1_000, 300), (100, 4_000), (1, 100_000)]
        {
            let text = "é".repeat(bytes);
            let faults: Vec<_> = (0..faults).map(|_| Fault::new(text.clone(), text.clone())).collect();
            let error = EngineError::Invalid(faults);
            let status = saga_error(&error, &saga(), Some(SagaState::NeedsIntervention));
            let size = header_bytes(&status);
            assert!(size < HEADERS_BYTES_MAX, "{size} bytes for faults of {bytes}");
            assert!(!status.get_details_bad_request().unwrap().field_violations.is_empty());
        }
        let difference = "é".repeat(4_000);
        let taken = EngineError::AlreadyExists { saga: saga(), difference };
        assert!(header_bytes(&engine_error(&taken)) < HEADERS_BYTES_MAX);
    }

    #[test]
    fn a_message_of_any_length_is_cut_at_a_character_and_says_so() {
        let status = Reply::new(Code::NotFound, "NOT_FOUND").status("é".repeat(100_000));
        assert!(status.message().len() <= MESSAGE_BYTES_MAX);
        assert!(status.message().ends_with(backstop_core::failure::CUT_MARK));
        assert!(header_bytes(&status) < HEADERS_BYTES_MAX);
        let short = "there is no such thing";
        assert_eq!(Reply::new(Code::NotFound, "NOT_FOUND").status(short.to_owned()).message(), short);
    }
}
