//! What the story looks like: plain lines, coloured only on a terminal that wants it.

use std::io::{self, IsTerminal, Write};

/// Where the story is told.
pub struct Screen {
    out: Box<dyn Write + Send>,
    colour: bool,
}

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// As it should be.
    Good,
    /// Undone.
    Undone,
    /// Not as it should be.
    Bad,
}

impl Screen {
    /// Standard output; colours if it is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colour = wanted && io::stdout().is_terminal();
        Self { out: Box::new(io::stdout()), colour }
    }

    /// Anywhere else, without colours.
    #[must_use]
    pub fn plain(out: Box<dyn Write + Send>) -> Self {
        Self { out, colour: false }
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        // Each line is news, also in a pipe.
        self.out.flush()
    }

    /// An empty line, a heading, an empty line.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        let heading = self.ink(Ink::Bold, text);
        self.line(&format!("\n{heading}\n"))
    }

    pub(super) fn ink(&self, ink: Ink, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Good => "32",
            Ink::Undone => "33",
            Ink::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Minor units as people write them: `1 234.50`. Most currencies have two decimals; those that do not are
/// named.
pub(super) fn money(minor: i64, currency: &str) -> String {
    let decimals = match currency {
        "JPY" | "KRW" | "ISK" | "CLP" | "VND" => 0,
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => 3,
        _ => 2,
    };
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    let sign = if minor < 0 { "-" } else { "" };
    let point = if decimals > 0 { "." } else { "" };
    format!("{sign}{grouped}{point}{fraction}")
}

/// A text from a service, safe for a terminal: one line, no control characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_in_the_currencys_own_way() {
        assert_eq!(money(123_450, "EUR"), "1 234.50");
        assert_eq!(money(-5, "EUR"), "-0.05");
        assert_eq!(money(0, "EUR"), "0.00");
        assert_eq!(money(1_000_000, "JPY"), "1 000 000");
        assert_eq!(money(1_500, "KWD"), "1.500");
        assert_eq!(money(i64::MIN, "EUR"), "-92 233 720 368 547 758.08");
    }

    #[test]
    fn a_screen_without_colours_writes_no_escapes_and_a_text_from_outside_cannot() {
        let screen = Screen::plain(Box::new(Vec::new()));
        assert_eq!(screen.ink(Ink::Bad, "x"), "x");
        assert_eq!(one_line("a\x1b[31mb\nc"), "a [31mb c");
    }
}
