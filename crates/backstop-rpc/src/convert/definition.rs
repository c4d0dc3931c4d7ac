//! Definitions and participants.

use super::{json, time};
use crate::participants::Address;
use backstop_core::{
    CallSpec, CompensationOrder, DefinitionSpec, Fault, InDoubt, OnFailure, ParticipantName, RetryPolicy,
    StepKind, StepSpec, graph::STEPS_MAX,
};
use backstop_engine::ports::participants::ParticipantLoad;
use backstop_engine::ports::store::{Participant, StoredRevision};
use backstop_proto::v1;
use std::time::Duration;

/// Most endpoints of a participant.
pub const ENDPOINTS_MAX: usize = 64;
/// Default and shortest sensible keepalive: gRPC servers close connections that ping more often.
pub const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(300);

/// A definition from the wire, with every fault of its shape.
pub(crate) fn spec(wire: &v1::Definition, faults: &mut Vec<Fault>) -> DefinitionSpec {
    // What is too many is not looked at one by one: a mebibyte holds a quarter of a million empty steps.
    if wire.steps.len() > STEPS_MAX {
        faults.push(too_many("steps", wire.steps.len()));
    }
    let steps = wire.steps.iter().take(STEPS_MAX).enumerate();
    DefinitionSpec {
        name: wire.name.clone(),
        description: wire.description.clone(),
        error_domain: wire.error_domain.clone(),
        deadline: time::duration("deadline", wire.deadline.as_ref(), faults),
        compensation_order: compensation_order(wire.compensation_order, faults),
        on_failure: on_failure(wire.on_failure, faults),
        steps: steps.map(|(index, step)| step_spec(index, step, faults)).collect(),
    }
}

fn too_many(path: impl Into<String>, count: usize) -> Fault {
    Fault::new(path, format!("has {count} entries; the limit is {STEPS_MAX}"))
}

fn step_spec(index: usize, wire: &v1::Step, faults: &mut Vec<Fault>) -> StepSpec {
    let at = |field: &str| format!("steps[{index}].{field}");
    let forward = RetryPolicy::default();
    let backward = RetryPolicy { attempts_max: RetryPolicy::COMPENSATION_ATTEMPTS_DEFAULT, ..forward };
    if wire.action.is_none() {
        faults.push(Fault::new(at("action"), "a step must name its action"));
    }
    if wire.depends_on.len() > STEPS_MAX {
        faults.push(too_many(at("depends_on"), wire.depends_on.len()));
    }
    StepSpec {
        name: wire.name.clone(),
        kind: kind(&at("kind"), wire.kind, faults),
        depends_on: wire.depends_on.iter().take(STEPS_MAX).cloned().collect(),
        action: wire
            .action
            .as_ref()
            .map(|call| call_spec(&at("action"), call, forward, faults))
            .unwrap_or_default(),
        compensation: wire
            .compensation
            .as_ref()
            .map(|call| call_spec(&at("compensation"), call, backward, faults)),
        in_doubt: in_doubt(&at("in_doubt"), wire.in_doubt, faults),
        query: wire.query.as_ref().map(|call| call_spec(&at("query"), call, forward, faults)),
    }
}

fn call_spec(path: &str, wire: &v1::Call, defaults: RetryPolicy, faults: &mut Vec<Fault>) -> CallSpec {
    let timeout = time::duration(&format!("{path}.timeout"), wire.timeout.as_ref(), faults);
    let request = wire.request.as_ref();
    CallSpec {
        participant: wire.participant.clone(),
        method: wire.method.trim_start_matches('/').to_owned(),
        request: request.map(|r| json::text(&format!("{path}.request"), r, faults)).unwrap_or_default(),
        timeout: timeout.unwrap_or(CallSpec::TIMEOUT_DEFAULT),
        retry: wire.retry.as_ref().map_or(defaults, |retry| retry_policy(path, retry, defaults, faults)),
    }
}

