//! One participant's side of one step: what it did, what it may say, and what is provable from outside.
//!
//! Written without a look at the rules under test: `doubt` here is the model's own account of what a
//! coordinator can know, and the rules have to agree with it.

use super::Rules;
use backstop_core::{
    Call, Code, Details, Evidence, NoAnswer, NotSent, Outcome, Phase, Resolution, Step, StepKind,
};
use bytes::Bytes;
use std::hash::{Hash, Hasher};

/// What a participant, or nobody, says about one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Said {
    /// OK, and it is done.
    Ok,
    /// FAILED_PRECONDITION, and nothing is done.
    Refused,
    /// ABORTED, and this attempt has done nothing; nothing is remembered under the key either.
    Aborted,
    /// INTERNAL, though it is done.
    InternalDone,
    /// UNAVAILABLE, written by somebody on the way; it is done.
    UnavailableDone,
    /// No answer in time; it is done.
    TimeoutDone,
    /// No answer in time; nothing is done, and the message is gone.
    TimeoutNot,
    /// No answer in time; the message still travels.
    TimeoutTravels,
    /// The breaker was open.
    NotSent,
    /// The rollback was faster than the permit.
    Withdrawn,
    /// Answer to a question: nothing of the kind.
    NotFound,
}

impl Said {
    pub(crate) fn outcome(self, step: &str, attempt: u32) -> Outcome {
        let evidence = match self {
            // Every attempt answers in other words, so that a request made of them would show it.
            Self::Ok => return Outcome::Done(Bytes::from(format!("{step} {attempt}"))),
            Self::Refused => Evidence::ParticipantSaid(Code::FailedPrecondition),
            Self::Aborted => Evidence::ParticipantSaid(Code::Aborted),
            Self::InternalDone => Evidence::ParticipantSaid(Code::Internal),
            Self::UnavailableDone => Evidence::ParticipantSaid(Code::Unavailable),
            Self::TimeoutDone | Self::TimeoutNot | Self::TimeoutTravels => {
                Evidence::NoAnswer(NoAnswer::Deadline)
            }
            Self::NotSent => Evidence::NotSent(NotSent::BreakerOpen),
            Self::Withdrawn => Evidence::NotSent(NotSent::Withdrawn),
            Self::NotFound => Evidence::ParticipantSaid(Code::NotFound),
        };
        Outcome::Failed { evidence, message: String::new(), details: Details::default(), pushback: None }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Books {
    kind: StepKind,
    /// Deduplicates by key, and has a barrier.
    keyed: bool,
    /// How often the action is in force.
    pub(crate) effect: u32,
    /// What was first answered under the action's key: true if done. Keyed participants only.
    first_answer: Option<bool>,
    /// The compensation has come by; a keyed participant refuses the action from then on.
    pub(crate) undone: bool,
    /// An action of an attempt that has ended may still arrive.
    pub(crate) travels: bool,
    /// The coordinator has proof that it is done.
    pub(crate) told_done: bool,
    /// An attempt was or may have been sent, and nothing that was said proves what came of it.
    pub(crate) doubt: bool,
    /// A person has settled it.
    pub(crate) by_hand: bool,
    /// Last attempt sent, and what its request was made of, by phase.
    last_sent: [u32; 3],
    pub(crate) first_request: [Option<u64>; 3],
}

impl Hash for Books {
    /// Without what is only there to be compared: attempts and requests.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.effect, self.first_answer, self.undone, self.travels).hash(hasher);
        (self.told_done, self.doubt, self.by_hand).hash(hasher);
    }
}

impl Books {
    pub(crate) fn of(step: &Step) -> Self {
        Self {
            kind: step.kind,
            keyed: step.deduplicates,
            effect: 0,
            first_answer: None,
            undone: false,
            travels: false,
            told_done: false,
            doubt: false,
            by_hand: false,
            last_sent: [0; 3],
            first_request: [None; 3],
        }
    }

    /// What may be said now; one that costs no fault comes first.
    pub(crate) fn answers(&self, phase: Phase, rules: &Rules, rolling_back: bool) -> Vec<Said> {
        let menu = match phase {
            Phase::Action => rules.actions,
            Phase::Query => &[Said::NotSent],
            Phase::Compensation => rules.compensations,
        };
        let honest = self.honest(phase);
        let mut said = vec![honest];
        if rules.faults == 0 {
            return said;
        }
        said.extend(menu.iter().copied().filter(|said| match said {
            Said::Ok | Said::NotFound | Said::Withdrawn => false,
            Said::Refused => {
                honest != Said::Refused && (phase != Phase::Action || self.first_answer.is_none())
            }
            Said::TimeoutTravels => self.keyed && rules.stragglers,
            // These two differ from a message that never arrived only where there are books to change.
            Said::InternalDone | Said::UnavailableDone | Said::TimeoutDone => self.kind != StepKind::ReadOnly,
            Said::Aborted | Said::TimeoutNot | Said::NotSent => true,
        }));
        if phase == Phase::Action && rolling_back {
            said.push(Said::Withdrawn);
        }
        said
    }

