//! Runs one fuzz target: its saved corpus first, word for word, then mutants of it.
//!
//! A target is a test that calls [`Target::run`] with a function that takes bytes and panics if a promise is
//! broken. Everything is decided by the seed: the same corpus, seed and count give the same inputs. Without
//! any variable set a run is small, so that it belongs to the ordinary tests; `cargo xtask fuzz` sets them:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `BACKSTOP_TEST_FUZZ_COUNT` | how many mutants, instead of the target's own count |
//! | `BACKSTOP_TEST_FUZZ_SEED` | the seed, instead of 1 |
//! | `BACKSTOP_TEST_FUZZ_INPUT` | replay this one file, and nothing else |
//! | `BACKSTOP_TEST_FUZZ_AT` | directory in which the input at work is kept, so that whoever watches can find it after an abort or a hang |
//!
//! # Invariants
//! * Each mutant is at most [`INPUT_BYTES_MAX`] long (`mutate::tests`).
//! * A failing input is written into the corpus before the test fails, so the next plain run replays it
//!   (`tests::a_failing_input_is_saved_and_replayed`).
//!
//! # Not here
//! What a target promises: beside the code that it reaches, in `fuzz` modules. What the targets are:
//! `docs/fuzzing.md`.

mod mutate;
mod random;
mod wire;

pub use mutate::{INPUT_BYTES_MAX, Kind};
pub use random::Random;

use mutate::Mutator;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A fuzz target.
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    corpus: PathBuf,
    kind: Kind,
    words: &'static [&'static str],
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Inputs of the corpus.
    pub replayed: usize,
    /// Inputs made from them.
    pub mutated: u64,
}

impl Target {
    /// The target of this name, with its corpus in `tests/corpus/NAME` of a crate (`env!("CARGO_MANIFEST_DIR")`).
    #[must_use]
    pub fn new(name: &'static str, crate_dir: &str, kind: Kind) -> Self {
        let corpus = Path::new(crate_dir).join("tests").join("corpus").join(name);
        Self { name, corpus, kind, words: &[] }
    }

    /// Words that mean something to the target, to be put into texts.
    #[must_use]
    pub fn words(self, words: &'static [&'static str]) -> Self {
        Self { words, ..self }
    }

    /// Replays the corpus, then checks `count` mutants of it.
    ///
    /// # Panics
    /// With the words of the first input that fails, after saving it; if the corpus is empty or unreadable.
    #[allow(clippy::panic, clippy::print_stdout, clippy::print_stderr)] // It is a test's body.
    pub fn run(&self, count: u64, check: impl Fn(&[u8])) -> Ran {
        if let Some(path) = std::env::var_os("BACKSTOP_TEST_FUZZ_INPUT") {
            match fs::read(&path) {
                Ok(input) => check(&input),
                Err(error) => panic!("{}: {error}", path.display()),
            }
            return Ran { replayed: 1, mutated: 0 };
        }
        let corpus = self.corpus();
        for (name, input) in &corpus {
            let at_work = AtWork::of(self.name, input);
            if let Err(cause) = catch_unwind(AssertUnwindSafe(|| check(input))) {
                eprintln!("fuzz target {}: saved input {name} fails", self.name);
                resume_unwind(cause);
            }
            drop(at_work);
        }
        let count = number_of("BACKSTOP_TEST_FUZZ_COUNT").unwrap_or(count);
        let seed = number_of("BACKSTOP_TEST_FUZZ_SEED").unwrap_or(1);
        let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
        let mut mutator = Mutator::new(self.kind, &inputs, self.words, seed);
        let began = Instant::now();
        let mut slowest = (Duration::ZERO, Vec::new());
        for _ in 0..count {
            let input = mutator.next();
            let at_work = AtWork::of(self.name, &input);
            let input_began = Instant::now();
            if let Err(cause) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
                let saved = self.save(&input);
                eprintln!(
                    "fuzz target {}: seed {seed} found an input that fails; it is now {saved}",
                    self.name
                );
                resume_unwind(cause);
            }
            drop(at_work);
            let took = input_began.elapsed();
            if took > slowest.0 {
                slowest = (took, input);
            }
        }
        if std::env::var_os("BACKSTOP_TEST_FUZZ_AT").is_some() {
            self.report(inputs.len(), count, began.elapsed(), &slowest);
        }
        Ran { replayed: inputs.len(), mutated: count }
    }

    /// One line for whoever watches a long run, and the slowest input beside it.
    #[allow(clippy::print_stdout)]
    fn report(&self, replayed: usize, count: u64, took: Duration, slowest: &(Duration, Vec<u8>)) {
        #[allow(clippy::cast_precision_loss)] // A rate for people.
        let rate = count as f64 / took.as_secs_f64().max(1e-9);
        println!(
            "fuzzed {:<16} {replayed:>4} saved  {count:>9} mutants  {rate:>9.0} /s  slowest {:>8.1} ms",
            self.name,
            slowest.0.as_secs_f64() * 1e3
        );
        if let Some(dir) = std::env::var_os("BACKSTOP_TEST_FUZZ_AT") {
            // Only a courtesy: if it cannot be written there is nothing to look at.
            let _ = fs::write(Path::new(&dir).join(format!("{}.slowest", self.name)), &slowest.1);
        }
    }

    /// Every file of the corpus, by name.
    #[allow(clippy::panic)]
    fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let entries = match fs::read_dir(&self.corpus) {
            Ok(entries) => entries,
            Err(error) => panic!("the corpus {} cannot be read: {error}", self.corpus.display()),
        };
        let mut corpus: Vec<(String, Vec<u8>)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?)))
            .collect();
        corpus.sort();
        assert!(!corpus.is_empty(), "the corpus {} is empty", self.corpus.display());
        corpus
    }

    fn save(&self, input: &[u8]) -> String {
        // FNV-1a: the same input has the same name.
        let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let path = self.corpus.join(format!("found-{hash:016x}"));
        match fs::write(&path, input) {
            Ok(()) => path.display().to_string(),
            Err(error) => format!("lost ({}: {error})", path.display()),
        }
    }
}

