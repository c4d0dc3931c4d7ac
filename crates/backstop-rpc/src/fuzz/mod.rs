//! What comes in over gRPC, taken apart by whoever sends it: every target is a plain test that replays its saved
//! inputs and some thousands of mutants of them; `cargo xtask fuzz` goes on for longer. See `docs/fuzzing.md`.
//!
//! # Not here
//! What participants send: `participants::fuzz`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod definitions;
mod requests;
mod samples;
