//! Programs that the tests run beside Backstop. `cargo xtask test` says where they are; without it they
//! are looked for. One that is not there fails the test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The grpcurl to use.
pub(crate) fn grpcurl() -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join("go/bin/grpcurl");
    find("BACKSTOP_TEST_GRPCURL", "grpcurl", &[home, xtask("bin/grpcurl")])
}

/// A Python with grpcio.
pub(crate) fn python() -> PathBuf {
    find("BACKSTOP_TEST_PYTHON", "", &[xtask("venv/bin/python")])
}

/// The library that sets a process's wall clock.
pub(crate) fn faketime() -> PathBuf {
    let debian = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|arch| PathBuf::from(format!("/usr/lib/{arch}/faketime/libfaketime.so.1")));
    find("BACKSTOP_TEST_FAKETIME", "", &debian)
}

/// The program of the version before this one.
pub(crate) fn previous() -> PathBuf {
    let commit = include_str!("../../../../../xtask/previous-version").trim();
    find("BACKSTOP_TEST_PREVIOUS", "", &[xtask(&format!("previous/backstop-{commit}"))])
}

fn xtask(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask").join(file)
}

fn find(variable: &str, name: &str, places: &[PathBuf]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(name)).filter(|_| !name.is_empty());
    let found = on_path.chain(places.iter().cloned()).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("not found: {places:?}; run the tests by `cargo xtask test`"))
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// All that a command said.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `grpcurl -plaintext ADDRESS` with more arguments before and after the address.
pub(crate) fn call(address: &str, options: &[&str], what: &[&str]) -> Output {
    let mut command = Command::new(grpcurl());
    run(command.arg("-plaintext").args(["-max-time", "30"]).args(options).arg(address).args(what))
}

/// The same, for a call that must end well.
pub(crate) fn call_ok(address: &str, options: &[&str], what: &[&str]) -> String {
    let output = call(address, options, what);
    assert!(output.status.success(), "grpcurl {options:?} {what:?}: {}", said(&output));
    String::from_utf8(output.stdout).expect("grpcurl prints UTF-8")
}
