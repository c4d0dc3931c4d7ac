//! What may happen next, within the bounds.

use super::shell::Writing;
use super::{Message, World};
use crate::books::Said;
use backstop_core::{
    BranchState, DoubtPolicy, Input, Phase, Resolution, SagaState, SignalState, StepKind, decide,
};

/// Something that happens. `slot`: to which coordinator; `place`: in the list that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A message is answered like this, and the reply arrives.
    Answer {
        /// The message.
        place: usize,
        /// The answer.
        said: Said,
    },
    /// A message arrives; its reply is slow, lost, or nobody waits for it.
    Serve {
        /// The message.
        place: usize,
        /// The business code does it, if it is asked.
        does_it: bool,
    },
    /// A coordinator waits no longer for one of its calls.
    Timeout {
        /// Whose call.
        slot: usize,
        /// The call.
        place: usize,
    },
    /// A message is doubled on its way.
    Double {
        /// The message.
        place: usize,
    },
    /// An append reaches the store.
    Commit {
        /// Whose.
        slot: usize,
    },
    /// An append reaches the store, and its writer hears nothing.
    CommitUnheard {
        /// Whose.
        slot: usize,
    },
    /// A writer hears that its append is durable, and goes on.
    Told {
        /// Who.
        slot: usize,
    },
    /// A writer hears that its append is durable, and stands still before it calls anybody.
    ToldAndFreezes {
        /// Who.
        slot: usize,
    },
    /// It goes on.
    Thaw {
        /// Who.
        slot: usize,
    },
    /// A coordinator dies.
    Crash {
        /// Who.
        slot: usize,
    },
    /// A coordinator takes the saga over.
    TakeOver {
        /// Who.
        slot: usize,
    },
    /// A coordinator lets go in order.
    HandOver {
        /// Who.
        slot: usize,
    },
    /// The saga's own timer.
    Wake {
        /// Whose.
        slot: usize,
    },
    /// The deadline passes, whatever else is going on.
    Deadline {
        /// Who finds it.
        slot: usize,
    },
    /// Somebody wants the saga undone.
    Cancel {
        /// Who is asked.
        slot: usize,
    },
    /// An operator has a branch tried again.
    Retry {
        /// Who is asked.
        slot: usize,
        /// The branch.
        step: usize,
    },
    /// An operator settles a branch, truthfully.
    Resolve {
        /// Who is asked.
        slot: usize,
        /// The branch.
        step: usize,
        /// How.
        resolution: Resolution,
    },
    /// A listener has been told of the rollback, or could not be.
    Report {
        /// By whom.
        slot: usize,
        /// The listener.
        place: usize,
        /// It has.
        delivered: bool,
    },
}

impl World {
    /// All that may happen next; nothing once a promise is broken.
    pub fn choices(&self, choices: &mut Vec<Choice>) {
        if self.broken.is_some() {
            return;
        }
        for (place, message) in self.messages.iter().enumerate() {
            self.about_message(place, *message, choices);
        }
        for slot in 0..self.minds.len() {
            self.about_store(slot, choices);
            self.about_mind(slot, choices);
            if self.may_take_over(slot) {
                choices.push(Choice::TakeOver { slot });
            }
        }
    }

    /// True if something is still going to happen of itself: a message to come, an append, a timer, a take-over.
    pub(super) fn has_anything_to_come(&self) -> bool {
        let owner = |slot: usize| self.minds[slot].as_ref().filter(|_| self.is_owner(slot));
        let busy = (0..self.minds.len()).filter_map(owner).any(|mind| {
            mind.is_writing()
                || mind.frozen.is_some()
                || mind.is_calling()
                || self.wake_at(mind).is_some()
                || mind.saga.signals.iter().any(|(_, state)| *state == SignalState::Pending)
        });
        busy || !self.messages.is_empty()
            || self.appends.iter().any(Option::is_some)
            || (0..self.minds.len()).any(|slot| self.may_take_over(slot) && !self.is_contested(slot))
    }

    fn about_message(&self, place: usize, message: Message, choices: &mut Vec<Choice>) {
        let books = &self.books[message.step];
        let both = message.phase == Phase::Action && books.is_free();
        let Some(slot) = message.sender else {
            choices.push(Choice::Serve { place, does_it: true });
            if both && books.keyed {
                choices.push(Choice::Serve { place, does_it: false });
            }
            return;
        };
        if self.minds[slot].as_ref().is_some_and(super::shell::Mind::listens) {
            self.answers(place, message, choices);
        }
        if message.said.is_some() {
            return;
        }
        if self.left.faults > 0 && message.phase != Phase::Query {
            choices.push(Choice::Serve { place, does_it: true });
        }
        if self.left.doubles > 0 && books.keyed && !message.doubled && message.phase != Phase::Query {
            choices.push(Choice::Double { place });
        }
    }

