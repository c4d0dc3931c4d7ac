//! A state of the model: a durable journal, two coordinators' memories, what is on its way to the store and over the
//! network, the participants' books, and a witness who has seen it all.
//!
//! One step of the world ([`World::step`]) is one thing that happens: a message arrives, an append becomes durable, its
//! writer is told, a coordinator dies. All that a coordinator decides it decides by the real rules of `backstop-core`;
//! the shell around them (what is written when, what follows from what) is a small copy of the engine's, in `shell`.
//!
//! # Invariants
//! * Whether a promise is broken is said by `backstop-invariants` and by nobody else; a broken world goes nowhere.
//! * The journal replays to the saga that the store's writers built upon (`checker`, at each state).
//!
//! # Not here
//! What may happen next: `choices`. When two worlds are the same: `key`.

mod choices;
mod key;
mod network;
mod shell;

pub use choices::Choice;

use crate::books::{Books, Said};
use crate::bounds::Bounds;
use crate::coverage::Point;
use backstop_core::{
    BranchState, Call, CoordinatorId, Definition, Epoch, Event, Phase, Resolution, Saga, SagaId, Seq, Start,
    StepKind, Timestamp, agenda, replay, start,
};
use backstop_invariants::{Invariant, Seen, Violation, Witness};
use bytes::Bytes;
use shell::Mind;
pub(crate) use shell::Writing;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Coordinators beside each other.
pub(crate) const COORDINATORS: usize = 2;

/// A state.
#[derive(Debug, Clone)]
pub struct World {
    pub(crate) definition: Arc<Definition>,
    pub(crate) ids: Arc<[CoordinatorId; COORDINATORS]>,
    pub(crate) now: Timestamp,
    /// What the journal makes.
    pub(crate) durable: Arc<Saga>,
    pub(crate) witness: Witness,
    /// What each coordinator knows and has going on; none if it is dead, or has nothing to do with the saga.
    pub(crate) minds: [Option<Mind>; COORDINATORS],
    /// What each has sent to the store, alive or not.
    pub(crate) appends: [Option<Append>; COORDINATORS],
    pub(crate) messages: Vec<Message>,
    pub(crate) books: Vec<Books>,
    pub(crate) left: Bounds,
    /// What has gone wrong, once something has.
    pub broken: Option<Violation>,
    trail: Option<Arc<Trail>>,
    /// What the last step reached, for the coverage.
    pub(crate) reached: Vec<Point>,
}

/// The way here, newest first.
#[derive(Debug)]
struct Trail {
    told: String,
    before: Option<Arc<Trail>>,
}

/// An append on its way to the store.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    pub(crate) expected: Seq,
    pub(crate) by: Epoch,
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) after: Arc<Saga>,
}

/// A call on its way to a participant, or its reply on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) step: usize,
    pub(crate) phase: Phase,
    pub(crate) attempt: u32,
    /// Who waits for the reply, if somebody does.
    pub(crate) sender: Option<usize>,
    /// The reply, once it has been served.
    pub(crate) said: Option<Said>,
    /// There are, or were, two of it: so it has certainly left.
    pub(crate) doubled: bool,
}

impl Message {
    pub(crate) fn identity(&self) -> (usize, Phase, u32) {
        (self.step, self.phase, self.attempt)
    }
}

impl World {
    /// A saga that was just accepted, with its first calls on their way.
    ///
    /// # Errors
    /// If the rules do not take their own first event.
    pub fn new(definition: &Arc<Definition>, bounds: Bounds) -> Result<Self, String> {
        let id = SagaId::parse("s").map_err(|e| e.to_string())?;
        let name = |name| CoordinatorId::parse(name).map_err(|e| e.to_string());
        let ids = Arc::new([name("left")?, name("right")?]);
        let first = Arc::new(start(
            definition,
            Timestamp(0),
            Start {
                coordinator: ids[0].clone(),
                input: Bytes::from_static(b"{}"),
                payloads: BTreeMap::new(),
                labels: BTreeMap::new(),
                trace_parent: None,
            },
        ));
        let saga = replay(id.clone(), Arc::clone(definition), std::slice::from_ref(&*first))
            .map_err(|e| e.to_string())?;
        let durable = Arc::new(saga);
        let mut world = Self {
            books: definition.steps.iter().map(Books::of).collect(),
            definition: Arc::clone(definition),
            ids,
            now: Timestamp(0),
            minds: [Some(Mind::new(Arc::clone(&durable))), None],
            witness: Witness::new(id, Arc::clone(definition)),
            durable,
            appends: [None, None],
            messages: Vec::new(),
            left: bounds,
            broken: None,
            trail: None,
            reached: Vec::new(),
        };
        world.see(Seen::Durable { by: Epoch(1), event: &first });
        world.see(Seen::Acknowledged { by: Epoch(1), seq: Seq(1) });
        world.dispatch(0);
        world.settle();
        Ok(world)
    }

