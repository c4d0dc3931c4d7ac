//! A ledger on a file of its own, called as a service, without sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs, unreachable_pub)]

use backstop_demo::bank::ledger as pb;
use backstop_demo::bank::ledger::ledger_service_server::LedgerService;
use backstop_demo::ledger::{Books, Ledger};
use tempfile::TempDir;
use tonic::{Request, Response, Status};

pub struct Bench {
    dir: TempDir,
    pub ledger: Ledger,
    pub books: Books,
}

impl Bench {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, books) = open(&dir).await;
        Self { dir, ledger, books }
    }

    /// Lets go of the file without a word, and opens it again.
    pub async fn reopened(self) -> Self {
        let Self { dir, ledger, books } = self;
        drop((ledger, books));
        let (ledger, books) = open(&dir).await;
        Self { dir, ledger, books }
    }

    pub async fn account(&self, account: &str, opening_minor: i64) {
        let request =
            pb::OpenAccountRequest { account: account.into(), currency: "EUR".into(), opening_minor };
        self.ledger.open_account(Request::new(request)).await.unwrap();
    }

    /// Available and pending.
    pub async fn balance(&self, account: &str) -> (i64, i64) {
        let all = self.books.balances().await.unwrap();
        let account = all.iter().find(|a| a.account == account).unwrap();
        (account.available_minor, account.pending_minor)
    }

    pub async fn debit(
        &self,
        key: &str,
        transfer: &str,
        account: &str,
        minor: i64,
    ) -> Result<pb::DebitResponse, Status> {
        let request = pb::DebitRequest {
            transfer_id: transfer.into(),
            account: account.into(),
            amount_minor: minor,
            currency: "EUR".into(),
            reference: "rent".into(),
            risk_decision_id: "r-1".into(),
        };
        self.ledger.debit(keyed(key, request)).await.map(Response::into_inner)
    }

    pub async fn credit(
        &self,
        key: &str,
        transfer: &str,
        account: &str,
        minor: i64,
    ) -> Result<pb::CreditResponse, Status> {
        let request = pb::CreditRequest {
            transfer_id: transfer.into(),
            account: account.into(),
            amount_minor: minor,
            currency: "EUR".into(),
            reference: "rent".into(),
        };
        self.ledger.credit(keyed(key, request)).await.map(Response::into_inner)
    }

    pub async fn reverse_debit(&self, key: &str, transfer: &str) -> Result<pb::ReverseDebitResponse, Status> {
        let request = pb::ReverseDebitRequest { transfer_id: transfer.into(), reason: "rolled back".into() };
        self.ledger.reverse_debit(keyed(key, request)).await.map(Response::into_inner)
    }

    pub async fn reverse_credit(
        &self,
        key: &str,
        transfer: &str,
    ) -> Result<pb::ReverseCreditResponse, Status> {
        let request = pb::ReverseCreditRequest { transfer_id: transfer.into(), reason: "rolled back".into() };
        self.ledger.reverse_credit(keyed(key, request)).await.map(Response::into_inner)
    }

    pub async fn settle(
        &self,
        key: &str,
        transfer: &str,
        entry: &str,
    ) -> Result<pb::SettleCreditResponse, Status> {
        let request = pb::SettleCreditRequest { transfer_id: transfer.into(), credit_entry_id: entry.into() };
        self.ledger.settle_credit(keyed(key, request)).await.map(Response::into_inner)
    }
}

async fn open(dir: &TempDir) -> (Ledger, Books) {
    let books = Books::open(&dir.path().join("ledger.db"), "l").await.unwrap();
    (Ledger::new(books.clone(), true), books)
}

pub fn keyed<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
    request
}
