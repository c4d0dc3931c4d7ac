//! What must hold, checked against the books (DESIGN 6).

use super::{Said, World};
use backstop_core::{
    Agenda, BranchState, Call, CompensationOrder, EventKind, Input, Phase, Refused, Resolution, Saga,
    SagaState, StepKind, agenda, decide,
};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

impl World {
    fn must(&self, holds: bool, what: &str) {
        if !holds {
            self.broken(what);
        }
    }

    pub(super) fn execute(&mut self, call: Call, said: Said) {
        let once = self.books[call.step].execute(call.phase, said);
        self.must(once, "a step took effect twice");
        self.check_pivot();
    }

    pub(super) fn arrives(&mut self, step: usize, would_do_it: bool) {
        let once = self.books[step].arrives(would_do_it);
        self.must(once, "a step took effect twice");
        self.check_pivot();
    }

    /// I1, I8 in the books: what is rolled back has not passed its point of no return.
    fn check_pivot(&self) {
        if let (Some(pivot), Some(_)) = (self.saga.definition.pivot, &self.saga.cause) {
            self.must(self.books[pivot].effect == 0, "I1: the pivot took effect, and the saga rolls back");
        }
    }

    pub(super) fn check_send(&self, call: Call) {
        let definition = &self.saga.definition;
        let step = &definition.steps[call.step];
        let books = &self.books[call.step];
        self.must(!books.was_sent(call), "one attempt goes out once");
        match call.phase {
            Phase::Action => {
                self.must(self.saga.cause.is_none(), "no action is called after ROLLBACK_DECIDED");
                for &dependency in &step.depends_on {
                    let durable = &self.durable.branches[dependency];
                    let done = durable.state == BranchState::Succeeded
                        || durable.resolution == Some(Resolution::TookEffect);
                    self.must(done, "I4: a dependency's success is durable first");
                    let settled = self.saga.branches[dependency].settled;
                    self.must(settled.is_some_and(|clock| clock < call.clock), "I11: forward");
                }
            }
            Phase::Query => self.must(books.doubt, "only a doubt is asked about"),
            Phase::Compensation => self.check_undo(call),
        }
        let request = self.request_of(call);
        let first = books.first_request[call.phase as usize];
        self.must(first.is_none_or(|first| first == request), "I9: one key, two requests");
    }

    fn check_undo(&self, call: Call) {
        let definition = &self.saga.definition;
        let books = &self.books[call.step];
        self.must(self.durable.cause.is_some(), "I7: ROLLBACK_DECIDED is durable first");
        self.must(!self.saga.is_past_pivot(), "I8: past the pivot nothing is compensated");
        self.must(books.told_done || books.doubt, "I6: what is known to have had no effect is not undone");
        if definition.compensation_order == CompensationOrder::Concurrent {
            return;
        }
        for later in definition.steps[call.step].descendants.iter() {
            self.must(!self.books[later].is_to_be_undone(), "I5: what depends on it is undone first");
            self.must(!self.books[later].may_yet_happen(), "I5: what depends on it cannot happen any more");
            self.must(self.out.iter().all(|out| out.step != later), "I5: what depends on it is at rest");
            let undone = self.clock_of_undoing(later);
            self.must(undone.is_none_or(|clock| clock < call.clock.0), "I11: backward");
        }
        if definition.compensation_order == CompensationOrder::Lifo {
            let others = || self.out.iter().filter(|out| out.identity() != call.identity());
            self.must(others().all(|out| out.phase == Phase::Query), "LIFO: one at a time, when all are in");
            let settled = |step: usize| self.saga.branches[step].settled;
            for (step, other) in self.books.iter().enumerate() {
                let newest = !other.is_to_be_undone() || settled(step) <= settled(call.step);
                self.must(newest, "LIFO: the newest first");
            }
        }
    }

    fn clock_of_undoing(&self, step: usize) -> Option<u64> {
        let name = &self.saga.definition.steps[step].name;
        let undone = self.journal.iter().find(
            |event| matches!(&event.kind, EventKind::CompensationSucceeded { step, .. } if step == name),
        );
        undone.map(|event| event.clock.0)
    }

