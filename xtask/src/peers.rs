//! `cargo xtask peers`: the other orchestrators that `backstop-range bench --peer` measures beside Backstop, each found,
//! built or installed into `target/xtask/peers/bin`, and one line on each.
//!
//! # Invariants
//! * What is wanted is written down here or in the lock file of `crates/backstop-range/peers`, to the version: what has
//!   been measured can be had again.
//! * One that cannot be had is said with the reason, and does not keep the others away; then the chore ends non-zero.

use crate::process::{cargo, command, on_path, root, run, tools};
use crate::tools::go_build;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Programs of ours around other people's libraries: a workspace of its own.
const WORKSPACE: &str = "crates/backstop-range/peers";
/// Restate's server. It is under the Business Source License: to be run, not to be shipped.
const RESTATE: (&str, &str) = ("@restatedev/restate-server", "1.7.12");
/// DTM's server; go.mod of its own, which `go install` would not take as it is.
const DTM: (&str, &str) = ("github.com/dtm-labs/dtm", "v1.19.0");
/// The tables that it wants, as they lie in its module.
const DTM_TABLES: &str = "sqls/dtmsvr.storage.postgres.sql";

const NAMES: [&str; 3] = ["dtmrs", "restate", "dtm"];

/// Puts them ready: all, or those named.
///
/// # Errors
/// If a name is not known.
pub(crate) fn chore(names: &[String]) -> Result<ExitCode> {
    if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("no such peer: {unknown} (there are {})", NAMES.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    std::fs::create_dir_all(bin())?;
    let mut all_there = true;
    for name in NAMES.into_iter().filter(|name| wanted(name)) {
        let line = match name {
            "dtmrs" => ours("peer-dtmrs", "dtmrs"),
            "restate" => restate(),
            _ => dtm(),
        };
        match line {
            Ok(line) => println!("{name:8} {line}"),
            Err(error) => {
                all_there = false;
                println!("{name:8} cannot be had: {error:#}");
            }
        }
    }
    Ok(if all_there { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn folder() -> PathBuf {
    tools().join("peers")
}

fn bin() -> PathBuf {
    folder().join("bin")
}

/// Builds the workspace of peers, whole: with one package alone cargo would choose other features and build all anew. It
/// knows whether there is anything to do.
fn ours(program: &str, library: &str) -> Result<String> {
    let workspace = root().join(WORKSPACE);
    let build = folder().join("build");
    if !build.join("release").join(program).is_file() {
        println!("building {}; once, and it takes minutes", workspace.display());
    }
    let began = Instant::now();
    let mut cargo = cargo();
    cargo.current_dir(&workspace).args(["build", "--release", "--locked", "--quiet"]);
    run(cargo.arg("--target-dir").arg(&build))?;
    put(&build.join("release").join(program), program)?;
    let version = locked(&workspace.join("Cargo.lock"), library)?;
    Ok(format!("{library} {version} as {program} ({} s)", began.elapsed().as_secs()))
}

/// The version of a library in a lock file.
fn locked(file: &Path, library: &str) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let mut lines = text.lines().skip_while(|line| *line != format!("name = \"{library}\""));
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \""));
    Ok(version
        .with_context(|| format!("{library} is not in {}", file.display()))?
        .trim_end_matches('"')
        .to_owned())
}

/// The server from npm, which has a package with the program for each platform; our service from Cargo.
fn restate() -> Result<String> {
    let (package, version) = RESTATE;
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "aarch64") => "darwin-arm64",
        ("macos", "x86_64") => "darwin-x64",
        (os, arch) => bail!("{package} has no program for {os} on {arch}"),
    };
    let place = folder().join("npm");
    let program = place.join(format!("node_modules/{package}-{platform}/bin/restate-server"));
    if !(program.is_file() && says(&program).is_ok_and(|said| said.contains(version))) {
        let npm = on_path("npm").with_context(|| format!("no npm to install {package} {version} with"))?;
        std::fs::create_dir_all(&place)?;
        println!("installing {package} {version}");
        // Scripts of packages stay unrun: one of its dependencies would report the installation to its makers.
        let mut install = command(npm);
        install.args([
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--prefix",
        ]);
        run(install.arg(&place).arg(format!("{package}@{version}")))?;
    }
    let said = says(&program)?;
    put(&program, "restate-server")?;
    let service = ours("peer-restate", "restate-sdk")?;
    Ok(format!("{said}; {service}"))
}

fn says(program: &Path) -> Result<String> {
    let output = command(program).arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn dtm() -> Result<String> {
    let (module, version) = DTM;
    let program = go_build(DTM, module, "dtm")?;
    put(&program, "dtm")?;
    let go = crate::prerequisites::go().context("no go")?;
    let output = command(go).args(["mod", "download", "-json", &format!("{module}@{version}")]).output()?;
    let said: Value = serde_json::from_slice(&output.stdout).context("go mod download")?;
    let there = said["Dir"].as_str().with_context(|| format!("{module}: {}", said["Error"]))?;
    put(&Path::new(there).join(DTM_TABLES), "dtm.sql")?;
    Ok(format!("DTM {version}"))
}

/// Links, or copies where that cannot be.
fn put(file: &Path, name: &str) -> Result<()> {
    let to = bin().join(name);
    if to.exists() {
        std::fs::remove_file(&to)?;
    }
    if std::fs::hard_link(file, &to).is_err() {
        std::fs::copy(file, &to).with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_tells_the_version_that_is_measured() {
        let lock = root().join(WORKSPACE).join("Cargo.lock");
        assert_eq!(locked(&lock, "dtmrs").unwrap(), "0.13.0");
        assert!(locked(&lock, "dtmr").is_err());
    }
}
