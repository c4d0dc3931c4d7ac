//! `backstop definition`: what sagas are made of.

use super::connect::{Connection, pages};
use super::error::CliError;
use super::out::{Paint, Style};
use super::saga_view::{state_name, state_style};
use super::text::{Cell, DefinitionRef, parse_definition_ref, safe, short, table, time};
use super::{Exit, Session, file};
use backstop_proto::v1::{self, simulate_definition_response::Run};
use std::fmt::Write;

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
    /// Shows a revision as a file that can be registered again
    #[command(after_help = "Example:\n  backstop definition show transfer@3 > transfer.yaml")]
    Show {
        /// Its name, with @REVISION for another than the newest
        #[arg(value_name = "NAME[@REV]", value_parser = parse_definition_ref)]
        definition: DefinitionRef,
    },
    /// Plays a definition through without calling anybody: each step fails in each way
    #[command(after_help = "Examples:\n  backstop definition simulate transfer\n  \
                            backstop definition simulate --file transfer.yaml --transcripts")]
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

/// `definition simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Simulate {
    /// A registered definition
    #[arg(value_name = "NAME[@REV]", value_parser = parse_definition_ref, required_unless_present = "file")]
    definition: Option<DefinitionRef>,
    /// A definition that need not be registered; - reads standard input
    #[arg(long, conflicts_with = "definition")]
    file: Option<String>,
    /// Also print the journal of each run
    #[arg(long)]
    transcripts: bool,
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Register(register) => register.run(session).await?,
            Self::List => list(session).await?,
            Self::Show { definition } => show(session, definition).await?,
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

async fn show(session: &mut Session<'_>, definition: DefinitionRef) -> Result<(), CliError> {
    let connection: Connection = session.open().await?;
    let request = v1::GetDefinitionRequest { name: definition.name, revision: definition.revision };
    let answer = connection.call(connection.definitions().get_definition(request)).await?;
    let shown = answer.definition.clone().unwrap_or_default();
    let yaml = file::write_definition(&shown)?;
    session.show("backstop.v1.GetDefinitionResponse", &answer, |_| {
        let registered = time(shown.create_time.as_ref());
        format!("# {}@{}, registered {registered}\n{yaml}", safe(&shown.name), shown.revision)
    })
}

impl Simulate {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let (definition, source) = match &self.file {
            None => (None, None),
            Some(path) => {
                let (name, text) = file::text_of(path)?;
                let (definition, source) = file::definition(&name, &text)?;
                (Some(definition), Some(source))
            }
        };
        let registered = self.definition.unwrap_or(DefinitionRef { name: String::new(), revision: 0 });
        let connection = session.open().await?;
        let request = v1::SimulateDefinitionRequest {
            definition,
            name: registered.name,
            revision: registered.revision,
        };
        let result = connection.call(connection.definitions().simulate_definition(request)).await;
        let answer = result.map_err(|error| match source {
            Some(source) => error.about(source),
            None => error,
        })?;
        session.show("backstop.v1.SimulateDefinitionResponse", &answer, |paint| {
            simulation(&answer, self.transcripts, paint)
        })
    }
}

fn simulation(answer: &v1::SimulateDefinitionResponse, transcripts: bool, paint: Paint) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for run in &answer.runs {
        let state = run.end_state();
        let end = paint.apply(state_style(state), state_name(state));
        let _ = writeln!(out, "{}: {end}", paint.apply(Style::Bold, &safe(&title(run))));
        let _ = writeln!(out, "  {}", safe(&run.calls.join(" → ")));
        if transcripts {
            for line in &run.transcript {
                let _ = writeln!(out, "    {}", safe(line));
            }
        }
    }
    if answer.interventions.is_empty() {
        let _ = writeln!(out, "\nNo failure point needs a person.");
    } else {
        let _ = writeln!(out, "\nThese failure points need a person:");
        for point in &answer.interventions {
            let _ = writeln!(out, "  {}", paint.apply(Style::Bad, &safe(point)));
        }
    }
    out
}

fn title(run: &Run) -> String {
    let fault = short(run.fault().as_str_name(), "FAULT_").to_ascii_lowercase().replace('_', " ");
    match (run.step.as_str(), fault.as_str()) {
        ("", _) => "all succeeds".to_owned(),
        (step, "") => step.to_owned(),
        (step, fault) => format!("{step}, {fault}"),
    }
}
