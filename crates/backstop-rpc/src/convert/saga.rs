//! Sagas, branches and events for the wire.

use super::definition::wire_kind;
use super::{json, time};
use crate::wire_failure::{cause as wire_cause, failure as wire_failure};
use backstop_core::{
    Branch, BranchState, Event, EventKind, IdempotencyKey, Next, Phase, Resolution, Saga, SagaState,
    SignalState, Step, transcript,
};
use backstop_engine::ports::store::Head;
use backstop_proto::v1;

/// A whole saga, without its transcript.
pub(crate) fn wire_saga(saga: &Saga) -> v1::Saga {
    // An order in which a branch stands after all that it depends on: by what is known of its end, then by
    // how much stands before it.
    let mut order: Vec<usize> = (0..saga.branches.len()).collect();
    order.sort_by_cached_key(|index| {
        let settled = saga.branches[*index].settled.map_or(u64::MAX, |clock| clock.0);
        (settled, saga.definition.steps[*index].ancestors.iter().count(), *index)
    });
    let branches = order
        .into_iter()
        .map(|index| wire_branch(saga, &saga.definition.steps[index], &saga.branches[index]));
    v1::Saga {
        id: saga.id.to_string(),
        definition: saga.definition.reference.name.to_string(),
        revision: saga.definition.reference.revision.0,
        state: wire_state(saga.state).into(),
        fin_code: fin_code(saga),
        cause: saga.cause.as_deref().map(|cause| wire_cause(&saga.definition.errors, cause)),
        branches: branches.collect(),
        signals: saga.signals.iter().map(|(name, state)| wire_signal(name.as_str(), *state)).collect(),
        transcript: Vec::new(),
        labels: saga.started.labels.clone(),
        create_time: Some(time::wire_timestamp(saga.started_at)),
        update_time: Some(time::wire_timestamp(saga.updated_at)),
        end_time: saga.ended_at.map(time::wire_timestamp),
        deadline: saga.started.deadline.map(time::wire_timestamp),
        owner: String::new(),
        epoch: saga.epoch.0,
        seq: saga.seq.0,
        clock: saga.clock.0,
        trace_id: saga.trace_id().unwrap_or_default().to_owned(),
        input: None,
        quarantine: String::new(),
        journal_retired: false,
        wake_time: None,
    }
}

/// What was sent as a saga's input.
pub(crate) fn wire_input(saga: &Saga) -> prost_types::Struct {
    json::structure(&saga.started.input)
}

/// A saga in a list.
pub(crate) fn wire_head(head: &Head) -> v1::Saga {
    v1::Saga {
        id: head.saga.to_string(),
        definition: head.definition.name.to_string(),
        revision: head.definition.revision.0,
        state: wire_state(head.state).into(),
        fin_code: head.fin_code.map(|code| code.to_string()).unwrap_or_default(),
        labels: head.labels.clone(),
        create_time: Some(time::wire_timestamp(head.created_at)),
        update_time: Some(time::wire_timestamp(head.updated_at)),
        end_time: head.ended_at.map(time::wire_timestamp),
        owner: head.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        epoch: head.epoch.0,
        seq: head.seq.0,
        quarantine: head.quarantine.clone().unwrap_or_default(),
        journal_retired: head.retired,
        wake_time: head.wake_at.map(time::wire_timestamp),
        ..v1::Saga::default()
    }
}

fn fin_code(saga: &Saga) -> String {
    let failure = saga.cause.as_ref().and_then(|cause| cause.failure.as_ref());
    failure.map(|failure| failure.fin_code.to_string()).unwrap_or_default()
}

fn wire_branch(saga: &Saga, step: &Step, branch: &Branch) -> v1::Branch {
    let awaited = branch.phase().map(|phase| branch.progress(phase));
    let plan = branch.phase().and_then(|phase| match phase {
        Phase::Action => Some(&step.action),
        Phase::Query => step.query.as_ref(),
        Phase::Compensation => step.compensation.as_ref(),
    });
    let gives_up_at = awaited.zip(plan).and_then(|(progress, plan)| progress.gives_up_at(&plan.retry));
    // A question has its turn when the action's has come to nothing; what has no time of its own takes that.
    let turn_at = awaited.and_then(|progress| progress.since.or(branch.action.since));
    let errors = &saga.definition.errors;
    v1::Branch {
        step: step.name.to_string(),
        kind: wire_kind(step.kind).into(),
        state: wire_branch_state(branch.state).into(),
        participant: step.action.participant.to_string(),
        depends_on: step.depends_on.iter().map(|d| saga.definition.steps[*d].name.to_string()).collect(),
        action_attempts: branch.action.attempts,
        compensation_attempts: branch.compensation.attempts,
        idempotency_key: IdempotencyKey::new(&saga.id, &step.name, Phase::Action).to_string(),
        in_doubt: branch.doubt,
        failure: branch.failure.as_deref().map(|failure| wire_failure(errors, failure)),
        compensation_failure: branch
            .compensation_failure
            .as_deref()
            .map(|failure| wire_failure(errors, failure)),
        next_attempt_time: awaited.and_then(|progress| progress.not_before).map(time::wire_timestamp),
        resolution: branch.resolution.map_or(v1::Resolution::Unspecified, wire_resolution).into(),
        settled_clock: branch.settled.map_or(0, |clock| clock.0),
        compensation_participant: step
            .compensation
            .as_ref()
            .map(|call| call.participant.to_string())
            .unwrap_or_default(),
        asking: branch.asking,
        turn_time: turn_at.map(time::wire_timestamp),
        give_up_time: gives_up_at.map(time::wire_timestamp),
    }
}

