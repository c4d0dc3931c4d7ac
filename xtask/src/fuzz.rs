//! Long hunts on the fuzz targets that the tests replay and try shortly: `docs/fuzzing.md`.
//!
//! Each target runs in a process of its own with bounded memory, and is watched from outside: an input on which it
//! aborts (a stack overflow, memory) or stands still is found where the target keeps what it is at, and saved.
//!
//! # Not here
//! Mutation, and what a target promises: `backstop-fuzz`, and the `fuzz` modules of the crates.

use crate::process::{cargo, command, root, show, target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// The targets: name, crate, and the test in that crate's own binary.
const TARGETS: &[(&str, &str, &str)] = &[
    ("definition", "backstop-rpc", "fuzz::definitions::definition"),
    ("descriptors", "backstop-rpc", "fuzz::definitions::descriptors"),
    ("start_saga", "backstop-rpc", "fuzz::requests::start_saga"),
    ("participant", "backstop-rpc", "fuzz::requests::participant"),
    ("metadata", "backstop-rpc", "fuzz::requests::metadata"),
    ("filter", "backstop-rpc", "fuzz::requests::filter"),
    ("page_token", "backstop-rpc", "fuzz::requests::page_token"),
    ("template", "backstop-rpc", "participants::fuzz::template"),
    ("expression", "backstop-rpc", "participants::fuzz::expression"),
    ("trailers", "backstop-rpc", "participants::fuzz::trailers"),
    ("reply", "backstop-rpc", "participants::fuzz::reply"),
    ("journal_row", "backstop-sql", "codec::fuzz::journal_row"),
    ("head_row", "backstop-sql", "codec::fuzz::head_row"),
    ("definition_spec", "backstop-sql", "codec::fuzz::definition_spec"),
    ("definition_file", "backstop", "cli::file::fuzz::definition_file"),
    ("input_file", "backstop", "cli::file::fuzz::input_file"),
    ("config", "backstop", "config::fuzz::config"),
];

/// Memory of one target's process, in KiB.
const MEMORY_KIB_MAX: u64 = 4 << 20;
/// Longest that one input may take.
const INPUT_TIME_MAX: Duration = Duration::from_secs(60);

struct Hunt {
    only: Option<String>,
    count: u64,
    seed: u64,
    profile: String,
}

/// `[--target NAME] [--count N] [--seed S] [--profile P]`.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let hunt = Hunt::read(arguments)?;
    let wanted: Vec<_> =
        TARGETS.iter().filter(|(name, _, _)| hunt.only.as_deref().is_none_or(|only| only == *name)).collect();
    if wanted.is_empty() {
        let known: Vec<_> = TARGETS.iter().map(|(name, _, _)| *name).collect();
        bail!("no such target; there are {}", known.join(", "));
    }
    let mut failed = Vec::new();
    for (name, package, test) in wanted {
        let binary = binary(package, &hunt.profile)?;
        if !one(&hunt, name, package, test, &binary)? {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        println!("fuzz: nothing found with seed {}", hunt.seed);
        return Ok(ExitCode::SUCCESS);
    }
    println!("fuzz: found something in {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

impl Hunt {
    fn read(arguments: &[String]) -> Result<Self> {
        let mut hunt = Self { only: None, count: 100_000, seed: 1, profile: "fuzz".to_owned() };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--target" => hunt.only = Some(value.clone()),
                "--count" => hunt.count = value.parse().context("--count is a number")?,
                "--seed" => hunt.seed = value.parse().context("--seed is a number")?,
                "--profile" => hunt.profile.clone_from(value),
                other => {
                    bail!("{other} is not understood; there are --target, --count, --seed and --profile")
                }
            }
        }
        Ok(hunt)
    }
}

/// Builds a crate's own test binary and says where it is.
fn binary(package: &str, profile: &str) -> Result<PathBuf> {
    let kind = if package == "backstop" { ["--bin", "backstop"].as_slice() } else { &["--lib"] };
    let mut build = cargo();
    build.args(["test", "--no-run", "--profile", profile, "-p", package]).args(kind);
    let built = build.output().with_context(|| format!("cannot start {}", show(&build)))?;
    // cargo says `Executable unittests src/lib.rs (PATH)` on stderr.
    let told = String::from_utf8_lossy(&built.stderr);
    let path =
        told.lines().rev().find_map(|line| line.trim().strip_prefix("Executable ")?.split(['(', ')']).nth(1));
    match path {
        Some(path) if built.status.success() => Ok(root().join(path)),
        Some(_) | None => bail!("{}: {}\n{told}", show(&build), built.status),
    }
}

/// Runs one target; false if it has found something.
fn one(hunt: &Hunt, name: &str, package: &str, test: &str, binary: &Path) -> Result<bool> {
    let crate_dir = root().join("crates").join(package);
    let watched = target().join("fuzz-at-work");
    fs::create_dir_all(&watched)?;
    let at_work = watched.join(format!("{name}.at-work"));
    let mut child = command("sh")
        .arg("-c")
        .arg(format!("ulimit -v {MEMORY_KIB_MAX} && exec \"$0\" --exact \"$1\" --nocapture"))
        .args([binary.as_os_str(), test.as_ref()])
        .current_dir(&crate_dir)
        .env("BACKSTOP_TEST_FUZZ_COUNT", hunt.count.to_string())
        .env("BACKSTOP_TEST_FUZZ_SEED", hunt.seed.to_string())
        .env("BACKSTOP_TEST_FUZZ_AT", &watched)
        .stdout(fs::File::create(watched.join(format!("{name}.out")))?)
        .stderr(fs::File::create(watched.join(format!("{name}.err")))?)
        .spawn()
        .context("cannot start the target")?;
    let mut seen: Option<(SystemTime, Instant)> = None;
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        let changed = fs::metadata(&at_work).and_then(|data| data.modified()).ok();
        match (changed, seen) {
            (Some(changed), Some((before, since))) if changed == before => {
                if since.elapsed() > INPUT_TIME_MAX {
                    child.kill()?;
                    child.wait()?;
                    break None;
                }
            }
            (Some(changed), _) => seen = Some((changed, Instant::now())),
            (None, _) => seen = None,
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let out = fs::read_to_string(watched.join(format!("{name}.out"))).unwrap_or_default();
    for line in out.lines().filter(|line| line.starts_with("fuzzed ")) {
        println!("{line}");
    }
    if ended.is_some_and(|status| status.success()) && out.contains("1 passed") {
        return Ok(true);
    }
    let errors = fs::read_to_string(watched.join(format!("{name}.err"))).unwrap_or_default();
    for line in
        errors.lines().filter(|line| line.contains("fuzz target") || line.contains("panicked at")).take(20)
    {
        println!("  {line}");
    }
    // What panics is saved by the target itself; what ends or stops the process is saved here.
    if at_work.is_file() && !errors.contains("it is now") {
        let how = if ended.is_some() { "abort" } else { "hang" };
        let saved = crate_dir.join("tests/corpus").join(name).join(format!("found-{how}-seed-{}", hunt.seed));
        fs::copy(&at_work, &saved)?;
        println!("  {how} on an input that is now {}", saved.display());
    }
    let kind = if package == "backstop" { "--bin backstop" } else { "--lib" };
    println!(
        "  replay: BACKSTOP_TEST_FUZZ_INPUT=FILE cargo test -p {package} {kind} -- --exact {test} --nocapture\n  \
         all it said: {}",
        watched.join(format!("{name}.err")).display()
    );
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_corpus_has_its_target_and_every_target_its_corpus() {
        let mut corpora = BTreeSet::new();
        for package in ["backstop-rpc", "backstop-sql", "backstop"] {
            for entry in fs::read_dir(root().join("crates").join(package).join("tests/corpus")).unwrap() {
                corpora.insert((package.to_owned(), entry.unwrap().file_name().into_string().unwrap()));
            }
        }
        let targets: BTreeSet<_> =
            TARGETS.iter().map(|(name, package, _)| ((*package).to_owned(), (*name).to_owned())).collect();
        assert_eq!(corpora, targets);
    }

    #[test]
    fn every_target_is_a_test_in_the_file_that_its_path_names() {
        for (name, package, test) in TARGETS {
            let modules: Vec<&str> = test.split("::").collect();
            let file = modules[..modules.len() - 1].join("/");
            let path = root().join("crates").join(package).join("src").join(format!("{file}.rs"));
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(&format!("#[test]\nfn {name}()")), "{name} in {}", path.display());
        }
    }
}
