//! Events become spans: one for each attempt that has ended, and one for the append that made them durable.
//!
//! The one module that knows the names that OpenTelemetry gives to the attributes of a call: `rpc.status_code` was
//! renamed only lately.
//!
//! # Invariants
//! * No word of a participant and nothing of a payload is in a span: what failed is said in words of ours
//!   (`peer_15_no_payload_is_in_logs_traces_or_metrics_…`).

use super::place::{self, Attempt};
use crate::convert::saga::event_name;
use backstop_core::{Effect, Event, EventKind, Failure, Phase, PlannedCall, Saga, Step, StepName, Timestamp};
use backstop_engine::ports::traces::Chapter;
use opentelemetry::trace::{Event as SpanEvent, Link, SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("backstop").with_version(env!("CARGO_PKG_VERSION")).build()
});

/// The spans of a part of a saga's story; none if the saga has no trace.
pub(super) fn of(chapter: &Chapter<'_>) -> Vec<SpanData> {
    let Some(parent) = place::of_saga_now(chapter.saga) else { return Vec::new() };
    let mut spans = Vec::with_capacity(chapter.events.len() + 1);
    spans.extend(chapter.append.and_then(|append| of_append(chapter, &parent, append)));
    for event in chapter.events {
        let span = match (&event.kind, chapter.is_retold()) {
            // The caller's request was not sampled: the story needs the span that all others hang from.
            (EventKind::Started(_), true) if !is_sampled_from_the_start(chapter.saga) => {
                Some(of_start(chapter.saga, &parent, event))
            }
            _ => of_attempt(chapter, &parent, event),
        };
        spans.extend(span);
    }
    spans
}

fn is_sampled_from_the_start(saga: &Saga) -> bool {
    place::of_saga(saga).is_some_and(|parent| parent.is_sampled())
}

/// How one attempt ended, as its event says it.
struct Ended<'a> {
    step: &'a StepName,
    phase: Phase,
    number: u32,
    elapsed: Duration,
    failure: Option<&'a Failure>,
}

fn ended(kind: &EventKind) -> Option<Ended<'_>> {
    let (phase, step, number, elapsed, failure) = match kind {
        EventKind::ActionSucceeded { step, attempt, elapsed, .. } => {
            (Phase::Action, step, attempt, elapsed, None)
        }
        EventKind::ActionFailed { step, attempt, elapsed, failure, .. } => {
            (Phase::Action, step, attempt, elapsed, Some(failure))
        }
        EventKind::QueryAnswered { step, attempt, elapsed, .. } => {
            (Phase::Query, step, attempt, elapsed, None)
        }
        EventKind::QueryFailed { step, attempt, elapsed, failure, .. } => {
            (Phase::Query, step, attempt, elapsed, Some(failure))
        }
        EventKind::CompensationSucceeded { step, attempt, elapsed } => {
            (Phase::Compensation, step, attempt, elapsed, None)
        }
        EventKind::CompensationFailed { step, attempt, elapsed, failure, .. } => {
            (Phase::Compensation, step, attempt, elapsed, Some(failure))
        }
        EventKind::Started(_)
        | EventKind::Adopted { .. }
        | EventKind::Released
        | EventKind::RollbackDecided { .. }
        | EventKind::SignalReported { .. }
        | EventKind::InterventionOpened
        | EventKind::BranchRetried { .. }
        | EventKind::BranchResolved { .. }
        | EventKind::Succeeded
        | EventKind::RolledBack => return None,
    };
    let failure = failure.map(|failure| &**failure);
    Some(Ended { step, phase, number: *number, elapsed: *elapsed, failure })
}

fn planned(step: &Step, phase: Phase) -> Option<&PlannedCall> {
    match phase {
        Phase::Action => Some(&step.action),
        Phase::Query => step.query.as_ref(),
        Phase::Compensation => step.compensation.as_ref(),
    }
}

