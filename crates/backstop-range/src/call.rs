//! One call as a participant saw it: when it came, when it left, and what became of it.

use crate::moment::{Moment, now};
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;

/// Which call of a saga's step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Forward.
    Action,
    /// Back.
    Compensation,
    /// Something that the range does not offer.
    Other(String),
}

/// How a call ended for the participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is still here.
    Open,
    /// It was answered OK.
    Done,
    /// It was answered with a refusal.
    Refused,
    /// It was answered with UNAVAILABLE.
    Unavailable,
    /// Its process died with it.
    Died,
    /// Its connection was closed by us, after booking.
    Lost,
    /// The caller went away before the answer.
    Abandoned,
}

/// One call, as it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// `backstop-saga-id`.
    pub saga: String,
    /// `backstop-step`.
    pub step: String,
    /// `backstop-phase`.
    pub phase: Phase,
    /// `backstop-attempt`.
    pub attempt: u32,
    /// `backstop-epoch`.
    pub epoch: u64,
    /// `idempotency-key`.
    pub key: String,
    /// Who was called.
    pub participant: String,
    /// What.
    pub method: String,
    /// With what, as text: two texts are the same if the requests are.
    pub request: String,
    /// When it came.
    pub arrived: Moment,
    /// When it was answered, lost or given up.
    pub left: Option<Moment>,
    /// How it ended.
    pub outcome: Outcome,
    /// True if its key had been answered before.
    pub is_duplicate: bool,
}

impl Call {
    /// A call as its metadata tells it; it arrives now.
    #[must_use]
    pub fn arriving(metadata: &MetadataMap, participant: &str, method: &str, request: String) -> Self {
        Self {
            saga: text(metadata, "backstop-saga-id"),
            step: text(metadata, "backstop-step"),
            phase: match text(metadata, "backstop-phase").as_str() {
                "action" => Phase::Action,
                "compensation" => Phase::Compensation,
                other => Phase::Other(other.to_owned()),
            },
            // A number that cannot be read is 0, which no honest call bears: the oracles see it.
            attempt: text(metadata, "backstop-attempt").parse().unwrap_or_default(),
            epoch: text(metadata, "backstop-epoch").parse().unwrap_or_default(),
            key: text(metadata, "idempotency-key"),
            participant: participant.to_owned(),
            method: method.to_owned(),
            request,
            arrived: now(),
            left: None,
            outcome: Outcome::Open,
            is_duplicate: false,
        }
    }

    /// A line for people.
    #[must_use]
    pub fn line(&self, since: Moment) -> String {
        let (arrived, left) = (self.arrived - since, self.left.map(|left| left - since));
        format!(
            "{:>10}us {:>12} {}/{:?}#{} epoch {} {:?}{} on {} {}",
            arrived,
            left.map(|left| format!("{left}us")).unwrap_or_else(|| "-".to_owned()),
            self.step,
            self.phase,
            self.attempt,
            self.epoch,
            self.outcome,
            if self.is_duplicate { " (again)" } else { "" },
            self.participant,
            self.method,
        )
    }
}

fn text(metadata: &MetadataMap, key: &str) -> String {
    metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
