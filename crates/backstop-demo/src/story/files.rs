//! The files that the story is made of: accounts, participants, and transfers with how each must end.
//!
//! # Invariants
//! - Nothing is guessed: a cell that cannot be is an error with file, line and column.
//!
//! # Not here
//! The definition: the binary reads its YAML ([`DEFINITION_YAML`]) as it reads any definition.

use super::csv::{Row, rows};
use crate::wire::AMOUNT_MINOR_MAX;
use backstop_proto::v1;
use serde::Deserialize;
use std::collections::BTreeSet;

/// `examples/transfer/transfer.yaml`, for the binary's definition reader.
pub const DEFINITION_YAML: &str = include_str!("../../../../examples/transfer/transfer.yaml");
/// `examples/transfer/transfers.csv`.
pub const TRANSFERS_CSV: &str = include_str!("../../../../examples/transfer/transfers.csv");
/// `examples/transfer/accounts.csv`.
pub const ACCOUNTS_CSV: &str = include_str!("../../../../examples/transfer/accounts.csv");
/// `examples/transfer/participants.json`.
pub const PARTICIPANTS_JSON: &str = include_str!("../../../../examples/transfer/participants.json");

const TRANSFER_COLUMNS: &[&str] = &[
    "id",
    "from",
    "to",
    "amount_minor",
    "currency",
    "reference",
    "note",
    "down",
    "expect_state",
    "expect_step",
    "expect_code",
    "expect_tier",
];
const ACCOUNT_COLUMNS: &[&str] = &["ledger", "account", "currency", "opening_minor"];
/// Longest saga id that Backstop takes, in bytes.
const ID_BYTES_MAX: usize = 128;

/// What is wrong with a file, and where.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct FileError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Another header.
    #[error("the header must be: {0}")]
    Header(String),
    /// Too many or too few cells.
    #[error("has {found} cells, and the header {expected}")]
    Cells {
        /// As many as there are.
        found: usize,
        /// As many as there should be.
        expected: usize,
    },
    /// A quote within a cell, or one that is not closed.
    #[error("has a quote out of place")]
    Quote,
    /// Nothing but a header.
    #[error("has no line after the header")]
    Empty,
    /// A cell that cannot be.
    #[error("{column} is {value:?}, and must be {rule}")]
    Cell {
        /// The column.
        column: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        rule: &'static str,
    },
    /// A name that is taken.
    #[error("{0:?} stands on an earlier line already")]
    Duplicate(String),
    /// The JSON is none, or has another shape.
    #[error("{0}")]
    Json(String),
}

/// How a transfer must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// SUCCEEDED.
    Succeeded,
    /// ROLLED_BACK, because of this.
    RolledBack {
        /// The step that failed.
        step: String,
        /// `FIN-nnnnn`.
        fin_code: String,
        /// How loud.
        tier: v1::Tier,
    },
}

/// One line of the transfers file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Also the saga's id.
    pub id: String,
    /// Account that pays.
    pub from: String,
    /// Account that is paid.
    pub to: String,
    /// Minor units.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// The payer's.
    pub reference: String,
    /// For the reader of the story, and for the auditor.
    pub note: String,
    /// A service that is killed before this transfer starts, and comes back when the saga has decided.
    pub down: Option<String>,
    /// How it must end.
    pub expect: Expectation,
}

/// One line of the accounts file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The service that keeps it.
    pub ledger: String,
    /// Its IBAN.
    pub account: String,
    /// ISO 4217.
    pub currency: String,
    /// Minor units.
    pub opening_minor: i64,
}

/// One participant's registration, as `backstop.v1.Participant` has it in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// Where it listens; the demo puts the address in that its own process has.
    pub endpoints: Vec<String>,
    /// See `backstop.v1.Participant`.
    pub deduplicates_by_key: bool,
    /// See `backstop.v1.Participant`.
    pub rollback_listener: bool,
}

/// Reads transfers. `services` are the names that `down` may hold.
///
/// # Errors
/// The first [`FileError`].
pub fn transfers(file: &str, text: &str, services: &[&str]) -> Result<Vec<Transfer>, FileError> {
    let mut ids = BTreeSet::new();
    let mut transfers = Vec::new();
    for row in rows(file, text, TRANSFER_COLUMNS)? {
        let at = |problem| FileError { file: file.to_owned(), line: row.line, problem };
        let transfer = transfer(&row, services).map_err(at)?;
        if !ids.insert(transfer.id.clone()) {
            return Err(at(Problem::Duplicate(transfer.id)));
        }
        transfers.push(transfer);
    }
    Ok(transfers)
}

