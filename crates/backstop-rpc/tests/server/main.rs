//! The incoming half: a coordinator on a store in memory, served on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connections;
#[path = "../common/frame.rs"]
mod frame;
mod frames;
mod refusals;
mod watching;
mod world;
