//! One participant's side of one step: what it did, what it answers, and what a message can still change.
//!
//! With a barrier: the first answer under a key is stored and given again, a refusal too; a compensation without an action
//! is remembered; an action that comes after it is refused. Without one nothing of this holds.
//!
//! # Not here: the bound of plain participants
//! What a plain participant gets too late it does, and nobody undoes it. So here a plain participant that was compensated,
//! asked or settled by hand gets no older message any more ([`Books::closes`]), unless the bound is lifted, which is how
//! the counterexample of `docs/model.md` is found. A doubled message exists only where there is a barrier.

use backstop_core::{Code, Details, Evidence, NoAnswer, NotSent, Outcome, Phase, Step, StepKind};
use bytes::Bytes;

/// What a participant, or nobody, says about one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Said {
    /// OK, and it is done.
    Ok,
    /// FAILED_PRECONDITION, and nothing is done.
    Refused,
    /// Answer to a question: nothing of the kind.
    NotFound,
    /// ABORTED, and this attempt has done nothing; nothing is remembered under the key either.
    Aborted,
    /// INTERNAL, though it is done.
    InternalDone,
    /// UNAVAILABLE, written by somebody on the way; it is done.
    UnavailableDone,
    /// No answer in time.
    Timeout,
    /// The breaker was open.
    NotSent,
    /// The rollback was faster than the permit.
    Withdrawn,
}

impl Said {
    /// What the coordinator makes of it.
    pub(crate) fn outcome(self, step: &str, attempt: u32) -> Outcome {
        let evidence = match self {
            // Every attempt answers in other words, so that a request made of them would show it.
            Self::Ok => return Outcome::Done(Bytes::from(format!("{step} {attempt}"))),
            Self::Refused => Evidence::ParticipantSaid(Code::FailedPrecondition),
            Self::NotFound => Evidence::ParticipantSaid(Code::NotFound),
            Self::Aborted => Evidence::ParticipantSaid(Code::Aborted),
            Self::InternalDone => Evidence::ParticipantSaid(Code::Internal),
            Self::UnavailableDone => Evidence::ParticipantSaid(Code::Unavailable),
            Self::Timeout => Evidence::NoAnswer(NoAnswer::Deadline),
            Self::NotSent => Evidence::NotSent(NotSent::BreakerOpen),
            Self::Withdrawn => Evidence::NotSent(NotSent::Withdrawn),
        };
        Outcome::Failed { evidence, message: String::new(), details: Details::default(), pushback: None }
    }
}

/// The books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) kind: StepKind,
    /// Has a barrier.
    pub(crate) keyed: bool,
    /// How often the action is in force.
    pub(crate) effect: u32,
    /// What was first answered under the action's key: true if done. With a barrier only.
    pub(crate) first_answer: Option<bool>,
    /// The compensation has come by.
    pub(crate) undone: bool,
    /// Actions up to this attempt arrive no more: the bound of plain participants, and a person's care.
    pub(crate) closed: u32,
}

impl std::hash::Hash for Books {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        (self.effect, self.first_answer, self.undone).hash(hasher);
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
            closed: 0,
        }
    }

    /// True if the business code will run for an action that arrives now, so that it may do it or refuse it.
    pub(crate) fn is_free(&self) -> bool {
        !self.keyed || (self.first_answer.is_none() && !self.undone)
    }

    /// True if a message that nobody waits for can still change anything.
    pub(crate) fn can_change_by(&self, phase: Phase, attempt: u32) -> bool {
        match phase {
            Phase::Action => self.kind != StepKind::ReadOnly && attempt > self.closed && self.is_free(),
            Phase::Query => false,
            Phase::Compensation => self.effect > 0 || (self.keyed && !self.undone),
        }
    }

    /// A request arrives and is answered; `does_it`: what business code decides, if it is asked.
    pub(crate) fn serve(&mut self, phase: Phase, does_it: bool) -> Said {
        match phase {
            Phase::Action => {
                let done = if self.is_free() { self.act(does_it) } else { self.first_answer == Some(true) };
                if done { Said::Ok } else { Said::Refused }
            }
            Phase::Query if self.effect == 0 => Said::NotFound,
            Phase::Query => Said::Ok,
            Phase::Compensation => {
                (self.effect, self.undone) = (0, true);
                Said::Ok
            }
        }
    }

    fn act(&mut self, does_it: bool) -> bool {
        self.first_answer = self.keyed.then_some(does_it);
        self.effect += u32::from(does_it && self.kind != StepKind::ReadOnly);
        does_it
    }

    /// Older actions arrive no more.
    pub(crate) fn closes(&mut self, attempt: u32) {
        self.closed = self.closed.max(attempt);
    }
}
