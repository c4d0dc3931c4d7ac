//! What a test participant saw, and what it is told to answer.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{Barrier, watch};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The method's short name: `Act`.
    pub(crate) method: String,
    /// All its metadata.
    pub(crate) metadata: MetadataMap,
    /// The message.
    pub(crate) bytes: Bytes,
    /// When it came, in an order that all participants of the process share.
    pub(crate) arrived: u64,
    /// When it was answered, in the same order; `None` while it is not.
    pub(crate) answered: Option<u64>,
}

impl Seen {
    /// A text of its metadata; empty if it is not there.
    pub(crate) fn text(&self, key: &str) -> String {
        self.metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }

    pub(crate) fn saga(&self) -> String {
        self.text("backstop-saga-id")
    }

    pub(crate) fn step(&self) -> String {
        self.text("backstop-step")
    }

    pub(crate) fn phase(&self) -> String {
        self.text("backstop-phase")
    }

    pub(crate) fn key(&self) -> String {
        self.text("idempotency-key")
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        let text = self.text(key);
        text.parse().unwrap_or_else(|_| panic!("metadata {key} is {text:?}, not a number"))
    }

    pub(crate) fn attempt(&self) -> u64 {
        self.number("backstop-attempt")
    }

    /// `debit/action#1`.
    pub(crate) fn short(&self) -> String {
        format!("{}/{}#{}", self.step(), self.phase(), self.attempt())
    }

    /// The message, read as what the test bank takes.
    pub(crate) fn posting(&self) -> super::bank::Posting {
        prost::Message::decode(self.bytes.clone()).expect("a Posting")
    }
}

/// What a participant does about a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Answers OK with a receipt.
    Done,
    /// Answers OK with these bytes.
    Bytes(Bytes),
    /// Answers a status, with its details.
    Refuse(Box<Status>),
    /// Never answers.
    Hang,
    /// Closes the connection without a word.
    Drop,
    /// Waits for a gate, then does the other.
    After(Gate, Box<Reply>),
    /// Waits until as many as the barrier is for have come, then does the other.
    Together(Arc<Barrier>, Box<Reply>),
}

impl Reply {
    pub(crate) fn status(code: Code, message: &str) -> Self {
        Self::Refuse(Box::new(Status::new(code, message)))
    }

    pub(crate) fn refuse(status: Status) -> Self {
        Self::Refuse(Box::new(status))
    }

    pub(crate) fn after(self, gate: &Gate) -> Self {
        Self::After(gate.clone(), Box::new(self))
    }
}

/// Holds up whoever comes until it is opened; then it stays open.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn passed(&self) {
        let mut opened = self.0.subscribe();
        opened.wait_for(|open| *open).await.expect("the gate outlives those who wait");
    }
}
