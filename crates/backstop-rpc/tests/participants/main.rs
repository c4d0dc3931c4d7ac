//! The outgoing half against peers that do everything a peer can do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod evidence;
mod fixture;
#[path = "../common/frame.rs"]
mod frame;
mod frames;
mod keepalive;
mod metadata;
mod peer;
mod pool;
mod reflection;
mod statuses;
mod storm;
mod streams;
mod tls;
mod trace;
mod world;
