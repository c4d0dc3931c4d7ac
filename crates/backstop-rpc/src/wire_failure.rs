//! Failures and causes of the core as they go over the wire.
//!
//! # Not here
//! The way back: nothing reads these messages but clients and participants.

use backstop_core::{
    Cause, CauseKind, Details, Effect, ErrorTable, Evidence, Failure, NoAnswer, NotSent, Tier, bounded_text,
    tier,
};
use backstop_proto::v1::{self, RollbackCause, rollback_cause};
use prost::Message;
use tonic_types::pb;

/// Shortest that a message is cut to before it is left out whole.
const MESSAGE_BYTES_MIN: usize = 256;

/// A failure; the table gives the HTTP status of its code.
#[must_use]
pub fn failure(table: &ErrorTable, failure: &Failure) -> v1::Failure {
    let Details { reason, domain, metadata, field_violations, precondition_violations, localized, truncated } =
        &failure.details;
    let error_info = (reason.is_some() || domain.is_some() || !metadata.is_empty()).then(|| pb::ErrorInfo {
        reason: reason.clone().unwrap_or_default(),
        domain: domain.clone().unwrap_or_default(),
        metadata: metadata.clone().into_iter().collect(),
    });
    v1::Failure {
        grpc_code: failure.code().name().to_owned(),
        fin_code: failure.fin_code.to_string(),
        tier: wire_tier(failure.tier).into(),
        http_status: tier(table, failure.code()).http_status.into(),
        evidence: wire_evidence(failure.evidence).into(),
        effect: wire_effect(failure.effect).into(),
        message: failure.message.clone(),
        field_violations: field_violations
            .iter()
            .map(|v| pb::bad_request::FieldViolation {
                field: v.field.clone(),
                description: v.description.clone(),
                ..Default::default()
            })
            .collect(),
        precondition_violations: precondition_violations
            .iter()
            .map(|v| pb::precondition_failure::Violation {
                r#type: v.kind.clone(),
                subject: v.subject.clone(),
                description: v.description.clone(),
            })
            .collect(),
        localized_message: localized.as_ref().map(|(locale, message)| pb::LocalizedMessage {
            locale: locale.clone(),
            message: message.clone(),
        }),
        error_info,
        details_truncated: *truncated,
    }
}

/// Why a saga rolls back.
#[must_use]
pub fn cause(table: &ErrorTable, cause: &Cause) -> RollbackCause {
    let empty =
        RollbackCause { failure: cause.failure.as_ref().map(|f| failure(table, f)), ..Default::default() };
    let kind = |kind: rollback_cause::Kind| i32::from(kind);
    match &cause.kind {
        CauseKind::BranchFailed(step) => RollbackCause {
            kind: kind(rollback_cause::Kind::StepFailed),
            step: step.as_str().to_owned(),
            ..empty
        },
        CauseKind::DeadlinePassed => RollbackCause { kind: kind(rollback_cause::Kind::Deadline), ..empty },
        CauseKind::Cancelled { by, reason } => RollbackCause {
            kind: kind(rollback_cause::Kind::Cancelled),
            by: by.clone(),
            reason: reason.clone(),
            ..empty
        },
        CauseKind::Resolved(step) => RollbackCause {
            kind: kind(rollback_cause::Kind::Resolved),
            step: step.as_str().to_owned(),
            ..empty
        },
    }
}

/// A cause of at most `bytes_max` encoded bytes, for metadata: details go first, those for machines last;
/// then texts are cut. Kind, step and codes always stay.
#[must_use]
pub fn bounded_cause(table: &ErrorTable, of: &Cause, bytes_max: usize) -> RollbackCause {
    let mut wire = cause(table, of);
    let fits = |wire: &RollbackCause| wire.encoded_len() <= bytes_max;
    let leave_out: [fn(&mut v1::Failure) -> bool; 4] = [
        |failure| failure.localized_message.take().is_some(),
        |failure| failure.precondition_violations.pop().is_some(),
        |failure| failure.field_violations.pop().is_some(),
        |failure| failure.error_info.take().is_some(),
    ];
    for leave_out in leave_out {
        while !fits(&wire) {
            let Some(failure) = wire.failure.as_mut() else {
                break;
            };
            if !leave_out(failure) {
                break;
            }
            failure.details_truncated = true;
        }
    }
    while !fits(&wire) {
        let before = wire.encoded_len();
        for text in
            [Some(&mut wire.reason), Some(&mut wire.by), wire.failure.as_mut().map(|f| &mut f.message)]
        {
            let Some(text) = text else { continue };
            let bytes = text.len() / 2;
            *text = if bytes < MESSAGE_BYTES_MIN { String::new() } else { bounded_text(text, bytes) };
        }
        if wire.encoded_len() == before {
            break;
        }
    }
    wire
}

