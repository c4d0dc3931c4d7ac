//! Sagas told turn by turn, the way a coordinator's runner goes: input, `decide`, append, `apply`, `agenda`.
//!
//! # Invariants
//! * A turn does what `engine/runner/mod.rs` does with the core, no more and no less: a saga ahead of the one on disk,
//!   successes that ride along, the agenda read anew after each append.

use crate::bank;
use crate::{Broken, Entry, require};
use backstop_core::{
    Agenda, Answer, Call, Code, CoordinatorId, Definition, DefinitionSpec, Details, Event, Evidence,
    FieldViolation, Input, Outcome, Phase, Saga, SagaId, SagaState, Seq, Start, StepName, Timestamp, agenda,
    apply, can_ride_along, decide, replay, start,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const CASES: &[Entry] = &[
    ("core/concurrent_three", "a saga of three concurrent branches, from its start to its end", || {
        whole_story(&bank::three(), None, SagaState::Succeeded)
    }),
    ("core/failing_three", "the same, but the third branch refuses, and two are compensated", || {
        whole_story(&bank::three(), Some(2), SagaState::RolledBack)
    }),
    ("core/diamond_of_eight", "one branch, then six at once, then one", || {
        whole_story(&bank::diamond(), None, SagaState::Succeeded)
    }),
    ("core/replay_three", "the saga of three branches, made of its journal as a successor does", || {
        let told = Teller::new(&bank::three(), None)?.tell()?;
        let (id, definition) = (told.saga.id.clone(), Arc::clone(&told.saga.definition));
        let journal: Vec<Event> = told.written.into_iter().flat_map(|append| append.events).collect();
        replay(id.clone(), Arc::clone(&definition), &journal).map_err(Broken::by)?;
        Ok(Box::new(move || {
            let _ = black_box(replay(id.clone(), Arc::clone(&definition), black_box(&journal)));
        }))
    }),
];

/// All the time in the world of a story; nothing in it waits.
const NOW: Timestamp = Timestamp(1_750_000_000_000_000);
const CALL_TAKES: Duration = Duration::from_micros(731);
/// A story with more rounds of calls than this goes in circles.
const ROUNDS_MAX: usize = 16;

fn whole_story(spec: &DefinitionSpec, refuses: Option<usize>, end: SagaState) -> Result<crate::Run, Broken> {
    let teller = Teller::new(spec, refuses)?;
    require(teller.tell()?.saga.state == end, "the saga ends otherwise")?;
    Ok(Box::new(move || {
        let _ = black_box(teller.tell());
    }))
}

/// All that a story begins with.
pub(crate) struct Teller {
    id: SagaId,
    definition: Arc<Definition>,
    start: Start,
    refuses: Option<usize>,
    reply: Bytes,
}

/// One append, and the saga after it.
pub(crate) struct Written {
    pub(crate) expected: Seq,
    pub(crate) events: Vec<Event>,
    pub(crate) saga: Arc<Saga>,
}

/// A saga in the middle of its story.
pub(crate) struct Story<'t> {
    teller: &'t Teller,
    /// As it is on disk.
    pub(crate) saga: Arc<Saga>,
    pub(crate) picture: Agenda,
    pub(crate) written: Vec<Written>,
    /// Decided and not on disk yet.
    ahead: Option<(Saga, Vec<Event>)>,
}

/// A saga that has come to its end.
pub(crate) struct Told {
    pub(crate) saga: Arc<Saga>,
    pub(crate) written: Vec<Written>,
}

impl Teller {
    /// Tells sagas of this definition in which the action of that step, if any, is refused.
    pub(crate) fn new(spec: &DefinitionSpec, refuses: Option<usize>) -> Result<Self, Broken> {
        let input = serde_json::json!({
            "from": "DE02120300000000202051", "to": "DE02500105170137075030", "amount_minor": "125000",
            "currency": "EUR", "reference": "invoice 2025-0117",
        });
        Self::with_input(spec, refuses, &input)
    }

