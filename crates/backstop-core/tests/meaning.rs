//! The whole table of DESIGN 3.3, written out: every evidence, every one of the 17 codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use backstop_core::status::speaks_for_its_key;
use backstop_core::{Code, Effect, ErrorTable, Evidence, FinCode, NoAnswer, NotSent, RetryRule, Row, Tier};
use backstop_core::{effect, tier};
use std::collections::BTreeSet;

/// What the design says of one status that a participant wrote.
type SaidRow = (&'static str, &'static str, &'static str, &'static str, u16, &'static str);

/// Status, effect, FIN code, tier, HTTP status, whether it is tried again at all.
const SAID: [SaidRow; 17] = [
    // An OK that comes in as a failure is an answer that could not be used.
    ("OK", "in doubt", "FIN-50001", "L1", 500, "never"),
    ("CANCELLED", "in doubt", "FIN-50099", "L1", 500, "never"),
    ("UNKNOWN", "in doubt", "FIN-50001", "L1", 500, "never"),
    ("INVALID_ARGUMENT", "none", "FIN-40005", "L3", 400, "never"),
    ("DEADLINE_EXCEEDED", "in doubt", "FIN-50302", "L2", 503, "policy"),
    ("NOT_FOUND", "none", "FIN-50099", "L1", 500, "never"),
    ("ALREADY_EXISTS", "in doubt", "FIN-50099", "L1", 500, "never"),
    ("PERMISSION_DENIED", "none", "FIN-50099", "L1", 500, "never"),
    ("RESOURCE_EXHAUSTED", "in doubt", "FIN-50099", "L1", 500, "policy"),
    ("FAILED_PRECONDITION", "none", "FIN-40005", "L3", 400, "never"),
    ("ABORTED", "none", "FIN-50099", "L1", 500, "policy"),
    ("OUT_OF_RANGE", "none", "FIN-50099", "L1", 500, "never"),
    ("UNIMPLEMENTED", "none", "FIN-50099", "L1", 500, "never"),
    ("INTERNAL", "in doubt", "FIN-50001", "L1", 500, "never"),
    ("UNAVAILABLE", "in doubt", "FIN-50302", "L2", 503, "policy"),
    ("DATA_LOSS", "in doubt", "FIN-50099", "L1", 500, "never"),
    ("UNAUTHENTICATED", "none", "FIN-50099", "L1", 500, "never"),
];

/// Evidence that is no word of the participant's: how it reads, the status it is recorded under, the rest.
const OURS: [(Evidence, &str, SaidRow); 11] = [
    (Evidence::NotSent(NotSent::NoConnection), "no_connection", UNSENT),
    (Evidence::NotSent(NotSent::BreakerOpen), "breaker_open", UNSENT),
    (Evidence::NotSent(NotSent::NoPermit), "no_permit", UNSENT),
    (Evidence::NotSent(NotSent::Draining), "draining", UNSENT),
    (Evidence::NotSent(NotSent::Refused), "refused", UNSENT),
    (Evidence::NotSent(NotSent::Withdrawn), "withdrawn", UNSENT),
    (
        Evidence::NoAnswer(NoAnswer::Deadline),
        "deadline",
        ("DEADLINE_EXCEEDED", "in doubt", "FIN-50302", "L2", 503, "policy"),
    ),
    (
        Evidence::NoAnswer(NoAnswer::ConnectionLost),
        "connection_lost",
        ("UNAVAILABLE", "in doubt", "FIN-50302", "L2", 503, "policy"),
    ),
    (
        Evidence::NoAnswer(NoAnswer::CoordinatorLost),
        "coordinator_lost",
        ("UNAVAILABLE", "in doubt", "FIN-50302", "L2", 503, "policy"),
    ),
    (Evidence::BadAnswer, "bad_answer", ("INTERNAL", "in doubt", "FIN-50001", "L1", 500, "never")),
    (Evidence::NotRendered, "not_rendered", ("INVALID_ARGUMENT", "none", "FIN-40005", "L3", 400, "never")),
];

const UNSENT: SaidRow = ("UNAVAILABLE", "none", "FIN-50302", "L2", 503, "policy");

fn meaning(table: &ErrorTable, evidence: Evidence) -> (String, String, String, String, u16, String) {
    let row = tier(table, evidence.code());
    let effect = match effect(evidence) {
        Effect::None => "none",
        Effect::InDoubt => "in doubt",
    };
    let retry = match row.retry {
        RetryRule::Never => "never",
        RetryRule::Policy => "policy",
    };
    (
        evidence.code().name().to_owned(),
        effect.to_owned(),
        row.fin_code.to_string(),
        row.tier.as_str().to_owned(),
        row.http_status,
        retry.to_owned(),
    )
}

fn owned(row: &SaidRow) -> (String, String, String, String, u16, String) {
    (row.0.into(), row.1.into(), row.2.into(), row.3.into(), row.4, row.5.into())
}

#[test]
fn peer_13_every_status_that_a_participant_says_means_what_the_design_says() {
    let table = ErrorTable::default();
    for (number, row) in SAID.iter().enumerate() {
        let code = Code::from_number(i32::try_from(number).unwrap());
        assert_eq!(meaning(&table, Evidence::ParticipantSaid(code)), owned(row), "code {number}");
    }
}

#[test]
fn every_evidence_of_our_own_means_what_the_design_says() {
    let table = ErrorTable::default();
    for (evidence, text, row) in &OURS {
        assert_eq!(meaning(&table, *evidence), owned(row), "{text}");
        assert_eq!(evidence.as_str(), *text);
    }
}

#[test]
fn only_a_refusal_by_the_business_code_speaks_for_every_attempt_of_its_key() {
    let speaks: Vec<&str> = Code::ALL
        .into_iter()
        .filter(|code| speaks_for_its_key(Evidence::ParticipantSaid(*code)))
        .map(Code::name)
        .collect();
    assert_eq!(speaks, ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE"]);
    assert!(OURS.iter().all(|(evidence, _, _)| !speaks_for_its_key(*evidence)));
}

#[test]
fn the_two_tables_leave_out_no_evidence() {
    let listed: BTreeSet<&str> = OURS.iter().map(|(_, text, _)| *text).collect();
    assert_eq!(listed.len(), OURS.len(), "no line twice");
    // A new variant of either enum must be written into the table above.
    assert_eq!(NotSent::ALL.len() + NoAnswer::ALL.len() + 2, OURS.len());
    assert!(NotSent::ALL.iter().all(|reason| listed.contains(reason.as_str())));
    assert!(NoAnswer::ALL.iter().all(|reason| listed.contains(reason.as_str())));
    assert_eq!(Code::ALL.len(), SAID.len());
}

#[test]
fn codes_and_evidence_come_back_from_the_text_they_are_stored_as() {
    for (number, code) in Code::ALL.into_iter().enumerate() {
        assert_eq!(code.number(), i32::try_from(number).unwrap());
        assert_eq!(Code::from_number(code.number()), code);
        assert_eq!(Code::parse(code.name()), Some(code));
        let said = Evidence::ParticipantSaid(code);
        assert_eq!(Evidence::parse(said.as_str(), said.code()), Some(said));
    }
    for (evidence, _, _) in OURS {
        assert_eq!(Evidence::parse(evidence.as_str(), evidence.code()), Some(evidence));
    }
    assert_eq!(Evidence::parse("gossip", Code::Ok), None);
    assert_eq!(Code::parse("NO_SUCH_CODE"), None);
    for unknown in [-1, 17, i32::MAX, i32::MIN] {
        assert_eq!(Code::from_number(unknown), Code::Unknown, "gRPC reads unknown numbers as UNKNOWN");
    }
}

#[test]
fn a_domain_overrides_one_row_and_leaves_the_other_sixteen() {
    let business = Row {
        fin_code: FinCode::parse("FIN-40404").unwrap(),
        tier: Tier::L3,
        http_status: 404,
        retry: RetryRule::Never,
    };
    for overridden in Code::ALL {
        let table = ErrorTable::default().with(overridden, business);
        for code in Code::ALL {
            let expected = if code == overridden { business } else { tier(&ErrorTable::default(), code) };
            assert_eq!(tier(&table, code), expected, "{} with {} overridden", code.name(), overridden.name());
            // No table changes what a status proves about the books.
            let evidence = Evidence::ParticipantSaid(code);
            assert_eq!(meaning(&table, evidence).1, SAID[code as usize].1);
        }
    }
}

#[test]
fn a_fin_code_has_five_digits_and_nothing_else() {
    assert_eq!(FinCode::parse("FIN-00042").unwrap().to_string(), "FIN-00042");
    for bad in ["FIN-1234", "FIN-123456", "FIN-12a45", "fin-12345", "FIN-+1234", "FIN-", "12345", "FIN-١٢٣٤٥"]
    {
        assert_eq!(FinCode::parse(bad), None, "{bad}");
    }
}
