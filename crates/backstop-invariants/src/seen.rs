//! What there is to see of a saga from outside.

use backstop_core::{Clock, Epoch, Event, IdempotencyKey, ParticipantName, Phase, Seq};
use std::sync::Arc;

/// Something that happened, in the order in which it did.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// The store holds this event from now on, whether or not its writer has been told. Seen again, word for word, when
    /// an append of unknown fate is written again.
    Durable {
        /// The writer's tenure; for `Adopted` the one that it begins.
        by: Epoch,
        /// The event.
        event: &'a Arc<Event>,
    },
    /// Somebody was told that all up to this event is durable: the coordinator of this tenure, or a client through it.
    Acknowledged {
        /// The tenure.
        by: Epoch,
        /// The last event that this speaks for.
        seq: Seq,
    },
    /// The store was read, and this is all that it has of the saga.
    Read(&'a [Arc<Event>]),
    /// A request was given to the network.
    Sent(Sent<'a>),
    /// A rollback signal was given to the network.
    Signalled {
        /// To whom.
        participant: &'a ParticipantName,
        /// The clock that it bears.
        clock: Clock,
    },
    /// A participant's business code has run, for whichever copy of whichever attempt.
    Booked {
        /// Index of the step.
        step: usize,
        /// What it did to the books.
        did: Did,
    },
}

/// A request as it leaves.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The tenure that it bears.
    pub epoch: Epoch,
    /// Index of the step.
    pub step: usize,
    /// Which of its calls.
    pub phase: Phase,
    /// Which attempt.
    pub attempt: u32,
    /// The clock that it bears.
    pub clock: Clock,
    /// The key that it bears.
    pub key: &'a IdempotencyKey,
    /// A digest of its method and its request.
    pub request: u64,
}

/// What a call did to a participant's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Did {
    /// The action took effect, once more than before.
    TookEffect,
    /// Whatever was in force is not any more.
    Undid,
}
