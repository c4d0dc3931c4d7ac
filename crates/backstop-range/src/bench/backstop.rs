//! Backstop as the benchmark runs it: one coordinator with the settings that it has by itself.
//!
//! # Not here
//! Reading its journal: `journal`.

use super::ground::{Ground, Store, pid};
use super::journal::Journal;
use super::shape::Saga;
use super::system::{Group, System, Written};
use crate::api::Api;
use crate::coordinator::{Coordinator, Plan};
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::path::Path;

/// Calls in flight to one participant: no bound that a run comes near.
pub(super) const IN_FLIGHT_MAX: u32 = 100_000;

/// A coordinator of its own, on a store of its own.
#[derive(Debug)]
pub(super) struct Backstop {
    coordinator: Coordinator,
    api: Api,
    journal: Journal,
    pid: u32,
    durability: &'static str,
}

impl Backstop {
    /// Starts it on a new store.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) async fn start(program: &Path, ground: &Ground, settings: &[(&str, &str)]) -> Result<Self> {
        let store = ground.new_store("backstop")?;
        Self::start_on(program, ground, store, settings).await
    }

    /// Starts it on a store.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) async fn start_on(
        program: &Path,
        ground: &Ground,
        store: String,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        if ground.store() == Store::Postgres {
            crate::cluster::migrate(program, &store).await?;
        }
        let plan = Plan {
            program: program.to_owned(),
            store: store.clone(),
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let coordinator = Coordinator::new("A", plan);
        coordinator.start().await?;
        let api = Api::at(coordinator.address()?)?;
        api.enlist(ground.endpoints()?, IN_FLIGHT_MAX).await?;
        let durability = match ground.store() {
            Store::Postgres => "fsync and synchronous_commit on",
            Store::Sqlite => "WAL, synchronous = FULL",
        };
        let pid = pid(&coordinator).await?;
        Ok(Self { coordinator, api, journal: Journal::open(&store).await?, pid, durability })
    }

    /// Its API.
    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    /// Its process.
    pub(super) fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// The id of its process.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its journal, as the store has it.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }
}

#[tonic::async_trait]
impl System for Backstop {
    fn name(&self) -> &str {
        "backstop"
    }

    fn processes(&self) -> Vec<Group> {
        vec![Group { name: "coordinator".to_owned(), roots: vec![self.pid], with_children: false }]
    }

    fn settings(&self) -> Vec<String> {
        vec![format!("{}; all else as it is by itself", self.durability)]
    }

    async fn prepare(&self, saga: Saga) -> Result<bool> {
        self.api.define(saga.definition()).await?;
        Ok(true)
    }

    async fn run_one(&self, saga: Saga, id: String) -> Result<()> {
        let ended = self.api.start(saga.request(id)).await?;
        ensure!(ended.state() == saga.shape.end(), "{} is {:?}", ended.id, ended.state());
        Ok(())
    }

    async fn called(&self, run: &str) -> Result<Option<HashMap<u64, u64>>> {
        self.journal.called(run).await.context("the times of calls in the journal").map(Some)
    }

    async fn written(&self) -> Result<Option<Written>> {
        let writes = self.coordinator.counter("backstop_journal_batch_events_count").await?;
        let events = self.coordinator.counter("backstop_journal_batch_events_sum").await?;
        Ok(Some(Written { writes, events }))
    }
}
