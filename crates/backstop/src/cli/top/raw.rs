//! The terminal while a live screen has it: no echo, no scrolling, keys one by one.
//!
//! Invariant: the terminal is given back as it was, however the screen ends: by a key, an error, a signal that can be
//! caught, or a panic, whose message is then read on the restored terminal.
//!
//! Not here: what is on the screen (`screen`).

use crossterm::cursor::{Hide, Show};
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use futures::StreamExt;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether there is anything to give back: to leave the screen twice would put the cursor into the middle of what a
/// panic has said.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal as a screen; given back when this is dropped.
pub(super) struct Screen {
    events: EventStream,
}

/// What a person does at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Pause,
    Sort,
    /// The window has another size, or a key that means nothing: draw again.
    Other,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        enable_raw_mode()?;
        IS_TAKEN.store(true, Ordering::SeqCst);
        // From here on it is given back also if the next step fails.
        let screen = Self { events: EventStream::new() };
        crossterm::execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size() -> (usize, usize) {
        let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
        (usize::from(columns.max(1)), usize::from(rows.max(1)))
    }

    /// Shows these lines, over what was there, in one write: no flicker.
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut frame = String::from("\u{1b}[H");
        for (row, line) in lines.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(frame, "{}{line}\u{1b}[K", if row == 0 { "" } else { "\r\n" });
        }
        frame.push_str("\u{1b}[J");
        let mut out = io::stdout();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }

    /// The next thing that a person does.
    pub(super) async fn key(&mut self) -> io::Result<Key> {
        match self.events.next().await {
            Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => Ok(match key.code {
                KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
                KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
                KeyCode::Char('p' | ' ') => Key::Pause,
                KeyCode::Char('s') => Key::Sort,
                _ => Key::Other,
            }),
            Some(Ok(_)) => Ok(Key::Other),
            Some(Err(error)) => Err(error),
            // Whoever typed has gone.
            None => Ok(Key::Quit),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Nothing more can be done for a terminal that cannot be given back.
fn give_back() {
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = crossterm::execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}
