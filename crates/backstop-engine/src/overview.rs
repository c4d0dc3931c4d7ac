//! What one coordinator has done since it began and what it has going on now, for whoever looks at it live.
//!
//! # Invariants
//! * Counters only grow: whoever asks twice takes the difference
//!   (`what_has_ended_is_counted_once_and_by_its_end`).
//! * An answer costs as much as there are participants, never as much as there are sagas.
//! * A quantile speaks for the last [`WINDOW`] to twice that, and for nothing older
//!   (`old_times_are_forgotten`); it is never less than the truth, and at most an eighth more
//!   (`a_quantile_is_within_an_eighth_of_the_truth`).
//!
//! # Not here
//! What is exported to Prometheus and OTLP: [`crate::metrics`]. Other coordinators: whoever looks asks each.

use crate::shared::Shared;
use backstop_core::{CoordinatorId, Event, EventKind, ParticipantName, Timestamp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// Times are kept for this long, and for as long again while the next window fills.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Buckets for each doubling of a time.
const BUCKETS_PER_DOUBLING: u64 = 8;
/// Buckets of a window: up to 2^37 µs, which is a day and a half; longer times count as that.
const BUCKETS: usize = 280;

/// A coordinator at one moment.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Who it is.
    pub coordinator: CoordinatorId,
    /// How long the counters have been counting.
    pub uptime: Duration,
    /// Sagas accepted here.
    pub sagas_started: u64,
    /// Sagas that ended well here.
    pub sagas_succeeded: u64,
    /// Sagas that were undone here.
    pub sagas_rolled_back: u64,
    /// StartSaga calls that were refused for load.
    pub admissions_refused: u64,
    /// Sagas in memory.
    pub live_sagas: usize,
    /// Bound of that.
    pub live_sagas_max: usize,
    /// Appends that wait for the journal's writer.
    pub journal_queue: usize,
    /// Bound of that.
    pub journal_queue_max: usize,
    /// Appends of the journal, from handing them in to their being on disk.
    pub journal_appends: Timed,
    /// Time until the lease runs out unless it is renewed.
    pub lease_remaining: Duration,
    /// It is about to leave.
    pub is_draining: bool,
    /// Sagas in the store that wait for a person, as they were last counted.
    pub interventions: u64,
    /// When the one of these that waits longest was last heard of.
    pub interventions_since: Option<Timestamp>,
    /// What it has going on with each participant, by name.
    pub participants: Vec<ParticipantOverview>,
}

/// What a coordinator has going on with one participant.
#[derive(Debug, Clone)]
pub struct ParticipantOverview {
    /// Its name.
    pub participant: ParticipantName,
    /// Calls are kept back.
    pub breaker_open: bool,
    /// Calls that are out.
    pub in_flight: usize,
    /// Bound of that.
    pub in_flight_max: usize,
    /// Calls that wait at the gate.
    pub waiting: usize,
    /// Calls that went out and came back, actions, queries and compensations.
    pub calls: Timed,
    /// How many of them failed.
    pub calls_failed: u64,
}

/// How often something was done, and how long it took lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timed {
    /// How often, since the beginning.
    pub count: u64,
    /// How many of them the times below speak for.
    pub recent: u64,
    /// Their mean.
    pub mean: Duration,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
}

/// The counters of a coordinator.
#[derive(Debug)]
pub(crate) struct Tally {
    began: Instant,
    started: AtomicU64,
    succeeded: AtomicU64,
    rolled_back: AtomicU64,
    refused: AtomicU64,
    appends: Mutex<Times>,
    calls: RwLock<BTreeMap<ParticipantName, Arc<Mutex<Calls>>>>,
}

