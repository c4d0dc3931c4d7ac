//! When two worlds are the same as far as their future goes.

use super::World;
use backstop_core::{Branch, Saga, transcript::cause_text};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

impl World {
    /// What the future can depend on, and nothing else: instants and clocks only by their order, attempts
    /// only as far as they count.
    pub(crate) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash_saga(&self.saga, &mut hasher);
        if self.durable_len < self.journal.len() {
            self.hash_saga(&self.durable, &mut hasher);
        }
        self.books.hash(&mut hasher);
        for calls in [&self.out, &self.dropped] {
            calls.len().hash(&mut hasher);
            calls.iter().for_each(|call| (call.step, call.phase).hash(&mut hasher));
        }
        self.left.hash(&mut hasher);
        hasher.finish()
    }

    fn hash_saga(&self, saga: &Saga, hasher: &mut DefaultHasher) {
        (saga.state, self.durable_len == self.journal.len()).hash(hasher);
        saga.cause.as_ref().map(|cause| cause_text(cause)).hash(hasher);
        saga.started.deadline.is_some_and(|at| at <= self.now).hash(hasher);
        saga.signals.iter().for_each(|(_, state)| state.hash(hasher));
        let rank = |settled| saga.branches.iter().filter(|other| other.settled < settled).count();
        let progress_of = |b: &Branch| [b.action, b.query, b.compensation];
        let waits: Vec<_> = saga.branches.iter().flat_map(progress_of).filter_map(|p| p.not_before).collect();
        for b in &saga.branches {
            (b.state, b.asking, b.doubt, b.resolution, rank(b.settled)).hash(hasher);
            b.failure.as_ref().map(|failure| failure.evidence).hash(hasher);
            for p in progress_of(b) {
                (p.attempts - p.forgiven, p.refusals).hash(hasher);
                let later = p.not_before.filter(|at| *at > self.now);
                later.map(|at| waits.iter().filter(|w| **w > self.now && **w < at).count()).hash(hasher);
            }
        }
    }
}
