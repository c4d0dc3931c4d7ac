//! The payments of the chaos: money from an account of one ledger to an account of another, and a fee to a
//! third.
//!
//! Four branches: `debit` holds amount and fee at the payer's ledger, `credit` and `fee` put them on accounts of
//! two others, `settle` sends what is held. In one shape `settle` comes last; in the other it runs beside
//! `credit` and `fee`, so that a refusal there undoes a settlement and then its debit, in this order.
//!
//! # Invariants
//! * A payment follows from seed and number alone, so the oracles know it without asking anybody.

use crate::definition::with_input;
use crate::rng::Rng;
use crate::wire::Entry;
use backstop_proto::v1::StartSagaRequest;
use serde_json::{Value, json};
use std::time::Duration;

/// Accounts that a ledger begins with.
pub const ACCOUNTS: u32 = 200;
/// What each of them holds at first.
pub const OPENING_BALANCE: i64 = 1_000_000_000;
/// Fewest ledgers that payments need.
pub const LEDGERS_MIN: usize = 3;
/// The branches.
pub const STEPS: [&str; 4] = ["debit", "credit", "fee", "settle"];

/// One payment in this many finds no money.
const POOR_EVERY: u64 = 20;
/// One payment in this many goes to an account that is not there.
const NO_ACCOUNT_EVERY: u64 = 20;
/// More than any account ever holds.
const TOO_MUCH: i64 = 2 * OPENING_BALANCE;

/// In which order its branches run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `debit`, then `credit` and `fee`, then `settle`.
    Sequential,
    /// `debit`, `credit` and `fee` at once; `settle` after `debit`.
    Concurrent,
}

impl Shape {
    const ALL: [Self; 2] = [Self::Sequential, Self::Concurrent];

    fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Concurrent => "concurrent",
        }
    }
}

/// A payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The saga.
    pub saga: String,
    /// In which order.
    pub shape: Shape,
    /// The ledgers of payer, payee and fee.
    pub ledgers: [usize; 3],
    /// Their accounts.
    pub accounts: [u32; 3],
    /// What the payee gets.
    pub amount: i64,
    /// What it costs the payer beside.
    pub fee: i64,
}

/// Names and endpoints are told apart by number.
#[must_use]
pub fn ledger_name(number: usize) -> String {
    format!("ledger_{number}")
}

impl Payment {
    /// The payment of this number among so many ledgers.
    #[must_use]
    pub fn of(seed: u64, number: u64, ledgers: usize) -> Self {
        let saga = format!("p{seed}-{number}");
        let mut rng = Rng::of(seed, &[&saga]);
        let mut below = |end: u64| usize::try_from(rng.below(end)).unwrap_or_default();
        let shape = if below(2) == 0 { Shape::Sequential } else { Shape::Concurrent };
        let pairs = pairs(ledgers);
        let place = below(pairs.len() as u64);
        let ledgers = pairs.get(place).copied().unwrap_or_default();
        let mut account = || u32::try_from(below(u64::from(ACCOUNTS))).unwrap_or_default();
        let mut accounts = [account(), account(), account()];
        let fee = 1 + i64::try_from(rng.below(20)).unwrap_or_default();
        let mut amount = 1 + i64::try_from(rng.below(1_000)).unwrap_or_default();
        if rng.below(POOR_EVERY) == 0 {
            amount = TOO_MUCH;
        }
        if rng.below(NO_ACCOUNT_EVERY) == 0 {
            accounts[1] += ACCOUNTS;
        }
        Self { saga, shape, ledgers, accounts, amount, fee }
    }

    /// What the payer is charged.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.amount + self.fee
    }

    /// The money that a branch moves.
    #[must_use]
    pub fn money_of(&self, step: &str) -> i64 {
        match step {
            "credit" => self.amount,
            "fee" => self.fee,
            _ => self.total(),
        }
    }

    /// The ledger that a branch is done at.
    #[must_use]
    pub fn ledger_of(&self, step: &str) -> usize {
        let [payer, payee, fee] = self.ledgers;
        match step {
            "credit" => payee,
            "fee" => fee,
            _ => payer,
        }
    }

    /// What a branch leaves in its ledger's books, sorted by peer.
    #[must_use]
    pub fn entries_of(&self, step: &str) -> Vec<Entry> {
        let ([payer, payee, fee_to], [from, to, fee_account]) = (self.ledgers, self.accounts);
        let entry = |peer: usize, account: u32| Entry {
            saga: self.saga.clone(),
            step: step.to_owned(),
            peer: ledger_name(peer),
            account,
            ..Entry::default()
        };
        let received = |account, amount| Entry { balance: amount, received: amount, ..entry(payer, account) };
        let legs = [(payee, self.amount), (fee_to, self.fee)];
        let mut entries: Vec<Entry> = match step {
            "debit" => legs
                .map(|(peer, amount)| Entry { balance: -amount, pending: amount, ..entry(peer, from) })
                .to_vec(),
            "settle" => legs
                .map(|(peer, amount)| Entry { pending: -amount, sent: amount, ..entry(peer, from) })
                .to_vec(),
            "credit" => vec![received(to, self.amount)],
            "fee" => vec![received(fee_account, self.fee)],
            _ => Vec::new(),
        };
        entries.sort_by(|a, b| a.peer.cmp(&b.peer));
        entries
    }

    /// The request that starts it.
    #[must_use]
    pub fn request(&self) -> StartSagaRequest {
        let [from, to, fee_account] = self.accounts;
        let input = [
            ("from", from.to_string()),
            ("to", to.to_string()),
            ("fee_account", fee_account.to_string()),
            ("amount", self.amount.to_string()),
            ("fee", self.fee.to_string()),
        ];
        with_input(&self.saga, &definition_name(self.shape, self.ledgers), input)
    }
}

