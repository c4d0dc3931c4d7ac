//! What documents name is there: metrics, settings, environment variables, chores, files, pages and their headings.
//!
//! # Invariants
//! * A page names no metric that `docs/metrics.md` lacks, no setting and no variable that `default.toml` lacks, no chore
//!   that `cargo xtask` lacks, and no file that the repository lacks.
//! * Every link within the repository leads somewhere, headings included.
//! * Each of these finds what it is there for (`what_is_not_there_is_named_with_its_place`).
//!
//! # Not here
//! Verbs and flags of the program: `crates/backstop/src/documents.rs`, since clap knows them. What commands print:
//! `crates/backstop/tests/blackbox/pages.rs`. Metrics in alerts and dashboards, and an alert's page: [`crate::deploy`].

use crate::{USAGE, reference};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where pages are: files, or folders with all that is in them.
const PLACES: [&str; 7] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs", "deploy", "examples", "docker-compose.yml"];
/// What is read as text, by the end of its name.
const TEXTS: [&str; 7] = ["md", "yml", "yaml", "json", "sh", "toml", "Dockerfile"];
/// Where files are that a page may name by their path.
const TOPS: [&str; 8] =
    ["crates/", "docs/", "deploy/", "xtask/", "examples/", "migrations/", "proto/", ".ci/"];
/// How pages for whoever changes the program name its crates' sources: `core/tier.rs`.
const SHORT: [&str; 4] = ["core/", "engine/", "rpc/", "sql/"];
/// Names that begin like a metric's and are none: the barrier's table with its index and savepoint.
const NO_METRICS: [&str; 3] = ["backstop_barrier", "backstop_barrier_by_age", "backstop_work"];
/// What the exporter adds to a histogram's name.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];
/// Variables that are no settings of a coordinator: the client's server, the file of the settings, where the
/// specification's checker is, and what Kubernetes makes of a service called backstop.
const NO_SETTINGS: [&str; 4] =
    ["BACKSTOP_SERVER", "BACKSTOP_CONFIG", "BACKSTOP_TLC", "BACKSTOP_SERVICE_HOST"];
/// Beginnings of more of them: what tests are told, and error domains, whose names are their author's.
const NO_SETTINGS_FROM: [&str; 2] = ["BACKSTOP_TEST_", "BACKSTOP_ERROR_DOMAINS__"];

/// What there is.
struct Known {
    root: PathBuf,
    metrics: BTreeSet<String>,
    settings: BTreeSet<String>,
    variables: BTreeSet<String>,
    crates: BTreeSet<String>,
    chores: BTreeSet<String>,
}

impl Known {
    fn read(root: &Path) -> Result<Self> {
        let table = std::fs::read_to_string(root.join("docs/metrics.md")).context("docs/metrics.md")?;
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let settings = reference::settings(root)?;
        let crates = std::fs::read_dir(root.join("crates")).context("crates")?;
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.file_name().display().to_string());
        let chore = |line: &str| {
            let name = line.strip_prefix("  ")?.split(' ').next()?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        Ok(Self {
            root: root.to_owned(),
            metrics: rows.map(str::to_owned).collect(),
            settings: settings.iter().map(reference::Setting::name).collect(),
            variables: settings.iter().map(reference::Setting::variable).collect(),
            crates: crates.filter_map(name).map(|name| name.replace('-', "_")).collect(),
            chores: USAGE.lines().filter_map(chore).collect(),
        })
    }

    fn has_metric(&self, name: &str) -> bool {
        let base = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let is_other = NO_METRICS.contains(&name) || self.crates.contains(name);
        is_other || self.metrics.contains(name) || self.metrics.contains(base)
    }

    fn has_variable(&self, name: &str) -> bool {
        let is_other =
            NO_SETTINGS.contains(&name) || NO_SETTINGS_FROM.iter().any(|from| name.starts_with(from));
        is_other || self.variables.contains(name)
    }

