//! Holds `docs/peer-failures.md` against the tests: every failure of a peer that is on record has a test that bears
//! its number, and the page lists every such test.
//!
//! Invariants: rows are numbered from 1 without a gap; each names at least one test, by file and name, that is there
//! and is run; each function named `peer_NN_…` stands in row NN. So a test that is renamed, moved, ignored or taken
//! away is a fault here.

use crate::sources::Source;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The page.
const PAGE: &str = "docs/peer-failures.md";
/// Failures on record.
const ROWS: u32 = 47;
/// The stories of a store's contract are no test functions: a list in `mod.rs` runs them on each store.
const CONTRACT: &str = "crates/backstop-engine/src/store_contract";
/// Lines above a function in which it is said to be a test.
const ATTRIBUTE_LINES_MAX: usize = 4;

/// A test of a row: who says so, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    row: u32,
    file: PathBuf,
    name: String,
}

/// What is wrong with the page, or with the tests.
pub(crate) fn faults(root: &Path, sources: &[Source]) -> Vec<String> {
    match std::fs::read_to_string(root.join(PAGE)) {
        Ok(page) => faults_of(&page, sources),
        Err(error) => vec![format!("{PAGE} cannot be read: {error}")],
    }
}

fn faults_of(page: &str, sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut listed = BTreeSet::new();
    let mut row = 0;
    for (number, line) in page.lines().enumerate() {
        let Some(cells) = cells(line) else { continue };
        let place = format!("{PAGE}:{}", number + 1);
        if let Ok(next) = cells[0].parse::<u32>() {
            if next != row + 1 {
                faults.push(format!("{place}: row {next} comes after row {row}"));
            }
            row = next;
        }
        match file_and_name(cells[2]) {
            Some((file, name)) => {
                listed.insert(Test { row, file: file.into(), name: name.to_owned() });
            }
            None => faults.push(format!("{place}: no `file` and `test` in the third column")),
        }
    }
    if row != ROWS {
        faults.push(format!("{PAGE} ends with row {row}, not {ROWS}"));
    }
    let (found, not_run) = tests(sources);
    for row in (1..=ROWS).filter(|row| !listed.iter().any(|test| test.row == *row)) {
        faults.push(format!("{PAGE}: row {row} has no test"));
    }
    for Test { row, file, name } in listed.difference(&found) {
        faults.push(format!("{PAGE}: row {row}: there is no test {name} in {}", file.display()));
    }
    for Test { row, file, name } in found.difference(&listed) {
        faults.push(format!("{PAGE}: row {row} does not list {name} in {}", file.display()));
    }
    faults.extend(not_run.into_iter().map(|what| format!("{what} bears a row's number and is not run")));
    faults
}

/// The cells of a line of the table that names a test.
fn cells(line: &str) -> Option<[&str; 4]> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
    let cells: [&str; 4] = cells.try_into().ok()?;
    let is_head = cells[0] == "#" || cells[0].starts_with('-');
    (!is_head).then_some(cells)
}

/// `` `file` `name` ``.
fn file_and_name(cell: &str) -> Option<(&str, &str)> {
    let mut quoted = cell.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.next()?))
}

/// Every function that bears a row's number: those that are run, and what is known of those that are not.
fn tests(sources: &[Source]) -> (BTreeSet<Test>, Vec<String>) {
    let (mut run, mut not_run) = (BTreeSet::new(), Vec::new());
    let list = sources.iter().find(|source| source.path == Path::new(CONTRACT).join("mod.rs"));
    for source in sources {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let Some((row, name)) = row_and_name(line) else { continue };
            let above = &lines[number.saturating_sub(ATTRIBUTE_LINES_MAX)..number];
            // What stands above a blank line or the end of another function is not this one's.
            let begin = above.iter().rposition(|line| line.is_empty() || *line == "}").map_or(0, |at| at + 1);
            let says = |word: &str| above[begin..].iter().any(|line| line.starts_with(word));
            let told = source.path.starts_with(CONTRACT)
                && list.is_some_and(|list| list.text.contains(&format!("::{name},")));
            // A macro makes tests of the stories that it lists, a line each.
            let told = told || lines.contains(&format!("{name},").as_str());
            let is_test = says("#[test]") || says("#[tokio::test");
            if (is_test && !says("#[ignore")) || told {
                run.insert(Test { row, file: source.path.clone(), name: name.to_owned() });
            } else {
                not_run.push(format!("{}:{}: {name}", source.path.display(), number + 1));
            }
        }
    }
    (run, not_run)
}

