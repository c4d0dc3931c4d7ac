//! An open loop: sagas are due by the clock, whatever became of those before.
//!
//! # Invariants
//! * Latency counts from when a saga was due, not from when the load came to send it: a stall is paid for by every
//!   saga that was due in it. How late the load itself was is told beside it.
//! * The clock's thread does nothing but wait and hand over: tokio's timers go by whole milliseconds, which would be a
//!   good part of what is measured.

use super::disk::Probe;
use super::load::{Ran, histogram, micros};
use super::measure::{Stage, ended};
use super::result::{Cell, Open, Quantiles};
use super::shape::Saga;
use super::system::System;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longest wait for the last sagas after the last was due.
const PATIENCE: Duration = Duration::from_secs(60);

/// How one saga went.
struct Went {
    number: u64,
    late: Duration,
    took: Duration,
    failure: Option<anyhow::Error>,
}

/// How all of them went.
#[derive(Debug)]
pub(super) struct Paced {
    /// From due to end.
    pub(super) ran: Ran,
    /// From due to sent.
    pub(super) lateness: Quantiles,
    /// Most sagas under way at a time.
    pub(super) in_flight_max: usize,
}

/// Starts so many sagas a second for so long, and waits for their ends.
///
/// # Errors
/// If the clock's thread fails.
pub(super) async fn paced(
    system: &Arc<dyn System>,
    saga: Saga,
    run: &str,
    rate: f64,
    time: Duration,
) -> Result<Paced> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let clock = {
        let (system, run, runtime) = (Arc::clone(system), run.to_owned(), tokio::runtime::Handle::current());
        let most = Arc::clone(&most);
        move || {
            let begin = Instant::now();
            for number in 0_u64.. {
                let after = Duration::from_secs_f64(super::number(number) / rate);
                if after >= time {
                    break;
                }
                let due = begin + after;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let (system, id, tell) = (Arc::clone(&system), format!("{run}-{number}"), tell.clone());
                let under_way = Arc::clone(&under_way);
                most.fetch_max(under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                runtime.spawn(async move {
                    let late = due.elapsed();
                    let failure = system.run_one(saga, id).await.err();
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    // Nobody listens any more once the patience is over.
                    let _ = tell.send(Went { number, late, took: due.elapsed(), failure });
                });
            }
        }
    };
    let began = Instant::now();
    let clock = std::thread::Builder::new().name("clock".to_owned()).spawn(clock)?;
    let mut ran = Ran::default();
    let mut lateness = histogram()?;
    let deadline = began + time + PATIENCE;
    // The channel closes when the last saga has told.
    while let Some(went) = tokio::time::timeout_at(deadline, told.recv())
        .await
        .context("sagas that have not ended a minute after the last was due")?
    {
        lateness.saturating_record(micros(went.late));
        match went.failure {
            None => ran.sagas.push((went.number, micros(went.took))),
            Some(error) => ran.fails(&error),
        }
    }
    ran.took = began.elapsed();
    anyhow::ensure!(clock.join().is_ok(), "the clock's thread panicked");
    Ok(Paced { ran, lateness: Quantiles::of(&lateness), in_flight_max: most.load(Ordering::Relaxed) })
}

impl Stage {
    /// One open loop of a system.
    pub(super) async fn open(
        &self,
        system: &Arc<dyn System>,
        cell: Cell,
        (rate, share_of_peak): (f64, Option<f64>),
        time: Duration,
    ) -> Result<Open> {
        let saga = cell.saga();
        let run = format!("{}-{}-open-{rate:.0}-{}", saga.name(), system.name(), cell.round);
        let probe = Probe::start(self.ground.folder())?;
        let loop_ = paced(system, saga, &run, rate, time);
        let nudge = async || system.run_one(saga, format!("nudge-{}", crate::moment::now())).await;
        let measured = self.measure(system.processes(), loop_, |paced| ended(&paced.ran), nudge).await?;
        let flush = probe.end()?;
        let Paced { ran, lateness, in_flight_max } = measured.ran;
        let overhead = match system.called(&run).await? {
            Some(called) => Some(ran.overhead(&called)?),
            None => None,
        };
        Ok(Open {
            system: system.name().to_owned(),
            cell: Cell { in_flight: in_flight_max, ..cell },
            rate,
            share_of_peak,
            seconds: time.as_secs_f64(),
            ended: ended(&ran),
            failed: ran.failed,
            failure: ran.failure.clone(),
            latency: ran.latency()?,
            overhead,
            lateness,
            flush,
            usage: measured.usage,
            database: measured.database,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::system::Group;
    use crate::bench::{Requests, Shape};

    /// Each saga waits for the one before, and the third takes long: a stall.
    struct Stalls(tokio::sync::Mutex<u32>);

    #[tonic::async_trait]
    impl System for Stalls {
        fn name(&self) -> &str {
            "stalls"
        }

        fn processes(&self) -> Vec<Group> {
            Vec::new()
        }

        fn settings(&self) -> Vec<String> {
            Vec::new()
        }

        async fn prepare(&self, _: Saga) -> Result<bool> {
            Ok(true)
        }

        async fn run_one(&self, _: Saga, id: String) -> Result<()> {
            let mut count = self.0.lock().await;
            *count += 1;
            if id.ends_with("-2") {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Ok(())
        }
    }

    // On one thread tasks run in the order in which they were handed over.
    #[tokio::test]
    async fn those_that_are_due_in_a_stall_pay_for_it() {
        let system: Arc<dyn System> = Arc::new(Stalls(tokio::sync::Mutex::new(0)));
        let saga = Saga { shape: Shape::Concurrent, requests: Requests::Raw, filler: 0 };
        let paced = paced(&system, saga, "run", 100.0, Duration::from_millis(400)).await.unwrap();
        assert_eq!((paced.ran.sagas.len(), paced.ran.failed), (40, 0));
        // Number 3 was due 10 ms into the stall, number 22 was due 200 ms into it: both waited for its end.
        let took = |number| paced.ran.sagas.iter().find(|(other, _)| *other == number).unwrap().1;
        assert!(took(3) >= 250_000, "{}", took(3));
        assert!(took(22) >= 60_000, "{}", took(22));
        assert!(paced.in_flight_max >= 20);
    }
}
