//! What each of the 17 statuses means when a participant says it, read off GetSaga: the table of
//! DESIGN 3.3, once for a participant that deduplicates and once for one that does not.

use crate::common::api::{branch, shown, state};
use crate::common::{Backstop, Bank, Engine, Reply, definition, step};
use serde_json::json;
use tonic::Code;

const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// Attempts allowed; so `2` in the table says that it was tried again.
const ATTEMPTS_MAX: u32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn peer_13_all_17_codes_said_by_a_participant_that_does_not_deduplicate() {
    let expected = "
        OK                   -            -        -         -      -   1 SUCCEEDED    SUCCEEDED
        CANCELLED            PARTICIPANT_SAID IN_DOUBT FIN-50099 L1   500 1 COMPENSATED  ROLLED_BACK
        UNKNOWN              PARTICIPANT_SAID IN_DOUBT FIN-50001 L1   500 1 COMPENSATED  ROLLED_BACK
        INVALID_ARGUMENT     PARTICIPANT_SAID NONE     FIN-40005 L3   400 1 FAILED       ROLLED_BACK
        DEADLINE_EXCEEDED    PARTICIPANT_SAID IN_DOUBT FIN-50302 L2   503 1 COMPENSATED  ROLLED_BACK
        NOT_FOUND            PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
        ALREADY_EXISTS       PARTICIPANT_SAID IN_DOUBT FIN-50099 L1   500 1 COMPENSATED  ROLLED_BACK
        PERMISSION_DENIED    PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
        RESOURCE_EXHAUSTED   PARTICIPANT_SAID IN_DOUBT FIN-50099 L1   500 1 COMPENSATED  ROLLED_BACK
        FAILED_PRECONDITION  PARTICIPANT_SAID NONE     FIN-40005 L3   400 1 FAILED       ROLLED_BACK
        ABORTED              PARTICIPANT_SAID NONE     FIN-50099 L1   500 2 FAILED       ROLLED_BACK
        OUT_OF_RANGE         PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
        UNIMPLEMENTED        PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
        INTERNAL             PARTICIPANT_SAID IN_DOUBT FIN-50001 L1   500 1 COMPENSATED  ROLLED_BACK
        UNAVAILABLE          PARTICIPANT_SAID IN_DOUBT FIN-50302 L2   503 1 COMPENSATED  ROLLED_BACK
        DATA_LOSS            PARTICIPANT_SAID IN_DOUBT FIN-50099 L1   500 1 COMPENSATED  ROLLED_BACK
        UNAUTHENTICATED      PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
    ";
    assert_eq!(table(false).await, tidy(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_13_all_17_codes_said_by_a_participant_that_deduplicates() {
    let expected = "
        OK                   -            -        -         -      -   1 SUCCEEDED    SUCCEEDED
        CANCELLED            PARTICIPANT_SAID IN_DOUBT FIN-50099 L1   500 1 COMPENSATED  ROLLED_BACK
        UNKNOWN              PARTICIPANT_SAID IN_DOUBT FIN-50001 L1   500 1 COMPENSATED  ROLLED_BACK
        INVALID_ARGUMENT     PARTICIPANT_SAID NONE     FIN-40005 L3   400 1 FAILED       ROLLED_BACK
        DEADLINE_EXCEEDED    PARTICIPANT_SAID IN_DOUBT FIN-50302 L2   503 2 COMPENSATED  ROLLED_BACK
        NOT_FOUND            PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
        ALREADY_EXISTS       PARTICIPANT_SAID IN_DOUBT FIN-50099 L1   500 1 COMPENSATED  ROLLED_BACK
        PERMISSION_DENIED    PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
        RESOURCE_EXHAUSTED   PARTICIPANT_SAID IN_DOUBT FIN-50099 L1   500 2 COMPENSATED  ROLLED_BACK
        FAILED_PRECONDITION  PARTICIPANT_SAID NONE     FIN-40005 L3   400 1 FAILED       ROLLED_BACK
        ABORTED              PARTICIPANT_SAID NONE     FIN-50099 L1   500 2 FAILED       ROLLED_BACK
        OUT_OF_RANGE         PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
        UNIMPLEMENTED        PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
        INTERNAL             PARTICIPANT_SAID IN_DOUBT FIN-50001 L1   500 1 COMPENSATED  ROLLED_BACK
        UNAVAILABLE          PARTICIPANT_SAID IN_DOUBT FIN-50302 L2   503 2 COMPENSATED  ROLLED_BACK
        DATA_LOSS            PARTICIPANT_SAID IN_DOUBT FIN-50099 L1   500 1 COMPENSATED  ROLLED_BACK
        UNAUTHENTICATED      PARTICIPANT_SAID NONE     FIN-50099 L1   500 1 FAILED       ROLLED_BACK
    ";
    assert_eq!(table(true).await, tidy(expected));
}

/// Runs one saga for each code and shows what came of it, a line each: status, evidence, effect, code,
/// tier, HTTP status, actions seen, the branch's end, the saga's end.
async fn table(deduplicates: bool) -> String {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "deduplicatesByKey": deduplicates })).await;
    let judged = step("judged", "bank").with("/action/retry/attemptsMax", ATTEMPTS_MAX);
    api.define(definition("judged", [step("before", "bank"), judged.after(&["before"])])).await;
    // The saga's id is the number of the code to be said to its action.
    bank.answers(|seen| {
        let number: i32 = seen.saga().trim_start_matches("code-").parse().unwrap();
        match (seen.step().as_str(), seen.phase().as_str(), Code::from_i32(number)) {
            ("judged", "action", code) if code != Code::Ok => Reply::status(code, "as asked"),
            _ => Reply::Done,
        }
    });
    let mut lines = Vec::new();
    for code in CODES {
        let id = format!("code-{}", code as i32);
        let saga = api.run("judged", &id).await;
        let judged = branch(&saga, "judged");
        let seen = bank.seen_of(&id);
        let count = |step: &str, phase: &str| {
            seen.iter().filter(|seen| seen.step() == step && seen.phase() == phase).count()
        };
        let undone = judged.state().as_str_name() == "BRANCH_STATE_COMPENSATED";
        assert_eq!(count("judged", "compensation"), usize::from(undone), "{}", shown(&saga));
        let rolled_back = state(&saga) == "ROLLED_BACK";
        assert_eq!(count("before", "compensation"), usize::from(rolled_back), "{}", shown(&saga));
        let words = match &judged.failure {
            None => vec!["OK", "-", "-", "-", "-", "-"].into_iter().map(str::to_owned).collect(),
            Some(failure) => vec![
                failure.grpc_code.clone(),
                failure.evidence().as_str_name().replace("EVIDENCE_", ""),
                failure.effect().as_str_name().replace("EFFECT_", ""),
                failure.fin_code.clone(),
                failure.tier().as_str_name().replace("TIER_", ""),
                failure.http_status.to_string(),
            ],
        };
        assert_eq!(saga.fin_code, if rolled_back { words[3].clone() } else { String::new() });
        let end = judged.state().as_str_name().replace("BRANCH_STATE_", "");
        lines.push(format!("{} {} {end} {}", words.join(" "), count("judged", "action"), state(&saga)));
    }
    lines.join("\n")
}