#[derive(Debug, Default)]
struct Calls {
    times: Times,
    failed: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            started: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            rolled_back: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            appends: Mutex::default(),
            calls: RwLock::default(),
        }
    }

    /// Counts what events that are now durable say.
    pub(crate) fn committed(&self, events: &[Event]) {
        for event in events {
            let counter = match &event.kind {
                EventKind::Started(_) => &self.started,
                EventKind::Succeeded => &self.succeeded,
                EventKind::RolledBack => &self.rolled_back,
                EventKind::Adopted { .. }
                | EventKind::Released
                | EventKind::ActionSucceeded { .. }
                | EventKind::ActionFailed { .. }
                | EventKind::QueryAnswered { .. }
                | EventKind::QueryFailed { .. }
                | EventKind::RollbackDecided { .. }
                | EventKind::CompensationSucceeded { .. }
                | EventKind::CompensationFailed { .. }
                | EventKind::SignalReported { .. }
                | EventKind::InterventionOpened
                | EventKind::BranchRetried { .. }
                | EventKind::BranchResolved { .. } => continue,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn appended(&self, took: Duration) {
        lock(&self.appends).record(self.began.elapsed(), took);
    }

    /// A call has come back that had gone out.
    pub(crate) fn called(&self, participant: &ParticipantName, took: Duration, failed: bool) {
        let known = self.calls.read().unwrap_or_else(PoisonError::into_inner).get(participant).cloned();
        let calls = known.unwrap_or_else(|| {
            let mut all = self.calls.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(participant.clone()).or_default())
        });
        let mut calls = lock(&calls);
        calls.times.record(self.began.elapsed(), took);
        calls.failed += u64::from(failed);
    }

    /// All of it, with what else there is to see of the coordinator.
    pub(crate) fn overview(&self, shared: &Shared) -> Overview {
        let now = self.began.elapsed();
        let calls = self.calls.read().unwrap_or_else(PoisonError::into_inner);
        let participants = shared.gates.all().into_iter().map(|(participant, gate)| {
            let (timed, calls_failed) = calls.get(&participant).map_or_else(Default::default, |calls| {
                let calls = lock(calls);
                (calls.times.timed(now), calls.failed)
            });
            ParticipantOverview {
                breaker_open: gate.is_open(),
                in_flight: gate.in_flight(),
                in_flight_max: gate.in_flight_max(),
                waiting: gate.waiting(),
                calls: timed,
                calls_failed,
                participant,
            }
        });
        let tenure = shared.tenure();
        Overview {
            coordinator: tenure.coordinator.clone(),
            uptime: now,
            sagas_started: self.started.load(Ordering::Relaxed),
            sagas_succeeded: self.succeeded.load(Ordering::Relaxed),
            sagas_rolled_back: self.rolled_back.load(Ordering::Relaxed),
            admissions_refused: self.refused.load(Ordering::Relaxed),
            live_sagas: shared.live.count(),
            live_sagas_max: shared.settings.live_sagas_max,
            journal_queue: shared.journal.waiting(),
            journal_queue_max: shared.settings.journal_queue_max,
            journal_appends: lock(&self.appends).timed(now),
            lease_remaining: tenure.remaining(),
            is_draining: shared.draining.is_cancelled(),
            interventions: shared.metrics.interventions.open(),
            interventions_since: shared
                .metrics
                .interventions
                .counted()
                .iter()
                .filter_map(|of_definition| of_definition.waiting_since)
                .min(),
            participants: participants.collect(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Durations in two windows of time, of which the older is dropped when a new one begins.
#[derive(Debug, Default)]
struct Times {
    count: u64,
    /// The number of the window that fills now.
    window: u64,
    filling: Window,
    before: Window,
}

#[derive(Debug, Default)]
struct Window {
    count: u64,
    sum: Duration,
    buckets: Vec<u32>,
}

impl Times {
    fn record(&mut self, now: Duration, took: Duration) {
        self.turn(now);
        self.count += 1;
        self.filling.count += 1;
        self.filling.sum = self.filling.sum.saturating_add(took);
        // Made with the first: most participants of a quiet coordinator are never called.
        self.filling.buckets.resize(BUCKETS, 0);
        if let Some(bucket) = self.filling.buckets.get_mut(bucket_of(took)) {
            *bucket = bucket.saturating_add(1);
        }
    }

    /// Begins a new window if it is time to.
    fn turn(&mut self, now: Duration) {
        let window = now.as_secs() / WINDOW.as_secs();
        // Those who record at once may come in another order than they read the clock.
        if window > self.window {
            let filled = std::mem::take(&mut self.filling);
            self.before = if window == self.window + 1 { filled } else { Window::default() };
            self.window = window;
        }
    }

    fn timed(&self, now: Duration) -> Timed {
        let (recent, older) = match (now.as_secs() / WINDOW.as_secs()).saturating_sub(self.window) {
            0 => (&self.filling, Some(&self.before)),
            1 => (&self.filling, None),
            _ => return Timed { count: self.count, ..Timed::default() },
        };
        let windows = [Some(recent), older];
        let all = || windows.iter().flatten();
        let counted: u64 = all().map(|window| window.count).sum();
        let sum: Duration = all().map(|window| window.sum).sum();
        let quantile = |hundredths: u64| {
            let rank = (counted * hundredths).div_ceil(100);
            let mut seen = 0;
            let found = (0..BUCKETS).find(|bucket| {
                seen += all()
                    .filter_map(|window| window.buckets.get(*bucket))
                    .map(|n| u64::from(*n))
                    .sum::<u64>();
                seen >= rank.max(1)
            });
            found.map_or(Duration::ZERO, end_of_bucket)
        };
        Timed {
            count: self.count,
            recent: counted,
            mean: sum.checked_div(u32::try_from(counted).unwrap_or(u32::MAX)).unwrap_or_default(),
            p50: quantile(50),
            p99: quantile(99),
        }
    }
}

/// Microseconds one by one up to [`BUCKETS_PER_DOUBLING`], from there on in steps of an eighth of a doubling.
fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < BUCKETS_PER_DOUBLING {
        return usize::try_from(micros).unwrap_or(0);
    }
    let doubling = u64::from(micros.ilog2() - BUCKETS_PER_DOUBLING.ilog2());
    let within = (micros >> doubling) - BUCKETS_PER_DOUBLING;
    usize::try_from((doubling + 1) * BUCKETS_PER_DOUBLING + within).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The longest time that falls into a bucket, to the microsecond.
fn end_of_bucket(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    let micros = match (bucket / BUCKETS_PER_DOUBLING).checked_sub(1) {
        None => bucket,
        Some(doubling) => {
            let within = bucket % BUCKETS_PER_DOUBLING + BUCKETS_PER_DOUBLING;
            ((within + 1) << doubling) - 1
        }
    };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_has_ended_is_counted_once_and_by_its_end() {
        let tally = Tally::new();
        let event = |seq: u64, kind: EventKind| Event {
            seq: backstop_core::Seq(seq),
            clock: backstop_core::Clock(seq),
            at: Timestamp(0),
            kind,
        };
        tally.committed(&[event(2, EventKind::Released), event(3, EventKind::Succeeded)]);
        tally.committed(&[event(2, EventKind::InterventionOpened)]);
        tally.committed(&[event(3, EventKind::RolledBack)]);
        tally.committed(&[event(7, EventKind::RolledBack)]);
        let counted =
            [&tally.started, &tally.succeeded, &tally.rolled_back].map(|of| of.load(Ordering::Relaxed));
        assert_eq!(counted, [0, 1, 2]);
    }

    #[test]
    fn calls_are_told_apart_by_participant() {
        let tally = Tally::new();
        let [a, b] = ["a", "b"].map(|name| ParticipantName::parse(name).unwrap());
        tally.called(&a, SECOND, false);
        tally.called(&a, SECOND, true);
        tally.called(&b, SECOND * 3, false);
        let all = tally.calls.read().unwrap();
        let of = |name| {
            let calls = lock(&all[name]);
            let timed = calls.times.timed(tally.began.elapsed());
            (timed.count, calls.failed, timed.mean)
        };
        assert_eq!((of(&a), of(&b)), ((2, 1, SECOND), (1, 0, SECOND * 3)));
    }

    #[test]
    fn a_quantile_is_within_an_eighth_of_the_truth() {
        let mut micros = 1_u64;
        while micros < 1 << 36 {
            let shown = end_of_bucket(bucket_of(Duration::from_micros(micros)));
            let truth = Duration::from_micros(micros);
            assert!(shown >= truth, "{micros}: {shown:?}");
            assert!(shown <= truth + truth / 8, "{micros}: {shown:?}");
            micros += 1 + micros / 37;
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_of_all_that_is_recent() {
        let mut times = Times::default();
        (1..=100).for_each(|ms| times.record(SECOND, Duration::from_millis(ms)));
        let timed = times.timed(SECOND * 2);
        assert_eq!((timed.count, timed.recent, timed.mean), (100, 100, Duration::from_micros(50_500)));
        assert!((50..=57).contains(&timed.p50.as_millis()), "{timed:?}");
        assert!((99..=112).contains(&timed.p99.as_millis()), "{timed:?}");
        // The next window does not make the one before forgotten.
        (0..300).for_each(|_| times.record(SECOND * 11, Duration::from_millis(1)));
        let timed = times.timed(SECOND * 12);
        assert_eq!((timed.recent, timed.p50.as_millis()), (400, 1));
        assert!(timed.p99.as_millis() >= 96, "{timed:?}");
    }

    #[test]
    fn old_times_are_forgotten() {
        let mut times = Times::default();
        times.record(SECOND, SECOND);
        assert_eq!(times.timed(SECOND * 19).recent, 1, "still within the window after its own");
        let gone = times.timed(SECOND * 20);
        assert_eq!((gone.count, gone.recent, gone.p99), (1, 0, Duration::ZERO));
        times.record(SECOND * 35, Duration::from_millis(1));
        let timed = times.timed(SECOND * 35);
        assert_eq!((timed.count, timed.recent, timed.p99), (2, 1, Duration::from_micros(1_023)));
    }
}
