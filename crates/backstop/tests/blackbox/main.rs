//! Black-box tests: the real binary, real gRPC, real databases. One binary, because linking one is
//! dear; a module a theme, named for what it shows.
//!
//! Not here: the rules themselves (`backstop-core`), the store's contract (`backstop-sql`), what each
//! transport failure looks like from inside (`backstop-rpc`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod common;

mod bad_definitions;
mod bad_requests;
mod caller;
mod cli;
mod clocks;
mod codes;
mod conformance;
mod crash;
mod demo;
mod doctor;
mod doubt;
mod drain;
mod fan_out;
mod fleet;
mod grpcurl;
mod interventions;
mod metrics;
mod operator;
mod overview;
mod pages;
mod peer_failures;
mod python;
mod screens;
mod shell;
mod starting;
mod telemetry;
mod upgrade;
mod watching;
