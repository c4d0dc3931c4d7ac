//! What a coordinator does around the rules: the turn, as `backstop-engine`'s runner goes about it.
//!
//! # Invariants
//! * The agenda is read off the saga as it is on disk (*journal before effect*), once its writer has been told.
//! * An append is made for the next seq; a lost one, or one that another has built upon, ends this coordinator's part.
//! * A coordinator that knows that its lease is gone does nothing: it is one whose turn never comes again. One that does
//!   not know yet may still send what it had on its agenda when it froze; its timers do not run on.
//!
//! # Not here
//! The ways to the store and to the participants: `super::network`.

use super::{Append, World};
use crate::books::Said;
use crate::coverage::Point;
use backstop_core::{
    Agenda, Answer, Call, Epoch, Event, EventKind, Input, Phase, Resolution, Saga, Timestamp, agenda, apply,
    can_ride_along, decide,
};
use backstop_invariants::{Invariant, Seen};
use std::sync::Arc;
use std::time::Duration;

/// What a coordinator knows and has going on.
#[derive(Debug, Clone)]
pub(crate) struct Mind {
    /// As it is on disk, for all that it knows.
    pub(crate) saga: Arc<Saga>,
    /// Decided and not on disk, for all that it knows.
    pub(crate) ahead: Option<Ahead>,
    /// Attempts that have left and that the agenda still names.
    pub(crate) out: Vec<Out>,
    /// It stands still, since then, before it has sent what is on its agenda.
    pub(crate) frozen: Option<Timestamp>,
}

/// What was decided.
#[derive(Debug, Clone)]
pub(crate) struct Ahead {
    pub(crate) saga: Arc<Saga>,
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) writing: Writing,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Writing {
    /// It rides along with the next write.
    Riding,
    /// It is on its way to the store.
    UnderWay,
    /// It is durable, and its writer is about to hear so.
    Durable,
}

/// An attempt that has left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(crate) call: Call,
    pub(crate) answered: bool,
}

impl Mind {
    pub(crate) fn new(saga: Arc<Saga>) -> Self {
        Self { saga, ahead: None, out: Vec::new(), frozen: None }
    }

    /// The tenure that it has, as far as the store tells.
    pub(crate) fn epoch(&self) -> Epoch {
        let durable = self.ahead.as_ref().filter(|ahead| ahead.writing == Writing::Durable);
        durable.map_or(self.saga.epoch, |ahead| ahead.saga.epoch)
    }

    /// An append is on its way, or its end is.
    pub(crate) fn is_writing(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.writing != Writing::Riding)
    }

    /// It may take something in.
    pub(crate) fn listens(&self) -> bool {
        !self.is_writing() && self.frozen.is_none()
    }

    pub(crate) fn is_calling(&self) -> bool {
        self.out.iter().any(|out| !out.answered)
    }
}

impl World {
    pub(super) fn take_in_answer(&mut self, slot: usize, call: Call, said: Said) {
        let answer = self.as_input(call, said);
        self.turn(slot, vec![answer.clone()], false);
        let Some(mind) = &self.minds[slot] else { return };
        let saga = mind.ahead.as_ref().map_or(&mind.saga, |ahead| &ahead.saga);
        let again = decide(saga, self.now, answer);
        self.must(again == Ok(Vec::new()), Invariant::I9, "an answer that comes twice changes something");
    }

    fn as_input(&self, call: Call, said: Said) -> Input {
        let Call { step, phase, attempt, clock } = call;
        let outcome = said.outcome(self.definition.steps[step].name.as_str(), attempt);
        let elapsed = Duration::from_millis(1);
        Input::Answer(Answer { step, phase, attempt, sent_clock: clock, peer_clock: None, elapsed, outcome })
    }

