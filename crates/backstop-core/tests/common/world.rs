//! A saga among participants whose books are the truth, driven by choices: what an explorer enumerates and
//! a random walk picks from.
//!
//! The coordinator here is as eager as the real one: after each turn all that is on the agenda is out.
//! Sending later would add nothing, since a call that was not sent and a call that had no effect look the
//! same from either side.
//!
//! # Invariants
//! Every step of the world checks DESIGN 6 against the books (`check`): I1, I2, I4 to I9, I11. A broken one
//! panics with the transcript and the choices that led there.
//!
//! # Not here: the bound of this world
//! A plain participant's message never takes effect after its attempt has ended for the coordinator; what
//! such a straggler does after the compensation is the participant's matter (its barrier). Participants
//! that deduplicate have that barrier, and with [`Rules::stragglers`] their messages may arrive at any
//! later time. Which is why no plan asks (QUERY) where stragglers are on: an answer of a query is only as
//! good as the participant's fence.

mod books;
mod check;
mod choices;
mod coverage;
mod key;

pub(crate) use books::{Books, Said};
pub(crate) use choices::Choice;
use coverage::kind_name;
pub(crate) use coverage::{Coverage, KINDS_OF_TURNS};

use super::plan::Plan;
use super::story::start_of;
use backstop_core::transcript::transcript;
use backstop_core::{
    Answer, Call, CoordinatorId, Definition, Event, Input, Outcome, Phase, Saga, SagaId, Timestamp, agenda,
    apply, can_ride_along, decide, replay, start,
};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// As far as a coordinator that is gone may have run ahead of a timer; the rules' own margin.
const TIMER_MARGIN: Duration = Duration::from_secs(1);

/// What may go wrong, and how often.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Rules {
    /// Answers that are not plainly good.
    pub(crate) faults: u32,
    /// Coordinators that die.
    pub(crate) crashes: u32,
    /// Coordinators that hand over.
    pub(crate) hand_overs: u32,
    /// Requests to cancel.
    pub(crate) cancels: u32,
    /// Words of an operator.
    pub(crate) operators: u32,
    /// Messages to deduplicating participants may arrive after their attempt has ended.
    pub(crate) stragglers: bool,
    /// What an action may answer.
    pub(crate) actions: &'static [Said],
    /// What a compensation may answer.
    pub(crate) compensations: &'static [Said],
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) saga: Rc<Saga>,
    pub(crate) journal: Vec<Event>,
    pub(crate) now: Timestamp,
    pub(crate) trail: Vec<Choice>,
    /// The saga as a crash would leave it.
    durable: Rc<Saga>,
    durable_len: usize,
    books: Vec<Books>,
    out: Vec<Call>,
    /// Calls that were dropped and whose fate is open.
    dropped: Vec<Call>,
    left: Rules,
}

impl World {
    pub(crate) fn new(plan: &Plan, rules: Rules) -> Self {
        let definition: Arc<Definition> = plan.build();
        let now = Timestamp(0);
        let first = start(&definition, now, start_of("a"));
        let saga = replay(SagaId::parse("s").unwrap(), definition, std::slice::from_ref(&first)).unwrap();
        let saga = Rc::new(saga);
        let mut world = Self {
            books: saga.definition.steps.iter().map(Books::of).collect(),
            durable: Rc::clone(&saga),
            durable_len: 1,
            saga,
            journal: vec![first],
            now,
            trail: Vec::new(),
            out: Vec::new(),
            dropped: Vec::new(),
            left: rules,
        };
        world.dispatch(&mut Coverage::default());
        world
    }

