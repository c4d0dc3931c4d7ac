//! Figures about the house itself: lines of code per crate, the binary, how it is built.

use crate::process::{root, target};
use crate::sources::{self, Lines};
use anyhow::Result;
use std::collections::BTreeMap;

pub(crate) fn run() -> Result<()> {
    let mut crates: BTreeMap<String, Lines> = BTreeMap::new();
    for source in sources::all(&root())? {
        let lines = source.lines();
        let sum = crates.entry(source.krate).or_default();
        sum.code += lines.code;
        sum.test += lines.test;
    }
    println!("{:<22} {:>7} {:>7}", "lines (no comments)", "code", "tests");
    for (name, lines) in &crates {
        println!("{name:<22} {:>7} {:>7}", lines.code, lines.test);
    }
    let (code, test) = crates.values().fold((0, 0), |sum, l| (sum.0 + l.code, sum.1 + l.test));
    println!("{:<22} {code:>7} {test:>7}\n", "all");

    for profile in ["release", "debug"] {
        let binary = target().join(profile).join("backstop");
        match std::fs::metadata(&binary) {
            Ok(file) => println!("target/{profile}/backstop  {:.1} MiB", mebibytes(file.len())),
            Err(_) => println!("target/{profile}/backstop  not built"),
        }
    }
    println!("\nrelease profile");
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let profile = manifest.lines().skip_while(|line| *line != "[profile.release]").skip(1);
    for line in profile.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty()) {
        println!("  {line}");
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // Shown with one decimal.
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