fn of_attempt(chapter: &Chapter<'_>, parent: &SpanContext, event: &Event) -> Option<SpanData> {
    let Ended { step, phase, number, elapsed, failure } = ended(&event.kind)?;
    let saga = chapter.saga;
    let call = planned(&saga.definition.steps[saga.definition.index_of(step)?], phase)?;
    let place = place::of_attempt(saga, Attempt { step: step.as_str(), phase, number })?;
    let mut attributes = about(saga);
    attributes.extend([
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", call.method.to_string()),
        KeyValue::new("rpc.status_code", failure.map_or("OK", |failure| failure.code().name())),
        KeyValue::new("server.address", call.participant.to_string()),
        KeyValue::new("backstop.step", step.to_string()),
        KeyValue::new("backstop.phase", phase.as_str()),
        KeyValue::new("backstop.attempt", i64::from(number)),
    ]);
    if chapter.is_retold() {
        attributes.push(KeyValue::new("backstop.retold", true));
    }
    let end = system_time(event.at);
    let mut span = SpanData {
        name: Cow::Owned(call.method.to_string()),
        span_kind: SpanKind::Client,
        start_time: end.checked_sub(elapsed).unwrap_or(end),
        end_time: end,
        attributes,
        ..empty(place, parent.span_id())
    };
    if let Some(failure) = failure {
        blame(&mut span, failure);
    }
    if phase == Phase::Compensation
        && let Some(cause) = place::of_cause(saga)
    {
        let why = vec![KeyValue::new("backstop.link", "cause")];
        span.links.links.push(Link::new(cause, why, 0));
    }
    Some(span)
}

/// The span fails, with the code and the tier, and an exception event for whoever looks for those.
fn blame(span: &mut SpanData, failure: &Failure) {
    let (fin_code, evidence) = (failure.fin_code.to_string(), failure.evidence.as_str());
    let sentence = format!("{fin_code} {} ({evidence})", failure.code().name());
    span.attributes.extend([
        KeyValue::new("error.type", evidence),
        KeyValue::new("backstop.fin_code", fin_code.clone()),
        KeyValue::new("backstop.tier", failure.tier.as_str()),
        KeyValue::new(
            "backstop.effect",
            match failure.effect {
                Effect::None => "none",
                Effect::InDoubt => "in_doubt",
            },
        ),
    ]);
    let exception =
        vec![KeyValue::new("exception.type", fin_code), KeyValue::new("exception.message", sentence.clone())];
    span.events.events.push(SpanEvent::new("exception", span.end_time, exception, 0));
    span.status = Status::error(sentence);
}

/// The append, with each event that it made durable as an event of the span.
fn of_append(
    chapter: &Chapter<'_>,
    parent: &SpanContext,
    (began, written): (Timestamp, Timestamp),
) -> Option<SpanData> {
    let first = chapter.events.first()?;
    let place = SpanContext::new(
        parent.trace_id(),
        fresh_span_id(),
        parent.trace_flags(),
        false,
        parent.trace_state().clone(),
    );
    let mut attributes = about(chapter.saga);
    attributes.extend([
        KeyValue::new("backstop.journal.first_seq", i64::try_from(first.seq.0).unwrap_or(i64::MAX)),
        KeyValue::new("backstop.journal.events", i64::try_from(chapter.events.len()).unwrap_or(i64::MAX)),
    ]);
    let mut events = SpanEvents::default();
    events.events.extend(chapter.events.iter().map(|event| {
        let step = ended(&event.kind).map(|ended| KeyValue::new("backstop.step", ended.step.to_string()));
        SpanEvent::new(event_name(&event.kind), system_time(event.at), step.into_iter().collect(), 0)
    }));
    Some(SpanData {
        name: Cow::Borrowed("journal append"),
        start_time: system_time(began),
        end_time: system_time(written.max(began)),
        attributes,
        events,
        ..empty(place, parent.span_id())
    })
}

/// Stands for the request that started the saga and was not sampled.
fn of_start(saga: &Saga, place: &SpanContext, event: &Event) -> SpanData {
    let at = system_time(event.at);
    let mut attributes = about(saga);
    attributes.push(KeyValue::new("backstop.retold", true));
    let place = SpanContext::new(
        place.trace_id(),
        place.span_id(),
        place.trace_flags(),
        false,
        place.trace_state().clone(),
    );
    SpanData {
        name: Cow::Borrowed("backstop.v1.SagaService/StartSaga"),
        span_kind: SpanKind::Server,
        start_time: at,
        end_time: at,
        attributes,
        ..empty(place, SpanId::INVALID)
    }
}

fn about(saga: &Saga) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(16);
    attributes.push(KeyValue::new("backstop.saga.id", saga.id.to_string()));
    attributes.push(KeyValue::new("backstop.definition", saga.definition.reference.to_string()));
    attributes
}

fn empty(place: SpanContext, parent: SpanId) -> SpanData {
    SpanData {
        span_context: place,
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(""),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: SCOPE.clone(),
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    let micros = u64::try_from(at.0).unwrap_or(0);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The random half of a UUIDv7.
fn fresh_span_id() -> SpanId {
    let (_, low) = uuid::Uuid::now_v7().as_u64_pair();
    SpanId::from_bytes(low.to_be_bytes())
}
