//! Why a ledger says no: a closed list, stored as it was said, so that it can be said again.

use super::DOMAIN;
use crate::wire::RefusalText;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

/// A business refusal. It has changed no balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// No such account here.
    UnknownAccount { account: String },
    /// The account is kept in another currency.
    OtherCurrency { account: String, currency: String },
    /// The account holds too little.
    InsufficientFunds { account: String },
    /// The account would hold more than a ledger keeps exactly.
    TooMuch { account: String },
    /// The transfer's booking was reversed, perhaps before it came.
    Reversed { transfer_id: String },
    /// The transfer has this half already, under another key.
    Booked { transfer_id: String },
    /// The transfer has no credit to settle.
    NotCredited { transfer_id: String },
    /// The credit is another entry.
    OtherEntry { transfer_id: String },
    /// The credit has been made available: it may have been spent.
    Settled { transfer_id: String },
    /// The account is there, opened otherwise.
    OpenedOtherwise { account: String },
    /// The key came with another request. Not stored: the key's answer is the first request's.
    KeyReused,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason, field, message) = match &refusal {
            Refusal::UnknownAccount { account } => (
                Code::InvalidArgument,
                "UNKNOWN_ACCOUNT",
                "account",
                format!("no account {account} is kept here"),
            ),
            Refusal::OtherCurrency { account, currency } => (
                Code::InvalidArgument,
                "OTHER_CURRENCY",
                "currency",
                format!("account {account} is kept in {currency}"),
            ),
            Refusal::InsufficientFunds { account } => (
                Code::FailedPrecondition,
                "INSUFFICIENT_FUNDS",
                "amount_minor",
                format!("insufficient funds on {account}"),
            ),
            Refusal::TooMuch { account } => (
                Code::FailedPrecondition,
                "BALANCE_LIMIT",
                "amount_minor",
                format!("account {account} would hold more than a ledger keeps"),
            ),
            Refusal::Reversed { transfer_id } => (
                Code::FailedPrecondition,
                "TRANSFER_REVERSED",
                "transfer_id",
                format!("transfer {transfer_id} is reversed: nothing is booked for it any more"),
            ),
            Refusal::Booked { transfer_id } => (
                Code::FailedPrecondition,
                "TRANSFER_BOOKED",
                "transfer_id",
                format!("transfer {transfer_id} is booked already, under another idempotency key"),
            ),
            Refusal::NotCredited { transfer_id } => (
                Code::FailedPrecondition,
                "NOT_CREDITED",
                "transfer_id",
                format!("transfer {transfer_id} has no pending credit"),
            ),
            Refusal::OtherEntry { transfer_id } => (
                Code::InvalidArgument,
                "OTHER_ENTRY",
                "credit_entry_id",
                format!("the credit of transfer {transfer_id} is another entry"),
            ),
            Refusal::Settled { transfer_id } => (
                Code::FailedPrecondition,
                "TRANSFER_SETTLED",
                "transfer_id",
                format!("transfer {transfer_id} is settled: its money may have been spent"),
            ),
            Refusal::OpenedOtherwise { account } => (
                Code::InvalidArgument,
                "OPENED_OTHERWISE",
                "account",
                format!("account {account} is there, with another currency or opening balance"),
            ),
            Refusal::KeyReused => (
                Code::InvalidArgument,
                "KEY_REUSED",
                "idempotency-key",
                "this idempotency key came with another request before".to_owned(),
            ),
        };
        let for_customer = match &refusal {
            Refusal::InsufficientFunds { .. } => Some("Your account does not cover this transfer."),
            Refusal::UnknownAccount { .. } => Some("This account does not exist."),
            Refusal::OtherCurrency { .. }
            | Refusal::TooMuch { .. }
            | Refusal::Reversed { .. }
            | Refusal::Booked { .. }
            | Refusal::NotCredited { .. }
            | Refusal::OtherEntry { .. }
            | Refusal::Settled { .. }
            | Refusal::OpenedOtherwise { .. }
            | Refusal::KeyReused => None,
        };
        RefusalText { code, domain: DOMAIN, reason, message, field, for_customer }.into_status()
    }
}
