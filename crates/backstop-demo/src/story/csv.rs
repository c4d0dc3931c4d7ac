//! Comma-separated lines with a fixed header, read strictly: what is not exactly right is an error with
//! its line.
//!
//! # Not here
//! What the columns mean: `files`. Fields that span lines: refused.

use super::files::{FileError, Problem};

/// One line, cell by cell.
#[derive(Debug)]
pub(super) struct Row {
    /// Its number in the file, from 1.
    pub(super) line: usize,
    cells: Vec<String>,
    header: &'static [&'static str],
}

impl Row {
    /// The cell of a column; empty for a column that the header lacks.
    pub(super) fn cell(&self, column: &str) -> &str {
        let place = self.header.iter().position(|name| *name == column);
        place.and_then(|place| self.cells.get(place)).map_or("", String::as_str)
    }
}

/// Every line after the header.
///
/// # Errors
/// A header that is not exactly this one, a line with another number of cells, a quote out of place.
pub(super) fn rows(file: &str, text: &str, header: &'static [&'static str]) -> Result<Vec<Row>, FileError> {
    let error = |line: usize, problem| FileError { file: file.to_owned(), line, problem };
    let mut rows = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let cells = cells(raw).map_err(|problem| error(line, problem))?;
        if index == 0 {
            if cells != header {
                return Err(error(line, Problem::Header(header.join(","))));
            }
            continue;
        }
        if cells.len() != header.len() {
            return Err(error(line, Problem::Cells { found: cells.len(), expected: header.len() }));
        }
        rows.push(Row { line, cells, header });
    }
    if rows.is_empty() {
        return Err(error(1, Problem::Empty));
    }
    Ok(rows)
}

fn cells(line: &str) -> Result<Vec<String>, Problem> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_cell(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (cell, after) = rest.split_at(end);
                if cell.contains('"') {
                    return Err(Problem::Quote);
                }
                (cell.to_owned(), after)
            }
        };
        cells.push(cell);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(cells),
            None => return Err(Problem::Quote),
        }
    }
}

/// A cell after its opening quote, and what follows its closing one. Two quotes stand for one.
fn quoted_cell(text: &str) -> Result<(String, &str), Problem> {
    let mut cell = String::new();
    let mut rest = text;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err(Problem::Quote);
        };
        cell.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                cell.push('"');
                rest = more;
            }
            None => return Ok((cell, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEADER: &[&str] = &["a", "b"];

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        rows("f.csv", text, HEADER)
            .map(|rows| rows.iter().map(|r| (r.cell("a").to_owned(), r.cell("b").to_owned())).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn quotes_hold_commas_and_quotes() {
        let rows = read("a,b\n1,\r\n\"x, y\",\"she said \"\"no\"\"\"\n").unwrap();
        assert_eq!(rows, [("1".into(), String::new()), ("x, y".into(), "she said \"no\"".into())]);
    }

    #[test]
    fn every_fault_names_its_line() {
        for (text, said) in [
            ("a\n1\n", "f.csv:1: the header must be: a,b"),
            ("a,b\n1,2\n1,2,3\n", "f.csv:3: has 3 cells, and the header 2"),
            ("a,b\n1,\"2\n", "f.csv:2: has a quote out of place"),
            ("a,b\n1,2\"\n", "f.csv:2: has a quote out of place"),
            ("a,b\n\"1\"x,2\n", "f.csv:2: has a quote out of place"),
            ("a,b\n\n", "f.csv:2: has 1 cells, and the header 2"),
            ("a,b\n", "f.csv:1: has no line after the header"),
        ] {
            assert_eq!(read(text).unwrap_err(), said, "{text:?}");
        }
    }
}
