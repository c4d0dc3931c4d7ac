//! Runs one load and counts what it took, and so makes the rows of the results.

use super::backstop::Backstop;
use super::database::{Before, Counters, HANDED_IN_AFTER};
use super::floor::{Calls, Journal, Sample};
use super::ground::Ground;
use super::load::{self, Ran};
use super::number;
use super::result::{Batches, Cell, Database, Floor, Part, Row, Usage};
use super::system::{Group, System};
use super::usage::Look;
use anyhow::{Context, Result};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// What loops run on, and what counts them.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) ground: Ground,
    pub(super) counters: Counters,
}

/// What a load came to, and what it took.
#[derive(Debug)]
pub(super) struct Measured<T> {
    pub(super) ran: T,
    pub(super) usage: Usage,
    pub(super) database: Database,
}

impl Stage {
    /// Runs a load of some processes beside the ground's. `count` tells how many sagas it was; `nudge` does a little
    /// more of the same, so that Postgres' sessions hand in their counts.
    pub(super) async fn measure<T>(
        &self,
        processes: Vec<Group>,
        load: impl Future<Output = Result<T>>,
        count: impl Fn(&T) -> u64,
        nudge: impl AsyncFn() -> Result<()>,
    ) -> Result<Measured<T>> {
        let mut groups = self.ground.processes().await?;
        groups.extend(processes);
        self.hand_in(&nudge).await?;
        let before: Before = self.counters.begin().await?;
        let look = Look::begin(&groups)?;
        let ran = load.await?;
        let sagas = count(&ran);
        let usage = look.end(&groups, sagas)?;
        let mut database = self.counters.end(&before, sagas).await?;
        self.hand_in(&nudge).await?;
        database.flushes = self.counters.flushes(&before, sagas).await;
        Ok(Measured { ran, usage, database })
    }

    async fn hand_in(&self, nudge: impl AsyncFn() -> Result<()>) -> Result<()> {
        if self.counters.are_there() {
            tokio::time::sleep(HANDED_IN_AFTER).await;
            nudge().await?;
        }
        Ok(())
    }

    /// One closed loop of a system.
    pub(super) async fn row(&self, system: &Arc<dyn System>, cell: Cell, time: Duration) -> Result<Row> {
        let saga = cell.saga();
        let run = format!("{}-{}-{}-{}", saga.name(), system.name(), cell.in_flight, cell.round);
        let before = system.written().await?;
        let loop_ = load::closed(system, saga, &run, cell.in_flight, time);
        let nudge = async || system.run_one(saga, format!("nudge-{}", crate::moment::now())).await;
        let measured = self.measure(system.processes(), loop_, ended, nudge).await?;
        let after = system.written().await?;
        let ran = measured.ran;
        let overhead = match system.called(&run).await? {
            Some(called) => Some(ran.overhead(&called)?),
            None => None,
        };
        // Those that nudged wrote too.
        let sagas = number(ended(&ran) + if self.counters.are_there() { 2 } else { 0 });
        let journal = before.zip(after).map(|(before, after)| {
            let (writes, events) = (after.writes - before.writes, after.events - before.events);
            Batches {
                writes_per_saga: writes / sagas,
                events_per_saga: events / sagas,
                events_per_write: events / writes,
            }
        });
        Ok(Row {
            system: system.name().to_owned(),
            cell,
            ended: ended(&ran),
            failed: ran.failed,
            failure: ran.failure.clone(),
            rate: ran.rate(),
            calls_rate: ran.rate() * number(cell.shape.calls()),
            latency: ran.latency()?,
            overhead,
            usage: measured.usage,
            database: measured.database,
            journal,
            of_floor: None,
        })
    }

    /// The floor of a cell.
    pub(super) async fn floor(
        &self,
        (calls, journal): (&Calls, &Journal),
        cell: Cell,
        sample: &Sample,
        time: Duration,
    ) -> Result<Floor> {
        let saga = cell.saga();
        let run = format!("{}-{}-{}", saga.name(), cell.in_flight, cell.round);
        let loop_ = calls.run(saga, sample, cell.in_flight, time);
        let calls = part(self.measure(Vec::new(), loop_, ended, async || Ok(())).await?)?;
        let loop_ = journal.run(cell.shape, &run, sample, cell.in_flight, time);
        let nudge = async || journal.one(cell.shape, format!("nudge-{}", crate::moment::now()), sample).await;
        let journal = part(self.measure(Vec::new(), loop_, ended, nudge).await?)?;
        let rate = 1.0 / (1.0 / calls.rate + 1.0 / journal.rate);
        let latency_p50_us = calls.latency.p50 + journal.latency.p50;
        Ok(Floor { cell, calls, journal, rate, latency_p50_us })
    }
}

/// Sagas that ended as they should.
pub(super) fn ended(ran: &Ran) -> u64 {
    u64::try_from(ran.sagas.len()).unwrap_or(u64::MAX)
}

fn part(measured: Measured<Ran>) -> Result<Part> {
    let Measured { ran, usage, database } = measured;
    anyhow::ensure!(ran.failed == 0, "the floor fails: {}", ran.failure.unwrap_or_default());
    Ok(Part { rate: ran.rate(), latency: ran.latency()?, usage, database })
}

/// The lengths of what one saga of a kind sends, answers and writes.
pub(super) async fn sample(backstop: &Backstop, cell: &Cell) -> Result<Sample> {
    let saga = cell.saga();
    let request = saga.request(format!("sample-{}-{}", saga.name(), cell.store.name()));
    let (id, length) = (request.saga_id.clone(), request.encoded_len());
    let answer = backstop.api().start(request).await?.encoded_len();
    let events = backstop.journal().sizes(&id).await.context("a sample's journal")?;
    let expected: usize = cell.shape.appends().iter().sum();
    anyhow::ensure!(events.len() == expected, "{id} has {} events, not {expected}", events.len());
    Ok(Sample { request: length, answer, events })
}