    /// Decides; what nobody waits for rides along, everything else is on its way to the store.
    pub(super) fn turn(&mut self, slot: usize, inputs: Vec<Input>, write_now: bool) {
        let Some(mind) = &mut self.minds[slot] else { return };
        let mut ahead = mind.ahead.take().unwrap_or_else(|| Ahead {
            saga: Arc::clone(&mind.saga),
            events: Vec::new(),
            writing: Writing::Riding,
        });
        for input in inputs {
            let Ok(events) = decide(&ahead.saga, self.now, input) else { continue };
            let mut after = Saga::clone(&ahead.saga);
            for event in events {
                if let Err(corrupt) = apply(&mut after, &event) {
                    self.must(false, Invariant::I2, &corrupt.to_string());
                    return;
                }
                ahead.events.push(Arc::new(event));
            }
            ahead.saga = Arc::new(after);
        }
        let Some(mind) = &mut self.minds[slot] else { return };
        if ahead.events.is_empty() {
            return;
        }
        if !write_now && can_ride_along(&mind.saga, &ahead.saga, self.now) {
            mind.ahead = Some(ahead);
            return;
        }
        ahead.writing = Writing::UnderWay;
        self.appends[slot] = Some(Append {
            expected: mind.saga.seq,
            by: ahead.saga.epoch,
            events: ahead.events.clone(),
            after: Arc::clone(&ahead.saga),
        });
        mind.ahead = Some(ahead);
        if self.nobody_can_interfere(slot) {
            self.commit(slot, true);
            self.told(slot);
            self.dispatch(slot);
        }
    }

    /// Nothing can come between an append and its end: so both happen at once, and there are fewer states.
    fn nobody_can_interfere(&self, slot: usize) -> bool {
        let left = &self.left;
        left.crashes + left.takeovers + left.unknowns + left.freezes == 0
            && self.minds[1 - slot].is_none()
            && self.appends[1 - slot].is_none()
    }

    /// The writer hears that its append is durable.
    pub(super) fn told(&mut self, slot: usize) {
        let Some(mind) = &mut self.minds[slot] else { return };
        let Some(ahead) = mind.ahead.take() else { return };
        mind.saga = Arc::clone(&ahead.saga);
        mind.frozen = None;
        if ahead.events.last().is_some_and(|event| event.kind == EventKind::Released) {
            self.drop_mind(slot);
        }
        self.see(Seen::Acknowledged { by: ahead.saga.epoch, seq: ahead.saga.seq });
    }

    pub(super) fn freeze(&mut self, slot: usize) {
        let now = self.now;
        if let Some(mind) = &mut self.minds[slot] {
            mind.frozen = Some(now);
        }
    }

    /// It goes on where it stood still. Whose lease is over has its timers stand where they stood.
    pub(super) fn thaw(&mut self, slot: usize) {
        let is_owner = self.is_owner(slot);
        let Some(mind) = &mut self.minds[slot] else { return };
        let since = mind.frozen.take().unwrap_or(self.now);
        let now = if is_owner { self.now } else { since };
        self.dispatch_at(slot, now);
    }

    /// Brings what is going on in line with the agenda.
    pub(super) fn dispatch(&mut self, slot: usize) {
        self.dispatch_at(slot, self.now);
    }

    fn dispatch_at(&mut self, slot: usize, now: Timestamp) {
        let Some(mind) = &mut self.minds[slot] else { return };
        let saga = Arc::clone(&mind.saga);
        let picture = agenda(&saga, now);
        let wanted: Vec<_> = picture.calls.iter().chain(&picture.awaited).map(Call::identity).collect();
        mind.out.retain(|out| wanted.contains(&out.call.identity()));
        let kept: Vec<_> = mind.out.iter().map(|out| out.call.identity()).collect();
        for message in &mut self.messages {
            // Reset: it may still arrive.
            if message.sender == Some(slot) && !kept.contains(&message.identity()) {
                message.sender = None;
            }
        }
        for call in &picture.calls {
            if !kept.contains(&call.identity()) {
                self.send(slot, &saga, *call);
            }
        }
        for signal in &picture.signals {
            self.see(Seen::Signalled { participant: &signal.participant, clock: signal.clock });
        }
        self.withdraw(slot, &picture, &kept);
    }

    /// An action that never left, and must not any more, is answered by us.
    fn withdraw(&mut self, slot: usize, picture: &Agenda, kept: &[(usize, Phase, u32)]) {
        let never_sent: Vec<_> =
            picture.awaited.iter().filter(|call| !kept.contains(&call.identity())).copied().collect();
        if never_sent.is_empty() {
            return;
        }
        let Some(mind) = &mut self.minds[slot] else { return };
        mind.out.extend(never_sent.iter().map(|call| Out { call: *call, answered: true }));
        let inputs = never_sent.into_iter().map(|call| self.as_input(call, Said::Withdrawn)).collect();
        self.turn(slot, inputs, false);
    }

