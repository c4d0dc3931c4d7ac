//! How a call ended, and what is done about it (DESIGN 3.3 and 3.5).

use super::{Answer, Outcome, Turn};
use crate::backoff;
use crate::definition::{RetryPolicy, StepKind};
use crate::event::{EventKind, Next};
use crate::failure::{Details, Failure, MESSAGE_BYTES_MAX, PUSHBACK_MAX, Pushback, bounded_text};
use crate::graph::{DoubtPolicy, Step};
use crate::ids::{Clock, IdempotencyKey, Phase};
use crate::saga::{BranchState, Progress, SagaState};
use crate::status::{Code, Effect, Evidence, NoAnswer, NotSent, effect, speaks_for_its_key};
use crate::tier::{RetryRule, Tier, tier};
use crate::time::Timestamp;
use std::time::Duration;

/// Furthest that one answer may move a saga's clock. A participant that claims more is not believed: near
/// the end of its numbers a clock could not grow any more, and the saga would stand still.
pub const CLOCK_LEAP_MAX: u64 = 1 << 40;

impl Turn {
    /// Takes in how a call ended. An answer to anything but the attempt under way changes nothing.
    pub(super) fn answer(&mut self, answer: Answer) {
        if !self.is_awaited(&answer) {
            return;
        }
        let believed = Clock(self.saga.clock.0.saturating_add(CLOCK_LEAP_MAX));
        let peer_clock = answer.peer_clock.filter(|clock| *clock <= believed).unwrap_or_default();
        self.heard = self.heard.max(answer.sent_clock).max(peer_clock);
        match answer.phase {
            Phase::Action => self.action_answer(answer),
            Phase::Query => self.query_answer(answer),
            Phase::Compensation => self.compensation_answer(answer),
        }
    }

    /// The attempt of a coordinator that is gone has no answer any more.
    pub(super) fn lost(&mut self, step: usize, phase: Phase, attempt: u32) {
        self.answer(Answer {
            step,
            phase,
            attempt,
            sent_clock: Clock(0),
            peer_clock: None,
            elapsed: Duration::ZERO,
            outcome: Outcome::Failed {
                evidence: Evidence::NoAnswer(NoAnswer::CoordinatorLost),
                message: "the coordinator that had called, or could have, is gone".to_owned(),
                details: Details::default(),
                pushback: None,
            },
        });
    }

    fn is_awaited(&self, answer: &Answer) -> bool {
        let Some(branch) = self.saga.branches.get(answer.step) else {
            return false;
        };
        branch.phase() == Some(answer.phase) && branch.progress(answer.phase).attempt() == answer.attempt
    }

    fn action_answer(&mut self, answer: Answer) {
        let Answer { step: index, attempt, elapsed, outcome, .. } = answer;
        let definition = self.definition();
        let step = &definition.steps[index];
        match outcome {
            Outcome::Done(response) => {
                self.emit(EventKind::ActionSucceeded { step: step.name.clone(), attempt, elapsed, response });
            }
            Outcome::Failed { evidence, message, details, pushback } => {
                let failure = self.judge(step, evidence, &message, details, pushback);
                let settles_doubt = step.deduplicates && speaks_for_its_key(evidence);
                let doubt =
                    (self.saga.branches[index].doubt && !settles_doubt) || failure.effect == Effect::InDoubt;
                let next = self.after_failed_action(index, step, &failure, doubt);
                self.emit(EventKind::ActionFailed {
                    step: step.name.clone(),
                    attempt,
                    elapsed,
                    failure: Box::new(failure),
                    settles_doubt,
                    next,
                });
                self.after_forward_end(index);
            }
        }
    }

    fn judge(
        &self,
        step: &Step,
        evidence: Evidence,
        message: &str,
        details: Details,
        pushback: Option<Pushback>,
    ) -> Failure {
        let row = tier(&self.saga.definition.errors, evidence.code());
        let harmless = details.says_no_effect() || step.kind == StepKind::ReadOnly;
        Failure {
            evidence,
            effect: if harmless { Effect::None } else { effect(evidence) },
            fin_code: details.fin_code().unwrap_or(row.fin_code),
            tier: row.tier,
            message: bounded_text(message, MESSAGE_BYTES_MAX),
            details: details.bounded(),
            pushback,
        }
    }

    fn after_failed_action(&self, index: usize, step: &Step, failure: &Failure, doubt: bool) -> Next {
        let can_ask = doubt && step.doubt == DoubtPolicy::Query;
        let ask_or_give_up = if can_ask { Next::AskAt(self.now) } else { Next::GiveUp };
        if self.saga.state == SagaState::RollingBack {
            return ask_or_give_up;
        }
        let progress = &self.saga.branches[index].action;
        let may_resend = !doubt || step.doubt == DoubtPolicy::Resend;
        if may_resend && self.is_worth_another(step, failure, progress, doubt) {
            return Next::RetryAt(self.retry_at(index, Phase::Action, &step.action.retry, failure));
        }
        ask_or_give_up
    }

    /// True if the action should be sent again, were it safe to do so.
    fn is_worth_another(&self, step: &Step, failure: &Failure, progress: &Progress, doubt: bool) -> bool {
        if failure.evidence == Evidence::NoAnswer(NoAnswer::CoordinatorLost) {
            return true;
        }
        if failure.pushback == Some(Pushback::Stop)
            || failure.evidence == Evidence::NotSent(NotSent::Withdrawn)
        {
            return false;
        }
        if step.is_endless(Phase::Action) && failure.tier == Tier::L2 {
            return !self.is_given_up(progress, &step.action.retry);
        }
        // A pivot in doubt cannot be undone, so where it is safe it is resent whatever the status was.
        let worth =
            self.retry_rule(failure.code()) == RetryRule::Policy || (step.kind == StepKind::Pivot && doubt);
        worth && has_attempts_left(progress, &step.action.retry)
    }

