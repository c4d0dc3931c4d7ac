//! The sagas that the range runs, and the requests that start them.

use crate::bank::books::ACCOUNTS;
use crate::rng::Rng;
use backstop_proto::v1::StartSagaRequest;
use prost_types::{Struct, Value as Field, value::Kind};
use serde_json::{Value, json};
use std::time::Duration;

/// The participants of a transfer.
pub const PARTICIPANTS: [&str; 3] = ["risk", "ledger_a", "ledger_b"];
/// Debit and credit at once, from `ledger_a` to `ledger_b`.
pub const CONCURRENT: &str = "range-concurrent";
/// Debit, then credit, from `ledger_b` to `ledger_a`.
pub const SEQUENTIAL: &str = "range-sequential";
/// One debit, nothing else.
pub const SINGLE: &str = "range-single";

/// One transfer in this many finds no money.
const POOR_EVERY: u64 = 20;
/// One transfer in this many goes to an account that is not there.
const NO_ACCOUNT_EVERY: u64 = 20;
/// More than any account ever holds.
const TOO_MUCH: i64 = 1_000_000_000_000_000;

fn call(participant: &str, method: &str, account: &str, timeout: Duration) -> Value {
    json!({
        "participant": participant,
        "method": format!("range.v1.Bank/{method}"),
        "request": {
            "saga": "${saga.id}", "account": format!("${{input.{account}}}"), "amount": "${input.amount}",
        },
        "timeout": format!("{}s", timeout.as_secs_f64()),
        // Short waits: what is measured is the coordinators, not the backoff.
        "retry": { "initialBackoff": "0.02s", "maxBackoff": "0.5s", "attemptsMax": 8 },
    })
}

fn step(name: &str, participant: &str, timeout: Duration, after: &[&str]) -> Value {
    let (method, account) = if name == "debit" { ("Debit", "from") } else { ("Credit", "to") };
    json!({
        "name": name,
        "dependsOn": after,
        "action": call(participant, method, account, timeout),
        "compensation": call(participant, &format!("Undo{method}"), account, timeout),
    })
}

/// The two transfers of the range.
#[must_use]
pub fn transfers(timeout: Duration) -> [Value; 2] {
    let risk = json!({
        "name": "risk", "kind": "STEP_KIND_READ_ONLY", "action": call("risk", "Check", "from", timeout),
    });
    let transfer = |name: &str, from: &str, to: &str, credit_after: &str| {
        json!({ "name": name, "steps": [
            risk.clone(),
            step("debit", from, timeout, &["risk"]),
            step("credit", to, timeout, &[credit_after]),
        ]})
    };
    [
        transfer(CONCURRENT, "ledger_a", "ledger_b", "risk"),
        transfer(SEQUENTIAL, "ledger_b", "ledger_a", "debit"),
    ]
}

/// A saga of one debit at this participant.
#[must_use]
pub fn single(name: &str, participant: &str, timeout: Duration) -> Value {
    json!({ "name": name, "steps": [step("debit", participant, timeout, &[])] })
}

/// A request to start a saga.
#[must_use]
pub fn request(id: &str, definition: &str, from: u32, to: u32, amount: i64) -> StartSagaRequest {
    let input = [("from", from.to_string()), ("to", to.to_string()), ("amount", amount.to_string())];
    with_input(id, definition, input)
}

/// A request to start a saga with this input.
pub(crate) fn with_input<const N: usize>(
    id: &str,
    definition: &str,
    input: [(&str, String); N],
) -> StartSagaRequest {
    let text = |text: String| Field { kind: Some(Kind::StringValue(text)) };
    let fields = input.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
    StartSagaRequest {
        saga_id: id.to_owned(),
        definition: definition.to_owned(),
        input: Some(Struct { fields }),
        ..StartSagaRequest::default()
    }
}

/// The transfer of this number: one of both kinds, a share of them bound to be refused.
#[must_use]
pub fn transfer(seed: u64, number: u64) -> StartSagaRequest {
    let id = format!("t{seed}-{number}");
    let mut rng = Rng::of(seed, &[&id]);
    let definition = if rng.below(2) == 0 { CONCURRENT } else { SEQUENTIAL };
    let mut account = || u32::try_from(rng.below(u64::from(ACCOUNTS))).unwrap_or_default();
    let (from, to) = (account(), account());
    let amount = if rng.below(POOR_EVERY) == 0 { TOO_MUCH } else { 1 + rng.next_u64() as i64 % 1_000 };
    let to = if rng.below(NO_ACCOUNT_EVERY) == 0 { ACCOUNTS + to } else { to };
    request(&id, definition, from, to, amount.abs() + 1)
}
