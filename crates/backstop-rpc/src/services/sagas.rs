//! `backstop.v1.SagaService`.

use super::{PERSON_BYTES_MAX, REASON_BYTES_MAX, from_head, person_text, reach, saga_id};
use crate::convert::saga::{wire_event, wire_head, wire_input, wire_saga};
use crate::convert::{json, time};
use crate::status_reply::{engine_error, invalid};
use crate::{filter, page, trace};
use backstop_core::{
    DefinitionName, ErrorTable, Fault, Input, Revision, SagaId, Seq, StepName, bounded_text, transcript,
};
use backstop_engine::ports::store::SagaCursor;
use backstop_engine::{Coordinator, EngineError, Settings, StartSaga};
use backstop_proto::v1;
use backstop_proto::v1::saga_service_server::SagaService;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::{Request, Response, Status};
use tracing::Span;

/// The service.
#[derive(Clone)]
pub struct Sagas {
    coordinator: Coordinator,
}

impl Sagas {
    /// The service over a coordinator.
    #[must_use]
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }

    async fn start(
        &self,
        request: v1::StartSagaRequest,
        trace_parent: String,
    ) -> Result<v1::StartSagaResponse, Status> {
        let (command, wait) = start_command(self.coordinator.settings(), request, trace_parent)
            .map_err(|faults| invalid(&faults))?;
        let asked_for = command.id.clone();
        // The caller may give up in the middle: a saga that is written has a runner of its own by then.
        let started = match (self.coordinator.start_saga(command).await, asked_for) {
            (Ok(started), _) => started,
            // The very request has started it before; only its head row can be told of it.
            (Err(error @ (EngineError::Retired { .. } | EngineError::Quarantined { .. })), Some(id)) => {
                let saga = from_head(&self.coordinator, &id, &error).await?;
                return Ok(v1::StartSagaResponse { saga: Some(saga), created: false });
            }
            (Err(error), _) => return Err(engine_error(&error)),
        };
        let (created, id) = (started.created, started.saga.id.clone());
        let saga = match wait {
            Some(at_most) => match self.coordinator.wait(started, at_most).await {
                Ok(saga) => saga,
                Err(error) => {
                    let saga = Some(from_head(&self.coordinator, &id, &error).await?);
                    return Ok(v1::StartSagaResponse { saga, created });
                }
            },
            None => started.saga,
        };
        Ok(v1::StartSagaResponse { saga: Some(wire_saga(&saga)), created })
    }
}

/// A request as a command, or every fault of its shape.
pub(crate) fn start_command(
    settings: &Settings,
    mut request: v1::StartSagaRequest,
    trace_parent: String,
) -> Result<(StartSaga, Option<Duration>), Vec<Fault>> {
    let mut faults = Vec::new();
    let (saga_id, wait) = (std::mem::take(&mut request.saga_id), request.wait.take());
    let id = (!saga_id.is_empty()).then(|| SagaId::parse(&saga_id));
    let id = id.transpose().map_err(|error| faults.push(Fault::new("saga_id", error.to_string())));
    let definition = DefinitionName::parse(&request.definition)
        .map_err(|error| faults.push(Fault::new("definition", error.to_string())));
    let fingerprint = fingerprint(&request);
    let input =
        request.input.as_ref().map_or_else(|| "{}".to_owned(), |i| json::text("input", i, &mut faults));
    if input.len() > settings.input_bytes_max {
        let limit = settings.input_bytes_max;
        faults.push(Fault::new("input", format!("has {} bytes as JSON; the limit is {limit}", input.len())));
    }
    let payloads = payloads(request.payloads, settings.input_bytes_max, &mut faults);
    check_labels(&request.labels, settings.labels_max, settings.label_bytes_max, &mut faults);
    let wait = time::duration("wait", wait.as_ref(), &mut faults);
    if wait.is_some_and(|wait| wait > settings.wait_max) {
        faults.push(Fault::new("wait", format!("must not be longer than {} s", settings.wait_max.as_secs())));
    }
    match (id, definition) {
        (Ok(id), Ok(definition)) if faults.is_empty() => {
            let revision = (request.revision != 0).then_some(Revision(request.revision));
            let input = Bytes::from(input);
            let labels = request.labels;
            let trace_parent = Some(trace_parent);
            let command =
                StartSaga { id, definition, revision, input, payloads, labels, fingerprint, trace_parent };
            Ok((command, wait))
        }
        _ => Err(faults),
    }
}

