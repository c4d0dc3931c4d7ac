//! The ways to the store and to the participants, and back.
//!
//! # Invariants
//! * The store takes an append only as the next of its saga, and whole; one that is repeated recognises its own rows.
//! * A call is a message until it arrives; nobody who has given it up can call it back.

use super::shell::{Out, Writing};
use super::{Append, Message, World};
use crate::books::Said;
use crate::coverage::Point;
use backstop_core::{Call, Phase, Saga};
use backstop_invariants::{Did, Seen, Sent};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

impl World {
    /// An append reaches the store. `heard`: its writer will hear what came of it.
    pub(super) fn commit(&mut self, slot: usize, heard: bool) {
        let Some(append) = self.appends[slot].take() else { return };
        if self.durable.seq == append.expected {
            self.durable = Arc::clone(&append.after);
            for event in &append.events {
                self.see(Seen::Durable { by: append.by, event });
                self.reached.push(Point::Durable(Arc::clone(event)));
            }
            self.reached.push(Point::Saga(Arc::clone(&self.durable)));
        }
        // If its own rows are there and not the last, another has built upon them: that is lost too.
        let own = self.ends_with(&append);
        let mine = |ahead: &&mut super::shell::Ahead| ahead.events == append.events;
        let Some(mind) = &mut self.minds[slot] else { return };
        let Some(ahead) = mind.ahead.as_mut().filter(mine) else { return };
        if !own {
            self.drop_mind(slot);
        } else if heard {
            ahead.writing = Writing::Durable;
        } else {
            self.appends[slot] = Some(append);
        }
    }

    fn ends_with(&self, append: &Append) -> bool {
        self.witness.journal().ends_with(&append.events)
    }

    pub(super) fn send(&mut self, slot: usize, saga: &Saga, call: Call) {
        let Call { step, phase, attempt, clock } = call;
        let (key, request) = (call.key(saga), request_of(saga, call));
        self.see(Seen::Sent(Sent { epoch: saga.epoch, step, phase, attempt, clock, key: &key, request }));
        self.messages.push(Message { step, phase, attempt, sender: Some(slot), said: None, doubled: false });
        if let Some(mind) = &mut self.minds[slot] {
            mind.out.push(Out { call, answered: false });
            mind.out.sort_by_key(|out| out.call.identity());
        }
    }

    /// A request reaches its participant. What becomes of the reply is somebody else's matter.
    fn arrives(&mut self, message: Message, does_it: bool) -> Said {
        let books = &mut self.books[message.step];
        let before = books.effect;
        let said = books.serve(message.phase, does_it);
        let is_more = books.effect > before;
        if message.phase != Phase::Action && !books.keyed && !self.left.plain_late {
            self.close_for_good(message.step);
        }
        if is_more {
            self.see(Seen::Booked { step: message.step, did: Did::TookEffect });
        } else if message.phase == Phase::Compensation {
            self.see(Seen::Booked { step: message.step, did: Did::Undid });
        }
        said
    }

    /// A request arrives, and its reply does not, or not yet.
    pub(super) fn serve(&mut self, place: usize, does_it: bool) {
        let message = self.messages[place];
        let said = self.arrives(message, does_it);
        if message.sender.is_some() {
            self.left.faults -= 1;
            self.messages[place].said = Some(said);
        } else {
            self.messages.remove(place);
        }
    }

    /// A reply arrives; at once, or after the request was served some time ago.
    pub(super) fn answer(&mut self, place: usize, said: Said) {
        let message = self.messages.remove(place);
        let Some(slot) = message.sender else { return };
        if message.said.is_none() {
            self.left.faults -= u32::from(said != self.honest(message));
            match (said, message.phase) {
                (Said::Ok | Said::InternalDone | Said::UnavailableDone, _) => {
                    self.arrives(message, true);
                }
                (Said::Refused, Phase::Action) | (Said::NotFound, _) => {
                    self.arrives(message, false);
                }
                (Said::Refused | Said::Aborted | Said::NotSent | Said::Withdrawn | Said::Timeout, _) => {}
            }
        }
        let Some(mind) = &mut self.minds[slot] else { return };
        let out = mind.out.iter_mut().find(|out| out.call.identity() == message.identity());
        let Some(out) = out else { return };
        out.answered = true;
        let call = out.call;
        self.take_in_answer(slot, call, said);
    }

    /// What a participant says if nothing goes wrong.
    pub(super) fn honest(&self, message: Message) -> Said {
        let books = &self.books[message.step];
        match message.phase {
            Phase::Action if !books.is_free() && books.first_answer != Some(true) => Said::Refused,
            Phase::Query if books.effect == 0 => Said::NotFound,
            Phase::Action | Phase::Query | Phase::Compensation => Said::Ok,
        }
    }

    /// The coordinator waits no longer. The message may still be on its way, or its reply.
    pub(super) fn timeout(&mut self, slot: usize, place: usize) {
        let Some(mind) = &mut self.minds[slot] else { return };
        mind.out[place].answered = true;
        let call = mind.out[place].call;
        match self.message_of(slot, call) {
            Some(at) if self.messages[at].said.is_none() => {
                self.left.faults -= 1;
                self.messages[at].sender = None;
            }
            Some(at) => {
                self.messages.remove(at);
            }
            None => {}
        }
        self.take_in_answer(slot, call, Said::Timeout);
    }
}

/// All that a template of this call may read.
fn request_of(saga: &Saga, call: Call) -> u64 {
    let mut hasher = DefaultHasher::new();
    let response = |step: usize| &saga.branches[step].response;
    for ancestor in saga.definition.steps[call.step].ancestors.iter() {
        response(ancestor).hash(&mut hasher);
    }
    if call.phase == Phase::Compensation {
        response(call.step).hash(&mut hasher);
        format!("{:?}", saga.cause).hash(&mut hasher);
    }
    hasher.finish()
}