/// Without indentation and columns.
fn tidy(table: &str) -> String {
    let lines = table.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_in_force_can_be_read_and_says_the_same() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let request = backstop_proto::v1::GetErrorTableRequest { domain: String::new() };
    let table = backstop.api().operator().get_error_table(request).await.unwrap().into_inner();
    let rows: Vec<String> = table
        .rows
        .iter()
        .map(|row| {
            let (effect, tier) = (row.effect().as_str_name(), row.tier().as_str_name());
            format!("{} {effect} {} {tier} {} {}", row.grpc_code, row.fin_code, row.http_status, row.retried)
        })
        .collect();
    assert_eq!(rows.len(), 16, "a row for each status but OK: {rows:#?}");
    for row in [
        "INVALID_ARGUMENT EFFECT_NONE FIN-40005 TIER_L3 400 false",
        "UNAVAILABLE EFFECT_IN_DOUBT FIN-50302 TIER_L2 503 true",
        "INTERNAL EFFECT_IN_DOUBT FIN-50001 TIER_L1 500 false",
        "ABORTED EFFECT_NONE FIN-50099 TIER_L1 500 true",
        "RESOURCE_EXHAUSTED EFFECT_IN_DOUBT FIN-50099 TIER_L1 500 true",
    ] {
        assert!(rows.iter().any(|line| line == row), "{row} is not in {rows:#?}");
    }
    let request = backstop_proto::v1::GetErrorTableRequest { domain: "nobody".to_owned() };
    let refused = backstop.api().operator().get_error_table(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}
