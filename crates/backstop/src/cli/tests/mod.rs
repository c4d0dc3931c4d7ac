//! The verbs from end to end: a command line in, gRPC to a server with canned answers, text and exit code
//! out.
#![allow(clippy::unwrap_used, clippy::panic)]

pub(super) mod canned;
mod definitions;
mod errors;
mod fixtures;
pub(super) mod interventions;
mod operators;
mod sagas;
mod watching;

use super::out::{Terminal, captured};
use super::{Command, ConnectArgs, Exit};
use clap::Parser;

/// The command line as `main` has it.
#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(subcommand)]
    command: Command,
}

/// What a command left behind.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) exit: Exit,
    pub(super) out: String,
    pub(super) err: String,
}

pub(super) async fn run(server: &str, args: &[&str]) -> Ran {
    let (mut terminal, out, err) = captured::terminal();
    let exit = run_at(server, args, &mut terminal).await;
    // The port is another one each time; that commands to paste name the server is shown elsewhere.
    let out = out.text().replace(&format!(" --server {server}"), "");
    Ran { exit, out, err: err.text() }
}

/// The same, on a terminal of the test's own.
pub(super) async fn run_at(server: &str, args: &[&str], terminal: &mut Terminal) -> Exit {
    let line = [["backstop", "--server", server].as_slice(), args].concat();
    let program = Program::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"));
    program.command.run_on(&program.connect, terminal).await
}

impl ConnectArgs {
    /// As the command line has it, for that server.
    pub(super) fn at(server: &str) -> Self {
        Program::try_parse_from(["backstop", "--server", server, "doctor"]).unwrap().connect
    }
}

/// What clap says of a wrong command line; it exits with 2.
pub(super) fn wrong_usage(args: &[&str]) -> String {
    let error = Program::try_parse_from(std::iter::once(&"backstop").chain(args)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn the_command_line_is_well_formed_and_each_verb_has_an_example() {
    use clap::CommandFactory;
    let command = Program::command();
    command.clone().debug_assert();
    let mut verbs = 0;
    for noun in command.get_subcommands() {
        for verb in noun.get_subcommands() {
            let help = verb.get_after_help().unwrap_or_else(|| panic!("{} has no example", verb.get_name()));
            assert!(help.to_string().contains(&format!("backstop {} {}", noun.get_name(), verb.get_name())));
            verbs += 1;
        }
    }
    assert_eq!(verbs, 18, "every noun was looked at");
}

#[test]
fn examples_in_the_help_are_command_lines() {
    use clap::CommandFactory;
    let mut tried = 0;
    for noun in Program::command().get_subcommands() {
        for verb in noun.get_subcommands() {
            // A long line goes on after a backslash, as in a shell.
            let help = verb.get_after_help().unwrap().to_string().replace("\\\n", " ");
            for line in help.lines().filter(|line| line.trim_start().starts_with("backstop ")) {
                let line = line.split(" > ").next().unwrap().to_owned() + &by_somebody(verb);
                let words = words(&line);
                if let Err(error) = Program::try_parse_from(&words) {
                    panic!("{words:?}: {error}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried >= 15, "{tried}");
}

/// `--by` has no default where `$USER` is not set.
fn by_somebody(verb: &clap::Command) -> String {
    if verb.get_arguments().any(|arg| arg.get_id() == "by") { " --by ann".to_owned() } else { String::new() }
}

/// Splits a shell line; single quotes hold words together.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    for (place, part) in line.trim().split('\'').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