    /// What may come back to somebody who waits for it.
    fn answers(&self, place: usize, message: Message, choices: &mut Vec<Choice>) {
        if let Some(said) = message.said {
            choices.push(Choice::Answer { place, said });
            return;
        }
        let honest = self.honest(message);
        choices.push(Choice::Answer { place, said: honest });
        if self.left.faults == 0 {
            return;
        }
        let is_doubled = message.doubled;
        let books = &self.books[message.step];
        let menu = match message.phase {
            Phase::Action => self.left.actions,
            Phase::Query => &[Said::NotSent],
            Phase::Compensation => self.left.compensations,
        };
        for &said in menu {
            let fits = match said {
                Said::Ok | Said::NotFound | Said::Withdrawn | Said::Timeout => false,
                Said::Refused => {
                    honest != Said::Refused && (message.phase != Phase::Action || books.is_free())
                }
                Said::InternalDone | Said::UnavailableDone => books.kind != StepKind::ReadOnly,
                // Nobody may say of an attempt that has a double that it has done nothing.
                Said::Aborted | Said::NotSent => !is_doubled,
            };
            if fits {
                choices.push(Choice::Answer { place, said });
            }
        }
        let rolls_back = self.minds[message.sender.unwrap_or_default()]
            .as_ref()
            .is_some_and(|mind| mind.saga.state == SagaState::RollingBack);
        if message.phase == Phase::Action && rolls_back && !is_doubled {
            choices.push(Choice::Answer { place, said: Said::Withdrawn });
        }
    }

    fn about_store(&self, slot: usize, choices: &mut Vec<Choice>) {
        if self.appends[slot].is_some() {
            choices.push(Choice::Commit { slot });
            let heard = self.minds[slot].as_ref().is_some_and(super::shell::Mind::is_writing);
            if self.left.unknowns > 0 && heard {
                choices.push(Choice::CommitUnheard { slot });
            }
        }
    }

    fn about_mind(&self, slot: usize, choices: &mut Vec<Choice>) {
        let Some(mind) = &self.minds[slot] else { return };
        let (left, is_owner) = (&self.left, self.is_owner(slot));
        if mind.ahead.as_ref().is_some_and(|ahead| ahead.writing == Writing::Durable) {
            choices.push(Choice::Told { slot });
            if left.freezes > 0 {
                choices.push(Choice::ToldAndFreezes { slot });
            }
        }
        if mind.frozen.is_some() && !mind.is_writing() {
            choices.push(Choice::Thaw { slot });
            // One that is not sure of its lease calls nobody, and listens to people all the same.
            if is_owner {
                self.about_cancelling(slot, choices);
            }
        }
        // One that is behind the times changes nothing by dying.
        if left.crashes > 0 && (is_owner || mind.is_writing()) {
            choices.push(Choice::Crash { slot });
        }
        if left.hand_overs > 0
            && is_owner
            && !mind.is_writing()
            && !mind.is_calling()
            && !mind.saga.state.is_at_rest()
        {
            choices.push(Choice::HandOver { slot });
        }
        if mind.listens() {
            for (place, out) in mind.out.iter().enumerate() {
                let reply = self.message_of(slot, out.call).and_then(|at| self.messages[at].said);
                if !out.answered && (left.faults > 0 || reply.is_some()) {
                    choices.push(Choice::Timeout { slot, place });
                }
            }
            if is_owner {
                self.about_owner(slot, choices);
            }
        }
    }

    /// What comes in at the coordinator that drives the saga.
    fn about_owner(&self, slot: usize, choices: &mut Vec<Choice>) {
        let Some(mind) = &self.minds[slot] else { return };
        let (saga, left) = (&mind.saga, &self.left);
        for (place, (_, state)) in saga.signals.iter().enumerate() {
            if *state == SignalState::Pending {
                choices.push(Choice::Report { slot, place, delivered: true });
                choices.push(Choice::Report { slot, place, delivered: false });
            }
        }
        // While another has read the journal and not written yet, no time passes that it would not allow for.
        if self.minds[1 - slot].as_ref().is_none_or(|other| !other.is_writing()) {
            if self.wake_at(mind).is_some() {
                choices.push(Choice::Wake { slot });
            }
            let deadline = saga.started.deadline;
            if deadline.is_some_and(|at| at > self.now) && saga.state == SagaState::Running {
                choices.push(Choice::Deadline { slot });
            }
        }
        self.about_cancelling(slot, choices);
        if left.operators > 0 && !saga.state.is_final() && mind.ahead.is_none() {
            for step in (0..saga.branches.len()).filter(|step| saga.needs_person(*step)) {
                self.about_person(slot, step, choices);
            }
        }
    }