    /// Lets it happen, and checks all that must hold.
    pub(crate) fn step(&mut self, choice: Choice, seen: &mut Coverage) {
        self.trail.push(choice);
        match choice {
            Choice::Answer(place, said) => self.answer(place, said, seen),
            Choice::Fate(said) => {
                let call = self.dropped.remove(0);
                self.execute(call, said);
            }
            Choice::Arrives(step, does_it) => self.arrives(step, does_it),
            Choice::Wake => {
                let at = agenda(&self.saga, self.now).wake_at.unwrap();
                self.now = self.now.max(at);
                self.turn(Input::Wake, true, seen);
            }
            Choice::Deadline => {
                self.now = self.saga.started.deadline.unwrap();
                // By then every retry that was due has gone out.
                self.dispatch(seen);
                self.turn(Input::Wake, true, seen);
            }
            Choice::Crash(loses_tail) => self.crash(loses_tail, seen),
            Choice::HandOver => self.hand_over(seen),
            Choice::Cancel => {
                self.left.cancels -= 1;
                let cancel = Input::Cancel { by: "ann".to_owned(), reason: String::new() };
                let refused = decide(&self.saga, self.now, cancel.clone()).err();
                self.check_cancel(refused);
                if refused.is_none() {
                    self.turn(cancel, true, seen);
                }
            }
            Choice::Retry(step) => {
                self.left.operators -= 1;
                let step = self.saga.definition.steps[step].name.clone();
                self.turn(Input::RetryBranch { step, by: "ben".into(), reason: String::new() }, true, seen);
            }
            Choice::Resolve(step, resolution) => {
                self.left.operators -= 1;
                self.books[step].settle_by_hand(resolution);
                let step = self.saga.definition.steps[step].name.clone();
                let by = "ben".to_owned();
                self.turn(Input::ResolveBranch { step, by, reason: String::new(), resolution }, true, seen);
            }
            Choice::Report(place, delivered) => {
                let participant = self.saga.signals[place].0.clone();
                let error = (!delivered).then(|| "down".to_owned());
                self.turn(Input::SignalReport { participant, attempts: 1, error }, false, seen);
            }
        }
        self.check();
    }

    fn answer(&mut self, place: usize, said: Said, seen: &mut Coverage) {
        let call = self.out.remove(place);
        if !self.books[call.step].is_free(call.phase, said) {
            self.left.faults -= 1;
        }
        self.execute(call, said);
        let outcome = said.outcome(self.saga.definition.steps[call.step].name.as_str(), call.attempt);
        self.take_in(call, outcome, seen);
    }

    fn take_in(&mut self, call: Call, outcome: Outcome, seen: &mut Coverage) {
        let Call { step, phase, attempt, clock } = call;
        let elapsed = Duration::from_millis(1);
        let answer = Answer { step, phase, attempt, sent_clock: clock, peer_clock: None, elapsed, outcome };
        self.turn(Input::Answer(answer.clone()), false, seen);
        let again = decide(&self.saga, self.now, Input::Answer(answer));
        if again != Ok(Vec::new()) {
            self.broken(&format!("a duplicate answer changed something: {again:?}"));
        }
    }

    fn crash(&mut self, loses_tail: bool, seen: &mut Coverage) {
        self.left.crashes -= 1;
        if loses_tail {
            self.journal.truncate(self.durable_len);
            self.saga = Rc::clone(&self.durable);
        }
        let last = self.journal.last().map_or("", |event| kind_name(&event.kind));
        *seen.crashed_after.entry(last).or_default() += 1;
        let picture = agenda(&self.saga, self.now.plus(TIMER_MARGIN));
        for call in picture.calls.iter().chain(&picture.awaited) {
            if call.phase != Phase::Compensation {
                self.books[call.step].may_have_been_sent();
            }
        }
        self.drop_calls(|_| true);
        self.adopt(false, seen);
    }

    fn hand_over(&mut self, seen: &mut Coverage) {
        self.left.hand_overs -= 1;
        for call in self.out.drain(..) {
            self.books[call.step].was_not_sent(call);
        }
        self.append(Input::Release, true, seen);
        self.adopt(true, seen);
    }

    fn adopt(&mut self, handed_over: bool, seen: &mut Coverage) {
        let coordinator = CoordinatorId::parse("b").unwrap();
        self.turn(Input::Adopt { coordinator, handed_over }, true, seen);
    }

