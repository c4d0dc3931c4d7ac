//! The model as a program: explores, prints its table, and ends with 0 if every promise holds and all that should be
//! reached was reached.
//!
//! `cargo xtask model` builds and runs it.
#![allow(clippy::print_stdout)] // Its table is what it is for.

use backstop_invariants::Invariant;
use backstop_model::{
    Counterexample, Coverage, Manner, SHAPES, Sum, Walk, Width, World, explore, hunt, runs, without_a_bound,
};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
usage: backstop-model [--small | --wide] [--only SHAPE]
       backstop-model --hunt I1..I11     the shortest way to break one promise; 0 if it is found

  --small       what the tests run, in seconds
  --wide        every shape within every set of bounds, for as long as that takes
  --only SHAPE  one shape; without the demands on what is reached";

#[derive(Default)]
struct Asked {
    small: bool,
    wide: bool,
    only: Option<String>,
    hunt: Option<Invariant>,
}

fn main() -> ExitCode {
    let result = parse(std::env::args().skip(1)).and_then(|asked| match asked.hunt {
        Some(invariant) => hunts(invariant),
        None => explores(&asked),
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--small" => asked.small = true,
            "--wide" => asked.wide = true,
            "--only" => {
                let name = words.next().unwrap_or_default();
                if SHAPES.iter().all(|shape| shape.name != name) {
                    let names = SHAPES.map(|shape| shape.name).join(", ");
                    return Err(format!("there is no shape {name:?}; there are: {names}"));
                }
                asked.only = Some(name);
            }
            "--hunt" => {
                let name = words.next().unwrap_or_default();
                let found = Invariant::ALL.into_iter().find(|invariant| invariant.to_string() == name);
                asked.hunt = Some(found.ok_or_else(|| format!("there is no invariant {name:?}"))?);
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(asked)
}

fn hunts(invariant: Invariant) -> Result<bool, String> {
    let (states, found) = hunt(invariant)?;
    match &found {
        Some((told, counterexample)) => {
            println!("caught by {} after {states} states: {told}", counterexample.violation.invariant);
            show(told, counterexample);
        }
        None => println!("{invariant} holds in all of {states} states"),
    }
    Ok(found.is_some())
}

fn explores(asked: &Asked) -> Result<bool, String> {
    let width = match (asked.small, asked.wide) {
        (true, _) => Width::Small,
        (_, true) => Width::Wide,
        _ => Width::Standard,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("within the bounds of each line everything is tried; {threads} threads, two coordinators\n");
    println!(
        "{:<14} {:<9} {:<52} {:>10} {:>10} {:>6} {:>8}",
        "shape", "about", "bounds", "states", "unique", "depth", "seconds"
    );
    let (mut total, mut holds, mut lines) = (Sum::default(), true, 0);
    let (began, mut coverage) = (Instant::now(), Coverage::default());
    for run in runs(width) {
        if asked.only.as_ref().is_some_and(|only| *only != run.shape.name) {
            continue;
        }
        let line_began = Instant::now();
        let sum = run.explore(Walk::Whole, threads)?;
        println!(
            "{:<14} {:<9} {:<52} {:>10} {:>10} {:>6} {:>8.1}",
            run.shape.name,
            run.about,
            run.bounds.short(),
            sum.states,
            sum.unique,
            sum.depth,
            line_began.elapsed().as_secs_f64()
        );
        if let Some((told, counterexample)) = &sum.broken {
            show(told, counterexample);
            return Ok(false);
        }
        if sum.unique < run.unique_min {
            println!("fewer than {} states that differ: it has stopped exploring", run.unique_min);
            holds = false;
        }
        (total.states, total.unique, lines) =
            (total.states + sum.states, total.unique + sum.unique, lines + 1);
        total.depth = total.depth.max(sum.depth);
        coverage.extend(sum.coverage);
    }
    println!(
        "{:<14} {:<9} {:<52} {:>10} {:>10} {:>6} {:>8.1}",
        "in all",
        "",
        format!("{lines} lines"),
        total.states,
        total.unique,
        total.depth,
        began.elapsed().as_secs_f64()
    );
    holds &= asked.only.is_some() || reaches_all(&coverage);
    holds &= asked.only.is_some() || the_barrier_matters()?;
    println!("\n{}", if holds { "every promise holds" } else { "NOT all is well" });
    Ok(holds)
}

fn reaches_all(coverage: &Coverage) -> bool {
    println!("\nevents reached: {}", coverage.events.iter().copied().collect::<Vec<_>>().join(", "));
    let crashes = |by: &std::collections::BTreeMap<&'static str, u64>| {
        by.iter().map(|(at, count)| format!("{at} {count}")).collect::<Vec<_>>().join("; ")
    };
    println!("coordinators died, by the stage of their turn: {}", crashes(&coverage.crashed_while));
    println!("coordinators died, by the last event on disk: {}", crashes(&coverage.crashed_after));
    let missing = coverage.missing();
    if !missing.is_empty() {
        println!("NOT reached: {}", missing.join(", "));
    }
    missing.is_empty()
}

/// What cannot hold without a barrier, does not: shown, not hidden.
fn the_barrier_matters() -> Result<bool, String> {
    println!("\nif messages may arrive however late, also after a compensation:");
    let mut is_as_said = true;
    for (manner, name) in [(Manner::Plain, "without a barrier"), (Manner::KeyedCompensate, "with one")] {
        let shape = SHAPES[0];
        let definition =
            shape.definition(manner, backstop_model::ORDERS[0], backstop_model::ON_FAILURE[0])?;
        let found = explore(World::new(&definition, without_a_bound())?, Walk::Shortest);
        match &found.counterexample {
            Some(counterexample) => {
                println!("  {name}: {} after {} states", counterexample.violation, found.unique);
                counterexample.trail.iter().for_each(|line| println!("    {line}"));
            }
            None => println!("  {name}: every promise holds in {} states", found.unique),
        }
        is_as_said &= found.counterexample.is_some() == (manner == Manner::Plain);
    }
    Ok(is_as_said)
}

fn show(told: &str, counterexample: &Counterexample) {
    println!("\n{}\n  in: {told}\n\nwhat happened:", counterexample.violation);
    for (number, line) in counterexample.trail.iter().enumerate() {
        println!("  {:>2}. {line}", number + 1);
    }
    println!("\nthe journal by then:");
    counterexample.transcript.lines().for_each(|line| println!("  {line}"));
}
