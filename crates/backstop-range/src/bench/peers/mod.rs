//! Other orchestrators beside Backstop: in the same run, on the same machine, with the same participants, each as durable as
//! Backstop is.
//!
//! # Invariants
//! * A saga counts when its client has been told of its end, and not before.
//! * What a peer's own books say afterwards is held against what was counted, where it keeps books: `System::settle`.
//! * What a peer leaves out, or does otherwise than Backstop, is said beside its figures: `System::settings`.
//!
//! # Not here
//! The programs themselves: `crates/backstop-range/peers`, a workspace of its own, and `cargo xtask peers`, which builds or
//! installs them.

mod counted;
mod dtm;
mod dtmrs;
mod http;
mod programs;
mod restate;
#[cfg(test)]
mod tests;
mod wish;

use super::ground::{Ground, Store};
use super::shape::{Requests, Saga, Shape};
use super::system::System;
use anyhow::{Context, Result};
use programs::Programs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use wish::Durability;
pub(super) use wish::HELP;
pub(super) use wish::Wish;

/// How many branches a saga has.
const BRANCHES: usize = 3;
/// The methods of a participant that the peers call.
const ACT: &str = "range.v1.Bench/Act";
const UNDO: &str = "range.v1.Bench/Undo";
/// dtmrs and DTM take ABORTED alone for a no; anything else they send again.
const ABORT: &str = "range.v1.Bench/Abort";

/// What is asked of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Three branches at once; a peer that cannot takes one after the other, and says so.
    Concurrent,
    /// Three steps, one after the other.
    Sequential,
    /// The third branch is refused; what was done is undone.
    RolledBack,
}

impl Way {
    /// What such a saga is to a peer; none if no peer has the like: they have no templates, and sagas of three branches.
    fn of(saga: Saga) -> Option<Self> {
        match (saga.shape, saga.requests) {
            (Shape::Concurrent, Requests::Raw) => Some(Self::Concurrent),
            (Shape::Sequential, Requests::Raw) => Some(Self::Sequential),
            (Shape::RolledBack, Requests::Raw) => Some(Self::RolledBack),
            (Shape::Diamond, _) | (_, Requests::Typed) => None,
        }
    }

    /// The method that the branch at this place calls.
    fn action(self, branch: usize) -> &'static str {
        if self == Self::RolledBack && branch + 1 == BRANCHES { ABORT } else { ACT }
    }
}

/// What was asked for and is not there would be a table with a gap that nobody sees.
const NOT_SUCH: &str = "no such sagas";

/// Starts, or reaches, what was wished for; on a store of its own, of the ground's kind if it can.
///
/// # Errors
/// If it is not there or does not come up; with what to do about it.
pub(super) async fn start(
    wishes: &[Wish],
    folder: Option<&Path>,
    ground: &Ground,
) -> Result<Vec<Arc<dyn System>>> {
    let programs = Programs::find(folder)?;
    let mut systems: Vec<Arc<dyn System>> = Vec::new();
    for wish in wishes {
        match wish {
            Wish::Dtmrs => {
                systems.push(Arc::new(dtmrs::Dtmrs::start(Durability::Full, ground, &programs).await?));
                if ground.store() == Store::Sqlite {
                    systems
                        .push(Arc::new(dtmrs::Dtmrs::start(Durability::AsItComes, ground, &programs).await?));
                }
            }
            Wish::Restate { partitions, manner } => {
                systems
                    .push(Arc::new(restate::Restate::start(*partitions, *manner, ground, &programs).await?));
            }
            // It has its tables for Postgres, and an embedded store that is not SQLite.
            Wish::Dtm if ground.store() == Store::Sqlite => {}
            Wish::Dtm => systems.push(Arc::new(dtm::Dtm::start(ground, &programs).await?)),
            Wish::DtmAt(address) => systems.push(Arc::new(dtm::Dtm::at(address, ground)?)),
            Wish::Http(template) => systems.push(Arc::new(http::Http::new(template.clone(), ground)?)),
        }
    }
    Ok(systems)
}

/// Where the participants answer.
fn participants(ground: &Ground) -> Result<[SocketAddr; BRANCHES]> {
    let mut addresses = Vec::new();
    for (_, endpoint) in ground.endpoints()? {
        addresses.push(endpoint.trim_start_matches("http://").parse()?);
    }
    addresses.try_into().ok().context("three participants")
}
