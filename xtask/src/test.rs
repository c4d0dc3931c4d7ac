//! Runs every test of the workspace and counts them over all test binaries.
//!
//! A binary that ends without its own summary (it crashed, or did not compile) counts as one failure, so
//! the last line cannot say `0 failed` of a run that did not finish. What failed is named again just before it: who
//! reads only the end of a long log has to know where to look.

use crate::prerequisites;
use crate::process::{cargo, show};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

/// Sums over the summaries of libtest.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
    binaries: u64,
    /// The names of those that failed, in the order of the log.
    names: Vec<String>,
}

/// Runs them; `arguments` go to `cargo test`. Its last line says how many passed and failed.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let prerequisites = prerequisites::ensure()?;
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]);
    if !arguments.iter().take_while(|word| *word != "--").any(|word| word == "-p" || word == "--package") {
        command.arg("--workspace");
    }
    command
        .args(arguments)
        .env("BACKSTOP_TEST_PG_BIN", &prerequisites.postgres_bin)
        .env("BACKSTOP_TEST_GRPCURL", &prerequisites.grpcurl)
        .env("BACKSTOP_TEST_PYTHON", &prerequisites.python)
        .env("BACKSTOP_TEST_FAKETIME", &prerequisites.faketime)
        .env("BACKSTOP_TEST_PREVIOUS", &prerequisites.previous)
        .stdout(Stdio::piped());
    // Whatever looks for Postgres in PATH finds the same one.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([prerequisites.postgres_bin.clone()]);
    command.env("PATH", std::env::join_paths(dirs)?);
    println!("$ {}", show(&command));
    let mut child = command.spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut count = Count::default();
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        count.take(&String::from_utf8_lossy(&line));
    }
    drop(out);
    let status = child.wait()?;
    if !status.success() && count.failed == 0 {
        println!("\ncargo test ended with {status} and no test says why: counted as one failure");
        count.failed = 1;
    }
    if !count.names.is_empty() {
        println!("\nfailed:\n    {}", count.names.join("\n    "));
    }
    let ran = count.passed + count.failed;
    println!("\n{ran} tests ran in {} test binaries; {} ignored", count.binaries, count.ignored);
    println!("{} passed, {} failed", count.passed, count.failed);
    // A run of nothing proves nothing.
    let is_good = status.success() && count.failed == 0 && ran > 0;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Count {
    /// Takes in one line: `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`, or `test a::b ... FAILED`.
    fn take(&mut self, line: &str) {
        let failed = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
        self.names.extend(failed.map(str::to_owned));
        let Some(summary) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        self.binaries += 1;
        for part in summary.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_several_binaries_add_up_and_other_lines_do_not_count() {
        let mut count = Count::default();
        for line in [
            "running 4 tests",
            "test ids::tests::names ... ok",
            "test ids::tests::kinds ... FAILED",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.50s",
            "a log line that says 7 passed; 7 failed",
        ] {
            count.take(line);
        }
        let names = vec!["ids::tests::kinds".to_owned()];
        assert_eq!(count, Count { passed: 13, failed: 2, ignored: 1, binaries: 2, names });
    }
}
