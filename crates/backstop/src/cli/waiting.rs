//! Why a saga waits for a person, which of its branches do, and what of it stands meanwhile.
//!
//! Pure; over the wire's `Saga`.
//!
//! Invariants: what may stand is told apart from what stands, and neither is left out
//! (`what_stands_is_told_from_what_may_stand`).

use super::text::short;
use super::view::{head::failure_sentence, participant_of, waits_for_a_person};
use backstop_core::Phase;
use backstop_proto::v1::{
    Branch, BranchState, Failure, Resolution, Saga, SagaState, StepKind, Tier,
    failure::{Effect, Evidence},
};

/// A branch that only a person can settle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'a> {
    /// The branch.
    pub(super) branch: &'a Branch,
    /// The failure that it waits with.
    pub(super) failure: Option<&'a Failure>,
}

impl Waiting<'_> {
    /// Whom the call went to that it waits with: a compensation may call somebody else than the action did.
    pub(super) fn participant(&self) -> &str {
        let is_stuck = self.branch.state() == BranchState::Stuck;
        participant_of(self.branch, if is_stuck { Phase::Compensation } else { Phase::Action })
    }

    /// `FIN-50099`; empty if there is no failure.
    pub(super) fn fin_code(&self) -> &str {
        self.failure.map(|failure| failure.fin_code.as_str()).unwrap_or_default()
    }

    /// `L1`; empty if there is no failure.
    pub(super) fn tier(&self) -> &'static str {
        short(self.failure.map_or(Tier::Unspecified, Failure::tier).as_str_name(), "TIER_")
    }

    /// What happened, in a sentence that is safe to print.
    pub(super) fn why(&self) -> String {
        self.failure.map_or_else(String::new, |failure| match failure.evidence() {
            // The message is ours too, and says the same again.
            Evidence::BreakerOpen | Evidence::NoPermit | Evidence::Withdrawn => {
                failure_sentence(&Failure { message: String::new(), ..failure.clone() })
            }
            _ => failure_sentence(failure),
        })
    }

    /// True if a person can find that of it.
    pub(super) fn may_be(&self, resolution: Resolution) -> bool {
        let name = match resolution {
            Resolution::TookEffect => "took-effect",
            Resolution::NoEffect => "no-effect",
            Resolution::Undone => "undone",
            Resolution::Unspecified => return false,
        };
        self.resolutions().split('|').any(|possible| possible == name)
    }

    /// What a person may find to be true of it, as `--resolution` takes it.
    pub(super) fn resolutions(&self) -> &'static str {
        match (self.branch.state(), self.branch.kind()) {
            (BranchState::Stuck, _) => "undone",
            (_, StepKind::Pivot) => "took-effect|no-effect",
            _ => "took-effect",
        }
    }
}

/// The branches that wait for a person, in their causal order. None for a saga in quarantine, whose branches cannot
/// be told, and for one that needs nobody.
pub(super) fn waiting(saga: &Saga) -> Vec<Waiting<'_>> {
    if saga.state() != SagaState::NeedsIntervention {
        return Vec::new();
    }
    let stuck = saga.branches.iter().filter(|branch| waits_for_a_person(branch));
    stuck
        .map(|branch| {
            let failure = match branch.state() {
                BranchState::Stuck => branch.compensation_failure.as_ref(),
                BranchState::Pending
                | BranchState::Running
                | BranchState::Succeeded
                | BranchState::Failed
                | BranchState::InDoubt
                | BranchState::Compensating
                | BranchState::Compensated
                | BranchState::Skipped
                | BranchState::Resolved
                | BranchState::Unspecified => branch.failure.as_ref(),
            };
            Waiting { branch, failure }
        })
        .collect()
}

/// Effects that stand, or may stand (`?`), on the books of participants: `credit@ledger_b`, `debit@ledger_a?`.
/// What only reads leaves none.
pub(super) fn exposed(saga: &Saga) -> Vec<String> {
    saga.branches
        .iter()
        .filter_map(|branch| {
            let doubt = match standing(branch, true)? {
                Standing::Surely => "",
                Standing::Perhaps => "?",
            };
            Some(format!("{}@{}{doubt}", branch.step, branch.participant))
        })
        .collect()
}

