//! `backstop saga cancel`: of one saga, or of all that fit filters.

use super::batch::{self, BatchArgs, Order, Plan, Target, Word};
use super::error::CliError;
use super::gather::heads;
use super::saga::parse_label;
use super::saga_list::{StateName, quoted};
use super::saga_view::head_and_transcript;
use super::text::time;
use super::view::head::state_name;
use super::{Exit, Session};
use backstop_proto::v1::{self, Saga};

/// `saga cancel`.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// The saga
    #[arg(required_unless_present = "Which", conflicts_with_all = ["Which", "BatchArgs"])]
    id: Option<String>,
    /// Why, for the journal; must be given for many at once
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Who, for the journal
    #[arg(
        long,
        value_name = "WHO",
        env = "USER",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    by: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    batch: BatchArgs,
}

/// Which sagas are meant.
#[derive(Debug, clap::Args)]
#[group(id = "Which", multiple = true)]
struct Which {
    /// Every saga that is still going forward, unless filters narrow it
    #[arg(long, help_heading = "Many at once")]
    all: bool,
    /// Only sagas of this definition
    #[arg(long, value_name = "NAME", help_heading = "Many at once")]
    definition: Option<String>,
    /// Only sagas with this label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label, help_heading = "Many at once")]
    labels: Vec<(String, String)>,
    /// Only sagas in this state; may be given several times [default: running, since no other can be cancelled]
    #[arg(long = "state", value_name = "STATE", ignore_case = true, help_heading = "Many at once")]
    states: Vec<StateName>,
    /// More terms, as ListSagas takes them: 'create_time >= "2026-11-23T00:00:00Z"'
    #[arg(long, value_name = "TERMS", help_heading = "Many at once")]
    filter: Option<String>,
}

impl Cancel {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let Self { id: Some(id), reason, by, .. } = self else { return self.many(session).await };
        let connection = session.open().await?;
        let request = v1::CancelSagaRequest { saga_id: id, reason, by };
        let answer = connection.call(connection.sagas().cancel_saga(request)).await?;
        let saga = answer.saga.clone().unwrap_or_default();
        session.show("backstop.v1.CancelSagaResponse", &answer, |paint| head_and_transcript(&saga, paint))?;
        Ok(Exit::Done)
    }

    async fn many(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        if self.reason.trim().is_empty() || self.by.trim().is_empty() {
            let problem = "for many at once, --reason and --by must say why and who: nothing was done";
            return Err(CliError::Unfit(problem.to_owned()));
        }
        let connection = session.open().await?;
        let (sagas, is_cut) = heads(&connection, &self.which.terms(), self.batch.limit()).await?;
        let plan = Plan { targets: sagas.iter().map(target).collect(), is_cut, unfit: 0 };
        let order = Order { by: self.by, reason: self.reason, word: Word::Cancel };
        batch::run(session, &connection, &order, plan, &self.batch).await
    }
}

fn target(saga: &Saga) -> Target {
    Target {
        saga: saga.id.clone(),
        step: String::new(),
        definition: format!("{}@{}", saga.definition, saga.revision),
        about: format!("{} since {}", state_name(saga.state()), time(saga.create_time.as_ref())),
    }
}

impl Which {
    /// The flags as one filter of `ListSagas`.
    fn terms(&self) -> String {
        let states = if self.states.is_empty() { &[StateName::Running][..] } else { &self.states };
        let states: Vec<String> =
            states.iter().map(|state| format!("state = {}", quoted(state_name(state.state())))).collect();
        let mut terms = vec![match states.as_slice() {
            [one] => one.clone(),
            several => format!("({})", several.join(" OR ")),
        }];
        terms.extend(self.definition.iter().map(|name| format!("definition = {}", quoted(name))));
        terms.extend(self.labels.iter().map(|(key, value)| format!("labels.{key} = {}", quoted(value))));
        terms.extend(self.filter.iter().filter(|raw| !raw.trim().is_empty()).cloned());
        terms.join(" AND ")
    }
}
