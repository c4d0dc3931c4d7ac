//! One attempt of one call, from the saga as it stands to what is known of its end.

use super::Registry;
use super::evidence::Failed;
use super::metadata;
use super::plan::{Plan, PlannedCall, Source};
use super::pool::Unary;
use crate::convert::time::DURATION_MAX;
use crate::traces::place::{self, Attempt};
use async_trait::async_trait;
use backstop_core::{Call, Evidence, NotSent, Outcome};
use backstop_engine::ports::participants::{CallReply, CallRequest, Calls};
use bytes::Bytes;
use http::HeaderValue;
use opentelemetry::trace::SpanContext;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use std::sync::Arc;
use tokio::time::Instant;

/// The calls of one revision.
#[derive(Debug)]
pub(super) struct RevisionCalls {
    pub(super) registry: Arc<Registry>,
    pub(super) plan: Plan,
    /// How its calls name it.
    pub(super) definition: HeaderValue,
}

#[async_trait]
impl Calls for RevisionCalls {
    async fn call(&self, request: CallRequest) -> CallReply {
        // What is stored may be longer than what is registered today.
        let deadline = Instant::now() + request.timeout.min(DURATION_MAX);
        let Some(planned) = self.plan.call(request.call.step, request.call.phase) else {
            return Failed::new(Evidence::NotRendered, "the revision has no such call").reply();
        };
        self.send(&request, planned, deadline).await.unwrap_or_else(Failed::reply)
    }
}

impl RevisionCalls {
    async fn send(
        &self,
        request: &CallRequest,
        planned: &PlannedCall,
        deadline: Instant,
    ) -> Result<CallReply, Failed> {
        let message =
            self.request(request, planned).map_err(|text| Failed::new(Evidence::NotRendered, text))?;
        let pool = self.registry.pool(&planned.participant).ok_or_else(|| {
            let name = &planned.participant;
            Failed::not_sent(NotSent::NoConnection, format!("participant \"{name}\" is not known here"))
        })?;
        let mut headers =
            metadata::of_call(&self.definition, &planned.metadata, &request.saga, &request.call);
        if let Some(place) = place_of(request) {
            metadata::trace_parent(&mut headers, &place::written(&place));
        }
        let clearance = Some(request.clearance.clone());
        let unary = Unary { path: planned.path.clone(), headers, message, deadline, clearance };
        let reply = pool.call(&unary).await?;
        let peer_clock = metadata::peer_clock(&reply.headers, &reply.trailers);
        if !decodes(&reply.message, &planned.response) {
            let text = format!("the reply does not decode as {}", planned.response.full_name());
            return Err(Failed { peer_clock, ..Failed::new(Evidence::BadAnswer, text) });
        }
        Ok(CallReply { outcome: Outcome::Done(reply.message), peer_clock })
    }

    fn request(&self, request: &CallRequest, planned: &PlannedCall) -> Result<Bytes, String> {
        let limit = self.registry.settings().request_bytes_max;
        match &planned.request {
            Source::Template(template) => template.render(&request.saga, request.call.step, limit),
            Source::Payload => {
                let step = request.saga.definition.steps.get(request.call.step);
                let payload = step.and_then(|step| request.saga.started.payloads.get(&step.name));
                let payload = payload.ok_or("the saga was started without the payload of this step")?;
                if payload.len() > limit {
                    return Err(format!("the payload has {} bytes; the limit is {limit}", payload.len()));
                }
                Ok(payload.clone())
            }
        }
    }
}

/// Where the attempt stands in the saga's trace: its span is made when its end is durable.
fn place_of(request: &CallRequest) -> Option<SpanContext> {
    let Call { step, phase, attempt: number, .. } = request.call;
    let step = request.saga.definition.steps.get(step)?.name.as_str();
    place::of_attempt(&request.saga, Attempt { step, phase, number })
}

/// True if the bytes are a message of that type.
fn decodes(message: &Bytes, ty: &MessageDescriptor) -> bool {
    let is_empty = message.is_empty() && ty.full_name() == "google.protobuf.Empty";
    is_empty || DynamicMessage::decode(ty.clone(), message.clone()).is_ok()
}
