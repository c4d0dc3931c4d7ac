//! What a run shows beside its figures: what was checked, tables, and what happened when.

use serde::Serialize;

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sheet {
    /// One line: what ran, how long, on what.
    pub subtitle: String,
    /// The few numbers that come first.
    pub tiles: Vec<Tile>,
    /// Every oracle, whether it found something or not.
    pub checks: Vec<Check>,
    /// Tables.
    pub tables: Vec<Table>,
    /// What happened when.
    pub timeline: Timeline,
    /// The plan of faults, as a file that replays it.
    pub plan: String,
}

/// A number that comes first.
#[derive(Debug, Clone, Serialize)]
pub struct Tile {
    /// What.
    pub label: String,
    /// How much.
    pub value: String,
    /// Anything to add.
    pub note: String,
}

/// An oracle.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What must hold.
    pub meaning: String,
    /// Violations found.
    pub violations: usize,
}

/// A table. Cells that are to be read as numbers stand to the right.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl Cell {
    /// For people.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => grouped(*number),
        }
    }
}

/// `-12,345,678`.
#[must_use]
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(title: &str, note: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.to_owned(), note: note.to_owned(), columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self, rows_max: usize) -> String {
        let mut lines = vec![self.columns.clone()];
        lines.extend(self.rows.iter().take(rows_max).map(|row| row.iter().map(Cell::shown).collect()));
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let is_number: Vec<bool> = (0..widths.len()).map(|column| self.is_number(column)).collect();
        let mut text = format!("  {}\n", self.title);
        for line in &lines {
            let cells = line.iter().zip(&widths).zip(&is_number).map(|((cell, &width), &is_number)| {
                if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            text.push_str(&format!("    {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
        }
        if self.rows.len() > rows_max {
            text.push_str(&format!("    … and {} more\n", self.rows.len() - rows_max));
        }
        text
    }

    /// True if a column holds numbers.
    #[must_use]
    pub fn is_number(&self, column: usize) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| matches!(row.get(column), Some(Cell::Number(_))))
    }
}

/// What happened when. Seconds count from the first load.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Timeline {
    /// The end of what is shown.
    pub length_s: f64,
    /// When the load ended.
    pub load_until_s: f64,
    /// A line for everything that faults hit.
    pub lanes: Vec<Lane>,
    /// What each second brought.
    pub seconds: Vec<Second>,
}

/// Faults of one target.
#[derive(Debug, Clone, Serialize)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// Its faults.
    pub bars: Vec<Bar>,
}

/// A fault.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    /// What.
    pub kind: String,
    /// From when.
    pub from_s: f64,
    /// Until when.
    pub until_s: f64,
}

/// What one second brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Sagas accepted.
    pub accepted: u32,
    /// That succeeded.
    pub succeeded: u32,
    /// That were rolled back.
    pub rolled_back: u32,
    /// That became interventions.
    pub interventions: u32,
    /// That had stood still for more than a second by its end.
    pub standing_still: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown: Vec<_> = [0, 999, 1_000, -12_345_678].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "-12,345,678"]);
    }

    #[test]
    fn a_table_aligns_numbers_to_the_right() {
        let mut table = Table::new("Things", "", &["thing", "count"]);
        table.row(["one".into(), 1_000_i64.into()]);
        table.row(["another".into(), 2_i64.into()]);
        assert_eq!(table.text(9), "  Things\n    thing    count\n    one      1,000\n    another      2\n");
        assert!(table.text(1).ends_with("… and 1 more\n"));
    }
}
