//! The services that a saga calls.
//!
//! # Not here
//! Permits and circuit breaker: [`crate::gate`]. Retries: the core. An adapter sends one attempt and tells honestly what
//! is known of its end.

use super::store::{Participant, StoredRevision};
use crate::tenure::Clearance;
use async_trait::async_trait;
use backstop_core::{Call, Clock, Fault, Outcome, ParticipantName, Saga, Signal};
use std::sync::Arc;
use std::time::Duration;

/// Every participant that is registered.
#[async_trait]
pub trait Participants: Send + Sync + 'static {
    /// Makes known, or changes, where a participant is and how it is to be called.
    fn set(&self, participant: &Participant);

    /// Compiles what a revision's calls need (message types, templates), once.
    ///
    /// # Errors
    /// Every fault, with its path. A revision that was registered has none, unless it was stored by an
    /// incompatible version.
    fn prepare(&self, revision: &StoredRevision) -> Result<Arc<dyn Calls>, Vec<Fault>>;

    /// Delivers a rollback signal, one attempt.
    ///
    /// # Errors
    /// What went wrong, for people.
    async fn signal(&self, saga: &Saga, signal: &Signal, timeout: Duration) -> Result<(), String>;
}

/// The calls of one revision.
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// Sends one attempt of one call and waits for its end, at most `request.timeout` for connection,
    /// call and reply together. Dropping the future resets the call.
    async fn call(&self, request: CallRequest) -> CallReply;
}

/// One attempt to be sent.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// The saga as it stood when the call was decided; requests are rendered from it.
    pub saga: Arc<Saga>,
    /// Which attempt of which call.
    pub call: Call,
    /// Time that is left for it.
    pub timeout: Duration,
    /// Whether it may go out. To be asked last of all, when there is a connection: making one may take longer than the
    /// lease lasts, and a rollback may be decided meanwhile. What may not go out any more is answered as
    /// [`NotSent::Withdrawn`](backstop_core::NotSent::Withdrawn), and nothing is decided about it.
    pub clearance: Clearance,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReply {
    /// What came of it.
    pub outcome: Outcome,
    /// `backstop-clock` of the answer, if it had one.
    pub peer_clock: Option<Clock>,
}

/// Where a participant's circuit breaker stands and how much it is doing, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantLoad {
    /// Whose.
    pub participant: ParticipantName,
    /// Calls that hold a permit now.
    pub in_flight: usize,
    /// True while calls are kept back.
    pub breaker_open: bool,
}