    /// What the participant says if nothing goes wrong.
    fn honest(&self, phase: Phase) -> Said {
        match phase {
            Phase::Action if self.first_answer == Some(false) || (self.keyed && self.undone) => Said::Refused,
            Phase::Query if self.effect == 0 => Said::NotFound,
            Phase::Action | Phase::Query | Phase::Compensation => Said::Ok,
        }
    }

    pub(crate) fn is_free(&self, phase: Phase, said: Said) -> bool {
        said == self.honest(phase)
    }

    /// What may have become of a call that was dropped.
    pub(crate) fn fates(&self, phase: Phase, stragglers: bool) -> impl Iterator<Item = Said> + use<> {
        let travels = stragglers && self.keyed && phase == Phase::Action;
        [Said::TimeoutDone, Said::TimeoutNot].into_iter().chain(travels.then_some(Said::TimeoutTravels))
    }

    /// Changes the books as this answer has it; false if that does the same thing twice.
    #[must_use]
    pub(crate) fn execute(&mut self, phase: Phase, said: Said) -> bool {
        match phase {
            Phase::Action => self.execute_action(said),
            Phase::Query => {
                self.told_done |= said == Said::Ok;
                self.doubt &= !matches!(said, Said::Ok | Said::NotFound);
                true
            }
            Phase::Compensation => {
                if matches!(said, Said::Ok | Said::InternalDone | Said::UnavailableDone | Said::TimeoutDone) {
                    self.effect = 0;
                    self.undone = true;
                }
                true
            }
        }
    }

    fn execute_action(&mut self, said: Said) -> bool {
        let mut once = true;
        match said {
            Said::Ok => {
                once = self.does_it();
                self.told_done = true;
                self.doubt = false;
            }
            Said::InternalDone | Said::UnavailableDone | Said::TimeoutDone => {
                once = self.does_it();
                self.doubt = true;
            }
            Said::Refused => {
                self.first_answer = self.keyed.then_some(false);
                self.doubt &= !self.keyed;
            }
            Said::TimeoutNot => self.doubt = true,
            Said::TimeoutTravels => {
                self.doubt = true;
                self.travels = true;
            }
            Said::Aborted | Said::NotSent | Said::Withdrawn | Said::NotFound => {}
        }
        self.doubt &= self.kind != StepKind::ReadOnly;
        once
    }

    /// A straggler arrives; false if that does the same thing twice.
    #[must_use]
    pub(crate) fn arrives(&mut self, would_do_it: bool) -> bool {
        self.travels = false;
        if self.first_answer.is_none() && !self.undone && !would_do_it {
            self.first_answer = Some(false);
        }
        !would_do_it || self.does_it()
    }

    fn does_it(&mut self) -> bool {
        if self.kind == StepKind::ReadOnly {
            return true;
        }
        if self.keyed && (self.first_answer.is_some() || self.undone) {
            return true;
        }
        self.first_answer = self.keyed.then_some(true);
        self.effect += 1;
        self.effect == 1
    }

    pub(crate) fn may_have_been_sent(&mut self) {
        self.told_done = false;
        self.doubt = self.kind != StepKind::ReadOnly;
    }

    /// Takes note of an attempt that goes out.
    pub(crate) fn sent(&mut self, call: Call) {
        self.last_sent[call.phase as usize] = call.attempt;
    }

    pub(crate) fn was_sent(&self, call: Call) -> bool {
        call.attempt <= self.last_sent[call.phase as usize]
    }

    /// On second thoughts it was still in our own queue.
    pub(crate) fn was_not_sent(&mut self, call: Call) {
        self.last_sent[call.phase as usize] = call.attempt - 1;
    }

    /// A person makes true what they say.
    pub(crate) fn settle_by_hand(&mut self, resolution: Resolution) {
        self.by_hand = true;
        self.doubt = false;
        self.travels = false;
        match resolution {
            Resolution::TookEffect => {
                self.effect = 1;
                self.told_done = true;
            }
            Resolution::NoEffect => {}
            Resolution::Undone => self.effect = 0,
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.kind == StepKind::ReadOnly
    }

    /// True if a straggler could still change the books.
    pub(crate) fn may_yet_happen(&self) -> bool {
        self.travels && !self.is_read_only() && self.first_answer.is_none() && !self.undone
    }

    /// True if it happened, or may have for all that anybody can prove, and has not been undone.
    pub(crate) fn is_to_be_undone(&self) -> bool {
        self.kind == StepKind::Compensatable
            && !self.by_hand
            && (self.effect > 0 || ((self.told_done || self.doubt) && !self.undone))
    }
}
