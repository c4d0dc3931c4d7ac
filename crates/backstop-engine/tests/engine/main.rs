//! Stories of the engine, each on a world of its own: a disk with switches, participants that do as they
//! are told, and as many coordinators as the story wants. Time is paused in all of them.
//!
//! # Invariants
//! * The bank itself checks at every call, against the store, that the journal allows it: nothing before
//!   the start is durable, no step before what it depends on, no action after a rollback was decided, no
//!   compensation or signal before, and no attempt twice.
//!
//! # Not here
//! The rules: `backstop-core`'s transcripts. Real stores, real participants, real processes: `backstop`'s
//! black-box tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

mod chaos;
mod commands;
mod doctor;
mod drain;
mod forward;
mod gates;
mod journal;
mod lease;
mod operator;
mod parking;
mod peer_failures;
mod registering;
mod retention;
mod rollback;
mod starting;
mod takeover;
mod traces;
mod watching;
