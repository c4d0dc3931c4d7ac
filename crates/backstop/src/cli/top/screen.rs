//! The figures as lines of a given width and height. Pure.
//!
//! # Invariants
//! * No line is wider than the screen, and there are never more lines than rows
//!   (`a_screen_of_any_size_keeps_within_it`).
//! * Where there is not room for all participants it is said how many are not shown.

use super::figures::{CoordinatorFigures, Figures, Own, ParticipantFigures};
use crate::cli::intervention_view::age;
use crate::cli::out::{Paint, Style};
use crate::cli::text::{safe, time};
use std::time::Duration;

/// What is said around the figures.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    pub(super) time: prost_types::Timestamp,
    pub(super) every: Duration,
    pub(super) order: &'static str,
    pub(super) is_paused: bool,
    /// Why the figures are old, if they are.
    pub(super) trouble: String,
    /// Show the keys.
    pub(super) with_keys: bool,
}

/// Room for participants that is kept free of coordinators.
const PARTICIPANT_ROWS_MIN: usize = 5;

/// A line of parts that stand out or do not.
#[derive(Debug, Clone, Default)]
struct Line(Vec<(Style, String)>);

impl Line {
    fn plain(text: impl Into<String>) -> Self {
        Self::default().and(Style::Plain, text)
    }

    fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// No wider than that; spaces at the end are left away.
    fn fit(&self, width: usize, paint: Paint) -> String {
        let mut left = width;
        let mut out = String::new();
        for (style, text) in &self.0 {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            out.push_str(&paint.apply(*style, &text));
        }
        out.truncate(out.trim_end_matches(' ').len());
        out
    }
}

/// The screen.
pub(super) fn screen(
    figures: &Figures,
    frame: &Frame,
    (width, height): (usize, usize),
    paint: Paint,
) -> Vec<String> {
    let (least, most) = NAME_WIDTH;
    let names = width.saturating_sub(BESIDE_NAMES).clamp(least, most);
    let mut top = summary(figures, frame);
    top.push(Line::default());
    let bottom = if frame.with_keys { vec![Line::default(), keys(frame)] } else { Vec::new() };
    let room = height.saturating_sub(top.len() + bottom.len());
    // Headings and a line between them take three; participants keep their least.
    let participants_least = figures.participants.len().min(PARTICIPANT_ROWS_MIN);
    let coordinators = figures.coordinators.len().min(room.saturating_sub(3 + participants_least)).max(1);
    let mut lines = top;
    lines.push(heading(names, "COORDINATOR", &COORDINATOR_COLUMNS));
    lines.extend(shown(&figures.coordinators, coordinators, "coordinators", |row| coordinator(names, row)));
    lines.push(Line::default());
    lines.push(heading(names, "PARTICIPANT", &PARTICIPANT_COLUMNS));
    let left = height.saturating_sub(lines.len() + bottom.len());
    lines.extend(shown(&figures.participants, left, "participants", |row| participant(names, row)));
    lines.truncate(height.saturating_sub(bottom.len()));
    lines.extend(bottom);
    lines.truncate(height);
    lines.iter().map(|line| line.fit(width, paint)).collect()
}

/// As many rows as there is room for; if that is not all, the last says so.
fn shown<T>(rows: &[T], room: usize, what: &str, line: impl Fn(&T) -> Line) -> Vec<Line> {
    if rows.len() <= room {
        return rows.iter().map(&line).collect();
    }
    let shown = room.saturating_sub(1);
    let rest = Line::default().and(Style::Dim, format!("… {} {what} more", rows.len() - shown));
    rows.iter().take(shown).map(&line).chain([rest]).take(room).collect()
}

fn summary(figures: &Figures, frame: &Frame) -> Vec<Line> {
    let total = &figures.total;
    let all = figures.coordinators.len();
    let style = |bad: bool| if bad { Style::Bad } else { Style::Plain };
    let mut first = Line::default()
        .and(Style::Bold, "backstop top")
        .and(Style::Plain, format!("   {}   ", seconds(frame.time)))
        .and(style(total.answering < all), format!("{} of {all} coordinators answer", total.answering));
    if frame.is_paused {
        first = first.and(Style::Warn, "   PAUSED");
    }
    let sagas = Line::plain(format!(
        "sagas          started {}/s   ended {}/s   rolled back {}   refused {}/s",
        rate(total.started_per_second),
        rate(total.ended_per_second),
        percent(total.rolled_back_share),
        rate(total.refused_per_second),
    ));
    let is_full = total.live_max > 0 && total.live * 10 >= total.live_max * 9;
    let live =
        Line::plain("live           ").and(style(is_full), format!("{} of {}", total.live, total.live_max));
    let waited = total.oldest_intervention.map(|waited| format!(", the oldest for {}", age(waited)));
    let interventions = match total.interventions {
        0 => Line::plain("interventions  none"),
        count => Line::plain("interventions  ")
            .and(Style::Bad, format!("{count}{}", waited.unwrap_or_default()))
            .and(Style::Plain, "   backstop intervention list"),
    };
    let calls =
        Line::plain(format!("calls          in flight {}   waiting {}   ", total.in_flight, total.waiting))
            .and(style(total.breakers_open > 0), format!("breakers open {}", total.breakers_open));
    let mut lines = vec![first, sagas, live, interventions, calls];
    for trouble in [&frame.trouble, &figures.note].into_iter().filter(|trouble| !trouble.is_empty()) {
        lines.push(Line::default().and(Style::Bad, safe(trouble)));
    }
    lines
}