fn retry_policy(
    path: &str,
    wire: &v1::RetryPolicy,
    defaults: RetryPolicy,
    faults: &mut Vec<Fault>,
) -> RetryPolicy {
    let mut wait = |field: &str, value: Option<&prost_types::Duration>| {
        time::duration(&format!("{path}.retry.{field}"), value, faults)
    };
    let initial = wait("initial_backoff", wire.initial_backoff.as_ref()).unwrap_or(defaults.initial);
    // A ceiling that is not set never stands below the first wait that is.
    let max = wait("max_backoff", wire.max_backoff.as_ref()).unwrap_or(defaults.max.max(initial));
    let attempts_max = if wire.attempts_max == 0 { defaults.attempts_max } else { wire.attempts_max };
    let give_up_after = wait("give_up_after", wire.give_up_after.as_ref());
    RetryPolicy { initial, max, attempts_max, give_up_after }
}

fn unknown_value(path: &str, number: i32, faults: &mut Vec<Fault>) {
    faults.push(Fault::new(path, format!("{number} is no value of this enum")));
}

fn kind(path: &str, wire: i32, faults: &mut Vec<Fault>) -> StepKind {
    match v1::StepKind::try_from(wire) {
        Ok(v1::StepKind::Unspecified | v1::StepKind::Compensatable) => StepKind::Compensatable,
        Ok(v1::StepKind::ReadOnly) => StepKind::ReadOnly,
        Ok(v1::StepKind::Pivot) => StepKind::Pivot,
        Ok(v1::StepKind::Retriable) => StepKind::Retriable,
        Err(_) => {
            unknown_value(path, wire, faults);
            StepKind::default()
        }
    }
}

fn in_doubt(path: &str, wire: i32, faults: &mut Vec<Fault>) -> Option<InDoubt> {
    match v1::InDoubt::try_from(wire) {
        Ok(v1::InDoubt::Unspecified) => None,
        Ok(v1::InDoubt::Resend) => Some(InDoubt::Resend),
        Ok(v1::InDoubt::Query) => Some(InDoubt::Query),
        Ok(v1::InDoubt::Compensate) => Some(InDoubt::Compensate),
        Err(_) => {
            unknown_value(path, wire, faults);
            None
        }
    }
}

fn compensation_order(wire: i32, faults: &mut Vec<Fault>) -> CompensationOrder {
    match v1::CompensationOrder::try_from(wire) {
        Ok(v1::CompensationOrder::Unspecified | v1::CompensationOrder::ReverseDag) => {
            CompensationOrder::ReverseDag
        }
        Ok(v1::CompensationOrder::Lifo) => CompensationOrder::Lifo,
        Ok(v1::CompensationOrder::Concurrent) => CompensationOrder::Concurrent,
        Err(_) => {
            unknown_value("compensation_order", wire, faults);
            CompensationOrder::default()
        }
    }
}

fn on_failure(wire: i32, faults: &mut Vec<Fault>) -> OnFailure {
    match v1::OnFailure::try_from(wire) {
        Ok(v1::OnFailure::Unspecified | v1::OnFailure::Drain) => OnFailure::Drain,
        Ok(v1::OnFailure::Cancel) => OnFailure::Cancel,
        Err(_) => {
            unknown_value("on_failure", wire, faults);
            OnFailure::default()
        }
    }
}

/// A stored revision for the wire.
pub(crate) fn wire_revision(stored: &StoredRevision) -> v1::Definition {
    v1::Definition {
        revision: stored.reference.revision.0,
        create_time: Some(time::wire_timestamp(stored.created_at)),
        ..wire_spec(&stored.spec)
    }
}

/// A definition for the wire, with every default written out: the same meaning gives the same bytes.
pub(crate) fn wire_spec(spec: &DefinitionSpec) -> v1::Definition {
    v1::Definition {
        name: spec.name.clone(),
        revision: 0,
        description: spec.description.clone(),
        error_domain: spec.error_domain.clone(),
        deadline: spec.deadline.map(time::wire_duration),
        compensation_order: match spec.compensation_order {
            CompensationOrder::ReverseDag => v1::CompensationOrder::ReverseDag,
            CompensationOrder::Lifo => v1::CompensationOrder::Lifo,
            CompensationOrder::Concurrent => v1::CompensationOrder::Concurrent,
        }
        .into(),
        on_failure: match spec.on_failure {
            OnFailure::Drain => v1::OnFailure::Drain,
            OnFailure::Cancel => v1::OnFailure::Cancel,
        }
        .into(),
        steps: spec.steps.iter().map(wire_step).collect(),
        create_time: None,
    }
}

