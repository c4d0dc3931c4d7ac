//! Definitions in a line a step, and the participants that they call.
//!
//! Each step calls a participant of its own that bears the step's name, unless it says `at`.

use backstop_core::{
    CallSpec, CompensationOrder, DefinitionSpec, OnFailure, ParticipantName, RetryPolicy, StepKind, StepSpec,
    Timestamp,
};
use backstop_engine::ports::store::Participant;
use std::collections::BTreeMap;
use std::time::Duration;

/// First and longest wait between two attempts in every plan.
pub(crate) const BACKOFF: Duration = Duration::from_millis(400);

/// A definition in the making. `dedup` and the like speak of the step that was added last.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) spec: DefinitionSpec,
    pub(crate) participants: BTreeMap<String, Participant>,
}

impl Plan {
    pub(crate) fn new(name: &str) -> Self {
        let spec = DefinitionSpec { name: name.to_owned(), ..DefinitionSpec::default() };
        Self { spec, participants: BTreeMap::new() }
    }

    /// Adds a compensatable step.
    pub(crate) fn step(self, name: &str, after: &[&str]) -> Self {
        let mut plan = self.kind(name, StepKind::Compensatable, after);
        plan.last().compensation = Some(call(name, "Undo"));
        plan
    }

    pub(crate) fn pivot(self, name: &str, after: &[&str]) -> Self {
        self.kind(name, StepKind::Pivot, after)
    }

    pub(crate) fn retriable(self, name: &str, after: &[&str]) -> Self {
        self.kind(name, StepKind::Retriable, after)
    }

    fn kind(mut self, name: &str, kind: StepKind, after: &[&str]) -> Self {
        self.participants.insert(name.to_owned(), participant(name));
        self.spec.steps.push(StepSpec {
            name: name.to_owned(),
            kind,
            depends_on: after.iter().map(|&name| name.to_owned()).collect(),
            action: call(name, "Do"),
            ..StepSpec::default()
        });
        self
    }

    fn last(&mut self) -> &mut StepSpec {
        self.spec.steps.last_mut().unwrap()
    }

    fn last_participant(&mut self) -> &mut Participant {
        let name = self.last().action.participant.clone();
        self.participants.get_mut(&name).unwrap()
    }

    /// The step is offered by this participant.
    pub(crate) fn at(mut self, name: &str) -> Self {
        let old = self.last().action.participant.clone();
        self.participants.remove(&old);
        self.participants.entry(name.to_owned()).or_insert_with(|| participant(name));
        let step = self.last();
        for call in
            [Some(&mut step.action), step.compensation.as_mut(), step.query.as_mut()].into_iter().flatten()
        {
            call.participant = name.to_owned();
        }
        self
    }

    /// The participant gives every attempt with one key the same answer.
    pub(crate) fn dedup(mut self) -> Self {
        self.last_participant().deduplicates_by_key = true;
        self
    }

    /// The participant wants the rollback signal.
    pub(crate) fn listens(mut self) -> Self {
        self.last_participant().rollback_listener = true;
        self
    }

    /// Most calls in flight to the participant.
    pub(crate) fn in_flight_max(mut self, calls: u32) -> Self {
        self.last_participant().in_flight_max = calls;
        self
    }

    /// Attempts of the action.
    pub(crate) fn attempts(mut self, attempts_max: u32) -> Self {
        self.last().action.retry.attempts_max = attempts_max;
        self
    }

    /// Longest wait between two attempts of the action.
    pub(crate) fn waits(mut self, ceiling: Duration) -> Self {
        let retry = &mut self.last().action.retry;
        (retry.initial, retry.max) = (ceiling, ceiling);
        self
    }

    /// Refusals of the compensation before it is stuck.
    pub(crate) fn refusals(mut self, attempts_max: u32) -> Self {
        self.last().compensation.as_mut().unwrap().retry.attempts_max = attempts_max;
        self
    }

    /// How long the compensation is tried before the branch is stuck.
    pub(crate) fn gives_up_after(mut self, limit: Duration) -> Self {
        self.last().compensation.as_mut().unwrap().retry.give_up_after = Some(limit);
        self
    }

    pub(crate) fn order(mut self, order: CompensationOrder) -> Self {
        self.spec.compensation_order = order;
        self
    }

    pub(crate) fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.spec.on_failure = on_failure;
        self
    }

    pub(crate) fn deadline(mut self, limit: Duration) -> Self {
        self.spec.deadline = Some(limit);
        self
    }
}

fn participant(name: &str) -> Participant {
    Participant {
        name: ParticipantName::parse(name).unwrap(),
        endpoints: vec!["http://127.0.0.1:1".to_owned()],
        deduplicates_by_key: false,
        rollback_listener: false,
        in_flight_max: 0,
        keepalive: Duration::from_secs(300),
        updated_at: Timestamp(0),
    }
}

fn call(participant: &str, method: &str) -> CallSpec {
    CallSpec {
        participant: participant.to_owned(),
        method: format!("bank.v1.Service/{method}"),
        request: "{}".to_owned(),
        retry: RetryPolicy { initial: BACKOFF, max: BACKOFF, attempts_max: 3, ..RetryPolicy::default() },
        ..CallSpec::default()
    }
}
