//! A call without an answer may have taken effect. What is done about it depends on whether the
//! participant deduplicates, and nothing else.

use crate::common::api::{branch, shown, state};
use crate::common::script::Seen;
use crate::common::{Backstop, Bank, Engine, Reply, definition, step};
use serde_json::json;
use tonic::Code;

/// Short enough to be waited for, long enough for a call on a busy machine to arrive.
const TIMEOUT: &str = "0.5s";

#[tokio::test(flavor = "multi_thread")]
async fn a_first_attempt_without_answer_is_undone_for_a_participant_that_does_not_deduplicate() {
    let (backstop, bank) = hangs_then_refuses(false).await;
    let saga = backstop.api().run("doubted", "doubted").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    // Nothing may be resent to it, so the second attempt, which would refuse, never comes.
    assert_eq!(bank_saw(&bank), ["debit/action#1", "debit/compensation#1"]);
    let debit = branch(&saga, "debit");
    assert_eq!(debit.state().as_str_name(), "BRANCH_STATE_COMPENSATED");
    let failure = debit.failure.as_ref().unwrap();
    assert_eq!(failure.evidence().as_str_name(), "EVIDENCE_DEADLINE");
    assert_eq!((failure.grpc_code.as_str(), failure.fin_code.as_str()), ("DEADLINE_EXCEEDED", "FIN-50302"));
    assert_eq!(failure.tier().as_str_name(), "TIER_L2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_second_attempt_settles_the_first_for_a_participant_that_deduplicates() {
    let (backstop, bank) = hangs_then_refuses(true).await;
    let saga = backstop.api().run("doubted", "doubted").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    assert_eq!(bank_saw(&bank), ["debit/action#1", "debit/action#2"], "refused for both: nothing to undo");
    let seen = bank.seen();
    assert_eq!(seen[0].key(), seen[1].key());
    assert_eq!(seen[0].bytes, seen[1].bytes);
    let debit = branch(&saga, "debit");
    assert_eq!(debit.state().as_str_name(), "BRANCH_STATE_FAILED");
    assert!(!debit.in_doubt);
    assert_eq!(debit.failure.as_ref().unwrap().fin_code, "FIN-40005");
}

/// Not known to deduplicate, but each attempt so far had certainly no effect but the first: a refusal on
/// the second attempt leaves the first in doubt.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_a_later_attempt_leaves_the_doubt_of_an_earlier_one() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let debit = step("debit", "bank")
        .with("/inDoubt", "IN_DOUBT_QUERY")
        .with("/query", json!({ "participant": "bank", "method": "testbank.v1.Bank/Ask", "request": {} }))
        .with("/action/timeout", TIMEOUT);
    api.define(definition("asked", [debit])).await;
    bank.answers(|seen| match (seen.phase().as_str(), seen.attempt()) {
        ("action", 1) => Reply::Hang,
        ("query", _) => Reply::status(Code::NotFound, "never came"),
        ("action", _) => Reply::status(Code::FailedPrecondition, "no funds"),
        _ => Reply::Done,
    });
    let saga = api.run("asked", "asked").await;
    // The participant swore that the first attempt never took effect, so the refusal stands alone.
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    assert_eq!(bank_saw(&bank), ["debit/action#1", "debit/query#1", "debit/action#2"]);
    assert_eq!(branch(&saga, "debit").state().as_str_name(), "BRANCH_STATE_FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_after_the_request_leaves_doubt_and_is_undone() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("cut", [step("debit", "bank")])).await;
    bank.answers(|seen| if seen.phase() == "action" { Reply::Drop } else { Reply::Done });
    let saga = api.run("cut", "cut").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    assert_eq!(bank_saw(&bank), ["debit/action#1", "debit/compensation#1"]);
    let failure = branch(&saga, "debit").failure.clone().unwrap();
    assert_eq!(failure.evidence().as_str_name(), "EVIDENCE_CONNECTION_LOST");
    assert_eq!((failure.grpc_code.as_str(), failure.fin_code.as_str()), ("UNAVAILABLE", "FIN-50302"));
    assert_eq!(failure.effect().as_str_name(), "EFFECT_IN_DOUBT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_is_not_there_was_never_called_and_is_not_compensated() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let gone = Bank::start("gone").await;
    api.enlist(&gone).await;
    let credit = step("credit", "gone").after(&["debit"]).with("/action/retry/attemptsMax", 3);
    api.define(definition("nobody", [step("debit", "bank"), credit])).await;
    drop(gone);
    let saga = api.run("nobody", "nobody").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let credit = branch(&saga, "credit");
    assert_eq!(credit.state().as_str_name(), "BRANCH_STATE_FAILED", "{}", shown(&saga));
    assert_eq!((credit.action_attempts, credit.compensation_attempts), (3, 0));
    let failure = credit.failure.as_ref().unwrap();
    assert_eq!(failure.evidence().as_str_name(), "EVIDENCE_NO_CONNECTION");
    assert_eq!((failure.grpc_code.as_str(), failure.fin_code.as_str()), ("UNAVAILABLE", "FIN-50302"));
    assert_eq!(bank_saw(&bank), ["debit/action#1", "debit/compensation#1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_message_leaves_doubt_and_pages() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let debit = step("debit", "bank");
    api.define(definition("garbled", [debit])).await;
    // Field 1 is a text; this says that it is one of a length that the message does not have.
    bank.answers(|seen| match seen.phase().as_str() {
        "action" => Reply::Bytes(bytes::Bytes::from_static(&[0x0a, 0x7f, 0x01])),
        _ => Reply::Done,
    });
    let saga = api.run("garbled", "garbled").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let failure = branch(&saga, "debit").failure.clone().unwrap();
    assert_eq!(failure.evidence().as_str_name(), "EVIDENCE_BAD_ANSWER");
    assert_eq!((failure.grpc_code.as_str(), failure.fin_code.as_str()), ("INTERNAL", "FIN-50001"));
    assert_eq!(bank_saw(&bank), ["debit/action#1", "debit/compensation#1"]);
}

async fn hangs_then_refuses(deduplicates: bool) -> (Backstop, Bank) {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "deduplicatesByKey": deduplicates })).await;
    let debit = step("debit", "bank").with("/action/timeout", TIMEOUT);
    api.define(definition("doubted", [debit])).await;
    bank.answers(|seen| match (seen.phase().as_str(), seen.attempt()) {
        ("action", 1) => Reply::Hang,
        ("action", _) => Reply::status(Code::FailedPrecondition, "no funds"),
        _ => Reply::Done,
    });
    (backstop, bank)
}

fn bank_saw(bank: &Bank) -> Vec<String> {
    bank.seen().iter().map(Seen::short).collect()
}
