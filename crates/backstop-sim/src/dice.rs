//! Numbers that look random and that a seed replays.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A stream of numbers (splitmix64). Each part of the world has its own, so that a draw more in one does not change
/// what the others draw.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    /// The stream of this seed that bears this name.
    pub(crate) fn of(seed: u64, name: &str) -> Self {
        let hash = fnv(name.bytes());
        let stream = Self(AtomicU64::new(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        stream.next();
        stream
    }

    fn next(&self) -> u64 {
        let z =
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub(crate) fn roll(&self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// A place in a list of this length.
    pub(crate) fn place(&self, length: usize) -> usize {
        usize::try_from(self.roll(length as u64)).unwrap_or(0)
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&self, among: &[T], otherwise: T) -> T {
        among.get(self.place(among.len())).copied().unwrap_or(otherwise)
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&self, times: u64) -> bool {
        self.roll(100) < times
    }

    /// A time between these, in milliseconds, the shorter the likelier.
    pub(crate) fn ms(&self, from: u64, to: u64) -> Duration {
        let span = to.saturating_sub(from) + 1;
        Duration::from_millis(from + self.roll(span).min(self.roll(span)))
    }
}

/// FNV-1a.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
