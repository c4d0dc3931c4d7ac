//! The only place of the CLI that writes to the terminal, but for the live screen (`top/raw`).
//!
//! Invariants: colour only on a terminal and never with `NO_COLOR` (no-color.org); a reader that has
//! gone (`| head`) ends the command quietly instead of with a panic.
//!
//! Not here: making texts from outside safe, which is `text::safe` and is done where they are rendered.

use std::io::{self, BufRead, IsTerminal, Write};

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// A heading.
    Bold,
    /// Of lesser weight.
    Dim,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It goes on, or went back.
    Warn,
}

/// Whether to colour; rendering functions take it as an argument and stay pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Never colours.
    pub(crate) const OFF: Self = Self { on: false };
    /// Always colours.
    #[cfg(test)]
    pub(crate) const ON: Self = Self { on: true };

    fn for_stream(is_terminal: bool) -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: is_terminal && !forbidden }
    }

    /// The text in that style.
    pub(crate) fn apply(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Bad => "31",
            Style::Warn => "33",
        };
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// What results are shown on, as far as layout depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    /// True if somebody looks at it: what is on it can be drawn over.
    pub(crate) is_terminal: bool,
    /// Columns.
    pub(crate) width: usize,
    /// Lines.
    pub(crate) height: usize,
    /// True if only ASCII is sure to be shown.
    pub(crate) is_ascii: bool,
}

impl Screen {
    /// What does not go to a terminal, and is as wide as most are.
    const PAPER: Self = Self { is_terminal: false, width: 100, height: 24, is_ascii: false };

    /// The process's own, as it is now: a window may change its size.
    pub(crate) fn of_stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let size = is_terminal.then(crossterm::terminal::size).and_then(Result::ok);
        let (width, height) = match size {
            Some((columns, lines)) if columns > 0 && lines > 0 => (columns.into(), lines.into()),
            Some(_) | None => (columns_variable().unwrap_or(Self::PAPER.width), Self::PAPER.height),
        };
        Self { is_terminal, width, height, is_ascii: !is_utf8_locale() }
    }
}

/// The width that a shell or a script asks for where there is no terminal.
fn columns_variable() -> Option<usize> {
    /// Wider than anything that is looked at, and no reason to fill memory with blanks.
    const WIDTH_MAX: usize = 1_000;
    let columns: usize = std::env::var("COLUMNS").ok()?.parse().ok()?;
    (columns > 0).then_some(columns.min(WIDTH_MAX))
}

/// By the variables that decide about characters, in their order of precedence.
fn is_utf8_locale() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Where a command writes: results to one stream, notes and errors to the other.
pub(crate) struct Terminal {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Where a person answers questions, if one is there.
    answers: Option<Box<dyn BufRead + Send>>,
    /// Whether notes go to a terminal, so that progress can be shown on one line.
    shows_progress: bool,
    /// For results.
    pub(crate) paint: Paint,
    /// For notes and errors.
    pub(crate) paint_err: Paint,
    /// What results are shown on; `None` means the process's own.
    fixed: Option<Screen>,
}

impl Terminal {
    /// The process's own streams.
    pub(crate) fn stdio() -> Self {
        let is_asking = io::stdin().is_terminal() && io::stderr().is_terminal();
        Self {
            answers: is_asking.then(|| Box::new(io::BufReader::new(io::stdin())) as _),
            shows_progress: io::stderr().is_terminal(),
            paint: Paint::for_stream(io::stdout().is_terminal()),
            paint_err: Paint::for_stream(io::stderr().is_terminal()),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            fixed: None,
        }
    }

    /// What results are shown on, as it is now.
    pub(crate) fn screen(&self) -> Screen {
        self.fixed.unwrap_or_else(Screen::of_stdout)
    }

    /// Characters on a line, if results go to a terminal.
    pub(crate) fn line_width(&self) -> Option<usize> {
        Some(self.screen()).filter(|screen| screen.is_terminal).map(|screen| screen.width)
    }

    /// Writes as it is, and sends it off: for what is drawn over.
    pub(crate) fn draw(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Writes a result, with a newline after it unless it ends in one, and sends it off at once.
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        write_text(&mut self.out, text)
    }

    /// Asks a person; `None` if nobody is there, empty if they have nothing to say.
    pub(crate) fn ask(&mut self, question: &str) -> io::Result<Option<String>> {
        let Some(answers) = &mut self.answers else { return Ok(None) };
        self.err.write_all(question.as_bytes())?;
        self.err.flush()?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        Ok(Some(answer))
    }

    /// Shows how far something is, over what was shown last. Nothing where notes go to a file.
    pub(crate) fn progress(&mut self, text: &str) -> io::Result<()> {
        if self.shows_progress {
            write!(self.err, "\r\u{1b}[2K{text}")?;
            self.err.flush()?;
        }
        Ok(())
    }

    /// Ends the line of progress.
    pub(crate) fn progress_done(&mut self) -> io::Result<()> {
        if self.shows_progress { write_text(&mut self.err, "\n") } else { Ok(()) }
    }

    /// Writes a note or an error.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        write_text(&mut self.err, text)
    }
}

fn write_text(to: &mut dyn Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// What a command wrote, for tests.
#[cfg(test)]
pub(crate) mod captured {
    use super::{Paint, Terminal};
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    /// A stream kept in memory.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        /// All that was written so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Terminal {
        /// The same terminal, with a person at it who types this.
        pub(crate) fn answering(self, answer: &'static str) -> Self {
            Self { answers: Some(Box::new(answer.as_bytes())), ..self }
        }
    }

    /// A terminal without colour, with its two streams.
    pub(crate) fn terminal() -> (Terminal, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let terminal = Terminal {
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            answers: None,
            shows_progress: false,
            paint: Paint::OFF,
            paint_err: Paint::OFF,
            fixed: Some(super::Screen::PAPER),
        };
        (terminal, out, err)
    }
}
