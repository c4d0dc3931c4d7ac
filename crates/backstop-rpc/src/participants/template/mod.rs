//! Request templates: JSON whose strings may hold CEL in `${…}`, compiled once against the request message
//! and rendered to protobuf bytes for each call.
//!
//! The way of a template: `build` compiles the JSON against the message into a tree of `node`s, `text` finds
//! the expressions in its strings and `compile` makes `expr`s of them; then, for each call, `eval` evaluates,
//! `fit` puts the values into fields and `encode` writes the bytes.
//!
//! # Invariants
//! * All that can be known to be wrong is a fault at registration, with its path (`tests/faults.rs`).
//! * The same saga renders to the same bytes, always (I9; `tests/rendering.rs`).
//! * The work of one rendering is bounded, and so is its result (`tests/limits.rs`).
//!
//! # Not here
//! Raw payloads: they pass through untouched, in `super::calls`.

mod build;
mod compile;
mod encode;
mod eval;
mod expr;
mod fit;
mod node;
mod ops;
#[cfg(test)]
mod tests;
mod text;
mod types;
mod value;

use backstop_core::{Cause, CauseKind, Fault, Saga};
use build::Compiler;
use bytes::Bytes;
pub(super) use compile::{Scope, Visible};
#[cfg(test)]
pub(super) use encode::message as encoded;
#[cfg(test)]
pub(super) use eval::EVALUATION_STEPS_MAX;
use eval::Env;
use expr::Root;
use node::Fields;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use value::{Key, Val};

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    fields: Fields,
    /// What its expressions read: nothing else is parsed or decoded for it.
    reads: BTreeSet<Root>,
    /// Types of the responses that it reads.
    responses: BTreeMap<usize, MessageDescriptor>,
    own_response: Option<MessageDescriptor>,
}

impl Template {
    /// Compiles the text of a template; the empty text is the empty message.
    ///
    /// Faults are added with paths below `path`; `None` if there is one.
    pub(super) fn compile(
        text: &str,
        request: &MessageDescriptor,
        scope: &Scope<'_>,
        path: &str,
        faults: &mut Vec<Fault>,
    ) -> Option<Self> {
        let before = faults.len();
        let json = match serde_json::from_str(if text.is_empty() { "{}" } else { text }) {
            Ok(Json::Object(object)) => object,
            Ok(_) => {
                faults.push(Fault::new(path, "the request is a JSON object"));
                return None;
            }
            Err(error) => {
                faults.push(Fault::new(path, format!("the request is not JSON: {error}")));
                return None;
            }
        };
        let no_steps = BTreeMap::new();
        let env = Env::new(&no_steps);
        let faults_max = before.saturating_add(build::FAULTS_MAX);
        let mut compiler = Compiler { scope, env: &env, faults, faults_max, depth: 0 };
        let fields = compiler.fields(&json, request, path);
        if faults.len() > before {
            return None;
        }
        let mut reads = BTreeSet::new();
        fields.roots(&mut reads);
        let visible = scope.steps.values().filter(|step| reads.contains(&Root::Step(step.index)));
        let responses = visible.filter_map(|step| step.response.clone().map(|ty| (step.index, ty))).collect();
        Some(Self { fields, reads, responses, own_response: scope.response.clone() })
    }

    /// The request of one call.
    ///
    /// # Errors
    /// Why there is none, naming the field, for people; nothing of any value is told.
    pub(super) fn render(&self, saga: &Saga, own_step: usize, bytes_max: usize) -> Result<Bytes, String> {
        let input = self.reads.contains(&Root::Input).then(|| input(saga)).transpose()?;
        let mut steps = BTreeMap::new();
        for (index, ty) in &self.responses {
            steps.insert(*index, response(saga, *index, ty)?);
        }
        let own = match &self.own_response {
            Some(ty) if self.reads.contains(&Root::Response) => response(saga, own_step, ty)?,
            Some(_) | None => None,
        };
        let mut env = Env::new(&steps);
        env.input = input.as_ref();
        env.response = own.as_ref();
        if self.reads.contains(&Root::Saga) {
            env.saga = of_saga(saga);
        }
        if let (true, Some(cause)) = (self.reads.contains(&Root::Cause), &saga.cause) {
            env.cause = of_cause(cause);
        }
        let message =
            self.fields.render(&env).map_err(|misfit| format!("request{}: {}", misfit.path, misfit.text))?;
        let bytes = encode::message(&message);
        if bytes.len() > bytes_max {
            return Err(format!("the request has {} bytes; the limit is {bytes_max}", bytes.len()));
        }
        Ok(bytes.into())
    }
}

fn input(saga: &Saga) -> Result<Json, String> {
    if saga.started.input.is_empty() {
        return Ok(Json::Object(serde_json::Map::new()));
    }
    // The parser's own message would quote the input.
    serde_json::from_slice(&saga.started.input).map_err(|_| "the saga's input is not JSON".to_owned())
}

fn response(saga: &Saga, index: usize, ty: &MessageDescriptor) -> Result<Option<DynamicMessage>, String> {
    let Some(bytes) = saga.branches.get(index).and_then(|branch| branch.response.clone()) else {
        return Ok(None);
    };
    let decoded = DynamicMessage::decode(ty.clone(), bytes);
    decoded.map(Some).map_err(|_| format!("a stored response does not decode as {}", ty.full_name()))
}

fn of_saga(saga: &Saga) -> Val<'static> {
    let reference = &saga.definition.reference;
    map([
        ("id", Val::Str(saga.id.as_str().to_owned().into())),
        ("definition", Val::Str(reference.name.as_str().to_owned().into())),
        ("revision", Val::Int(reference.revision.0.into())),
    ])
}

/// What does not apply to a cause is the empty text.
fn of_cause(cause: &Cause) -> Val<'static> {
    let step = match &cause.kind {
        CauseKind::BranchFailed(step) | CauseKind::Resolved(step) => step.as_str(),
        CauseKind::DeadlinePassed | CauseKind::Cancelled { .. } => "",
    };
    let message = match (&cause.kind, &cause.failure) {
        (CauseKind::Cancelled { reason, .. }, _) => reason.as_str(),
        (_, Some(failure)) => failure.message.as_str(),
        (CauseKind::BranchFailed(_) | CauseKind::DeadlinePassed | CauseKind::Resolved(_), None) => "",
    };
    let failure = cause.failure.as_ref();
    let text = |text: Option<String>| Val::Str(text.unwrap_or_default().into());
    map([
        ("step", text(Some(step.to_owned()))),
        ("fin_code", text(failure.map(|failure| failure.fin_code.to_string()))),
        ("grpc_code", text(failure.map(|failure| failure.code().name().to_owned()))),
        ("tier", text(failure.map(|failure| failure.tier.as_str().to_owned()))),
        ("message", text(Some(message.to_owned()))),
    ])
}

fn map<const N: usize>(entries: [(&str, Val<'static>); N]) -> Val<'static> {
    let entries = entries.into_iter().map(|(key, val)| (Key::Str(key.to_owned()), val));
    Val::Map(Arc::new(entries.collect()))
}
