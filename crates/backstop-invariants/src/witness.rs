//! Sees one saga from outside, event by event and call by call, and judges.

use crate::branch::Branch;
use crate::{Did, Invariant, Seen, Sent, Violation, must};
use backstop_core::{
    Clock, CompensationOrder, Definition, Epoch, Event, EventKind, IdempotencyKey, OnFailure, Phase,
    Resolution, SagaId, Seq, Step, StepKind, StepName,
};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// All that is provable of one saga from outside.
///
/// Small enough for a model checker's state. Its `Hash` covers what verdicts still to come depend on and leaves out how
/// far seqs, clocks and attempts have grown: a state of a checker that hashes it must see to it that clocks of calls come
/// from durable events (as the core makes them), since their order is then the order of what is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    id: SagaId,
    definition: Arc<Definition>,
    journal: Vec<Arc<Event>>,
    acknowledged: Seq,
    epoch: Epoch,
    decided: Option<(Seq, Clock)>,
    /// Tenures that have been told that the rollback is decided.
    know_of_it: Vec<Epoch>,
    end: Option<End>,
    waits_for_person: bool,
    branches: Vec<Branch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Committed,
    RolledBack,
}

impl Hash for Witness {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.decided.is_some(), self.end, self.waits_for_person).hash(hasher);
        (&self.branches, self.know_of_it.contains(&self.epoch)).hash(hasher);
        if self.definition.compensation_order == CompensationOrder::Lifo {
            for branch in &self.branches {
                self.branches.iter().filter(|o| o.settled < branch.settled).count().hash(hasher);
            }
        }
    }
}

impl Witness {
    /// Begins to watch a saga of which nothing has happened yet.
    #[must_use]
    pub fn new(id: SagaId, definition: Arc<Definition>) -> Self {
        Self {
            branches: vec![Branch::default(); definition.steps.len()],
            id,
            definition,
            journal: Vec::new(),
            acknowledged: Seq(0),
            epoch: Epoch(1),
            decided: None,
            know_of_it: Vec::new(),
            end: None,
            waits_for_person: false,
        }
    }

    /// What the store holds of the saga, as far as it was seen.
    #[must_use]
    pub fn journal(&self) -> &[Arc<Event>] {
        &self.journal
    }

