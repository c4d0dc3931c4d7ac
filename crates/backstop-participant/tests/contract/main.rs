//! What the barrier promises, told once and held on SQLite and on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod abandoned;
mod bounds;
mod common;
mod context;
mod crashing;
mod document;
mod fences;
mod outside;
mod racing;
mod repeats;