    /// `lease.ttl` and `lease.…` are meant as settings if there is a table `lease`.
    fn lacks_setting(&self, name: &str) -> bool {
        let is_meant = name.split_once('.').is_some_and(|(table, key)| {
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let is_file = TEXTS.contains(&key) || ["csv", "db", "rs", "proto", "sql"].contains(&key);
            let has_table = self.settings.iter().any(|known| known.starts_with(&format!("{table}.")));
            has_table && !is_file && !key.is_empty() && key.chars().all(is_word)
        });
        is_meant && !self.settings.contains(name)
    }
}

/// For the walls.
pub(crate) fn faults(root: &Path) -> Vec<String> {
    let known = match Known::read(root) {
        Ok(known) => known,
        Err(error) => return vec![format!("documents: {error:#}")],
    };
    let mut pages = Vec::new();
    for place in PLACES {
        walk(&root.join(place), &mut pages);
    }
    pages.sort();
    pages.iter().flat_map(|page| page_faults(&known, page)).collect()
}

fn walk(place: &Path, found: &mut Vec<PathBuf>) {
    if let Ok(entries) = std::fs::read_dir(place) {
        entries.filter_map(Result::ok).for_each(|entry| walk(&entry.path(), found));
    } else if place.is_file() && TEXTS.iter().any(|end| place.to_string_lossy().ends_with(end)) {
        found.push(place.to_owned());
    }
}

fn page_faults(known: &Known, page: &Path) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(page) else {
        return vec![format!("{} cannot be read", page.display())];
    };
    let is_markdown = page.extension().is_some_and(|end| end == "md");
    let mut faults = Vec::new();
    let mut in_block = false;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", page.strip_prefix(&known.root).unwrap_or(page).display(), number + 1);
        faults.extend(name_faults(known, line).into_iter().map(|fault| format!("{place}: {fault}")));
        in_block ^= line.trim_start().starts_with("```");
        if is_markdown && !in_block {
            let more = quoted_faults(known, page, line).into_iter().chain(link_faults(known, page, line));
            faults.extend(more.map(|fault| format!("{place}: {fault}")));
        }
    }
    faults
}

/// Metrics, variables and chores, wherever they stand.
fn name_faults(known: &Known, line: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for name in names(line, "backstop_", |c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        if !known.has_metric(name) {
            faults.push(format!("{name} is no metric of docs/metrics.md"));
        }
    }
    for name in names(line, "BACKSTOP_", |c| c.is_ascii_uppercase() || c.is_ascii_digit()) {
        if !known.has_variable(name) {
            faults.push(format!("{name} is the variable of no setting"));
        }
    }
    for rest in line.split("cargo xtask ").skip(1) {
        let chore: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        if !chore.is_empty() && !known.chores.contains(&chore) {
            faults.push(format!("`cargo xtask {chore}` is no chore"));
        }
    }
    faults
}

/// Words of a line that begin so, with `_` and what `part` takes. What stands for many (`backstop_…`) is none.
fn names<'a>(line: &'a str, begin: &str, part: impl Fn(char) -> bool) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices(begin) {
        let before = line[..at].chars().next_back();
        let rest = &line[at..];
        let begins_word =
            !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '/');
        let is_begin =
            |(index, c): (usize, char)| (index >= begin.len() && c != '_' && !part(c)).then_some(index);
        let end = rest.char_indices().find_map(is_begin).unwrap_or(rest.len());
        let name = &rest[..end];
        if begins_word && !name.ends_with('_') && !rest[end..].starts_with("::") {
            found.push(name);
        }
    }
    found
}

/// Settings and files, in backticks.
fn quoted_faults(known: &Known, page: &Path, line: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for quoted in line.split('`').skip(1).step_by(2) {
        let word = quoted.split([' ', '=']).next().unwrap_or_default();
        if known.lacks_setting(word) {
            faults.push(format!("`{word}` is no setting"));
        }
        let file = word.split([':', '#']).next().unwrap_or_default();
        if !file.contains(['*', '…', '{', '<']) && !has_file(known, page, file) {
            faults.push(format!("`{file}` is not there"));
        }
    }
    faults
}

