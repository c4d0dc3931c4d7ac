//! What a definition's author wrote, as versioned JSON.
//!
//! Structs of its own, converted by hand: the core's types may change, what is stored stays readable.
//!
//! # Invariants
//! * Unknown fields, missing fields and unknown words are errors; a new field makes a new format.
//! * Format 1 is read for ever (`tests::format_1_is_read_for_ever`).

use super::DecodeError;
use backstop_core::{
    CallSpec, CompensationOrder, DefinitionSpec, InDoubt, OnFailure, RetryPolicy, StepKind, StepSpec,
};
use backstop_engine::ports::store::{StoreError, StoreResult};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const FORMAT: i64 = 1;

/// Read first, to learn how to read the rest.
#[derive(Deserialize)]
struct Versioned {
    format: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    format: i64,
    name: String,
    description: String,
    error_domain: String,
    deadline: Option<Duration>,
    compensation_order: Order,
    on_failure: Failing,
    steps: Vec<Step>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    kind: Kind,
    depends_on: Vec<String>,
    action: Call,
    compensation: Option<Call>,
    in_doubt: Option<Doubt>,
    query: Option<Call>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    participant: String,
    method: String,
    request: String,
    timeout: Duration,
    retry: Retry,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    initial: Duration,
    max: Duration,
    attempts_max: u32,
    /// Absent where it is not said, as in all definitions before there was such a setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    give_up_after: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Compensatable,
    ReadOnly,
    Pivot,
    Retriable,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Doubt {
    Resend,
    Query,
    Compensate,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    ReverseDag,
    Lifo,
    Concurrent,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Failing {
    Drain,
    Cancel,
}

/// The JSON of a spec.
///
/// # Errors
/// `NotApplied` if it cannot be written as JSON.
pub(crate) fn encode(spec: &DefinitionSpec) -> StoreResult<String> {
    let stored = Definition {
        format: FORMAT,
        name: spec.name.clone(),
        description: spec.description.clone(),
        error_domain: spec.error_domain.clone(),
        deadline: spec.deadline,
        compensation_order: match spec.compensation_order {
            CompensationOrder::ReverseDag => Order::ReverseDag,
            CompensationOrder::Lifo => Order::Lifo,
            CompensationOrder::Concurrent => Order::Concurrent,
        },
        on_failure: match spec.on_failure {
            OnFailure::Drain => Failing::Drain,
            OnFailure::Cancel => Failing::Cancel,
        },
        steps: spec.steps.iter().map(step_to).collect(),
    };
    serde_json::to_string(&stored).map_err(|error| StoreError::NotApplied(format!("definition: {error}")))
}

/// Reads the JSON of a spec.
pub(crate) fn decode(json: &str) -> Result<DefinitionSpec, DecodeError> {
    let malformed = |error: serde_json::Error| DecodeError::malformed("spec", error);
    let Versioned { format } = serde_json::from_str(json).map_err(malformed)?;
    if format != FORMAT {
        return Err(DecodeError::format(format, FORMAT));
    }
    let stored: Definition = serde_json::from_str(json).map_err(malformed)?;
    Ok(DefinitionSpec {
        name: stored.name,
        description: stored.description,
        error_domain: stored.error_domain,
        deadline: stored.deadline,
        compensation_order: match stored.compensation_order {
            Order::ReverseDag => CompensationOrder::ReverseDag,
            Order::Lifo => CompensationOrder::Lifo,
            Order::Concurrent => CompensationOrder::Concurrent,
        },
        on_failure: match stored.on_failure {
            Failing::Drain => OnFailure::Drain,
            Failing::Cancel => OnFailure::Cancel,
        },
        steps: stored.steps.into_iter().map(step_from).collect(),
    })
}

fn step_to(step: &StepSpec) -> Step {
    Step {
        name: step.name.clone(),
        kind: match step.kind {
            StepKind::Compensatable => Kind::Compensatable,
            StepKind::ReadOnly => Kind::ReadOnly,
            StepKind::Pivot => Kind::Pivot,
            StepKind::Retriable => Kind::Retriable,
        },
        depends_on: step.depends_on.clone(),
        action: call_to(&step.action),
        compensation: step.compensation.as_ref().map(call_to),
        in_doubt: step.in_doubt.map(|doubt| match doubt {
            InDoubt::Resend => Doubt::Resend,
            InDoubt::Query => Doubt::Query,
            InDoubt::Compensate => Doubt::Compensate,
        }),
        query: step.query.as_ref().map(call_to),
    }
}

fn step_from(step: Step) -> StepSpec {
    StepSpec {
        name: step.name,
        kind: match step.kind {
            Kind::Compensatable => StepKind::Compensatable,
            Kind::ReadOnly => StepKind::ReadOnly,
            Kind::Pivot => StepKind::Pivot,
            Kind::Retriable => StepKind::Retriable,
        },
        depends_on: step.depends_on,
        action: call_from(step.action),
        compensation: step.compensation.map(call_from),
        in_doubt: step.in_doubt.map(|doubt| match doubt {
            Doubt::Resend => InDoubt::Resend,
            Doubt::Query => InDoubt::Query,
            Doubt::Compensate => InDoubt::Compensate,
        }),
        query: step.query.map(call_from),
    }
}

fn call_to(call: &CallSpec) -> Call {
    Call {
        participant: call.participant.clone(),
        method: call.method.clone(),
        request: call.request.clone(),
        timeout: call.timeout,
        retry: Retry {
            initial: call.retry.initial,
            max: call.retry.max,
            attempts_max: call.retry.attempts_max,
            give_up_after: call.retry.give_up_after,
        },
    }
}

fn call_from(call: Call) -> CallSpec {
    CallSpec {
        participant: call.participant,
        method: call.method,
        request: call.request,
        timeout: call.timeout,
        retry: RetryPolicy {
            initial: call.retry.initial,
            max: call.retry.max,
            attempts_max: call.retry.attempts_max,
            give_up_after: call.retry.give_up_after,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_choice() -> DefinitionSpec {
        let call = |method: &str| CallSpec {
            participant: "ledger-a".into(),
            method: method.into(),
            request: "{\"amount\": \"${input.amount}\"} \u{0} ü".into(),
            timeout: Duration::new(3, 7),
            retry: RetryPolicy {
                initial: Duration::from_millis(1),
                max: Duration::from_secs(9),
                attempts_max: 4,
                give_up_after: None,
            },
        };
        let step = |name: &str, kind, in_doubt| StepSpec {
            name: name.into(),
            kind,
            depends_on: vec!["risk".into()],
            action: call("a.B/Do"),
            compensation: Some(call("a.B/Undo")),
            in_doubt,
            query: Some(call("a.B/Ask")),
        };
        DefinitionSpec {
            name: "transfer".into(),
            description: "moves \"money\"".into(),
            error_domain: "payment".into(),
            deadline: Some(Duration::from_secs(30)),
            compensation_order: CompensationOrder::Lifo,
            on_failure: OnFailure::Cancel,
            steps: vec![
                StepSpec { name: "bare".into(), ..StepSpec::default() },
                step("a", StepKind::ReadOnly, Some(InDoubt::Resend)),
                step("b", StepKind::Compensatable, Some(InDoubt::Query)),
                step("c", StepKind::Pivot, Some(InDoubt::Compensate)),
                step("d", StepKind::Retriable, None),
            ],
        }
    }

    #[test]
    fn every_definition_comes_back_as_it_was() {
        let mut spec = every_choice();
        for order in [CompensationOrder::ReverseDag, CompensationOrder::Lifo, CompensationOrder::Concurrent] {
            for on_failure in [OnFailure::Drain, OnFailure::Cancel] {
                spec.compensation_order = order;
                spec.on_failure = on_failure;
                assert_eq!(decode(&encode(&spec).unwrap()).unwrap(), spec);
            }
        }
    }

    #[test]
    fn a_definition_that_gives_up_after_a_time_comes_back_as_it_was() {
        let mut spec = every_choice();
        spec.steps[2].compensation.as_mut().unwrap().retry.give_up_after = Some(Duration::new(77, 1));
        assert_eq!(decode(&encode(&spec).unwrap()).unwrap(), spec);
    }

    #[test]
    fn format_1_is_read_for_ever() {
        let stored = include_str!("../../tests/fixtures/definition-format-1.json");
        assert_eq!(stored.trim_end(), encode(&every_choice()).unwrap(), "today's format 1 has changed");
        assert_eq!(decode(stored).unwrap(), every_choice());
    }

    #[test]
    fn what_is_missing_or_unknown_is_an_error_and_never_a_default() {
        let stored = encode(&every_choice()).unwrap();
        for (from, to) in [
            ("\"format\":1", "\"format\":2"),
            ("\"format\":1,", ""),
            ("\"lifo\"", "\"random\""),
            ("\"description\":\"moves \\\"money\\\"\",", ""),
            ("\"on_failure\"", "\"on_success\":1,\"on_failure\""),
        ] {
            let broken = stored.replacen(from, to, 1);
            assert_ne!(broken, stored, "{from} is in it");
            assert!(decode(&broken).is_err(), "{from} -> {to}");
        }
    }
}
