//! A closed loop: so many sagas in flight, each client starts its next when it has seen the end of its last.

use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Longest latency that is told apart: longer ones count as this.
const LATENCY_MAX_US: u64 = 120_000_000;

/// What a loop came to.
#[derive(Debug)]
pub(super) struct Ran {
    /// Sagas that ended as they should.
    pub(super) ended: u64,
    /// Sagas that did not.
    pub(super) failed: u64,
    /// From the first start to the last end.
    pub(super) took: Duration,
    /// From start to end of each, in microseconds.
    pub(super) latency: Histogram<u64>,
}

/// Runs a loop for so long. `run_one` takes a saga's id, and answers at its end whether that was as it should be.
///
/// # Errors
/// If the histogram cannot be made.
pub(super) async fn closed<F: Future<Output = bool> + Send>(
    run_one: impl Fn(String) -> F + Clone + Send + 'static,
    run: &str,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<Ran> {
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let until = began + time;
    let mut clients = JoinSet::new();
    for _ in 0..in_flight {
        let (run_one, next, run) = (run_one.clone(), Arc::clone(&next), run.to_owned());
        clients.spawn(async move {
            let mut latency = Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_US, 3)?;
            let mut failed = 0;
            while Instant::now() < until {
                let id = format!("{run}-{}", next.fetch_add(1, Ordering::Relaxed));
                let started = Instant::now();
                let as_it_should = run_one(id).await;
                latency.saturating_record(u64::try_from(started.elapsed().as_micros())?);
                failed += u64::from(!as_it_should);
            }
            anyhow::Ok((latency, failed))
        });
    }
    let mut latency = Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_US, 3)?;
    let mut failed = 0;
    while let Some(client) = clients.join_next().await {
        let (one, failures) = client??;
        latency.add(&one)?;
        failed += failures;
    }
    let took = began.elapsed();
    Ok(Ran { ended: latency.len() - failed, failed, took, latency })
}
