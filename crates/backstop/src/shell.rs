//! Completions and man pages, written from the very tree of verbs that the program parses by.
//!
//! Invariants: every verb that is not hidden has its completion and its page
//! (`every_verb_has_a_page_and_is_named_in_the_first`; on the real binary `tests/blackbox/shell.rs`).

use anyhow::{Context, Result, bail};
use clap::Command;
use std::io::Write;
use std::path::PathBuf;

/// `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    backstop completions bash > /etc/bash_completion.d/backstop\n  \
    backstop completions zsh > ~/.zfunc/_backstop\n  \
    backstop completions fish > ~/.config/fish/completions/backstop.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    backstop man | man -l -\n  \
    backstop man saga cancel | man -l -\n  \
    backstop man --dir /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The verb whose page to print [default: the program's own, which names every verb]
    #[arg(value_name = "VERB", conflicts_with = "dir")]
    verb: Vec<String>,
    /// Write the pages of all verbs there: backstop.1, backstop-saga-cancel.1, …
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self, mut program: Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "backstop", &mut script);
        print(&script)
    }
}

impl Man {
    pub(crate) fn run(self, program: Command) -> Result<()> {
        let pages = pages(program)?;
        let Some(dir) = self.dir else {
            let wanted = std::iter::once("backstop").chain(self.verb.iter().map(String::as_str));
            let wanted = wanted.collect::<Vec<_>>().join("-");
            return match pages.iter().find(|page| page.name == wanted) {
                Some(page) => print(&page.roff),
                None => bail!("there is no verb `{}`: `backstop --help` names them", self.verb.join(" ")),
            };
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        for page in pages {
            let file = dir.join(format!("{}.1", page.name));
            std::fs::write(&file, page.roff)
                .with_context(|| format!("{} cannot be written", file.display()))?;
        }
        Ok(())
    }
}

/// A man page.
struct Page {
    /// `backstop-saga-cancel`.
    name: String,
    roff: Vec<u8>,
}

/// The page of the program and those of all its verbs, down to the last.
fn pages(mut program: Command) -> Result<Vec<Page>> {
    // Names, usages and global flags are filled in.
    program.build();
    let mut pages = Vec::new();
    let mut verbs = Vec::new();
    collect(&program, "backstop", &mut pages, &mut verbs)?;
    let first = pages.iter_mut().find(|page| page.name == "backstop").context("the program has a page")?;
    first.roff.extend_from_slice(overview(&verbs).as_bytes());
    Ok(pages)
}

/// A verb that does something, and what that is.
type Verb = (String, String);

fn collect(command: &Command, line: &str, pages: &mut Vec<Page>, verbs: &mut Vec<Verb>) -> Result<()> {
    let mut roff = Vec::new();
    let name = line.replace(' ', "-");
    clap_mangen::Man::new(command.clone().display_name(name.clone()))
        .title(name.clone())
        .render(&mut roff)
        .context("a page could not be written")?;
    pages.push(Page { name, roff });
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        let line = format!("{line} {}", verb.get_name());
        if !verb.has_subcommands() {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            verbs.push((line.clone(), about));
        }
        collect(verb, &line, pages, verbs)?;
    }
    Ok(())
}

/// A section that names every verb that does something.
fn overview(verbs: &[Verb]) -> String {
    let entries =
        verbs.iter().map(|(verb, about)| format!(".TP\n\\fB{}\\fR\n\\&{}\n", escaped(verb), escaped(about)));
    format!(".SH \"ALL VERBS\"\n{}", entries.collect::<String>())
}

/// A text that roff shows as it is.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('-', "\\-").replace('\n', " ")
}

fn print(text: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(text) {
        // Whoever read it has what they wanted.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("the result cannot be written"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    fn text_of(pages: &[Page], name: &str) -> String {
        let page =
            pages.iter().find(|page| page.name == name).unwrap_or_else(|| unreachable!("no page {name}"));
        String::from_utf8(page.roff.clone()).unwrap().replace("\\-", "-").replace("\\*(Aq", "'")
    }

    #[test]
    fn every_verb_has_a_page_and_is_named_in_the_first() {
        let program = crate::Program::command();
        let pages = pages(program.clone()).unwrap();
        let first = text_of(&pages, "backstop");
        let mut looked_at = 0;
        let mut open: Vec<(String, &Command)> = vec![("backstop".to_owned(), &program)];
        while let Some((path, command)) = open.pop() {
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let path = format!("{path} {}", verb.get_name());
                let page = text_of(&pages, &path.replace(' ', "-"));
                assert!(page.contains(&verb.get_about().unwrap().to_string()), "{path}");
                if !verb.has_subcommands() {
                    assert!(first.contains(&format!("\\fB{path}\\fR")), "{path} is not in\n{first}");
                    looked_at += 1;
                }
                open.push((path, verb));
            }
        }
        assert!(looked_at > 25, "{looked_at}");
        assert!(!first.contains("demo-service"), "what is hidden stays hidden");
    }

    #[test]
    fn every_verb_that_asks_or_prints_has_examples_that_are_command_lines() {
        use clap::Parser;
        let program = crate::Program::command();
        let mut tried = 0;
        let mut open: Vec<&Command> = program.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
        while let Some(verb) = open.pop() {
            open.extend(verb.get_subcommands());
            // Those that run something tell of themselves at length.
            if verb.has_subcommands() || ["demo", "serve", "migrate"].contains(&verb.get_name()) {
                continue;
            }
            let help =
                verb.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n", " ");
            let examples = help.lines().filter(|line| line.trim_start().starts_with("backstop "));
            let by = if verb.get_arguments().any(|arg| arg.get_id() == "by") { " --by ann" } else { "" };
            let before = tried;
            for example in examples {
                let line = example.split(" > ").next().unwrap().split(" | ").next().unwrap().to_owned() + by;
                let words = crate::cli::words(&line);
                if let Err(error) = crate::Program::try_parse_from(&words) {
                    unreachable!("{words:?}: {error}");
                }
                tried += 1;
            }
            assert!(tried > before, "{} has no example", verb.get_name());
        }
        assert!(tried > 30, "{tried}");
    }

    #[test]
    fn a_page_shows_flags_and_examples() {
        let pages = pages(crate::Program::command()).unwrap();
        let page = text_of(&pages, "backstop-saga-cancel");
        assert!(page.contains("--reason") && page.contains("backstop saga cancel pay-7"), "{page}");
        assert!(page.contains("--server"), "global flags are on every page: {page}");
    }
}
