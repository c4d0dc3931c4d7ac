//! When two worlds are the same as far as their future goes.
//!
//! The rules, the witness and the shell compare instants only with one another and with `now`, count attempts only against
//! their limits, and take every clock and seq from the event before. So two worlds that differ only in how far those
//! numbers have grown go through the same steps and break the same promises, and one of them is enough. What is left out
//! besides: the texts of answers (a request that they change is compared when it is sent), attempts of messages (with a
//! barrier participants do not look at them; without one only whether a person, a question or a compensation came after,
//! and messages for which that is so are gone), and the way here.

use super::World;
use super::shell::Mind;
use backstop_core::{Branch, Event, Saga, Timestamp, agenda, transcript};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::mem::discriminant;
use std::sync::Arc;

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hash_saga(&self.durable, self.now, hasher);
        self.witness.hash(hasher);
        for mind in &self.minds {
            mind.is_some().hash(hasher);
            if let Some(mind) = mind {
                self.hash_mind(mind, hasher);
            }
        }
        for append in &self.appends {
            append.is_some().hash(hasher);
            if let Some(append) = append {
                (self.durable.seq.0 - append.expected.0).hash(hasher);
                hash_saga(&append.after, self.now, hasher);
                hash_events(&append.events, hasher);
            }
        }
        for message in &self.messages {
            (message.step, message.phase, message.sender, message.said, message.doubled).hash(hasher);
        }
        self.messages.len().hash(hasher);
        self.books.hash(hasher);
        self.left.hash(hasher);
        self.broken.hash(hasher);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl World {
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    fn hash_mind(&self, mind: &Mind, hasher: &mut impl Hasher) {
        // A coordinator's saga is what the first events of the journal make.
        let behind = self.durable.seq.0 - mind.saga.seq.0;
        behind.hash(hasher);
        if behind > 0 {
            hash_saga(&mind.saga, self.now, hasher);
        }
        mind.ahead.is_some().hash(hasher);
        if let Some(ahead) = &mind.ahead {
            ahead.writing.hash(hasher);
            hash_saga(&ahead.saga, self.now, hasher);
            hash_events(&ahead.events, hasher);
        }
        for out in &mind.out {
            (out.call.step, out.call.phase, out.answered).hash(hasher);
        }
        mind.frozen.is_some().hash(hasher);
        if let Some(since) = mind.frozen {
            for call in agenda(&mind.saga, since).calls {
                (call.step, call.phase, call.attempt <= self.books[call.step].closed).hash(hasher);
            }
        }
    }
}

fn hash_events(events: &[Arc<Event>], hasher: &mut impl Hasher) {
    events.len().hash(hasher);
    for event in events {
        discriminant(&event.kind).hash(hasher);
        transcript::subject(&event.kind).hash(hasher);
    }
}

/// Instants by their order, attempts as far as they count.
fn hash_saga(saga: &Saga, now: Timestamp, hasher: &mut impl Hasher) {
    saga.state.hash(hasher);
    saga.cause.as_ref().map(|cause| transcript::cause_text(cause)).hash(hasher);
    saga.started.deadline.is_some_and(|at| at <= now).hash(hasher);
    saga.signals.iter().for_each(|(_, state)| state.hash(hasher));
    let rank = |settled| saga.branches.iter().filter(|other| other.settled < settled).count();
    let progress_of = |b: &Branch| [b.action, b.query, b.compensation];
    let waits =
        || saga.branches.iter().flat_map(progress_of).filter_map(|p| p.not_before).filter(|at| *at > now);
    for b in &saga.branches {
        (b.state, b.asking, b.doubt, b.resolution, rank(b.settled)).hash(hasher);
        b.failure.as_ref().map(|failure| failure.evidence).hash(hasher);
        for p in progress_of(b) {
            (p.attempts - p.forgiven, p.refusals).hash(hasher);
            let later = p.not_before.filter(|at| *at > now);
            later.map(|at| waits().filter(|other| *other < at).count()).hash(hasher);
        }
    }
}