/// A state for the wire.
pub(crate) fn wire_state(state: SagaState) -> v1::SagaState {
    match state {
        SagaState::Running => v1::SagaState::Running,
        SagaState::Succeeded => v1::SagaState::Succeeded,
        SagaState::RollingBack => v1::SagaState::RollingBack,
        SagaState::RolledBack => v1::SagaState::RolledBack,
        SagaState::NeedsIntervention => v1::SagaState::NeedsIntervention,
    }
}

fn wire_branch_state(state: BranchState) -> v1::BranchState {
    match state {
        BranchState::Pending => v1::BranchState::Pending,
        BranchState::Running => v1::BranchState::Running,
        BranchState::Succeeded => v1::BranchState::Succeeded,
        BranchState::Failed => v1::BranchState::Failed,
        BranchState::InDoubt => v1::BranchState::InDoubt,
        BranchState::Compensating => v1::BranchState::Compensating,
        BranchState::Compensated => v1::BranchState::Compensated,
        BranchState::Stuck => v1::BranchState::Stuck,
        BranchState::Skipped => v1::BranchState::Skipped,
        BranchState::Resolved => v1::BranchState::Resolved,
    }
}

fn wire_resolution(resolution: Resolution) -> v1::Resolution {
    match resolution {
        Resolution::TookEffect => v1::Resolution::TookEffect,
        Resolution::NoEffect => v1::Resolution::NoEffect,
        Resolution::Undone => v1::Resolution::Undone,
    }
}

fn wire_signal(participant: &str, state: SignalState) -> v1::SignalReport {
    use v1::signal_report::State;
    let state = match state {
        SignalState::Pending => State::Pending,
        SignalState::Delivered => State::Delivered,
        SignalState::Failed => State::Failed,
    };
    v1::SignalReport { participant: participant.to_owned(), state: state.into() }
}

/// An event for the wire. `saga` is only asked for its error table.
pub(crate) fn wire_event(event: &Event, errors: &backstop_core::ErrorTable) -> v1::Event {
    use v1::event::Type;
    let mut wire = v1::Event {
        seq: event.seq.0,
        clock: event.clock.0,
        time: Some(time::wire_timestamp(event.at)),
        line: transcript::line(event, 0),
        ..v1::Event::default()
    };
    let kind = wire_type(&event.kind);
    match &event.kind {
        EventKind::ActionSucceeded { attempt, elapsed, .. }
        | EventKind::CompensationSucceeded { attempt, elapsed, .. } => ended(&mut wire, *attempt, *elapsed),
        EventKind::QueryAnswered { attempt, elapsed, next, .. } => {
            ended(&mut wire, *attempt, *elapsed);
            wire.next_attempt_time = next_time(*next);
        }
        EventKind::ActionFailed { attempt, elapsed, failure, next, .. }
        | EventKind::QueryFailed { attempt, elapsed, failure, next, .. }
        | EventKind::CompensationFailed { attempt, elapsed, failure, next, .. } => {
            ended(&mut wire, *attempt, *elapsed);
            wire.failure = Some(wire_failure(errors, failure));
            wire.next_attempt_time = next_time(*next);
        }
        EventKind::RollbackDecided { cause, .. } => {
            wire.failure = cause.failure.as_ref().map(|failure| wire_failure(errors, failure));
        }
        EventKind::Started(_)
        | EventKind::Adopted { .. }
        | EventKind::Released
        | EventKind::SignalReported { .. }
        | EventKind::InterventionOpened
        | EventKind::BranchRetried { .. }
        | EventKind::BranchResolved { .. }
        | EventKind::Succeeded
        | EventKind::RolledBack => {}
    }
    wire.r#type = kind.into();
    let subject = transcript::subject(&event.kind);
    if subject != "saga" && kind != Type::SignalReported {
        wire.step = subject.to_owned();
    }
    wire
}

/// `ROLLBACK_DECIDED` and the like: an event's kind as the API names it.
pub(crate) fn event_name(kind: &EventKind) -> &'static str {
    let name = wire_type(kind).as_str_name();
    name.strip_prefix("TYPE_").unwrap_or(name)
}

fn wire_type(kind: &EventKind) -> v1::event::Type {
    use v1::event::Type;
    match kind {
        EventKind::Started(_) => Type::Started,
        EventKind::Adopted { .. } => Type::Adopted,
        EventKind::Released => Type::Released,
        EventKind::ActionSucceeded { .. } => Type::ActionSucceeded,
        EventKind::ActionFailed { .. } => Type::ActionFailed,
        EventKind::QueryAnswered { .. } => Type::QueryAnswered,
        EventKind::QueryFailed { .. } => Type::QueryFailed,
        EventKind::RollbackDecided { .. } => Type::RollbackDecided,
        EventKind::CompensationSucceeded { .. } => Type::CompensationSucceeded,
        EventKind::CompensationFailed { .. } => Type::CompensationFailed,
        EventKind::SignalReported { .. } => Type::SignalReported,
        EventKind::InterventionOpened => Type::InterventionOpened,
        EventKind::BranchRetried { .. } => Type::BranchRetried,
        EventKind::BranchResolved { .. } => Type::BranchResolved,
        EventKind::Succeeded => Type::Succeeded,
        EventKind::RolledBack => Type::RolledBack,
    }
}

fn ended(wire: &mut v1::Event, attempt: u32, elapsed: std::time::Duration) {
    wire.attempt = attempt;
    wire.elapsed = Some(time::wire_duration(elapsed));
}

fn next_time(next: Next) -> Option<prost_types::Timestamp> {
    match next {
        Next::RetryAt(at) | Next::AskAt(at) => Some(time::wire_timestamp(at)),
        Next::GiveUp => None,
    }
}
