//! The `backstop` program: a server, a client, and a demo of both.
//!
//! Only this crate knows all others. It reads the configuration, wires the adapters to the engine and turns
//! outcomes into exit codes.

mod cli;
mod config;
mod demo;
#[cfg(test)]
mod documents;
mod serve;
mod shell;
mod telemetry;

use clap::{CommandFactory, Parser};
use std::io::Write;
use std::process::ExitCode;

/// A saga is some hundred small allocations that are made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Saga orchestrator for systems that move money
#[derive(Debug, Parser)]
#[command(name = "backstop", version, after_help = cli::EXIT_CODES_HELP)]
struct Program {
    #[command(flatten)]
    connect: cli::ConnectArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Shows the whole thing on this machine: a bank, transfers, a rollback, a crash
    Demo(demo::Demo),
    /// Runs a coordinator
    Serve(serve::Serve),
    /// Brings the store's schema up to date
    Migrate(serve::Migrate),
    /// One of the demo's services, as the demo starts it
    #[command(hide = true)]
    DemoService(demo::DemoService),
    #[command(flatten)]
    Client(cli::Command),
    /// Prints the completions of a shell
    Completions(shell::Completions),
    /// Prints a man page, or writes all of them into a directory
    Man(shell::Man),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Named, so that a second provider somewhere in the graph cannot make the choice ambiguous. It fails
    // only if one is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let program = Program::parse();
    let done = match program.command {
        Command::Client(command) => return command.run(&program.connect).await.into(),
        Command::Serve(serve) => serve.run().await,
        Command::Migrate(migrate) => migrate.run().await,
        Command::Demo(demo) => demo.run().await,
        Command::DemoService(service) => service.run().await,
        Command::Completions(completions) => completions.run(Program::command()),
        Command::Man(man) => man.run(Program::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain, once: this is where it is handled.
            let _ = writeln!(std::io::stderr(), "backstop: {error:#}");
            ExitCode::FAILURE
        }
    }
}
