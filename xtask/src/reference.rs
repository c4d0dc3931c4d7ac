//! `docs/configuration.md`: the reference of every setting, made of the file that holds the defaults.
//!
//! # Invariants
//! * The page is the file in print: `cargo xtask walls` compares them, `cargo xtask reference` writes the page anew.
//! * A setting without a comment is a fault (`a_setting_that_nothing_is_said_of_is_a_fault`).
//!
//! # Not here
//! That each setting is read by the program and that the comments are true of it: `crates/backstop/src/config`.

use crate::process::root;
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::path::Path;

/// Where the defaults are.
const DEFAULTS: &str = "crates/backstop/src/config/default.toml";
/// The page.
const PAGE: &str = "docs/configuration.md";
/// Settings that have a flag of `backstop serve`.
const FLAGS: [(&str, &str); 3] =
    [("store", "--store"), ("listen", "--listen"), ("metrics_listen", "--metrics-listen")];

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its table; empty at the top.
    table: String,
    /// Its key within that.
    key: String,
    /// Its default, as TOML.
    default: String,
    /// Its comment; empty if it shares that of the setting before.
    meaning: String,
}

impl Setting {
    /// `lease.ttl`.
    pub(crate) fn name(&self) -> String {
        if self.table.is_empty() { self.key.clone() } else { format!("{}.{}", self.table, self.key) }
    }

    /// `BACKSTOP_LEASE__TTL`.
    pub(crate) fn variable(&self) -> String {
        format!("BACKSTOP_{}", self.name().replace('.', "__").to_uppercase())
    }

    fn unit(&self) -> &'static str {
        let text = self.default.trim_matches('"');
        let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let is_time = ["ms", "s", "m", "h"].contains(&&text[digits.len()..]) && digits.parse::<u64>().is_ok();
        match self.default.as_str() {
            _ if is_time => "time",
            "true" | "false" => "true or false",
            value if value.starts_with('"') => "text",
            _ if self.key.contains("bytes") => "bytes",
            _ if self.key.ends_with("percent") => "percent",
            _ if self.key.contains("per_second") => "in a second",
            _ if self.key.ends_with("ratio") => "0 to 1",
            _ => "number",
        }
    }
}

/// The file, taken apart.
#[derive(Debug, Default)]
struct Defaults {
    settings: Vec<Setting>,
    /// The comment at the end that belongs to no setting.
    tail: Vec<String>,
}

/// Every setting of the program.
pub(crate) fn settings(root: &Path) -> Result<Vec<Setting>> {
    Ok(read(&text(root)?)?.settings)
}

fn text(root: &Path) -> Result<String> {
    std::fs::read_to_string(root.join(DEFAULTS)).with_context(|| format!("cannot read {DEFAULTS}"))
}

fn read(text: &str) -> Result<Defaults> {
    let mut defaults = Defaults::default();
    let mut table = String::new();
    let mut comment: Vec<String> = Vec::new();
    let mut shared = false;
    for line in text.lines().map(str::trim_end) {
        if let Some(said) = line.strip_prefix('#') {
            comment.push(said.strip_prefix(' ').unwrap_or(said).to_owned());
            shared = false;
        } else if line.is_empty() {
            comment.clear();
            shared = false;
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut table);
            comment.clear();
            shared = false;
        } else {
            let (key, value) =
                line.split_once(" = ").with_context(|| format!("{DEFAULTS}: {line:?} is no setting"))?;
            let meaning = std::mem::take(&mut comment).join(" ");
            if meaning.is_empty() && !shared {
                bail!("{DEFAULTS}: {key} has no comment, and the comment is its documentation");
            }
            let (key, default) = (key.to_owned(), value.to_owned());
            defaults.settings.push(Setting { table: table.clone(), key, default, meaning });
            shared = true;
        }
    }
    defaults.tail = comment;
    Ok(defaults)
}

const HEAD: &str = "\
# Configuration

Every setting of `backstop serve` and `backstop migrate`. Flags beat the environment, which beats the file of
`--config FILE` (or `BACKSTOP_CONFIG`), which beats these defaults. A file needs only what differs:

```toml
store = \"postgres://backstop@db/backstop\"

[lease]
ttl = \"10s\"
```

A time is a number and `ms`, `s`, `m` or `h`. A setting that does not exist is a fault, in the file and in the
environment; every fault is told at once, and nothing is opened before. `backstop serve --print-config` shows what is in
force, with a password hidden.

What the settings are for, and which of them to change when: [operations.md](operations.md).

This page is made of [`default.toml`](../crates/backstop/src/config/default.toml), which is built into the program;
`cargo xtask reference` writes it anew.
";