/// How loud a failure is.
#[must_use]
pub fn wire_tier(tier: Tier) -> v1::Tier {
    match tier {
        Tier::L1 => v1::Tier::L1,
        Tier::L2 => v1::Tier::L2,
        Tier::L3 => v1::Tier::L3,
    }
}

fn wire_effect(effect: Effect) -> v1::failure::Effect {
    match effect {
        Effect::None => v1::failure::Effect::None,
        Effect::InDoubt => v1::failure::Effect::InDoubt,
    }
}

fn wire_evidence(evidence: Evidence) -> v1::failure::Evidence {
    use v1::failure::Evidence as Wire;
    match evidence {
        Evidence::ParticipantSaid(_) => Wire::ParticipantSaid,
        Evidence::NotSent(NotSent::NoConnection) => Wire::NoConnection,
        Evidence::NotSent(NotSent::BreakerOpen) => Wire::BreakerOpen,
        Evidence::NotSent(NotSent::NoPermit) => Wire::NoPermit,
        Evidence::NotSent(NotSent::Draining) => Wire::Draining,
        Evidence::NotSent(NotSent::Refused) => Wire::Refused,
        Evidence::NotSent(NotSent::Withdrawn) => Wire::Withdrawn,
        Evidence::NoAnswer(NoAnswer::Deadline) => Wire::Deadline,
        Evidence::NoAnswer(NoAnswer::ConnectionLost) => Wire::ConnectionLost,
        Evidence::NoAnswer(NoAnswer::CoordinatorLost) => Wire::CoordinatorLost,
        Evidence::BadAnswer => Wire::BadAnswer,
        Evidence::NotRendered => Wire::NotRendered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::{Code, FieldViolation, FinCode, StepName};

    fn sample(details: Details, message: &str) -> Failure {
        Failure {
            evidence: Evidence::ParticipantSaid(Code::FailedPrecondition),
            effect: Effect::None,
            fin_code: FinCode::REFUSED,
            tier: Tier::L3,
            message: message.to_owned(),
            details,
            pushback: None,
        }
    }

    #[test]
    fn a_failure_keeps_code_tier_and_details_on_the_wire() {
        let details = Details {
            reason: Some("FIN-40017".into()),
            field_violations: vec![FieldViolation { field: "amount".into(), description: "low".into() }],
            ..Details::default()
        };
        let wire = failure(&ErrorTable::default(), &sample(details, "account closed"));
        assert_eq!(wire.grpc_code, "FAILED_PRECONDITION");
        assert_eq!((wire.fin_code.as_str(), wire.tier(), wire.http_status), ("FIN-40005", v1::Tier::L3, 400));
        assert_eq!(wire.evidence(), v1::failure::Evidence::ParticipantSaid);
        assert_eq!(wire.field_violations[0].field, "amount");
        assert_eq!(wire.error_info.unwrap().reason, "FIN-40017");
    }

    #[test]
    fn every_evidence_has_a_name_of_its_own_on_the_wire() {
        let mut all = vec![Evidence::ParticipantSaid(Code::Ok), Evidence::BadAnswer, Evidence::NotRendered];
        all.extend(NotSent::ALL.map(Evidence::NotSent));
        all.extend(NoAnswer::ALL.map(Evidence::NoAnswer));
        for evidence in &all {
            let wire = wire_evidence(*evidence).as_str_name();
            assert_eq!(
                wire.strip_prefix("EVIDENCE_").map(str::to_lowercase).as_deref(),
                Some(evidence.as_str())
            );
        }
    }

    #[test]
    fn peer_11_a_cause_of_any_size_fits_metadata_and_keeps_its_codes() {
        let violations = |n| vec![FieldViolation { field: "f".repeat(500), description: "d".repeat(500) }; n];
        let details = Details { field_violations: violations(4), ..Details::default() };
        let kind = CauseKind::BranchFailed(StepName::parse("credit").unwrap());
        let cause = Cause { kind, failure: Some(sample(details, &"m".repeat(2048))) };
        let wire = bounded_cause(&ErrorTable::default(), &cause, 4608);
        assert!(wire.encoded_len() <= 4608);
        let failure = wire.failure.unwrap();
        assert!(failure.details_truncated);
        assert_eq!(failure.field_violations.len(), 2, "what fits stays");
        assert_eq!(failure.message.len(), 2048);
        assert_eq!((wire.step.as_str(), failure.fin_code.as_str()), ("credit", "FIN-40005"));

        let cancelled = CauseKind::Cancelled { by: "b".repeat(9000), reason: "é".repeat(9000) };
        let wire = bounded_cause(&ErrorTable::default(), &Cause { kind: cancelled, failure: None }, 4608);
        assert!(wire.encoded_len() <= 4608);
        assert_eq!(wire.kind(), rollback_cause::Kind::Cancelled);
        assert!(wire.reason.ends_with("[cut]"));
    }
}
