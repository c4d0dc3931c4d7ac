//! Knocks out one guard at a time and demands that a checker finds out.
//!
//! A mutant is a patch file: comment lines that name the guard and the promise whose breach must be found, then a unified
//! diff. The tracked files are copied to `target/mutants/tree`, only where they differ, so that cargo builds little anew;
//! one patch is applied, the checker is built there and run, and the next copy undoes the patch.
//!
//! # Invariants
//! * A patch that does not apply any more is a failure that says so: a guard that has moved is not a guard that was tested.
//! * Only a counterexample of the promise that the patch names counts.

use crate::process::{command, root, target};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A checker, and the mutants that it has to find.
pub(crate) struct Bench {
    /// Where the patches are, from the top.
    pub(crate) patches: &'static str,
    /// The package whose program of the same name is the checker.
    pub(crate) package: &'static str,
    /// The profile that it is built with.
    pub(crate) profile: &'static str,
    /// What the checker is called with to hunt for a breach of this promise. It ends with 0 if it found one, and says so
    /// in a line with `caught by I5`.
    pub(crate) arguments: fn(&Mutant) -> Vec<String>,
}

/// One patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// Its file's name.
    pub(crate) name: String,
    /// The guard that it knocks out.
    pub(crate) guard: String,
    /// `I5` and the like.
    pub(crate) breaks: String,
    path: PathBuf,
}

/// Runs all mutants of a bench, or the one of this name; true if every one is found.
pub(crate) fn run(bench: &Bench, only: Option<&str>) -> Result<bool> {
    let mut mutants = all(&root().join(bench.patches))?;
    mutants.retain(|mutant| only.is_none_or(|name| mutant.name == name));
    let tree = target().join("mutants").join("tree");
    let (began, mut caught) = (Instant::now(), 0);
    println!("\n{} guards, knocked out in turn ({}):", mutants.len(), bench.patches);
    for mutant in &mutants {
        copy(&tree)?;
        match check(bench, mutant, &tree) {
            Ok(found) => {
                caught += 1;
                println!("  {} … {found}", mutant.guard);
            }
            Err(error) => println!("  {} … NOT CAUGHT: {}: {error:#}", mutant.guard, mutant.name),
        }
    }
    copy(&tree)?;
    println!("{caught} of {} caught, {} s", mutants.len(), began.elapsed().as_secs());
    Ok(caught == mutants.len() && caught > 0)
}

/// Patches that would not knock anything out any more. Whether each is *found* takes minutes: `cargo xtask model` and
/// `cargo xtask sim --plants`.
pub(crate) fn stale_faults(dirs: &[&str]) -> Vec<String> {
    let stale = |path: &Path| {
        let output = command("git").args(["apply", "--check"]).arg(path).current_dir(root()).output();
        match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(format!("cannot start git: {error}")),
        }
    };
    let mut faults = Vec::new();
    for dir in dirs {
        match all(&root().join(dir)) {
            Ok(mutants) => faults.extend(mutants.iter().filter_map(|mutant| {
                stale(&mutant.path)
                    .map(|why| format!("{dir}/{}.patch does not apply any more: {why}", mutant.name))
            })),
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    faults
}

fn all(dir: &Path) -> Result<Vec<Mutant>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    paths.sort();
    paths.into_iter().map(|path| Mutant::parse(&std::fs::read_to_string(&path)?, path)).collect()
}

impl Mutant {
    fn parse(text: &str, path: PathBuf) -> Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let said = |word: &str| {
            let line = text.lines().take_while(|line| line.starts_with('#'));
            let found = line.filter_map(|line| line.trim_start_matches(['#', ' ']).strip_prefix(word)).next();
            found.map(|rest| rest.trim().to_owned()).with_context(|| format!("{name}: no line `# {word} …`"))
        };
        Ok(Self { guard: said("guard:")?, breaks: said("breaks:")?, name, path })
    }
}

/// Applies it, builds, hunts; what the checker said.
fn check(bench: &Bench, mutant: &Mutant, tree: &Path) -> Result<String> {
    let ceiling = tree.parent().unwrap_or(tree);
    let mut apply = command("git");
    apply.arg("apply").arg(&mutant.path).current_dir(tree).env("GIT_CEILING_DIRECTORIES", ceiling);
    let applied = apply.output().context("cannot start git")?;
    if !applied.status.success() {
        let why = String::from_utf8_lossy(&applied.stderr).trim().to_owned();
        bail!("the patch does not apply any more: {why}");
    }
    let built = target().join("mutants").join("target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(tree).args(["build", "--quiet", "--locked", "--profile", bench.profile]);
    cargo.args(["-p", bench.package, "--target-dir"]).arg(&built);
    // What this process was built with is not the mutant's business.
    cargo.env_remove("CARGO_TARGET_DIR");
    let output = cargo.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("it does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let program = built.join(bench.profile).join(bench.package);
    let hunted = command(&program).args((bench.arguments)(mutant)).output();
    let hunted = hunted.with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8_lossy(&hunted.stdout);
    let wanted = format!("caught by {}", mutant.breaks);
    let found = said.lines().position(|line| line.starts_with(&wanted)).filter(|_| hunted.status.success());
    let Some(found) = found else {
        bail!("the checker found no breach of {}: {}", mutant.breaks, said.trim())
    };
    let lines: Vec<_> = said.lines().skip(found).filter(|line| !line.trim().is_empty()).collect();
    Ok(lines.join("\n      "))
}

/// Brings the copy in line with the repository, and touches nothing that is as it should be.
fn copy(tree: &Path) -> Result<()> {
    let mut git = command("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = git.output().context("cannot start git")?;
    let mut wanted = BTreeSet::new();
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root().join(name), tree.join(name));
        // Listed, and deleted since.
        let Ok(content) = std::fs::read(&from) else { continue };
        wanted.insert(to.clone());
        if std::fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        std::fs::create_dir_all(to.parent().unwrap_or(tree))?;
        std::fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))?;
    }
    if wanted.is_empty() {
        bail!("git lists no files at {}", root().display());
    }
    remove_others(tree, &wanted)
}

fn remove_others(dir: &Path, wanted: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_its_guard_and_what_must_break() {
        let text = "# guard: the order of undoing\n# breaks: I5\n--- a/x\n# guard: not this\n";
        let mutant = Mutant::parse(text, "m/order.patch".into()).unwrap();
        assert_eq!((mutant.name.as_str(), mutant.guard.as_str()), ("order", "the order of undoing"));
        assert_eq!(mutant.breaks, "I5");
        assert!(Mutant::parse("# guard: x\n--- a/x\n# breaks: I5\n", "m/x.patch".into()).is_err());
    }
}