    /// True if a call that is tried without end otherwise was tried for long enough.
    fn is_given_up(&self, progress: &Progress, policy: &RetryPolicy) -> bool {
        progress.gives_up_at(policy).is_some_and(|at| at <= self.now)
    }

    fn retry_rule(&self, code: Code) -> RetryRule {
        tier(&self.saga.definition.errors, code).retry
    }

    fn retry_at(&self, index: usize, phase: Phase, policy: &RetryPolicy, failure: &Failure) -> Timestamp {
        if failure.evidence == Evidence::NoAnswer(NoAnswer::CoordinatorLost) {
            return self.now;
        }
        let branch = &self.saga.branches[index];
        let progress = branch.progress(phase);
        let step = &self.saga.definition.steps[index];
        let key = IdempotencyKey::new(self.id(), &step.name, phase);
        // Each tenure of trying begins with short waits again.
        let attempt = progress.attempt() - progress.forgiven;
        let since = progress.since.filter(|_| step.is_endless(phase));
        let endless_for = since.map_or(Duration::ZERO, |since| self.now.since(since));
        let backoff = backoff::delay(policy, &key, attempt, endless_for);
        let asked_for = match failure.pushback {
            Some(Pushback::After(wait)) => wait.min(PUSHBACK_MAX),
            Some(Pushback::Stop) | None => Duration::ZERO,
        };
        self.now.plus(backoff.max(asked_for))
    }

    /// A forward path that has just ended without success decides about the saga.
    pub(super) fn after_forward_end(&mut self, index: usize) {
        if self.is_taking_stock {
            return;
        }
        let branch = &self.saga.branches[index];
        let ended = matches!(branch.state, BranchState::Failed | BranchState::InDoubt);
        if ended && self.saga.state == SagaState::Running && !self.saga.needs_person(index) {
            self.roll_back_for(index);
        }
    }

    fn query_answer(&mut self, answer: Answer) {
        let Answer { step: index, attempt, elapsed, outcome, .. } = answer;
        let definition = self.definition();
        let step = &definition.steps[index];
        let Some(query) = &step.query else { return };
        let name = step.name.clone();
        match outcome {
            Outcome::Done(response) => {
                let found = Some(response);
                self.emit(EventKind::QueryAnswered {
                    step: name,
                    attempt,
                    elapsed,
                    found,
                    next: Next::GiveUp,
                });
            }
            Outcome::Failed { evidence: Evidence::ParticipantSaid(Code::NotFound), .. } => {
                let next = self.after_found_nothing(index, step);
                self.emit(EventKind::QueryAnswered { step: name, attempt, elapsed, found: None, next });
            }
            Outcome::Failed { evidence, message, details, pushback } => {
                let failure = self.judge(step, evidence, &message, details, pushback);
                let lost = failure.evidence == Evidence::NoAnswer(NoAnswer::CoordinatorLost);
                let again = lost || has_attempts_left(&self.saga.branches[index].query, &query.retry);
                let next = if again {
                    Next::AskAt(self.retry_at(index, Phase::Query, &query.retry, &failure))
                } else {
                    Next::GiveUp
                };
                let failure = Box::new(failure);
                self.emit(EventKind::QueryFailed { step: name, attempt, elapsed, failure, next });
            }
        }
        self.after_forward_end(index);
    }

    /// The action had no effect: it may be sent again if its own failure was worth it.
    fn after_found_nothing(&self, index: usize, step: &Step) -> Next {
        let branch = &self.saga.branches[index];
        let Some(failure) = branch.failure.as_deref() else {
            return Next::GiveUp;
        };
        // `action.attempts` has counted the attempt asked about already.
        let before_it = Progress { attempts: branch.action.attempts.saturating_sub(1), ..branch.action };
        if self.saga.state == SagaState::Running && self.is_worth_another(step, failure, &before_it, false) {
            Next::RetryAt(self.retry_at(index, Phase::Action, &step.action.retry, failure))
        } else {
            Next::GiveUp
        }
    }

    fn compensation_answer(&mut self, answer: Answer) {
        let Answer { step: index, attempt, elapsed, outcome, .. } = answer;
        let definition = self.definition();
        let step = &definition.steps[index];
        let Some(compensation) = &step.compensation else {
            return;
        };
        let name = step.name.clone();
        match outcome {
            Outcome::Done(_) => {
                self.emit(EventKind::CompensationSucceeded { step: name, attempt, elapsed });
            }
            Outcome::Failed { evidence, message, details, pushback } => {
                let failure = self.judge(step, evidence, &message, details, pushback);
                let progress = &self.saga.branches[index].compensation;
                let policy = &compensation.retry;
                let is_stuck = if failure.tier == Tier::L2 {
                    // That a coordinator has died says nothing about the participant.
                    failure.evidence != Evidence::NoAnswer(NoAnswer::CoordinatorLost)
                        && self.is_given_up(progress, policy)
                } else {
                    progress.refusals + 1 >= policy.attempts_max
                };
                let next = if is_stuck {
                    Next::GiveUp
                } else {
                    Next::RetryAt(self.retry_at(index, Phase::Compensation, policy, &failure))
                };
                let failure = Box::new(failure);
                self.emit(EventKind::CompensationFailed { step: name, attempt, elapsed, failure, next });
            }
        }
    }
}

/// True if the policy allows an attempt after the one that has just failed.
fn has_attempts_left(progress: &Progress, policy: &RetryPolicy) -> bool {
    progress.attempt().saturating_sub(progress.forgiven) < policy.attempts_max
}