    /// Lets it happen.
    pub fn step(&mut self, choice: Choice) {
        self.reached.clear();
        let told = self.tell(choice);
        self.trail = Some(Arc::new(Trail { told, before: self.trail.take() }));
        match choice {
            Choice::Answer { place, said } => self.answer(place, said),
            Choice::Serve { place, does_it } => self.serve(place, does_it),
            Choice::Timeout { slot, place } => self.timeout(slot, place),
            Choice::Double { place } => {
                self.left.doubles -= 1;
                self.messages[place].doubled = true;
                let copy = Message { sender: None, ..self.messages[place] };
                self.messages.push(copy);
            }
            Choice::Commit { slot } => self.commit(slot, true),
            Choice::CommitUnheard { slot } => {
                self.left.unknowns -= 1;
                self.commit(slot, false);
            }
            Choice::Told { slot } => {
                self.told(slot);
                self.dispatch(slot);
            }
            Choice::ToldAndFreezes { slot } => {
                self.left.freezes -= 1;
                self.told(slot);
                self.freeze(slot);
            }
            Choice::Thaw { slot } => self.thaw(slot),
            Choice::Crash { slot } => self.crash(slot),
            Choice::TakeOver { slot } => self.take_over(slot),
            Choice::HandOver { slot } => self.hand_over(slot),
            Choice::Wake { slot } => self.wake(slot),
            Choice::Deadline { slot } => self.deadline(slot),
            Choice::Cancel { slot } => self.cancel(slot),
            Choice::Retry { slot, step } => self.retry(slot, step),
            Choice::Resolve { slot, step, resolution } => self.resolve(slot, step, resolution),
            Choice::Report { slot, place, delivered } => self.report(slot, place, delivered),
        }
        self.settle();
    }

    /// The witness sees it; the first promise that it finds broken stays.
    pub(crate) fn see(&mut self, seen: Seen<'_>) {
        let judged = self.witness.see(seen);
        self.judge(judged);
    }

    pub(crate) fn judge(&mut self, judged: Result<(), Violation>) {
        if let (None, Err(violation)) = (&self.broken, judged) {
            self.broken = Some(violation);
        }
    }

    pub(crate) fn must(&mut self, holds: bool, invariant: Invariant, what: &str) {
        if !holds {
            self.judge(Err(Violation { invariant, what: what.to_owned() }));
        }
    }

    /// Actions of this step that are on their way now arrive no more: by a person's care, or by the bound of plain
    /// participants.
    fn close_for_good(&mut self, step: usize) {
        let attempts = self.durable.branches[step].action.attempts;
        // Once a rollback is decided no action is wanted any more.
        let last = if self.durable.cause.is_some() { u32::MAX } else { attempts };
        self.books[step].closes(last);
    }

    /// A reply that nobody waits for any more, or a request that can change nothing any more, is as good as gone.
    fn settle(&mut self) {
        let books = &self.books;
        self.messages.retain(|m| match m.sender {
            Some(_) => m.said.is_some() || m.phase != Phase::Action || m.attempt > books[m.step].closed,
            None => m.said.is_none() && books[m.step].can_change_by(m.phase, m.attempt),
        });
        self.messages.sort_unstable();
        if self.broken.is_none() && !self.has_anything_to_come() {
            self.judge(self.witness.at_rest());
            self.judge(self.witness.books_agree());
        }
    }

    /// The coordinator that drives the saga, for all that the journal says, is this one.
    pub(crate) fn is_owner(&self, slot: usize) -> bool {
        self.minds[slot].as_ref().is_some_and(|mind| mind.epoch() == self.durable.epoch)
    }

    /// A call that was sent and is not answered, if its message is to be found.
    pub(crate) fn message_of(&self, slot: usize, call: Call) -> Option<usize> {
        self.messages.iter().position(|m| m.sender == Some(slot) && m.identity() == call.identity())
    }

    /// True if the journal, read from its beginning, gives the saga that was built upon.
    #[must_use]
    pub fn replays(&self) -> bool {
        let journal: Vec<Event> = self.witness.journal().iter().map(|event| Event::clone(event)).collect();
        replay(self.durable.id.clone(), Arc::clone(&self.definition), &journal).as_ref() == Ok(&*self.durable)
    }

    /// True if it has ended, for all that the journal says.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.durable.state.is_final()
    }

    /// The journal as the house's transcript.
    #[must_use]
    pub fn transcript(&self) -> String {
        let journal: Vec<Event> = self.witness.journal().iter().map(|event| Event::clone(event)).collect();
        backstop_core::transcript::transcript(&journal)
    }

    /// The way here, a line a step.
    #[must_use]
    pub fn trail(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut at = self.trail.as_ref();
        while let Some(trail) = at {
            lines.push(trail.told.clone());
            at = trail.before.as_ref();
        }
        lines.reverse();
        lines
    }

    /// From here on nothing goes wrong any more, and there is a person for whatever wants one.
    pub fn be_kind(&mut self) {
        let Bounds { plain_late, actions, compensations, .. } = self.left;
        self.left = Bounds { plain_late, actions, compensations, operators: 1, ..Bounds::NONE };
    }

    /// The step that a message is about.
    #[must_use]
    pub fn step_of(&self, place: usize) -> usize {
        self.messages[place].step
    }

    /// Where each branch stands, by the journal.
    #[must_use]
    pub fn branch_states(&self) -> Vec<BranchState> {
        self.durable.branches.iter().map(|branch| branch.state).collect()
    }

    /// A person makes true what they say.
    fn settle_by_hand(&mut self, step: usize, resolution: Resolution) {
        self.close_for_good(step);
        let books = &mut self.books[step];
        match resolution {
            Resolution::TookEffect => books.effect = u32::from(books.kind != StepKind::ReadOnly),
            Resolution::NoEffect => {}
            Resolution::Undone => books.effect = 0,
        }
    }

    /// When this saga wants its next turn.
    pub(crate) fn wake_at(&self, mind: &Mind) -> Option<Timestamp> {
        agenda(&mind.saga, self.now).wake_at
    }
}
