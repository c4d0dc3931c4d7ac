//! One ledger as a process: its API, on the barrier of Backstop's SDK, over a SQLite file that is flushed at
//! every commit.
//!
//! # Invariants
//! * What was answered is on disk (`synchronous = FULL`).
//! * A disk that is full is said as UNAVAILABLE, and nothing of the call is left in the books
//!   (`tests/ledger.rs`).

use super::books::{self, Posting, Refusal};
use super::lines::{Teller, Visit};
use super::mood;
use crate::call::{Call, Outcome};
use crate::wire::ledger_server::{Ledger, LedgerServer};
use crate::wire::{Booked, Booking, Books, SnapshotRequest};
use anyhow::{Context as _, Result};
use backstop_participant::{Barrier, Context, Engine, Entered, Fingerprint, Stop};
use rustix::process::Signal;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool};
use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Longest wait for the one connection that writes; after it the ledger says UNAVAILABLE.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Largest answer: the books of a long run.
pub(super) const BOOKS_BYTES_MAX: usize = 1 << 30;

/// How a ledger is run.
#[derive(Debug, Clone, clap::Args)]
pub struct Serve {
    /// Its name
    #[arg(long)]
    pub name: String,
    /// Its file
    #[arg(long)]
    pub data: PathBuf,
    /// Where it listens
    #[arg(long)]
    pub listen: SocketAddr,
    /// Accounts that it begins with, numbered from 0
    #[arg(long)]
    pub accounts: u32,
    /// What each of them holds at first
    #[arg(long)]
    pub opening_balance: i64,
    /// What its moods follow from; without it every call is taken at once
    #[arg(long)]
    pub moods: Option<u64>,
}

/// Serves until the process is ended.
///
/// # Errors
/// If its file or its port cannot be had.
pub async fn serve(serve: &Serve) -> Result<()> {
    // A write past the limit on file sizes is to fail, not to end the process: with a handler of ours there,
    // the kernel answers the write with EFBIG.
    let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    let writer = open(&serve.data, 1).await?;
    sqlx::raw_sql(Sqlite::SCHEMA).execute(&writer).await?;
    sqlx::raw_sql(books::SCHEMA).execute(&writer).await?;
    books::open(&mut *writer.acquire().await?, serve.accounts, serve.opening_balance).await?;
    let service = Service {
        name: serve.name.clone(),
        moods: serve.moods,
        barrier: Barrier::new(writer),
        reader: open(&serve.data, 1).await?,
        teller: Arc::default(),
    };
    let listener = TcpListener::bind(serve.listen).await.with_context(|| format!("{}", serve.listen))?;
    writeln!(std::io::stdout(), "listening {}", listener.local_addr()?)?;
    let service = LedgerServer::new(service).max_encoding_message_size(BOOKS_BYTES_MAX);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}

/// One connection that writes: SQLite has one writer, and who waits here waits in order.
async fn open(data: &Path, connections: u32) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(data)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_MAX);
    let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(BUSY_MAX);
    pool.connect_with(options).await.with_context(|| format!("{}", data.display()))
}

struct Service {
    name: String,
    moods: Option<u64>,
    barrier: Barrier<Sqlite>,
    reader: SqlitePool,
    teller: Arc<Teller>,
}

/// What a method does with the books.
#[derive(Debug, Clone, Copy)]
enum Work {
    Book(Posting),
    Undo,
}

impl Service {
    async fn take(
        &self,
        method: &'static str,
        work: Work,
        request: Request<Booking>,
    ) -> Result<Response<Booked>, Status> {
        let context = Context::require(request.metadata())?;
        let text = format!("{:?}", request.get_ref());
        let call = Call::arriving(request.metadata(), &self.name, method, text);
        let mood = self.moods.map(|seed| mood::of(seed, &call)).unwrap_or_default();
        let visit = self.teller.came(call);
        tokio::time::sleep(mood.before).await;
        let (answer, is_duplicate) = self.once(method, work, &context, request.get_ref()).await;
        tokio::time::sleep(mood.after).await;
        leave(visit, &answer, is_duplicate);
        answer
    }

    /// The answer, and whether it had been given before.
    async fn once(
        &self,
        method: &'static str,
        work: Work,
        context: &Context,
        booking: &Booking,
    ) -> (Result<Response<Booked>, Status>, bool) {
        let fingerprint = Fingerprint::of(method, booking);
        let mut first = match self.barrier.enter::<Booked>(context, fingerprint).await {
            Ok(Entered::First(first)) => first,
            Ok(Entered::Answered(answer)) => return (answer, true),
            Err(status) => return (Err(status), false),
        };
        let db = first.db();
        let (saga, step) = (&context.saga_id, &context.step);
        let done = match work {
            Work::Book(posting) => books::book(db, posting, saga, step, booking).await,
            Work::Undo => books::undo(db, saga, step, booking).await,
        };
        let outcome = match done {
            Ok(booked) => match books::count(db, &context.idempotency_key).await {
                Ok(()) => Ok(booked),
                Err(error) => Err(Stop::from(error)),
            },
            Err(refusal) => Err(stop(refusal)),
        };
        (first.finish(outcome).await, false)
    }
}

fn stop(refusal: Refusal) -> Stop {
    let say = |code, message| {
        let details = ErrorDetails::with_error_info("FIN-40005", "range", HashMap::new());
        Status::with_error_details(code, message, details)
    };
    match refusal {
        Refusal::Business(message) => Stop::Refused(say(Code::FailedPrecondition, message)),
        Refusal::Invalid(message) => Stop::Refused(say(Code::InvalidArgument, message)),
        Refusal::Storage(error) => Stop::from(error),
    }
}

fn leave(visit: Visit, answer: &Result<Response<Booked>, Status>, is_duplicate: bool) {
    let outcome = match answer {
        Ok(_) => Outcome::Done,
        Err(status) if matches!(status.code(), Code::Unavailable | Code::Aborted) => {
            // The caller is told no more than that; why, the range's log knows.
            if let Some(source) = status.source() {
                let _ = writeln!(std::io::stderr(), "{}: {source}", status.message());
            }
            Outcome::Unavailable
        }
        Err(_) => Outcome::Refused,
    };
    visit.leaves(outcome, is_duplicate);
}

#[tonic::async_trait]
impl Ledger for Service {
    async fn debit(&self, request: Request<Booking>) -> Result<Response<Booked>, Status> {
        self.take("Debit", Work::Book(Posting::Debit), request).await
    }

    async fn undo_debit(&self, request: Request<Booking>) -> Result<Response<Booked>, Status> {
        self.take("UndoDebit", Work::Undo, request).await
    }

    async fn settle(&self, request: Request<Booking>) -> Result<Response<Booked>, Status> {
        self.take("Settle", Work::Book(Posting::Settle), request).await
    }

    async fn undo_settle(&self, request: Request<Booking>) -> Result<Response<Booked>, Status> {
        self.take("UndoSettle", Work::Undo, request).await
    }

    async fn credit(&self, request: Request<Booking>) -> Result<Response<Booked>, Status> {
        self.take("Credit", Work::Book(Posting::Credit), request).await
    }

    async fn undo_credit(&self, request: Request<Booking>) -> Result<Response<Booked>, Status> {
        self.take("UndoCredit", Work::Undo, request).await
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Books>, Status> {
        let books = async { books::read(&mut *self.reader.acquire().await?).await };
        books.await.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }
}
