//! The sagas of the benchmark: how their steps hang together, and the requests that start them.

use crate::rng::Rng;
use crate::wire::Work;
use backstop_proto::v1::{SagaState, StartSagaRequest};
use prost::Message;
use prost_types::{Struct, Value as Field, value::Kind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::time::Duration;

/// The participants of the benchmark.
pub const PARTICIPANTS: [&str; 3] = ["answer_a", "answer_b", "answer_c"];
/// Longest time for one saga; nothing in a healthy run comes near it.
const SAGA_MAX: i64 = 60;
/// Time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How a saga's steps hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum Requests {
    /// Raw bytes that the client sends with StartSaga
    Raw,
    /// Templates over the saga's input
    Typed,
}

/// One kind of saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saga {
    /// Its steps.
    pub shape: Shape,
    /// Their requests.
    pub requests: Requests,
    /// Bytes that each request carries beside its few fields.
    pub filler: usize,
}

impl Shape {
    /// For people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Concurrent => "concurrent",
            Self::Sequential => "sequential",
            Self::Diamond => "diamond",
            Self::RolledBack => "rolled back",
        }
    }

    /// Calls that go out together, one round after the other.
    #[must_use]
    pub fn rounds(self) -> &'static [usize] {
        match self {
            Self::Concurrent => &[3],
            Self::Sequential => &[1, 1, 1],
            Self::Diamond => &[1, 6, 1],
            Self::RolledBack => &[3, 2],
        }
    }

    /// Events of each append that has to be on disk before the next thing may happen.
    #[must_use]
    pub fn appends(self) -> &'static [usize] {
        match self {
            // Started; three successes and the end.
            Self::Concurrent => &[1, 4],
            // What a later step waits for is written before that step is called.
            Self::Sequential => &[1, 1, 1, 2],
            Self::Diamond => &[1, 1, 6, 2],
            // Started; two successes, the refusal and the decision; two undone and the end.
            Self::RolledBack => &[1, 4, 3],
        }
    }

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
    pub fn end(self) -> SagaState {
        match self {
            Self::Concurrent | Self::Sequential | Self::Diamond => SagaState::Succeeded,
            Self::RolledBack => SagaState::RolledBack,
        }
    }

    /// Calls to participants that such a saga takes.
    #[must_use]
    pub fn calls(self) -> u64 {
        match self {
            Self::Concurrent | Self::Sequential => 3,
            Self::Diamond => 8,
            Self::RolledBack => 5,
        }
    }
}

impl Requests {
    /// For people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Typed => "typed",
        }
    }
}

/// Longest filler.
const FILLER_MAX: usize = 1 << 20;

/// Bytes that no database can make smaller: any others would be compressed away before they are written.
pub(super) fn filler(length: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut rng = Rng::of(6, &["filler"]);
        std::iter::repeat_with(|| rng.next_u64().to_le_bytes()).take(FILLER_MAX / 8).flatten().collect()
    });
    bytes.get(..length.min(FILLER_MAX)).unwrap_or_default()
}

/// The same as base64, near enough: letters, four for three bytes.
fn letters(length: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |byte: &u8| LETTERS.get(usize::from(byte % 64)).copied().unwrap_or(b'A');
    filler(length / 3 * 4).iter().map(letter).map(char::from).collect()
}

impl Saga {
    /// The name of its definition.
    #[must_use]
    pub fn name(&self) -> String {
        let filler = if self.filler == 0 { String::new() } else { format!("-{}", self.filler) };
        format!("bench-{}-{}{filler}", self.shape.title().replace(' ', "-"), self.requests.title())
    }

    /// Its definition.
    #[must_use]
    pub fn definition(&self) -> Value {
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
    pub fn request(&self, id: String) -> StartSagaRequest {
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
                    filler: filler(self.filler).to_vec(),
                    answer: 0,
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
                    ("filler", letters(self.filler)),
                ];
                let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
                request.input = Some(Struct { fields: fields.into_iter().collect() });
            }
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn rounds_are_the_calls_and_steps_of_a_shape() {
        for shape in Shape::value_variants() {
            assert_eq!(u64::try_from(shape.rounds().iter().sum::<usize>()).ok(), Some(shape.calls()));
            let undone = if *shape == Shape::RolledBack { 2 } else { 0 };
            assert_eq!(shape.steps().len() + undone, shape.rounds().iter().sum::<usize>());
        }
    }

    #[test]
    fn a_filler_is_as_long_as_asked() {
        assert_eq!((filler(4_096).len(), letters(4_096).len()), (4_096, 5_460));
    }
}
