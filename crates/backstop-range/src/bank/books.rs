//! The books of one ledger: what each transfer did to them, and one answer for each idempotency key.
//!
//! # Invariants
//! * Every attempt with one key gets the same answer, refusals included (`deduplicates_by_key` is true).
//! * A compensation without an action is remembered, does nothing, and its action never takes effect.
//! * A compensation undoes exactly what its own action did.

use crate::wire::{Posting, Receipt};
use std::collections::HashMap;

/// Accounts that a ledger begins with, numbered from 0.
pub const ACCOUNTS: u32 = 200;
/// What each of them holds at first.
pub const OPENING_BALANCE: i64 = 1_000_000_000;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Check,
    /// Takes.
    Debit,
    /// Gives.
    Credit,
    /// Undoes `Debit`.
    UndoDebit,
    /// Undoes `Credit`.
    UndoCredit,
}

/// Why a posting is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not enough on the account.
    Insufficient,
    /// No such account.
    NoAccount,
    /// Its compensation has come already.
    UndoneAlready,
}

/// What a key is answered, for good.
pub type Answer = Result<Receipt, Refusal>;

/// What a saga's step has done to the books in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing, ever.
    Untouched,
    /// It is booked.
    Booked,
    /// It was booked and undone, or was undone before it could be booked.
    Undone,
}

/// What happened to a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The answer.
    pub answer: Answer,
    /// True if the key had been answered before.
    pub is_duplicate: bool,
}

#[derive(Debug, Default)]
struct Entry {
    booked: Option<(u32, i64)>,
    is_undone: bool,
}

/// One ledger.
#[derive(Debug)]
pub struct Books {
    balances: HashMap<u32, i64>,
    /// By saga, then step.
    entries: HashMap<String, HashMap<String, Entry>>,
    answers: HashMap<String, Answer>,
}

impl Default for Books {
    fn default() -> Self {
        let balances = (0..ACCOUNTS).map(|account| (account, OPENING_BALANCE)).collect();
        Self { balances, entries: HashMap::new(), answers: HashMap::new() }
    }
}

impl Books {
    /// Books a call once by its key.
    pub fn take(&mut self, method: Method, saga: &str, step: &str, key: &str, posting: &Posting) -> Taken {
        if let Some(answer) = self.answers.get(key) {
            return Taken { answer: answer.clone(), is_duplicate: true };
        }
        let done = match method {
            Method::Check => Ok(0),
            Method::Debit => self.book(saga, step, posting.account, -posting.amount),
            Method::Credit => self.book(saga, step, posting.account, posting.amount),
            Method::UndoDebit | Method::UndoCredit => Ok(self.undo(saga, step)),
        };
        let answer = done.map(|balance| Receipt { id: key.to_owned(), balance });
        self.answers.insert(key.to_owned(), answer.clone());
        Taken { answer, is_duplicate: false }
    }

    fn entry(&mut self, saga: &str, step: &str) -> &mut Entry {
        self.entries.entry(saga.to_owned()).or_default().entry(step.to_owned()).or_default()
    }

    fn book(&mut self, saga: &str, step: &str, account: u32, change: i64) -> Result<i64, Refusal> {
        if self.entry(saga, step).is_undone {
            return Err(Refusal::UndoneAlready);
        }
        let balance = self.balances.get_mut(&account).ok_or(Refusal::NoAccount)?;
        if *balance + change < 0 {
            return Err(Refusal::Insufficient);
        }
        *balance += change;
        let balance = *balance;
        self.entry(saga, step).booked = Some((account, change));
        Ok(balance)
    }

    fn undo(&mut self, saga: &str, step: &str) -> i64 {
        let entry = self.entry(saga, step);
        let booked = if entry.is_undone { None } else { entry.booked };
        entry.is_undone = true;
        let Some((account, change)) = booked else { return 0 };
        // An undone credit may leave an account overdrawn: its owner has spent it, which is the bank's affair.
        let balance = self.balances.entry(account).or_default();
        *balance -= change;
        *balance
    }

    /// The sum over all accounts.
    #[must_use]
    pub fn sum(&self) -> i64 {
        self.balances.values().sum()
    }

    /// Where a saga's step stands.
    #[must_use]
    pub fn standing(&self, saga: &str, step: &str) -> Standing {
        match self.entries.get(saga).and_then(|steps| steps.get(step)) {
            Some(entry) if entry.is_undone => Standing::Undone,
            Some(entry) if entry.booked.is_some() => Standing::Booked,
            Some(_) | None => Standing::Untouched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posting(account: u32, amount: i64) -> Posting {
        Posting { saga: "s".to_owned(), account, amount }
    }

    #[test]
    fn one_key_has_one_answer_and_one_effect_refusals_included() {
        let mut books = Books::default();
        let before = books.sum();
        let first = books.take(Method::Debit, "s", "debit", "k", &posting(1, 7));
        let again = books.take(Method::Debit, "s", "debit", "k", &posting(1, 7));
        assert_eq!(first.answer, again.answer);
        assert!(!first.is_duplicate && again.is_duplicate);
        assert_eq!(books.sum(), before - 7);
        let refused = books.take(Method::Debit, "s", "other", "k2", &posting(1, i64::MAX));
        assert_eq!(refused.answer, Err(Refusal::Insufficient));
        assert_eq!(books.take(Method::Debit, "s", "other", "k2", &posting(1, 1)).answer, refused.answer);
    }

    #[test]
    fn an_action_after_its_compensation_has_no_effect() {
        let mut books = Books::default();
        let before = books.sum();
        assert!(books.take(Method::UndoCredit, "s", "credit", "undo", &posting(1, 7)).answer.is_ok());
        let late = books.take(Method::Credit, "s", "credit", "do", &posting(1, 7));
        assert_eq!(late.answer, Err(Refusal::UndoneAlready));
        assert_eq!((books.sum(), books.standing("s", "credit")), (before, Standing::Undone));
    }

    #[test]
    fn a_compensation_undoes_what_its_action_did_and_only_once() {
        let mut books = Books::default();
        let before = books.sum();
        books.take(Method::Credit, "s", "credit", "do", &posting(1, 7)).answer.unwrap();
        assert_eq!(books.standing("s", "credit"), Standing::Booked);
        books.take(Method::UndoCredit, "s", "credit", "undo", &posting(1, 7)).answer.unwrap();
        books.take(Method::UndoCredit, "s", "credit", "undo again", &posting(1, 7)).answer.unwrap();
        assert_eq!(books.sum(), before);
    }
}
