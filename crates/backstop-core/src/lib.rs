//! The saga rules, and nothing else: what happens next, given what has happened.
//!
//! Three functions carry the whole protocol:
//!
//! * [`decide()`] turns a saga, the time and one [`Input`] into events;
//! * [`apply()`] is the only thing that changes a [`Saga`], live and in recovery alike;
//! * [`agenda()`] reads off a saga what should be going on outside right now.
//!
//! One *turn* is input → `decide` → durable append → `apply` → `agenda`. The engine owns the append;
//! because nothing here acts, *journal before effect* is a property of the engine's turn alone.
//!
//! # Invariants
//! * No clock, socket, random number or hash-map order is read here: the same arguments give the same
//!   answer for ever (`backstop-model` replays every journal that it reaches).
//! * Replaying a saga's journal gives the saga that wrote it.
//!
//! # Not here
//! Time, tasks and leases: `backstop-engine`. What a gRPC status *is*: `backstop-rpc`. How events are
//! stored: `backstop-sql`.

pub mod agenda;
pub mod apply;
pub mod backoff;
pub mod breaker;
pub mod decide;
pub mod definition;
pub mod event;
pub mod failure;
pub mod graph;
pub mod ids;
mod order;
pub mod saga;
pub mod simulate;
pub mod status;
pub mod tier;
pub mod time;
pub mod transcript;
pub mod validate;

pub use agenda::{Agenda, Call, Signal, agenda};
pub use apply::{Corrupt, apply, replay};
pub use decide::{Answer, Input, Outcome, Refused, Start, can_ride_along, decide, start};
pub use definition::{
    CallSpec, CompensationOrder, DefinitionSpec, InDoubt, OnFailure, RetryPolicy, StepKind, StepSpec,
};
pub use event::{Event, EventKind, Next, Started};
pub use failure::{Details, Failure, FieldViolation, PreconditionViolation, bounded_text};
pub use graph::{Definition, DoubtPolicy, PlannedCall, Step};
pub use ids::{
    Clock, CoordinatorId, DefinitionName, DefinitionRef, Epoch, IdempotencyKey, ParticipantName, Phase,
    Revision, SagaId, Seq, StepName,
};
pub use saga::{Branch, BranchState, Cause, CauseKind, Resolution, Saga, SagaState, SignalState};
pub use status::{Code, Effect, Evidence, NoAnswer, NotSent, effect};
pub use tier::{ErrorTable, FinCode, RetryRule, Row, Tier, tier};
pub use time::Timestamp;
pub use validate::{Fault, ParticipantTraits, validate};