/// Least width of the first column, of names, which grows with the screen; and its greatest.
const NAME_WIDTH: (usize, usize) = (20, 44);
/// Width of all that stands beside the names.
const BESIDE_NAMES: usize = 60;
/// The others, right-aligned, with their widths.
const COORDINATOR_COLUMNS: [(&str, usize); 7] =
    [("START/S", 8), ("END/S", 7), ("LIVE", 11), ("QUEUE", 9), ("APPEND P50", 11), ("P99", 7), ("LEASE", 7)];
const PARTICIPANT_COLUMNS: [(&str, usize); 7] =
    [("CALLS/S", 8), ("FAILED", 7), ("IN FLIGHT", 10), ("WAITING", 8), ("MEAN", 7), ("P50", 7), ("P99", 7)];

fn heading(names: usize, first: &str, columns: &[(&str, usize)]) -> Line {
    let columns: String = columns.iter().map(|(name, width)| format!("{name:>width$}")).collect();
    Line::default().and(Style::Bold, format!("{first:<names$}{columns}"))
}

fn coordinator(names: usize, row: &CoordinatorFigures) -> Line {
    let name = name(names, &row.address);
    match &row.figures {
        Ok(own) => coordinator_figures(name, own),
        Err(why) => Line::plain(name).and(Style::Bad, format!("  no answer: {}", safe(why))),
    }
}

fn coordinator_figures(name: String, own: &Own) -> Line {
    let line = Line::plain(format!(
        "{name}{:>8}{:>7}{:>11}{:>9}{:>11}{:>7}",
        rate(own.started_per_second),
        rate(own.ended_per_second),
        format!("{}/{}", own.live, own.live_max),
        format!("{}/{}", own.queue, own.queue_max),
        brief(own.append_p50),
        brief(own.append_p99),
    ));
    if own.is_draining {
        return line.and(Style::Warn, format!("{:>7}", "drains"));
    }
    // Renewed every second: with so little left, the store is slow to answer, or does not.
    let style = if own.lease < LEASE_SHORT { Style::Bad } else { Style::Plain };
    line.and(style, format!("{:>7}", brief(Some(own.lease))))
}

/// A lease with less left than that is worth a look.
const LEASE_SHORT: Duration = Duration::from_secs(2);

fn participant(names: usize, row: &ParticipantFigures) -> Line {
    let is_open = row.breakers_open > 0;
    let is_full = row.in_flight_max > 0 && row.in_flight >= row.in_flight_max;
    let failed = if row.failed_share.is_some_and(|share| share >= 0.05) { Style::Bad } else { Style::Plain };
    let line = Line::plain(format!("{}{:>8}", name(names, &row.name), rate(row.calls_per_second)))
        .and(failed, format!("{:>7}", percent(row.failed_share)))
        .and(
            if is_full { Style::Warn } else { Style::Plain },
            format!("{:>10}", format!("{}/{}", row.in_flight, row.in_flight_max)),
        )
        .and(
            Style::Plain,
            format!("{:>8}{:>7}{:>7}{:>7}", row.waiting, brief(row.mean), brief(row.p50), brief(row.p99)),
        );
    if is_open { line.and(Style::Bad, "  OPEN") } else { line }
}

fn keys(frame: &Frame) -> Line {
    let every = format!("   every {}, rates over the last 10 looks", brief(Some(frame.every)).trim());
    Line::default().and(Style::Dim, format!("q quit   p pause   s sort: {}{every}", frame.order))
}

/// A name that fills its column and leaves a space.
fn name(width: usize, text: &str) -> String {
    format!("{:<width$}", crate::cli::intervention_view::cut(&safe(text), width.saturating_sub(1)))
}

/// To the second.
fn seconds(at: prost_types::Timestamp) -> String {
    time(Some(&prost_types::Timestamp { nanos: 0, ..at }))
}

/// `3.2`, `120`, `12.3k`; `-` if it is not known.
pub(super) fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => "-".to_owned(),
        Some(rate) if rate < 99.95 => format!("{rate:.1}"),
        Some(rate) if rate < 9_999.5 => format!("{rate:.0}"),
        Some(rate) => format!("{:.1}k", rate / 1_000.0),
    }
}

/// `3.1%`, `12%`; `-` if it is not known.
fn percent(share: Option<f64>) -> String {
    match share.map(|share| share * 100.0) {
        None => "-".to_owned(),
        Some(hundredths) if hundredths < 9.95 => format!("{hundredths:.1}%"),
        Some(hundredths) => format!("{hundredths:.0}%"),
    }
}

/// `0.5ms`, `12ms`, `1.2s`; `-` if it is not known.
pub(super) fn brief(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let millis = time.as_secs_f64() * 1_000.0;
    if millis < 9.95 {
        format!("{millis:.1}ms")
    } else if millis < 999.5 {
        format!("{millis:.0}ms")
    } else {
        format!("{:.1}s", millis / 1_000.0)
    }
}
