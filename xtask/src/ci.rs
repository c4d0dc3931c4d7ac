//! Everything that must hold before a change is taken in, cheapest first.
//!
//! The checks before the tests all run even if one of them fails, so that one run names all that is
//! wrong; the tests come last, and their closing lines are the last that is printed.

use crate::process::{cargo, command, on_path, root, show, tools};
use crate::{deploy, instructions, model, process, sim, spec, test, walls};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The buf that is installed if there is none.
const BUF: &str = "@bufbuild/buf@1.75.0";

fn check(name: &str, run: impl FnOnce() -> Result<()>, faults: &mut Vec<String>) {
    println!("\n== {name}");
    if let Err(error) = run() {
        println!("{name}: {error:#}");
        faults.push(name.to_owned());
    }
}

fn checks() -> Vec<String> {
    let mut faults = Vec::new();
    check("format", || announced(cargo().args(["fmt", "--all", "--check"])), &mut faults);
    check("walls", walls::run, &mut faults);
    check("proto lint", buf_lint, &mut faults);
    check("deploy", || deploy::run(&[]), &mut faults);
    check("specification", || spec::run(&[]).and_then(all_held), &mut faults);
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    check("clippy", || announced(cargo().args(clippy)), &mut faults);
    check("simulator", sim::check, &mut faults);
    check("model", || model::run(&["--no-mutants".to_owned()]).and_then(all_held), &mut faults);
    check("instructions", || instructions::count(&[]).and_then(all_held), &mut faults);
    let doc = ["doc", "--workspace", "--no-deps", "--quiet"];
    check("docs", || announced(cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings")), &mut faults);
    faults
}

fn all_held(code: ExitCode) -> Result<()> {
    if code == ExitCode::SUCCESS { Ok(()) } else { bail!("something did not hold: see above") }
}

/// Runs all of it. The tests' closing lines are the last, whatever else failed.
pub(crate) fn run() -> Result<ExitCode> {
    let faults = checks();
    println!("\n== test");
    if !faults.is_empty() {
        println!("FAILED before the tests: {}", faults.join(", "));
    }
    let tests = test::run(&[])?;
    Ok(if faults.is_empty() { tests } else { ExitCode::FAILURE })
}

fn announced(command: &mut Command) -> Result<()> {
    println!("$ {}", show(command));
    process::run(command)
}

fn buf_lint() -> Result<()> {
    match buf() {
        Some(buf) => announced(command(buf).args(["lint", "proto"])),
        None => {
            println!("NOT CHECKED: there is neither buf nor npm to install {BUF} with");
            Ok(())
        }
    }
}

fn buf() -> Option<PathBuf> {
    let own = tools().join("buf/node_modules/.bin/buf");
    if let Some(found) = on_path("buf").or_else(|| Some(own.clone()).filter(|file| file.is_file())) {
        return Some(found);
    }
    let npm = on_path("npm")?;
    println!("installing {BUF} into target/xtask/buf");
    let prefix = tools().join("buf");
    std::fs::create_dir_all(&prefix).ok()?;
    let mut install = command(npm);
    install.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&prefix).arg(BUF);
    match process::run(install.current_dir(root())) {
        Ok(()) => Some(own),
        Err(error) => {
            println!("{error:#}");
            None
        }
    }
}
