//! What the loops know of a system that runs sagas. Backstop goes through this like any other, so that all are
//! loaded by the very same code.
//!
//! # Not here
//! The systems themselves: `backstop` is ours. The participants that they call, and the database that they may
//! use: `ground`.

use super::shape::Saga;
use anyhow::Result;
use std::collections::HashMap;

/// Processes that are counted together.
#[derive(Debug, Clone)]
pub struct Group {
    /// What people call them.
    pub name: String,
    /// Their ids.
    pub roots: Vec<u32>,
    /// Count all that descend from them as well.
    pub with_children: bool,
}

/// What a system's journal has written since it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Writes: each is one transaction that somebody waits for.
    pub writes: f64,
    /// Events in them.
    pub events: f64,
}

/// A running system that sagas are started on.
#[tonic::async_trait]
pub trait System: Send + Sync {
    /// What people call it.
    fn name(&self) -> &str;

    /// Its own processes: not the load's, the participants', nor the ground's database.
    fn processes(&self) -> Vec<Group>;

    /// How it is run, as far as that bears on its figures: durability first.
    fn settings(&self) -> Vec<String>;

    /// Makes ready for sagas of a kind; false if it cannot run such ones.
    ///
    /// # Errors
    /// If it should be able to and is not.
    async fn prepare(&self, saga: Saga) -> Result<bool>;

    /// Starts one and waits until it has ended, as such a saga should.
    ///
    /// # Errors
    /// If it ends otherwise, or nobody says how.
    async fn run_one(&self, saga: Saga, id: String) -> Result<()>;

    /// For how long at least one call of each saga of a run was out, in microseconds, by the number that its id
    /// `{run}-{number}` ends with. None if it keeps no such times.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn called(&self, _run: &str) -> Result<Option<HashMap<u64, u64>>> {
        Ok(None)
    }

    /// What its journal has written; none if it does not tell.
    ///
    /// # Errors
    /// If it cannot be asked.
    async fn written(&self) -> Result<Option<Written>> {
        Ok(None)
    }

    /// Holds its own books, after the last loop, against what was counted of it.
    ///
    /// # Errors
    /// If they say otherwise.
    async fn settle(&self) -> Result<()> {
        Ok(())
    }
}