fn transfer(row: &Row, services: &[&str]) -> Result<Transfer, Problem> {
    let is_id = |text: &str| text.len() <= ID_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    let down = row.cell("down");
    let is_known = down.is_empty() || services.contains(&down);
    Ok(Transfer {
        id: require(row, "id", "1 to 128 visible ASCII characters", |text| !text.is_empty() && is_id(text))?,
        from: filled(row, "from")?,
        to: filled(row, "to")?,
        amount_minor: amount(row, "amount_minor", 1)?,
        currency: currency(row)?,
        reference: row.cell("reference").to_owned(),
        note: row.cell("note").to_owned(),
        down: Some(require(row, "down", "empty or one of the demo's services", |_| is_known)?)
            .filter(|name| !name.is_empty()),
        expect: expectation(row)?,
    })
}

fn expectation(row: &Row) -> Result<Expectation, Problem> {
    const CAUSE: [&str; 3] = ["expect_step", "expect_code", "expect_tier"];
    match row.cell("expect_state") {
        "SUCCEEDED" => {
            for column in CAUSE {
                require(row, column, "empty, since the transfer is to succeed", str::is_empty)?;
            }
            Ok(Expectation::Succeeded)
        }
        "ROLLED_BACK" => {
            let is_code = |text: &str| {
                text.strip_prefix("FIN-")
                    .is_some_and(|digits| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()))
            };
            let tier = require(row, "expect_tier", "L1, L2 or L3", |text| tier(text).is_some())?;
            Ok(Expectation::RolledBack {
                step: filled(row, "expect_step")?,
                fin_code: require(row, "expect_code", "of the form FIN-40005", is_code)?,
                tier: self::tier(&tier).unwrap_or_default(),
            })
        }
        other => Err(Problem::Cell {
            column: "expect_state",
            value: other.to_owned(),
            rule: "SUCCEEDED or ROLLED_BACK",
        }),
    }
}

fn tier(text: &str) -> Option<v1::Tier> {
    match text {
        "L1" => Some(v1::Tier::L1),
        "L2" => Some(v1::Tier::L2),
        "L3" => Some(v1::Tier::L3),
        _ => None,
    }
}

/// Reads accounts. `ledgers` are the services that may keep them.
///
/// # Errors
/// The first [`FileError`].
pub fn accounts(file: &str, text: &str, ledgers: &[&str]) -> Result<Vec<Account>, FileError> {
    let mut names = BTreeSet::new();
    let mut accounts = Vec::new();
    for row in rows(file, text, ACCOUNT_COLUMNS)? {
        let at = |problem| FileError { file: file.to_owned(), line: row.line, problem };
        let account = account(&row, ledgers).map_err(at)?;
        if !names.insert(account.account.clone()) {
            return Err(at(Problem::Duplicate(account.account)));
        }
        accounts.push(account);
    }
    Ok(accounts)
}

fn account(row: &Row, ledgers: &[&str]) -> Result<Account, Problem> {
    Ok(Account {
        ledger: require(row, "ledger", "one of the demo's ledgers", |text| ledgers.contains(&text))?,
        account: filled(row, "account")?,
        currency: currency(row)?,
        opening_minor: amount(row, "opening_minor", 0)?,
    })
}

/// Reads registrations: exactly one for each of `services`.
///
/// # Errors
/// [`FileError`].
pub fn registrations(file: &str, text: &str, services: &[&str]) -> Result<Vec<Registration>, FileError> {
    let at = |line, problem| FileError { file: file.to_owned(), line, problem: Problem::Json(problem) };
    let all: Vec<Registration> =
        serde_json::from_str(text).map_err(|error| at(error.line(), error.to_string()))?;
    let mut named: Vec<&str> = all.iter().map(|registration| registration.name.as_str()).collect();
    let mut expected = services.to_vec();
    named.sort_unstable();
    expected.sort_unstable();
    if named != expected {
        let problem = format!("registers {}, and must register {}", named.join(", "), expected.join(", "));
        return Err(at(1, problem));
    }
    Ok(all)
}

fn require(
    row: &Row,
    column: &'static str,
    rule: &'static str,
    holds: impl Fn(&str) -> bool,
) -> Result<String, Problem> {
    let value = row.cell(column).to_owned();
    if holds(&value) { Ok(value) } else { Err(Problem::Cell { column, value, rule }) }
}

fn filled(row: &Row, column: &'static str) -> Result<String, Problem> {
    require(row, column, "filled in", |text| !text.is_empty())
}

fn currency(row: &Row) -> Result<String, Problem> {
    require(row, "currency", "three capital letters", |text| {
        text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
    })
}

/// A whole number of minor units. Only digits: no sign, no space, no decimal point.
fn amount(row: &Row, column: &'static str, at_least: i64) -> Result<i64, Problem> {
    let value = row.cell(column);
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let parsed = if digits { value.parse().ok() } else { None };
    parsed.filter(|minor| (at_least..=AMOUNT_MINOR_MAX).contains(minor)).ok_or_else(|| Problem::Cell {
        column,
        value: value.to_owned(),
        rule: "a whole number of minor units, at most 10^15",
    })
}

#[cfg(test)]
mod tests;
