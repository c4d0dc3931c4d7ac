//! The other coordinators of the same store.
//!
//! A saga is driven by one coordinator, and only that one knows what it has going on. What a person wants of
//! the saga is therefore carried there from wherever it was asked.
//!
//! # Not here
//! Which coordinator that is, and what happens if it does not answer: `crate::coordinator`.

use async_trait::async_trait;
use backstop_core::{Input, Refused, SagaId};
use std::time::Duration;

/// The other coordinators.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Carries a command to the coordinator whose API is at `address`. That one carries it out itself, if it
    /// drives the saga, and never hands it on.
    ///
    /// # Errors
    /// [`PeerError`], which tells whether it may have been carried out.
    async fn command(
        &self,
        address: &str,
        saga: &SagaId,
        input: &Input,
        timeout: Duration,
    ) -> Result<(), PeerError>;
}

/// Why a coordinator did not say that it has carried out a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The rules refuse it.
    #[error("{0}")]
    Refused(Refused),
    /// It has certainly not carried it out: it was not reached, or does not drive the saga.
    #[error("it did not carry it out: {0}")]
    NotDone(String),
    /// It may have carried it out.
    #[error("it did not say whether it carried it out: {0}")]
    Unknown(String),
}

/// A coordinator without others: SQLite's, and tests'.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

#[async_trait]
impl Peers for NoPeers {
    async fn command(&self, _: &str, _: &SagaId, _: &Input, _: Duration) -> Result<(), PeerError> {
        Err(PeerError::NotDone("this coordinator has no way to others".to_owned()))
    }
}
