//! The one place that turns a refusal or failure of ours into a gRPC status.
//!
//! Every status bears one `google.rpc.ErrorInfo` of the domain `backstop`, and what else helps the caller:
//! field violations, retry info. Nothing internal leaks: a store's words go to the log.

use backstop_core::{Fault, FinCode, Refused, Tier, bounded_text};
use backstop_engine::EngineError;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Field violations in one status; more would not fit into its headers.
const FAULTS_SHOWN_MAX: usize = 32;
/// Bytes of one status message of ours.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Bytes of one violation's description, and of its path.
const DESCRIPTION_BYTES_MAX: usize = 256;
/// Bytes of all violations together. In base64, beside message and metadata, they stay well below the 16 KiB of
/// headers that clients take.
const VIOLATIONS_BYTES_MAX: usize = 6 << 10;

/// The status of an engine's refusal.
pub(crate) fn engine_error(error: &EngineError) -> Status {
    match error {
        EngineError::Invalid(faults) => invalid(faults),
        EngineError::NotFound { .. } => Reply::new(Code::NotFound, "NOT_FOUND").status(error.to_string()),
        EngineError::AlreadyExists { saga, difference } => Reply::new(Code::AlreadyExists, "SAGA_ID_TAKEN")
            .with("saga_id", saga.as_str())
            .with("differs", &bounded_text(difference, DESCRIPTION_BYTES_MAX))
            .status(bounded_text(&error.to_string(), MESSAGE_BYTES_MAX)),
        EngineError::Refused(refused) => {
            let (code, reason) = refusal(*refused);
            Reply::new(code, reason).status(error.to_string())
        }
        EngineError::Busy { limit, retry_after } => Reply::new(Code::ResourceExhausted, "BUSY")
            .with("limit", limit)
            .retry_after(*retry_after)
            .status(error.to_string()),
        EngineError::NotServing => Reply::new(Code::Unavailable, "NOT_SERVING")
            .retry_after(Duration::from_secs(1))
            .status(error.to_string()),
        EngineError::NotHere { saga, owner, last } => {
            tracing::warn!(%saga, %owner, last, "the coordinator that drives the saga did not answer");
            Reply::new(Code::Unavailable, OTHER_COORDINATOR)
                .with("saga_id", saga.as_str())
                .with("owner", owner.as_str())
                .retry_after(Duration::from_secs(1))
                .status(error.to_string())
        }
        EngineError::Retired { head } => Reply::new(Code::NotFound, "JOURNAL_RETIRED")
            .with("saga_id", head.saga.as_str())
            .with("state", head.state.as_str())
            .status(error.to_string()),
        EngineError::NotQuarantined { saga } => Reply::new(Code::FailedPrecondition, "NOT_QUARANTINED")
            .with("saga_id", saga.as_str())
            .status(error.to_string()),
        EngineError::Quarantined { saga, .. } => Reply::new(Code::DataLoss, "JOURNAL_UNREADABLE")
            .with("saga_id", saga.as_str())
            .status(error.to_string()),
        EngineError::Store(cause) => {
            tracing::error!(error = %cause, "a request failed at the store");
            Reply::new(Code::Unavailable, "STORE")
                .retry_after(Duration::from_secs(1))
                .status(
                    "the store did not answer: ask again; a start, which may have been done all the same, with the same \
                     saga_id, and if it had none, only after a look whether the saga is there"
                        .to_owned(),
                )
        }
    }
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
    let message = bounded_text(&message, MESSAGE_BYTES_MAX);
    let mut reply = Reply::new(Code::InvalidArgument, "INVALID_ARGUMENT");
    if faults.len() > shown {
        reply = reply.with("faults", &faults.len().to_string()).with("faults_shown", &shown.to_string());
    }
    reply.details = details;
    reply.status(message)
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

    pub(crate) fn status(mut self, message: String) -> Status {
        if let Some(trace) = crate::trace::current_trace_id() {
            self.metadata.insert("trace_id".to_owned(), trace);
        }
        self.details.set_error_info(self.reason, "backstop", self.metadata);
        Status::with_error_details(self.code, message, self.details)
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
