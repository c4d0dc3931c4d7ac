//! The real engine in a world that comes from one seed: several coordinators, a store, a network, banks, clients, people
//! and a clock, with everything going wrong that the design says may go wrong.
//!
//! Real: `backstop-core` and all of `backstop-engine` (coordinators, runners, group commit, gates, leases, takeover).
//! Simulated: what the engine reaches through its ports, and time, which is tokio's and paused.
//!
//! # Invariants
//! * The same options make the same world, to the last line of its log (`tests/seeds.rs`). No real clock, no real
//!   randomness and no order of a hash map is looked at.
//! * Whatever happens is judged as it happens by the witnesses of `backstop-invariants`, and once all is quiet by
//!   [`end`].
//!
//! # Not here
//! gRPC, SQL and real processes: `backstop-range`. Every interleaving of a small saga: the model.

mod bank;
mod books;
mod clients;
mod coverage;
mod dice;
mod disk;
mod end;
mod faults;
mod hunt;
mod log;
mod machines;
mod net;
mod options;
mod peers;
mod people;
mod plan;
mod process;
mod run;
mod store;
mod time;
mod world;

pub use coverage::{Coverage, GROUPS};
pub use hunt::{Hunt, hunt};
pub use options::{Class, Options};
pub use run::{Failure, Lived, live};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a lock guards, also after a panic: a world that panicked has failed already.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
