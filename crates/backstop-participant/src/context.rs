//! Who calls, read off a request's metadata: which saga, which step, forwards or backwards, for how long.
//!
//! # Invariants
//! * A call without any `backstop-` metadata is a plain caller, never an error of a saga's.
//! * What is missing or cannot be right is named by its key; nothing is guessed
//!   (`tests/contract/context.rs`).
//! * A place in a trace that cannot be right is left out: what only helps to look at a call must not decide on it
//!   (`a_trace_header_never_costs_a_transfer`).
//!
//! # Not here
//! What a duplicate is answered: `barrier`.

use backstop_proto::v1::RollbackCause;
use prost::Message;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Every key of ours begins so.
const PREFIX: &str = "backstop-";
const SAGA_ID: &str = "backstop-saga-id";
const DEFINITION: &str = "backstop-definition";
const STEP: &str = "backstop-step";
const PHASE: &str = "backstop-phase";
const ATTEMPT: &str = "backstop-attempt";
const CLOCK: &str = "backstop-clock";
const EPOCH: &str = "backstop-epoch";
const CAUSE: &str = "backstop-cause-bin";
const KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";
const TIMEOUT: &str = "grpc-timeout";

/// Longest saga id.
const SAGA_ID_BYTES_MAX: usize = 128;
/// Longest name of a definition (with its revision) or of a step that is taken.
const NAME_BYTES_MAX: usize = 256;
/// Longest `traceparent` that is taken.
const TRACEPARENT_BYTES_MAX: usize = 256;

/// Which of a step's calls this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The forward call.
    Action,
    /// The backward call.
    Compensation,
    /// The question whether the action took effect.
    Query,
}

impl Phase {
    /// As it stands in `backstop-phase`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Compensation => "compensation",
            Self::Query => "query",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Action, Self::Compensation, Self::Query].into_iter().find(|phase| phase.as_str() == text)
    }
}

/// What Backstop says about a call, beside its request.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// The saga.
    pub saga_id: String,
    /// Its definition and revision: `transfer@3`.
    pub definition: String,
    /// The step.
    pub step: String,
    /// Which of the step's calls.
    pub phase: Phase,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Lamport clock of the call. It grows from call to call of a saga, as far as one follows from the other.
    pub clock: u64,
    /// Tenure of the coordinator that calls. It grows with each that takes the saga over.
    pub epoch: u64,
    /// `<saga id>/<step>/<phase>`: the same for every attempt.
    pub idempotency_key: String,
    /// The call's place in its trace, as it came; none if it cannot be one.
    pub traceparent: Option<String>,
    /// How long the caller waits, counted from when the request arrived.
    pub deadline: Option<Duration>,
    /// Why the saga rolls back; with compensations only.
    pub cause: Option<RollbackCause>,
}

/// Why metadata are no context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// There are no metadata of Backstop's: somebody else calls.
    #[error("the call is no part of a saga: it has no metadata `backstop-…`")]
    PlainCaller,
    /// A key is missing.
    #[error("metadata {key} is missing")]
    Missing {
        /// Which.
        key: &'static str,
    },
    /// A value cannot be right.
    #[error("metadata {key}: {problem}")]
    Malformed {
        /// Which.
        key: &'static str,
        /// What is wrong with it. Never the value itself.
        problem: &'static str,
    },
}

impl From<ContextError> for Status {
    fn from(error: ContextError) -> Self {
        let message = error.to_string();
        let mut details = ErrorDetails::new();
        let metadata = [("effect".to_owned(), "none".to_owned())];
        match error {
            ContextError::PlainCaller => {
                details.set_error_info("NOT_IN_A_SAGA", crate::DOMAIN, metadata);
                Self::with_error_details(Code::FailedPrecondition, message, details)
            }
            ContextError::Missing { key } | ContextError::Malformed { key, .. } => {
                details.set_error_info("BAD_METADATA", crate::DOMAIN, metadata);
                details.add_bad_request_violation(key, message.clone());
                Self::with_error_details(Code::InvalidArgument, message, details)
            }
        }
    }
}

impl Context {
    /// The context of a call that must be part of a saga.
    ///
    /// # Errors
    /// [`ContextError`]; [`ContextError::PlainCaller`] if nothing of Backstop's is there at all.
    pub fn require(metadata: &MetadataMap) -> Result<Self, ContextError> {
        Self::read(metadata)?.ok_or(ContextError::PlainCaller)
    }

