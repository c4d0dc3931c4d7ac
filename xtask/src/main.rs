//! The project's chores: `cargo xtask test | model | sim | spec | fuzz | walls | reference | deploy | stack | ci |
//! instructions | figures | peers`.
//!
//! Each chore prints what it does and ends non-zero if anything is wrong. `.ci/run` calls these and
//! nothing else, so what CI checks can be checked at any desk.
#![allow(clippy::print_stdout)] // Printing is what a chore is for.

mod ci;
mod deploy;
mod documents;
mod figures;
mod fuzz;
mod instructions;
mod model;
mod mutants;
mod peer_failures;
mod peers;
mod prerequisites;
mod process;
mod reference;
mod sim;
mod sources;
mod spec;
mod stack;
mod test;
mod tools;
mod walls;

use std::process::ExitCode;

/// What `cargo xtask` says of itself; documents name no other chores.
pub(crate) const USAGE: &str = "\
usage: cargo xtask <chore>

  test [cargo test arguments]   every test of the workspace, after making sure of what they need
  model [--wide] [--only SHAPE] [--no-mutants]
                                explores small sagas whole, then knocks out each guard and demands that it is found
  sim [--seeds N | --minutes M] [--from SEED] [--seed N] [--sagas N] [--without CLASS] [--plant NAME | --plants]
                                lives through the worlds of many seeds, or of one, or hunts for planted bugs
  walls                         the architecture's walls, migrations, error pages, documents, sizes of files, peers' failures
  reference                     writes docs/configuration.md anew from the file of the defaults
  spec [model ...] [--faults N] the specification in docs/spec, with TLC
  deploy [--write]              deploy/ and docker-compose.yml, with the tools that they are for; alerts and dashboards
                                against docs/metrics.md. --write: first writes what is made of something else
  stack [--keep]                the stack of docker-compose.yml as processes, with a load and four stories, asserting what
                                an operator sees; --keep: stays until Enter is pressed
  ci                            format, walls, proto lint, deploy, specification, clippy, simulator, model, instructions, docs,
                                then test
  fuzz [--target NAME] [--count N] [--seed S]   long hunts on the fuzz targets (docs/fuzzing.md)
  instructions [CASE ...] [--bless | --where CASE]
                                counts the instructions of the cases in crates/backstop-bench and compares them with those on
                                record. --bless: records them; --where: what a case spends them on
  figures                       lines of code, binary size, build profile
  peers [dtmrs] [restate] [dtm] puts other orchestrators ready for `backstop-range bench --peer`: found, built or installed
                                below target; all, or those named";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let chore = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match chore.as_str() {
        "test" => test::run(&rest),
        "model" => model::run(&rest),
        "sim" => sim::simulate(&rest),
        "reference" => reference::run().map(|()| ExitCode::SUCCESS),
        "walls" => walls::run().map(|()| ExitCode::SUCCESS),
        "spec" => spec::run(&rest),
        "deploy" => deploy::run(&rest).map(|()| ExitCode::SUCCESS),
        "stack" => stack::run(&rest),
        "ci" => ci::run(),
        "fuzz" => fuzz::run(&rest),
        "instructions" => instructions::count(&rest),
        "peers" => peers::chore(&rest),
        "figures" => figures::run().map(|()| ExitCode::SUCCESS),
        _ => {
            println!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            println!("xtask {chore}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
