//! `backstop-range`: chaos and load on real processes, on this machine alone.

use backstop_range::report::Report;
use backstop_range::{coordinator, scenario};
use clap::Parser;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Chaos and load on real processes: Postgres, coordinators, participants, cut wires
#[derive(Debug, Parser)]
#[command(
    name = "backstop-range",
    version,
    after_help = "Exit codes: 0 all promises held, 1 one was broken, 2 the range itself could not go on."
)]
struct Program {
    /// The backstop binary [default: the one beside this program]
    #[arg(long, global = true, value_name = "PATH")]
    backstop: Option<PathBuf>,
    /// Also write the figures to this file
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, clap::Subcommand)]
enum Scenario {
    /// Kills, freezes, cut wires and Postgres restarts under load; then the books must agree
    Chaos(scenario::chaos::Chaos),
    /// A frozen coordinator wakes with answers in its sockets and must do no harm
    Frozen(scenario::frozen::Frozen),
    /// Every coordinator is restarted in order under load
    Rolling(scenario::rolling::Rolling),
    /// Very many sagas wait for a far day
    Parked(scenario::parked::Parked),
    /// Two coordinators take over very many sagas of a dead one
    Takeover(scenario::takeover::Takeover),
    /// Sagas that hang beside healthy ones
    Hanging(scenario::hanging::Hanging),
}

impl Scenario {
    async fn run(&self, program: PathBuf) -> anyhow::Result<Report> {
        match self {
            Self::Chaos(chaos) => scenario::chaos::run(program, chaos).await,
            Self::Frozen(frozen) => scenario::frozen::run(program, frozen).await,
            Self::Rolling(rolling) => scenario::rolling::run(program, rolling).await,
            Self::Parked(parked) => scenario::parked::run(program, parked).await,
            Self::Takeover(takeover) => scenario::takeover::run(program, takeover).await,
            Self::Hanging(hanging) => scenario::hanging::run(program, hanging).await,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let program = Program::parse();
    match run(&program.scenario, program.backstop.as_deref(), program.json.as_deref()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // The whole chain, once: this is where it is handled.
            let _ = writeln!(std::io::stderr(), "backstop-range: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(scenario: &Scenario, backstop: Option<&Path>, json: Option<&Path>) -> anyhow::Result<bool> {
    let backstop = coordinator::program(backstop)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Told to end, the scenario is dropped, and with it all that it started.
    let report = tokio::select! {
        report = scenario.run(backstop) => report?,
        _ = terminate.recv() => anyhow::bail!("told to end"),
        _ = interrupt.recv() => anyhow::bail!("told to end"),
    };
    write!(std::io::stdout(), "{}", report.table())?;
    if let Some(json) = json {
        report.write(json)?;
    }
    Ok(report.passed())
}
