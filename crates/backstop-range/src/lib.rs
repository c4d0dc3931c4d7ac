//! The range: chaos and load on real processes, judged from outside.
//!
//! It promises that what it reports was seen on real `backstop serve` processes over a real Postgres: by a
//! participant that no fault touches (`bank`), or, in the chaos, in the books of ledgers that are processes
//! themselves and are hurt like everything else (`ledger`); and that no process it started outlives it.
//!
//! # Not here
//! Any knowledge of Backstop's inside: the range talks gRPC (`api`), reads `/metrics`, sends signals, and
//! plants and reads rows in the tables that the migrations document (`planting`, `journal`). Exhaustive
//! interleavings are the core's explorer's; here is what a real kernel, clock and database add.

pub mod api;
pub mod bank;
pub mod bench;
pub mod call;
pub mod client;
pub mod cluster;
pub mod coordinator;
pub mod definition;
pub mod faults;
pub mod journal;
pub mod ledger;
pub mod moment;
pub mod oracle;
pub mod payment;
pub mod planting;
pub mod process;
pub mod proxy;
pub mod report;
pub mod rng;
pub mod scenario;
pub mod standstill;
pub mod vitals;

/// The wire types of the range's participants, generated.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod wire {
    tonic::include_proto!("range.v1");
    /// The encoded descriptor set of the above.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bank.bin"));
}
