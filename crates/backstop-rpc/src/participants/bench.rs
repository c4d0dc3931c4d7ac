//! What a call costs beside the wire, for `backstop-bench` alone: its request, its metadata, and what is made of a refusal.
//!
//! Built with the feature `bench`, which nothing that ships asks for. Each function goes the way that a call goes, and adds
//! nothing of its own.
//!
//! # Not here
//! The cases and their counts: `backstop-bench`. Connections: they wait, and waiting is no instruction.

use super::ParticipantSettings;
use super::codec::Reply;
use super::evidence::Failed;
use super::metadata;
use super::plan::{Plan, Source};
use crate::traces::place::{self, Attempt};
use backstop_core::{Call, Code, DefinitionSpec, Fault, Saga};
use backstop_engine::ports::participants::CallReply;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use std::time::Duration;
use tonic_types::{ErrorDetails, StatusExt};

/// The compiled calls of one definition.
#[derive(Debug)]
pub struct Requests {
    plan: Plan,
    definition: HeaderValue,
    bytes_max: usize,
}

impl Requests {
    /// Compiles a definition against its message types, as registration does.
    ///
    /// # Errors
    /// Every fault of the definition.
    pub fn compile(spec: &DefinitionSpec, descriptors: &[u8]) -> Result<Self, Vec<Fault>> {
        let bytes_max = ParticipantSettings::default().request_bytes_max;
        let plan = Plan::compile(spec, descriptors)?;
        Ok(Self { plan, definition: HeaderValue::from_static("bench@1"), bytes_max })
    }

    /// The request of one call, from its template.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn render(&self, saga: &Saga, call: &Call) -> Result<Bytes, String> {
        match self.plan.call(call.step, call.phase).map(|planned| &planned.request) {
            Some(Source::Template(template)) => template.render(saga, call.step, self.bytes_max),
            Some(Source::Payload) | None => Err("the call has no template".to_owned()),
        }
    }

    /// All that a call says beside its request; nothing if there is no such call.
    #[must_use]
    pub fn metadata(&self, saga: &Saga, call: &Call, left: Duration) -> Option<HeaderMap> {
        let fixed = &self.plan.call(call.step, call.phase)?.metadata;
        let mut headers = metadata::of_call(&self.definition, fixed, saga, call);
        let step = saga.definition.steps.get(call.step)?.name.as_str();
        let attempt = Attempt { step, phase: call.phase, number: call.attempt };
        if let Some(place) = place::of_attempt(saga, attempt) {
            metadata::trace_parent(&mut headers, &place::written(&place));
        }
        metadata::protocol(&mut headers, left);
        Some(headers)
    }
}

/// An answer that is not OK, as it came over the wire.
#[derive(Debug)]
pub struct Refusal(Reply);

impl Refusal {
    /// A status and its message, with nothing else.
    ///
    /// # Errors
    /// The message is too long for a header.
    pub fn plain(code: Code, message: &str) -> Result<Self, String> {
        Self::of(&tonic::Status::new(code.number().into(), message))
    }

    /// One with a reason and the fields that are at fault, as `google.rpc` writes them.
    ///
    /// # Errors
    /// The details are too long for a header.
    pub fn detailed(
        code: Code,
        message: &str,
        reason: &str,
        violations: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut rich = ErrorDetails::new();
        rich.set_error_info(reason, "ledger.bank", [("effect".to_owned(), "none".to_owned())]);
        for (field, description) in violations {
            rich.add_bad_request_violation(*field, *description);
        }
        Self::of(&tonic::Status::with_error_details(code.number().into(), message, rich))
    }

    fn of(status: &tonic::Status) -> Result<Self, String> {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).map_err(|error| error.to_string())?;
        let status = i32::from(status.code());
        Ok(Self(Reply { headers: HeaderMap::new(), trailers, status, message: Bytes::new() }))
    }

    /// What the core is told of it.
    #[must_use]
    pub fn heard(&self) -> CallReply {
        Failed::said(&self.0).reply()
    }
}
