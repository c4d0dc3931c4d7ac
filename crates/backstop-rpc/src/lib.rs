//! gRPC at both ends: Backstop's own services, and the calls to participants.
//!
//! Only this crate (and the binary that wires it) knows tonic.
//!
//! # Not here
//! Rules (`backstop-core`), tasks and retries (`backstop-engine`), SQL (`backstop-sql`, which this crate
//! does not know).

mod convert;
mod filter;
#[cfg(test)]
mod fuzz;
mod guard;
mod page;
pub mod participants;
mod peers;
pub mod server;
pub mod services;
mod status_reply;
mod trace;
pub mod traces;
pub mod wire_failure;

pub use convert::definition::{ENDPOINTS_MAX, KEEPALIVE_DEFAULT};
pub use peers::PeerClient;
pub use server::{ServerSettings, serve};
