//! The doctor on its rounds: each coordinator examines the store by itself now and then, tells what it found as
//! numbers, and says what is new.
//!
//! # Invariants
//! * Coordinators that started together do not examine together: each has its own place within `doctor.every`
//!   (`backoff::apart`).
//! * Never during a drain, and a round by itself never for longer than `doctor.run_max`
//!   (`no_round_is_made_during_a_drain`, `a_round_that_hangs_is_given_up_and_the_next_one_is_made`).
//! * A finding is one line in the log when it is new, and none while it stays (`a_finding_is_said_once`).
//!
//! # Not here
//! What is looked at: [`crate::coordinator`]'s `examining`.

use crate::coordinator::{Examination, Finding, FindingKind, HowMuch, examine};
use crate::error::EngineError;
use crate::shared::Shared;
use backstop_core::backoff;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What the newest run found that ended.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    newest: Mutex<Option<BTreeSet<(FindingKind, String)>>>,
}

impl Findings {
    /// How many of each kind, 0 included; nothing before the first run.
    pub(crate) fn counted(&self) -> BTreeMap<FindingKind, u64> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(findings) = newest.as_ref() else { return BTreeMap::new() };
        let mut counted: BTreeMap<FindingKind, u64> =
            FindingKind::ALL.into_iter().map(|kind| (kind, 0)).collect();
        for (kind, _) in findings {
            *counted.entry(*kind).or_default() += 1;
        }
        counted
    }

    /// Takes a run's findings for the newest, and answers those that the run before did not have.
    fn renew<'a>(&self, found: &'a [Finding]) -> Vec<&'a Finding> {
        let name = |finding: &Finding| (finding.kind, finding.subject.clone());
        let findings = found.iter().map(name).collect();
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = newest.replace(findings).unwrap_or_default();
        found.iter().filter(|finding| !before.contains(&name(finding))).collect()
    }
}

/// Examines the store, and tells what was found as numbers and, if new, in the log.
pub(crate) async fn run(shared: &Shared, how_much: HowMuch) -> Result<Examination, EngineError> {
    let examined = examine(shared, how_much).await;
    match &examined {
        Ok(found) => {
            shared.metrics.doctor_ran(if found.findings.is_empty() { "clean" } else { "findings" });
            // Without the detail: it may quote what a hand has put there. RunDoctor tells it.
            for Finding { kind, subject, .. } in shared.metrics.findings.renew(&found.findings) {
                tracing::warn!(kind = kind.as_str(), subject, "the doctor found something that must not be");
            }
        }
        Err(_) => shared.metrics.doctor_ran("failed"),
    }
    examined
}

/// Runs again and again, for as long as the process lives.
pub(crate) async fn rounds(shared: Arc<Shared>) {
    let settings = &shared.settings;
    if settings.doctor_every.is_zero() {
        return;
    }
    let mut wait = backoff::apart(settings.doctor_every, shared.tenure().coordinator.as_str());
    loop {
        tokio::select! {
            biased;
            () = shared.draining.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let sample = HowMuch::Newest(settings.doctor_sample);
        let round = tokio::time::timeout(settings.doctor_run_max, run(&shared, sample));
        let ended = tokio::select! {
            biased;
            () = shared.draining.cancelled() => return,
            ended = round => ended,
        };
        match ended {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the doctor could not look at the store"),
            Err(_) => {
                shared.metrics.doctor_ran("failed");
                tracing::warn!("the doctor did not get through within doctor.run_max");
            }
        }
        wait = settings.doctor_every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: FindingKind, subject: &str) -> Finding {
        Finding { kind, subject: subject.to_owned(), detail: String::new() }
    }

    #[test]
    fn a_finding_is_said_once() {
        let findings = Findings::default();
        assert!(findings.counted().is_empty(), "nothing is known before the first run");
        let broken = finding(FindingKind::JournalBroken, "pay-1");
        let first = [broken.clone()];
        assert_eq!(findings.renew(&first), [&broken]);
        // Another kind for the same saga, and another saga: both are news; the first is not.
        let next = [
            broken.clone(),
            finding(FindingKind::HeadDiffers, "pay-1"),
            finding(FindingKind::JournalBroken, "pay-2"),
        ];
        assert_eq!(findings.renew(&next), [&next[1], &next[2]]);
        let counted = findings.counted();
        assert_eq!(counted.len(), FindingKind::ALL.len());
        assert_eq!(counted[&FindingKind::JournalBroken], 2);
        assert_eq!(counted[&FindingKind::Quarantined], 0);
        assert!(findings.renew(&[]).is_empty());
        assert!(findings.counted().values().all(|count| *count == 0), "all is well again");
        assert_eq!(findings.renew(&first), [&broken], "it is back");
    }
}
