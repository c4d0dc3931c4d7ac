//! `backstop saga`: runs of definitions.

use super::cancel::Cancel;
use super::connect::Connection;
use super::error::CliError;
use super::saga_list::List;
use super::saga_show::Show;
use super::saga_view::head_and_transcript;
use super::text::{DefinitionRef, parse_definition_ref, parse_duration, to_wire};
use super::view::head::state_name;
use super::{Exit, Session, file, watch};
use crate::telemetry::Caller;
use backstop_proto::v1::{self, SagaState};
use std::time::Duration;

/// What can be done with sagas.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Starts a saga; with --wait, its end becomes the exit code
    ///
    /// Exit codes with --wait: 0 succeeded, 3 rolled back, 4 needs a person, 1 still going on when the
    /// time was up. Without: 0 accepted. Asking again with the same --id never starts a second saga.
    ///
    /// With OTEL_EXPORTER_OTLP_ENDPOINT set, the call is a span of its own, sent there, and the saga's trace begins
    /// with it; TRACEPARENT names the span above it, if there is one.
    #[command(after_help = "Examples:\n  \
        backstop saga start transfer --id pay-7 --input '{\"from\": \"a\", \"to\": \"b\", \"amount\": \"1050\"}' --wait 30s\n  \
        backstop saga start transfer@3 --input @pay-7.json --label customer=42")]
    Start(Start),
    /// Shows a saga: what happened, why it waits, what is exposed, what is awaited, what to type next
    ///
    /// What a person needs to act on comes last, next to the prompt. Times to come are by this machine's clock.
    #[command(after_help = "Examples:\n  backstop saga show pay-7\n  \
                            backstop saga show pay-7 --only exposed,awaited,next\n  \
                            backstop saga show pay-7 --mermaid=attempts\n  \
                            backstop saga show pay-7 --dot > pay-7.dot")]
    Show(Show),
    /// Lists sagas, newest first
    #[command(after_help = "Examples:\n  \
                            backstop saga list --state needs-intervention --definition transfer --since 12h\n  \
                            backstop saga list --columns id,state,started,label.customer\n  \
                            backstop saga list --state running --watch 5s")]
    List(List),
    /// Prints a saga's events as they happen, until it ends or needs a person
    ///
    /// On a terminal, what it waits for stands below them. A broken connection loses no event.
    ///
    /// Exit codes: 0 succeeded, 3 rolled back, 4 needs a person.
    #[command(after_help = "Example:\n  backstop saga watch pay-7")]
    Watch {
        /// The saga
        id: String,
        /// Leave out the events up to this number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
    /// Takes a saga out of quarantine, once its journal has been mended
    #[command(
        after_help = "Example:\n  backstop saga release pay-7 --reason 'event 3 restored from the backup'"
    )]
    Release {
        /// The saga
        id: String,
        /// What was done about its journal, for the log
        #[arg(long)]
        reason: String,
        /// Who, for the log
        #[arg(long, value_name = "WHO", env = "USER", hide_env_values = true)]
        by: String,
    },
    /// Asks for a rollback; answers once that is decided for good
    ///
    /// Of one saga, or of all that fit the filters: they are listed and counted, and nothing is done before that
    /// count is typed, or given with --yes. Each journal keeps the reason and the person. What starts later is not
    /// swept up. Exit code 1 if any of them could not be cancelled.
    #[command(override_usage = "\
        backstop saga cancel <ID> [--reason <WHY>]\n       \
        backstop saga cancel <--all|FILTERS> --reason <WHY> [--dry-run|--yes <COUNT>]")]
    #[command(after_help = "Examples:\n  \
        backstop saga cancel pay-7 --reason 'ordered twice'\n  \
        backstop saga cancel --definition transfer --label customer=42 --reason 'fraud' --dry-run\n  \
        backstop saga cancel --definition transfer --reason 'wrong rate' --rate 5 --yes 120")]
    Cancel(Cancel),
}

/// `saga start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// The definition, with @REVISION for another than the newest
    #[arg(value_name = "DEFINITION[@REV]", value_parser = parse_definition_ref)]
    definition: DefinitionRef,
    /// The saga's id; the same id with the same request finds the saga that is there [default: a new UUIDv7]
    #[arg(long)]
    id: Option<String>,
    /// What templates see as `input`: JSON or YAML, @FILE, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    input: Option<String>,
    /// For finding it again; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Wait this long for its end; at most 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
}

pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("say KEY=VALUE, such as customer=42".to_owned()),
    }
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Start(start) => start.run(session).await,
            Self::Show(show) => show.run(session).await,
            Self::List(list) => list.run(session).await,
            Self::Watch { id, after } => watch::run(session, id, after).await,
            Self::Release { id, reason, by } => {
                let connection = session.open().await?;
                let request = v1::ReleaseSagaRequest { saga_id: id, by, reason };
                let answer = connection.call(connection.operators().release_saga(request)).await?;
                let saga = answer.saga.clone().unwrap_or_default();
                session.show("backstop.v1.ReleaseSagaResponse", &answer, |paint| {
                    head_and_transcript(&saga, paint)
                })?;
                Ok(Exit::Done)
            }
            Self::Cancel(cancel) => cancel.run(session).await,
        }
    }
}

impl Start {
    async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let input = self.input.as_deref().map(read_input).transpose()?;
        let (input, source) = input.unzip();
        // An id of our own makes a lost answer harmless: the saga can be found, and asked for again.
        let id = self.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let connection = session.open().await?;
        let request = v1::StartSagaRequest {
            saga_id: id.clone(),
            definition: self.definition.name,
            revision: self.definition.revision,
            input,
            labels: self.labels.into_iter().collect(),
            wait: self.wait.map(to_wire),
            ..v1::StartSagaRequest::default()
        };
        let wait = self.wait.unwrap_or_default();
        let mut request = tonic::Request::new(request);
        let caller = Caller::begin("backstop.v1.SagaService/StartSaga", request.metadata_mut())
            .map_err(|error| CliError::Unfit(format!("{error:#}")))?;
        let answered = connection.call_waiting(wait, connection.sagas().start_saga(request)).await;
        if let Some(caller) = caller {
            caller.end(answered.is_err()).await;
        }
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                if error.is_in_doubt() {
                    session.terminal.note(&format!(
                        "note: saga {} may have been started; the same command with --id finds it",
                        super::text::safe(&id)
                    ))?;
                }
                return Err(match source {
                    Some(source) => error.about(source),
                    None => error,
                });
            }
        };
        let mut saga = answer.saga.clone().unwrap_or_default();
        if self.wait.is_some() && saga.transcript.is_empty() && !session.connect.json {
            saga.transcript = transcript(&connection, &saga.id).await;
        }
        session.show("backstop.v1.StartSagaResponse", &answer, |paint| head_and_transcript(&saga, paint))?;
        if !answer.created {
            session.terminal.note("note: this saga was there already; nothing was started")?;
        }
        let Some(waited) = self.wait else {
            return Ok(Exit::Done);
        };
        match end_of(saga.state()) {
            Some(exit) => Ok(exit),
            None => {
                session.terminal.note(&format!(
                    "note: still {} after {}; it goes on by itself: backstop saga watch {}",
                    state_name(saga.state()),
                    super::text::duration(waited),
                    super::text::safe(&saga.id)
                ))?;
                Ok(Exit::Failed)
            }
        }
    }
}

/// The journal of a saga whose outcome is known already: worth a call, but no failure if it does not come.
async fn transcript(connection: &Connection, saga_id: &str) -> Vec<String> {
    let request = v1::GetSagaRequest { saga_id: saga_id.to_owned(), view: v1::SagaView::Basic.into() };
    let answer = connection.call(connection.sagas().get_saga(request)).await;
    answer.ok().and_then(|answer| answer.saga).map(|saga| saga.transcript).unwrap_or_default()
}

/// What the end of a saga means for the shell; `None` while it is going on.
pub(super) fn end_of(state: SagaState) -> Option<Exit> {
    match state {
        SagaState::Succeeded => Some(Exit::Done),
        SagaState::RolledBack => Some(Exit::RolledBack),
        SagaState::NeedsIntervention => Some(Exit::NeedsIntervention),
        SagaState::Running | SagaState::RollingBack | SagaState::Unspecified => None,
    }
}

fn read_input(given: &str) -> Result<(prost_types::Struct, file::Source), CliError> {
    let (name, text) = match given.strip_prefix('@') {
        Some(path) => file::text_of(path)?,
        None if given == "-" => file::text_of("-")?,
        None => ("--input".to_owned(), given.to_owned()),
    };
    file::input(&name, &text)
}
