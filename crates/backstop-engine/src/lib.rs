//! Drives sagas: the turn around the core's rules, with time, tasks and I/O.
//!
//! The way of one saga: [`coordinator`] accepts it, a [`runner`] drives it from turn to turn, its events go
//! through [`group_commit`] to the store, its calls through a [`gate`] to the participant. A failure, an
//! operator's word, a timer and a takeover come in by the same turn.
//!
//! # Not here
//! gRPC (`backstop-rpc`) and SQL (`backstop-sql`); both implement [`ports`] and are blind to each other.
//! The rules: `backstop-core`.

pub mod clock;
pub mod coordinator;
pub mod definitions;
mod doctor;
pub mod error;
pub mod gate;
pub mod group_commit;
mod inbox;
mod interventions;
mod lease;
mod live;
#[cfg(feature = "testing")]
pub mod memory_store;
pub mod metrics;
pub mod overview;
pub mod ports;
mod resets;
mod retelling;
mod retention;
mod runner;
pub mod settings;
mod shared;
#[cfg(feature = "testing")]
pub mod store_contract;
mod takeover;
pub mod tenure;

pub use coordinator::{
    Coordinator, Examination, Finding, FindingKind, HowMuch, Ports, Reach, SagaView, StartSaga, StartedSaga,
};
pub use error::EngineError;
pub use settings::Settings;
