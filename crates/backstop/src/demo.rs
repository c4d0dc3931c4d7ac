//! Wires the demo to this program: its services are this binary again, its definition is read by the
//! client's own reader.

use crate::{cli, telemetry};
use anyhow::Context;
use backstop_demo::story::files::DEFINITION_YAML;
use backstop_demo::story::{DemoOptions, Screen, run_demo};
use backstop_demo::{ServiceSpec, run_service};
use std::ffi::OsString;
use std::path::PathBuf;

/// Where the story's definition stands in the repository: the name under which its faults are shown.
const DEFINITION_PATH: &str = "examples/transfer/transfer.yaml";

/// Shows the whole thing on this machine: a bank, transfers, a rollback, a crash
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  backstop demo --exit")]
pub(crate) struct Demo {
    /// End when the story is told, instead of staying up for a look around
    #[arg(long)]
    exit: bool,
    /// Keep databases and logs in this directory, which must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Run the transfers of this file instead of examples/transfer/transfers.csv
    #[arg(long, value_name = "FILE")]
    transfers: Option<PathBuf>,
    /// Open the accounts of this file instead of examples/transfer/accounts.csv
    #[arg(long, value_name = "FILE")]
    accounts: Option<PathBuf>,
    /// Run this definition instead of examples/transfer/transfer.yaml
    #[arg(long, value_name = "FILE")]
    definition: Option<String>,
}

impl Demo {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (name, text) = match &self.definition {
            Some(path) => cli::text_of(path)?,
            None => (DEFINITION_PATH.to_owned(), DEFINITION_YAML.to_owned()),
        };
        let (definition, _source) =
            cli::definition_file(&name, &text).map_err(|error| cli::explained(&error))?;
        let options = DemoOptions {
            program: std::env::current_exe().context("this program cannot be found to start its services")?,
            // A second demo, or a server beside it, must not be in the way; no coordinator outlives the demo.
            serve_args: ["--metrics-listen", "127.0.0.1:0", "--stop-at-stdin-end"]
                .map(OsString::from)
                .to_vec(),
            definition,
            dir: self.dir,
            transfers: self.transfers,
            accounts: self.accounts,
            exit: self.exit,
            screen: Screen::stdout(),
        };
        Ok(run_demo(options).await?)
    }
}

/// One of the demo's services, as the demo starts it
#[derive(Debug, clap::Args)]
pub(crate) struct DemoService {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl DemoService {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let spec = ServiceSpec::from_args(self.args)?;
        let spans = telemetry::service_spans(&spec.name)?;
        let served = run_service(spec).await;
        if let Some(spans) = spans {
            // The exporter needs this runtime, which must not be blocked meanwhile.
            let _sent_or_not = tokio::task::spawn_blocking(move || spans.shutdown()).await;
        }
        Ok(served?)
    }
}
