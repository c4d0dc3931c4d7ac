//! `backstop top`: what all coordinators are doing, live.
//!
//! Way: `sample` asks every coordinator, `figures` takes the difference of two samples, `screen` lays it out, `raw` has
//! the terminal. All but asking and the terminal is pure.
//!
//! Not here: what a coordinator counts (`backstop-engine/src/overview.rs`), and alerts: Prometheus.

mod document;
mod figures;
mod raw;
mod sample;
mod screen;

use super::error::CliError;
use super::intervention_view::age;
use super::text::parse_duration;
use super::{Exit, Session, json};
use figures::{Figures, Order, figures};
use raw::{Key, Screen};
use sample::{Looker, Sample};
use screen::{Frame, screen};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

/// Looks that are kept: rates are taken over all of them, so that they do not flicker.
const LOOKS_KEPT: usize = 10;
/// How often the screen is drawn though nothing new is known: figures that grow old say so.
const DRAWN_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// The size of a snapshot that goes to no terminal.
const SNAPSHOT: (usize, usize) = (160, 10_000);

/// `top`.
#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    /// Print one snapshot and end; so it does anyway where the output is no terminal
    #[arg(long)]
    once: bool,
    /// Time between two looks; a snapshot takes as long, since a rate needs two
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_every)]
    every: Duration,
    /// What participants are ordered by; those with an open breaker always come first
    #[arg(long, value_name = "ORDER", value_enum, default_value_t)]
    sort: Order,
}

fn parse_every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&every);
    if fits { Ok(every) } else { Err("say a time from 100ms to 1h".to_owned()) }
}

impl Top {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let mut looker = Looker::new(session.connect).await?;
        if session.connect.json {
            return self.stream(session, &mut looker).await;
        }
        let is_live = !self.once && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if is_live {
            self.live(session, &mut looker).await
        } else {
            self.snapshot(session, &mut looker).await
        }
    }

    /// One look, and another after a while.
    async fn snapshot(&self, session: &mut Session<'_>, looker: &mut Looker) -> Result<Exit, CliError> {
        let (present, figures) = self.two_looks(looker).await?;
        let frame = Frame { time: present.time, every: self.every, ..Frame::default() };
        let lines = screen(&figures, &frame, SNAPSHOT, session.terminal.paint);
        session.terminal.print(&lines.join("\n"))?;
        Ok(Exit::Done)
    }

    async fn two_looks(&self, looker: &mut Looker) -> Result<(Sample, Figures), CliError> {
        let earlier = looker.look().await?;
        tokio::time::sleep(self.every).await;
        let present = looker.look().await?;
        let figures = figures(&[&earlier], &present, self.sort);
        Ok((present, figures))
    }

    /// A document; without --once, a line for each look, until it is stopped.
    async fn stream(&self, session: &mut Session<'_>, looker: &mut Looker) -> Result<Exit, CliError> {
        let mut looks = Looks::default();
        looks.add(looker.look().await?);
        loop {
            tokio::time::sleep(self.every).await;
            looks.add(looker.look().await?);
            let Some((present, figures)) = looks.figures(self.sort) else { continue };
            let document = document::document(present.time, &figures);
            if self.once {
                session.terminal.print(&json::document(&document))?;
                return Ok(Exit::Done);
            }
            session.terminal.print(&json::harmless(&document.to_string()))?;
        }
    }

    /// The screen, until a person has seen enough.
    async fn live(&self, session: &mut Session<'_>, looker: &mut Looker) -> Result<Exit, CliError> {
        // Before the terminal is taken: a server that does not answer is told as always.
        let mut looks = Looks::default();
        looks.add(looker.look().await?);
        let mut ends = Ends::new()?;
        let mut frame =
            Frame { every: self.every, order: self.sort.name(), with_keys: true, ..Frame::default() };
        let mut order = self.sort;
        let mut due = tokio::time::interval(self.every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut why = String::new();
        let mut seen_at = Instant::now();
        let mut terminal = Screen::take()?;
        loop {
            // Goes on while keys are pressed: a slow server is not asked anew for each.
            let mut look = std::pin::pin!(async {
                due.tick().await;
                looker.look().await
            });
            let looked = loop {
                if seen_at.elapsed() > self.every * 2 + DRAWN_AT_LEAST_EVERY && !frame.is_paused {
                    frame.trouble = format!("these figures are {} old{why}", age(seen_at.elapsed()));
                }
                if let Some((present, figures)) = looks.figures(order) {
                    frame.time = present.time;
                    terminal.draw(&screen(&figures, &frame, Screen::size(), session.terminal.paint))?;
                }
                tokio::select! {
                    biased;
                    () = ends.come() => return Ok(Exit::Done),
                    key = terminal.key() => match key? {
                        Key::Quit => return Ok(Exit::Done),
                        Key::Pause => frame.is_paused = !frame.is_paused,
                        Key::Sort => {
                            order = order.next();
                            frame.order = order.name();
                        }
                        Key::Other => {}
                    },
                    looked = &mut look, if !frame.is_paused => break looked,
                    () = tokio::time::sleep(DRAWN_AT_LEAST_EVERY) => {}
                }
            };
            match looked {
                Ok(sample) => {
                    looks.add(sample);
                    seen_at = Instant::now();
                    frame.trouble.clear();
                    why.clear();
                }
                Err(error) => why = format!(": {}", error.in_brief()),
            }
        }
    }
}

/// The last looks, the oldest first.
#[derive(Default)]
struct Looks(VecDeque<Sample>);

impl Looks {
    fn add(&mut self, sample: Sample) {
        self.0.push_back(sample);
        if self.0.len() > LOOKS_KEPT {
            self.0.pop_front();
        }
    }

    /// The last look, and what it comes to against those before it.
    fn figures(&self, order: Order) -> Option<(&Sample, Figures)> {
        let last = self.0.back()?;
        let all: Vec<&Sample> = self.0.iter().collect();
        Some((last, figures(&all, last, order)))
    }
}

/// The signals that end the screen; Ctrl-C is a key there.
struct Ends {
    term: Signal,
    hup: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, hup: signal(SignalKind::hangup())? })
    }

    async fn come(&mut self) {
        tokio::select! {
            biased;
            _ = self.term.recv() => {}
            _ = self.hup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
