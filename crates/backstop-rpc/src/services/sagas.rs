//! `backstop.v1.SagaService`.
//!
//! # Invariants
//! * A StartSaga that may have started its saga and cannot answer it tells the saga's id, so that the caller can ask again for
//!   that very one (`a_start_that_may_have_happened_tells_the_id_that_it_would_have`).
//! * A watch that ends with OK has told all of a saga that is over (`tests/server/watching.rs`).

use super::{PERSON_BYTES_MAX, REASON_BYTES_MAX, from_head, not_done, person_text, reach, saga_id};
use crate::convert::saga::{wire_event, wire_head, wire_input, wire_saga};
use crate::convert::{json, time};
use crate::guard::Deadline;
use crate::status_reply::{deadline_exceeded, engine_error, invalid, saga_error};
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
        let (mut command, wait) = start_command(self.coordinator.settings(), request, trace_parent)
            .map_err(|faults| invalid(&faults))?;
        let asked_for = command.id.clone();
        // Before the saga is started: whatever comes of it, the caller can be told.
        let spare = match &asked_for {
            Some(_) => None,
            None => Some(self.coordinator.fresh_saga_id().map_err(|error| engine_error(&error))?),
        };
        command.spare_id = spare.clone();
        // The caller may give up in the middle: a saga that is written has a runner of its own by then.
        let started = match (self.coordinator.start_saga(command).await, asked_for) {
            (Ok(started), _) => started,
            // The very request has started it before; only its head row can be told of it.
            (Err(error @ (EngineError::Retired { .. } | EngineError::Quarantined { .. })), Some(id)) => {
                let saga = from_head(&self.coordinator, &id, &error).await?;
                return Ok(v1::StartSagaResponse { saga: Some(saga), created: false });
            }
            (Err(error), asked_for) => return Err(not_started(&error, asked_for.as_ref(), spare.as_ref())),
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

/// The status of a saga that could not be answered. An id that was made here is told where the saga may be there under it:
/// elsewhere it is nobody's.
fn not_started(error: &EngineError, asked_for: Option<&SagaId>, made: Option<&SagaId>) -> Status {
    let may_be_there = matches!(error, EngineError::Store(_) | EngineError::NotServing);
    match asked_for.or(made.filter(|_| may_be_there)) {
        Some(id) => saga_error(error, id, None),
        None => engine_error(error),
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
            let command = StartSaga {
                id,
                spare_id: None,
                definition,
                revision,
                input,
                payloads,
                labels,
                fingerprint,
                trace_parent,
            };
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
        let until = request.extensions().get::<Deadline>().copied();
        let request = request.into_inner();
        let id = saga_id(&request.saga_id)?;
        // NOT_FOUND now, not as the stream's first word.
        let found = self.coordinator.get_saga(&id).await;
        let found = found.map_err(|error| saga_error(&error, &id, None))?;
        let errors = std::sync::Arc::clone(&found.saga.definition.errors);
        let after = Seq(request.after_seq);
        let watching =
            Watching { coordinator: self.coordinator.clone(), id, after, until, has_failed: false };
        // What comes later is no part of the request's own task any more, but of its trace.
        let place = trace::here();
        let batches =
            stream::unfold(watching, move |watching| trace::placed_at(place.clone(), next_batch(watching)));
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
        match self.coordinator.command(&id, input, reach).await {
            Ok(saga) => Ok(Response::new(v1::CancelSagaResponse { saga: Some(wire_saga(&saga)) })),
            Err(error) => Err(not_done(&self.coordinator, &id, &error).await),
        }
    }
}

/// Where a watcher is.
struct Watching {
    coordinator: Coordinator,
    id: SagaId,
    after: Seq,
    until: Option<Deadline>,
    has_failed: bool,
}

type Batch = Result<Vec<backstop_core::Event>, Status>;

/// The next events for a watcher, and where to go on; `None` ends the stream: the saga is over.
async fn next_batch(mut watching: Watching) -> Option<(Batch, Watching)> {
    if watching.has_failed {
        return None;
    }
    let next = watching.coordinator.next_events(&watching.id, watching.after);
    let events = match watching.until {
        None => Ok(next.await),
        Some(Deadline(until)) => tokio::time::timeout_at(until, next).await,
    };
    let batch = match events {
        Ok(Ok(events)) => {
            watching.after = events.last()?.seq;
            Ok(events)
        }
        Ok(Err(error)) => Err(saga_error(&error, &watching.id, None)),
        Err(_) => Err(deadline_exceeded()),
    };
    watching.has_failed = batch.is_err();
    Some((batch, watching))
}

fn watched(event: &backstop_core::Event, errors: &ErrorTable) -> v1::WatchSagaResponse {
    v1::WatchSagaResponse { event: Some(wire_event(event, errors)) }
}
