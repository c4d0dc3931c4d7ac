//! Runs the model, and then proves that it bites.

use crate::mutants::{self, Bench};
use crate::process::{cargo, show, target};
use crate::{process, process::command};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// The model and its mutants.
pub(crate) const BENCH: Bench = Bench {
    patches: "crates/backstop-model/mutants",
    package: "backstop-model",
    profile: "model",
    arguments: |mutant| vec!["--hunt".to_owned(), mutant.breaks.clone()],
};

/// `--wide` and `--only SHAPE` go to the model; `--no-mutants` leaves out the second half, `--no-model` the first.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (mut words, mut with_mutants, mut with_model) = (Vec::new(), true, true);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--no-mutants" => with_mutants = false,
            "--no-model" => with_model = false,
            "--wide" | "--small" => words.push(word.clone()),
            "--only" => words.extend([word.clone(), rest.next().cloned().unwrap_or_default()]),
            _ => bail!("there is no {word:?}; there are --wide, --only SHAPE, --no-mutants, --no-model"),
        }
    }
    let mut holds = true;
    if with_model {
        let mut build = cargo();
        build.args(["build", "--profile", BENCH.profile, "-p", BENCH.package]);
        println!("$ {}", show(&build));
        process::run(&mut build)?;
        let mut model = command(target().join(BENCH.profile).join(BENCH.package));
        model.args(words);
        println!("$ {}", show(&model));
        holds = model.status()?.success();
    }
    if with_mutants {
        holds &= mutants::run(&BENCH, None)?;
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