/// Bytes of a step's name that a path shows, if it is no name.
const STEP_SHOWN_BYTES_MAX: usize = 64;

/// SHA-256 of a request whose id and wait have been taken out: they do not make two requests different. Maps
/// are ordered in the generated types, so the encoding is canonical.
fn fingerprint(request: &v1::StartSagaRequest) -> [u8; 32] {
    Sha256::digest(request.encode_to_vec()).into()
}

fn payloads(
    wire: BTreeMap<String, Bytes>,
    bytes_max: usize,
    faults: &mut Vec<Fault>,
) -> BTreeMap<StepName, Bytes> {
    let mut payloads = BTreeMap::new();
    for (step, payload) in wire {
        let path = format!("payloads.{}", bounded_text(&step, STEP_SHOWN_BYTES_MAX));
        if payload.len() > bytes_max {
            faults.push(Fault::new(&path, format!("has {} bytes; the limit is {bytes_max}", payload.len())));
        }
        match StepName::parse(&step) {
            Ok(step) => {
                payloads.insert(step, payload);
            }
            Err(error) => faults.push(Fault::new(path, error.to_string())),
        }
    }
    payloads
}

fn check_labels(
    labels: &BTreeMap<String, String>,
    labels_max: usize,
    bytes_max: usize,
    faults: &mut Vec<Fault>,
) {
    if labels.len() > labels_max {
        faults.push(Fault::new("labels", format!("has {} labels; the limit is {labels_max}", labels.len())));
    }
    for (key, value) in labels {
        if key.is_empty()
            || key.len() > bytes_max
            || value.len() > bytes_max
            || value.contains('\0')
            || key.contains('\0')
        {
            let path = format!("labels.{}", bounded_text(key, bytes_max));
            let rule = format!("key and value have at most {bytes_max} bytes, the key at least one, no NUL");
            faults.push(Fault::new(path, rule));
        }
    }
}

#[tonic::async_trait]
impl SagaService for Sagas {
    async fn start_saga(
        &self,
        request: Request<v1::StartSagaRequest>,
    ) -> Result<Response<v1::StartSagaResponse>, Status> {
        let trace_parent = trace::trace_parent(request.metadata());
        let request = request.into_inner();
        let span = Span::current();
        // Only what is a name: anything else is of any length, and may be a payload in the wrong field.
        if let Ok(id) = SagaId::parse(&request.saga_id) {
            span.record("backstop.saga.id", id.as_str());
        }
        if let Ok(definition) = DefinitionName::parse(&request.definition) {
            span.record("backstop.definition", definition.as_str());
        }
        self.start(request, trace_parent).await.map(Response::new)
    }

    async fn get_saga(
        &self,
        request: Request<v1::GetSagaRequest>,
    ) -> Result<Response<v1::GetSagaResponse>, Status> {
        let request = request.into_inner();
        let id = saga_id(&request.saga_id)?;
        let view = v1::SagaView::try_from(request.view).map_err(|_| {
            invalid(&[Fault::new("view", format!("{} is no value of this enum", request.view))])
        })?;
        let found = match self.coordinator.get_saga(&id).await {
            Ok(found) => found,
            Err(error) => {
                let saga = from_head(&self.coordinator, &id, &error).await?;
                return Ok(Response::new(v1::GetSagaResponse { saga: Some(saga) }));
            }
        };
        let saga = v1::Saga {
            owner: found.owner.unwrap_or_default(),
            wake_time: found.wake_at.map(time::wire_timestamp),
            transcript: transcript::transcript(&found.events).lines().map(str::to_owned).collect(),
            input: (view == v1::SagaView::Full).then(|| wire_input(&found.saga)),
            ..wire_saga(&found.saga)
        };
        Ok(Response::new(v1::GetSagaResponse { saga: Some(saga) }))
    }

