//! Small renderings that several verbs share: safe text, tables, times, durations, short enum names.
//!
//! Not here: colours and streams (`out`), JSON (`json`).

use super::out::{Paint, Style};
use std::time::Duration;

/// A text from outside, made harmless: control characters and those that turn the writing direction
/// round are shown escaped, so no participant can move an operator's cursor or hide a word.
pub(crate) fn safe(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_harmful(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

/// True for what must not reach a terminal as it is.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text as one word of a command that is shown to be copied: quoted for the shell if it needs to be. An id that a
/// client chose may hold anything that a shell acts on.
pub(crate) fn shell_word(text: &str) -> String {
    let text = safe(text);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/@%+=,-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) && !text.starts_with('-') {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// `3 attempts`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// One cell of a [`table`].
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell that stands out.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl Cell {
    /// Characters that it takes on a line.
    pub(crate) fn width(&self) -> usize {
        safe(&self.text).chars().count().max(1)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// Rows under headings, columns aligned; an empty cell shows as `-`.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: Vec<[Cell; N]>, paint: Paint) -> String {
    columns(&headings, rows.into_iter().map(Vec::from).collect(), paint)
}

/// The same, for as many columns as there are headings. A row with fewer cells ends early.
pub(crate) fn columns(headings: &[&str], rows: Vec<Vec<Cell>>, paint: Paint) -> String {
    let headings: Vec<Cell> = headings.iter().map(|heading| Cell::styled(*heading, Style::Bold)).collect();
    let rows: Vec<Vec<Cell>> = std::iter::once(headings)
        .chain(rows)
        .map(|row| {
            let shown = |cell: Cell| {
                let text = if cell.text.is_empty() { "-".to_owned() } else { safe(&cell.text) };
                Cell { text, style: cell.style }
            };
            row.into_iter().map(shown).collect()
        })
        .collect();
    let mut widths = vec![0; rows.iter().map(Vec::len).max().unwrap_or(0)];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.text.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            out.push_str(&paint.apply(cell.style, &cell.text));
            if column + 1 < row.len() {
                let pad = width - cell.text.chars().count() + 2;
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push('\n');
    }
    out
}

/// `label      value`, as heads show it; nothing for an empty value.
pub(crate) fn field(label: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("{label:<12}{value}\n") }
}

/// `2026-11-23T10:00:00.5Z`; empty if it is not set or beyond the calendar.
pub(crate) fn time(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok())
        .map(|at| at.to_string())
        .unwrap_or_default()
}

/// From one instant to another; `None` if either is missing or they are the wrong way round.
pub(crate) fn between(
    from: Option<&prost_types::Timestamp>,
    to: Option<&prost_types::Timestamp>,
) -> Option<Duration> {
    let nanos = |at: &prost_types::Timestamp| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    let gap = u64::try_from(nanos(to?) - nanos(from?)).ok()?;
    Some(Duration::from_nanos(gap))
}

/// `12.3ms`, `4.2s`, `3m 20s`: as exact as a person wants to know.
pub(crate) fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if elapsed < Duration::from_secs(1) {
        format!("{:.1}ms", elapsed.as_secs_f64() * 1000.0)
    } else if seconds < 60 {
        format!("{:.1}s", elapsed.as_secs_f64())
    } else if seconds < 3600 {
        format!("{}m {}s", seconds / 60, seconds % 60)
    } else if seconds < 24 * 3600 {
        format!("{}h {}m", seconds / 3600, seconds % 3600 / 60)
    } else {
        format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600)
    }
}

/// A flag's duration: `500ms`, `30s`, `2m`.
///
/// # Errors
/// A sentence for clap, if it has no unit, is negative or is none at all.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| "say a number with a unit, such as 500ms, 30s or 2m".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a duration cannot be negative".to_owned())
}

