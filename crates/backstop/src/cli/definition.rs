//! `backstop definition`: what sagas are made of.

use super::connect::{Connection, pages};
use super::error::CliError;
use super::simulate::Simulate;
use super::text::{Cell, DefinitionRef, parse_definition_ref, safe, table, time};
use super::view::diagram::Diagram;
use super::{Exit, Session, file};
use backstop_proto::v1;

/// What can be done with definitions.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Registers a definition from a YAML or JSON file; faults are shown with line and path
    ///
    /// The file has the shape of backstop.v1.Definition in protobuf's JSON mapping; field names may be in
    /// snake_case, enum values short (kind: PIVOT) and durations with any unit (timeout: 500ms). The same
    /// content again changes nothing; other content makes the next revision.
    #[command(after_help = "Example:\n  backstop definition register transfer.yaml")]
    Register(Register),
    /// Lists the newest revision of each definition
    #[command(after_help = "Example:\n  backstop definition list")]
    List,
    /// Shows a revision as a file that can be registered again, or as a diagram
    #[command(after_help = "Examples:\n  backstop definition show transfer@3 > transfer.yaml\n  \
                            backstop definition show transfer --dot > transfer.dot")]
    Show {
        /// Its name, with @REVISION for another than the newest
        #[arg(value_name = "NAME[@REV]", value_parser = parse_definition_ref)]
        definition: DefinitionRef,
        /// Print its steps as a Mermaid flowchart instead
        #[arg(long, conflicts_with = "dot")]
        mermaid: bool,
        /// Print its steps as a Graphviz graph instead
        #[arg(long)]
        dot: bool,
    },
    /// Plays a definition through without calling anybody: each step fails in each way
    ///
    /// For each way: what is called in which order, what is undone in which order, who is told, and how the saga
    /// ends; then the failure points that need a person, and why.
    #[command(after_help = "Examples:\n  backstop definition simulate transfer\n  \
                            backstop definition simulate --file transfer.yaml --step credit --transcripts\n  \
                            backstop definition simulate transfer --step credit --mermaid > credit.mmd")]
    Simulate(Simulate),
}

/// `definition register`.
#[derive(Debug, clap::Args)]
pub(crate) struct Register {
    /// The definition; - reads standard input
    file: String,
    /// Check everything and store nothing
    #[arg(long)]
    validate_only: bool,
    /// Message types for participants without reflection: a FileDescriptorSet, dependencies included
    #[arg(long, value_name = "FILE.bin")]
    descriptors: Option<String>,
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Register(register) => register.run(session).await?,
            Self::List => list(session).await?,
            Self::Show { definition, mermaid, dot } => show(session, definition, mermaid, dot).await?,
            Self::Simulate(simulate) => simulate.run(session).await?,
        }
        Ok(Exit::Done)
    }
}

impl Register {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        // All that can be wrong here is found before a server is needed.
        let (name, text) = file::text_of(&self.file)?;
        let (definition, source) = file::definition(&name, &text)?;
        let descriptors = self.descriptors.as_deref().map(super::file::descriptor_set).transpose()?;
        let connection = session.open().await?;
        let request = v1::RegisterDefinitionRequest {
            definition: Some(definition),
            validate_only: self.validate_only,
            descriptors,
        };
        let result = connection.call(connection.definitions().register_definition(request)).await;
        let answer = result.map_err(|error| error.about(source))?;
        let stored = answer.definition.clone().unwrap_or_default();
        let reference = format!("{}@{}", safe(&stored.name), stored.revision);
        session.show("backstop.v1.RegisterDefinitionResponse", &answer, |_| {
            match (self.validate_only, answer.created) {
                (true, _) => format!("{reference} would be valid; nothing was stored"),
                (false, true) => format!("{reference} is registered"),
                (false, false) => format!("{reference} was there already: the same content"),
            }
        })
    }
}

async fn list(session: &mut Session<'_>) -> Result<(), CliError> {
    let connection = &session.open().await?;
    let (definitions, next_page_token) = pages(None, |page_size, page_token| async move {
        let request = v1::ListDefinitionsRequest { page_size, page_token };
        let answer = connection.call(connection.definitions().list_definitions(request)).await?;
        Ok((answer.definitions, answer.next_page_token))
    })
    .await?;
    let all = v1::ListDefinitionsResponse { definitions, next_page_token };
    session.show("backstop.v1.ListDefinitionsResponse", &all, |paint| {
        let rows = all
            .definitions
            .iter()
            .map(|definition| {
                [
                    Cell::from(format!("{}@{}", definition.name, definition.revision)),
                    Cell::from(definition.steps.len().to_string()),
                    Cell::from(time(definition.create_time.as_ref())),
                    Cell::from(definition.description.as_str()),
                ]
            })
            .collect();
        table(["DEFINITION", "STEPS", "REGISTERED", "DESCRIPTION"], rows, paint)
    })
}

async fn show(
    session: &mut Session<'_>,
    definition: DefinitionRef,
    mermaid: bool,
    dot: bool,
) -> Result<(), CliError> {
    let connection: Connection = session.open().await?;
    let request = v1::GetDefinitionRequest { name: definition.name, revision: definition.revision };
    let answer = connection.call(connection.definitions().get_definition(request)).await?;
    let shown = answer.definition.clone().unwrap_or_default();
    if mermaid || dot {
        let diagram = Diagram::of_definition(&shown);
        return Ok(session.terminal.print(&if dot { diagram.dot() } else { diagram.mermaid() })?);
    }
    let yaml = file::write_definition(&shown)?;
    session.show("backstop.v1.GetDefinitionResponse", &answer, |_| {
        let registered = time(shown.create_time.as_ref());
        format!("# {}@{}, registered {registered}\n{yaml}", safe(&shown.name), shown.revision)
    })
}
