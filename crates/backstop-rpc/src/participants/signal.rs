//! The rollback signal to one listener, one attempt. It is news, not an order: nothing depends on it.

use super::pool::Unary;
use super::{Registry, metadata, span};
use crate::wire_failure;
use backstop_core::{IdempotencyKey, Phase, Saga, Signal};
use backstop_proto::participant::v1::{OnRollbackRequest, OnRollbackResponse, on_rollback_request};
use http::HeaderMap;
use http::uri::PathAndQuery;
use prost::Message;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

const METHOD: &str = "backstop.participant.v1.RollbackListenerService/OnRollback";
const PATH: &str = "/backstop.participant.v1.RollbackListenerService/OnRollback";

pub(super) async fn deliver(
    registry: &Registry,
    saga: &Saga,
    signal: &Signal,
    timeout: Duration,
) -> Result<(), String> {
    let name = &signal.participant;
    let pool = registry.pool(name).ok_or_else(|| format!("participant \"{name}\" is not known here"))?;
    let span = span::of_signal(saga, METHOD, name.as_str());
    let mut headers = HeaderMap::new();
    if let Some(place) = span::trace_parent(&span, saga) {
        metadata::trace_parent(&mut headers, &place);
    }
    let call = Unary {
        path: PathAndQuery::from_static(PATH),
        headers,
        message: request(saga, signal).encode_to_vec().into(),
        deadline: Instant::now() + timeout,
        // Telling of a decision that is durable does no harm, however late.
        clearance: None,
    };
    let sent = pool.call(&call).instrument(span.clone()).await;
    span::ended(&span, sent.as_ref().err().map(|failed| failed.evidence));
    let reply = sent.map_err(|failed| format!("{} {}", failed.evidence.code().name(), failed.message))?;
    OnRollbackResponse::decode(reply.message)
        .map(|_| ())
        .map_err(|error| format!("unreadable answer: {error}"))
}

fn request(saga: &Saga, signal: &Signal) -> OnRollbackRequest {
    let branches = signal.steps.iter().filter_map(|index| {
        let (step, branch) = (saga.definition.steps.get(*index)?, saga.branches.get(*index)?);
        Some(on_rollback_request::Branch {
            step: step.name.as_str().to_owned(),
            idempotency_key: IdempotencyKey::new(&saga.id, &step.name, Phase::Action).as_str().to_owned(),
            state: branch.state.as_str().to_owned(),
        })
    });
    OnRollbackRequest {
        saga_id: saga.id.as_str().to_owned(),
        definition: saga.definition.reference.to_string(),
        cause: saga.cause.as_ref().map(|cause| wire_failure::cause(&saga.definition.errors, cause)),
        branches: branches.collect(),
        clock: signal.clock.0,
        epoch: saga.epoch.0,
    }
}
