//! Hunts with the simulator: builds it in release and hands on what it is asked for.
//!
//! # Not here
//! The worlds, the oracles and all options: `backstop-sim`. Planted bugs: `mutants.rs`.

use crate::process::{cargo, command, run, show, target};
use anyhow::{Context, Result};
use std::process::ExitCode;

/// Worlds that CI lives through: what two cores do in well under a minute and a half.
pub(crate) const CI_SEEDS: &str = "1000";

/// Builds it and runs it with these arguments.
pub(crate) fn simulate(arguments: &[String]) -> Result<ExitCode> {
    run(cargo().args(["build", "--release", "--quiet", "--package", "backstop-sim"]))?;
    let mut sim = command(target().join("release/backstop-sim"));
    sim.args(arguments);
    println!("$ {}", show(&sim));
    let status = sim.status().context("cannot start the simulator")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