    /// The context of a call, or none for a plain caller's.
    ///
    /// # Errors
    /// [`ContextError`] if it is a saga's call and its metadata are not whole.
    pub fn read(metadata: &MetadataMap) -> Result<Option<Self>, ContextError> {
        if !metadata.as_ref().keys().any(|name| name.as_str().starts_with(PREFIX)) {
            return Ok(None);
        }
        let saga_id = text(metadata, SAGA_ID, SAGA_ID_BYTES_MAX)?;
        let step = text(metadata, STEP, NAME_BYTES_MAX)?;
        if step.contains('/') {
            return Err(ContextError::Malformed { key: STEP, problem: "a step's name holds no slash" });
        }
        let phase = Phase::parse(&text(metadata, PHASE, NAME_BYTES_MAX)?).ok_or(ContextError::Malformed {
            key: PHASE,
            problem: "neither action nor compensation nor query",
        })?;
        let idempotency_key = text(metadata, KEY, SAGA_ID_BYTES_MAX + NAME_BYTES_MAX + 16)?;
        if idempotency_key != format!("{saga_id}/{step}/{}", phase.as_str()) {
            return Err(ContextError::Malformed { key: KEY, problem: "it is not <saga id>/<step>/<phase>" });
        }
        let attempt = u32::try_from(number(metadata, ATTEMPT)?)
            .ok()
            .filter(|attempt| *attempt > 0)
            .ok_or(ContextError::Malformed { key: ATTEMPT, problem: "no number from 1 on" })?;
        Ok(Some(Self {
            definition: text(metadata, DEFINITION, NAME_BYTES_MAX)?,
            attempt,
            clock: number(metadata, CLOCK)?,
            epoch: number(metadata, EPOCH)?,
            traceparent: optional(metadata, TRACEPARENT, TRACEPARENT_BYTES_MAX).unwrap_or_default(),
            deadline: optional(metadata, TIMEOUT, 9)?.map(|text| timeout(&text)).transpose()?,
            cause: cause(metadata)?,
            saga_id,
            step,
            phase,
            idempotency_key,
        }))
    }
}

fn optional(
    metadata: &MetadataMap,
    key: &'static str,
    bytes_max: usize,
) -> Result<Option<String>, ContextError> {
    let mut values = metadata.get_all(key).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ContextError::Malformed { key, problem: "it is there more than once" });
    }
    let text = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(ContextError::Malformed { key, problem: "not visible ASCII" })?;
    if text.is_empty() {
        return Err(ContextError::Malformed { key, problem: "it is empty" });
    }
    if text.len() > bytes_max {
        return Err(ContextError::Malformed { key, problem: "it is too long" });
    }
    Ok(Some(text.to_owned()))
}

fn text(metadata: &MetadataMap, key: &'static str, bytes_max: usize) -> Result<String, ContextError> {
    optional(metadata, key, bytes_max)?.ok_or(ContextError::Missing { key })
}

/// A number that a database's signed 64 bits hold too.
fn number(metadata: &MetadataMap, key: &'static str) -> Result<u64, ContextError> {
    let text = text(metadata, key, 20)?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse::<i64>().ok().filter(|_| digits);
    value.map(i64::cast_unsigned).ok_or(ContextError::Malformed { key, problem: "no number below 2^63" })
}

/// gRPC's own format: up to eight digits and a unit.
fn timeout(text: &str) -> Result<Duration, ContextError> {
    let malformed =
        ContextError::Malformed { key: TIMEOUT, problem: "not up to eight digits and one of HMSmun" };
    let Some((unit, digits)) = text.as_bytes().split_last() else { return Err(malformed) };
    let digits = std::str::from_utf8(digits)
        .ok()
        .filter(|text| (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(value) = digits.and_then(|digits| digits.parse::<u64>().ok()) else { return Err(malformed) };
    match unit {
        b'H' => Ok(Duration::from_secs(value * 3600)),
        b'M' => Ok(Duration::from_secs(value * 60)),
        b'S' => Ok(Duration::from_secs(value)),
        b'm' => Ok(Duration::from_millis(value)),
        b'u' => Ok(Duration::from_micros(value)),
        b'n' => Ok(Duration::from_nanos(value)),
        _ => Err(malformed),
    }
}

fn cause(metadata: &MetadataMap) -> Result<Option<RollbackCause>, ContextError> {
    let Some(value) = metadata.get_bin(CAUSE) else { return Ok(None) };
    let bytes = value.to_bytes().ok();
    let cause = bytes.and_then(|bytes| RollbackCause::decode(bytes).ok());
    let problem = "no backstop.v1.RollbackCause";
    cause.map(Some).ok_or(ContextError::Malformed { key: CAUSE, problem })
}