fn wire_step(step: &StepSpec) -> v1::Step {
    v1::Step {
        name: step.name.clone(),
        kind: wire_kind(step.kind).into(),
        depends_on: step.depends_on.clone(),
        action: Some(wire_call(&step.action)),
        compensation: step.compensation.as_ref().map(wire_call),
        in_doubt: match step.in_doubt {
            None => v1::InDoubt::Unspecified,
            Some(InDoubt::Resend) => v1::InDoubt::Resend,
            Some(InDoubt::Query) => v1::InDoubt::Query,
            Some(InDoubt::Compensate) => v1::InDoubt::Compensate,
        }
        .into(),
        query: step.query.as_ref().map(wire_call),
    }
}

pub(crate) fn wire_kind(kind: StepKind) -> v1::StepKind {
    match kind {
        StepKind::Compensatable => v1::StepKind::Compensatable,
        StepKind::ReadOnly => v1::StepKind::ReadOnly,
        StepKind::Pivot => v1::StepKind::Pivot,
        StepKind::Retriable => v1::StepKind::Retriable,
    }
}

fn wire_call(call: &CallSpec) -> v1::Call {
    v1::Call {
        participant: call.participant.clone(),
        method: call.method.clone(),
        request: (!call.request.is_empty()).then(|| json::structure(call.request.as_bytes())),
        timeout: Some(time::wire_duration(call.timeout)),
        retry: Some(v1::RetryPolicy {
            initial_backoff: Some(time::wire_duration(call.retry.initial)),
            max_backoff: Some(time::wire_duration(call.retry.max)),
            attempts_max: call.retry.attempts_max,
            give_up_after: call.retry.give_up_after.map(time::wire_duration),
        }),
    }
}

/// A participant from the wire.
pub(crate) fn participant(wire: &v1::Participant) -> Result<Participant, Vec<Fault>> {
    let mut faults = Vec::new();
    let name = ParticipantName::parse(&wire.name)
        .map_err(|error| faults.push(Fault::new("participant.name", format!("\"{}\": {error}", wire.name))));
    if wire.endpoints.is_empty() {
        faults.push(Fault::new(
            "participant.endpoints",
            "a participant listens somewhere: at least one endpoint",
        ));
    }
    if wire.endpoints.len() > ENDPOINTS_MAX {
        faults.push(Fault::new("participant.endpoints", format!("at most {ENDPOINTS_MAX} endpoints")));
    }
    for (index, endpoint) in wire.endpoints.iter().take(ENDPOINTS_MAX).enumerate() {
        // The same check as the one by which it is called later.
        if let Err(reason) = Address::parse(endpoint) {
            faults.push(Fault::new(format!("participant.endpoints[{index}]"), reason));
        }
    }
    let keepalive =
        time::duration("participant.keepalive_interval", wire.keepalive_interval.as_ref(), &mut faults);
    if keepalive.is_some_and(|interval| interval < Duration::from_secs(1)) {
        faults.push(Fault::new("participant.keepalive_interval", "must be at least 1s"));
    }
    match name {
        Ok(name) if faults.is_empty() => Ok(Participant {
            name,
            endpoints: wire.endpoints.clone(),
            deduplicates_by_key: wire.deduplicates_by_key,
            rollback_listener: wire.rollback_listener,
            in_flight_max: wire.in_flight_max,
            keepalive: keepalive.unwrap_or(KEEPALIVE_DEFAULT),
            updated_at: backstop_core::Timestamp::default(),
        }),
        _ => Err(faults),
    }
}

/// A participant for the wire.
pub(crate) fn wire_participant(participant: &Participant, load: &ParticipantLoad) -> v1::Participant {
    let breaker = if load.breaker_open { v1::BreakerState::Open } else { v1::BreakerState::Closed };
    v1::Participant {
        name: participant.name.to_string(),
        endpoints: participant.endpoints.clone(),
        deduplicates_by_key: participant.deduplicates_by_key,
        rollback_listener: participant.rollback_listener,
        in_flight_max: participant.in_flight_max,
        keepalive_interval: Some(time::wire_duration(participant.keepalive)),
        update_time: Some(time::wire_timestamp(participant.updated_at)),
        breaker_state: breaker.into(),
        in_flight: u32::try_from(load.in_flight).unwrap_or(u32::MAX),
    }
}
