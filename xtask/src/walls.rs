//! The architecture's walls, read off `cargo metadata`, and the other rules that no compiler checks.
//!
//! Invariants: every rule that is written in DESIGN 8 and can be read off files is checked here; a fault
//! names what is wrong, where, and the rule. Dev-dependencies may look over any wall: tests stand outside.

use crate::process::{cargo, root};
use crate::sources::{self, Source};
use crate::spec;
use crate::{documents, model, mutants, peer_failures, reference, sim};
use anyhow::{Context, Result, bail};
use backstop_core::{Code, ErrorTable, tier};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Crates that nothing below may pull in, however far down.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "backstop-core",
        &["tokio", "tonic", "sqlx", "opentelemetry", "rand", "futures", "hyper", "prost", "uuid", "anyhow"],
    ),
    ("backstop-invariants", &["tokio", "tonic", "sqlx", "backstop-engine"]),
    ("backstop-model", &["tokio", "tonic", "sqlx", "backstop-engine"]),
    ("backstop-engine", &["tonic", "sqlx", "prost", "hyper", "axum"]),
    ("backstop-rpc", &["backstop-sql", "sqlx"]),
    ("backstop-sql", &["backstop-rpc", "backstop-proto", "tonic"]),
    ("backstop-demo", &["backstop-core", "backstop-engine", "backstop-rpc", "backstop-sql"]),
];

/// Crates that only these of ours may name as a dependency.
const RESERVED: &[(&str, &[&str])] = &[
    (
        "tonic",
        &[
            "backstop-rpc",
            "backstop-proto",
            "backstop-demo",
            "backstop",
            "backstop-participant",
            "backstop-range",
        ],
    ),
    // The range plants rows by the million and reads them back; it knows tables, not the store's code.
    ("sqlx", &["backstop-sql", "backstop-demo", "backstop-participant", "backstop-range"]),
    // The range is a program too, and what stops it is for people to read.
    ("anyhow", &["backstop", "xtask", "backstop-range"]),
    ("stateright", &["backstop-model"]),
    // The micro-benchmarks link what they count; nothing links them.
    ("backstop-rpc", &["backstop", "backstop-bench"]),
    // The range, for `testing::Postgres` alone: the throw-away cluster that it restarts and crashes.
    ("backstop-sql", &["backstop", "backstop-range", "backstop-bench"]),
    ("backstop-bench", &[]),
];

/// A file this long is named; hand-written code outside tests.
const LINES_WARN: usize = 500;
/// A file longer than this is a fault.
const LINES_MAX: usize = 600;

pub(crate) fn run() -> Result<()> {
    let metadata = MetadataCommand::new()
        .cargo_path(cargo().get_program())
        .current_dir(root())
        .exec()
        .context("cargo metadata")?;
    let sources = sources::all(&root())?;
    let mut faults = Vec::new();
    faults.extend(dependency_faults(&Edges::read(&metadata)?));
    faults.extend(migration_faults(&root()));
    faults.extend(error_page_faults(&root()));
    faults.extend(spec::table_faults(&root()));
    faults.extend(reference::faults(&root()));
    faults.extend(documents::faults(&root()));
    faults.extend(clock_faults(&sources));
    faults.extend(length_faults(&sources));
    faults.extend(peer_failures::faults(&root(), &sources));
    faults.extend(mutants::stale_faults(&[model::BENCH.patches, sim::BENCH.patches]));
    for fault in &faults {
        println!("wall: {fault}");
    }
    match faults.len() {
        0 => {
            println!("walls: all stand");
            Ok(())
        }
        1 => bail!("one fault"),
        count => bail!("{count} faults"),
    }
}

/// What depends on what, by name; dev-dependencies left out.
#[derive(Debug, Default)]
struct Edges {
    /// What each workspace member names in its manifest.
    direct: BTreeMap<String, BTreeSet<String>>,
    /// What each workspace member pulls in, near or far.
    all: BTreeMap<String, BTreeSet<String>>,
}

impl Edges {
    fn read(metadata: &Metadata) -> Result<Self> {
        let resolve = metadata.resolve.as_ref().context("cargo metadata has no resolve graph")?;
        let names: BTreeMap<&PackageId, &str> =
            metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
        let nodes: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
            .nodes
            .iter()
            .map(|node| {
                let real = node
                    .deps
                    .iter()
                    .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development));
                (&node.id, real.map(|dep| &dep.pkg).collect())
            })
            .collect();
        let mut edges = Self::default();
        for member in metadata.workspace_packages() {
            let near = nodes.get(&member.id).cloned().unwrap_or_default();
            let mut seen: BTreeSet<&PackageId> = BTreeSet::new();
            let mut open = near.clone();
            while let Some(id) = open.pop() {
                if seen.insert(id) {
                    open.extend(nodes.get(id).into_iter().flatten());
                }
            }
            let name = |id: &&PackageId| names.get(*id).map(|name| (*name).to_owned());
            edges.direct.insert(member.name.to_string(), near.iter().filter_map(name).collect());
            edges.all.insert(member.name.to_string(), seen.iter().filter_map(name).collect());
        }
        Ok(edges)
    }
}

