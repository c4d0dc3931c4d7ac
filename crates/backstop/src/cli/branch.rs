//! `backstop branch`: what an operator decides about a branch that waits for a person.

use super::error::CliError;
use super::saga_view::head_and_transcript;
use super::{Exit, Session};
use backstop_proto::v1;

/// What can be done with branches.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Lets the branch be tried again, with a fresh budget of attempts
    #[command(after_help = "Example:\n  backstop branch retry pay-7 credit --reason 'account unlocked'")]
    Retry(Decision),
    /// Settles the branch by what is true of it; the saga goes on from there
    #[command(after_help = "Example:\n  \
        backstop branch resolve pay-7 credit --resolution undone --reason 'booked back by hand, ticket 4711'")]
    Resolve {
        /// What is decided about which branch.
        #[command(flatten)]
        decision: Decision,
        /// What was found to be true, or was done by hand
        #[arg(long, value_name = "WHAT")]
        resolution: Resolution,
    },
}

/// Which branch, and what the journal keeps about the decision.
#[derive(Debug, clap::Args)]
pub(crate) struct Decision {
    /// The saga
    saga: String,
    /// The step
    step: String,
    /// Why; stays in the journal
    #[arg(long)]
    reason: String,
    /// Who; stays in the journal
    #[arg(long, value_name = "WHO", env = "USER", hide_env_values = true)]
    by: String,
}

/// What a person found to be true of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Resolution {
    /// The action took effect, or was done by hand (pivot and retriable steps)
    TookEffect,
    /// The action had no effect; at a pivot, the saga then rolls back
    NoEffect,
    /// The effect was undone by hand (stuck compensations)
    Undone,
}

impl Resolution {
    fn wire(self) -> v1::Resolution {
        match self {
            Self::TookEffect => v1::Resolution::TookEffect,
            Self::NoEffect => v1::Resolution::NoEffect,
            Self::Undone => v1::Resolution::Undone,
        }
    }
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let connection = session.open().await?;
        match self {
            Self::Retry(decision) => {
                let Decision { saga, step, reason, by } = decision;
                let request = v1::RetryBranchRequest { saga_id: saga, step, by, reason };
                let answer = connection.call(connection.operators().retry_branch(request)).await?;
                let saga = answer.saga.clone().unwrap_or_default();
                session.show("backstop.v1.RetryBranchResponse", &answer, |paint| {
                    head_and_transcript(&saga, paint)
                })?;
            }
            Self::Resolve { decision, resolution } => {
                let Decision { saga, step, reason, by } = decision;
                let resolution = resolution.wire().into();
                let request = v1::ResolveBranchRequest { saga_id: saga, step, by, reason, resolution };
                let answer = connection.call(connection.operators().resolve_branch(request)).await?;
                let saga = answer.saga.clone().unwrap_or_default();
                session.show("backstop.v1.ResolveBranchResponse", &answer, |paint| {
                    head_and_transcript(&saga, paint)
                })?;
            }
        }
        Ok(Exit::Done)
    }
}