    /// True once it has ended, one way or the other.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn see(&mut self, seen: Seen<'_>) -> Result<(), Violation> {
        match seen {
            Seen::Durable { by, event } => self.durable(by, event),
            Seen::Acknowledged { by, seq } => self.acknowledge(by, seq),
            Seen::Read(journal) => self.read(journal),
            Seen::Sent(sent) => self.sent(sent),
            Seen::Signalled { participant, clock } => {
                let Some((_, decided)) = self.decided else {
                    let what = format!("{participant} is told of a rollback that is not durable");
                    return Err(Violation::of(Invariant::I7, what));
                };
                must(clock > decided, Invariant::I11, || format!("{participant}'s signal is no later"))
            }
            Seen::Booked { step, did } => self.booked(step, did),
        }
    }

    /// Judges a saga about which nothing is under way any more: no message, no timer, no coordinator with anything to do.
    ///
    /// # Errors
    /// [`Invariant::I2`] if neither is it over nor is there a person to wait for.
    pub fn at_rest(&self) -> Result<(), Violation> {
        must(!self.journal.is_empty() || self.acknowledged == Seq(0), Invariant::I2, || "it is lost".into())?;
        let waits = self.waits_for_person && self.branches.iter().any(|branch| branch.waits);
        must(self.end.is_some() || waits || self.journal.is_empty(), Invariant::I2, || {
            let what =
                if self.waits_for_person { "an intervention with nothing to decide" } else { "it hangs" };
            what.to_owned()
        })
    }

    /// Compares the books of the participants with how the saga ended. For who shows it every [`Seen::Booked`], at a time
    /// when no message travels that could still change them.
    ///
    /// # Errors
    /// [`Invariant::I6`] if it was rolled back and something is in force, [`Invariant::I1`] if it was committed and
    /// something is not.
    pub fn books_agree(&self) -> Result<(), Violation> {
        for (step, branch) in self.definition.steps.iter().zip(&self.branches) {
            let (name, effect) = (&step.name, branch.effect);
            match self.end {
                _ if branch.by_hand || step.kind == StepKind::ReadOnly => {}
                None => {}
                Some(End::RolledBack) => {
                    must(effect == 0, Invariant::I6, || format!("rolled back, and {name} is in force"))?;
                }
                Some(End::Committed) => {
                    must(effect == 1, Invariant::I1, || format!("committed, and {name} is not in force"))?;
                }
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, by: Epoch, seq: Seq) -> Result<(), Violation> {
        let durable = self.journal.len() as u64;
        must(seq.0 <= durable, Invariant::I3, || {
            format!("event {} is acknowledged, and {durable} are durable", seq.0)
        })?;
        self.acknowledged = self.acknowledged.max(seq);
        if self.decided.is_some_and(|(at, _)| at <= seq) && !self.know_of_it.contains(&by) {
            self.know_of_it.push(by);
        }
        Ok(())
    }

    fn read(&self, journal: &[Arc<Event>]) -> Result<(), Violation> {
        for seq in 0..usize::try_from(self.acknowledged.0).unwrap_or(usize::MAX) {
            must(journal.get(seq).is_some(), Invariant::I3, || format!("event {} is missing", seq + 1))?;
        }
        for (seen, read) in self.journal.iter().zip(journal) {
            must(seen == read, Invariant::I10, || format!("event {} is another than before", read.seq.0))?;
        }
        Ok(())
    }

    fn durable(&mut self, by: Epoch, event: &Arc<Event>) -> Result<(), Violation> {
        let next = self.journal.len() as u64 + 1;
        if event.seq.0 < next {
            let place = usize::try_from(event.seq.0.saturating_sub(1)).unwrap_or(usize::MAX);
            return must(self.journal.get(place) == Some(event), Invariant::I10, || {
                format!("event {} is there already, and another one", event.seq.0)
            });
        }
        must(event.seq.0 == next, Invariant::I3, || format!("event {next} is missing"))?;
        if let EventKind::Adopted { epoch, .. } = event.kind {
            must(epoch > self.epoch, Invariant::I10, || format!("tenure {} begins twice", epoch.0))?;
            self.epoch = epoch;
        }
        must(by == self.epoch, Invariant::I10, || {
            format!("event {next} is by tenure {}, and it is the turn of {}", by.0, self.epoch.0)
        })?;
        let last = self.journal.last().map_or(Clock(0), |event| event.clock);
        must(event.clock > last, Invariant::I11, || format!("event {next} is no later than the one before"))?;
        self.journal.push(Arc::clone(event));
        self.take_in(event)
    }

    fn take_in(&mut self, event: &Event) -> Result<(), Violation> {
        let about_the_end =
            matches!(event.kind, EventKind::Adopted { .. } | EventKind::SignalReported { .. });
        must(self.end.is_none() || about_the_end, Invariant::I1, || {
            format!("event {} after the end", event.seq.0)
        })?;
        let first = event.seq == Seq(1);
        must(first == matches!(event.kind, EventKind::Started(_)), Invariant::I1, || "starts once".into())?;
        match &event.kind {
            EventKind::Started(_)
            | EventKind::Adopted { .. }
            | EventKind::Released
            | EventKind::SignalReported { .. } => Ok(()),
            EventKind::ActionSucceeded { step, attempt, .. } => {
                self.answered(step, Phase::Action, *attempt, event)?;
                let (_, branch) = self.branch(step)?;
                branch.done = Some(event.clock);
                branch.ended = branch.ended.max(*attempt);
                (branch.doubt, branch.settled) = (false, Some(event.clock));
                Ok(())
            }
            EventKind::ActionFailed { step, attempt, failure, next, .. } => {
                self.answered(step, Phase::Action, *attempt, event)?;
                let could_be_sent = self.is_ready(step)?;
                let (step, branch) = self.branch(step)?;
                branch.ended = branch.ended.max(*attempt);
                branch.settled = Some(event.clock);
                branch.attempt_failed(&step, failure, could_be_sent);
                branch.follow(&step, *next);
                Ok(())
            }
            EventKind::QueryAnswered { step, attempt, found, next, .. } => {
                self.answered(step, Phase::Query, *attempt, event)?;
                let (step, branch) = self.branch(step)?;
                // It speaks for all that has left so far.
                branch.ended = branch.ended.max(branch.sent[Phase::Action as usize].map_or(0, |(n, _)| n));
                (branch.doubt, branch.settled) = (false, Some(event.clock));
                if found.is_some() {
                    branch.done = Some(event.clock);
                } else {
                    branch.follow(&step, *next);
                }
                Ok(())
            }
            EventKind::QueryFailed { step, attempt, next, .. } => {
                self.answered(step, Phase::Query, *attempt, event)?;
                let (step, branch) = self.branch(step)?;
                branch.settled = Some(event.clock);
                branch.follow(&step, *next);
                Ok(())
            }
            EventKind::RollbackDecided { .. } => self.decide(event),
            EventKind::CompensationSucceeded { step, attempt, .. } => {
                self.answered(step, Phase::Compensation, *attempt, event)?;
                self.branch(step)?.1.undone = Some(event.clock);
                Ok(())
            }
            EventKind::CompensationFailed { step, attempt, next, .. } => {
                self.answered(step, Phase::Compensation, *attempt, event)?;
                self.branch(step)?.1.waits = *next == backstop_core::Next::GiveUp;
                Ok(())
            }
            EventKind::InterventionOpened => {
                self.waits_for_person = true;
                Ok(())
            }
            EventKind::BranchRetried { step, .. } => {
                let rolls_back = self.decided.is_some();
                let (_, branch) = self.branch(step)?;
                branch.waits = false;
                if !rolls_back {
                    (branch.given_up, branch.not_before, branch.again_by_hand) = (false, None, true);
                }
                self.waits_for_person = false;
                Ok(())
            }
            EventKind::BranchResolved { step, resolution, .. } => {
                let (_, branch) = self.branch(step)?;
                branch.ended = branch.ended.max(branch.sent[Phase::Action as usize].map_or(0, |(n, _)| n));
                (branch.by_hand, branch.waits, branch.doubt) = (true, false, false);
                match resolution {
                    Resolution::TookEffect => branch.done = Some(event.clock),
                    Resolution::NoEffect => branch.given_up = true,
                    Resolution::Undone => branch.undone = Some(event.clock),
                }
                self.waits_for_person = false;
                Ok(())
            }
            EventKind::Succeeded => self.commit(),
            EventKind::RolledBack => self.rolled_back(),
        }
    }

    fn commit(&mut self) -> Result<(), Violation> {
        must(self.decided.is_none(), Invariant::I1, || "it commits, and its rollback was decided".into())?;
        for (step, branch) in self.definition.steps.iter().zip(&self.branches) {
            must(branch.done.is_some(), Invariant::I1, || {
                format!("it commits, and {} is not done", step.name)
            })?;
        }
        self.end = Some(End::Committed);
        Ok(())
    }

    fn rolled_back(&mut self) -> Result<(), Violation> {
        must(self.decided.is_some(), Invariant::I1, || "it is rolled back, and nobody decided so".into())?;
        for (step, branch) in self.definition.steps.iter().zip(&self.branches) {
            let left = step.kind != StepKind::ReadOnly && branch.is_to_be_undone();
            must(!left, Invariant::I6, || format!("{} may have happened, and is not undone", step.name))?;
        }
        self.end = Some(End::RolledBack);
        Ok(())
    }

    /// ROLLBACK_DECIDED is durable: what is in flight is awaited or, under CANCEL, in doubt from now on.
    fn decide(&mut self, event: &Event) -> Result<(), Violation> {
        must(self.decided.is_none(), Invariant::I1, || "a rollback is decided twice".into())?;
        if let Some(pivot) = self.definition.pivot {
            let (name, pivot) = (&self.definition.steps[pivot].name, &self.branches[pivot]);
            let may_stand = pivot.may_have_happened() && (pivot.done.is_some() || !pivot.by_hand);
            must(!may_stand && pivot.effect == 0, Invariant::I8, || {
                format!("the rollback is decided, and the pivot {name} may have happened")
            })?;
        }
        self.decided = Some((event.seq, event.clock));
        let definition = Arc::clone(&self.definition);
        let ready: Vec<bool> = definition.steps.iter().map(|step| self.has_its_turn(step)).collect();
        for ((step, branch), ready) in definition.steps.iter().zip(&mut self.branches).zip(ready) {
            let asked_about = branch.not_before == Some(backstop_core::Timestamp(i64::MAX));
            if branch.done.is_some() || branch.given_up || asked_about {
                continue;
            }
            let in_flight = ready && branch.may_be_called(event.at);
            if in_flight && definition.on_failure == OnFailure::Drain {
                continue;
            }
            if in_flight {
                // The attempt that may leave until its coordinator knows: the one after those that have ended.
                let last = branch.sent[Phase::Action as usize].map_or(0, |(attempt, _)| attempt);
                branch.ended = last.max(branch.ended + 1);
                branch.doubt |= step.kind != StepKind::ReadOnly;
            }
            (branch.given_up, branch.settled) = (true, Some(event.clock));
        }
        Ok(())
    }

    /// An answer is later than its call.
    fn answered(
        &mut self,
        step: &StepName,
        phase: Phase,
        attempt: u32,
        event: &Event,
    ) -> Result<(), Violation> {
        let (step, branch) = self.branch(step)?;
        let sent = branch.sent[phase as usize].filter(|(sent, _)| *sent == attempt);
        must(sent.is_none_or(|(_, clock)| clock < event.clock), Invariant::I11, || {
            format!("the answer of {} is no later than its call", step.name)
        })
    }

    fn sent(&mut self, sent: Sent<'_>) -> Result<(), Violation> {
        let Some(step) = self.definition.steps.get(sent.step).cloned() else {
            return Err(Violation::of(Invariant::I9, format!("there is no step {}", sent.step)));
        };
        must(!self.journal.is_empty(), Invariant::I4, || "a call before the saga is durable".to_owned())?;
        self.one_key_one_request(&step, sent)?;
        match sent.phase {
            Phase::Action => self.action_sent(&step, sent)?,
            Phase::Query => {}
            Phase::Compensation => self.compensation_sent(&step, sent)?,
        }
        let last = &mut self.branches[sent.step].sent[sent.phase as usize];
        if last.is_none_or(|(attempt, _)| attempt < sent.attempt) {
            *last = Some((sent.attempt, sent.clock));
        }
        Ok(())
    }

    fn one_key_one_request(&mut self, step: &Step, sent: Sent<'_>) -> Result<(), Violation> {
        let own = *sent.key == IdempotencyKey::new(&self.id, &step.name, sent.phase);
        must(own, Invariant::I9, || format!("{} is called under the key {}", step.name, sent.key))?;
        let mut hasher = DefaultHasher::new();
        sent.key.hash(&mut hasher);
        let this = (hasher.finish(), sent.request);
        let first = *self.branches[sent.step].request[sent.phase as usize].get_or_insert(this);
        must(first == this, Invariant::I9, || format!("two requests under the key {}", sent.key))
    }

    fn action_sent(&self, step: &Step, sent: Sent<'_>) -> Result<(), Violation> {
        let name = &step.name;
        for &dependency in &step.depends_on {
            let (before, branch) = (&self.definition.steps[dependency].name, &self.branches[dependency]);
            let Some(done) = branch.done else {
                let what = format!("{name} is called, and the success of {before} is not durable");
                return Err(Violation::of(Invariant::I4, what));
            };
            must(done < sent.clock, Invariant::I11, || {
                format!("{name} is called no later than {before} is done")
            })?;
        }
        let knows = self.know_of_it.contains(&sent.epoch);
        let knew = self.decided.is_some_and(|(_, decided)| sent.clock > decided);
        must(!knows && !knew, Invariant::I1, || format!("{name} is called after the rollback was decided"))?;
        let branch = &self.branches[sent.step];
        let blind =
            branch.doubt && !step.deduplicates && !branch.again_by_hand && sent.attempt > branch.ended;
        must(!blind, Invariant::I9, || {
            format!("{name} may be done, and is sent again to one that cannot tell the two apart")
        })
    }

    fn compensation_sent(&self, step: &Step, sent: Sent<'_>) -> Result<(), Violation> {
        let name = &step.name;
        must(self.decided.is_some(), Invariant::I7, || {
            format!("{name} is compensated, and no rollback is durable")
        })?;
        if let Some(pivot) = self.definition.pivot {
            let pivot = &self.branches[pivot];
            must(pivot.done.is_none() && pivot.effect == 0, Invariant::I8, || {
                format!("{name} is compensated, and the pivot succeeded")
            })?;
        }
        let branch = &self.branches[sent.step];
        must(branch.may_have_happened(), Invariant::I6, || {
            format!("{name} is compensated, and had no effect")
        })?;
        match self.definition.compensation_order {
            CompensationOrder::Concurrent => Ok(()),
            CompensationOrder::ReverseDag => self.in_reverse(step, sent),
            CompensationOrder::Lifo => {
                self.in_reverse(step, sent)?;
                self.newest_first(step, sent)
            }
        }
    }

    fn in_reverse(&self, step: &Step, sent: Sent<'_>) -> Result<(), Violation> {
        for later in step.descendants.iter() {
            let (after, branch) = (&self.definition.steps[later], &self.branches[later]);
            let at_rest = match after.kind {
                StepKind::ReadOnly => !branch.is_open(),
                StepKind::Compensatable | StepKind::Pivot | StepKind::Retriable => !branch.is_to_be_undone(),
            };
            must(at_rest, Invariant::I5, || {
                format!("{} is compensated, and {} after it is not", step.name, after.name)
            })?;
            must(branch.undone.is_none_or(|undone| undone < sent.clock), Invariant::I11, || {
                format!("{} is compensated no later than {} after it", step.name, after.name)
            })?;
        }
        Ok(())
    }

    fn newest_first(&self, step: &Step, sent: Sent<'_>) -> Result<(), Violation> {
        let settled = self.branches[sent.step].settled;
        for (index, (other, branch)) in self.definition.steps.iter().zip(&self.branches).enumerate() {
            let matters = index != sent.step && other.is_compensatable() && branch.is_to_be_undone();
            must(!matters || (!branch.is_open() && branch.settled <= settled), Invariant::I5, || {
                format!("{} is compensated, and {} completed later", step.name, other.name)
            })?;
        }
        Ok(())
    }

    fn booked(&mut self, index: usize, did: Did) -> Result<(), Violation> {
        let (Some(step), Some(branch)) = (self.definition.steps.get(index), self.branches.get_mut(index))
        else {
            return Err(Violation::of(Invariant::I9, format!("there is no step {index}")));
        };
        match did {
            Did::Undid => branch.effect = 0,
            Did::TookEffect => {
                branch.effect += 1;
                let twice = branch.effect > 1 && step.kind != StepKind::ReadOnly;
                must(!twice, Invariant::I9, || format!("{} takes effect twice", step.name))?;
                let too_late = step.kind == StepKind::Pivot && self.decided.is_some();
                must(!too_late, Invariant::I8, || {
                    format!("the pivot {} takes effect after the rollback was decided", step.name)
                })?;
            }
        }
        Ok(())
    }

    /// All that this step depends on is done, and durably so.
    fn has_its_turn(&self, step: &Step) -> bool {
        step.depends_on.iter().all(|dependency| self.branches[*dependency].done.is_some())
    }

    fn is_ready(&self, name: &StepName) -> Result<bool, Violation> {
        let index = self.index_of(name)?;
        Ok(self.has_its_turn(&self.definition.steps[index]))
    }

    fn branch(&mut self, name: &StepName) -> Result<(Step, &mut Branch), Violation> {
        let index = self.index_of(name)?;
        Ok((self.definition.steps[index].clone(), &mut self.branches[index]))
    }

    fn index_of(&self, name: &StepName) -> Result<usize, Violation> {
        let index = self.definition.index_of(name);
        index.ok_or_else(|| Violation::of(Invariant::I1, format!("an event about {name}, which is no step")))
    }
}
