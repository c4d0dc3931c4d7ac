//! The block below a watched saga's events: what it waits for, drawn again in place while time goes by.
//!
//! Invariant: what is drawn is erased before anything else is printed, and no line of it is longer than the window
//! is wide: else as many lines as were drawn are not as many as are there.
//!
//! Not here: the events themselves (`watch`).

use super::connect::Connection;
use super::error::CliError;
use super::out::{Paint, Terminal};
use super::view::{self, Canvas, Story};
use backstop_proto::v1::{self, Event, Saga, SagaState};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two drawings, for the countdowns.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Longest time for which the saga is not asked for again though no event came: its owner may change without.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The block, and what it shows.
pub(super) struct Live {
    story: Story,
    /// Lines that are on the screen.
    drawn: usize,
    /// True if the journal has gone on since the saga was last asked for.
    is_stale: bool,
    looked: Instant,
}

impl Live {
    /// A block about a saga that has not been looked at yet: there is nothing to draw before that.
    pub(super) fn new(saga_id: &str) -> Self {
        let saga = Saga { id: saga_id.to_owned(), ..Saga::default() };
        let story = Story { saga, events: Some(Vec::new()), ..Story::default() };
        Self { story, drawn: 0, is_stale: true, looked: Instant::now() }
    }

    /// Prints the line of an event above the block.
    pub(super) fn event(&mut self, terminal: &mut Terminal, event: &Event, line: &str) -> io::Result<()> {
        self.story.events.get_or_insert_default().push(event.clone());
        self.is_stale = true;
        self.erase(terminal)?;
        terminal.print(line)?;
        self.draw(terminal)
    }

    /// Draws the block for the present. A saga that cannot be asked for is shown as it was.
    pub(super) async fn tick(&mut self, connection: &Connection, terminal: &mut Terminal) -> io::Result<()> {
        if self.is_stale || self.looked.elapsed() >= LOOK_AGAIN {
            if let Ok(saga) = look(connection, &self.story.saga.id).await {
                self.story.saga = saga;
                self.is_stale = false;
            }
            if self.story.definition.is_none() && !self.story.saga.definition.is_empty() {
                // Without it, only whom a compensation goes to is a guess.
                self.story.definition = super::saga_show::definition(connection, &self.story.saga).await.ok();
            }
            self.looked = Instant::now();
        }
        self.draw(terminal)
    }

    /// Takes the block off the screen.
    pub(super) fn erase(&mut self, terminal: &mut Terminal) -> io::Result<()> {
        let erased = self.erasing();
        if erased.is_empty() { Ok(()) } else { terminal.draw(&erased) }
    }

    /// In one write, so that nothing flickers.
    fn draw(&mut self, terminal: &mut Terminal) -> io::Result<()> {
        let mut out = self.erasing();
        if self.story.saga.state() != SagaState::Unspecified {
            let screen = terminal.screen();
            // Lines are cut by characters: colours would be cut in the middle.
            let canvas = Canvas::new(Paint::OFF, screen, view::now());
            for line in view::block(&self.story, &canvas).lines().take(screen.height.saturating_sub(2)) {
                out.push_str(line);
                out.push('\n');
                self.drawn += 1;
            }
        }
        terminal.draw(&out)
    }

    fn erasing(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A\r\u{1b}[J"),
        }
    }
}

async fn look(connection: &Connection, saga_id: &str) -> Result<Saga, CliError> {
    let request = v1::GetSagaRequest { saga_id: saga_id.to_owned(), view: v1::SagaView::Basic.into() };
    let answer = connection.call(connection.sagas().get_saga(request)).await?;
    Ok(answer.saga.unwrap_or_default())
}
