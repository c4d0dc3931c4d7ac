//! `backstop-range`: chaos and load on real processes, on this machine alone.

use backstop_range::report::Report;
use backstop_range::scenario::chaos::Programs;
use backstop_range::{bench, coordinator, ledger, scenario};
use clap::Parser;
use std::io::Write;
use std::path::PathBuf;
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
    /// Also write report.json and, of the chaos, a page report.html into this folder
    #[arg(long, global = true, value_name = "DIR")]
    report: Option<PathBuf>,
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
    /// The same load without traces, with one in a hundred, and with all
    Tracing(scenario::tracing::Tracing),
    /// How fast it is, beside the floor
    Bench(bench::Bench),
    /// What a saga costs beside very many others, and how long a recovery takes
    Growth(bench::growth::Growth),
    /// The coordinator's memory over a long time under load
    Soak(bench::soak::Soak),
    /// From the start of the coordinator to its first saga
    Startup(bench::startup::Startup),
    /// One participant of the benchmark, as the benchmark starts it
    #[command(hide = true)]
    Answer(bench::answer::Answer),
    /// One ledger of the chaos, as the chaos starts it
    #[command(hide = true)]
    Ledger(ledger::Serve),
}

impl Scenario {
    async fn run(&self, program: PathBuf) -> anyhow::Result<Report> {
        match self {
            Self::Chaos(chaos) => {
                let range = std::env::current_exe()?;
                scenario::chaos::run(&Programs { backstop: program, range }, chaos).await
            }
            Self::Frozen(frozen) => scenario::frozen::run(program, frozen).await,
            Self::Rolling(rolling) => scenario::rolling::run(program, rolling).await,
            Self::Parked(parked) => scenario::parked::run(program, parked).await,
            Self::Takeover(takeover) => scenario::takeover::run(program, takeover).await,
            Self::Hanging(hanging) => scenario::hanging::run(program, hanging).await,
            Self::Tracing(tracing) => scenario::tracing::run(program, tracing).await,
            Self::Bench(bench) => bench::run(&program, &std::env::current_exe()?, bench).await,
            Self::Growth(growth) => bench::growth::run(&program, &std::env::current_exe()?, growth).await,
            Self::Soak(soak) => bench::soak::run(&program, &std::env::current_exe()?, soak).await,
            Self::Startup(startup) => bench::startup::run(&program, &std::env::current_exe()?, startup).await,
            // Told apart before: they need no coordinator.
            Self::Ledger(_) | Self::Answer(_) => anyhow::bail!("a participant is no scenario"),
        }
    }
}

fn main() -> ExitCode {
    let program = Program::parse();
    let mut runtime = match &program.scenario {
        // What answers at once needs one thread, and no other thread to be woken.
        Scenario::Answer(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let ended =
        runtime.enable_all().build().map_err(Into::into).and_then(|runtime| runtime.block_on(run(&program)));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // The whole chain, once: this is where it is handled.
            let _ = writeln!(std::io::stderr(), "backstop-range: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(program: &Program) -> anyhow::Result<bool> {
    if let Scenario::Ledger(serve) = &program.scenario {
        return ledger::serve(serve).await.map(|()| true);
    }
    if let Scenario::Answer(answer) = &program.scenario {
        return bench::answer::serve(answer).await.map(|()| true);
    }
    let backstop = coordinator::program(program.backstop.as_deref())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Told to end, the scenario is dropped, and with it all that it started.
    let report = tokio::select! {
        report = program.scenario.run(backstop) => report?,
        _ = terminate.recv() => anyhow::bail!("told to end"),
        _ = interrupt.recv() => anyhow::bail!("told to end"),
    };
    write!(std::io::stdout(), "{}", report.table())?;
    if let Some(json) = &program.json {
        report.write(json)?;
    }
    if let Some(folder) = &program.report {
        report.write_folder(folder)?;
    }
    Ok(report.passed())
}
