//! Definitions in a line a step, through `validate` like everybody's.
//!
//! Each step calls a participant of its own that bears the step's name, so a transcript names both.

use backstop_core::{
    CallSpec, CompensationOrder, Definition, DefinitionSpec, ErrorTable, Fault, InDoubt, OnFailure,
    ParticipantName, ParticipantTraits, RetryPolicy, Revision, StepKind, StepSpec, validate,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// First and longest wait between two attempts in every plan, unless it says otherwise.
pub(crate) const BACKOFF: Duration = Duration::from_millis(100);

/// A definition in the making. `on`, `dedup` and the like speak of the step that was added last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) spec: DefinitionSpec,
    traits: BTreeMap<String, ParticipantTraits>,
    errors: ErrorTable,
}

impl Plan {
    pub(crate) fn new() -> Self {
        let spec = DefinitionSpec { name: "transfer".to_owned(), ..DefinitionSpec::default() };
        Self { spec, ..Self::default() }
    }

    /// Adds a compensatable step.
    pub(crate) fn step(self, name: &str, after: &[&str]) -> Self {
        let mut plan = self.kind(name, StepKind::Compensatable, after);
        plan.last().compensation = Some(call(name, "Undo"));
        plan
    }

    pub(crate) fn read_only(self, name: &str, after: &[&str]) -> Self {
        self.kind(name, StepKind::ReadOnly, after)
    }

    pub(crate) fn pivot(self, name: &str, after: &[&str]) -> Self {
        self.kind(name, StepKind::Pivot, after)
    }

    pub(crate) fn retriable(self, name: &str, after: &[&str]) -> Self {
        self.kind(name, StepKind::Retriable, after)
    }

    fn kind(mut self, name: &str, kind: StepKind, after: &[&str]) -> Self {
        self.traits.insert(name.to_owned(), ParticipantTraits::default());
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

    fn last_traits(&mut self) -> &mut ParticipantTraits {
        let name = self.last().action.participant.clone();
        self.traits.get_mut(&name).unwrap()
    }

    /// The participant gives every attempt with one key the same answer.
    pub(crate) fn dedup(mut self) -> Self {
        self.last_traits().deduplicates_by_key = true;
        self
    }

    /// The participant wants the rollback signal.
    pub(crate) fn listens(mut self) -> Self {
        self.last_traits().listens = true;
        self
    }

    /// The step has a call that tells what happened.
    pub(crate) fn query(mut self) -> Self {
        let name = self.last().name.clone();
        self.last().query = Some(call(&name, "Ask"));
        self
    }

    pub(crate) fn in_doubt(mut self, policy: InDoubt) -> Self {
        self.last().in_doubt = Some(policy);
        self
    }

    /// Attempts of the action, and of its query.
    pub(crate) fn attempts(mut self, attempts_max: u32) -> Self {
        self.last().action.retry.attempts_max = attempts_max;
        if let Some(query) = &mut self.last().query {
            query.retry.attempts_max = attempts_max;
        }
        self
    }

    /// Refusals of the compensation before it is stuck.
    pub(crate) fn refusals(mut self, attempts_max: u32) -> Self {
        self.last().compensation.as_mut().unwrap().retry.attempts_max = attempts_max;
        self
    }

    /// How long what is tried without end otherwise is tried: the compensation, or a retriable step's action.
    pub(crate) fn gives_up_after(mut self, limit: Duration) -> Self {
        let step = self.last();
        let call = step.compensation.as_mut().unwrap_or(&mut step.action);
        call.retry.give_up_after = Some(limit);
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

    pub(crate) fn errors(mut self, errors: ErrorTable) -> Self {
        self.errors = errors;
        self
    }

    pub(crate) fn check(&self) -> Result<Definition, Vec<Fault>> {
        let participants = self
            .traits
            .iter()
            .map(|(name, traits)| (ParticipantName::parse(name).unwrap(), *traits))
            .collect();
        validate(&self.spec, Revision(1), &participants, Arc::new(self.errors.clone()))
    }

    pub(crate) fn build(&self) -> Arc<Definition> {
        Arc::new(self.check().unwrap_or_else(|faults| panic!("{faults:#?}")))
    }
}

fn call(participant: &str, method: &str) -> CallSpec {
    let attempts_max = if method == "Undo" { RetryPolicy::COMPENSATION_ATTEMPTS_DEFAULT } else { 3 };
    CallSpec {
        participant: participant.to_owned(),
        method: format!("bank.v1.{}/{method}", "Service"),
        retry: RetryPolicy { initial: BACKOFF, max: BACKOFF, attempts_max, ..RetryPolicy::default() },
        ..CallSpec::default()
    }
}
