//! The client half of the binary: every verb is one or a few gRPC calls, and whatever it can do, `grpcurl`
//! can.
//!
//! Way of a command: clap types (a module for each noun) → `connect` → the call → rendering → `out`.
//! Rendering functions are pure; only `out` writes. Outcomes of sagas become exit codes in [`Exit`].
//!
//! Not here: serving, migrating, the demo (beside this module); rules of any kind: the server judges.

mod batch;
mod branch;
mod cancel;
mod conformance;
mod connect;
mod definition;
mod error;
mod file;
mod gather;
mod intervention;
mod intervention_view;
mod json;
mod live;
mod operator;
mod out;
mod participant;
mod saga;
mod saga_list;
mod saga_show;
mod saga_view;
mod simulate;
mod text;
mod top;
mod view;
mod waiting;
mod watch;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::words;

pub(crate) use connect::ConnectArgs;
pub(crate) use file::{definition as definition_file, text_of};

use connect::Connection;
use error::CliError;
use out::Terminal;
use std::process::ExitCode;

/// For the end of the program's `--help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  failed: nothing was done, or it is not known what was done
  2  the command line is wrong
  3  the saga was rolled back       (saga start --wait, saga watch)
  4  the saga needs a person        (saga start --wait, saga watch; intervention list --fail-if-any)";

/// The verbs of the client.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Registers, shows and simulates definitions of sagas
    #[command(subcommand)]
    Definition(definition::Verb),
    /// Starts, shows, watches and cancels sagas
    #[command(subcommand)]
    Saga(saga::Verb),
    /// Settles branches that wait for a person
    #[command(subcommand)]
    Branch(branch::Verb),
    /// Shows the sagas that wait for a person
    #[command(subcommand)]
    Intervention(intervention::Verb),
    /// Registers and shows the services that take part in sagas
    #[command(subcommand)]
    Participant(participant::Verb),
    /// Shows the coordinators of the store
    #[command(subcommand)]
    Coordinator(operator::CoordinatorVerb),
    /// Shows what all coordinators are doing, live: sagas, interventions, journal, leases, slow participants
    ///
    /// On a terminal a screen that is drawn anew at each look: q quits, p pauses, s changes the order. Elsewhere, or
    /// with --once, one snapshot. With --output json one line a look, with --once one document. A coordinator that
    /// cannot be reached from here is shown as such.
    #[command(after_help = "Examples:\n  \
        backstop top\n  \
        backstop top --once --sort failing\n  \
        backstop top --output json --every 10s")]
    Top(top::Top),
    /// Looks for sagas that nobody will finish, broken journals, bad leases; 1 if there are any
    #[command(after_help = "Examples:\n  backstop doctor\n  backstop doctor --full")]
    Doctor(operator::Doctor),
    /// Shows the table by which failures are judged
    #[command(after_help = "Example:\n  backstop error-table payment")]
    ErrorTable(operator::ErrorTable),
}

/// An error of this half, as text for a command of the other half.
pub(crate) fn explained(error: &CliError) -> anyhow::Error {
    anyhow::Error::msg(error.render(Terminal::stdio().paint_err))
}

/// How a command ends for the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Failed; 2 is clap's, for a wrong command line.
    Failed,
    /// The saga was rolled back.
    RolledBack,
    /// The saga needs a person.
    NeedsIntervention,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::RolledBack => 3,
            Exit::NeedsIntervention => 4,
        })
    }
}

impl Command {
    /// Runs the command on the process's own terminal. Errors are told there; nothing is left to report.
    pub(crate) async fn run(self, connect: &ConnectArgs) -> Exit {
        self.run_on(connect, &mut Terminal::stdio()).await
    }

    async fn run_on(self, connect: &ConnectArgs, terminal: &mut Terminal) -> Exit {
        let connect = &connect.settled();
        let mut session = Session { connect, terminal };
        let result = match self {
            Self::Definition(verb) => verb.run(&mut session).await,
            Self::Saga(verb) => verb.run(&mut session).await,
            Self::Branch(verb) => verb.run(&mut session).await,
            Self::Intervention(verb) => verb.run(&mut session).await,
            Self::Participant(verb) => verb.run(&mut session).await,
            Self::Coordinator(verb) => verb.run(&mut session).await,
            Self::Top(top) => top.run(&mut session).await,
            Self::Doctor(doctor) => doctor.run(&mut session).await,
            Self::ErrorTable(table) => table.run(&mut session).await,
        };
        match result {
            Ok(exit) => exit,
            Err(error) if error.is_reader_gone() => Exit::Done,
            Err(error) => {
                // If standard error is gone too, the exit code is all that is left.
                let _ = terminal.note(&error.render(terminal.paint_err));
                Exit::Failed
            }
        }
    }
}

/// What every verb gets: the way to the server and the way to the user.
struct Session<'a> {
    connect: &'a ConnectArgs,
    terminal: &'a mut Terminal,
}

impl Session<'_> {
    async fn open(&self) -> Result<Connection, CliError> {
        Connection::open(self.connect).await
    }

    /// Shows an answer: as JSON if that was asked for, otherwise as `text` renders it.
    fn show<M: prost::Message>(
        &mut self,
        full_name: &str,
        answer: &M,
        text: impl FnOnce(out::Paint) -> String,
    ) -> Result<(), CliError> {
        let shown =
            if self.connect.json { json::pretty(full_name, answer)? } else { text(self.terminal.paint) };
        Ok(self.terminal.print(&shown)?)
    }
}
