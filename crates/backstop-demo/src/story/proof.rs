//! The proof that the money adds up: what the ledgers say against what the transfers' ends say.
//!
//! # Invariants
//! - The two sides are independent: balances come from the ledgers, ends from the coordinator, and the
//!   file's own expectations are not looked at here.

use crate::bank::ledger::Account;
use crate::story::files::Transfer;
use std::collections::{BTreeMap, BTreeSet};

/// One account, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) account: String,
    pub(super) currency: String,
    pub(super) before_minor: i64,
    /// What the transfers that succeeded say.
    pub(super) moved_minor: i64,
    pub(super) after_minor: i64,
    pub(super) pending_minor: i64,
    pub(super) holds: bool,
}

/// One currency over all ledgers, pending money included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) currency: String,
    pub(super) before_minor: i64,
    pub(super) after_minor: i64,
}

/// What was compared, and what does not hold.
#[derive(Debug, Default)]
pub(super) struct Proof {
    pub(super) lines: Vec<Line>,
    pub(super) sums: Vec<Sum>,
    pub(super) faults: Vec<String>,
}

/// Compares balances before and after with the transfers that succeeded.
pub(super) fn money(before: &[Account], after: &[Account], succeeded: &[&Transfer]) -> Proof {
    let mut proof = Proof::default();
    let mut moved: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for transfer in succeeded {
        *moved.entry((&transfer.from, &transfer.currency)).or_default() -= transfer.amount_minor;
        *moved.entry((&transfer.to, &transfer.currency)).or_default() += transfer.amount_minor;
    }
    let mut sums: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for account in before {
        sums.entry(&account.currency).or_default().0 += account.available_minor + account.pending_minor;
    }
    for account in after {
        sums.entry(&account.currency).or_default().1 += account.available_minor + account.pending_minor;
        let Some(was) = before.iter().find(|was| was.account == account.account) else {
            proof.faults.push(format!("account {} was not there before", account.account));
            continue;
        };
        let key = (account.account.as_str(), account.currency.as_str());
        let moved_minor = moved.remove(&key).unwrap_or_default();
        let adds_up = was.available_minor + moved_minor == account.available_minor;
        if !adds_up {
            proof.faults.push(format!(
                "account {} holds {}, and by its transfers should hold {}",
                account.account,
                account.available_minor,
                was.available_minor + moved_minor
            ));
        }
        if account.pending_minor != 0 {
            proof.faults.push(format!("account {} has {} pending", account.account, account.pending_minor));
        }
        if account.available_minor < 0 {
            proof.faults.push(format!("account {} is below zero", account.account));
        }
        proof.lines.push(Line {
            account: account.account.clone(),
            currency: account.currency.clone(),
            before_minor: was.available_minor,
            moved_minor,
            after_minor: account.available_minor,
            pending_minor: account.pending_minor,
            holds: adds_up && account.pending_minor == 0 && account.available_minor >= 0,
        });
    }
    if before.len() != after.len() {
        proof.faults.push(format!("there were {} accounts, and are {}", before.len(), after.len()));
    }
    for ((account, _), moved_minor) in moved {
        proof.faults.push(format!("{moved_minor} went to account {account}, which no ledger keeps"));
    }
    for (currency, (before_minor, after_minor)) in sums {
        if before_minor != after_minor {
            proof.faults.push(format!("the sum in {currency} was {before_minor}, and is {after_minor}"));
        }
        proof.sums.push(Sum { currency: currency.to_owned(), before_minor, after_minor });
    }
    proof
}

/// Compares the audit lines with the transfers that succeeded: one line each, and none for any other.
pub(super) fn audit(audited: &[String], succeeded: &[&Transfer]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for id in audited {
        if !seen.insert(id.as_str()) {
            faults.push(format!("transfer {id} has two audit lines"));
        }
    }
    let wanted: BTreeSet<&str> = succeeded.iter().map(|transfer| transfer.id.as_str()).collect();
    faults
        .extend(wanted.difference(&seen).map(|id| format!("transfer {id} succeeded and has no audit line")));
    faults.extend(
        seen.difference(&wanted).map(|id| format!("transfer {id} has an audit line and did not succeed")),
    );
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::files::Expectation;

    fn account(name: &str, available_minor: i64, pending_minor: i64) -> Account {
        Account { account: name.into(), currency: "EUR".into(), available_minor, pending_minor }
    }

    fn transfer(id: &str, amount_minor: i64) -> Transfer {
        Transfer {
            id: id.into(),
            from: "a".into(),
            to: "b".into(),
            amount_minor,
            currency: "EUR".into(),
            reference: String::new(),
            note: String::new(),
            down: None,
            expect: Expectation::Succeeded,
        }
    }

    #[test]
    fn books_that_say_what_the_transfers_say_hold() {
        let before = [account("a", 100, 0), account("b", 0, 0)];
        let after = [account("a", 70, 0), account("b", 30, 0)];
        let proof = money(&before, &after, &[&transfer("t", 30)]);
        assert_eq!(proof.faults, Vec::<String>::new());
        assert_eq!((proof.sums[0].before_minor, proof.sums[0].after_minor), (100, 100));
        assert!(proof.lines.iter().all(|line| line.holds));
    }

    #[test]
    fn every_way_of_losing_money_is_named() {
        let before = [account("a", 100, 0), account("b", 0, 0)];
        let said = |after: &[Account]| money(&before, after, &[&transfer("t", 30)]).faults.join("; ");
        assert_eq!(
            said(&[account("a", 70, 0), account("b", 29, 0)]),
            "account b holds 29, and by its transfers should hold 30; the sum in EUR was 100, and is 99"
        );
        assert!(said(&[account("a", 70, 0), account("b", 0, 30)]).contains("account b has 30 pending"));
        assert!(said(&[account("a", 100, 0), account("b", 0, 0)]).contains("account a holds 100"));
        assert!(said(&[account("a", 70, 0)]).contains("went to account b, which no ledger keeps"));
        // Both wrong by the same: the sum alone would not see it.
        assert!(said(&[account("a", 60, 0), account("b", 40, 0)]).contains("should hold 70"));
    }

    #[test]
    fn audit_lines_and_successes_are_the_same_set() {
        let (one, two) = (transfer("t-1", 1), transfer("t-2", 1));
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert!(audit(&ids(&["t-2", "t-1"]), &[&one, &two]).is_empty());
        assert_eq!(audit(&ids(&["t-1", "t-1"]), &[&one]).len(), 1);
        assert_eq!(audit(&ids(&["t-1"]), &[&one, &two]).len(), 1);
        assert_eq!(audit(&ids(&["t-1", "t-2"]), &[&one]).len(), 1);
    }
}