    /// One turn: decide, append, apply, agenda.
    fn turn(&mut self, input: Input, urgent: bool, seen: &mut Coverage) {
        self.append(input, urgent, seen);
        self.dispatch(seen);
    }

    /// A turn without its last part. What is not urgent may wait for the next write.
    fn append(&mut self, input: Input, urgent: bool, seen: &mut Coverage) {
        let events = match decide(&self.saga, self.now, input.clone()) {
            Ok(events) => events,
            Err(refused) => self.broken(&format!("{input:?} is refused: {refused}")),
        };
        let before = Rc::clone(&self.saga);
        let mut saga = Saga::clone(&before);
        for event in events {
            if let Err(corrupt) = apply(&mut saga, &event) {
                self.broken(&corrupt.to_string());
            }
            seen.events.insert(kind_name(&event.kind));
            seen.saga_states.insert(saga.state);
            seen.branch_states.extend(saga.branches.iter().map(|branch| branch.state));
            self.journal.push(event);
        }
        self.saga = Rc::new(saga);
        self.check_turn(&before);
        if urgent || !can_ride_along(&before, &self.saga, self.now) {
            self.durable = Rc::clone(&self.saga);
            self.durable_len = self.journal.len();
        }
    }

    /// Brings what is going on in line with the agenda.
    fn dispatch(&mut self, seen: &mut Coverage) {
        let picture = agenda(&self.saga, self.now);
        self.check_signals(&picture);
        let wanted: Vec<_> = picture.calls.iter().chain(&picture.awaited).map(Call::identity).collect();
        self.drop_calls(|call| !wanted.contains(&call.identity()));
        let is_out = |world: &Self, call: &Call| world.out.iter().any(|o| o.identity() == call.identity());
        for call in picture.calls {
            if !is_out(self, &call) {
                self.check_send(call);
                self.note_request(call);
                self.books[call.step].sent(call);
                self.out.push(call);
            }
        }
        self.out.sort_by_key(Call::identity);
        if let Some(call) = picture.awaited.into_iter().find(|call| !is_out(self, call)) {
            self.take_in(call, Said::Withdrawn.outcome("", 0), seen);
        }
    }

    fn drop_calls(&mut self, is_dropped: impl Fn(&Call) -> bool) {
        for call in self.out.extract_if(.., |call| is_dropped(call)) {
            if call.phase == Phase::Action {
                self.books[call.step].may_have_been_sent();
            }
            // A question that nobody hears the answer of has changed nothing.
            if call.phase != Phase::Query {
                self.dropped.push(call);
            }
        }
    }

    /// Brings the saga to its end as a kind world and a patient person would; true if it ends in time.
    pub(crate) fn finish(&mut self, turns_max: usize, seen: &mut Coverage) -> bool {
        self.left.faults = 0;
        self.left.crashes = 0;
        self.left.hand_overs = 0;
        self.left.cancels = 0;
        for _ in 0..turns_max {
            self.left.operators = 1;
            let choices = self.enabled();
            let calm = |choice: &&Choice| !matches!(choice, Choice::Deadline);
            match choices.iter().find(calm) {
                Some(choice) => self.step(*choice, seen),
                None => return self.saga.state.is_final(),
            }
        }
        false
    }

    /// The step of the n-th call that is out.
    pub(crate) fn step_of(&self, place: usize) -> usize {
        self.out[place].step
    }

    pub(crate) fn told(&self) -> String {
        transcript(&self.journal)
    }

    /// A promise is broken: all that is known goes to the reader.
    pub(crate) fn broken(&self, what: &str) -> ! {
        panic!(
            "{what}\n\n{}\n{:#?}\nchoices: {:?}\nplan: {:?} {:?} {:?}",
            self.told(),
            self.books,
            self.trail,
            self.saga.definition.compensation_order,
            self.saga.definition.on_failure,
            self.saga.definition.steps.iter().map(|s| (s.kind, s.doubt, s.deduplicates)).collect::<Vec<_>>(),
        )
    }
}
