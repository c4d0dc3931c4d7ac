//! What each command does to the accounts: checks first, then writes, all within the caller's transaction.
//!
//! # Invariants
//! - A refusal has written nothing.
//! - A reversal is never refused, except for a credit that is settled.
//!
//! # Not here
//! Idempotency and commit: `books`. Entries and balances: `posting`. Requests that cannot be right: `service`.

use super::posting::{Posted, Posting, entry_id, post};
use super::refusal::Refusal;
use crate::bank::ledger as pb;
use crate::wire::AMOUNT_MINOR_MAX;
use pb::entry::Kind;
use prost::Message;
use sqlx::SqliteConnection;

/// A call that books.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Debit(pb::DebitRequest),
    ReverseDebit(pb::ReverseDebitRequest),
    Credit(pb::CreditRequest),
    ReverseCredit(pb::ReverseCreditRequest),
    SettleCredit(pb::SettleCreditRequest),
}

impl Command {
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Debit(_) => "Debit",
            Self::ReverseDebit(_) => "ReverseDebit",
            Self::Credit(_) => "Credit",
            Self::ReverseCredit(_) => "ReverseCredit",
            Self::SettleCredit(_) => "SettleCredit",
        }
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        match self {
            Self::Debit(request) => request.encode_to_vec(),
            Self::ReverseDebit(request) => request.encode_to_vec(),
            Self::Credit(request) => request.encode_to_vec(),
            Self::ReverseCredit(request) => request.encode_to_vec(),
            Self::SettleCredit(request) => request.encode_to_vec(),
        }
    }
}

/// Carries a command out: the encoded response, or a refusal that has written nothing.
pub(super) async fn book(
    db: &mut SqliteConnection,
    ledger: &str,
    key: &str,
    command: &Command,
    now_unix_micros: i64,
) -> Result<Result<Vec<u8>, Refusal>, sqlx::Error> {
    let mut desk = Desk { db, ledger, key, now_unix_micros };
    Ok(match command {
        Command::Debit(request) => desk.debit(request).await?.map(|response| response.encode_to_vec()),
        Command::ReverseDebit(request) => Ok(desk.reverse_debit(request).await?.encode_to_vec()),
        Command::Credit(request) => desk.credit(request).await?.map(|response| response.encode_to_vec()),
        Command::ReverseCredit(request) => {
            desk.reverse_credit(request).await?.map(|response| response.encode_to_vec())
        }
        Command::SettleCredit(request) => {
            desk.settle_credit(request).await?.map(|response| response.encode_to_vec())
        }
    })
}

/// One half of a transfer as the books have it.
struct Booking {
    state: String,
    entry: Option<i64>,
}

struct Account {
    available_minor: i64,
    pending_minor: i64,
}

struct Desk<'a> {
    db: &'a mut SqliteConnection,
    ledger: &'a str,
    key: &'a str,
    now_unix_micros: i64,
}

