//! Plays a definition through without calling anybody: what would be called, in which order, and how the
//! saga would end, for each way in which each step can fail.
//!
//! The same [`crate::decide()`], [`crate::apply()`] and [`crate::agenda()`] as in earnest, with participants
//! that answer by a script and a clock that jumps.

use crate::agenda::{Call, agenda};
use crate::apply::{apply, begin};
use crate::decide::{Answer, Input, Outcome, Start, decide, start};
use crate::definition::DefinitionSpec;
use crate::event::Event;
use crate::failure::Details;
use crate::graph::Definition;
use crate::ids::{CoordinatorId, ParticipantName, Phase, SagaId, StepName};
use crate::saga::{Saga, SagaState};
use crate::status::{Code, Evidence, NoAnswer};
use crate::time::Timestamp;
use crate::transcript::transcript;
use crate::validate::ParticipantTraits;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Turns after which a run is taken as it stands; the longest real one, 256 steps that use up every attempt
/// and are undone, needs some thousands.
const TURNS_MAX: usize = 20_000;

/// What is tried without end is let fail this often before its participant is back.
const OUTAGE_ATTEMPTS: u32 = 3;

/// What fails in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Nothing,
    /// The step's action is refused.
    Refused,
    /// The step's participant never answers, whether called or asked; one that is tried without end (a
    /// RETRIABLE step's) answers after some attempts.
    NoAnswer,
    /// The step's action fails internally.
    Internal,
    /// A later step is refused, and so is this step's compensation.
    CompensationRefused,
}

/// One way to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The step that fails.
    pub step: Option<StepName>,
    /// How.
    pub fault: Fault,
    /// How the saga ends.
    pub end_state: SagaState,
    /// What was called, in order: `debit/action`, `debit/action #2`.
    pub calls: Vec<String>,
    /// The journal, a line each.
    pub transcript: Vec<String>,
}

impl Run {
    /// `debit: NO_ANSWER` if this failure point needs a person.
    #[must_use]
    pub fn intervention(&self) -> Option<String> {
        let step = self.step.as_ref().filter(|_| self.end_state == SagaState::NeedsIntervention)?;
        let fault = match self.fault {
            Fault::Nothing => "NOTHING",
            Fault::Refused => "REFUSED",
            Fault::NoAnswer => "NO_ANSWER",
            Fault::Internal => "INTERNAL",
            Fault::CompensationRefused => "COMPENSATION_REFUSED",
        };
        Some(format!("{step}: {fault}"))
    }
}

/// Adds participants that a definition names and nobody has registered, as plain ones: a definition can be
/// played through before its services exist.
pub fn assume_participants(spec: &DefinitionSpec, traits: &mut BTreeMap<ParticipantName, ParticipantTraits>) {
    for step in &spec.steps {
        for name in step.calls().filter_map(|(_, call)| ParticipantName::parse(&call.participant).ok()) {
            traits.entry(name).or_default();
        }
    }
}

/// Every run: the one in which all succeeds, then each step with each fault that it can have.
#[must_use]
pub fn simulate(definition: &Arc<Definition>) -> Vec<Run> {
    let mut runs = vec![play(definition, None, Fault::Nothing)];
    for (index, step) in definition.steps.iter().enumerate() {
        for fault in [Fault::Refused, Fault::NoAnswer, Fault::Internal] {
            runs.push(play(definition, Some(index), fault));
        }
        if step.is_compensatable() && fails_after(definition, index).is_some() {
            runs.push(play(definition, Some(index), Fault::CompensationRefused));
        }
    }
    runs
}

/// The step whose refusal makes the saga roll back after this one has succeeded.
fn fails_after(definition: &Definition, index: usize) -> Option<usize> {
    let before = &definition.steps[index].ancestors;
    definition.pivot.or_else(|| {
        (0..definition.steps.len()).rev().find(|other| *other != index && !before.contains(*other))
    })
}

struct Script {
    step: Option<usize>,
    fault: Fault,
    /// For [`Fault::CompensationRefused`]: the step that is refused.
    refused: Option<usize>,
    /// The step that fails is tried without end.
    is_endless: bool,
}

