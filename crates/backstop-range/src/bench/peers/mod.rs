//! Other orchestrators beside Backstop: in the same run, on the same machine, with the same participants, each as durable as
//! Backstop is.
//!
//! # Invariants
//! * A saga counts when its client has been told of its end, and not before.
//! * What a peer's own books say afterwards is held against what was counted, where it keeps books.
//! * What a peer leaves out, or does otherwise than Backstop, is said beside its figures ([`Peer::said`]).
//!
//! # Not here
//! The programs themselves: `crates/backstop-range/peers`, a workspace of its own, and `cargo xtask peers`, which builds or
//! installs them.

mod dtm;
mod dtmrs;
mod http;
mod programs;
mod restate;
mod run;
#[cfg(test)]
mod tests;
mod wish;

use anyhow::{Context, Result};
use programs::Programs;
pub(super) use run::run;
use std::net::SocketAddr;
pub(super) use wish::{HELP, Wish};

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
    /// The method that the branch at this place calls.
    fn action(self, branch: usize) -> &'static str {
        if self == Self::RolledBack && branch + 1 == BRANCHES { ABORT } else { ACT }
    }
}

/// What the run gives to its peers.
struct Ground<'a> {
    /// The cluster that Backstop has its database in.
    postgres: &'a backstop_sql::testing::Postgres,
    /// Where the participants answer.
    participants: [SocketAddr; BRANCHES],
    /// What `cargo xtask peers` has put ready.
    programs: &'a Programs,
    /// A folder for stores that are files; on the disk that Postgres writes to.
    folder: &'a std::path::Path,
}

impl Ground<'_> {
    /// A new database in the run's cluster: its URL and its name.
    fn database(&self) -> Result<(String, String)> {
        let url = tokio::task::block_in_place(|| self.postgres.create_database())?;
        let database = url.rsplit_once('/').context("the URL names a database")?.1.to_owned();
        Ok((url, database))
    }
}

/// An orchestrator that is there.
#[tonic::async_trait]
trait Peer: Send + Sync {
    /// What it is called in the report.
    fn name(&self) -> String;

    /// What it does for such a saga, how durable that is, and what is not as in Backstop's run.
    fn said(&self, way: Way) -> String;

    /// Whether it can be asked for such a saga.
    fn can(&self, way: Way) -> bool;

    /// Its processes, with what each is called; none if somebody else has started it.
    fn processes(&self) -> Vec<(&'static str, u32)>;

    /// Its database in the run's Postgres, if it has one.
    fn database(&self) -> Option<&str>;

    /// Runs one saga and waits for its end; false if it ended otherwise than asked.
    ///
    /// # Errors
    /// If it cannot be asked, or does not answer.
    async fn run_one(&self, id: &str, way: Way) -> Result<bool>;

    /// Holds its books against what was counted so far, over all loops.
    ///
    /// # Errors
    /// With the difference.
    async fn check(&self, counted: Counted) -> Result<()>;

    /// Ends its processes.
    ///
    /// # Errors
    /// If one does not end.
    async fn end(&self) -> Result<()>;
}

/// Sagas that a peer is known to have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    /// With all branches done.
    succeeded: u64,
    /// With what was done undone.
    rolled_back: u64,
}

/// Starts, or reaches, what was wished for.
///
/// # Errors
/// If it is not there or does not come up; with what to do about it.
async fn start(wish: &Wish, ground: &Ground<'_>) -> Result<Box<dyn Peer>> {
    Ok(match wish {
        Wish::Dtmrs(store) => Box::new(dtmrs::Dtmrs::start(*store, ground).await?),
        Wish::Restate { partitions, manner } => {
            Box::new(restate::Restate::start(*partitions, *manner, ground).await?)
        }
        Wish::Dtm => Box::new(dtm::Dtm::start(ground).await?),
        Wish::DtmAt(address) => Box::new(dtm::Dtm::at(address, ground)?),
        Wish::Http(template) => Box::new(http::Http::new(template.clone(), ground)),
    })
}
