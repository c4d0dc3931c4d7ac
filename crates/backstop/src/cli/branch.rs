//! `backstop branch`: what an operator decides about branches that wait for a person: one, or all that fit filters.

use super::batch::{self, BatchArgs, Order, Plan, Target, Word};
use super::error::CliError;
use super::intervention::Which;
use super::intervention_view::{Now, age, cut};
use super::saga_view::head_and_transcript;
use super::waiting::waiting;
use super::{Exit, Session};
use backstop_proto::v1;

/// What can be done with branches.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Lets a branch be tried again, with a fresh budget of attempts
    ///
    /// Of one branch, or of all that wait and fit the filters: they are listed and counted, and nothing is done
    /// before that count is typed, or given with --yes. Each journal keeps the reason and the person. What comes to
    /// wait later is not swept up. Exit code 1 if any of them could not be retried.
    #[command(override_usage = "\
        backstop branch retry <SAGA> <STEP> --reason <WHY>\n       \
        backstop branch retry <--all|FILTERS> --reason <WHY> [--dry-run|--yes <COUNT>]")]
    #[command(after_help = "Examples:\n  \
        backstop branch retry pay-7 credit --reason 'account unlocked'\n  \
        backstop branch retry --all --definition transfer --participant ledger_b --reason 'ledger_b is back' --dry-run\n  \
        backstop branch retry --fin-code FIN-50099 --reason 'rights restored' --rate 5 --yes 120")]
    Retry(Decision),
    /// Settles a branch by what is true of it; the saga goes on from there
    ///
    /// Of one branch, or of all that wait and fit the filters, as `branch retry` does it. Branches of which the
    /// resolution cannot be true are left out.
    #[command(override_usage = "\
        backstop branch resolve <SAGA> <STEP> --resolution <WHAT> --reason <WHY>\n       \
        backstop branch resolve <--all|FILTERS> --resolution <WHAT> --reason <WHY> [--dry-run|--yes <COUNT>]")]
    #[command(after_help = "Examples:\n  \
        backstop branch resolve pay-7 credit --resolution undone --reason 'booked back by hand, ticket 4711'\n  \
        backstop branch resolve --participant ledger_b --resolution undone --reason 'booked back in one file' --dry-run")]
    Resolve {
        /// What is decided about which branches.
        #[command(flatten)]
        decision: Decision,
        /// What was found to be true, or was done by hand
        #[arg(long, value_name = "WHAT")]
        resolution: Resolution,
    },
}

/// Which branches, and what the journal keeps about the decision.
#[derive(Debug, clap::Args)]
pub(crate) struct Decision {
    /// The saga
    #[arg(required_unless_present = "Many", conflicts_with_all = ["Many", "BatchArgs"], requires = "step")]
    saga: Option<String>,
    /// The step
    step: Option<String>,
    /// Why; stays in the journal
    #[arg(long)]
    reason: String,
    /// Who; stays in the journal
    #[arg(long, value_name = "WHO", env = "USER", hide_env_values = true)]
    by: String,
    #[command(flatten)]
    many: Many,
    #[command(flatten)]
    batch: BatchArgs,
}

/// Which of the branches that wait are meant.
#[derive(Debug, clap::Args)]
#[group(id = "Many", multiple = true)]
struct Many {
    /// Every branch that waits for a person, unless filters narrow it
    #[arg(long, help_heading = "Many at once")]
    all: bool,
    /// Only sagas of this definition
    #[arg(long, value_name = "NAME", help_heading = "Many at once")]
    definition: Option<String>,
    /// Only branches that call this participant
    #[arg(long, value_name = "NAME", help_heading = "Many at once")]
    participant: Option<String>,
    /// Only branches that wait with this code
    #[arg(long, value_name = "FIN-nnnnn", help_heading = "Many at once")]
    fin_code: Option<String>,
    /// Only sagas to which nothing has happened for this long
    #[arg(long, value_name = "DURATION", value_parser = super::text::parse_duration, help_heading = "Many at once")]
    older_than: Option<std::time::Duration>,
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
        let (decision, word) = match self {
            Self::Retry(decision) => (decision, Word::Retry),
            Self::Resolve { decision, resolution } => (decision, Word::Resolve(resolution.wire())),
        };
        match (&decision.saga, &decision.step) {
            (Some(saga), Some(step)) => {
                let (saga, step) = (saga.clone(), step.clone());
                one(session, saga, step, decision, word).await
            }
            _ => many(session, decision, word).await,
        }
    }
}

async fn one(
    session: &mut Session<'_>,
    saga_id: String,
    step: String,
    decision: Decision,
    word: Word,
) -> Result<Exit, CliError> {
    let connection = session.open().await?;
    let Decision { reason, by, .. } = decision;
    match word {
        Word::Resolve(resolution) => {
            let resolution = resolution.into();
            let request = v1::ResolveBranchRequest { saga_id, step, by, reason, resolution };
            let answer = connection.call(connection.operators().resolve_branch(request)).await?;
            let saga = answer.saga.clone().unwrap_or_default();
            session.show("backstop.v1.ResolveBranchResponse", &answer, |paint| {
                head_and_transcript(&saga, paint)
            })?;
        }
        Word::Retry | Word::Cancel => {
            let request = v1::RetryBranchRequest { saga_id, step, by, reason };
            let answer = connection.call(connection.operators().retry_branch(request)).await?;
            let saga = answer.saga.clone().unwrap_or_default();
            session.show("backstop.v1.RetryBranchResponse", &answer, |paint| {
                head_and_transcript(&saga, paint)
            })?;
        }
    }
    Ok(Exit::Done)
}

/// Characters of the reason why a branch waits, in the list of what is about to be done.
const ABOUT_MAX: usize = 80;

async fn many(session: &mut Session<'_>, decision: Decision, word: Word) -> Result<Exit, CliError> {
    let Decision { reason, by, many, batch, .. } = decision;
    if reason.trim().is_empty() || by.trim().is_empty() {
        return Err(CliError::Unfit("--reason and --by must say why and who: nothing was done".to_owned()));
    }
    let Many { all: _, definition, participant, fin_code, older_than } = many;
    let which = Which { definition, participant, fin_code, older_than };
    let now = Now::on_this_machine();
    let connection = session.open().await?;
    let found = which.find(&connection, batch.limit(), now).await?;
    let mut plan = Plan { is_cut: found.is_cut, ..Plan::default() };
    for saga in &found.sagas {
        for waits in waiting(saga) {
            if !which.takes_branch(waits.fin_code(), waits.participant()) {
                continue;
            }
            if let Word::Resolve(resolution) = word
                && !waits.may_be(resolution)
            {
                plan.unfit += 1;
                continue;
            }
            plan.targets.push(Target {
                saga: saga.id.clone(),
                step: waits.branch.step.clone(),
                definition: format!("{}@{}", saga.definition, saga.revision),
                about: format!(
                    "{} {}: {}",
                    age(now.age(saga)),
                    waits.fin_code(),
                    cut(&waits.why(), ABOUT_MAX)
                ),
            });
        }
    }
    batch::run(session, &connection, &Order { by, reason, word }, plan, &batch).await
}