/// The wire form of a duration.
pub(crate) fn to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        // A flag of more than i64::MAX seconds cannot be typed: jiff refuses it first.
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// `ROLLED_BACK` of `SAGA_STATE_ROLLED_BACK`; empty for the unspecified value.
pub(crate) fn short(name: &'static str, prefix: &str) -> &'static str {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => "",
        rest => rest,
    }
}

/// Splits `transfer@3`; without `@`, the revision is 0: the newest.
///
/// # Errors
/// A sentence for clap.
pub(crate) fn parse_definition_ref(text: &str) -> Result<DefinitionRef, String> {
    match text.split_once('@') {
        None if text.is_empty() => Err("a definition has a name, such as transfer or transfer@3".to_owned()),
        None => Ok(DefinitionRef { name: text.to_owned(), revision: 0 }),
        Some((name, revision)) => match revision.parse() {
            Ok(revision) if revision > 0 && !name.is_empty() => {
                Ok(DefinitionRef { name: name.to_owned(), revision })
            }
            Ok(_) | Err(_) => Err("say NAME or NAME@REVISION, such as transfer@3".to_owned()),
        },
    }
}

/// A definition as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefinitionRef {
    /// Its name.
    pub(crate) name: String,
    /// Its revision; 0 means the newest.
    pub(crate) revision: u32,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_participant_cannot_move_the_cursor_or_turn_the_writing_round() {
        assert_eq!(safe("ok\u{1b}[2Jgone"), r"ok\u{1b}[2Jgone");
        assert_eq!(safe("two\nlines\r\u{9b}1m"), r"two\nlines\r\u{9b}1m");
        assert_eq!(safe("pay \u{202e}001"), r"pay \u{202e}001");
        assert_eq!(safe("Überweisung 转账 ok"), "Überweisung 转账 ok");
    }

    #[test]
    fn an_id_to_be_copied_cannot_act_on_the_shell() {
        assert_eq!(shell_word("pay-7"), "pay-7");
        assert_eq!(shell_word("$(reboot);x"), "'$(reboot);x'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn columns_line_up_though_cells_are_coloured() {
        let rows = vec![
            [Cell::styled("RUNNING", Style::Warn), Cell::from("a")],
            [Cell::styled("OK", Style::Good), Cell::from("")],
        ];
        assert_eq!(
            table(["STATE", "ID"], rows, Paint::ON),
            "\u{1b}[1mSTATE\u{1b}[0m    \u{1b}[1mID\u{1b}[0m\n\
             \u{1b}[33mRUNNING\u{1b}[0m  a\n\
             \u{1b}[32mOK\u{1b}[0m       -\n"
        );
    }

    #[test]
    fn a_duration_flag_needs_a_unit() {
        assert_eq!(parse_duration("1m 30s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert!(parse_duration("30").unwrap_err().contains("unit"));
        assert!(parse_duration("-1s").unwrap_err().contains("negative"));
    }

    #[test]
    fn a_definition_may_be_named_with_its_revision() {
        let parse = parse_definition_ref;
        assert_eq!(parse("transfer").unwrap().revision, 0);
        assert_eq!(parse("transfer@3").unwrap().revision, 3);
        for wrong in ["", "@3", "transfer@", "transfer@0", "transfer@x", "a@1@2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_id_cannot_act_on_the_shell_that_it_is_pasted_into() {
        assert_eq!(shell_word("pay-7/a:b"), "pay-7/a:b");
        assert_eq!(shell_word("a;reboot"), "'a;reboot'");
        assert_eq!(shell_word("a'$(b)"), "'a'\\''$(b)'");
        assert_eq!(shell_word("-f"), "'-f'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn durations_read_as_exactly_as_a_person_wants() {
        assert_eq!(duration(Duration::from_micros(12_345)), "12.3ms");
        assert_eq!(duration(Duration::from_millis(4_200)), "4.2s");
        assert_eq!(duration(Duration::from_secs(200)), "3m 20s");
        assert_eq!(duration(Duration::from_secs(3_700)), "1h 1m");
        assert_eq!(duration(Duration::from_secs(90_000)), "1d 1h");
    }
}
