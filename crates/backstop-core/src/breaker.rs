//! The circuit breaker of one participant: a window of outcomes, an instant, and no clock of its own.

use crate::time::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// When a breaker opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Calls in the window before it may open.
    pub calls_min: u32,
    /// Share of failures that opens it, in percent.
    pub failures_percent: u32,
    /// How far back the window looks.
    pub window: Duration,
    /// How long it stays open before one probe may pass.
    pub open_for: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            calls_min: 20,
            failures_percent: 50,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
        }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls do not pass before the instant.
    Open(Timestamp),
    /// One probe is under way; others do not pass.
    Probing,
}

/// Slices of the window. A sum over slices costs the same for ten calls and ten million.
const SLICES: u32 = 10;

#[derive(Debug, Clone, Copy)]
struct Slice {
    from: Timestamp,
    calls: u32,
    failures: u32,
}

/// A participant's breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: BreakerState,
    slices: VecDeque<Slice>,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: BreakerState::Closed, slices: VecDeque::new() }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Asks to pass. `true` lets the caller send, and obliges it to report by [`Breaker::record`] or
    /// [`Breaker::abandon`].
    pub fn try_pass(&mut self, now: Timestamp) -> bool {
        match self.state {
            BreakerState::Closed => true,
            BreakerState::Open(until) if now >= until => {
                self.state = BreakerState::Probing;
                true
            }
            BreakerState::Open(_) | BreakerState::Probing => false,
        }
    }

    /// Reports how a call that passed ended; `failed` means an L2 failure, the only kind that tells of an
    /// unreachable participant.
    pub fn record(&mut self, now: Timestamp, failed: bool) {
        if self.state == BreakerState::Probing {
            if failed {
                self.state = BreakerState::Open(now.plus(self.policy.open_for));
            } else {
                self.state = BreakerState::Closed;
                self.slices.clear();
            }
            return;
        }
        self.count(now, failed);
        let (calls, failures) = self
            .slices
            .iter()
            .fold((0_u64, 0_u64), |(c, f), s| (c + u64::from(s.calls), f + u64::from(s.failures)));
        let enough = calls >= u64::from(self.policy.calls_min);
        if self.state == BreakerState::Closed
            && failed
            && enough
            && failures * 100 >= calls * u64::from(self.policy.failures_percent)
        {
            self.state = BreakerState::Open(now.plus(self.policy.open_for));
            self.slices.clear();
        }
    }

    /// Reports that a call that passed was given up before it could tell anything.
    pub fn abandon(&mut self, now: Timestamp) {
        if self.state == BreakerState::Probing {
            self.state = BreakerState::Open(now);
        }
    }

    fn count(&mut self, now: Timestamp, failed: bool) {
        while self.slices.front().is_some_and(|s| now.since(s.from) >= self.policy.window) {
            self.slices.pop_front();
        }
        let fresh = self.slices.back().is_none_or(|s| now.since(s.from) >= self.policy.window / SLICES);
        if fresh {
            self.slices.push_back(Slice { from: now, calls: 0, failures: 0 });
        }
        if let Some(slice) = self.slices.back_mut() {
            slice.calls = slice.calls.saturating_add(1);
            slice.failures = slice.failures.saturating_add(u32::from(failed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp(ms * 1000)
    }

    #[test]
    fn half_of_twenty_failing_opens_it_and_one_probe_decides() {
        let mut breaker = Breaker::new(BreakerPolicy::default());
        for n in 0..19 {
            assert!(breaker.try_pass(at(n)));
            breaker.record(at(n), n % 2 == 0);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "nineteen calls are too few to judge");
        breaker.record(at(19), true);
        assert_eq!(breaker.state(), BreakerState::Open(at(5019)));
        assert!(!breaker.try_pass(at(5018)));
        assert!(breaker.try_pass(at(5019)), "the probe");
        assert!(!breaker.try_pass(at(5020)), "only one");
        breaker.record(at(5030), true);
        assert_eq!(breaker.state(), BreakerState::Open(at(10_030)));
        assert!(breaker.try_pass(at(10_030)));
        breaker.record(at(10_040), false);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn failures_outside_the_window_are_forgotten() {
        let mut breaker = Breaker::new(BreakerPolicy::default());
        for n in 0..19 {
            breaker.record(at(n), true);
        }
        breaker.record(at(10_100), true);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_is_given_up_lets_another_one_pass() {
        let mut breaker = Breaker::new(BreakerPolicy { calls_min: 1, ..BreakerPolicy::default() });
        breaker.record(at(0), true);
        assert!(breaker.try_pass(at(6000)));
        breaker.abandon(at(6001));
        assert!(breaker.try_pass(at(6001)));
    }
}
