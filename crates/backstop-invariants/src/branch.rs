//! What is provable of one branch, and what its participant's books say.
//!
//! Two accounts, kept apart: *journal* (what the saga's writers may rely on) and *outside* (what has left, and what it
//! did). An attempt that has left and whose end is not in the journal is as open as one that the journal calls in doubt.

use backstop_core::{Clock, Code, Evidence, Failure, Next, Phase, Step, StepKind, Timestamp};
use std::hash::{Hash, Hasher};

/// One step's account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Branch {
    // Journal.
    /// Clock of the success that is on disk.
    pub(crate) done: Option<Clock>,
    /// Last attempt of the action whose end is on disk.
    pub(crate) ended: u32,
    /// Of the attempts that have ended, one may have taken effect and nothing has settled it.
    pub(crate) doubt: bool,
    /// The next attempt does not leave before this.
    pub(crate) not_before: Option<Timestamp>,
    /// No further attempt follows.
    pub(crate) given_up: bool,
    /// Clock of the event that last spoke of its way forward.
    pub(crate) settled: Option<Clock>,
    /// Clock of the compensation's success.
    pub(crate) undone: Option<Clock>,
    /// A person must decide, for all that the journal says.
    pub(crate) waits: bool,
    /// A person has settled it.
    pub(crate) by_hand: bool,
    /// A person has had it tried again: at their own risk.
    pub(crate) again_by_hand: bool,

    // Outside.
    /// Last attempt that has left, by phase, and the clock that it bore.
    pub(crate) sent: [Option<(u32, Clock)>; 3],
    /// Digest of key and request of each phase's first call.
    pub(crate) request: [Option<(u64, u64)>; 3],
    /// How often the action is in force.
    pub(crate) effect: u32,
}

impl Branch {
    /// An attempt of the action has left, and its end is not on disk.
    pub(crate) fn is_open(&self) -> bool {
        self.sent[Phase::Action as usize].is_some_and(|(attempt, _)| attempt > self.ended)
    }

    /// It took effect, or may have for all that anybody can prove.
    pub(crate) fn may_have_happened(&self) -> bool {
        self.done.is_some() || self.doubt || self.is_open()
    }

    /// It may have happened, and neither a compensation nor a person has settled that.
    pub(crate) fn is_to_be_undone(&self) -> bool {
        self.may_have_happened() && self.undone.is_none() && !self.by_hand
    }

    /// An attempt may leave by this time, as far as the branch itself goes.
    pub(crate) fn may_be_called(&self, at: Timestamp) -> bool {
        self.done.is_none() && !self.given_up && self.not_before.is_none_or(|not_before| not_before <= at)
    }

    /// Takes in how an attempt of the action ended without success. `could_be_sent`: its turn had come.
    pub(crate) fn attempt_failed(&mut self, step: &Step, failure: &Failure, could_be_sent: bool) {
        let earlier = self.doubt && !(step.deduplicates && speaks_for_the_key(failure.evidence));
        self.doubt = earlier || (could_be_sent && !proves_no_effect(step, failure));
    }

    /// What was decided about the attempt that has just ended.
    pub(crate) fn follow(&mut self, step: &Step, next: Next) {
        self.given_up = next == Next::GiveUp;
        self.not_before = match next {
            Next::RetryAt(at) => Some(at),
            // Until the answer is there no action leaves.
            Next::AskAt(_) => Some(Timestamp(i64::MAX)),
            Next::GiveUp => None,
        };
        self.waits = self.given_up && (step.kind == StepKind::Retriable || (step.is_final() && self.doubt));
    }
}

/// What verdicts still to come depend on, and nothing else: clocks only as far as they order branches (which the witness
/// hashes), attempts only as far as one is open.
impl Hash for Branch {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let facts = [
            self.done.is_some(),
            self.doubt,
            self.given_up,
            self.undone.is_some(),
            self.waits,
            self.by_hand,
            self.again_by_hand,
            self.is_open(),
        ];
        (facts, self.effect, self.request.map(|request| request.is_some())).hash(hasher);
    }
}

/// True if the evidence leaves no way in which this attempt changed the books.
fn proves_no_effect(step: &Step, failure: &Failure) -> bool {
    if step.kind == StepKind::ReadOnly {
        return true;
    }
    match failure.evidence {
        Evidence::NotSent(_) | Evidence::NotRendered => true,
        Evidence::NoAnswer(_) | Evidence::BadAnswer => failure.details.says_no_effect(),
        Evidence::ParticipantSaid(code) => {
            failure.details.says_no_effect()
                || matches!(
                    code,
                    Code::InvalidArgument
                        | Code::FailedPrecondition
                        | Code::Unimplemented
                        | Code::Unauthenticated
                        | Code::PermissionDenied
                        | Code::Aborted
                        | Code::NotFound
                        | Code::OutOfRange
                )
        }
    }
}

/// True if business code that knows the key has refused it for good.
fn speaks_for_the_key(evidence: Evidence) -> bool {
    use Code::{FailedPrecondition, InvalidArgument, NotFound, OutOfRange};
    matches!(
        evidence,
        Evidence::ParticipantSaid(InvalidArgument | FailedPrecondition | NotFound | OutOfRange)
    )
}
