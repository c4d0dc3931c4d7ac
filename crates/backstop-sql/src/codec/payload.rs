//! What an event's columns do not hold, encoded. Private to the codec: these are not the wire's types.
//!
//! # Invariants
//! * What an event needs is `optional` here and asked for by name, so that a payload which lacks it is
//!   told from one which holds a zero.
//! * Encoding is deterministic: fields by number, maps by key. An append is recognised by its bytes.

use super::{DecodeError, required};
use backstop_core::failure::Pushback;
use backstop_core::{Details, FieldViolation, Next, PreconditionViolation, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Started {
    #[prost(string, optional, tag = "1")]
    pub(super) definition: Option<String>,
    #[prost(uint32, optional, tag = "2")]
    pub(super) revision: Option<u32>,
    #[prost(string, optional, tag = "3")]
    pub(super) coordinator: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub(super) input: Option<Bytes>,
    #[prost(message, repeated, tag = "5")]
    pub(super) requests: Vec<Request>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(sint64, optional, tag = "7")]
    pub(super) deadline_us: Option<i64>,
    #[prost(string, optional, tag = "8")]
    pub(super) trace_parent: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(string, optional, tag = "1")]
    pub(super) step: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) body: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Adopted {
    #[prost(uint64, optional, tag = "1")]
    pub(super) epoch: Option<u64>,
    #[prost(string, optional, tag = "2")]
    pub(super) coordinator: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ActionSucceeded {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) response: Option<Bytes>,
}

/// Of `action_failed`, `query_failed` and `compensation_failed`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Failed {
    #[prost(message, optional, tag = "1")]
    pub(super) failure: Option<FailureRest>,
    #[prost(bool, optional, tag = "2")]
    pub(super) settles_doubt: Option<bool>,
    #[prost(message, optional, tag = "3")]
    pub(super) next: Option<NextStep>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct QueryAnswered {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) found: Option<Bytes>,
    #[prost(message, optional, tag = "2")]
    pub(super) next: Option<NextStep>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RollbackDecided {
    #[prost(string, optional, tag = "1")]
    pub(super) cause: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(super) failure: Option<FailureRest>,
    #[prost(string, repeated, tag = "3")]
    pub(super) signals: Vec<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) by: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(super) reason: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SignalReported {
    #[prost(string, optional, tag = "1")]
    pub(super) participant: Option<String>,
}

/// Of `branch_retried` and `branch_resolved`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Operator {
    #[prost(string, optional, tag = "1")]
    pub(super) by: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) resolution: Option<String>,
}

/// The parts of a failure that have no column.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FailureRest {
    #[prost(string, optional, tag = "1")]
    reason: Option<String>,
    #[prost(string, optional, tag = "2")]
    domain: Option<String>,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "4")]
    field_violations: Vec<Violation>,
    #[prost(message, repeated, tag = "5")]
    precondition_violations: Vec<Violation>,
    #[prost(message, optional, tag = "6")]
    localized: Option<Localized>,
    #[prost(bool, optional, tag = "7")]
    truncated: Option<bool>,
    #[prost(message, optional, tag = "8")]
    pushback: Option<Wait>,
}

/// A field's (`subject` is its path, `kind` is absent) or a precondition's.
#[derive(Clone, PartialEq, prost::Message)]
struct Violation {
    #[prost(string, optional, tag = "1")]
    kind: Option<String>,
    #[prost(string, optional, tag = "2")]
    subject: Option<String>,
    #[prost(string, optional, tag = "3")]
    description: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Localized {
    #[prost(string, optional, tag = "1")]
    locale: Option<String>,
    #[prost(string, optional, tag = "2")]
    text: Option<String>,
}

/// Both absent: not at all.
#[derive(Clone, PartialEq, prost::Message)]
struct Wait {
    #[prost(uint64, optional, tag = "1")]
    seconds: Option<u64>,
    #[prost(uint32, optional, tag = "2")]
    nanos: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NextStep {
    #[prost(string, optional, tag = "1")]
    what: Option<String>,
    #[prost(sint64, optional, tag = "2")]
    at_us: Option<i64>,
}

impl From<Next> for NextStep {
    fn from(next: Next) -> Self {
        let (what, at) = match next {
            Next::RetryAt(at) => ("retry", Some(at)),
            Next::AskAt(at) => ("ask", Some(at)),
            Next::GiveUp => ("give_up", None),
        };
        Self { what: Some(what.to_owned()), at_us: at.map(|at| at.0) }
    }
}

pub(super) fn next(stored: Option<NextStep>) -> Result<Next, DecodeError> {
    let NextStep { what, at_us } = required("payload.next", stored)?;
    let at = || required("payload.next.at", at_us).map(Timestamp);
    match required("payload.next.what", what)?.as_str() {
        "retry" => Ok(Next::RetryAt(at()?)),
        "ask" => Ok(Next::AskAt(at()?)),
        "give_up" => Ok(Next::GiveUp),
        other => Err(DecodeError::unknown("payload.next.what", other)),
    }
}

impl FailureRest {
    pub(super) fn new(details: &Details, pushback: Option<Pushback>) -> Self {
        Self {
            reason: details.reason.clone(),
            domain: details.domain.clone(),
            metadata: details.metadata.clone(),
            field_violations: details
                .field_violations
                .iter()
                .map(|v| Violation {
                    kind: None,
                    subject: Some(v.field.clone()),
                    description: Some(v.description.clone()),
                })
                .collect(),
            precondition_violations: details
                .precondition_violations
                .iter()
                .map(|v| Violation {
                    kind: Some(v.kind.clone()),
                    subject: Some(v.subject.clone()),
                    description: Some(v.description.clone()),
                })
                .collect(),
            localized: details
                .localized
                .as_ref()
                .map(|(locale, text)| Localized { locale: Some(locale.clone()), text: Some(text.clone()) }),
            truncated: Some(details.truncated),
            pushback: pushback.map(|pushback| match pushback {
                Pushback::After(wait) => {
                    Wait { seconds: Some(wait.as_secs()), nanos: Some(wait.subsec_nanos()) }
                }
                Pushback::Stop => Wait { seconds: None, nanos: None },
            }),
        }
    }

    pub(super) fn read(self) -> Result<(Details, Option<Pushback>), DecodeError> {
        let mut details = Details {
            reason: self.reason,
            domain: self.domain,
            metadata: self.metadata,
            truncated: required("payload.truncated", self.truncated)?,
            ..Details::default()
        };
        for v in self.field_violations {
            details.field_violations.push(FieldViolation {
                field: required("payload.violation.subject", v.subject)?,
                description: required("payload.violation.description", v.description)?,
            });
        }
        for v in self.precondition_violations {
            details.precondition_violations.push(PreconditionViolation {
                kind: required("payload.violation.kind", v.kind)?,
                subject: required("payload.violation.subject", v.subject)?,
                description: required("payload.violation.description", v.description)?,
            });
        }
        if let Some(Localized { locale, text }) = self.localized {
            details.localized =
                Some((required("payload.locale", locale)?, required("payload.localized", text)?));
        }
        let pushback = self.pushback.map(Wait::read).transpose()?;
        Ok((details, pushback))
    }
}

impl Wait {
    fn read(self) -> Result<Pushback, DecodeError> {
        match (self.seconds, self.nanos) {
            (None, None) => Ok(Pushback::Stop),
            (Some(seconds), Some(nanos)) if nanos < 1_000_000_000 => {
                Ok(Pushback::After(Duration::new(seconds, nanos)))
            }
            _ => Err(DecodeError::malformed("payload.pushback", "neither a wait nor none")),
        }
    }
}
