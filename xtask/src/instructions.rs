//! Counts the instructions of each case of `backstop-bench` and holds them against those on record.
//!
//! Time is noisy and instructions are not: the same program does the same number of them on a busy machine and on an idle one.
//! Each case is run N times and 2 N times under callgrind; what the second run does more, divided by N, is one run of the case,
//! without the program's start.
//!
//! # Invariants
//! * A case that costs more than [`TOLERANCE`] above its record fails, and so does one without a record, and a record without
//!   its case (`what_costs_more_or_is_not_on_record_fails`).
//! * Another compiler, or another kind of machine, makes other instructions: then [`TOLERANCE_ELSEWHERE`] counts, and the run
//!   says so (`elsewhere_only_a_gross_change_fails`).
//!
//! # Not here
//! The cases: `crates/backstop-bench`. Times: `cargo bench -p backstop-bench --profile instructions`.

use crate::prerequisites::install_from_the_system;
use crate::process::{cargo, command, on_path, root, run, show, target, tools};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

/// What is on record, from the top.
const RECORD: &str = "crates/backstop-bench/instructions.toml";
/// Program and profile of the same name.
const PACKAGE: &str = "backstop-bench";
const PROFILE: &str = "instructions";
/// N. More changes nothing but the time that it takes.
const TIMES: u64 = 20;
/// How much more than its record a case may cost, in percent.
const TOLERANCE: u64 = 5;
/// The same where another compiler or machine made the record.
const TOLERANCE_ELSEWHERE: u64 = 25;
/// How much less makes the record worth lowering, in percent: what was won is not lost again unseen.
const WORTH_LOWERING: u64 = 10;
/// Lines that `--where` shows.
const LINES_SHOWN: usize = 70;

/// What was counted, where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    /// `rustc 1.95.0` and the like.
    rustc: String,
    /// The target for which it was built.
    target: String,
    /// Instructions of one run, by case.
    cases: BTreeMap<String, u64>,
}

/// `--bless`: writes the record; `--where CASE`: what that case spends its instructions on; words: only cases that begin so.
pub(crate) fn count(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--where", case] => show_where(case).map(|()| ExitCode::SUCCESS),
        ["--bless"] => {
            let counts = measure(&[])?;
            std::fs::write(root().join(RECORD), counts.written()).context(RECORD)?;
            println!("wrote {RECORD}: {} cases", counts.cases.len());
            Ok(ExitCode::SUCCESS)
        }
        words if words.iter().any(|word| word.starts_with('-')) => {
            bail!("there are --bless, --where CASE, and beginnings of cases")
        }
        words => {
            let record = std::fs::read_to_string(root().join(RECORD)).context(RECORD)?;
            let (record, counts) = (Counts::read(&record)?.only(words), measure(words)?);
            let verdict = compare(&record, &counts);
            println!("{}", verdict.table);
            verdict.faults.iter().for_each(|fault| println!("instructions: {fault}"));
            Ok(if verdict.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn measure(only: &[&str]) -> Result<Counts> {
    let (valgrind, program) = (valgrind()?, build()?);
    let cases: Vec<String> = cases(&program)?.into_iter().filter(|case| begins(case, only)).collect();
    if cases.is_empty() {
        bail!("there is no such case");
    }
    let (began, next) = (Instant::now(), Mutex::new(cases.iter()));
    // Others on the machine cost time and no instructions: as many at once as it has cores.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut counted = Vec::new();
        loop {
            let case = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
            let Some(case) = case else { return Ok(counted) };
            let once = instructions(&valgrind, &program, case, TIMES)?;
            let twice = instructions(&valgrind, &program, case, 2 * TIMES)?;
            let more = twice.checked_sub(once).with_context(|| format!("{case}: more runs cost less"))?;
            counted.push((case.clone(), more / TIMES));
        }
    };
    let counted: Vec<Result<Vec<(String, u64)>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| bail!("a worker panicked"))).collect()
    });
    let counted: Vec<Vec<(String, u64)>> = counted.into_iter().collect::<Result<_>>()?;
    println!("counted {} cases in {} s", cases.len(), began.elapsed().as_secs());
    let (rustc, target) = compiler()?;
    Ok(Counts { rustc, target, cases: counted.into_iter().flatten().collect() })
}

fn begins(case: &str, only: &[&str]) -> bool {
    only.is_empty() || only.iter().any(|word| case.starts_with(word))
}

fn valgrind() -> Result<PathBuf> {
    if on_path("valgrind").is_none() {
        install_from_the_system("valgrind")?;
    }
    on_path("valgrind").context("no valgrind; install it (Debian: apt-get install valgrind)")
}

fn build() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--profile", PROFILE, "--package", PACKAGE, "--bins"]);
    println!("$ {}", show(&build));
    run(&mut build)?;
    Ok(target().join(PROFILE).join(PACKAGE))
}

