//! Whose turn it is: forwards by dependency, backwards by the definition's compensation order.
//!
//! # Invariants
//! * I4: a branch runs only once all that it depends on is done.
//! * I5: under REVERSE_DAG a branch is undone only once all that comes after it, near or far, is undone.

use crate::definition::{CompensationOrder, StepKind};
use crate::saga::{Branch, BranchState, Resolution, Saga, SagaState};
use std::sync::Arc;

/// What follows of itself: branches whose turn has come begin to run or to be undone.
pub(crate) fn advance(saga: &mut Saga) {
    match saga.state {
        SagaState::Running => {
            let definition = Arc::clone(&saga.definition);
            for (index, step) in definition.steps.iter().enumerate() {
                if saga.branches[index].state == BranchState::Pending
                    && step.depends_on.iter().all(|dependency| is_forward_done(&saga.branches[*dependency]))
                {
                    saga.branches[index].state = BranchState::Running;
                    saga.branches[index].action.since = Some(saga.updated_at);
                }
            }
        }
        SagaState::RollingBack => {
            for index in to_compensate_now(saga) {
                saga.branches[index].state = BranchState::Compensating;
                saga.branches[index].compensation.since = Some(saga.updated_at);
            }
        }
        SagaState::NeedsIntervention | SagaState::Succeeded | SagaState::RolledBack => {}
    }
}

fn to_compensate_now(saga: &Saga) -> Vec<usize> {
    let waiting = (0..saga.branches.len()).filter(|index| has_effect_to_undo(saga, *index));
    match saga.definition.compensation_order {
        CompensationOrder::Concurrent => waiting.collect(),
        CompensationOrder::ReverseDag => waiting
            .filter(|index| {
                saga.definition.steps[*index].descendants.iter().all(|after| is_undone(saga, after))
            })
            .collect(),
        CompensationOrder::Lifo => {
            // A branch still in flight may yet complete last, and a stuck one holds up all before it.
            let in_the_way = |b: &Branch| {
                matches!(b.state, BranchState::Running | BranchState::Compensating | BranchState::Stuck)
            };
            if saga.branches.iter().any(in_the_way) {
                Vec::new()
            } else {
                waiting.max_by_key(|index| saga.branches[*index].settled).into_iter().collect()
            }
        }
    }
}

fn has_effect_to_undo(saga: &Saga, index: usize) -> bool {
    saga.definition.steps[index].is_compensatable()
        && matches!(saga.branches[index].state, BranchState::Succeeded | BranchState::InDoubt)
}

/// True if nothing of this branch is left to undo, or to learn.
pub(crate) fn is_undone(saga: &Saga, index: usize) -> bool {
    match saga.branches[index].state {
        BranchState::Compensated | BranchState::Skipped | BranchState::Failed | BranchState::Resolved => true,
        BranchState::Succeeded | BranchState::InDoubt => {
            saga.definition.steps[index].kind == StepKind::ReadOnly
        }
        BranchState::Pending | BranchState::Running | BranchState::Compensating | BranchState::Stuck => false,
    }
}

/// True if what depends on this branch may begin.
pub(crate) fn is_forward_done(branch: &Branch) -> bool {
    branch.state == BranchState::Succeeded || branch.resolution == Some(Resolution::TookEffect)
}