/// The input at work, on disk as long as it is; only where somebody watches.
struct AtWork(Option<PathBuf>);

impl AtWork {
    fn of(name: &str, input: &[u8]) -> Self {
        let dir = std::env::var_os("BACKSTOP_TEST_FUZZ_AT");
        let path = dir.map(|dir| Path::new(&dir).join(format!("{name}.at-work")));
        if let Some(path) = &path {
            // Without it only a crash would be harder to explain.
            let _ = fs::write(path, input);
        }
        Self(path)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        // A panic that is being caught leaves no trace either: the input is saved then.
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(dir: &Path) -> Target {
        let corpus = dir.join("tests/corpus/words");
        fs::create_dir_all(&corpus).unwrap();
        fs::write(corpus.join("seed"), "pay 7 to 70").unwrap();
        Target::new("words", dir.to_str().unwrap(), Kind::Text)
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("backstop-fuzz-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_failing_input_is_saved_and_replayed() {
        let dir = scratch("saved");
        let target = target(&dir);
        let fails = |input: &[u8]| assert!(!input.contains(&b'9'), "a nine");
        assert!(catch_unwind(AssertUnwindSafe(|| target.run(50_000, fails))).is_err());
        assert_eq!(target.corpus().len(), 2);
        // Without a single mutant the saved input is enough.
        assert!(catch_unwind(AssertUnwindSafe(|| target.run(0, fails))).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_no_two_alike_in_a_row() {
        let dir = scratch("same");
        let target = target(&dir);
        let all = || {
            let seen = std::cell::RefCell::new(Vec::new());
            target.run(500, |input| seen.borrow_mut().push(input.to_vec()));
            seen.into_inner()
        };
        assert_eq!(all(), all());
        let different: std::collections::BTreeSet<_> = all().into_iter().collect();
        assert!(different.len() > 400, "{}", different.len());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_target_without_a_corpus_proves_nothing_and_fails() {
        let target = Target::new("nothing", scratch("none").to_str().unwrap(), Kind::Bytes);
        assert!(catch_unwind(AssertUnwindSafe(|| target.run(1, |_| ()))).is_err());
    }
}
