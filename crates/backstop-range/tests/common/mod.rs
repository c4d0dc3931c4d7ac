//! What the tests on real processes share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `backstop` beside this test's own program, built if it is not there.
pub(crate) fn backstop() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        // target/debug/deps/bench-0123 → target/debug/backstop
        let deps = std::env::current_exe().unwrap();
        let folder = deps.parent().and_then(Path::parent).unwrap();
        let path = folder.join("backstop");
        if !path.is_file() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "-p", "backstop", "--bin", "backstop"]);
            build.arg("--target-dir").arg(folder.parent().unwrap());
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "cargo build -p backstop");
        }
        path
    };
    BUILT.get_or_init(find).clone()
}

/// One at a time: each takes all of the machine.
pub(crate) async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}
