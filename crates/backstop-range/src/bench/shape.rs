//! The sagas of the benchmark: how their steps hang together, and the requests that start them.

use crate::wire::Work;
use backstop_proto::v1::{SagaState, StartSagaRequest};
use prost::Message;
use prost_types::{Struct, Value as Field, value::Kind};
use serde_json::{Value, json};
use std::time::Duration;

/// The participants of the benchmark.
pub(super) const PARTICIPANTS: [&str; 3] = ["answer_a", "answer_b", "answer_c"];
/// Longest time for one saga; nothing in a healthy run comes near it.
const SAGA_MAX: i64 = 60;
/// Time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How a saga's steps hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Three branches at once
    Concurrent,
    /// Three steps, one after the other
    Sequential,
    /// One step, six at once after it, one after those
    Diamond,
    /// Three branches at once, of which the third is refused and the other two are undone
    RolledBack,
}

/// Where requests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Requests {
    /// Raw bytes that the client sends with StartSaga
    Raw,
    /// Templates over the saga's input
    Typed,
}

/// One kind of saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Saga {
    /// Its steps.
    pub(super) shape: Shape,
    /// Their requests.
    pub(super) requests: Requests,
    /// Bytes that each request carries beside its few fields.
    pub(super) filler: usize,
}

impl Shape {
    /// Each step's name, the steps before it, and whether it is refused.
    fn steps(self) -> Vec<(String, Vec<String>, bool)> {
        let step = |name: &str, after: &[&str], refused: bool| {
            (name.to_owned(), after.iter().map(|&name| name.to_owned()).collect(), refused)
        };
        match self {
            Self::Concurrent => ["a", "b", "c"].map(|name| step(name, &[], false)).to_vec(),
            Self::Sequential => {
                vec![step("a", &[], false), step("b", &["a"], false), step("c", &["b"], false)]
            }
            Self::Diamond => {
                let middle = ["b", "c", "d", "e", "f", "g"];
                let mut steps = vec![step("a", &[], false)];
                steps.extend(middle.map(|name| step(name, &["a"], false)));
                steps.push(step("h", &middle, false));
                steps
            }
            Self::RolledBack => vec![step("a", &[], false), step("b", &[], false), step("c", &[], true)],
        }
    }

    /// How such a saga ends.
    #[must_use]
    pub(super) fn end(self) -> SagaState {
        match self {
            Self::Concurrent | Self::Sequential | Self::Diamond => SagaState::Succeeded,
            Self::RolledBack => SagaState::RolledBack,
        }
    }

    #[allow(dead_code)] // the table of calls a second
    /// Calls to participants that such a saga takes.
    #[must_use]
    pub(super) fn calls(self) -> u64 {
        match self {
            Self::Concurrent | Self::Sequential => 3,
            Self::Diamond => 8,
            Self::RolledBack => 5,
        }
    }
}

impl Saga {
    /// The name of its definition.
    #[must_use]
    pub(super) fn name(&self) -> String {
        format!("bench-{:?}-{:?}", self.shape, self.requests).to_lowercase()
    }

    /// Its definition.
    #[must_use]
    pub(super) fn definition(&self) -> Value {
        let timeout = format!("{}s", CALL_TIMEOUT.as_secs());
        let typed = json!({
            "saga": "${saga.id}", "account": "${input.account}", "amount": "${input.amount}",
            "filler": "${input.filler}",
        });
        let steps = self.shape.steps().into_iter().enumerate().map(|(place, (name, after, refused))| {
            let participant = PARTICIPANTS[place % PARTICIPANTS.len()];
            let method = if refused { "Refuse" } else { "Act" };
            let mut action =
                json!({ "participant": participant, "method": format!("range.v1.Bench/{method}"), "timeout": timeout });
            if self.requests == Requests::Typed {
                action["request"] = typed.clone();
            }
            let compensation = json!({
                "participant": participant, "method": "range.v1.Bench/Undo", "timeout": timeout,
                "request": { "saga": "${saga.id}" },
            });
            json!({ "name": name, "dependsOn": after, "action": action, "compensation": compensation })
        });
        json!({ "name": self.name(), "steps": steps.collect::<Vec<_>>() })
    }

    /// The request that starts one.
    #[must_use]
    pub(super) fn request(&self, id: String) -> StartSagaRequest {
        let mut request = StartSagaRequest {
            saga_id: id,
            definition: self.name(),
            wait: Some(prost_types::Duration { seconds: SAGA_MAX, nanos: 0 }),
            ..StartSagaRequest::default()
        };
        match self.requests {
            Requests::Raw => {
                let work = Work {
                    saga: request.saga_id.clone(),
                    account: "4711".to_owned(),
                    amount: 12_34,
                    filler: vec![7; self.filler],
                };
                let bytes = work.encode_to_vec();
                let steps = self.shape.steps().into_iter().map(|(name, ..)| (name, bytes.clone().into()));
                request.payloads = steps.collect();
            }
            Requests::Typed => {
                let text = |text: String| Field { kind: Some(Kind::StringValue(text)) };
                let fields = [
                    ("account", "4711".to_owned()),
                    ("amount", "1234".to_owned()),
                    ("filler", "Bwcr".repeat(self.filler / 3)),
                ];
                let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
                request.input = Some(Struct { fields: fields.into_iter().collect() });
            }
        }
        request
    }
}