/// Whether what looks like a file is one: from the top, from the page, or in a crate's sources.
fn has_file(known: &Known, page: &Path, file: &str) -> bool {
    if let Some((krate, rest)) = SHORT.iter().find_map(|short| Some((short, file.strip_prefix(short)?))) {
        let krate = known.root.join(format!("crates/backstop-{krate}"));
        return ["src/", ""].iter().any(|folder| {
            let path = krate.join(folder).join(rest);
            path.exists() || path.with_extension("rs").exists()
        });
    }
    let is_named = TOPS.iter().any(|top| file.starts_with(top));
    !is_named || known.root.join(file).exists() || page.with_file_name(file).exists()
}

/// Links within the repository.
fn link_faults(known: &Known, page: &Path, line: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for rest in line.split("](").skip(1) {
        let target = rest.split(')').next().unwrap_or_default();
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, heading) = target.split_once('#').unwrap_or((target, ""));
        let file = if path.is_empty() { page.to_owned() } else { page.with_file_name("").join(path) };
        if !file.exists() {
            faults.push(format!("the link to {target} leads nowhere"));
        } else if !heading.is_empty() && path_is_page(&file) && !headings(&file).contains(heading) {
            let file = file.strip_prefix(&known.root).unwrap_or(&file).display().to_string();
            faults.push(format!("{file} has no heading #{heading}"));
        }
    }
    faults
}

fn path_is_page(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "md")
}

/// A page's headings, as links name them.
fn headings(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut in_block = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        in_block ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if !in_block && title.len() < line.len() {
            let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            found.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(page: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write(
            "docs/metrics.md",
            "# Metrics\n\n| `backstop_live_sagas` | gauge | | |\n| `backstop_saga_seconds` | h | | |\n",
        );
        write(
            "crates/backstop/src/config/default.toml",
            "# A.\nstore = \"x\"\n\n[lease]\n# B.\nttl = \"5s\"\n",
        );
        write("docs/page.md", page);
        root
    }

    #[test]
    fn what_is_there_is_no_fault() {
        let page = "# It's a Page: Two\n`backstop_live_sagas`, backstop_saga_seconds_bucket, `backstop::x`, backstop_…\n\
                    `lease.ttl = \"1s\"` `lease` `e.g.` BACKSTOP_LEASE__TTL BACKSTOP_* BACKSTOP_TEST_X BACKSTOP_SERVER\n\
                    `cargo xtask walls` `docs/page.md:7` `docs/errors/*.md` [a](metrics.md#metrics) [b](#its-a-page-two)\n\
                    [c](https://x.example/docs/none.md)\n```\n[no](link.md)\n```\n";
        assert_eq!(faults(repository(page).path()), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_there_is_named_with_its_place() {
        for (line, fault) in [
            ("`backstop_dead_sagas`", "backstop_dead_sagas is no metric of docs/metrics.md"),
            ("rate(backstop_live_sagas_max[5m])", "backstop_live_sagas_max is no metric of docs/metrics.md"),
            ("`lease.tt`", "`lease.tt` is no setting"),
            ("`lease.tt = 4`", "`lease.tt` is no setting"),
            ("BACKSTOP_LEASE_TTL=4s", "BACKSTOP_LEASE_TTL is the variable of no setting"),
            ("    cargo xtask wall", "`cargo xtask wall` is no chore"),
            ("`docs/pages.md`", "`docs/pages.md` is not there"),
            ("`core/tier.rs`", "`core/tier.rs` is not there"),
            ("[a](metric.md)", "the link to metric.md leads nowhere"),
            ("[a](metrics.md#metric)", "docs/metrics.md has no heading #metric"),
            ("[a](#below)", "docs/page.md has no heading #below"),
        ] {
            let found = faults(repository(&format!("# Page\n{line}\n")).path());
            assert_eq!(found, [format!("docs/page.md:2: {fault}")], "{line}");
        }
    }
}
