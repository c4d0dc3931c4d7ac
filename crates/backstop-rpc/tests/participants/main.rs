//! The outgoing half against peers that do everything a peer can do.

mod evidence;
mod fixture;
mod metadata;
mod peer;
mod pool;
mod reflection;
mod statuses;
mod tls;
mod world;
