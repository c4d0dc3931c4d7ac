//! Hunts with the simulator: builds it in release and hands on what it is asked for; or plants bugs and demands that it
//! finds them.
//!
//! # Not here
//! The worlds, the oracles and all other options: `backstop-sim`. How a bug is planted: `mutants.rs`.

use crate::mutants::{self, Bench};
use crate::process::{cargo, command, run, show, target};
use anyhow::{Context, Result, bail};
use std::process::ExitCode;

/// The simulator and its planted bugs.
pub(crate) const BENCH: Bench = Bench {
    patches: "crates/backstop-sim/mutants",
    package: "backstop-sim",
    profile: "release",
    arguments: |mutant| ["--minutes", "5", "--find", &mutant.breaks].map(str::to_owned).to_vec(),
};

/// Worlds that CI lives through: what two cores do in well under a minute and a half.
const CI_SEEDS: &str = "1000";

/// `--plant NAME` or `--plants`: that bug, or each in turn. Anything else is for the simulator.
pub(crate) fn simulate(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let holds = match words.as_slice() {
        ["--plants"] => mutants::run(&BENCH, None)?,
        ["--plant", name] => mutants::run(&BENCH, Some(*name))?,
        _ => hunt(arguments)?,
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn hunt(arguments: &[String]) -> Result<bool> {
    run(cargo().args(["build", "--release", "--quiet", "--package", BENCH.package]))?;
    let mut sim = command(target().join("release").join(BENCH.package));
    sim.args(arguments);
    println!("$ {}", show(&sim));
    Ok(sim.status().context("cannot start the simulator")?.success())
}

/// The worlds that every change has to live through.
pub(crate) fn check() -> Result<()> {
    if !hunt(&["--seeds".to_owned(), CI_SEEDS.to_owned(), "--tail".to_owned(), "40".to_owned()])? {
        bail!("a promise is broken, or too little was reached: see above");
    }
    Ok(())
}
