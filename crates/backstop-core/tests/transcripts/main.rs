//! Stories of one saga each, as their journals tell them.
//!
//! # Not here
//! All interleavings of small sagas: `explore`. Random big ones: `random`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod doubt;
mod forward;
mod peer_failures;
mod person;
mod rollback;
mod signals;
mod takeover;
mod timing;

use common::plan::Plan;

/// a, then b and c beside each other, then d.
fn diamond() -> Plan {
    Plan::new().step("a", &[]).step("b", &["a"]).step("c", &["a"]).step("d", &["b", "c"])
}

/// A reservation, the transfer that cannot be taken back, and a notice that must get out.
fn payment() -> Plan {
    Plan::new().step("reserve", &[]).pivot("pay", &["reserve"]).retriable("notify", &["pay"])
}