    fn about_cancelling(&self, slot: usize, choices: &mut Vec<Choice>) {
        let Some(mind) = self.minds[slot].as_ref().filter(|_| self.left.cancels > 0) else { return };
        let decided = mind.ahead.as_ref().map_or(&mind.saga, |ahead| &ahead.saga);
        let cancel = Input::Cancel { by: String::new(), reason: String::new() };
        if decide(decided, self.now, cancel).is_ok_and(|events| !events.is_empty()) {
            choices.push(Choice::Cancel { slot });
        }
    }

    /// What a person who has looked at the books may truthfully say.
    fn about_person(&self, slot: usize, step: usize, choices: &mut Vec<Choice>) {
        let (plan, books) = (&self.definition.steps[step], &self.books[step]);
        if self.durable.branches[step].state == BranchState::Stuck {
            choices.push(Choice::Retry { slot, step });
            choices.push(Choice::Resolve { slot, step, resolution: Resolution::Undone });
            return;
        }
        choices.push(Choice::Resolve { slot, step, resolution: Resolution::TookEffect });
        // Sending a thing again blindly is a person's own risk, so this one looks first.
        if plan.doubt != DoubtPolicy::Person || books.effect == 0 {
            choices.push(Choice::Retry { slot, step });
        }
        if plan.kind == StepKind::Pivot && books.effect == 0 {
            choices.push(Choice::Resolve { slot, step, resolution: Resolution::NoEffect });
        }
    }

    /// Another has it, or is about to, as far as the store tells.
    pub(super) fn is_contested(&self, slot: usize) -> bool {
        self.has_it(1 - slot)
    }

    fn has_it(&self, slot: usize) -> bool {
        let may_win = |append: &super::Append| append.expected == self.durable.seq;
        self.is_owner(slot)
            || (self.minds[slot].is_some() && self.appends[slot].as_ref().is_some_and(may_win))
    }

    fn may_take_over(&self, slot: usize) -> bool {
        let wanted = !self.durable.state.is_final() && !self.has_it(slot);
        wanted && (!self.is_contested(slot) || self.left.takeovers > 0)
    }

    /// What happens, for people. To be called before it happens.
    pub(super) fn tell(&self, choice: Choice) -> String {
        let who = |slot: usize| self.ids[slot].as_str();
        let name = |step: usize| self.definition.steps[step].name.as_str();
        let message = |place: usize| {
            let m = &self.messages[place];
            format!("{} {} #{}", name(m.step), m.phase.as_str(), m.attempt)
        };
        match choice {
            Choice::Answer { place, said } => {
                let to = self.messages[place].sender.map_or("nobody", who);
                format!("{} answers {to}: {said:?}", message(place))
            }
            Choice::Serve { place, does_it } => {
                let does = if does_it { "is served" } else { "is refused" };
                format!("{} arrives and {does}; nobody hears of it yet", message(place))
            }
            Choice::Timeout { slot, place } => {
                let call = self.minds[slot].as_ref().map(|mind| mind.out[place].call);
                let what = call.map(|call| format!("{} {}", name(call.step), call.phase.as_str()));
                format!("{} waits no longer for {}", who(slot), what.unwrap_or_default())
            }
            Choice::Double { place } => format!("{} is doubled on its way", message(place)),
            Choice::Commit { slot } => format!("the store takes {}'s append, if it is the next", who(slot)),
            Choice::CommitUnheard { slot } => {
                format!("the store takes {}'s append, if it is the next, and the answer is lost", who(slot))
            }
            Choice::Told { slot } => format!("{} hears that its append is durable, and goes on", who(slot)),
            Choice::ToldAndFreezes { slot } => {
                format!("{} hears that its append is durable, and freezes before it calls", who(slot))
            }
            Choice::Thaw { slot } => format!("{} wakes and sends what it was about to send", who(slot)),
            Choice::Crash { slot } => format!("{} dies", who(slot)),
            Choice::TakeOver { slot } => format!("{} reads the journal and takes over", who(slot)),
            Choice::HandOver { slot } => format!("{} lets go in order", who(slot)),
            Choice::Wake { slot } => format!("{}'s timer", who(slot)),
            Choice::Deadline { slot } => format!("the deadline passes at {}", who(slot)),
            Choice::Cancel { slot } => format!("somebody cancels at {}", who(slot)),
            Choice::Retry { slot, step } => format!("an operator has {} retry {}", who(slot), name(step)),
            Choice::Resolve { slot, step, resolution } => {
                format!("an operator resolves {} at {}: {}", name(step), who(slot), resolution.as_str())
            }
            Choice::Report { slot, place: _, delivered: true } => {
                format!("{} has told a listener", who(slot))
            }
            Choice::Report { slot, place: _, delivered: false } => {
                format!("{} could not tell a listener", who(slot))
            }
        }
    }
}