    /// Its memory is gone; what has left has left.
    pub(super) fn drop_mind(&mut self, slot: usize) {
        self.minds[slot] = None;
        for message in &mut self.messages {
            if message.sender == Some(slot) {
                message.sender = None;
            }
        }
    }

    pub(super) fn crash(&mut self, slot: usize) {
        self.left.crashes -= 1;
        if let (Some(mind), Some(last)) = (&self.minds[slot], self.witness.journal().last()) {
            let stage = mind.ahead.as_ref().map(|ahead| ahead.writing);
            self.reached.push(Point::Crash { stage, frozen: mind.frozen.is_some(), last: Arc::clone(last) });
        }
        self.drop_mind(slot);
    }

    /// Reads the journal, and makes the first event of a new tenure.
    pub(super) fn take_over(&mut self, slot: usize) {
        self.left.takeovers -= u32::from(self.is_contested(slot));
        self.drop_mind(slot);
        let journal = self.witness.journal().to_vec();
        self.see(Seen::Read(&journal));
        let handed_over = journal.last().is_some_and(|event| event.kind == EventKind::Released);
        self.minds[slot] = Some(Mind::new(Arc::clone(&self.durable)));
        let coordinator = self.ids[slot].clone();
        self.turn(slot, vec![Input::Adopt { coordinator, handed_over }], true);
    }

    pub(super) fn hand_over(&mut self, slot: usize) {
        self.left.hand_overs -= 1;
        if let Some(mind) = &mut self.minds[slot] {
            mind.frozen = None;
        }
        self.turn(slot, vec![Input::Release], true);
    }

    pub(super) fn wake(&mut self, slot: usize) {
        let Some(mind) = &self.minds[slot] else { return };
        let Some(at) = self.wake_at(mind) else { return };
        let (was_due, seq) = (at <= self.now, mind.saga.seq);
        self.now = self.now.max(at);
        self.turn(slot, vec![Input::Wake], true);
        let Some(mind) = &self.minds[slot] else { return };
        let writes = mind.is_writing() || mind.saga.seq > seq;
        self.must(writes || !was_due, Invariant::I2, "a wake-up that is due does nothing");
        if !writes {
            self.dispatch(slot);
        }
    }

    /// The deadline passes, whatever else is going on.
    pub(super) fn deadline(&mut self, slot: usize) {
        let Some(mind) = &self.minds[slot] else { return };
        let Some(at) = mind.saga.started.deadline else { return };
        self.now = self.now.max(at);
        // By then every retry that was due has gone out.
        self.dispatch(slot);
        self.turn(slot, vec![Input::Wake], true);
    }

    pub(super) fn cancel(&mut self, slot: usize) {
        self.left.cancels -= 1;
        self.turn(slot, vec![Input::Cancel { by: "ann".to_owned(), reason: String::new() }], true);
    }

    pub(super) fn retry(&mut self, slot: usize, step: usize) {
        self.left.operators -= 1;
        self.close_for_good(step);
        let step = self.definition.steps[step].name.clone();
        self.turn(slot, vec![Input::RetryBranch { step, by: "ben".into(), reason: String::new() }], true);
    }

    pub(super) fn resolve(&mut self, slot: usize, index: usize, resolution: Resolution) {
        self.left.operators -= 1;
        self.settle_by_hand(index, resolution);
        let (step, by) = (self.definition.steps[index].name.clone(), "ben".to_owned());
        self.turn(slot, vec![Input::ResolveBranch { step, by, reason: String::new(), resolution }], true);
    }

    pub(super) fn report(&mut self, slot: usize, place: usize, delivered: bool) {
        let Some(mind) = &self.minds[slot] else { return };
        let participant = mind.saga.signals[place].0.clone();
        let error = (!delivered).then(|| "down".to_owned());
        self.turn(slot, vec![Input::SignalReport { participant, attempts: 1, error }], false);
    }
}