fn cases(program: &Path) -> Result<Vec<String>> {
    let output = command(program).output().with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8(output.stdout).context("names of cases")?;
    Ok(text.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect())
}

fn instructions(valgrind: &Path, program: &Path, case: &str, times: u64) -> Result<u64> {
    let mut callgrind = command(valgrind);
    callgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output = callgrind.args([case, &times.to_string()]).output().context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{case}: {}: {}", output.status, said.trim());
    }
    collected(&said).with_context(|| format!("{case}: callgrind says no count: {}", said.trim()))
}

/// Out of `==7== Collected : 12345`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split("Collected :").nth(1))?.trim().parse().ok()
}

/// Version and target of the compiler that cargo runs.
fn compiler() -> Result<(String, String)> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = command(rustc).arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = |what: &str| text.lines().find_map(|line| line.strip_prefix(what)).map(str::to_owned);
    let release = said("release: ").context("rustc says no version")?;
    Ok((format!("rustc {release}"), said("host: ").context("rustc says no target")?))
}

/// What a case spends its instructions on: functions with all that they call, the most costly first.
fn show_where(case: &str) -> Result<()> {
    let (valgrind, program) = (valgrind()?, build()?);
    let annotate = on_path("callgrind_annotate").context("no callgrind_annotate; it comes with valgrind")?;
    let out = tools().join("callgrind.out");
    std::fs::create_dir_all(tools())?;
    let mut callgrind = command(valgrind);
    callgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    // Many runs, so that the program's start does not matter.
    let output = callgrind.arg(program).args([case, &(50 * TIMES).to_string()]).output()?;
    if !output.status.success() {
        bail!("{case}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let annotated = command(annotate).args(["--inclusive=yes", "--auto=no"]).arg(&out).output()?;
    let text = String::from_utf8_lossy(&annotated.stdout).into_owned();
    text.lines().take(LINES_SHOWN).for_each(|line| println!("{line}"));
    Ok(())
}

impl Counts {
    fn read(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse().with_context(|| format!("{RECORD} is no TOML"))?;
        let said = |key: &str| {
            let value = table.get(key).and_then(toml::Value::as_str);
            value.map(str::to_owned).with_context(|| format!("{RECORD} has no {key}"))
        };
        let cases = table.get("cases").and_then(toml::Value::as_table);
        let count = |(case, value): (&String, &toml::Value)| {
            let count = value.as_integer().and_then(|count| u64::try_from(count).ok());
            Ok((case.clone(), count.with_context(|| format!("{RECORD}: {case} is no count"))?))
        };
        let cases = cases.with_context(|| format!("{RECORD} has no cases"))?;
        Ok(Self {
            rustc: said("rustc")?,
            target: said("target")?,
            cases: cases.iter().map(count).collect::<Result<_>>()?,
        })
    }

    fn written(&self) -> String {
        let mut text = format!(
            "# Instructions of one run of each case of backstop-bench, written by `cargo xtask instructions --bless`.\n\
             # Lower them with what wins something; raise them only with the reason in the commit.\n\
             rustc = \"{}\"\ntarget = \"{}\"\n\n[cases]\n",
            self.rustc, self.target
        );
        for (case, count) in &self.cases {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\"{case}\" = {count}");
        }
        text
    }

    fn only(mut self, words: &[&str]) -> Self {
        self.cases.retain(|case, _| begins(case, words));
        self
    }
}

/// What is told of a run.
struct Verdict {
    table: String,
    /// Why it fails.
    faults: Vec<String>,
}

fn compare(record: &Counts, counts: &Counts) -> Verdict {
    let (mut table, mut faults) =
        (format!("{:<28} {:>12} {:>12}\n", "case", "instructions", "on record"), Vec::new());
    let is_elsewhere = (&record.rustc, &record.target) != (&counts.rustc, &counts.target);
    let tolerance = if is_elsewhere { TOLERANCE_ELSEWHERE } else { TOLERANCE };
    let mut lower = Vec::new();
    for (case, count) in &counts.cases {
        let Some(was) = record.cases.get(case) else {
            let _ = writeln!(table, "{case:<28} {count:>12} {:>12}", "none");
            faults.push(format!("{case} is not on record: cargo xtask instructions --bless"));
            continue;
        };
        let change = change_percent(*was, *count);
        let _ = writeln!(table, "{case:<28} {count:>12} {was:>12} {change:>+7.1} %");
        if count * 100 > was * (100 + tolerance) {
            faults.push(format!(
                "{case} costs {count} instructions, {change:+.1} % against the record; the limit is +{tolerance} % \
                 (what costs them: cargo xtask instructions --where {case})"
            ));
        } else if count * 100 < was * (100 - WORTH_LOWERING) && !is_elsewhere {
            lower.push(case.as_str());
        }
    }
    for case in record.cases.keys().filter(|case| !counts.cases.contains_key(*case)) {
        faults.push(format!("{case} is on record and is no case any more: cargo xtask instructions --bless"));
    }
    if is_elsewhere {
        let _ = writeln!(
            table,
            "the record is of {} for {}, this is {} for {}: only what costs {tolerance} % more fails",
            record.rustc, record.target, counts.rustc, counts.target
        );
    }
    if !lower.is_empty() {
        let cases = lower.join(", ");
        let _ = writeln!(table, "won: {cases}; lower the record with cargo xtask instructions --bless");
    }
    Verdict { table, faults }
}

#[allow(clippy::cast_precision_loss)] // Counts are far below 2^53.
fn change_percent(was: u64, is: u64) -> f64 {
    (is as f64 / (was.max(1)) as f64 - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cases: &[(&str, u64)]) -> Counts {
        Counts {
            rustc: "rustc 1.95.0".to_owned(),
            target: "x86_64-unknown-linux-gnu".to_owned(),
            cases: cases.iter().map(|(case, count)| ((*case).to_owned(), *count)).collect(),
        }
    }

    #[test]
    fn what_costs_more_or_is_not_on_record_fails() {
        let record = counts(&[("a", 1000), ("b", 1000)]);
        assert_eq!(compare(&record, &counts(&[("a", 1000), ("b", 1050)])).faults, Vec::<String>::new());
        let worse = compare(&record, &counts(&[("a", 999), ("b", 1051)])).faults;
        assert_eq!(worse.len(), 1, "{worse:?}");
        assert!(worse[0].starts_with("b costs 1051 instructions, +5.1 %"), "{worse:?}");
        let new = compare(&record, &counts(&[("a", 1000), ("b", 1000), ("c", 1)])).faults;
        assert_eq!(new, ["c is not on record: cargo xtask instructions --bless"]);
        let gone = compare(&record, &counts(&[("a", 1000)])).faults;
        assert_eq!(gone, ["b is on record and is no case any more: cargo xtask instructions --bless"]);
        assert!(
            !compare(&counts(&[("a", 0)]), &counts(&[("a", 1)])).faults.is_empty(),
            "from nothing to something"
        );
    }

    #[test]
    fn what_was_won_asks_for_a_lower_record_and_fails_nothing() {
        let record = counts(&[("a", 1000), ("b", 1000)]);
        let verdict = compare(&record, &counts(&[("a", 899), ("b", 901)]));
        assert_eq!(verdict.faults, Vec::<String>::new());
        assert!(verdict.table.contains("won: a; lower the record"), "{}", verdict.table);
        let verdict = compare(&record, &counts(&[("a", 901), ("b", 901)]));
        assert!(!verdict.table.contains("won:"), "{}", verdict.table);
    }

    #[test]
    fn elsewhere_only_a_gross_change_fails() {
        let record = counts(&[("a", 1000)]);
        for elsewhere in [
            Counts { rustc: "rustc 1.96.0".to_owned(), ..counts(&[]) },
            Counts { target: "aarch64-unknown-linux-gnu".to_owned(), ..counts(&[]) },
        ] {
            let with =
                |count| Counts { cases: BTreeMap::from([("a".to_owned(), count)]), ..elsewhere.clone() };
            let verdict = compare(&record, &with(1250));
            assert_eq!(verdict.faults, Vec::<String>::new());
            assert!(verdict.table.contains("the record is of rustc 1.95.0 for x86_64"), "{}", verdict.table);
            assert_eq!(compare(&record, &with(1251)).faults.len(), 1);
            assert!(!compare(&record, &with(1)).table.contains("won:"));
        }
        assert!(!compare(&record, &record).table.contains("the record is of"));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_broken_one_is_refused() {
        let record = counts(&[("core/a", 1), ("template/b", 123_456)]);
        assert_eq!(Counts::read(&record.written()).unwrap(), record);
        assert_eq!(record.clone().only(&["core/"]), counts(&[("core/a", 1)]));
        assert_eq!(record.clone().only(&[]), record);
        let written = record.written();
        for broken in [
            written.replace("rustc =", "compiler ="),
            written.replace("[cases]", "[case]"),
            written.replace("= 1\n", "= -1\n"),
            written.replace("= 1\n", "= \"1\"\n"),
            written.replace("= 1\n", "= \n"),
        ] {
            assert!(Counts::read(&broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_count_is_found_in_what_callgrind_says() {
        let said = "==7== Callgrind, a call-graph generating cache profiler\n==7== \n==7== Events    : Ir\n\
                    ==7== Collected : 4711\n==7== \n==7== I   refs:      4,711\n";
        assert_eq!(collected(said), Some(4711));
        assert_eq!(collected("==7== Collected : \n"), None);
        assert_eq!(collected("valgrind: failed to start tool 'callgrind'\n"), None);
    }
}
