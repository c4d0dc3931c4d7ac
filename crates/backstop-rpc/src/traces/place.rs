//! Where things stand in a saga's trace: ids that follow from what they are ids of.
//!
//! # Invariants
//! * The span of an attempt has the same id whoever asks, today and after a takeover: the participant is told it before
//!   there is a span, and the span can be told again from the journal.
//! * A saga that fails is told, and what is called from then on is asked to tell too, whatever was decided at its start.

use backstop_core::{Phase, Saga, SagaState};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Version, trace id, span id, flags.
const TRACE_PARENT_BYTES: usize = 55;

/// Which attempt of which call of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt<'a> {
    pub(crate) step: &'a str,
    pub(crate) phase: Phase,
    pub(crate) number: u32,
}

/// The span under which a saga was started, as its `traceparent` names it.
pub(crate) fn of_saga(saga: &Saga) -> Option<SpanContext> {
    saga.started.trace_parent.as_deref().and_then(parse)
}

/// The same, with the flag that says whether this saga's spans are told now.
pub(crate) fn of_saga_now(saga: &Saga) -> Option<SpanContext> {
    let parent = of_saga(saga)?;
    let flags = flags_now(saga, &parent);
    Some(SpanContext::new(parent.trace_id(), parent.span_id(), flags, true, TraceState::default()))
}

/// The span of one attempt.
pub(crate) fn of_attempt(saga: &Saga, attempt: Attempt<'_>) -> Option<SpanContext> {
    let parent = of_saga(saga)?;
    let flags = flags_now(saga, &parent);
    Some(SpanContext::new(parent.trace_id(), span_id(saga, attempt), flags, false, TraceState::default()))
}

/// The last attempt of the action that the rollback came of, if it came of one.
pub(crate) fn of_cause(saga: &Saga) -> Option<SpanContext> {
    use backstop_core::CauseKind;
    let CauseKind::BranchFailed(step) = &saga.cause.as_ref()?.kind else { return None };
    let branch = saga.branches.get(saga.definition.index_of(step)?)?;
    let attempt = Attempt { step: step.as_str(), phase: Phase::Action, number: branch.action.attempts };
    of_attempt(saga, attempt)
}

/// True if the saga's spans are told: it was sampled, or it fails.
pub(crate) fn is_told(saga: &Saga) -> bool {
    is_failing(saga) || of_saga(saga).is_some_and(|parent| parent.is_sampled())
}

fn is_failing(saga: &Saga) -> bool {
    saga.cause.is_some() || saga.state == SagaState::NeedsIntervention
}

fn flags_now(saga: &Saga, parent: &SpanContext) -> TraceFlags {
    parent.trace_flags().with_sampled(parent.is_sampled() || is_failing(saga))
}

fn span_id(saga: &Saga, attempt: Attempt<'_>) -> SpanId {
    let mut hash = Sha256::new();
    for part in [saga.id.as_str(), attempt.step, attempt.phase.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(attempt.number.to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut id = [0; 8];
    id.copy_from_slice(&hash[..8]);
    // All zeros is no id: one hash in 2^64.
    if id == [0; 8] { SpanId::from(1) } else { SpanId::from_bytes(id) }
}

/// As a W3C `traceparent`.
pub(crate) fn written(place: &SpanContext) -> String {
    let mut text = String::with_capacity(TRACE_PARENT_BYTES);
    // Writing to a String cannot fail.
    let _ = write!(text, "00-{}-{}-{:02x}", place.trace_id(), place.span_id(), place.trace_flags().to_u8());
    text
}

/// Reads a W3C `traceparent` of version 00, or of a later one that begins like it.
pub(crate) fn parse(text: &str) -> Option<SpanContext> {
    let (head, tail) = (text.get(..TRACE_PARENT_BYTES)?, text.get(TRACE_PARENT_BYTES..)?);
    let mut parts = head.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let well_formed =
        lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
    let tail_fits = tail.is_empty() || (version != "00" && tail.starts_with('-'));
    if !well_formed || version == "ff" || !tail_fits {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_parent_is_taken_for_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse(good).unwrap();
        assert_eq!(written(&context), good);
        assert!(parse(&format!("cc{}-what-comes-later", &good[2..])).is_some());
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c8031é-b7ad6b7169203331-01",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