fn dependency_faults(edges: &Edges) -> Vec<String> {
    let mut faults = Vec::new();
    for (krate, forbidden) in FORBIDDEN {
        let Some(all) = edges.all.get(*krate) else {
            faults.push(format!("{krate} is not in the workspace any more; mend the walls"));
            continue;
        };
        for name in forbidden.iter().filter(|name| all.contains(**name)) {
            faults.push(format!("{krate} pulls in {name}, which it must not know (DESIGN 8)"));
        }
    }
    for (name, allowed) in RESERVED {
        for (krate, direct) in &edges.direct {
            if direct.contains(*name) && !allowed.contains(&krate.as_str()) {
                faults.push(format!("{krate} depends on {name}; only {} may", whom(allowed)));
            }
        }
    }
    faults
}

fn whom(allowed: &[&str]) -> String {
    if allowed.is_empty() { "no crate".to_owned() } else { allowed.join(", ") }
}

/// Both databases have the same migrations, by name.
fn migration_faults(root: &Path) -> Vec<String> {
    let names = |engine: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root.join("migrations").join(engine)).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
    };
    let (postgres, sqlite) = (names("postgres"), names("sqlite"));
    if postgres.is_empty() && sqlite.is_empty() {
        return vec!["migrations/postgres and migrations/sqlite are empty".to_owned()];
    }
    let only =
        |engine: &str, name: &String| format!("migrations/{engine}/{name} has no counterpart of that name");
    let in_postgres = postgres.difference(&sqlite).map(|name| only("postgres", name));
    in_postgres.chain(sqlite.difference(&postgres).map(|name| only("sqlite", name))).collect()
}

/// Each code that the default table can say has its page.
fn error_page_faults(root: &Path) -> Vec<String> {
    let table = ErrorTable::default();
    let codes: BTreeSet<String> =
        Code::ALL.into_iter().map(|code| tier(&table, code).fin_code.to_string()).collect();
    let page = |code: &String| format!("docs/errors/{code}.md");
    let missing = codes.iter().map(page).filter(|page| !root.join(page).is_file());
    missing.map(|page| format!("{page} is missing: one page for each code of the default table")).collect()
}

/// Time comes into the core as an argument. (`clippy.toml` there says the same, but can be allowed away.)
fn clock_faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.krate == "backstop-core") {
        for (number, line) in source.text.lines().enumerate() {
            if ["Instant::now", "SystemTime::now"].iter().any(|call| line.contains(call)) {
                let path = source.path.display();
                faults.push(format!("{path}:{}: the core has no clock: time is an argument", number + 1));
            }
        }
    }
    faults
}

fn length_faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test_file && source.length() > LINES_WARN) {
        let said = format!("{} has {} lines", source.path.display(), source.length());
        if source.length() > LINES_MAX {
            faults.push(format!("{said}; the limit is {LINES_MAX}: split it by what it promises"));
        } else {
            println!("note: {said}; above {LINES_MAX} is a fault");
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(pairs: &[(&str, &[&str])]) -> Edges {
        let mut edges = Edges::default();
        for krate in FORBIDDEN.iter().map(|(krate, _)| *krate) {
            edges.direct.insert(krate.to_owned(), BTreeSet::new());
            edges.all.insert(krate.to_owned(), BTreeSet::new());
        }
        for (krate, names) in pairs {
            let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
            edges.direct.insert((*krate).to_owned(), names.clone());
            edges.all.insert((*krate).to_owned(), names);
        }
        edges
    }

    #[test]
    fn each_wall_names_the_crate_that_climbs_over_it() {
        assert_eq!(dependency_faults(&edges(&[("backstop-core", &["bytes"])])), Vec::<String>::new());
        for (krate, name) in [
            ("backstop-core", "tokio"),
            ("backstop-engine", "prost"),
            ("backstop-sql", "backstop-rpc"),
            ("backstop-sim", "tonic"),
            ("backstop-engine", "sqlx"),
            ("backstop-rpc", "anyhow"),
        ] {
            let faults = dependency_faults(&edges(&[(krate, &[name])]));
            assert!(!faults.is_empty(), "{krate} -> {name} went unseen");
            assert!(faults.iter().all(|f| f.contains(krate) && f.contains(name)), "{faults:?}");
        }
    }

    #[test]
    fn a_migration_without_its_counterpart_and_a_code_without_its_page_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for file in
            ["migrations/postgres/0001_a.sql", "migrations/sqlite/0001_a.sql", "migrations/sqlite/0002_b.sql"]
        {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(
            migration_faults(dir.path()),
            ["migrations/sqlite/0002_b.sql has no counterpart of that name"]
        );
        let faults = error_page_faults(dir.path());
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].contains("docs/errors/FIN-40005.md"));
    }

    #[test]
    fn the_core_must_not_read_a_clock_and_files_must_not_grow_without_end() {
        let source = |krate: &str, text: String| Source {
            path: format!("crates/{krate}/src/x.rs").into(),
            krate: krate.to_owned(),
            is_test_file: false,
            text,
        };
        let reads = source("backstop-core", "let a = 1;\nlet now = std::time::Instant::now();\n".into());
        assert!(clock_faults(&[reads])[0].contains("x.rs:2"));
        assert_eq!(length_faults(&[source("a", "x\n".repeat(LINES_MAX))]), Vec::<String>::new());
        assert_eq!(length_faults(&[source("a", "x\n".repeat(LINES_MAX + 1))]).len(), 1);
    }
}
