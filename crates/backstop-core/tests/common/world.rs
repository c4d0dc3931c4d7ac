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

pub(crate) use books::{Books, Said};

use super::plan::Plan;
use super::story::start_of;
use backstop_core::transcript::transcript;
use backstop_core::{
    Answer, BranchState, Call, CoordinatorId, Definition, DoubtPolicy, Event, EventKind, Input, Phase,
    Resolution, Saga, SagaId, SagaState, SignalState, StepKind, Timestamp, agenda, apply, can_ride_along,
    decide, replay, start,
};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
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

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The n-th call that is out ends like this.
    Answer(usize, Said),
    /// A call that was dropped: what it did to the books.
    Fate(Said),
    /// A straggler arrives; true if the participant would do it.
    Arrives(usize, bool),
    /// The saga's own timer.
    Wake,
    /// The deadline passes, whatever else is going on.
    Deadline,
    /// The coordinator dies; true if what was riding along dies with it.
    Crash(bool),
    /// The coordinator lets go in order. What was not sent yet is the next one's.
    HandOver,
    /// Somebody wants it undone.
    Cancel,
    /// An operator has a branch tried again.
    Retry(usize),
    /// An operator settles a branch, truthfully.
    Resolve(usize, Resolution),
    /// The n-th listener has been told, or not.
    Report(usize, bool),
}