impl Desk<'_> {
    async fn debit(
        &mut self,
        request: &pb::DebitRequest,
    ) -> Result<Result<pb::DebitResponse, Refusal>, sqlx::Error> {
        if let Some(booking) = self.booking(&request.transfer_id, "debit").await? {
            return Ok(Err(taken(&booking, &request.transfer_id)));
        }
        let account = match self.account(&request.account, &request.currency).await? {
            Ok(account) => account,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if account.available_minor < request.amount_minor {
            return Ok(Err(Refusal::InsufficientFunds { account: request.account.clone() }));
        }
        let reference = format!("{} (risk {})", request.reference, request.risk_decision_id);
        let moves = (-request.amount_minor, 0);
        let posted =
            self.post(Kind::Debit, &request.transfer_id, &request.account, moves, &reference).await?;
        self.open_booking(&request.transfer_id, "debit", "booked", Some(posted.id)).await?;
        let entry_id = entry_id(self.ledger, posted.id);
        Ok(Ok(pb::DebitResponse { entry_id, available_minor: posted.available_minor }))
    }

    async fn reverse_debit(
        &mut self,
        request: &pb::ReverseDebitRequest,
    ) -> Result<pb::ReverseDebitResponse, sqlx::Error> {
        let Some(booking) = self.booking(&request.transfer_id, "debit").await? else {
            // Remembered, so that a debit still on its way finds the door shut.
            self.open_booking(&request.transfer_id, "debit", "reversed", None).await?;
            return Ok(pb::ReverseDebitResponse::default());
        };
        let (Some(entry), "booked") = (booking.entry, booking.state.as_str()) else {
            return Ok(pb::ReverseDebitResponse::default());
        };
        let (account, available, _) = self.entry(entry).await?;
        let posted = self
            .post(Kind::DebitReversal, &request.transfer_id, &account, (-available, 0), &request.reason)
            .await?;
        self.move_booking(&request.transfer_id, "debit", "reversed").await?;
        Ok(pb::ReverseDebitResponse { entry_id: entry_id(self.ledger, posted.id), reversed: true })
    }

    async fn credit(
        &mut self,
        request: &pb::CreditRequest,
    ) -> Result<Result<pb::CreditResponse, Refusal>, sqlx::Error> {
        if let Some(booking) = self.booking(&request.transfer_id, "credit").await? {
            return Ok(Err(taken(&booking, &request.transfer_id)));
        }
        let account = match self.account(&request.account, &request.currency).await? {
            Ok(account) => account,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let held_minor = account.available_minor.saturating_add(account.pending_minor);
        if held_minor.saturating_add(request.amount_minor) > AMOUNT_MINOR_MAX {
            return Ok(Err(Refusal::TooMuch { account: request.account.clone() }));
        }
        let moves = (0, request.amount_minor);
        let posted = self
            .post(Kind::Credit, &request.transfer_id, &request.account, moves, &request.reference)
            .await?;
        self.open_booking(&request.transfer_id, "credit", "booked", Some(posted.id)).await?;
        let entry_id = entry_id(self.ledger, posted.id);
        Ok(Ok(pb::CreditResponse { entry_id, pending_minor: posted.pending_minor }))
    }

    async fn reverse_credit(
        &mut self,
        request: &pb::ReverseCreditRequest,
    ) -> Result<Result<pb::ReverseCreditResponse, Refusal>, sqlx::Error> {
        let Some(booking) = self.booking(&request.transfer_id, "credit").await? else {
            self.open_booking(&request.transfer_id, "credit", "reversed", None).await?;
            return Ok(Ok(pb::ReverseCreditResponse::default()));
        };
        if booking.state == "settled" {
            return Ok(Err(Refusal::Settled { transfer_id: request.transfer_id.clone() }));
        }
        let (Some(entry), "booked") = (booking.entry, booking.state.as_str()) else {
            return Ok(Ok(pb::ReverseCreditResponse::default()));
        };
        let (account, _, pending) = self.entry(entry).await?;
        let posted = self
            .post(Kind::CreditReversal, &request.transfer_id, &account, (0, -pending), &request.reason)
            .await?;
        self.move_booking(&request.transfer_id, "credit", "reversed").await?;
        Ok(Ok(pb::ReverseCreditResponse { entry_id: entry_id(self.ledger, posted.id), reversed: true }))
    }

    async fn settle_credit(
        &mut self,
        request: &pb::SettleCreditRequest,
    ) -> Result<Result<pb::SettleCreditResponse, Refusal>, sqlx::Error> {
        let transfer_id = request.transfer_id.clone();
        let Some(booking) = self.booking(&transfer_id, "credit").await? else {
            return Ok(Err(Refusal::NotCredited { transfer_id }));
        };
        let entry = match (booking.state.as_str(), booking.entry) {
            ("booked", Some(entry)) => entry,
            ("settled", _) => return Ok(Err(Refusal::Settled { transfer_id })),
            (_, _) => return Ok(Err(Refusal::Reversed { transfer_id })),
        };
        if entry_id(self.ledger, entry) != request.credit_entry_id {
            return Ok(Err(Refusal::OtherEntry { transfer_id }));
        }
        let (account, _, pending) = self.entry(entry).await?;
        let posted =
            self.post(Kind::Settlement, &transfer_id, &account, (pending, -pending), "settled").await?;
        self.move_booking(&transfer_id, "credit", "settled").await?;
        let entry_id = entry_id(self.ledger, posted.id);
        Ok(Ok(pb::SettleCreditResponse { entry_id, available_minor: posted.available_minor }))
    }

    async fn account(
        &mut self,
        account: &str,
        currency: &str,
    ) -> Result<Result<Account, Refusal>, sqlx::Error> {
        let row: Option<(String, i64, i64)> =
            sqlx::query_as("SELECT currency, available_minor, pending_minor FROM account WHERE account = ?1")
                .bind(account)
                .fetch_optional(&mut *self.db)
                .await?;
        Ok(match row {
            None => Err(Refusal::UnknownAccount { account: account.to_owned() }),
            Some((kept_in, _, _)) if kept_in != currency => {
                Err(Refusal::OtherCurrency { account: account.to_owned(), currency: kept_in })
            }
            Some((_, available_minor, pending_minor)) => Ok(Account { available_minor, pending_minor }),
        })
    }

    async fn booking(&mut self, transfer_id: &str, half: &str) -> Result<Option<Booking>, sqlx::Error> {
        let row: Option<(String, Option<i64>)> =
            sqlx::query_as("SELECT state, entry FROM booking WHERE transfer_id = ?1 AND half = ?2")
                .bind(transfer_id)
                .bind(half)
                .fetch_optional(&mut *self.db)
                .await?;
        Ok(row.map(|(state, entry)| Booking { state, entry }))
    }

    async fn open_booking(
        &mut self,
        transfer_id: &str,
        half: &str,
        state: &str,
        entry: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO booking VALUES (?1, ?2, ?3, ?4)")
            .bind(transfer_id)
            .bind(half)
            .bind(state)
            .bind(entry)
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    async fn move_booking(&mut self, transfer_id: &str, half: &str, state: &str) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE booking SET state = ?3 WHERE transfer_id = ?1 AND half = ?2")
            .bind(transfer_id)
            .bind(half)
            .bind(state)
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    /// An entry's account and moves: available, pending.
    async fn entry(&mut self, id: i64) -> Result<(String, i64, i64), sqlx::Error> {
        sqlx::query_as("SELECT account, available_delta_minor, pending_delta_minor FROM entry WHERE id = ?1")
            .bind(id)
            .fetch_one(&mut *self.db)
            .await
    }

    async fn post(
        &mut self,
        kind: Kind,
        transfer_id: &str,
        account: &str,
        (available_delta_minor, pending_delta_minor): (i64, i64),
        reference: &str,
    ) -> Result<Posted, sqlx::Error> {
        let posting = Posting {
            key: Some(self.key),
            kind,
            transfer_id,
            account,
            available_delta_minor,
            pending_delta_minor,
            reference,
            now_unix_micros: self.now_unix_micros,
        };
        post(self.db, &posting).await
    }
}

/// Why a half that is in the books cannot be booked again.
fn taken(booking: &Booking, transfer_id: &str) -> Refusal {
    let transfer_id = transfer_id.to_owned();
    if booking.state == "reversed" {
        Refusal::Reversed { transfer_id }
    } else {
        Refusal::Booked { transfer_id }
    }
}
