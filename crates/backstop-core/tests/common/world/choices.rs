//! What may happen next, within the rules.

use super::{Said, World};
use backstop_core::{BranchState, DoubtPolicy, Resolution, SagaState, SignalState, StepKind, agenda};

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The n-th call that is out ends like this.
    Answer(usize, Said),
    /// A call that was dropped: what it did to the books.
    Fate(Said),
    /// A straggler arrives; true if the participant would do it.
    Arrives(usize, bool),
    /// The saga's own timer.
    Wake,
    /// The deadline passes, whatever else is going on.
    Deadline,
    /// The coordinator dies; true if what was riding along dies with it.
    Crash(bool),
    /// The coordinator lets go in order. What was not sent yet is the next one's.
    HandOver,
    /// Somebody wants it undone.
    Cancel,
    /// An operator has a branch tried again.
    Retry(usize),
    /// An operator settles a branch, truthfully.
    Resolve(usize, Resolution),
    /// The n-th listener has been told, or not.
    Report(usize, bool),
}

impl World {
    /// All that may happen next; empty only once the saga has ended and every word has been said.
    pub(crate) fn enabled(&self) -> Vec<Choice> {
        if let Some(call) = self.dropped.first() {
            return self.books[call.step].fates(call.phase, self.left.stragglers).map(Choice::Fate).collect();
        }
        let mut choices = Vec::new();
        for (place, call) in self.out.iter().enumerate() {
            let rolling_back = self.saga.state == SagaState::RollingBack;
            let said = self.books[call.step].answers(call.phase, &self.left, rolling_back);
            choices.extend(said.into_iter().map(|said| Choice::Answer(place, said)));
        }
        for (place, (_, state)) in self.saga.signals.iter().enumerate() {
            if *state == SignalState::Pending {
                choices.extend([Choice::Report(place, true), Choice::Report(place, false)]);
            }
        }
        for (step, books) in self.books.iter().enumerate() {
            if books.travels {
                choices.extend([Choice::Arrives(step, true), Choice::Arrives(step, false)]);
            }
            if self.saga.needs_person(step) && self.left.operators > 0 && !self.saga.state.is_final() {
                choices.extend(self.operator_choices(step));
            }
        }
        let picture = agenda(&self.saga, self.now);
        if picture.wake_at.is_some() {
            choices.push(Choice::Wake);
        }
        let deadline = self.saga.started.deadline;
        if deadline.is_some_and(|at| at > self.now) && self.saga.state == SagaState::Running {
            choices.push(Choice::Deadline);
        }
        if self.left.crashes > 0 {
            choices.push(Choice::Crash(false));
            if self.durable_len < self.journal.len() {
                choices.push(Choice::Crash(true));
            }
        }
        if self.left.hand_overs > 0 {
            choices.push(Choice::HandOver);
        }
        if self.left.cancels > 0 && !self.saga.state.is_final() {
            choices.push(Choice::Cancel);
        }
        choices
    }

    /// What a person who has looked at the books may truthfully say.
    fn operator_choices(&self, step: usize) -> Vec<Choice> {
        let (plan, books) = (&self.saga.definition.steps[step], &self.books[step]);
        match self.saga.branches[step].state {
            BranchState::Stuck => vec![Choice::Retry(step), Choice::Resolve(step, Resolution::Undone)],
            BranchState::InDoubt | BranchState::Failed => {
                let mut choices = vec![Choice::Resolve(step, Resolution::TookEffect)];
                // Sending a thing again blindly is a person's own risk, so this one looks first.
                if plan.doubt != DoubtPolicy::Person || books.effect == 0 {
                    choices.push(Choice::Retry(step));
                }
                if plan.kind == StepKind::Pivot && books.effect == 0 {
                    choices.push(Choice::Resolve(step, Resolution::NoEffect));
                }
                choices
            }
            BranchState::Pending
            | BranchState::Running
            | BranchState::Succeeded
            | BranchState::Compensating
            | BranchState::Compensated
            | BranchState::Skipped
            | BranchState::Resolved => self.broken("this branch waits for a person"),
        }
    }
}
