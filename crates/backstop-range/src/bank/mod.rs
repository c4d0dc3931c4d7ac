//! The participants: real gRPC servers in the range's own process, so that no fault of the range's can
//! confuse them.
//!
//! # Not here
//! The books and their rules: `books`. What was seen: `record`. The wire: `serve`.

pub mod books;
pub mod record;
mod serve;

use crate::call::Call;
use crate::moment::Moment;
use anyhow::Result;
use books::{Books, Standing};
use record::Record;
use serve::Server;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How a participant takes one call.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Books and answers.
    AtOnce,
    /// Waits, books, answers.
    BooksAfter(Duration),
    /// Books, waits, answers.
    AnswersAfter(Duration),
    /// Books, and closes the connection without a word.
    Loses,
    /// Waits for the gate, books, answers.
    Held(Gate),
    /// Books nothing; asks to be left alone for a while.
    PushesBack(Duration),
}

/// Decides how each call is taken.
pub type Script = Arc<dyn Fn(&Call) -> Manner + Send + Sync>;

/// Holds up whoever comes until it is opened; then it stays open.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed one.
    #[must_use]
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everybody pass.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn passed(&self) {
        let mut opened = self.0.subscribe();
        // The sender is ours, so it is there.
        let _ = opened.wait_for(|open| *open).await;
    }
}

/// What all participants share.
struct Inner {
    books: BTreeMap<String, Mutex<Books>>,
    record: Record,
    script: Mutex<Script>,
}

/// Running participants; they end when it is dropped.
pub struct Bank {
    inner: Arc<Inner>,
    servers: BTreeMap<String, Server>,
}

impl std::fmt::Debug for Bank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bank").field("participants", &self.servers.keys()).finish_non_exhaustive()
    }
}

impl Bank {
    /// Participants of these names, each with books of its own.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(names: &[&str], script: Script) -> Result<Self> {
        let books = names.iter().map(|name| ((*name).to_owned(), Mutex::default())).collect();
        let inner = Arc::new(Inner { books, record: Record::default(), script: Mutex::new(script) });
        let mut servers = BTreeMap::new();
        for name in names {
            servers.insert((*name).to_owned(), Server::start(name, &inner).await?);
        }
        Ok(Self { inner, servers })
    }

    /// From now on, calls are taken so.
    pub fn answers(&self, script: Script) {
        *self.inner.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Name and endpoint of each.
    #[must_use]
    pub fn endpoints(&self) -> Vec<(String, String)> {
        self.servers.iter().map(|(name, server)| (name.clone(), server.endpoint())).collect()
    }

    /// What was seen.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.inner.record
    }

    /// The sum over all accounts of all ledgers.
    #[must_use]
    pub fn sum(&self) -> i64 {
        let books = self.inner.books.values();
        books.map(|books| books.lock().unwrap_or_else(PoisonError::into_inner).sum()).sum()
    }

    /// Where a saga's step stands, in whichever ledger keeps it.
    #[must_use]
    pub fn standing(&self, saga: &str, step: &str) -> Standing {
        let books = self.inner.books.values();
        books
            .map(|books| books.lock().unwrap_or_else(PoisonError::into_inner).standing(saga, step))
            .find(|standing| *standing != Standing::Untouched)
            .unwrap_or(Standing::Untouched)
    }

    /// The calls of one saga, a line each.
    #[must_use]
    pub fn lines(&self, saga: &str) -> Vec<String> {
        let calls: Vec<Call> = self.record().all().into_iter().filter(|call| call.saga == saga).collect();
        let since: Moment = calls.first().map(|call| call.arrived).unwrap_or_default();
        calls.iter().map(|call| call.line(since)).collect()
    }
}
