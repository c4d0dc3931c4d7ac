//! A closed loop: so many sagas in flight, each client starts its next when it has seen the end of its last.

use super::result::Quantiles;
use super::shape::Saga;
use super::system::System;
use anyhow::Result;
use hdrhistogram::Histogram;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Longest latency that is told apart: longer ones count as this.
const LATENCY_MAX_US: u64 = 120_000_000;

/// What a loop came to.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// How long each saga took that ended as it should, by its number, in microseconds.
    pub(super) sagas: Vec<(u64, u64)>,
    /// Sagas that did not.
    pub(crate) failed: u64,
    /// What was said of one of them.
    pub(super) failure: Option<String>,
    /// From the first start to the last end.
    pub(super) took: Duration,
}

/// An empty histogram of microseconds.
///
/// # Errors
/// If it cannot be made.
pub(super) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?)
}

/// Runs a loop for so long.
///
/// # Errors
/// If a client panics.
pub(super) async fn closed(
    system: &Arc<dyn System>,
    saga: Saga,
    run: &str,
    in_flight: usize,
    time: Duration,
) -> Result<Ran> {
    let system = Arc::clone(system);
    let run = run.to_owned();
    repeat(in_flight, time, move |number| {
        let (system, id) = (Arc::clone(&system), format!("{run}-{number}"));
        async move { system.run_one(saga, id).await }
    })
    .await
}

/// Does a thing over and over for so long, so many at once.
///
/// # Errors
/// If one panics.
pub(super) async fn repeat<F>(
    in_flight: usize,
    time: Duration,
    one: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<Ran>
where
    F: Future<Output = Result<()>> + Send,
{
    let until = Instant::now() + time;
    spread(in_flight, move |_| Instant::now() < until, one).await
}

/// Does a thing so many times, so many at once.
///
/// # Errors
/// If one panics.
pub(crate) async fn times<F>(
    in_flight: usize,
    count: u64,
    one: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<Ran>
where
    F: Future<Output = Result<()>> + Send,
{
    spread(in_flight, move |number| number < count, one).await
}

/// Does a thing as long as the next number may be done, so many at once.
async fn spread<F>(
    in_flight: usize,
    may: impl Fn(u64) -> bool + Clone + Send + 'static,
    one: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<Ran>
where
    F: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..in_flight {
        let (one, may, next) = (one.clone(), may.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut ran = Ran::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if !may(number) {
                    return ran;
                }
                let started = Instant::now();
                match one(number).await {
                    Ok(()) => ran.sagas.push((number, micros(started.elapsed()))),
                    Err(error) => ran.fails(&error),
                }
            }
        });
    }
    let mut all = Ran::default();
    while let Some(client) = clients.join_next().await {
        let one = client?;
        all.sagas.extend(one.sagas);
        all.failed += one.failed;
        all.failure = all.failure.or(one.failure);
    }
    all.took = began.elapsed();
    Ok(all)
}

/// A duration in whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Ran {
    /// Counts one that failed.
    pub(super) fn fails(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.failure.get_or_insert_with(|| format!("{error:#}"));
    }

    /// Sagas that ended as they should, a second.
    pub(super) fn rate(&self) -> f64 {
        super::number(self.sagas.len()) / self.took.as_secs_f64()
    }

    /// How long they took.
    ///
    /// # Errors
    /// If the histogram cannot be made.
    pub(super) fn latency(&self) -> Result<Quantiles> {
        let mut latency = histogram()?;
        self.sagas.iter().for_each(|(_, took)| latency.saturating_record(*took));
        Ok(Quantiles::of(&latency))
    }

    /// How long they took but for the time in which a call of theirs was out.
    ///
    /// # Errors
    /// If the histogram cannot be made.
    pub(super) fn overhead(&self, called: &HashMap<u64, u64>) -> Result<Quantiles> {
        let mut overhead = histogram()?;
        for (number, took) in &self.sagas {
            if let Some(called) = called.get(number) {
                overhead.saturating_record(took.saturating_sub(*called));
            }
        }
        Ok(Quantiles::of(&overhead))
    }
}