fn page(defaults: &Defaults) -> String {
    let mut page = HEAD.to_owned();
    let mut table = None;
    let mut told = String::new();
    for setting in &defaults.settings {
        if table != Some(&setting.table) {
            table = Some(&setting.table);
            let title = if setting.table.is_empty() { "At the top" } else { &setting.table };
            // Writing to a String cannot fail.
            let _ = writeln!(
                page,
                "\n## {title}\n\n| setting | default | unit | environment | meaning |\n| --- | --- | --- | --- | --- |"
            );
        }
        let name = setting.name();
        let meaning = if setting.meaning.is_empty() {
            format!("see `{told}`")
        } else {
            told.clone_from(&name);
            setting.meaning.replace('|', "\\|")
        };
        let default = match setting.default.trim_matches('"') {
            "" => "empty".to_owned(),
            value => format!("`{value}`"),
        };
        let flag = FLAGS.iter().find(|(flagged, _)| *flagged == name);
        let flag = flag.map(|(_, flag)| format!(", flag `{flag}`")).unwrap_or_default();
        let (unit, variable) = (setting.unit(), setting.variable());
        let _ = writeln!(page, "| `{name}` | {default} | {unit} | `{variable}`{flag} | {meaning} |");
    }
    let split = defaults.tail.iter().position(String::is_empty).unwrap_or(defaults.tail.len());
    let (prose, sample) = defaults.tail.split_at(split);
    let _ = writeln!(page, "\n## Error domains\n\n{}\n", prose.join("\n"));
    let _ = writeln!(page, "```toml\n{}\n```", sample.join("\n").trim());
    page
}

/// Writes the page.
pub(crate) fn run() -> Result<()> {
    let path = root().join(PAGE);
    std::fs::write(&path, page(&read(&text(&root())?)?)).with_context(|| format!("cannot write {PAGE}"))?;
    println!("written: {PAGE}");
    Ok(())
}

/// For the walls.
pub(crate) fn faults(root: &Path) -> Vec<String> {
    match text(root).and_then(|text| read(&text)) {
        Err(error) => vec![format!("{error:#}")],
        Ok(defaults) if std::fs::read_to_string(root.join(PAGE)).ok() == Some(page(&defaults)) => Vec::new(),
        Ok(_) => vec![format!("{PAGE} is not what {DEFAULTS} says: run `cargo xtask reference`")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# About the file.\n\n# Where | it is.\nstore = \"sqlite:x\"\n\n[lease]\n# How long a lease\n\
                        # lasts, and its renewal.\nttl = \"5s\"\nrenew_every = \"1s\"\n# Bytes.\nbytes_max = 7\n\n\
                        # A domain:\n#\n# [error_domains.a]\n# b = 1\n";

    #[test]
    fn a_row_a_setting_and_a_shared_comment_is_said_once() {
        let page = page(&read(TEXT).unwrap());
        for line in [
            "| `store` | `sqlite:x` | text | `BACKSTOP_STORE`, flag `--store` | Where \\| it is. |",
            "| `lease.ttl` | `5s` | time | `BACKSTOP_LEASE__TTL` | How long a lease lasts, and its renewal. |",
            "| `lease.renew_every` | `1s` | time | `BACKSTOP_LEASE__RENEW_EVERY` | see `lease.ttl` |",
            "| `lease.bytes_max` | `7` | bytes | `BACKSTOP_LEASE__BYTES_MAX` | Bytes. |",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
        }
        assert!(
            page.ends_with("## Error domains\n\nA domain:\n\n```toml\n[error_domains.a]\nb = 1\n```\n"),
            "{page}"
        );
        assert!(!page.contains("About the file"), "{page}");
    }

    #[test]
    fn a_setting_that_nothing_is_said_of_is_a_fault() {
        let error = read("# About.\n\nstore = \"x\"\n").unwrap_err();
        assert!(error.to_string().contains("store has no comment"), "{error}");
    }

    #[test]
    fn the_page_must_be_what_the_file_says() {
        let root = tempfile::tempdir().unwrap();
        for path in [DEFAULTS, PAGE] {
            std::fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
        }
        std::fs::write(root.path().join(DEFAULTS), TEXT).unwrap();
        assert_eq!(faults(root.path()).len(), 1, "there is no page");
        std::fs::write(root.path().join(PAGE), page(&read(TEXT).unwrap())).unwrap();
        assert_eq!(faults(root.path()), Vec::<String>::new());
        std::fs::write(root.path().join(DEFAULTS), TEXT.replace("5s", "6s")).unwrap();
        assert_eq!(faults(root.path()).len(), 1, "another default");
    }
}
