//! What is to be said to each saga of a batch, and what its answer means.
//!
//! Invariant: an answer that tells that it needed no saying any more is no failure: whoever runs the same command
//! twice is told so, and nothing is done twice.

use super::plan::{Outcome, Target};
use crate::cli::connect::Connection;
use crate::cli::error::CliError;
use backstop_proto::v1::{self, Saga, rollback_cause::Kind};

/// A person's word.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Who says it; stays in each journal.
    pub(crate) by: String,
    /// Why; stays in each journal.
    pub(crate) reason: String,
    /// What.
    pub(crate) word: Word,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// A rollback.
    Cancel,
    /// Another try of a branch.
    Retry,
    /// A branch is settled.
    Resolve(v1::Resolution),
}

impl Order {
    /// The verb that gives it.
    pub(super) fn verb(&self) -> &'static str {
        match self.word {
            Word::Cancel => "saga cancel",
            Word::Retry => "branch retry",
            Word::Resolve(_) => "branch resolve",
        }
    }

    /// Says it to one.
    pub(super) async fn carry_out(&self, connection: &Connection, target: &Target) -> Outcome {
        let (saga_id, step) = (target.saga.clone(), target.step.clone());
        let (by, reason) = (self.by.clone(), self.reason.clone());
        match self.word {
            Word::Cancel => {
                let request = v1::CancelSagaRequest { saga_id, reason, by };
                match connection.call(connection.sagas().cancel_saga(request)).await {
                    Ok(answer) => self.cancelled(&answer.saga.unwrap_or_default()),
                    Err(error) => judged(&error, &[]),
                }
            }
            Word::Retry => {
                let request = v1::RetryBranchRequest { saga_id, step, by, reason };
                settled(connection.call(connection.operators().retry_branch(request)).await.map(drop))
            }
            Word::Resolve(resolution) => {
                let resolution = resolution.into();
                let request = v1::ResolveBranchRequest { saga_id, step, by, reason, resolution };
                settled(connection.call(connection.operators().resolve_branch(request)).await.map(drop))
            }
        }
    }

    /// A saga that was going back already answers as one that is told to.
    fn cancelled(&self, saga: &Saga) -> Outcome {
        match &saga.cause {
            Some(cause)
                if cause.kind() != Kind::Cancelled || cause.by != self.by || cause.reason != self.reason =>
            {
                Outcome::Already("it was being rolled back already".to_owned())
            }
            Some(_) | None => Outcome::Done,
        }
    }
}

fn settled(answer: Result<(), CliError>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(error) => judged(&error, &["BRANCH_NOT_WAITING", "SAGA_ENDED"]),
    }
}

/// A refusal, a silence, or one of the reasons that mean that somebody was faster.
fn judged(error: &CliError, already: &[&str]) -> Outcome {
    let brief = error.in_brief();
    if already.iter().any(|reason| error.is_refused_for(reason)) {
        Outcome::Already(brief)
    } else if error.is_in_doubt() {
        Outcome::Silent(brief)
    } else {
        Outcome::Refused(brief)
    }
}
