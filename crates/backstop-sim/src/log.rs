//! All that happens in a world, in order and with virtual times. Same seed, same log.

use crate::dice::fnv;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// Lines kept for whoever has to look into a failure.
const TAIL_MAX: usize = 4_000;

/// The log.
pub(crate) struct Log {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tail: VecDeque<String>,
    digest: u64,
    lines: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }

    pub(crate) fn say(&self, who: &str, what: &str) {
        let at = self.began.elapsed().as_micros();
        let line = format!("{:>9}.{:03} {who:<8} {what}", at / 1_000, at % 1_000);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.digest = state.digest.rotate_left(5).wrapping_mul(31) ^ fnv(line.bytes());
        state.lines += 1;
        if state.tail.len() == TAIL_MAX {
            state.tail.pop_front();
        }
        state.tail.push_back(line);
    }

    /// A digest of all lines, in order.
    pub(crate) fn digest(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).digest
    }

    /// The last lines.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tail.iter().skip(state.tail.len().saturating_sub(count)).cloned().collect()
    }
}
