//! `backstop saga show`: fetches all that is known of one saga, and shows it.
//!
//! The saga itself must come; its events and its definition make the picture fuller, and one that does not come is
//! said to be missing instead of failing the whole.

use super::connect::{Connection, SERVER_DEFAULT};
use super::error::CliError;
use super::text::shell_word;
use super::view::diagram::Diagram;
use super::view::{self, Canvas, Part, Story, sequence};
use super::{Exit, Session, json};
use backstop_proto::v1::{self, Definition, Event, Saga};

/// `saga show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The saga
    id: String,
    /// Also show its input, which may hold personal data
    #[arg(long)]
    full: bool,
    /// Only these parts, in full; may be given several times, or with commas
    #[arg(long, value_name = "PART", value_delimiter = ',', conflicts_with_all = ["mermaid", "dot", "full"])]
    only: Vec<Part>,
    /// Print a Mermaid diagram instead: of its steps, or of its attempts in their order
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "steps", conflicts_with = "dot")]
    mermaid: Option<MermaidOf>,
    /// Print its steps as a Graphviz graph instead
    #[arg(long)]
    dot: bool,
    /// Draw with ASCII alone [default: by the locale]
    #[arg(long)]
    ascii: bool,
}

/// What a Mermaid diagram shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MermaidOf {
    /// The steps with their states, as a flowchart
    Steps,
    /// The attempts in their order, as a sequence diagram
    Attempts,
}

impl Show {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let connection = session.open().await?;
        let view = if self.full { v1::SagaView::Full } else { v1::SagaView::Basic };
        let request = v1::GetSagaRequest { saga_id: self.id.clone(), view: view.into() };
        let answer = connection.call(connection.sagas().get_saga(request)).await?;
        if session.connect.json {
            session.show("backstop.v1.GetSagaResponse", &answer, |_| String::new())?;
            return Ok(Exit::Done);
        }
        let saga = answer.saga.unwrap_or_default();
        let text = match (self.mermaid, self.dot) {
            (Some(MermaidOf::Steps), _) => Diagram::of_saga(&saga).mermaid(),
            (None, true) => Diagram::of_saga(&saga).dot(),
            (Some(MermaidOf::Attempts), _) => {
                let events = events(&connection, &saga).await?;
                let definition = definition(&connection, &saga).await.ok();
                sequence::of_saga(&saga, &events, definition.as_ref())
            }
            (None, false) => self.screen(session, &connection, saga).await?,
        };
        session.terminal.print(&text)?;
        Ok(Exit::Done)
    }

    async fn screen(
        &self,
        session: &mut Session<'_>,
        connection: &Connection,
        saga: Saga,
    ) -> Result<String, CliError> {
        let input = saga.input.clone();
        let story = story(connection, saga, session).await?;
        let screen = session.terminal.screen();
        let mut canvas = Canvas::new(session.terminal.paint, screen, view::now());
        canvas.is_ascii |= self.ascii;
        let shown = view::show(&story, &self.only, &canvas);
        Ok(match input {
            // First, so that what is to be done stays next to the prompt.
            Some(input) => {
                let input = json::harmless(&format!("{:#}\n", json::of_struct(&input)));
                format!("INPUT\n{input}\n{shown}")
            }
            None => shown,
        })
    }
}

/// A saga with its events and its definition, as far as they come.
async fn story(connection: &Connection, saga: Saga, session: &mut Session<'_>) -> Result<Story, CliError> {
    let has_journal = saga.quarantine.is_empty() && !saga.journal_retired;
    let (events, definition) = tokio::join!(
        async { if has_journal { events(connection, &saga).await.map(Some) } else { Ok(None) } },
        definition(connection, &saga)
    );
    let mut missing = |what: &str, error: &CliError| {
        session.terminal.note(&format!("note: {what} could not be had, and is left out ({error})"))
    };
    let events = match events {
        Ok(events) => events,
        Err(error) => {
            missing("the saga's events", &error)?;
            None
        }
    };
    let definition = match definition {
        Ok(definition) => Some(definition),
        Err(error) => {
            missing("the saga's definition", &error)?;
            None
        }
    };
    Ok(Story { saga, events, definition, server_flag: server_flag(&session.connect.server) })
}

/// The events up to the last that the saga as shown knows of: the stream itself goes on until the saga ends.
pub(super) async fn events(connection: &Connection, saga: &Saga) -> Result<Vec<Event>, CliError> {
    if saga.seq == 0 {
        return Ok(Vec::new());
    }
    let request = v1::WatchSagaRequest { saga_id: saga.id.clone(), after_seq: 0 };
    let mut stream = connection.call(connection.sagas().watch_saga(request)).await?;
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.seq < saga.seq) {
        let next = async { Ok::<_, tonic::Status>(tonic::Response::new(stream.message().await?)) };
        let Some(answer) = connection.call(next).await? else { break };
        events.extend(answer.event);
    }
    Ok(events)
}

/// The revision that a saga runs.
pub(super) async fn definition(connection: &Connection, saga: &Saga) -> Result<Definition, CliError> {
    let request = v1::GetDefinitionRequest { name: saga.definition.clone(), revision: saga.revision };
    let answer = connection.call(connection.definitions().get_definition(request)).await?;
    answer.definition.ok_or_else(|| CliError::Mapping("the answer has no definition".to_owned()))
}

/// ` --server URL` for commands that are to be pasted, unless they find the server without.
pub(super) fn server_flag(server: &str) -> String {
    let found = std::env::var("BACKSTOP_SERVER").ok().filter(|value| !value.is_empty());
    if server == found.as_deref().unwrap_or(SERVER_DEFAULT) {
        String::new()
    } else {
        format!(" --server {}", shell_word(server))
    }
}
