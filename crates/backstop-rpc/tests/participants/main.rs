//! The outgoing half against peers that do everything a peer can do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod evidence;
mod fixture;
mod metadata;
mod peer;
mod pool;
mod reflection;
mod statuses;
mod tls;
mod trace;
mod world;