/// What was reached, so that a test can prove that it tested.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) events: BTreeSet<&'static str>,
    pub(crate) branch_states: BTreeSet<BranchState>,
    pub(crate) saga_states: BTreeSet<SagaState>,
    /// The last event before each crash.
    pub(crate) crashed_after: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
        self.branch_states.extend(other.branch_states);
        self.saga_states.extend(other.saga_states);
        for (kind, crashes) in other.crashed_after {
            *self.crashed_after.entry(kind).or_default() += crashes;
        }
    }
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

    /// All that may happen next; empty only once the saga has ended and every word has been said.
    pub(crate) fn enabled(&self) -> Vec<Choice> {
        if let Some(call) = self.dropped.first() {
            return self.books[call.step].fates(call.phase, self.left.stragglers).map(Choice::Fate).collect();
        }
        let mut choices = Vec::new();
        for (place, call) in self.out.iter().enumerate() {
            let rolling_back = self.saga.state == SagaState::RollingBack;
            let said = self.books[call.step].answers(call.phase, &self.left, rolling_back);
            choices.extend(said.into_iter().map(|said| Choice::Answer(place, said)));
        }
        for (place, (_, state)) in self.saga.signals.iter().enumerate() {
            if *state == SignalState::Pending {
                choices.extend([Choice::Report(place, true), Choice::Report(place, false)]);
            }
        }
        for (step, books) in self.books.iter().enumerate() {
            if books.travels {
                choices.extend([Choice::Arrives(step, true), Choice::Arrives(step, false)]);
            }
            if self.saga.needs_person(step) && self.left.operators > 0 && !self.saga.state.is_final() {
                choices.extend(self.operator_choices(step));
            }
        }
        let picture = agenda(&self.saga, self.now);
        if picture.wake_at.is_some() {
            choices.push(Choice::Wake);
        }
        let deadline = self.saga.started.deadline;
        if deadline.is_some_and(|at| at > self.now) && self.saga.state == SagaState::Running {
            choices.push(Choice::Deadline);
        }
        if self.left.crashes > 0 {
            choices.push(Choice::Crash(false));
            if self.durable_len < self.journal.len() {
                choices.push(Choice::Crash(true));
            }
        }
        if self.left.hand_overs > 0 {
            choices.push(Choice::HandOver);
        }
        if self.left.cancels > 0 && !self.saga.state.is_final() {
            choices.push(Choice::Cancel);
        }
        choices
    }

    /// What a person who has looked at the books may truthfully say.
    fn operator_choices(&self, step: usize) -> Vec<Choice> {
        let (plan, books) = (&self.saga.definition.steps[step], &self.books[step]);
        match self.saga.branches[step].state {
            BranchState::Stuck => vec![Choice::Retry(step), Choice::Resolve(step, Resolution::Undone)],
            BranchState::InDoubt | BranchState::Failed => {
                let mut choices = vec![Choice::Resolve(step, Resolution::TookEffect)];
                // Sending a thing again blindly is a person's own risk, so this one looks first.
                if plan.doubt != DoubtPolicy::Person || books.effect == 0 {
                    choices.push(Choice::Retry(step));
                }
                if plan.kind == StepKind::Pivot && books.effect == 0 {
                    choices.push(Choice::Resolve(step, Resolution::NoEffect));
                }
                choices
            }
            BranchState::Pending
            | BranchState::Running
            | BranchState::Succeeded
            | BranchState::Compensating
            | BranchState::Compensated
            | BranchState::Skipped
            | BranchState::Resolved => self.broken("this branch waits for a person"),
        }
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

    fn take_in(&mut self, call: Call, outcome: backstop_core::Outcome, seen: &mut Coverage) {
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

    /// What the future can depend on, and nothing else: instants and clocks only by their order, attempts
    /// only as far as they count.
    pub(crate) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash_saga(&self.saga, &mut hasher);
        if self.durable_len < self.journal.len() {
            self.hash_saga(&self.durable, &mut hasher);
        }
        self.books.hash(&mut hasher);
        for calls in [&self.out, &self.dropped] {
            calls.len().hash(&mut hasher);
            calls.iter().for_each(|call| (call.step, call.phase).hash(&mut hasher));
        }
        self.left.hash(&mut hasher);
        hasher.finish()
    }

    fn hash_saga(&self, saga: &Saga, hasher: &mut DefaultHasher) {
        (saga.state, self.durable_len == self.journal.len()).hash(hasher);
        saga.cause.as_ref().map(|cause| backstop_core::transcript::cause_text(cause)).hash(hasher);
        saga.started.deadline.is_some_and(|at| at <= self.now).hash(hasher);
        saga.signals.iter().for_each(|(_, state)| state.hash(hasher));
        let rank = |settled| saga.branches.iter().filter(|other| other.settled < settled).count();
        let progress_of = |b: &backstop_core::Branch| [b.action, b.query, b.compensation];
        let waits: Vec<_> = saga.branches.iter().flat_map(progress_of).filter_map(|p| p.not_before).collect();
        for b in &saga.branches {
            (b.state, b.asking, b.doubt, b.resolution, rank(b.settled)).hash(hasher);
            b.failure.as_ref().map(|failure| failure.evidence).hash(hasher);
            for p in progress_of(b) {
                (p.attempts - p.forgiven, p.refusals).hash(hasher);
                let later = p.not_before.filter(|at| *at > self.now);
                later.map(|at| waits.iter().filter(|w| **w > self.now && **w < at).count()).hash(hasher);
            }
        }
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

/// The name of an event's kind. A new kind must be named here, and reached by the explorer.
pub(crate) fn kind_name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Started(_) => "Started",
        EventKind::Adopted { .. } => "Adopted",
        EventKind::Released => "Released",
        EventKind::ActionSucceeded { .. } => "ActionSucceeded",
        EventKind::ActionFailed { .. } => "ActionFailed",
        EventKind::QueryAnswered { .. } => "QueryAnswered",
        EventKind::QueryFailed { .. } => "QueryFailed",
        EventKind::RollbackDecided { .. } => "RollbackDecided",
        EventKind::CompensationSucceeded { .. } => "CompensationSucceeded",
        EventKind::CompensationFailed { .. } => "CompensationFailed",
        EventKind::SignalReported { .. } => "SignalReported",
        EventKind::InterventionOpened => "InterventionOpened",
        EventKind::BranchRetried { .. } => "BranchRetried",
        EventKind::BranchResolved { .. } => "BranchResolved",
        EventKind::Succeeded => "Succeeded",
        EventKind::RolledBack => "RolledBack",
    }
}

/// Every kind but `Started`, which no turn makes.
pub(crate) const KINDS_OF_TURNS: [&str; 15] = [
    "Adopted",
    "Released",
    "ActionSucceeded",
    "ActionFailed",
    "QueryAnswered",
    "QueryFailed",
    "RollbackDecided",
    "CompensationSucceeded",
    "CompensationFailed",
    "SignalReported",
    "InterventionOpened",
    "BranchRetried",
    "BranchResolved",
    "Succeeded",
    "RolledBack",
];