    /// All that a template of this call may read.
    fn request_of(&self, call: Call) -> u64 {
        let mut hasher = DefaultHasher::new();
        let response = |step: usize| &self.saga.branches[step].response;
        for ancestor in self.saga.definition.steps[call.step].ancestors.iter() {
            response(ancestor).hash(&mut hasher);
        }
        if call.phase == Phase::Compensation {
            response(call.step).hash(&mut hasher);
            format!("{:?}", self.saga.cause).hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(super) fn note_request(&mut self, call: Call) {
        let request = self.request_of(call);
        self.books[call.step].first_request[call.phase as usize].get_or_insert(request);
    }

    pub(super) fn check_signals(&self, picture: &Agenda) {
        let told = !picture.signals.is_empty();
        self.must(!told || self.durable.cause.is_some(), "I7: ROLLBACK_DECIDED is durable before a signal");
    }

    /// What one turn may not do.
    pub(super) fn check_turn(&self, before: &Saga) {
        let after = &self.saga;
        self.must(before.cause.is_none() || before.cause == after.cause, "I1: a cause never changes");
        self.must(!before.state.is_final() || before.state == after.state, "I1: an end is an end");
        let decided = before.cause.is_none() && after.cause.is_some();
        if let Some(pivot) = after.definition.pivot.filter(|_| decided) {
            self.must(self.books[pivot].effect == 0, "I1: the pivot took effect before the rollback");
            self.must(!self.books[pivot].may_yet_happen(), "I1: the pivot may yet take effect");
            self.must(
                !self.out.iter().any(|call| call.step == pivot && call.phase == Phase::Action),
                "I1: the pivot is out when the rollback is decided",
            );
        }
    }

    pub(super) fn check_cancel(&self, refused: Option<Refused>) {
        let Some(refused) = refused else { return };
        let pivot = self.saga.definition.pivot;
        let fits = match refused {
            Refused::Ended => self.saga.state.is_final(),
            Refused::PastPivot => pivot.is_some_and(|pivot| self.books[pivot].effect == 1),
            Refused::PivotOpen => pivot.is_some_and(|pivot| {
                self.books[pivot].doubt || self.out.iter().any(|call| call.step == pivot)
            }),
            Refused::NoSuchStep | Refused::NotWaiting | Refused::WrongResolution => false,
        };
        self.must(fits, "a cancellation is refused for a true reason");
    }

    /// What holds between any two turns.
    pub(super) fn check(&self) {
        let saga = &self.saga;
        let picture = agenda(saga, self.now);
        let waits_for_person = (0..saga.branches.len()).any(|step| saga.needs_person(step));
        match saga.state {
            SagaState::Running | SagaState::RollingBack => {
                let pending =
                    !self.out.is_empty() || picture.wake_at.is_some() || !picture.signals.is_empty();
                self.must(pending, "I2: it hangs, with nothing pending and no intervention");
            }
            SagaState::NeedsIntervention => {
                self.must(waits_for_person, "I2: an intervention with nothing to decide");
                let quiet = self.out.is_empty() && picture.signals.is_empty();
                self.must(quiet, "an intervention is opened when nothing else is going on");
            }
            SagaState::Succeeded => self.check_succeeded(),
            SagaState::RolledBack => self.check_rolled_back(),
        }
        if picture.wake_at.is_some_and(|at| at <= self.now) {
            let woken = decide(saga, self.now, Input::Wake);
            self.must(woken.is_ok_and(|events| !events.is_empty()), "a wake-up that is due does something");
        }
        let is_rolled_back = matches!(saga.state, SagaState::RollingBack | SagaState::RolledBack);
        self.must(!is_rolled_back || saga.cause.is_some(), "a rollback has a cause");
    }

    fn check_succeeded(&self) {
        self.must(self.saga.cause.is_none(), "I1: it commits and has a cause to roll back");
        for books in &self.books {
            self.must(books.effect == 1 || books.is_read_only(), "SUCCEEDED: every step took effect once");
            self.must(!books.undone, "I1: it commits, and a step was undone");
        }
    }

    fn check_rolled_back(&self) {
        for (books, step) in self.books.iter().zip(&self.saga.definition.steps) {
            let name = &step.name;
            self.must(books.effect == 0, &format!("ROLLED_BACK: {name} is still in force"));
            self.must(!books.may_yet_happen(), &format!("ROLLED_BACK: {name} may yet happen"));
            self.must(!books.is_to_be_undone(), &format!("I6: {name} may have happened and is not undone"));
            self.must(step.kind != StepKind::Pivot || !books.told_done, "I1: the pivot was done");
        }
    }
}