impl Script {
    fn outcome(&self, call: &Call) -> Outcome {
        let failed = |evidence: Evidence| Outcome::Failed {
            evidence,
            message: String::new(),
            details: Details::default(),
            pushback: None,
        };
        let concerned = self.step == Some(call.step);
        match (self.fault, call.phase) {
            (Fault::Refused, Phase::Action) if concerned => {
                failed(Evidence::ParticipantSaid(Code::FailedPrecondition))
            }
            (Fault::NoAnswer, Phase::Action | Phase::Query)
                if concerned && !(self.is_endless && call.attempt > OUTAGE_ATTEMPTS) =>
            {
                failed(Evidence::NoAnswer(NoAnswer::Deadline))
            }
            (Fault::Internal, Phase::Action) if concerned => {
                failed(Evidence::ParticipantSaid(Code::Internal))
            }
            (Fault::CompensationRefused, Phase::Compensation) if concerned => {
                failed(Evidence::ParticipantSaid(Code::FailedPrecondition))
            }
            (Fault::CompensationRefused, Phase::Action) if self.refused == Some(call.step) => {
                failed(Evidence::ParticipantSaid(Code::FailedPrecondition))
            }
            (
                Fault::Nothing
                | Fault::Refused
                | Fault::NoAnswer
                | Fault::Internal
                | Fault::CompensationRefused,
                Phase::Action | Phase::Query | Phase::Compensation,
            ) => Outcome::Done(Bytes::new()),
        }
    }

    /// Failures answer last, so that what runs beside them has succeeded and is seen to be undone.
    fn answers_late(&self, call: &Call) -> bool {
        matches!(self.outcome(call), Outcome::Failed { .. })
    }
}

fn play(definition: &Arc<Definition>, step: Option<usize>, fault: Fault) -> Run {
    let refused =
        step.filter(|_| fault == Fault::CompensationRefused).and_then(|s| fails_after(definition, s));
    let is_endless = step.is_some_and(|index| definition.steps[index].is_endless(Phase::Action));
    let script = Script { step, fault, refused, is_endless };
    let name = step.map(|index| definition.steps[index].name.clone());
    let mut run =
        Run { step: name, fault, end_state: SagaState::Running, calls: Vec::new(), transcript: Vec::new() };
    let Some((mut saga, first)) = first_event(definition) else {
        return run;
    };
    let mut events = vec![first];
    let mut now = Timestamp::default();
    let mut sent: BTreeSet<(usize, Phase, u32)> = BTreeSet::new();
    let mut waiting: Vec<Call> = Vec::new();
    for _ in 0..TURNS_MAX {
        let picture = agenda(&saga, now);
        for call in picture.calls {
            if sent.insert(call.identity()) {
                run.calls.push(describe(definition, &call));
                waiting.push(call);
            }
        }
        let next =
            waiting.iter().position(|call| !script.answers_late(call)).or((!waiting.is_empty()).then_some(0));
        let input = match (next, picture.signals.first(), picture.wake_at) {
            (Some(next), _, _) => {
                let call = waiting.remove(next);
                now = now.plus(Duration::from_millis(1));
                Input::Answer(answer(&call, script.outcome(&call)))
            }
            (None, Some(signal), _) => {
                Input::SignalReport { participant: signal.participant.clone(), attempts: 1, error: None }
            }
            (None, None, Some(wake_at)) => {
                now = now.max(wake_at);
                Input::Wake
            }
            (None, None, None) => break,
        };
        let decided = decide(&saga, now, input).unwrap_or_default();
        if !decided.iter().all(|event| apply(&mut saga, event).is_ok()) {
            break;
        }
        events.extend(decided);
    }
    run.end_state = saga.state;
    run.transcript = transcript(&events).lines().map(str::to_owned).collect();
    run
}

fn first_event(definition: &Arc<Definition>) -> Option<(Saga, Event)> {
    let id = SagaId::parse("simulation").ok()?;
    let first = start(
        definition,
        Timestamp::default(),
        Start {
            coordinator: CoordinatorId::parse("simulation").ok()?,
            input: Bytes::from_static(b"{}"),
            payloads: BTreeMap::new(),
            labels: BTreeMap::new(),
            trace_parent: None,
        },
    );
    let saga = begin(id, Arc::clone(definition), &first).ok()?;
    Some((saga, first))
}

fn answer(call: &Call, outcome: Outcome) -> Answer {
    Answer {
        step: call.step,
        phase: call.phase,
        attempt: call.attempt,
        sent_clock: call.clock,
        peer_clock: None,
        elapsed: Duration::from_millis(1),
        outcome,
    }
}

fn describe(definition: &Definition, call: &Call) -> String {
    let name = format!("{}/{}", definition.steps[call.step].name, call.phase.as_str());
    if call.attempt == 1 { name } else { format!("{name} #{}", call.attempt) }
}
