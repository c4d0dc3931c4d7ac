//! An event becomes a row of `saga_event`.
//!
//! Columns hold what an operator asks for in SQL; the payload holds the rest. `elapsed` is kept to the
//! microsecond.
//!
//! # Not here
//! The way back: `decode`. The payload's fields: `payload`. Whether events follow each other: the core's `apply`.

use super::payload::{self, FailureRest};
use super::{text, to_i64};
use backstop_core::{
    Cause, CauseKind, Effect, Epoch, Event, EventKind, Failure, Next, ParticipantName, Phase, Started,
    StepName,
};
use backstop_engine::ports::store::StoreResult;
use prost::Message;
use std::borrow::Cow;
use std::time::Duration;

/// The format that is written.
pub(crate) const FORMAT: i16 = 1;

/// A row of `saga_event`. Two rows that are equal were written by the same append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRow<'a> {
    pub(crate) saga: Cow<'a, str>,
    pub(crate) seq: i64,
    pub(crate) kind: Cow<'a, str>,
    pub(crate) step: Option<Cow<'a, str>>,
    pub(crate) phase: Option<Cow<'a, str>>,
    pub(crate) attempt: Option<i64>,
    pub(crate) status: Option<Cow<'a, str>>,
    pub(crate) evidence: Option<Cow<'a, str>>,
    pub(crate) effect: Option<Cow<'a, str>>,
    pub(crate) fin_code: Option<Cow<'a, str>>,
    pub(crate) tier: Option<Cow<'a, str>>,
    pub(crate) clock: i64,
    pub(crate) epoch: i64,
    pub(crate) at: i64,
    pub(crate) elapsed_us: Option<i64>,
    pub(crate) message: Option<Cow<'a, str>>,
    pub(crate) format: i16,
    pub(crate) payload: Vec<u8>,
}

/// Encodes one event of a saga, written under a tenure.
///
/// # Errors
/// `NotApplied` if a number is too large to store.
pub(crate) fn encode<'a>(saga: &'a str, epoch: Epoch, event: &'a Event) -> StoreResult<EventRow<'a>> {
    let mut row = EventRow {
        saga: Cow::Borrowed(saga),
        seq: to_i64("seq", event.seq.0)?,
        kind: Cow::Borrowed(kind_name(&event.kind)),
        step: None,
        phase: None,
        attempt: None,
        status: None,
        evidence: None,
        effect: None,
        fin_code: None,
        tier: None,
        clock: to_i64("clock", event.clock.0)?,
        epoch: to_i64("epoch", epoch.0)?,
        at: event.at.0,
        elapsed_us: None,
        message: None,
        format: FORMAT,
        payload: Vec::new(),
    };
    match &event.kind {
        EventKind::Started(started) => row.payload = started_payload(started),
        EventKind::Adopted { epoch, coordinator } => {
            let coordinator = Some(coordinator.to_string());
            row.payload = payload::Adopted { epoch: Some(epoch.0), coordinator }.encode_to_vec();
        }
        EventKind::ActionSucceeded { step, attempt, elapsed, response } => {
            row.call(step, Phase::Action, *attempt, *elapsed);
            row.payload = payload::ActionSucceeded { response: Some(response.clone()) }.encode_to_vec();
        }
        EventKind::ActionFailed { step, attempt, elapsed, failure, settles_doubt, next } => {
            row.call(step, Phase::Action, *attempt, *elapsed);
            row.failure(failure);
            row.payload = failed_payload(failure, Some(*settles_doubt), *next);
        }
        EventKind::QueryAnswered { step, attempt, elapsed, found, next } => {
            row.call(step, Phase::Query, *attempt, *elapsed);
            row.payload =
                payload::QueryAnswered { found: found.clone(), next: Some((*next).into()) }.encode_to_vec();
        }
        EventKind::QueryFailed { step, attempt, elapsed, failure, next } => {
            row.call(step, Phase::Query, *attempt, *elapsed);
            row.failure(failure);
            row.payload = failed_payload(failure, None, *next);
        }
        EventKind::RollbackDecided { cause, signals } => row.cause(cause, signals),
        EventKind::CompensationSucceeded { step, attempt, elapsed } => {
            row.call(step, Phase::Compensation, *attempt, *elapsed);
        }
        EventKind::CompensationFailed { step, attempt, elapsed, failure, next } => {
            row.call(step, Phase::Compensation, *attempt, *elapsed);
            row.failure(failure);
            row.payload = failed_payload(failure, None, *next);
        }
        EventKind::SignalReported { participant, attempts, error } => {
            row.attempt = Some(i64::from(*attempts));
            row.message = error.as_deref().map(text::to_column);
            row.payload =
                payload::SignalReported { participant: Some(participant.to_string()) }.encode_to_vec();
        }
        EventKind::BranchRetried { step, by, reason } => {
            row.step = Some(Cow::Borrowed(step.as_str()));
            row.message = Some(text::to_column(reason));
            row.payload = payload::Operator { by: Some(by.clone()), resolution: None }.encode_to_vec();
        }
        EventKind::BranchResolved { step, by, reason, resolution } => {
            row.step = Some(Cow::Borrowed(step.as_str()));
            row.message = Some(text::to_column(reason));
            let resolution = Some(resolution.as_str().to_owned());
            row.payload = payload::Operator { by: Some(by.clone()), resolution }.encode_to_vec();
        }
        EventKind::Released
        | EventKind::InterventionOpened
        | EventKind::Succeeded
        | EventKind::RolledBack => {}
    }
    Ok(row)
}

