//! `bank.ledger.v1.LedgerService` over the books.
//!
//! # Invariants
//! - A booking that has begun ends, even if its caller hangs up: it runs in a task of its own.
//!
//! # Not here
//! What is booked: `booking`. Anything of Backstop: `signals`.

use super::booking::Command;
use super::chaos::{self, Fault, Half};
use super::{Books, BooksError, DOMAIN};
use crate::bank::ledger as pb;
use crate::wire::{Shape, idempotency_key, internal, now_unix_micros};
use pb::ledger_service_server::LedgerService;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// A ledger as a gRPC service.
#[derive(Debug, Clone)]
pub struct Ledger {
    books: Books,
    chaos: bool,
}

impl Ledger {
    /// Serves these books; `chaos` lets a payer's reference ask for trouble.
    #[must_use]
    pub fn new(books: Books, chaos: bool) -> Self {
        Self { books, chaos }
    }

    async fn execute<R: Message + Default>(
        &self,
        metadata: &MetadataMap,
        command: Command,
    ) -> Result<Response<R>, Status> {
        let key = idempotency_key(metadata)?;
        let method = command.method();
        let books = self.books.clone();
        let now = now_unix_micros();
        let task = tokio::spawn(async move { books.execute(&key, &command, now).await });
        let outcome = task
            .await
            .map_err(|error| internal("the booking broke off", &error))?
            .map_err(|error| unusable(&error))?;
        match outcome {
            Ok(body) => {
                let response =
                    R::decode(&*body).map_err(|error| internal("a stored answer cannot be read", &error))?;
                tracing::info!(method, traceparent = trace(metadata), "booked");
                Ok(Response::new(response))
            }
            Err(refusal) => {
                tracing::info!(method, traceparent = trace(metadata), ?refusal, "refused");
                Err(refusal.into())
            }
        }
    }

    fn chaos(&self, reference: &str, half: Half) -> Result<Option<Fault>, Status> {
        if !self.chaos {
            return Ok(None);
        }
        chaos::asked_for(reference, half).map_err(|description| {
            Shape::default()
                .fault("reference", description)
                .check(DOMAIN)
                .err()
                .unwrap_or_else(|| Status::invalid_argument(description))
        })
    }

    async fn execute_with_chaos<R: Message + Default>(
        &self,
        metadata: &MetadataMap,
        command: Command,
        chaos: Option<Fault>,
    ) -> Result<Response<R>, Status> {
        match chaos {
            None => self.execute(metadata, command).await,
            Some(Fault::Slow) => {
                tokio::time::sleep(chaos::SLOW).await;
                self.execute(metadata, command).await
            }
            Some(Fault::Internal) => Err(Status::internal("chaos: failed on request")),
            Some(Fault::LostAnswer) => {
                self.execute::<R>(metadata, command).await?;
                Err(Status::internal("chaos: failed on request"))
            }
        }
    }
}

fn trace(metadata: &MetadataMap) -> &str {
    metadata.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn unusable(error: &BooksError) -> Status {
    internal("the books cannot be used", error)
}

#[tonic::async_trait]
impl LedgerService for Ledger {
    async fn open_account(
        &self,
        request: Request<pb::OpenAccountRequest>,
    ) -> Result<Response<pb::OpenAccountResponse>, Status> {
        let request = request.into_inner();
        Shape::default()
            .text("account", &request.account)
            .currency("currency", &request.currency)
            .amount("opening_minor", request.opening_minor, 0)
            .check(DOMAIN)?;
        let opened = self.books.open_account(&request, now_unix_micros()).await;
        let (account, created) = opened.map_err(|error| unusable(&error))??;
        Ok(Response::new(pb::OpenAccountResponse { account: Some(account), created }))
    }

    async fn debit(&self, request: Request<pb::DebitRequest>) -> Result<Response<pb::DebitResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        Shape::default()
            .text("transfer_id", &request.transfer_id)
            .text("account", &request.account)
            .amount("amount_minor", request.amount_minor, 1)
            .currency("currency", &request.currency)
            .bounded("reference", &request.reference)
            .bounded("risk_decision_id", &request.risk_decision_id)
            .check(DOMAIN)?;
        let chaos = self.chaos(&request.reference, Half::Debit)?;
        self.execute_with_chaos(&metadata, Command::Debit(request), chaos).await
    }

    async fn reverse_debit(
        &self,
        request: Request<pb::ReverseDebitRequest>,
    ) -> Result<Response<pb::ReverseDebitResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        Shape::default()
            .text("transfer_id", &request.transfer_id)
            .bounded("reason", &request.reason)
            .check(DOMAIN)?;
        self.execute(&metadata, Command::ReverseDebit(request)).await
    }

    async fn credit(
        &self,
        request: Request<pb::CreditRequest>,
    ) -> Result<Response<pb::CreditResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        Shape::default()
            .text("transfer_id", &request.transfer_id)
            .text("account", &request.account)
            .amount("amount_minor", request.amount_minor, 1)
            .currency("currency", &request.currency)
            .bounded("reference", &request.reference)
            .check(DOMAIN)?;
        let chaos = self.chaos(&request.reference, Half::Credit)?;
        self.execute_with_chaos(&metadata, Command::Credit(request), chaos).await
    }

    async fn reverse_credit(
        &self,
        request: Request<pb::ReverseCreditRequest>,
    ) -> Result<Response<pb::ReverseCreditResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        Shape::default()
            .text("transfer_id", &request.transfer_id)
            .bounded("reason", &request.reason)
            .check(DOMAIN)?;
        self.execute(&metadata, Command::ReverseCredit(request)).await
    }

    async fn settle_credit(
        &self,
        request: Request<pb::SettleCreditRequest>,
    ) -> Result<Response<pb::SettleCreditResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        Shape::default()
            .text("transfer_id", &request.transfer_id)
            .text("credit_entry_id", &request.credit_entry_id)
            .check(DOMAIN)?;
        self.execute(&metadata, Command::SettleCredit(request)).await
    }

    async fn get_balances(
        &self,
        _request: Request<pb::GetBalancesRequest>,
    ) -> Result<Response<pb::GetBalancesResponse>, Status> {
        let accounts = self.books.balances().await.map_err(|error| unusable(&error))?;
        Ok(Response::new(pb::GetBalancesResponse { accounts }))
    }

    async fn get_entry(
        &self,
        request: Request<pb::GetEntryRequest>,
    ) -> Result<Response<pb::GetEntryResponse>, Status> {
        let key = request.into_inner().idempotency_key;
        Shape::default().text("idempotency_key", &key).check(DOMAIN)?;
        match self.books.entry(&key).await.map_err(|error| unusable(&error))? {
            Some(entry) => Ok(Response::new(pb::GetEntryResponse { entry: Some(entry) })),
            None => Err(Status::not_found("this key has made no entry")),
        }
    }
}