/// How surely an effect is on the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It took effect and is not undone.
    Surely,
    /// It may have taken effect, or may be undone already.
    Perhaps,
}

/// What is known of a branch's effect on the books; `None` if there is none. `is_out`: a call for it may be out now.
pub(super) fn standing(branch: &Branch, is_out: bool) -> Option<Standing> {
    let perhaps_if = |doubt: bool| Some(if doubt { Standing::Perhaps } else { Standing::Surely });
    if branch.kind() == StepKind::ReadOnly {
        return None;
    }
    match branch.state() {
        BranchState::Succeeded => Some(Standing::Surely),
        BranchState::InDoubt => Some(Standing::Perhaps),
        BranchState::Running => (branch.in_doubt || is_out).then_some(Standing::Perhaps),
        BranchState::Compensating => perhaps_if(branch.in_doubt),
        BranchState::Stuck => {
            // What was refused has undone nothing; what was not answered may have.
            let undone = branch.compensation_failure.as_ref().map(Failure::effect);
            perhaps_if(branch.in_doubt || undone == Some(Effect::InDoubt))
        }
        BranchState::Failed => branch.in_doubt.then_some(Standing::Perhaps),
        BranchState::Resolved => match branch.resolution() {
            Resolution::TookEffect => Some(Standing::Surely),
            Resolution::NoEffect | Resolution::Undone => None,
            Resolution::Unspecified => Some(Standing::Perhaps),
        },
        BranchState::Pending | BranchState::Compensated | BranchState::Skipped => None,
        BranchState::Unspecified => Some(Standing::Perhaps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(step: &str, state: BranchState) -> Branch {
        Branch {
            step: step.into(),
            participant: "bank".into(),
            state: state.into(),
            kind: StepKind::Compensatable.into(),
            ..Branch::default()
        }
    }

    fn of(branches: Vec<Branch>) -> Saga {
        Saga { branches, state: SagaState::NeedsIntervention.into(), ..Saga::default() }
    }

    #[test]
    fn what_stands_is_told_from_what_may_stand() {
        let refused = Failure { effect: Effect::None.into(), ..Failure::default() };
        let silent = Failure { effect: Effect::InDoubt.into(), ..Failure::default() };
        let stuck = |step: &str, failure: &Failure, in_doubt| Branch {
            compensation_failure: Some(failure.clone()),
            in_doubt,
            ..branch(step, BranchState::Stuck)
        };
        let by_hand = |step: &str, what: Resolution| Branch {
            resolution: what.into(),
            ..branch(step, BranchState::Resolved)
        };
        let saga = of(vec![
            branch("done", BranchState::Succeeded),
            branch("silent", BranchState::InDoubt),
            branch("undone", BranchState::Compensated),
            branch("never", BranchState::Skipped),
            branch("refused", BranchState::Failed),
            stuck("kept", &refused, false),
            stuck("kept-maybe", &refused, true),
            stuck("undone-maybe", &silent, false),
            by_hand("hand-done", Resolution::TookEffect),
            by_hand("hand-undone", Resolution::Undone),
            Branch { kind: StepKind::ReadOnly.into(), ..branch("looked", BranchState::Succeeded) },
        ]);
        assert_eq!(
            exposed(&saga),
            [
                "done@bank",
                "silent@bank?",
                "kept@bank",
                "kept-maybe@bank?",
                "undone-maybe@bank?",
                "hand-done@bank"
            ]
        );
    }

    #[test]
    fn only_a_saga_that_needs_somebody_has_branches_that_wait() {
        let mut saga = of(vec![branch("a", BranchState::Stuck), branch("b", BranchState::Succeeded)]);
        assert_eq!(waiting(&saga).iter().map(|w| w.branch.step.as_str()).collect::<Vec<_>>(), ["a"]);
        saga.state = SagaState::RollingBack.into();
        assert!(waiting(&saga).is_empty());
    }
}
