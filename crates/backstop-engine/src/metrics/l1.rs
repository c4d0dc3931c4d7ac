//! The newest L1 failures, each with its saga's id: what a page must name.
//!
//! # Invariants
//! * At most so many are kept, the newest (`the_newest_are_kept`); none for longer than it is shown
//!   (`each_is_shown_for_so_long`); one for each branch (`a_branch_is_there_once_with_its_newest_failure`). So the one
//!   metric with a saga id is bounded by construction.
//!
//! # Not here
//! Every failure, without saga ids: `backstop_branch_failures_total`. Every saga: the journal.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// One failure, as its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct L1Failure {
    pub(crate) saga: String,
    pub(crate) trace: String,
    pub(crate) definition: String,
    pub(crate) step: String,
    pub(crate) participant: String,
    pub(crate) grpc_code: &'static str,
    pub(crate) fin_code: String,
}

/// The newest of them, oldest first.
#[derive(Debug)]
pub(crate) struct L1Failures {
    shown_max: usize,
    shown_for: Duration,
    newest: VecDeque<(Instant, L1Failure)>,
}

impl L1Failures {
    /// None yet. With a `shown_max` of 0 there will be none.
    pub(crate) fn new(shown_max: usize, shown_for: Duration) -> Self {
        Self { shown_max, shown_for, newest: VecDeque::new() }
    }

    pub(crate) fn happened(&mut self, failure: L1Failure, now: Instant) {
        if self.shown_max == 0 {
            return;
        }
        self.newest.retain(|(_, there)| (&there.saga, &there.step) != (&failure.saga, &failure.step));
        while self.newest.len() >= self.shown_max {
            self.newest.pop_front();
        }
        self.newest.push_back((now, failure));
    }

    /// Those that are shown now.
    pub(crate) fn shown(&self, now: Instant) -> impl Iterator<Item = &L1Failure> {
        let is_shown = move |at: &Instant| now.duration_since(*at) < self.shown_for;
        self.newest.iter().filter(move |(at, _)| is_shown(at)).map(|(_, failure)| failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn failure(saga: &str, step: &str) -> L1Failure {
        L1Failure {
            saga: saga.to_owned(),
            trace: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            definition: "transfer".to_owned(),
            step: step.to_owned(),
            participant: "ledger".to_owned(),
            grpc_code: "INTERNAL",
            fin_code: "FIN-50001".to_owned(),
        }
    }

    fn shown(failures: &L1Failures, now: Instant) -> Vec<String> {
        failures.shown(now).map(|f| format!("{}/{} {}", f.saga, f.step, f.grpc_code)).collect()
    }

    #[test]
    fn the_newest_are_kept() {
        let (mut failures, now) = (L1Failures::new(2, MINUTE), Instant::now());
        for saga in ["a", "b", "c"] {
            failures.happened(failure(saga, "debit"), now);
        }
        assert_eq!(shown(&failures, now), ["b/debit INTERNAL", "c/debit INTERNAL"]);
    }

    #[test]
    fn each_is_shown_for_so_long() {
        let (mut failures, began) = (L1Failures::new(9, MINUTE), Instant::now());
        failures.happened(failure("a", "debit"), began);
        failures.happened(failure("b", "debit"), began + MINUTE / 2);
        assert_eq!(shown(&failures, began + MINUTE / 2).len(), 2);
        assert_eq!(shown(&failures, began + MINUTE), ["b/debit INTERNAL"]);
        assert!(shown(&failures, began + 2 * MINUTE).is_empty());
    }

    #[test]
    fn a_branch_is_there_once_with_its_newest_failure() {
        let (mut failures, began) = (L1Failures::new(2, MINUTE), Instant::now());
        failures.happened(failure("a", "debit"), began);
        failures.happened(failure("a", "credit"), began);
        failures.happened(L1Failure { grpc_code: "UNKNOWN", ..failure("a", "debit") }, began + MINUTE / 2);
        assert_eq!(shown(&failures, began), ["a/credit INTERNAL", "a/debit UNKNOWN"]);
        assert_eq!(shown(&failures, began + MINUTE), ["a/debit UNKNOWN"], "its age counts from the newest");
    }

    #[test]
    fn none_are_kept_where_none_are_wanted() {
        let (mut failures, now) = (L1Failures::new(0, MINUTE), Instant::now());
        failures.happened(failure("a", "debit"), now);
        assert!(shown(&failures, now).is_empty());
    }
}