    pub(crate) fn with_input(
        spec: &DefinitionSpec,
        refuses: Option<usize>,
        input: &serde_json::Value,
    ) -> Result<Self, Broken> {
        let payload = |step: &str| {
            let name = StepName::parse(step).map_err(Broken::by)?;
            Ok((
                name,
                Bytes::from_static(b"\x0a\x0apay-000017\x12\x16DE02120300000000202051\x18\xc8\xd0\x07"),
            ))
        };
        let start = Start {
            coordinator: CoordinatorId::parse("c-0192f0c8-7a31-7c4e-9f0b-000000000001")
                .map_err(Broken::by)?,
            input: input.to_string().into(),
            payloads: backstop_rpc::participants::payload_steps(spec)
                .map(payload)
                .collect::<Result<_, _>>()?,
            labels: BTreeMap::from([("channel".to_owned(), "online".to_owned())]),
            trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned()),
        };
        Ok(Self {
            id: SagaId::parse("0192f0c8-7a31-7c4e-9f0b-5d2f6b1e8a43").map_err(Broken::by)?,
            definition: bank::definition(spec)?,
            start,
            refuses,
            reply: bank::reply(),
        })
    }

    /// The first event, and the calls that follow from it.
    pub(crate) fn begin(&self) -> Result<Story<'_>, Broken> {
        let first = start(&self.definition, NOW, self.start.clone());
        let saga = replay(self.id.clone(), Arc::clone(&self.definition), std::slice::from_ref(&first));
        let saga = Arc::new(saga.map_err(Broken::by)?);
        let picture = agenda(&saga, NOW);
        let written = vec![Written { expected: Seq(0), events: vec![first], saga: Arc::clone(&saga) }];
        Ok(Story { teller: self, saga, picture, written, ahead: None })
    }

    /// A whole saga.
    pub(crate) fn tell(&self) -> Result<Told, Broken> {
        let mut story = self.begin()?;
        for _ in 0..ROUNDS_MAX {
            if story.saga.state.is_at_rest() {
                return Ok(Told { saga: story.saga, written: story.written });
            }
            story.round()?;
        }
        Err(Broken::new("the saga comes to no end"))
    }
}

impl Story<'_> {
    /// Every call that is out now is answered, one after the other.
    pub(crate) fn round(&mut self) -> Result<(), Broken> {
        for call in self.picture.calls.clone() {
            let outcome = self.outcome_of(&call);
            self.turn(Input::Answer(Answer {
                step: call.step,
                phase: call.phase,
                attempt: call.attempt,
                sent_clock: call.clock,
                peer_clock: None,
                elapsed: CALL_TAKES,
                outcome,
            }))?;
        }
        Ok(())
    }

    fn outcome_of(&self, call: &Call) -> Outcome {
        if call.phase != Phase::Action || self.teller.refuses != Some(call.step) {
            return Outcome::Done(self.teller.reply.clone());
        }
        let violation = FieldViolation {
            field: "account".to_owned(),
            description: "is closed since 2024-11-30".to_owned(),
        };
        let details = Details {
            reason: Some("FIN-40017".to_owned()),
            domain: Some("ledger.bank".to_owned()),
            field_violations: vec![violation],
            ..Details::default()
        };
        Outcome::Failed {
            evidence: Evidence::ParticipantSaid(Code::FailedPrecondition),
            message: "the account is closed".to_owned(),
            details,
            pushback: None,
        }
    }

    fn turn(&mut self, input: Input) -> Result<(), Broken> {
        let (mut saga, mut events) =
            self.ahead.take().unwrap_or_else(|| (Saga::clone(&self.saga), Vec::new()));
        let made = decide(&saga, NOW, input).map_err(Broken::by)?;
        for event in &made {
            apply(&mut saga, event).map_err(Broken::by)?;
        }
        events.extend(made);
        if can_ride_along(&self.saga, &saga, NOW) {
            self.ahead = Some((saga, events));
            return Ok(());
        }
        let expected = self.saga.seq;
        self.saga = Arc::new(saga);
        self.written.push(Written { expected, events, saga: Arc::clone(&self.saga) });
        self.picture = agenda(&self.saga, NOW);
        Ok(())
    }
}
