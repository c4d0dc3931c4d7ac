//! The sagas that are explored: shapes of one to four steps, each with every order of undoing, either treatment of what is
//! in flight, and participants of several manners.

use backstop_core::{
    CallSpec, CompensationOrder, Definition, DefinitionSpec, ErrorTable, InDoubt, OnFailure, ParticipantName,
    ParticipantTraits, RetryPolicy, Revision, StepKind, StepSpec, validate,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Attempts of every action and query, and refusals of a compensation until it is stuck.
const ATTEMPTS_MAX: u32 = 2;
/// First and longest wait between two attempts.
const BACKOFF: Duration = Duration::from_millis(100);
/// A deadline that passes only when the model says so.
const FAR: Duration = Duration::from_secs(3600);
/// A deadline that passes before a second attempt is due.
const NEAR: Duration = Duration::from_micros(1);

/// How the participants behave, and what is done about their doubts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Manner {
    /// No barrier: undone as if done.
    Plain,
    /// A barrier: sent again.
    Resend,
    /// A barrier, and undone all the same.
    KeyedCompensate,
    /// No barrier, but it can be asked.
    Query,
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Resend, Self::KeyedCompensate, Self::Query];

    /// Whether such participants keep a barrier.
    #[must_use]
    pub fn has_barrier(self) -> bool {
        matches!(self, Self::Resend | Self::KeyedCompensate)
    }
}

/// Every order of undoing.
pub const ORDERS: [CompensationOrder; 3] =
    [CompensationOrder::ReverseDag, CompensationOrder::Lifo, CompensationOrder::Concurrent];
/// Every treatment of what is in flight.
pub const ON_FAILURE: [OnFailure; 2] = [OnFailure::Drain, OnFailure::Cancel];

/// One step of a shape: its name, its kind, and what it comes after.
type Line = (&'static str, StepKind, &'static [&'static str]);

/// A shape, without its manner and orders.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Its steps.
    pub steps: &'static [Line],
    /// How long the forward path may take.
    pub deadline: Option<Duration>,
    /// The first step's participant wants the rollback signal.
    pub listens: bool,
}

const C: StepKind = StepKind::Compensatable;

/// All shapes.
pub const SHAPES: [Shape; 13] = [
    Shape { deadline: Some(FAR), listens: true, ..Shape::of("single", &[("a", C, &[])]) },
    Shape { deadline: Some(NEAR), ..Shape::of("hurried", &[("a", C, &[])]) },
    Shape::of("chain 2", &[("a", C, &[]), ("b", C, &["a"])]),
    Shape::of("chain 3", &[("a", C, &[]), ("b", C, &["a"]), ("c", C, &["b"])]),
    Shape::of("chain 4", &[("a", C, &[]), ("b", C, &["a"]), ("c", C, &["b"]), ("d", C, &["c"])]),
    Shape::of("pair", &[("a", C, &[]), ("b", C, &[])]),
    Shape::of("fork", &[("a", C, &[]), ("b", C, &["a"]), ("c", C, &["a"])]),
    Shape::of("join", &[("a", C, &[]), ("b", C, &[]), ("c", C, &["a", "b"])]),
    Shape::of("diamond", &[("a", C, &[]), ("b", C, &["a"]), ("c", C, &["a"]), ("d", C, &["b", "c"])]),
    Shape { deadline: Some(NEAR), ..Shape::of("hurried pivot", &[("p", StepKind::Pivot, &[])]) },
    Shape {
        deadline: Some(FAR),
        ..Shape::of(
            "pivot",
            &[("a", C, &[]), ("p", StepKind::Pivot, &["a"]), ("r", StepKind::Retriable, &["p"])],
        )
    },
    Shape::of(
        "pivot 2",
        &[
            ("p", StepKind::Pivot, &[]),
            ("r", StepKind::Retriable, &["p"]),
            ("s", StepKind::Retriable, &["p"]),
        ],
    ),
    Shape::of("read only", &[("risk", StepKind::ReadOnly, &[]), ("a", C, &["risk"])]),
];

impl Shape {
    const fn of(name: &'static str, steps: &'static [Line]) -> Self {
        Self { name, steps, deadline: None, listens: false }
    }

    /// The definition, checked like everybody's.
    ///
    /// # Errors
    /// What `validate` finds wrong with it.
    pub fn definition(
        &self,
        manner: Manner,
        order: CompensationOrder,
        on_failure: OnFailure,
    ) -> Result<Arc<Definition>, String> {
        let steps = self.steps.iter().map(|line| step(line, manner)).collect();
        let spec = DefinitionSpec {
            name: "transfer".to_owned(),
            deadline: self.deadline,
            compensation_order: order,
            on_failure,
            steps,
            ..DefinitionSpec::default()
        };
        let mut participants = BTreeMap::new();
        for (place, (name, ..)) in self.steps.iter().enumerate() {
            let traits = ParticipantTraits {
                deduplicates_by_key: manner.has_barrier(),
                listens: self.listens && place == 0,
            };
            participants.insert(ParticipantName::parse(name).map_err(|e| e.to_string())?, traits);
        }
        validate(&spec, Revision(1), &participants, Arc::new(ErrorTable::default()))
            .map(Arc::new)
            .map_err(|faults| format!("{faults:?}"))
    }
}

fn step((name, kind, after): &Line, manner: Manner) -> StepSpec {
    let compensatable = *kind == StepKind::Compensatable;
    let in_doubt = match manner {
        Manner::Plain | Manner::Resend => None,
        Manner::KeyedCompensate => compensatable.then_some(InDoubt::Compensate),
        Manner::Query => Some(InDoubt::Query),
    };
    StepSpec {
        name: (*name).to_owned(),
        kind: *kind,
        depends_on: after.iter().map(|&name| name.to_owned()).collect(),
        action: call(name, "Do"),
        compensation: compensatable.then(|| call(name, "Undo")),
        in_doubt: in_doubt.filter(|_| *kind != StepKind::ReadOnly),
        query: (manner == Manner::Query && *kind != StepKind::ReadOnly).then(|| call(name, "Ask")),
    }
}

fn call(participant: &str, method: &str) -> CallSpec {
    CallSpec {
        participant: participant.to_owned(),
        method: format!("bank.v1.Service/{method}"),
        retry: RetryPolicy {
            initial: BACKOFF,
            max: BACKOFF,
            attempts_max: ATTEMPTS_MAX,
            give_up_after: None,
        },
        ..CallSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_definition_in_every_manner() {
        for shape in SHAPES {
            for manner in Manner::ALL {
                for order in ORDERS {
                    for on_failure in ON_FAILURE {
                        shape.definition(manner, order, on_failure).unwrap();
                    }
                }
            }
        }
    }
}
