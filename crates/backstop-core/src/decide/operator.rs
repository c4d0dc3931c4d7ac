//! What a person may do about a branch that the machine cannot finish safely.

use super::{Refused, Turn};
use crate::definition::StepKind;
use crate::event::EventKind;
use crate::ids::StepName;
use crate::saga::{BranchState, Cause, CauseKind, Resolution};

impl Turn {
    pub(super) fn retry_branch(&mut self, step: StepName, by: String, reason: String) -> Result<(), Refused> {
        self.waiting_branch(&step)?;
        self.emit(EventKind::BranchRetried { step, by, reason });
        Ok(())
    }

    pub(super) fn resolve_branch(
        &mut self,
        step: StepName,
        by: String,
        reason: String,
        resolution: Resolution,
    ) -> Result<(), Refused> {
        let index = self.waiting_branch(&step)?;
        let kind = self.saga.definition.steps[index].kind;
        let stuck = self.saga.branches[index].state == BranchState::Stuck;
        let fits = match resolution {
            Resolution::Undone => stuck,
            Resolution::TookEffect => !stuck,
            Resolution::NoEffect => !stuck && kind == StepKind::Pivot,
        };
        if !fits {
            return Err(Refused::WrongResolution);
        }
        self.emit(EventKind::BranchResolved { step: step.clone(), by, reason, resolution });
        if resolution == Resolution::NoEffect {
            let failure = self.saga.branches[index].failure.as_deref().cloned();
            self.roll_back(Cause { kind: CauseKind::Resolved(step), failure });
        }
        Ok(())
    }

    fn waiting_branch(&self, step: &StepName) -> Result<usize, Refused> {
        if self.saga.state.is_final() {
            return Err(Refused::Ended);
        }
        let index = self.saga.definition.index_of(step).ok_or(Refused::NoSuchStep)?;
        if self.saga.needs_person(index) { Ok(index) } else { Err(Refused::NotWaiting) }
    }
}