/// Payer, payee, and who gets the fee: every pair of ledgers, and with each the next one after them.
fn pairs(ledgers: usize) -> Vec<[usize; 3]> {
    let mut pairs = Vec::new();
    for payer in 0..ledgers {
        for payee in (0..ledgers).filter(|payee| *payee != payer) {
            let after = (1..ledgers).map(|step| (payee + step) % ledgers);
            let fee = after.into_iter().find(|other| *other != payer && *other != payee);
            pairs.extend(fee.map(|fee| [payer, payee, fee]));
        }
    }
    pairs
}

fn definition_name(shape: Shape, [payer, payee, fee]: [usize; 3]) -> String {
    format!("payment-{payer}-{payee}-{fee}-{}", shape.name())
}

/// A definition for each pair of ledgers and each shape. A compensation is given up after so long, if that is
/// said.
#[must_use]
pub fn definitions(ledgers: usize, timeout: Duration, give_up_after: Option<Duration>) -> Vec<Value> {
    let of = |ledgers| Shape::ALL.map(|shape| definition(shape, ledgers, timeout, give_up_after));
    pairs(ledgers).into_iter().flat_map(of).collect()
}

fn definition(
    shape: Shape,
    ledgers: [usize; 3],
    timeout: Duration,
    give_up_after: Option<Duration>,
) -> Value {
    let [payer, payee, fee] = ledgers;
    let leg = |peer: usize, amount: &str| json!({ "peer": ledger_name(peer), "amount": amount });
    let (amount, cost) = ("${input.amount}", "${input.fee}");
    let sent = json!([leg(payee, amount), leg(fee, cost)]);
    let step = |name: &str, ledger: usize, method: &str, account: &str, legs: &Value, after: &[&str]| {
        let call = |method: String| {
            json!({
                "participant": ledger_name(ledger),
                "method": format!("range.v1.Ledger/{method}"),
                "request": { "account": account, "legs": legs },
                "timeout": seconds(timeout),
                // Short waits: what is measured is the coordinators, not the backoff.
                "retry": { "initialBackoff": "0.02s", "maxBackoff": "0.5s", "attemptsMax": 8 },
            })
        };
        let mut compensation = call(format!("Undo{method}"));
        if let (Some(after), Some(retry)) = (give_up_after, compensation.get_mut("retry")) {
            retry["giveUpAfter"] = seconds(after).into();
        }
        json!({ "name": name, "dependsOn": after, "action": call(method.to_owned()), "compensation": compensation })
    };
    let (after_debit, before_settle): (&[&str], &[&str]) = match shape {
        Shape::Sequential => (&["debit"], &["debit", "credit", "fee"]),
        Shape::Concurrent => (&[], &["debit"]),
    };
    json!({ "name": definition_name(shape, ledgers), "steps": [
        step("debit", payer, "Debit", "${input.from}", &sent, &[]),
        step("credit", payee, "Credit", "${input.to}", &json!([leg(payer, amount)]), after_debit),
        step("fee", fee, "Credit", "${input.fee_account}", &json!([leg(payer, cost)]), after_debit),
        step("settle", payer, "Settle", "${input.from}", &sent, before_settle),
    ]})
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_ledgers_pays_and_the_fee_goes_to_a_third() {
        let pairs = pairs(4);
        assert_eq!(pairs.len(), 12);
        assert!(pairs.iter().all(|[a, b, c]| a != b && b != c && a != c));
        assert_eq!(definitions(4, Duration::from_secs(2), None).len(), 24);
    }

    #[test]
    fn what_a_payment_leaves_in_the_books_adds_up() {
        let payment = Payment::of(1, 2, 4);
        assert_eq!(payment, Payment::of(1, 2, 4));
        let all: Vec<Entry> = STEPS.iter().flat_map(|step| payment.entries_of(step)).collect();
        let sum = |of: fn(&Entry) -> i64| all.iter().map(of).sum::<i64>();
        assert_eq!((sum(|e| e.balance), sum(|e| e.pending)), (0, 0));
        assert_eq!((sum(|e| e.sent), sum(|e| e.received)), (payment.total(), payment.total()));
    }
}
