//! Drives sagas: the turn around the core's rules, with time, tasks and I/O.
//!
//! # Not here
//! gRPC (`backstop-rpc`) and SQL (`backstop-sql`); both implement [`ports`] and are blind to each other.

pub mod ports;
