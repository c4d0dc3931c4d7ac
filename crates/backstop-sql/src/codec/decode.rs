//! A row of `saga_event` becomes an event, or an error that names saga and seq.
//!
//! # Invariants
//! * Nothing is defaulted: an unknown kind, format or word, a missing column or field is an error
//!   (`golden` tests each).
//!
//! # Not here
//! Whether events follow each other: the core's `apply`.

use super::event::{EventRow, FORMAT};
use super::payload::{self, FailureRest};
use super::{DecodeError, from_i64, required, text};
use backstop_core::{
    Cause, CauseKind, Clock, Code, CoordinatorId, DefinitionName, DefinitionRef, Effect, Epoch, Event,
    EventKind, Evidence, Failure, FinCode, ParticipantName, Phase, Resolution, Revision, Seq, Started,
    StepName, Tier, Timestamp,
};
use backstop_engine::ports::store::{StoreError, StoreResult};
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;

/// Reads a row.
///
/// # Errors
/// [`StoreError::Unreadable`] or [`StoreError::Newer`], naming saga and seq.
pub(crate) fn decode(row: EventRow<'_>) -> StoreResult<Event> {
    decode_row(&row).map_err(|error| error.of(format!("event {} of saga {}", row.seq, row.saga)))
}

fn decode_row(row: &EventRow<'_>) -> Result<Event, DecodeError> {
    if row.format != FORMAT {
        // Before anything else is looked at: a newer program may have kinds and fields of its own.
        return Err(DecodeError::format(i64::from(row.format), i64::from(FORMAT)));
    }
    Ok(Event {
        seq: Seq(from_i64("seq", row.seq)?),
        clock: Clock(from_i64("clock", row.clock)?),
        at: Timestamp(row.at),
        kind: decode_kind(row)?,
    })
}

fn decode_kind(row: &EventRow<'_>) -> Result<EventKind, DecodeError> {
    Ok(match row.kind.as_ref() {
        "started" => EventKind::Started(Box::new(read_started(parse(row)?)?)),
        "adopted" => {
            let stored: payload::Adopted = parse(row)?;
            EventKind::Adopted {
                epoch: Epoch(required("payload.epoch", stored.epoch)?),
                coordinator: read_coordinator(stored.coordinator)?,
            }
        }
        "released" => EventKind::Released,
        "action_succeeded" => {
            let stored: payload::ActionSucceeded = parse(row)?;
            let (step, attempt, elapsed) = row.read_call(Phase::Action)?;
            let response = required("payload.response", stored.response)?;
            EventKind::ActionSucceeded { step, attempt, elapsed, response }
        }
        "action_failed" => {
            let stored: payload::Failed = parse(row)?;
            let (step, attempt, elapsed) = row.read_call(Phase::Action)?;
            let settles_doubt = required("payload.settles_doubt", stored.settles_doubt)?;
            let failure = Box::new(row.read_failure(stored.failure)?);
            let next = payload::next(stored.next)?;
            EventKind::ActionFailed { step, attempt, elapsed, failure, settles_doubt, next }
        }
        "query_answered" => {
            let stored: payload::QueryAnswered = parse(row)?;
            let (step, attempt, elapsed) = row.read_call(Phase::Query)?;
            let next = payload::next(stored.next)?;
            EventKind::QueryAnswered { step, attempt, elapsed, found: stored.found, next }
        }
        "query_failed" => {
            let stored: payload::Failed = parse(row)?;
            let (step, attempt, elapsed) = row.read_call(Phase::Query)?;
            let failure = Box::new(row.read_failure(stored.failure)?);
            EventKind::QueryFailed { step, attempt, elapsed, failure, next: payload::next(stored.next)? }
        }
        "rollback_decided" => row.read_rollback(parse(row)?)?,
        "compensation_succeeded" => {
            let (step, attempt, elapsed) = row.read_call(Phase::Compensation)?;
            EventKind::CompensationSucceeded { step, attempt, elapsed }
        }
        "compensation_failed" => {
            let stored: payload::Failed = parse(row)?;
            let (step, attempt, elapsed) = row.read_call(Phase::Compensation)?;
            let failure = Box::new(row.read_failure(stored.failure)?);
            EventKind::CompensationFailed {
                step,
                attempt,
                elapsed,
                failure,
                next: payload::next(stored.next)?,
            }
        }
        "signal_reported" => {
            let stored: payload::SignalReported = parse(row)?;
            EventKind::SignalReported {
                participant: read_participant(&required("payload.participant", stored.participant)?)?,
                attempts: from_i64("attempt", required("attempt", row.attempt)?)?,
                error: row.message.as_deref().map(|m| text::from_column("message", m)).transpose()?,
            }
        }
        "intervention_opened" => EventKind::InterventionOpened,
        "branch_retried" => {
            let stored: payload::Operator = parse(row)?;
            let by = required("payload.by", stored.by)?;
            EventKind::BranchRetried { step: row.read_step()?, by, reason: row.read_message()? }
        }
        "branch_resolved" => {
            let stored: payload::Operator = parse(row)?;
            let resolution = required("payload.resolution", stored.resolution)?;
            EventKind::BranchResolved {
                step: row.read_step()?,
                by: required("payload.by", stored.by)?,
                reason: row.read_message()?,
                resolution: Resolution::parse(&resolution)
                    .ok_or_else(|| DecodeError::unknown("payload.resolution", resolution))?,
            }
        }
        "succeeded" => EventKind::Succeeded,
        "rolled_back" => EventKind::RolledBack,
        other => return Err(DecodeError::unknown("kind", other)),
    })
}

