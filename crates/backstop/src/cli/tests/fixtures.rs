//! The sagas that the stories are about.

use backstop_proto::v1::failure::{Effect, Evidence};
use backstop_proto::v1::{Branch, BranchState, Failure, Saga, SagaState, Tier};
use backstop_proto::v1::{RollbackCause, rollback_cause::Kind};
use prost_types::Timestamp;

/// An instant of the stories.
pub(super) fn at(millis: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(millis % 1000).unwrap() * 1_000_000;
    Some(Timestamp { seconds: 1_795_478_400 + millis / 1000, nanos })
}

/// `pay-7`, whose credit was refused.
pub(super) fn rolled_back() -> Saga {
    let violation = tonic_types::pb::bad_request::FieldViolation {
        field: "account".to_owned(),
        description: "is closed".to_owned(),
        ..Default::default()
    };
    let failure = Failure {
        grpc_code: "FAILED_PRECONDITION".to_owned(),
        fin_code: "FIN-40005".to_owned(),
        tier: Tier::L3.into(),
        http_status: 400,
        evidence: Evidence::ParticipantSaid.into(),
        effect: Effect::None.into(),
        message: "account \u{1b}[31mclosed".to_owned(),
        field_violations: vec![violation],
        ..Failure::default()
    };
    let cause = RollbackCause {
        kind: Kind::StepFailed.into(),
        step: "credit".to_owned(),
        failure: Some(failure),
        ..RollbackCause::default()
    };
    Saga {
        id: "pay-7".to_owned(),
        definition: "transfer".to_owned(),
        revision: 3,
        state: SagaState::RolledBack.into(),
        fin_code: "FIN-40005".to_owned(),
        cause: Some(cause),
        transcript: vec![
            "0001 saga     started        transfer@3".to_owned(),
            "0002 saga     rolled back".to_owned(),
        ],
        labels: [("region".to_owned(), "eu".to_owned()), ("customer".to_owned(), "42".to_owned())].into(),
        create_time: at(0),
        end_time: at(34),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        ..Saga::default()
    }
}

/// `pay-7`, whose debit cannot be undone.
pub(super) fn stuck() -> Saga {
    let branch = Branch {
        step: "debit".to_owned(),
        state: BranchState::Stuck.into(),
        compensation_failure: Some(Failure {
            evidence: Evidence::Deadline.into(),
            grpc_code: "DEADLINE_EXCEEDED".to_owned(),
            ..Failure::default()
        }),
        ..Branch::default()
    };
    let failed = Branch { step: "credit".to_owned(), state: BranchState::Failed.into(), ..Branch::default() };
    Saga {
        state: SagaState::NeedsIntervention.into(),
        branches: vec![branch, failed],
        end_time: None,
        ..rolled_back()
    }
}
