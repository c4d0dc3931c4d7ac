//! A saga told by hand: each line feeds one input and checks what any turn must keep.
//!
//! # Invariants
//! * Only calls on the agenda are answered: a story cannot tell what the rules would not let happen.
//! * After every turn the journal replays to the live saga.
//!
//! # Not here
//! Participants with books of their own: `world`.

use super::plan::Plan;
use backstop_core::failure::Pushback;
use backstop_core::{
    Agenda, Answer, Call, Clock, Code, CoordinatorId, Details, Event, Evidence, Input, NoAnswer, Outcome,
    Phase, Refused, Resolution, Saga, SagaId, SagaState, Start, StepName, Timestamp, agenda, apply, decide,
    replay, start, transcript::transcript,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long every call takes in a story.
const CALL_TAKES: Duration = Duration::from_millis(10);

pub(crate) struct Story {
    pub(crate) saga: Saga,
    pub(crate) journal: Vec<Event>,
    pub(crate) now: Timestamp,
    /// Replay after each turn; a story of hundreds of turns does it once, at the end.
    replays_each_turn: bool,
}

impl Story {
    pub(crate) fn start_unchecked(plan: &Plan) -> Self {
        Self { replays_each_turn: false, ..Self::start(plan) }
    }

    pub(crate) fn start(plan: &Plan) -> Self {
        let definition = plan.build();
        let now = Timestamp(1_000_000);
        let first = start(&definition, now, start_of("a"));
        let saga = replay(SagaId::parse("pay-7").unwrap(), definition, std::slice::from_ref(&first)).unwrap();
        Self { saga, journal: vec![first], now, replays_each_turn: true }
    }

    /// A saga in the middle of its story.
    pub(crate) fn of(saga: Saga, journal: Vec<Event>, now: Timestamp) -> Self {
        Self { saga, journal, now, replays_each_turn: true }
    }

    /// One turn.
    pub(crate) fn input(&mut self, input: Input) -> Result<usize, Refused> {
        let events = decide(&self.saga, self.now, input)?;
        for event in &events {
            apply(&mut self.saga, event).unwrap();
        }
        let count = events.len();
        self.journal.extend(events);
        if self.replays_each_turn {
            self.replays();
        }
        Ok(count)
    }

    /// Checks that the journal replays to the live saga.
    pub(crate) fn replays(&self) {
        let again = replay(self.saga.id.clone(), Arc::clone(&self.saga.definition), &self.journal).unwrap();
        assert!(
            again == self.saga,
            "the journal replays to another saga than the live one:\n{}",
            self.told()
        );
    }

    pub(crate) fn agenda(&self) -> Agenda {
        agenda(&self.saga, self.now)
    }

    /// The call of a step that is out, or is awaited.
    #[track_caller]
    pub(crate) fn call(&self, step: &str) -> Call {
        let picture = self.agenda();
        let index = self.index(step);
        let mut out = picture.calls.iter().chain(&picture.awaited).filter(|call| call.step == index);
        *out.next().unwrap_or_else(|| panic!("no call of {step} is out: {picture:?}\n{}", self.told()))
    }

    pub(crate) fn index(&self, step: &str) -> usize {
        self.saga.definition.index_of(&name(step)).unwrap()
    }

    /// What comes back for a call that is out.
    #[track_caller]
    pub(crate) fn answer_of(&self, step: &str, outcome: Outcome) -> Answer {
        let Call { step, phase, attempt, clock } = self.call(step);
        Answer { step, phase, attempt, sent_clock: clock, peer_clock: None, elapsed: CALL_TAKES, outcome }
    }

    #[track_caller]
    fn answered(&mut self, step: &str, outcome: Outcome) {
        self.now = self.now.plus(CALL_TAKES);
        let answer = self.answer_of(step, outcome);
        assert_ne!(self.input(Input::Answer(answer.clone())).unwrap(), 0, "the answer of {step} is news");
        assert_eq!(self.input(Input::Answer(answer)), Ok(0), "and news only once");
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, step: &str) {
        let reply = format!("{step} is done");
        self.answered(step, Outcome::Done(Bytes::from(reply)));
    }

    #[track_caller]
    pub(crate) fn fails(&mut self, step: &str, evidence: Evidence) {
        self.answered(step, failed(evidence, "", Details::default(), None));
    }

    /// The participant itself says so.
    #[track_caller]
    pub(crate) fn says(&mut self, step: &str, code: Code, message: &str) {
        self.answered(step, failed(Evidence::ParticipantSaid(code), message, Details::default(), None));
    }

    #[track_caller]
    pub(crate) fn says_with(&mut self, step: &str, code: Code, details: Details, pushback: Option<Pushback>) {
        self.answered(step, failed(Evidence::ParticipantSaid(code), "", details, pushback));
    }

    #[track_caller]
    pub(crate) fn times_out(&mut self, step: &str) {
        self.fails(step, Evidence::NoAnswer(NoAnswer::Deadline));
    }

    /// Nothing happens until the saga itself wants a turn; then it has one.
    #[track_caller]
    pub(crate) fn later(&mut self) {
        let at = self.agenda().wake_at.unwrap_or_else(|| panic!("nothing wakes it\n{}", self.told()));
        self.now = self.now.max(at);
        self.input(Input::Wake).unwrap();
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    /// The store's clock goes back.
    pub(crate) fn back(&mut self, time: Duration) {
        self.now = Timestamp(self.now.0 - i64::try_from(time.as_micros()).unwrap());
    }

    pub(crate) fn crash(&mut self) {
        self.adopt("b", false);
    }

    pub(crate) fn hand_over(&mut self) {
        self.input(Input::Release).unwrap();
        self.adopt("b", true);
    }

    fn adopt(&mut self, coordinator: &str, handed_over: bool) {
        let coordinator = CoordinatorId::parse(coordinator).unwrap();
        self.input(Input::Adopt { coordinator, handed_over }).unwrap();
    }

    pub(crate) fn cancel(&mut self) -> Result<usize, Refused> {
        self.input(Input::Cancel { by: "ann".to_owned(), reason: "wrong account".to_owned() })
    }

    pub(crate) fn retry(&mut self, step: &str) -> Result<usize, Refused> {
        self.input(Input::RetryBranch { step: name(step), by: "ben".to_owned(), reason: "mended".to_owned() })
    }

    pub(crate) fn resolve(&mut self, step: &str, resolution: Resolution) -> Result<usize, Refused> {
        self.input(Input::ResolveBranch {
            step: name(step),
            by: "ben".to_owned(),
            reason: "looked at the books".to_owned(),
            resolution,
        })
    }

    /// Calls that should be out, and then those awaited, as `debit action #1`, `(debit action #1)`.
    pub(crate) fn calls(&self) -> Vec<String> {
        let picture = self.agenda();
        let text = |call: &Call| {
            let step = &self.saga.definition.steps[call.step].name;
            format!("{step} {} #{}", call.phase.as_str(), call.attempt)
        };
        let calls = picture.calls.iter().map(text);
        calls.chain(picture.awaited.iter().map(|call| format!("({})", text(call)))).collect()
    }

    pub(crate) fn told(&self) -> String {
        transcript(&self.journal)
    }

    /// Checks the whole transcript, after the line that every saga begins with.
    #[track_caller]
    pub(crate) fn tells(&self, expected: &str) {
        let expected: String =
            expected.trim().lines().map(|line| line.trim_start().to_owned() + "\n").collect();
        let told = self.told();
        let actual = told.strip_prefix("0001 saga     started        transfer@1\n").unwrap();
        assert!(actual == expected, "told:\n{actual}\nexpected:\n{expected}");
    }

    #[track_caller]
    pub(crate) fn is(&self, state: SagaState) {
        assert_eq!(self.saga.state, state, "\n{}", self.told());
        if state.is_final() {
            assert_eq!(self.calls(), Vec::<String>::new(), "an ended saga calls nobody");
        }
    }
}

pub(crate) fn name(step: &str) -> StepName {
    StepName::parse(step).unwrap()
}

pub(crate) fn failed(
    evidence: Evidence,
    message: &str,
    details: Details,
    pushback: Option<Pushback>,
) -> Outcome {
    Outcome::Failed { evidence, message: message.to_owned(), details, pushback }
}

pub(crate) fn start_of(coordinator: &str) -> Start {
    Start {
        coordinator: CoordinatorId::parse(coordinator).unwrap(),
        input: Bytes::from_static(b"{}"),
        payloads: BTreeMap::new(),
        labels: BTreeMap::new(),
        trace_parent: None,
    }
}

/// A phase as a short word, for messages of tests.
pub(crate) fn phase(call: &Call) -> &'static str {
    let phase: Phase = call.phase;
    phase.as_str()
}

/// A clock well above any that a story reaches.
pub(crate) const FAR_CLOCK: Clock = Clock(1000);
