//! Lives through many worlds, several at once.

use crate::coverage::Coverage;
use crate::held;
use crate::options::Options;
use crate::run::{Lived, live};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What came of a hunt.
#[derive(Debug, Clone, Default)]
pub struct Hunt {
    /// Worlds that were lived through.
    pub seeds: u64,
    /// Their sagas.
    pub sagas: u64,
    /// All that they reached.
    pub coverage: Coverage,
    /// Time that passed in them.
    pub lasted: Duration,
    /// Those that failed, by seed.
    pub failed: Vec<Lived>,
    /// How long it took.
    pub took: Duration,
}

/// Lives through the worlds of these seeds, until the time is up or those that have failed are enough.
#[must_use]
pub fn hunt(
    like: &Options,
    seeds: std::ops::Range<u64>,
    at_most: Option<Duration>,
    threads: usize,
    enough: impl Fn(&[Lived]) -> bool + Sync,
) -> Hunt {
    let (began, next, is_over) = (Instant::now(), AtomicU64::new(seeds.start), AtomicBool::new(false));
    let sum = Mutex::new(Hunt::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && at_most.is_none_or(|most| began.elapsed() < most) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let lived = live(&Options { seed, ..like.clone() });
                    let mut sum = held(&sum);
                    sum.seeds += 1;
                    sum.sagas += lived.sagas;
                    sum.lasted += lived.lasted;
                    sum.coverage.add(&lived.coverage);
                    if lived.failure.is_some() {
                        sum.failed.push(lived);
                        is_over.fetch_or(enough(&sum.failed), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut hunt = sum.into_inner().unwrap_or_default();
    hunt.failed.sort_by_key(|lived| lived.options.seed);
    hunt.took = began.elapsed();
    hunt
}
