//! The hand-written Rust files of the repository and their sizes.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// One hand-written file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the top of the repository.
    pub(crate) path: PathBuf,
    /// The crate's directory name.
    pub(crate) krate: String,
    /// It lies in a `tests` folder, or is a `tests.rs`.
    pub(crate) is_test_file: bool,
    /// Its text.
    pub(crate) text: String,
}

/// Lines that are neither blank nor comment, apart by what they serve.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lines {
    /// What ships.
    pub(crate) code: usize,
    /// Test files, and all from a `#[cfg(test)]` module on to the file's end.
    pub(crate) test: usize,
}

/// All of them, by path.
pub(crate) fn all(root: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for top in ["crates", "xtask"] {
        walk(root, &root.join(top), &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<Source>) -> Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let path = path.strip_prefix(root)?.to_path_buf();
            let words: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            let krate = words.get(usize::from(words[0] == "crates")).cloned().unwrap_or_default();
            let is_test_file = words.iter().any(|word| word == "tests" || word == "tests.rs");
            found.push(Source { path, krate, is_test_file, text });
        }
    }
    Ok(())
}

impl Source {
    /// Lines in all, blank ones and comments included.
    pub(crate) fn length(&self) -> usize {
        self.text.lines().count()
    }

    /// What counts as code.
    pub(crate) fn lines(&self) -> Lines {
        let mut lines = Lines::default();
        let mut in_tests = self.is_test_file;
        let mut seen_cfg_test = false;
        for line in self.text.lines().map(str::trim) {
            // By the house's habit the unit tests are the last module of a file.
            in_tests |= seen_cfg_test && line.starts_with("mod ") && line.ends_with('{');
            seen_cfg_test = line == "#[cfg(test)]" || (seen_cfg_test && line.starts_with("#["));
            if line.is_empty() || line.starts_with("//") {
                continue;
            }
            if in_tests {
                lines.test += 1;
            } else {
                lines.code += 1;
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_no_code_and_the_test_module_is_counted_apart() {
        let text = "//! About.\n\nfn a() {}\n#[cfg(test)]\nmod helpers;\nfn b() {}\n#[cfg(test)]\nmod tests {\n    // why\n    fn t() {}\n}\n";
        let source =
            Source { path: "x.rs".into(), krate: "x".into(), is_test_file: false, text: text.into() };
        assert_eq!(source.lines(), Lines { code: 5, test: 3 });
    }
}
