//! What a scenario found: figures in order, what failed, and one saga's story if something did; and, for a
//! page, a sheet of tables and times.
//!
//! # Not here
//! The page: `html`, and the picture in it: `timeline`.

mod html;
pub mod sheet;
mod timeline;

use crate::oracle::Violation;
pub(crate) use html::escape;
use serde_json::{Map, Value, json};
use sheet::{Check, Sheet};
use std::fmt::Write;
use std::path::Path;

/// Violations of one oracle that are shown.
const SHOWN_MAX: usize = 3;
/// Rows of a table on a terminal.
const ROWS_MAX: usize = 12;

/// What kind of promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something that must never be, however slow the machine.
    Safety,
    /// Something took too long. A machine that is busy with other things may be to blame.
    Time,
    /// Nothing broke, but the run did not come to what it was to try: it proves less than it should.
    Reach,
}

/// A check that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub check: String,
    /// What kind.
    pub kind: Kind,
    /// What is wrong.
    pub text: String,
}

/// What a scenario found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    scenario: String,
    figures: Vec<(String, Value)>,
    failures: Vec<Failure>,
    story: Vec<String>,
    sheet: Option<Sheet>,
    texts: Vec<String>,
    files: Vec<(String, String)>,
}

impl Report {
    /// An empty one.
    #[must_use]
    pub fn new(scenario: &str) -> Self {
        Self { scenario: scenario.to_owned(), ..Self::default() }
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.push((name.to_owned(), value.into()));
    }

    /// Adds a duration in microseconds.
    pub fn duration(&mut self, name: &str, micros: i64) {
        self.figure(name, crate::moment::shown(micros));
    }

    /// Adds p50, p99 and the longest of a histogram of microseconds.
    pub fn latency(&mut self, name: &str, histogram: &hdrhistogram::Histogram<u64>) {
        let at = |micros: u64| crate::moment::shown(i64::try_from(micros).unwrap_or(i64::MAX));
        let (p50, p99) = (histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99));
        self.figure(name, format!("p50 {}  p99 {}  max {}", at(p50), at(p99), at(histogram.max())));
    }

    /// Something that must be so.
    pub fn check(&mut self, kind: Kind, check: &str, holds: bool, text: impl Into<String>) {
        if !holds {
            self.failures.push(Failure { check: check.to_owned(), kind, text: text.into() });
        }
    }

    /// What an oracle found.
    pub fn violations(&mut self, found: &[Violation]) {
        let more = found.len().saturating_sub(SHOWN_MAX);
        for (number, violation) in found.iter().take(SHOWN_MAX).enumerate() {
            let saga = violation.saga.as_deref().unwrap_or("-");
            let rest = if number + 1 == SHOWN_MAX && more > 0 {
                format!(" (and {more} more)")
            } else {
                String::new()
            };
            let text = format!("{saga}: {}{rest}", violation.text);
            self.check(Kind::Safety, violation.oracle, false, text);
        }
    }

    /// An oracle with a place on the sheet: its name, what must hold, and what it found.
    pub fn oracle(&mut self, name: &str, meaning: &str, found: &[Violation]) {
        self.violations(found);
        let check = Check { name: name.to_owned(), meaning: meaning.to_owned(), violations: found.len() };
        self.sheet.get_or_insert_default().checks.push(check);
    }

    /// The sheet, to fill in.
    pub fn sheet(&mut self) -> &mut Sheet {
        self.sheet.get_or_insert_default()
    }

    /// Text for the terminal, after the figures.
    pub fn text(&mut self, text: String) {
        self.texts.push(text);
    }

    /// A file more for the folder of the report.
    pub fn file(&mut self, name: &str, text: String) {
        self.files.push((name.to_owned(), text));
    }

    /// The story of a saga that shows what is wrong.
    pub fn story(&mut self, lines: impl IntoIterator<Item = String>) {
        self.story.extend(lines);
    }

    /// What failed.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// True if nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// A figure by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.figures.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{}\n", self.scenario);
        let width = self.figures.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in &self.figures {
            for (number, line) in lines_of(value).iter().enumerate() {
                let name = if number == 0 { name.as_str() } else { "" };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "  {name:<width$}  {line}");
            }
        }
        for table in self.sheet.iter().flat_map(|sheet| &sheet.tables) {
            text.push_str(&table.text(ROWS_MAX));
        }
        self.texts.iter().for_each(|more| text.push_str(more));
        if self.passed() {
            text.push_str("PASSED\n");
            return text;
        }
        for line in &self.story {
            let _ = writeln!(text, "  | {line}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED {} ({:?}): {}", failure.check, failure.kind, failure.text);
        }
        text
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures: Map<String, Value> = self.figures.iter().cloned().collect();
        let failures = self.failures.iter().map(|failure| {
            json!({ "check": failure.check, "kind": format!("{:?}", failure.kind), "text": failure.text })
        });
        json!({
            "scenario": self.scenario, "passed": self.passed(), "figures": figures,
            "failures": failures.collect::<Vec<_>>(), "story": self.story, "sheet": self.sheet,
        })
    }

    /// Writes the JSON to a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, format!("{:#}\n", self.json()))
    }

    /// Writes `report.json` and, if there is a sheet, `report.html`, and what else the scenario adds, into a folder, which is made.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write_folder(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        self.write(&folder.join("report.json"))?;
        for (name, text) in &self.files {
            std::fs::write(folder.join(name), text)?;
        }
        match &self.sheet {
            Some(sheet) => std::fs::write(folder.join("report.html"), html::page(self, sheet)),
            None => Ok(()),
        }
    }
}

/// A figure as lines for people.
fn lines_of(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
        }
        other => vec![other.to_string()],
    }
}
