//! What the participants saw: every call, when it came, when it left, and what became of it.
//!
//! Arrival order is the order of the list. It is the range's own view, so no fault can falsify it.

use crate::call::{Call, Outcome};
use crate::moment::now;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The calls of all participants in the order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<Vec<Call>>>);

impl Record {
    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an arrival down.
    pub(crate) fn arrived(&self, call: Call) -> Visit {
        let mut calls = self.calls();
        calls.push(call);
        Visit { record: self.clone(), place: calls.len() - 1, is_over: false }
    }

    /// Everything so far.
    #[must_use]
    pub fn all(&self) -> Vec<Call> {
        self.calls().clone()
    }

    /// How many so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.calls().len()
    }

    /// Those from a place on.
    #[must_use]
    pub fn since(&self, place: usize) -> Vec<Call> {
        self.calls().get(place..).map(<[Call]>::to_vec).unwrap_or_default()
    }

    /// How many fit.
    #[must_use]
    pub fn count_if(&self, fits: impl Fn(&Call) -> bool) -> usize {
        self.calls().iter().filter(|call| fits(call)).count()
    }

    /// The first that fits.
    #[must_use]
    pub fn find(&self, fits: impl Fn(&Call) -> bool) -> Option<Call> {
        self.calls().iter().find(|call| fits(call)).cloned()
    }
}

/// A call that is here. Dropped without an outcome, its caller has gone away.
#[derive(Debug)]
pub(crate) struct Visit {
    record: Record,
    place: usize,
    is_over: bool,
}

impl Visit {
    /// It was found to be a repetition.
    pub(crate) fn is_duplicate(&self) {
        if let Some(call) = self.record.calls().get_mut(self.place) {
            call.is_duplicate = true;
        }
    }

    /// It leaves.
    pub(crate) fn leaves(&mut self, outcome: Outcome) {
        self.is_over = true;
        if let Some(call) = self.record.calls().get_mut(self.place) {
            call.left = Some(now());
            call.outcome = outcome;
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.is_over {
            self.leaves(Outcome::Abandoned);
        }
    }
}