/// Row and name of a function `peer_NN_…` that begins in this line.
fn row_and_name(line: &str) -> Option<(u32, &str)> {
    let (before, rest) = line.split_once("fn ")?;
    if !before.split_whitespace().all(|word| word == "async" || word.starts_with("pub")) {
        return None;
    }
    let name = rest.split(['(', '<']).next()?;
    let number = name.strip_prefix("peer_")?.split('_').next()?;
    (number.len() == 2).then_some(())?;
    Some((number.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So that this file itself names no such function.
    fn named(name: &str) -> String {
        format!("peer_{name}")
    }

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), krate: String::new(), is_test_file: true, text: text.to_owned() }
    }

    fn page(lines: &[(u32, &str)]) -> String {
        let head = "# Page\n\n| # | there | test | here |\n| --- | --- | --- | --- |\n".to_owned();
        let line = |(row, name): &(u32, &str)| {
            let number = if *row == 0 { String::new() } else { row.to_string() };
            format!("| {number} | it fails | `crates/a/tests/a.rs` `{}` | it does not |\n", named(name))
        };
        head + &lines.iter().map(line).collect::<String>()
    }

    fn whole() -> (String, String) {
        let names: Vec<String> = (1..=ROWS).map(|row| format!("{row:02}_holds")).collect();
        let rows: Vec<(u32, &str)> = names.iter().zip(1..).map(|(name, row)| (row, name.as_str())).collect();
        let tests = names.iter().map(|name| format!("#[test]\nfn {}() {{\n}}\n\n", named(name))).collect();
        (page(&rows), tests)
    }

    #[test]
    fn a_page_that_lists_every_test_under_its_row_has_no_fault() {
        let (page, tests) = whole();
        assert_eq!(faults_of(&page, &[source("crates/a/tests/a.rs", &tests)]), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_is_renamed_moved_ignored_or_not_listed_is_a_fault() {
        let (page, tests) = whole();
        let seven = named("07_holds");
        let with = |tests: &str| faults_of(&page, &[source("crates/a/tests/a.rs", tests)]);
        let renamed = with(&tests.replace(&seven, &named("07_held")));
        assert_eq!(renamed.len(), 2, "{renamed:?}");
        assert!(renamed[0].contains(&format!("row 7: there is no test {seven}")), "{renamed:?}");
        assert!(renamed[1].contains(&format!("row 7 does not list {}", named("07_held"))), "{renamed:?}");
        let stripped = with(&tests.replace(&seven, "holds"));
        assert!(stripped[0].contains("there is no test"), "{stripped:?}");
        let moved = faults_of(&page, &[source("crates/b/tests/a.rs", &tests)]);
        assert_eq!(moved.len(), 2 * ROWS as usize);
        let ignored = with(&tests.replace(&format!("fn {seven}"), &format!("#[ignore]\nfn {seven}")));
        assert!(ignored.iter().any(|fault| fault.contains("is not run")), "{ignored:?}");
        let helper = with(&tests.replace(&format!("#[test]\nfn {seven}"), &format!("fn {seven}")));
        assert!(helper.iter().any(|fault| fault.contains("is not run")), "{helper:?}");
        let more =
            with(&(tests.clone() + &format!("#[tokio::test]\nasync fn {}() {{\n}}\n", named("07_too"))));
        assert_eq!(more, [format!("{PAGE}: row 7 does not list {} in crates/a/tests/a.rs", named("07_too"))]);
    }

    #[test]
    fn a_row_that_is_missing_or_has_another_ones_test_is_a_fault() {
        let (whole, tests) = whole();
        let without: String =
            whole.lines().filter(|line| !line.contains("07_holds")).map(|l| l.to_owned() + "\n").collect();
        let sources = [source("crates/a/tests/a.rs", &tests)];
        let faults = faults_of(&without, &sources);
        assert!(faults.iter().any(|fault| fault.contains("row 8 comes after row 6")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("row 7 has no test")), "{faults:?}");
        let swapped = whole.replace("07_holds", "08_holds");
        assert!(!faults_of(&swapped, &sources).is_empty());
        // A second test of a row stands in a line without a number.
        let more = tests + &format!("#[test]\nfn {}() {{\n}}\n", named("47_too"));
        let longer = whole + page(&[(0, "47_too")]).lines().last().unwrap_or_default();
        assert_eq!(faults_of(&longer, &[source("crates/a/tests/a.rs", &more)]), Vec::<String>::new());
    }

    #[test]
    fn a_story_is_run_if_a_list_has_it() {
        let name = named("10_holds");
        let story = source(
            &format!("{CONTRACT}/reading.rs"),
            &format!("pub(super) async fn {name}(\n    bench: &Bench,\n"),
        );
        let list = source(&format!("{CONTRACT}/mod.rs"), &format!("stories![\n    reading::{name},\n];"));
        assert_eq!(tests(&[story, list]).0.len(), 1);
        let story = source(
            &format!("{CONTRACT}/reading.rs"),
            &format!("pub(super) async fn {name}(bench: &Bench) {{"),
        );
        assert_eq!(tests(&[story]).1.len(), 1);
        let text =
            format!("on_both_engines!(\n    {name},\n);\n\nasync fn {name}<DB: Books>(world: World<DB>) {{");
        assert_eq!(tests(&[source("crates/b/tests/b.rs", &text)]).0.len(), 1);
    }
}
