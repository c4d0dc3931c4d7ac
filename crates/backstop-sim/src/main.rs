//! `backstop-sim`: lives through the worlds of many seeds, and says what went wrong and what was reached.
#![allow(clippy::print_stdout)] // Printing is what it is for.

use backstop_sim::{Class, GROUPS, Hunt, Lived, Options, hunt, live};
use clap::Parser;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

/// Failures that are shown whole.
const SHOWN_MAX: usize = 3;
/// A hunt ends after so many.
const FAILURES_MAX: usize = 10;

/// The real engine in seeded worlds with everything going wrong.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 400)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This seed alone, with the last lines of its log.
    #[arg(long)]
    seed: Option<u64>,
    /// For so many minutes, whatever the number of seeds.
    #[arg(long)]
    minutes: Option<u64>,
    /// Sagas that clients want in each world.
    #[arg(long)]
    sagas: Option<u64>,
    /// A class of faults that does not happen.
    #[arg(long, value_parser = Class::parse)]
    without: Vec<Class>,
    /// Worlds at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Ends well at the first violation whose text begins like that (`I6`; several by comma), and ill without one.
    #[arg(long, value_delimiter = ',')]
    find: Vec<String>,
    /// Lines of a failed world's log that are shown.
    #[arg(long, default_value_t = 80)]
    tail: usize,
    /// Do not fail for what was never reached.
    #[arg(long)]
    any_coverage: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let like = Options {
        sagas: arguments.sagas,
        without: arguments.without.iter().copied().collect(),
        ..Options::seed(0)
    };
    if let Some(seed) = arguments.seed {
        return one(&Options { seed, ..like }, arguments.tail);
    }
    let (seeds, at_most) = match arguments.minutes {
        Some(minutes) => (arguments.from..u64::MAX, Some(Duration::from_secs(minutes * 60))),
        None => (arguments.from..arguments.from.saturating_add(arguments.seeds), None),
    };
    if !arguments.find.is_empty() {
        return find(&arguments, &like, seeds, at_most);
    }
    let hunt = hunt(&like, seeds, at_most, arguments.threads, |failed| failed.len() >= FAILURES_MAX);
    report(&hunt, arguments.tail);
    let missing = hunt.coverage.missing();
    let is_whole = missing.is_empty() || arguments.any_coverage || !like.without.is_empty();
    if !is_whole {
        println!("\nNEVER REACHED, so this run proves too little:");
        missing.iter().for_each(|name| println!("  {name}"));
    }
    if hunt.failed.is_empty() && is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Hunts for the breach of a promise: for whoever has planted a bug that must break it.
fn find(arguments: &Arguments, like: &Options, seeds: Range<u64>, at_most: Option<Duration>) -> ExitCode {
    let wanted = |lived: &Lived| {
        let what = lived.failure.as_ref().map_or("", |failure| failure.what.as_str());
        arguments.find.iter().any(|promise| what.starts_with(promise.as_str()))
    };
    let hunt = hunt(like, seeds, at_most, arguments.threads, |failed| failed.iter().any(wanted));
    let found = hunt.failed.iter().find(|lived| wanted(lived));
    let Some((lived, failure)) = found.and_then(|lived| Some((lived, lived.failure.as_ref()?))) else {
        println!("not found in {} seeds and {:.1} s", hunt.seeds, hunt.took.as_secs_f64());
        return ExitCode::FAILURE;
    };
    println!(
        "caught by {}\nseed {}, after {} seeds and {:.1} s",
        failure.what,
        lived.options.seed,
        hunt.seeds,
        hunt.took.as_secs_f64()
    );
    ExitCode::SUCCESS
}

fn one(options: &Options, tail: usize) -> ExitCode {
    let (lived, again) = (live(options), live(options));
    println!(
        "seed {}: {} sagas, {:.1} s of virtual time, digest {:016x}",
        options.seed,
        lived.sagas,
        lived.lasted.as_secs_f64(),
        lived.digest
    );
    if lived.digest != again.digest {
        println!("NOT THE SAME AGAIN: {:016x}", again.digest);
        return ExitCode::FAILURE;
    }
    match &lived.failure {
        None => ExitCode::SUCCESS,
        Some(_) => {
            show(&lived, tail);
            println!("{}", needed(options));
            ExitCode::FAILURE
        }
    }
}

/// Which classes of faults it takes to make this seed fail.
fn needed(options: &Options) -> String {
    let mut least = options.clone();
    for class in Class::ALL {
        let mut fewer = least.clone();
        fewer.without.insert(class);
        if live(&fewer).failure.is_some() {
            least = fewer;
        }
    }
    let left: Vec<String> =
        Class::ALL.into_iter().filter(|c| !least.without.contains(c)).map(Class::name).collect();
    format!("it still fails with no other faults than: {}\n  {}", left.join(", "), least.command())
}

fn show(lived: &Lived, tail: usize) {
    let Some(failure) = &lived.failure else { return };
    println!("\n== seed {} VIOLATES: {}", lived.options.seed, failure.what);
    if let Some(transcript) = &failure.transcript {
        println!("\n{transcript}");
    }
    println!("the world's last lines, in virtual milliseconds:");
    let cut = failure.tail.len().saturating_sub(tail);
    failure.tail.iter().skip(cut).for_each(|line| println!("  {line}"));
    println!("\nreplay: {}", lived.options.command());
}

fn report(hunt: &Hunt, tail: usize) {
    for group in GROUPS {
        println!("\n{group}:");
        for (name, count) in hunt.coverage.group(group) {
            println!("  {count:>9}  {name}");
        }
    }
    hunt.failed.iter().take(SHOWN_MAX).for_each(|lived| show(lived, tail));
    let minutes = hunt.took.as_secs_f64() / 60.0;
    println!(
        "\n{} seeds in {:.1} s ({:.0} a minute), {} sagas, {} events, {:.1} h of virtual time, {} violations",
        hunt.seeds,
        hunt.took.as_secs_f64(),
        if minutes > 0.0 { hunt.seeds as f64 / minutes } else { 0.0 },
        hunt.sagas,
        hunt.coverage.of("world", "events"),
        hunt.lasted.as_secs_f64() / 3600.0,
        hunt.failed.len()
    );
    for lived in &hunt.failed {
        let what = lived.failure.as_ref().map_or("", |failure| failure.what.as_str());
        println!("  seed {}: {what}\n    {}", lived.options.seed, lived.options.command());
    }
}
