//! Sagas to put into a store: made by the core's own rules, so that their events and heads are real.

mod kinds;

pub use kinds::{HARD_TEXT, every_kind};

use crate::ports::store::{Append, Head};
use backstop_core::{
    Answer, CallSpec, Clock, CoordinatorId, Definition, DefinitionSpec, Details, Epoch, ErrorTable, Event,
    Evidence, Input, Outcome, ParticipantName, ParticipantTraits, Phase, Revision, Saga, SagaId, Seq, Start,
    StepKind, StepSpec, Timestamp, apply, decide, start, validate,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// When sample sagas start, unless told otherwise: 2023-11-14, in the past of every store's clock.
pub const LONG_AGO: Timestamp = Timestamp(1_700_000_000_000_000);

/// A saga id.
pub fn id(text: &str) -> SagaId {
    SagaId::parse(text).unwrap()
}

/// A coordinator's id.
pub fn coordinator(text: &str) -> CoordinatorId {
    CoordinatorId::parse(text).unwrap()
}

/// A definition of compensatable steps `s0`, `s1` … that all begin at once.
pub fn definition(name: &str, steps: usize) -> DefinitionSpec {
    let call = |method: &str| CallSpec {
        participant: "ledger".to_owned(),
        method: format!("bank.v1.Ledger/{method}"),
        ..CallSpec::default()
    };
    let step = |index: usize| StepSpec {
        name: format!("s{index}"),
        kind: StepKind::Compensatable,
        action: call("Debit"),
        compensation: Some(call("Undo")),
        ..StepSpec::default()
    };
    DefinitionSpec {
        name: name.to_owned(),
        steps: (0..steps).map(step).collect(),
        ..DefinitionSpec::default()
    }
}

/// A definition as the rules read it.
pub fn checked(spec: &DefinitionSpec) -> Arc<Definition> {
    let traits = ParticipantTraits { deduplicates_by_key: false, listens: true };
    let ledger = ParticipantName::parse("ledger").unwrap();
    let participants = BTreeMap::from([(ledger, traits)]);
    Arc::new(validate(spec, Revision(1), &participants, Arc::new(ErrorTable::default())).unwrap())
}

/// A saga in the hands of one coordinator. Each method decides, applies and answers the append that
/// a store is to write.
#[derive(Debug, Clone)]
pub struct Sample {
    /// As its journal has made it so far.
    pub saga: Saga,
    /// Who drives it, unless [`Sample::owned_by`] or [`Sample::parked`] said otherwise.
    pub owner: Option<CoordinatorId>,
    /// Of its head row.
    pub wake_at: Option<Timestamp>,
    /// Of its request.
    pub fingerprint: [u8; 32],
    now: Timestamp,
}

impl Sample {
    /// A saga of one step of `transfer`, driven by `c1`.
    pub fn start(saga: &str) -> (Self, Append) {
        Self::start_with(
            saga,
            &definition("transfer", 1),
            LONG_AGO,
            BTreeMap::new(),
            Bytes::from_static(b"{}"),
        )
    }

    /// A saga of any definition.
    pub fn start_with(
        saga: &str,
        spec: &DefinitionSpec,
        now: Timestamp,
        labels: BTreeMap<String, String>,
        input: Bytes,
    ) -> (Self, Append) {
        let definition = checked(spec);
        let begin = Start {
            coordinator: coordinator("c1"),
            input,
            payloads: BTreeMap::new(),
            labels,
            trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        };
        let event = start(&definition, now, begin);
        let saga = apply::begin(id(saga), definition, &event).unwrap();
        let mut fingerprint = [7; 32];
        fingerprint[0] = saga.id.as_str().len() as u8;
        let sample = Self { saga, owner: Some(coordinator("c1")), wake_at: None, fingerprint, now };
        let append = sample.append(Seq(0), vec![event]);
        (sample, append)
    }

    /// One turn, one millisecond after the last.
    pub fn turn(&mut self, input: Input) -> Append {
        self.now = self.now.plus(Duration::from_millis(1));
        let events = decide(&self.saga, self.now, input).unwrap();
        self.write(events)
    }

    /// The append of these events, which need not come of one turn.
    pub fn write(&mut self, events: Vec<Event>) -> Append {
        let expected = self.saga.seq;
        for event in &events {
            apply(&mut self.saga, event).unwrap();
        }
        if self.saga.state.is_final() {
            self.owner = None;
        }
        self.append(expected, events)
    }

    /// The action of a step answers OK with these bytes.
    pub fn succeed(&mut self, step: usize, response: &[u8]) -> Append {
        self.answer(step, Phase::Action, Outcome::Done(Bytes::copy_from_slice(response)))
    }

    /// A call of a step ends.
    pub fn answer(&mut self, step: usize, phase: Phase, outcome: Outcome) -> Append {
        let branch = &self.saga.branches[step];
        let progress = match phase {
            Phase::Action => branch.action,
            Phase::Query => branch.query,
            Phase::Compensation => branch.compensation,
        };
        self.turn(Input::Answer(Answer {
            step,
            phase,
            attempt: progress.attempt(),
            sent_clock: Clock(self.saga.clock.0 + 1),
            peer_clock: None,
            elapsed: Duration::from_micros(12_345),
            outcome,
        }))
    }

    /// The action of a step is refused by the participant.
    pub fn refuse(&mut self, step: usize, code: backstop_core::Code, message: &str) -> Append {
        self.answer(step, Phase::Action, failed(Evidence::ParticipantSaid(code), message))
    }

    /// From the next append on, the head row names this owner.
    pub fn owned_by(mut self, owner: &str) -> Self {
        self.owner = Some(coordinator(owner));
        self
    }

    /// The append that lets go of the saga in order, to be woken then.
    pub fn parked(&mut self, wake_at: Option<Timestamp>) -> Append {
        self.owner = None;
        self.wake_at = wake_at;
        self.turn(Input::Release)
    }

    /// The head row as it is now.
    pub fn head(&self) -> Head {
        let cause = self.saga.cause.as_deref().and_then(|cause| cause.failure.as_ref());
        Head {
            saga: self.saga.id.clone(),
            definition: self.saga.definition.reference.clone(),
            state: self.saga.state,
            seq: self.saga.seq,
            epoch: self.saga.epoch,
            owner: self.owner.clone(),
            wake_at: self.wake_at,
            fin_code: cause.map(|failure| failure.fin_code),
            labels: self.saga.started.labels.clone(),
            fingerprint: self.fingerprint,
            created_at: self.saga.started_at,
            updated_at: self.saga.updated_at,
            ended_at: self.saga.ended_at,
            quarantine: None,
            retired: false,
        }
    }

    fn append(&self, expected: Seq, events: Vec<Event>) -> Append {
        Append { saga: self.saga.id.clone(), expected, events, head: self.head() }
    }
}

/// A call that failed, without details.
pub fn failed(evidence: Evidence, message: &str) -> Outcome {
    Outcome::Failed { evidence, message: message.to_owned(), details: Details::default(), pushback: None }
}

/// An append of events of every kind: no saga has such a journal, but a store must keep any.
pub fn of_every_kind(saga: &str) -> Append {
    let (sample, start) = Sample::start(saga);
    let kinds = every_kind();
    let mut events = start.events;
    for (index, kind) in kinds.into_iter().enumerate() {
        let seq = Seq(index as u64 + 2);
        events.push(Event { seq, clock: Clock(seq.0 * 3), at: Timestamp(LONG_AGO.0 + index as i64), kind });
    }
    let mut head = sample.head();
    head.seq = Seq(events.len() as u64);
    head.epoch = Epoch(2);
    Append { saga: sample.saga.id, expected: Seq(0), events, head }
}