impl<'a> EventRow<'a> {
    fn call(&mut self, step: &'a StepName, phase: Phase, attempt: u32, elapsed: Duration) {
        self.step = Some(Cow::Borrowed(step.as_str()));
        self.phase = Some(Cow::Borrowed(phase.as_str()));
        self.attempt = Some(i64::from(attempt));
        // Three hundred thousand years and more are all the same to a reader.
        self.elapsed_us = Some(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX));
    }

    fn failure(&mut self, failure: &'a Failure) {
        self.status = Some(Cow::Borrowed(failure.code().name()));
        self.evidence = Some(Cow::Borrowed(failure.evidence.as_str()));
        self.effect = Some(Cow::Borrowed(effect_name(failure.effect)));
        self.fin_code = Some(Cow::Owned(failure.fin_code.to_string()));
        self.tier = Some(Cow::Borrowed(failure.tier.as_str()));
        self.message = Some(text::to_column(&failure.message));
    }

    fn cause(&mut self, cause: &'a Cause, signals: &[ParticipantName]) {
        let mut stored = payload::RollbackDecided {
            cause: Some(cause_name(&cause.kind).to_owned()),
            failure: None,
            signals: signals.iter().map(ToString::to_string).collect(),
            by: None,
            reason: None,
        };
        if let Some(failure) = &cause.failure {
            self.failure(failure);
            stored.failure = Some(FailureRest::new(&failure.details, failure.pushback));
        }
        match &cause.kind {
            CauseKind::BranchFailed(step) | CauseKind::Resolved(step) => {
                self.step = Some(Cow::Borrowed(step.as_str()));
            }
            CauseKind::DeadlinePassed => {}
            CauseKind::Cancelled { by, reason } => {
                stored.by = Some(by.clone());
                stored.reason = Some(reason.clone());
                if cause.failure.is_none() {
                    self.message = Some(text::to_column(reason));
                }
            }
        }
        self.payload = stored.encode_to_vec();
    }
}

fn started_payload(started: &Started) -> Vec<u8> {
    // `as_str` and not `to_string`: that goes through the machinery of formatting, once for each step.
    let request = |(step, body): (&StepName, &bytes::Bytes)| payload::Request {
        step: Some(step.as_str().to_owned()),
        body: Some(body.clone()),
    };
    payload::Started {
        definition: Some(started.definition.name.as_str().to_owned()),
        revision: Some(started.definition.revision.0),
        coordinator: Some(started.coordinator.as_str().to_owned()),
        input: Some(started.input.clone()),
        requests: started.payloads.iter().map(request).collect(),
        labels: started.labels.clone(),
        deadline_us: started.deadline.map(|at| at.0),
        trace_parent: started.trace_parent.clone(),
    }
    .encode_to_vec()
}

fn failed_payload(failure: &Failure, settles_doubt: Option<bool>, next: Next) -> Vec<u8> {
    payload::Failed {
        failure: Some(FailureRest::new(&failure.details, failure.pushback)),
        settles_doubt,
        next: Some(next.into()),
    }
    .encode_to_vec()
}

fn kind_name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Started(_) => "started",
        EventKind::Adopted { .. } => "adopted",
        EventKind::Released => "released",
        EventKind::ActionSucceeded { .. } => "action_succeeded",
        EventKind::ActionFailed { .. } => "action_failed",
        EventKind::QueryAnswered { .. } => "query_answered",
        EventKind::QueryFailed { .. } => "query_failed",
        EventKind::RollbackDecided { .. } => "rollback_decided",
        EventKind::CompensationSucceeded { .. } => "compensation_succeeded",
        EventKind::CompensationFailed { .. } => "compensation_failed",
        EventKind::SignalReported { .. } => "signal_reported",
        EventKind::InterventionOpened => "intervention_opened",
        EventKind::BranchRetried { .. } => "branch_retried",
        EventKind::BranchResolved { .. } => "branch_resolved",
        EventKind::Succeeded => "succeeded",
        EventKind::RolledBack => "rolled_back",
    }
}

fn cause_name(kind: &CauseKind) -> &'static str {
    match kind {
        CauseKind::BranchFailed(_) => "branch_failed",
        CauseKind::DeadlinePassed => "deadline_passed",
        CauseKind::Cancelled { .. } => "cancelled",
        CauseKind::Resolved(_) => "resolved",
    }
}

fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "none",
        Effect::InDoubt => "in_doubt",
    }
}
