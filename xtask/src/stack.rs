//! `cargo xtask stack`: the stack of docker-compose.yml as plain processes, with the same configuration files, a load, and
//! three stories of which it is asserted what an operator would see: a transfer that is undone, a failure of tier L1, and
//! a coordinator that is killed in the middle.
//!
//! # Invariants
//! * Prometheus, Alertmanager, the collector and Jaeger run the files of `deploy/observability` as they stand. What differs
//!   is what those files leave open: targets, environment, and the address of the pager.
//! * Everything ends with the chore, by its process id; nothing listens beyond loopback.
//! * It ends within minutes: each wait has a bound.
//!
//! # Not here
//! Grafana, which no registry has as a program; its dashboards' queries are asked of Prometheus instead. Containers: see
//! docker-compose.yml.

mod http;
mod parts;
mod processes;
mod stories;
mod traces;

use crate::process::tools;
use anyhow::{Result, bail};
use parts::Stack;
use std::process::ExitCode;
use stories::Seen;

/// Starts it, tells the stories, and says what was seen; with `--keep` it stays until Enter is pressed.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let keep = match arguments {
        [] => false,
        [word] if word == "--keep" => true,
        _ => bail!("usage: cargo xtask stack [--keep]"),
    };
    let folder = tools().join("stack");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let mut stack = Stack::start(&folder)?;
    let mut seen = Seen::default();
    let told = stories::tell(&mut stack, &mut seen);
    println!("\nlogs: {}", folder.join("logs").display());
    println!("{seen}");
    if keep {
        println!("{}Press Enter to end it.", stack.addresses());
        std::io::stdin().read_line(&mut String::new())?;
    }
    told?;
    Ok(if seen.is_all_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
