//! `backstop demo --exit`: the product's face ends well, and nothing of what it says is hard-coded.

use crate::common::server::BINARY;
use crate::common::tool::{run, said};
use std::process::Command;

#[test]
fn the_demo_shows_transfers_that_succeed_and_that_are_undone_and_the_sums_agree() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    let output = run(command.args(["demo", "--exit"]).current_dir(directory.path()));
    let shown = said(&output);
    assert!(output.status.success(), "{shown}");
    for word in ["succeeded", "rolled back", "FIN-40005", "FIN-50302", "FIN-50001", "grpcurl"] {
        assert!(shown.contains(word), "the demo does not say {word:?}:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colours only on a terminal");
    assert!(!shown.contains("panicked"), "{shown}");
}