impl EventRow<'_> {
    fn read_step(&self) -> Result<StepName, DecodeError> {
        let step = required("step", self.step.as_deref())?;
        StepName::parse(step).map_err(|_| DecodeError::unknown("step", step))
    }

    fn read_message(&self) -> Result<String, DecodeError> {
        text::from_column("message", required("message", self.message.as_deref())?)
    }

    fn read_call(&self, phase: Phase) -> Result<(StepName, u32, Duration), DecodeError> {
        let stored = required("phase", self.phase.as_deref())?;
        if stored != phase.as_str() {
            return Err(DecodeError::unknown("phase", stored));
        }
        let attempt = from_i64("attempt", required("attempt", self.attempt)?)?;
        let elapsed = from_i64("elapsed_us", required("elapsed_us", self.elapsed_us)?)?;
        Ok((self.read_step()?, attempt, Duration::from_micros(elapsed)))
    }

    fn read_failure(&self, rest: Option<FailureRest>) -> Result<Failure, DecodeError> {
        let (details, pushback) = required("payload.failure", rest)?.read()?;
        let status = required("status", self.status.as_deref())?;
        let code = Code::parse(status).ok_or_else(|| DecodeError::unknown("status", status))?;
        let evidence = required("evidence", self.evidence.as_deref())?;
        let evidence = Evidence::parse(evidence, code)
            .filter(|parsed| parsed.code() == code)
            .ok_or_else(|| DecodeError::unknown("evidence", evidence))?;
        let effect = match required("effect", self.effect.as_deref())? {
            "none" => Effect::None,
            "in_doubt" => Effect::InDoubt,
            other => return Err(DecodeError::unknown("effect", other)),
        };
        let fin_code = required("fin_code", self.fin_code.as_deref())?;
        let tier = required("tier", self.tier.as_deref())?;
        Ok(Failure {
            evidence,
            effect,
            fin_code: FinCode::parse(fin_code).ok_or_else(|| DecodeError::unknown("fin_code", fin_code))?,
            tier: Tier::parse(tier).ok_or_else(|| DecodeError::unknown("tier", tier))?,
            message: self.read_message()?,
            details,
            pushback,
        })
    }

    fn read_rollback(&self, stored: payload::RollbackDecided) -> Result<EventKind, DecodeError> {
        let has_failure = stored.failure.is_some();
        if has_failure != self.status.is_some() {
            return Err(DecodeError::malformed("cause", "columns and payload differ about a failure"));
        }
        let failure = stored.failure.map(|rest| self.read_failure(Some(rest))).transpose()?;
        let kind = match required("payload.cause", stored.cause)?.as_str() {
            "branch_failed" => CauseKind::BranchFailed(self.read_step()?),
            "deadline_passed" => CauseKind::DeadlinePassed,
            "cancelled" => {
                let by = required("payload.by", stored.by)?;
                CauseKind::Cancelled { by, reason: required("payload.reason", stored.reason)? }
            }
            "resolved" => CauseKind::Resolved(self.read_step()?),
            other => return Err(DecodeError::unknown("payload.cause", other)),
        };
        let signals = stored.signals.iter().map(|name| read_participant(name)).collect::<Result<_, _>>()?;
        Ok(EventKind::RollbackDecided { cause: Box::new(Cause { kind, failure }), signals })
    }
}

fn parse<M: Message + Default>(row: &EventRow<'_>) -> Result<M, DecodeError> {
    M::decode(row.payload.as_slice()).map_err(|error| DecodeError::malformed("payload", error))
}

fn read_started(stored: payload::Started) -> Result<Started, DecodeError> {
    let name = required("payload.definition", stored.definition)?;
    let mut payloads = BTreeMap::new();
    for request in stored.requests {
        let step = required("payload.request.step", request.step)?;
        let step = StepName::parse(&step).map_err(|_| DecodeError::unknown("payload.request.step", step))?;
        payloads.insert(step, required("payload.request.body", request.body)?);
    }
    Ok(Started {
        definition: DefinitionRef {
            name: DefinitionName::parse(&name)
                .map_err(|_| DecodeError::unknown("payload.definition", name))?,
            revision: Revision(required("payload.revision", stored.revision)?),
        },
        coordinator: read_coordinator(stored.coordinator)?,
        input: required("payload.input", stored.input)?,
        payloads,
        labels: stored.labels,
        deadline: stored.deadline_us.map(Timestamp),
        trace_parent: stored.trace_parent,
    })
}

fn read_coordinator(stored: Option<String>) -> Result<CoordinatorId, DecodeError> {
    let id = required("payload.coordinator", stored)?;
    CoordinatorId::parse(&id).map_err(|_| DecodeError::unknown("payload.coordinator", id))
}

fn read_participant(name: &str) -> Result<ParticipantName, DecodeError> {
    ParticipantName::parse(name).map_err(|_| DecodeError::unknown("payload.participant", name))
}

/// A row of which a column could not even be fetched.
pub(crate) fn unreadable(saga: &str, seq: i64, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable(format!("event {seq} of saga {saga}: {reason}"))
}
