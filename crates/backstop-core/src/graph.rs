//! A definition that has passed every check, as the rules read it: indices instead of names.

use crate::definition::{CompensationOrder, OnFailure, RetryPolicy, StepKind};
use crate::ids::{DefinitionRef, ParticipantName, Phase, StepName};
use crate::tier::ErrorTable;
use std::sync::Arc;
use std::time::Duration;

/// Most steps in a definition.
pub const STEPS_MAX: usize = 256;

/// One checked revision, with what is known of its participants. Immutable and shared by its sagas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Which revision this is.
    pub reference: DefinitionRef,
    /// The steps, in the author's order. Everywhere else a step is its index here.
    pub steps: Vec<Step>,
    /// The order of undoing.
    pub compensation_order: CompensationOrder,
    /// What happens to branches in flight.
    pub on_failure: OnFailure,
    /// Longest time for the forward path.
    pub deadline: Option<Duration>,
    /// The table of the definition's error domain.
    pub errors: Arc<ErrorTable>,
    /// The pivot, if there is one.
    pub pivot: Option<usize>,
}

impl Definition {
    /// The index of the step with this name.
    #[must_use]
    pub fn index_of(&self, name: &StepName) -> Option<usize> {
        self.steps.iter().position(|step| step.name == *name)
    }
}

/// One checked step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: StepName,
    /// What may be done about it once it is done.
    pub kind: StepKind,
    /// The steps that it waits for.
    pub depends_on: Vec<usize>,
    /// Every step that must have succeeded before it, near and far.
    pub ancestors: StepSet,
    /// Every step that cannot begin before it, near and far.
    pub descendants: StepSet,
    /// The forward call.
    pub action: PlannedCall,
    /// The backward call; there for compensatable steps and only for those.
    pub compensation: Option<PlannedCall>,
    /// The call that settles a doubt.
    pub query: Option<PlannedCall>,
    /// What to do about a doubt, defaults filled in.
    pub doubt: DoubtPolicy,
    /// Whether a doubt can be asked about when it cannot be resent: it has a query and does not say COMPENSATE. Unlike
    /// `doubt` it follows from the revision alone, not from how the participant is registered today: what replay
    /// depends on must not change under a journal.
    pub asks: bool,
    /// The action's participant gives every attempt with one key the same answer.
    pub deduplicates: bool,
    /// The action's participant wants the rollback signal.
    pub listens: bool,
}

impl Step {
    /// One of its calls; `None` if it has no such call.
    #[must_use]
    pub fn call(&self, phase: Phase) -> Option<&PlannedCall> {
        match phase {
            Phase::Action => Some(&self.action),
            Phase::Query => self.query.as_ref(),
            Phase::Compensation => self.compensation.as_ref(),
        }
    }

    /// True of a call that is tried until it succeeds, unless its policy says `give_up_after`.
    #[must_use]
    pub fn is_endless(&self, phase: Phase) -> bool {
        match phase {
            Phase::Compensation => true,
            Phase::Action => self.kind == StepKind::Retriable,
            Phase::Query => false,
        }
    }

    /// True if a success of this step has to be undone in a rollback.
    #[must_use]
    pub fn is_compensatable(&self) -> bool {
        self.kind == StepKind::Compensatable
    }

    /// True if only a person may decide about it when it cannot be finished.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.kind, StepKind::Pivot | StepKind::Retriable)
    }
}

/// One checked call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedCall {
    /// Whom to call.
    pub participant: ParticipantName,
    /// `package.Service/Method`.
    pub method: Arc<str>,
    /// Permit, connection, call and reply together.
    pub timeout: Duration,
    /// How it is tried again.
    pub retry: RetryPolicy,
}

/// What to do about an action in doubt, with kinds and defaults taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DoubtPolicy {
    /// Send it again under the same key.
    Resend,
    /// Ask.
    Query,
    /// Undo it as if it were done.
    Compensate,
    /// Leave it to a person: a pivot or retriable step that can be neither resent nor asked.
    Person,
}

/// A set of steps: one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepSet([u64; STEPS_MAX / 64]);

impl StepSet {
    /// Puts a step in. Steps past [`STEPS_MAX`] do not exist and are not put in.
    pub fn insert(&mut self, step: usize) {
        if let Some(word) = self.0.get_mut(step / 64) {
            *word |= 1 << (step % 64);
        }
    }

    /// True if the step is in.
    #[must_use]
    pub fn contains(&self, step: usize) -> bool {
        self.0.get(step / 64).is_some_and(|word| word & (1 << (step % 64)) != 0)
    }

    /// Puts in all of another set.
    pub fn extend(&mut self, other: Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// The steps in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        // From one member to the next: to ask for each of 256 steps was a quarter of what a rollback costs the core.
        self.0.iter().zip(0..).flat_map(|(word, index)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.checked_sub(1)?;
                Some(index * 64 + bit as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_steps_holds_what_was_put_in_ascending() {
        let members = [0, 1, 31, 63, 64, 127, 128, 200, 255];
        let mut set = StepSet::default();
        for step in members.iter().rev() {
            set.insert(*step);
        }
        set.insert(STEPS_MAX);
        assert_eq!(set.iter().collect::<Vec<_>>(), members);
        assert_eq!((0..STEPS_MAX).filter(|step| set.contains(*step)).collect::<Vec<_>>(), members);
        assert_eq!(StepSet::default().iter().next(), None);
    }
}
