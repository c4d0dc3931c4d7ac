//! One event, or more, of every kind but `Started`, with every choice in them.

use super::coordinator;
use crate::store_contract::sample::LONG_AGO;
use backstop_core::failure::Pushback;
use backstop_core::{
    Cause, CauseKind, Code, Details, Effect, Epoch, EventKind, Evidence, Failure, FieldViolation, FinCode,
    Next, NoAnswer, NotSent, ParticipantName, PreconditionViolation, Resolution, StepName, Tier, Timestamp,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Text that has broken somebody's storage: NUL, the escape itself, quotes, other planes.
pub const HARD_TEXT: &str = "a\0b\u{1a}0 'single' \"double\" back\\slash %_ \u{1f4b6} \n";

/// Events of every kind but `Started`, in no order that a saga would make.
pub fn every_kind() -> Vec<EventKind> {
    let step = || StepName::parse("s0").unwrap();
    let elapsed = Duration::from_micros(12_345);
    let later = Timestamp(LONG_AGO.0 + 5_000_000);
    let ledger = || ParticipantName::parse("ledger").unwrap();
    let mut kinds = vec![
        EventKind::Adopted { epoch: Epoch(2), coordinator: coordinator("c2") },
        EventKind::Released,
        EventKind::ActionSucceeded { step: step(), attempt: 1, elapsed, response: Bytes::new() },
        EventKind::ActionSucceeded {
            step: step(),
            attempt: u32::MAX,
            elapsed: Duration::ZERO,
            response: Bytes::from_static(&[0, 255, 1]),
        },
        EventKind::CompensationSucceeded { step: step(), attempt: 2, elapsed },
        EventKind::SignalReported { participant: ledger(), attempts: 3, error: None },
        EventKind::SignalReported { participant: ledger(), attempts: 3, error: Some(HARD_TEXT.to_owned()) },
        EventKind::SignalReported { participant: ledger(), attempts: 3, error: Some(String::new()) },
        EventKind::InterventionOpened,
        EventKind::BranchRetried { step: step(), by: "ada".to_owned(), reason: HARD_TEXT.to_owned() },
        EventKind::Succeeded,
        EventKind::RolledBack,
    ];
    for next in [Next::RetryAt(later), Next::AskAt(later), Next::GiveUp] {
        for found in [None, Some(Bytes::new()), Some(Bytes::from_static(b"answer"))] {
            kinds.push(EventKind::QueryAnswered { step: step(), attempt: 1, elapsed, found, next });
        }
    }
    for (index, failure) in failures().into_iter().enumerate() {
        let settles_doubt = index % 2 == 0;
        let next = [Next::RetryAt(later), Next::AskAt(later), Next::GiveUp][index % 3];
        let (failure, attempt) = (Box::new(failure), index as u32 + 1);
        kinds.extend([
            EventKind::ActionFailed {
                step: step(),
                attempt,
                elapsed,
                failure: failure.clone(),
                settles_doubt,
                next,
            },
            EventKind::QueryFailed { step: step(), attempt, elapsed, failure: failure.clone(), next },
            EventKind::CompensationFailed { step: step(), attempt, elapsed, failure, next },
        ]);
    }
    for (kind, failure) in [
        (CauseKind::BranchFailed(step()), failures().pop()),
        (CauseKind::DeadlinePassed, None),
        (CauseKind::Cancelled { by: "bob".to_owned(), reason: HARD_TEXT.to_owned() }, None),
        (CauseKind::Cancelled { by: "bob".to_owned(), reason: "why".to_owned() }, failures().pop()),
        (CauseKind::Resolved(step()), None),
    ] {
        let signals = vec![ledger(), ParticipantName::parse("audit").unwrap()];
        kinds.push(EventKind::RollbackDecided { cause: Box::new(Cause { kind, failure }), signals });
    }
    for resolution in [Resolution::TookEffect, Resolution::NoEffect, Resolution::Undone] {
        let (by, reason) = (HARD_TEXT.to_owned(), "by hand".to_owned());
        kinds.push(EventKind::BranchResolved { step: step(), by, reason, resolution });
    }
    kinds
}

/// A failure of every evidence, each with another choice of the rest; the last has everything.
fn failures() -> Vec<Failure> {
    let mut evidences = vec![Evidence::BadAnswer, Evidence::NotRendered];
    evidences.extend(NotSent::ALL.map(Evidence::NotSent));
    evidences.extend(NoAnswer::ALL.map(Evidence::NoAnswer));
    evidences.extend(Code::ALL.map(Evidence::ParticipantSaid));
    let bare = |(index, evidence): (usize, Evidence)| Failure {
        evidence,
        effect: [Effect::None, Effect::InDoubt][index % 2],
        fin_code: FinCode::parse("FIN-00042").unwrap(),
        tier: [Tier::L1, Tier::L2, Tier::L3][index % 3],
        message: "account closed".to_owned(),
        details: Details::default(),
        pushback: [None, Some(Pushback::Stop), Some(Pushback::After(Duration::new(3, 7)))][index % 3],
    };
    let mut failures: Vec<Failure> = evidences.into_iter().enumerate().map(bare).collect();
    failures.push(Failure {
        evidence: Evidence::ParticipantSaid(Code::FailedPrecondition),
        effect: Effect::None,
        fin_code: FinCode::REFUSED,
        tier: Tier::L3,
        message: HARD_TEXT.to_owned(),
        details: Details {
            reason: Some("FIN-40017".to_owned()),
            domain: Some(String::new()),
            metadata: BTreeMap::from([
                ("effect".to_owned(), "none".to_owned()),
                (String::new(), HARD_TEXT.to_owned()),
            ]),
            field_violations: vec![FieldViolation {
                field: "amount".to_owned(),
                description: HARD_TEXT.to_owned(),
            }],
            precondition_violations: vec![PreconditionViolation {
                kind: "BALANCE".to_owned(),
                subject: "account/7".to_owned(),
                description: String::new(),
            }],
            localized: Some(("de-AT".to_owned(), "Konto geschlossen".to_owned())),
            truncated: true,
        },
        pushback: Some(Pushback::After(Duration::ZERO)),
    });
    failures
}