    async fn list_sagas(
        &self,
        request: Request<v1::ListSagasRequest>,
    ) -> Result<Response<v1::ListSagasResponse>, Status> {
        let request = request.into_inner();
        let mut faults = Vec::new();
        let size = page::size(request.page_size).map_err(|fault| faults.push(fault));
        let narrowed = filter::parse(&request.filter).map_err(|fault| faults.push(fault));
        let cursor =
            page::saga_cursor(&request.page_token, &request.filter).map_err(|fault| faults.push(fault));
        let (Ok(size), Ok(narrowed), Ok(cursor)) = (size, narrowed, cursor) else {
            return Err(invalid(&faults));
        };
        // One more than the page shows whether there is another page.
        let heads = self.coordinator.list_sagas(&narrowed, cursor.as_ref(), size + 1).await;
        let mut heads = heads.map_err(|error| engine_error(&error))?;
        let more = heads.len() > size;
        heads.truncate(size);
        let next_page_token = match heads.last() {
            Some(last) if more => {
                let cursor = SagaCursor { created_at: last.created_at, saga: last.saga.clone() };
                page::saga_token(&cursor, &request.filter)
            }
            Some(_) | None => String::new(),
        };
        let sagas = heads.iter().map(wire_head).collect();
        Ok(Response::new(v1::ListSagasResponse { sagas, next_page_token }))
    }

    type WatchSagaStream = BoxStream<'static, Result<v1::WatchSagaResponse, Status>>;

    async fn watch_saga(
        &self,
        request: Request<v1::WatchSagaRequest>,
    ) -> Result<Response<Self::WatchSagaStream>, Status> {
        let request = request.into_inner();
        let id = saga_id(&request.saga_id)?;
        // NOT_FOUND now, not as the stream's first word.
        let found = self.coordinator.get_saga(&id).await.map_err(|error| engine_error(&error))?;
        let errors = std::sync::Arc::clone(&found.saga.definition.errors);
        let batches =
            stream::unfold((self.coordinator.clone(), id, Seq(request.after_seq), false), next_batch);
        let events = batches.flat_map(move |batch| {
            let items: Vec<_> = match batch {
                Ok(events) => events.iter().map(|event| Ok(watched(event, &errors))).collect(),
                Err(status) => vec![Err(status)],
            };
            stream::iter(items)
        });
        Ok(Response::new(events.boxed()))
    }

    async fn cancel_saga(
        &self,
        request: Request<v1::CancelSagaRequest>,
    ) -> Result<Response<v1::CancelSagaResponse>, Status> {
        let reach = reach(request.metadata());
        let request = request.into_inner();
        let id = saga_id(&request.saga_id)?;
        let mut faults = Vec::new();
        person_text("by", &request.by, PERSON_BYTES_MAX, false, &mut faults);
        person_text("reason", &request.reason, REASON_BYTES_MAX, false, &mut faults);
        if !faults.is_empty() {
            return Err(invalid(&faults));
        }
        let by = if request.by.is_empty() { "client".to_owned() } else { request.by };
        let input = Input::Cancel { by, reason: request.reason };
        let saga = self.coordinator.command(&id, input, reach).await.map_err(|error| engine_error(&error))?;
        Ok(Response::new(v1::CancelSagaResponse { saga: Some(wire_saga(&saga)) }))
    }
}

type Watching = (Coordinator, SagaId, Seq, bool);
type Batch = Result<Vec<backstop_core::Event>, Status>;

/// The next events for a watcher, and where to go on; `None` ends the stream.
async fn next_batch((coordinator, id, after, ended): Watching) -> Option<(Batch, Watching)> {
    if ended {
        return None;
    }
    match coordinator.next_events(&id, after).await {
        Ok(events) => {
            let last = events.last()?.seq;
            Some((Ok(events), (coordinator, id, last, false)))
        }
        Err(error) => Some((Err(engine_error(&error)), (coordinator, id, after, true))),
    }
}

fn watched(event: &backstop_core::Event, errors: &ErrorTable) -> v1::WatchSagaResponse {
    v1::WatchSagaResponse { event: Some(wire_event(event, errors)) }
}
