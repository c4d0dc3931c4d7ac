//! What documents say of the command line is so: every verb that they name is there, with every flag.
//!
//! Invariants: in `backstop VERB … --flag`, at the beginning of a line of code or of a word in backticks, clap knows the
//! verb and the flag (`every_verb_and_flag_in_documents_is_there`); what it does not know is found
//! (`a_verb_or_flag_that_is_not_there_is_found`).
//!
//! Not here: whether the values are good, which running them shows (`tests/blackbox/pages.rs`).

use crate::Program;
use clap::{Command, CommandFactory};
use std::path::{Path, PathBuf};

const PLACES: [&str; 7] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs", "deploy", "examples", "docker-compose.yml"];

fn program() -> Command {
    let mut program = Program::command();
    // Flags of the program are made known to its verbs.
    program.build();
    program
}

/// What is wrong with a command line, which begins after `backstop`.
fn fault(program: &Command, line: &str) -> Option<String> {
    let mut command = program;
    let mut is_verb = true;
    let mut words = words(line).into_iter();
    while let Some(word) = words.next() {
        if let Some(flag) = word.strip_prefix("--") {
            let name: String = flag.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            match command.get_arguments().find(|known| known.get_long() == Some(&name)) {
                // Its value is no verb.
                Some(known) if known.get_action().takes_values() && !flag.contains('=') => drop(words.next()),
                None if !name.is_empty() && !["help", "version"].contains(&name.as_str()) => {
                    return Some(format!("`{}` has no flag --{name}", command.get_name()));
                }
                Some(_) | None => {}
            }
        } else if is_verb && command.has_subcommands() {
            match command.find_subcommand(&word) {
                Some(verb) => command = verb,
                None if word.chars().all(|c| c.is_ascii_lowercase() || c == '-') => {
                    return Some(format!("`{}` has no verb {word}", command.get_name()));
                }
                // VERB, … and the like.
                None => is_verb = false,
            }
        } else if command.get_arguments().any(clap::Arg::is_trailing_var_arg_set) {
            // All the rest is another program's.
            return None;
        } else {
            is_verb = false;
        }
    }
    None
}

/// The words of a command line as a shell splits them, up to what is another command or a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | ';' | '&' | '>') => break,
            (None, '#') if word.is_empty() => break,
            (None, c) if c.is_whitespace() => {
                words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()))
            }
            (_, c) => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// The command lines in a text: the line, and what stands behind `backstop`.
fn lines(text: &str, is_markdown: bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut joined = String::new();
    let mut begins = 1;
    for (number, line) in text.lines().enumerate() {
        if joined.is_empty() {
            begins = number + 1;
        }
        let line = line.trim().trim_start_matches("$ ").trim_start_matches("target/release/");
        match line.strip_suffix('\\') {
            Some(line) => joined.push_str(line),
            None => {
                let line = std::mem::take(&mut joined) + line;
                let ends_in_prose = is_markdown && line.contains('`');
                let demo = line.split_once("cargo run").and_then(|(_, rest)| rest.split_once(" -- "));
                // What an alert says ends in a command.
                let said = line.split_once(": backstop ").filter(|_| !is_markdown);
                let command = line.strip_prefix("backstop ").or(demo.or(said).map(|(_, command)| command));
                found.extend(command.filter(|_| !ends_in_prose).map(|command| (begins, command.to_owned())));
            }
        }
    }
    // A word in backticks may go over a line's end.
    let mut at = 1;
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1
            && is_markdown
            && let Some(command) = part.strip_prefix("backstop")
        {
            let is_command = command.starts_with([' ', '\n']);
            found.extend(is_command.then(|| (at, command.replace('\n', " "))));
        }
        at += part.matches('\n').count();
    }
    found
}

fn files(place: &Path, found: &mut Vec<PathBuf>) {
    if let Ok(entries) = std::fs::read_dir(place) {
        entries.filter_map(Result::ok).for_each(|entry| files(&entry.path(), found));
    } else {
        found.push(place.to_owned());
    }
}

#[test]
fn every_verb_and_flag_in_documents_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all = Vec::new();
    PLACES.iter().for_each(|place| files(&root.join(place), &mut all));
    let program = program();
    let mut faults = Vec::new();
    let mut count = 0;
    for file in all {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for (number, line) in lines(&text, file.extension().is_some_and(|end| end == "md")) {
            count += 1;
            let place = file.strip_prefix(&root).unwrap_or(&file).display();
            faults.extend(
                fault(&program, &line).map(|fault| format!("{place}:{number}: {fault}: backstop {line}")),
            );
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 80, "only {count} command lines were found");
}

#[test]
fn a_verb_or_flag_that_is_not_there_is_found() {
    let text = "Say `backstop saga show ID`, `backstop\ninterventions list`, `backstop-range chaos`.\n\n    \
                $ backstop saga list --states running   # --no such\n\
                cargo run --release -- demo --exits\n    backstop branch retry pay-1 \\\n      debit --reasons 'a --b'\n\
                `backstop saga start NAME --wait 5s | x --y` backstop is --not\n    backstop VERB --json\n";
    let program = program();
    let found: Vec<_> =
        lines(text, true).iter().filter_map(|(at, line)| Some((*at, fault(&program, line)?))).collect();
    let expected = [
        (4, "`list` has no flag --states"),
        (5, "`demo` has no flag --exits"),
        (6, "`retry` has no flag --reasons"),
        (1, "`backstop` has no verb interventions"),
    ];
    assert_eq!(found, expected.map(|(at, fault)| (at, fault.to_owned())));
}
