//! The store's clock, carried on by our own monotonic one.
//!
//! # Invariants
//! * It never goes back, whatever the machine's wall clock does: only readings of the store's clock enter, and
//!   monotonic time between them.
//! * No time is told twice, also while a correction holds it back: what happens at one coordinator at two times is
//!   told apart by them. Otherwise a saga's start that is asked for again could be taken for a repetition of the very
//!   append that has started it, and the saga would be run twice.
//! * All coordinators of a store stay in step with it: each renewal of the lease brings a reading. A machine that
//!   slept, and whose monotonic clock slept with it, is set right by the first renewal.
//! * If the store's clock goes back (a failover to another machine), ours does not stand still until it has been
//!   caught up: it runs at half its speed.

use crate::ports::clock::Clock;
use crate::ports::store::{Store, StoreResult};
use backstop_core::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::time::Instant;

/// A clock set by the store.
#[derive(Debug)]
pub struct StoreClock {
    origin: Instant,
    /// The store's time at `origin`, in microseconds since the Unix epoch.
    offset: AtomicI64,
    /// The latest time told, so that no correction takes time back.
    told: AtomicI64,
    /// When the last reading came, in microseconds since `origin`.
    heard_at: AtomicI64,
}

impl StoreClock {
    /// Reads the store's clock.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn read(store: &dyn Store) -> StoreResult<Self> {
        let origin = Instant::now();
        let read = store.now().await?;
        Ok(Self::of(origin, read))
    }

    fn of(origin: Instant, read: Timestamp) -> Self {
        let (offset, told) = (AtomicI64::new(read.0), AtomicI64::new(read.0));
        Self { origin, offset, told, heard_at: AtomicI64::new(0) }
    }

    /// Takes in a reading of the store's clock that was asked for at `asked_at` and has just come. A difference
    /// that the way there and back can explain changes nothing.
    pub fn heard(&self, read: Timestamp, asked_at: Instant) {
        let now = Instant::now();
        let (asked, came) = (self.at(asked_at), self.at(now));
        let here = Timestamp(0).plus(now.saturating_duration_since(self.origin)).0;
        let since_last = here.saturating_sub(self.heard_at.swap(here, Ordering::Relaxed)).max(0);
        let off = if read < asked {
            read.0.saturating_sub(asked.0).max(-since_last / 2)
        } else if read > came {
            read.0.saturating_sub(came.0)
        } else {
            return;
        };
        self.offset.fetch_add(off, Ordering::Relaxed);
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let since = instant.saturating_duration_since(self.origin);
        Timestamp(self.offset.load(Ordering::Relaxed)).plus(since)
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        let now = self.at(Instant::now()).0;
        let later = |told: i64| Some(now.max(told.saturating_add(1)));
        let told = self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        Timestamp(told.map_or(now, |told| now.max(told.saturating_add(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_certain_difference_is_taken_over_and_time_never_goes_back() {
        let clock = StoreClock::of(Instant::now(), Timestamp(1_000_000));
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(10)).await;
        clock.heard(Timestamp(1_004_000), asked);
        assert_eq!(clock.now(), Timestamp(1_010_000), "the reading was taken somewhere on the way");
        clock.heard(Timestamp(5_010_000), Instant::now());
        assert_eq!(clock.now(), Timestamp(5_010_000), "the machine had slept");
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_is_told_twice_also_when_it_is_held_back() {
        let clock = StoreClock::of(Instant::now(), Timestamp(1_000_000));
        let first = clock.now();
        assert!(clock.now() > first);
        tokio::time::advance(Duration::from_secs(1)).await;
        let before = clock.now();
        clock.heard(Timestamp(0), Instant::now());
        assert!(clock.now() > before, "set back by half a second, it tells the next time all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_stores_clock_goes_back_ours_runs_at_half_its_speed_until_it_is_caught_up() {
        let clock = StoreClock::of(Instant::now(), Timestamp(100_000_000));
        let (mut store, mut last) = (40_000_000, clock.now());
        for second in 1..=120 {
            tokio::time::advance(Duration::from_secs(1)).await;
            store += 1_000_000;
            clock.heard(Timestamp(store), Instant::now());
            let now = clock.now();
            assert!(now >= last, "never back");
            last = now;
            let slow = Timestamp(100_000_000 + second * 500_000);
            assert!(last >= slow.max(Timestamp(store)), "{last:?} after {second} s: it does not stand still");
        }
        assert_eq!(last, Timestamp(store), "and two minutes make up for one");
    }
}
