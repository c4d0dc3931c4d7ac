//! When each attempt was made and how long it took: one row a call, all rows over one axis of time.
//!
//! Not here: what came of the attempts (the transcript).

use super::awaited::{dependents, phase, phase_name};
use super::axis::Axis;
use super::{Canvas, Phase, Story, gap, is_over, micros};
use crate::cli::out::Style;
use crate::cli::text::{duration, safe};
use backstop_proto::v1::failure::Effect;
use backstop_proto::v1::{Branch, BranchState, Event, SagaState, event};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Rows shown; of more, those that took longest.
const ROWS_MAX: usize = 30;
/// Room for `12 × last 12.3ms`.
const SUFFIX_COLUMNS: usize = 20;
/// Fewest columns of the axis.
const AXIS_COLUMNS_MIN: usize = 20;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Done,
    Refused,
    InDoubt,
    Open,
}

impl End {
    fn draw(self, is_ascii: bool) -> char {
        let (drawn, ascii) = match self {
            Self::Done => ('█', '#'),
            Self::Refused => ('▒', 'x'),
            Self::InDoubt => ('░', '?'),
            Self::Open => ('▸', '>'),
        };
        if is_ascii { ascii } else { drawn }
    }

    fn style(self) -> Style {
        match self {
            Self::Done => Style::Good,
            Self::Refused => Style::Bad,
            Self::InDoubt | Self::Open => Style::Warn,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "no effect",
            Self::InDoubt => "in doubt",
            Self::Open => "still out",
        }
    }
}

/// An attempt in time.
#[derive(Debug, Clone, Copy)]
struct Bar {
    from: i64,
    to: i64,
    end: End,
}

/// The attempts of one call.
struct Row<'a> {
    step: &'a str,
    phase: Phase,
    bars: Vec<Bar>,
}

/// The rows over their axis.
pub(super) fn bars(story: &Story, is_bounded: bool, canvas: &Canvas) -> String {
    let Some(begin) = story.saga.create_time.as_ref().map(micros) else {
        return String::new();
    };
    if story.events.is_none() {
        return String::new();
    }
    let now = story.now(canvas);
    let mut rows = rows(story, now);
    let all = rows.len();
    if is_bounded && all > ROWS_MAX {
        rows.sort_by_key(|row| std::cmp::Reverse(row.bars.iter().map(|bar| bar.to - bar.from).max()));
        rows.truncate(ROWS_MAX);
    }
    rows.sort_by_key(|row| (row.bars.first().map(|bar| bar.from), row.phase));
    let last = rows.iter().flat_map(|row| &row.bars).map(|bar| bar.to).max().unwrap_or(begin);
    let end = story.saga.end_time.as_ref().map_or(last, micros).max(last);
    let marks = marks(story.events());
    let end = marks.iter().map(|(at, _)| *at).fold(end, i64::max);
    // The wait for what comes next is part of the story.
    let end = if is_at_rest(story) { end } else { end.max(now) };
    if rows.is_empty() && marks.is_empty() {
        return String::new();
    }
    let began = super::clock_time(begin, begin);
    let label_width = rows.iter().map(|row| label(row).len()).chain([began.len()]).max().unwrap_or(0);
    let columns = canvas.width.saturating_sub(label_width + 4 + SUFFIX_COLUMNS).max(AXIS_COLUMNS_MIN);
    let busy: Vec<(i64, i64)> = rows
        .iter()
        .flat_map(|row| row.bars.iter().map(|bar| (bar.from, bar.to)))
        .chain(marks.iter().map(|(at, _)| (*at, *at)))
        .collect();
    let axis = Axis::new(begin, end, &busy, columns);
    let mut out = scale(&axis, &began, gap(begin, end), label_width, columns, canvas);
    for row in &rows {
        out += &row_line(row, &axis, label_width, columns, canvas);
    }
    out += &mark_line(&marks, &axis, begin, label_width, columns, canvas);
    out += &legend(&rows, &axis, canvas);
    if rows.len() < all {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  the {} longest of {all} calls; --only bars shows them all", rows.len());
    }
    out
}

fn rows(story: &Story, now: i64) -> Vec<Row<'_>> {
    let mut found: BTreeMap<(&str, Phase), Vec<Bar>> = BTreeMap::new();
    for event in story.events() {
        let Some((phase, end)) = meaning(event) else { continue };
        let Some(to) = event.time.as_ref().map(micros) else { continue };
        let elapsed = event.elapsed.and_then(|elapsed| std::time::Duration::try_from(elapsed).ok());
        let elapsed = i64::try_from(elapsed.unwrap_or_default().as_micros()).unwrap_or(i64::MAX);
        let bar = Bar { from: to.saturating_sub(elapsed), to, end };
        found.entry((&event.step, phase)).or_default().push(bar);
    }
    for branch in &story.saga.branches {
        if let Some(from) = out_since(story, branch, now) {
            let bar = Bar { from, to: now, end: End::Open };
            found.entry((&branch.step, phase(branch))).or_default().push(bar);
        }
    }
    found.into_iter().map(|((step, phase), bars)| Row { step, phase, bars }).collect()
}

/// The call that an event ends an attempt of, and how.
fn meaning(event: &Event) -> Option<(Phase, End)> {
    use event::Type;
    let failed = match event.failure.as_ref().map(|failure| failure.effect()) {
        Some(Effect::InDoubt) => End::InDoubt,
        Some(Effect::None | Effect::Unspecified) | None => End::Refused,
    };
    match event.r#type() {
        Type::ActionSucceeded => Some((Phase::Action, End::Done)),
        Type::ActionFailed => Some((Phase::Action, failed)),
        Type::QueryAnswered => Some((Phase::Query, End::Done)),
        Type::QueryFailed => Some((Phase::Query, failed)),
        Type::CompensationSucceeded => Some((Phase::Compensation, End::Done)),
        Type::CompensationFailed => Some((Phase::Compensation, failed)),
        Type::Unspecified
        | Type::Started
        | Type::Adopted
        | Type::Released
        | Type::RollbackDecided
        | Type::SignalReported
        | Type::InterventionOpened
        | Type::BranchRetried
        | Type::BranchResolved
        | Type::Succeeded
        | Type::RolledBack => None,
    }
}

/// Since when a call of the branch has been out, as far as the journal tells.
fn out_since(story: &Story, branch: &Branch, now: i64) -> Option<i64> {
    let is_called = matches!(branch.state(), BranchState::Running | BranchState::Compensating);
    if !is_called || is_at_rest(story) {
        return None;
    }
    let due = branch.next_attempt_time.as_ref().map(micros);
    if let Some(due) = due {
        return (due <= now).then_some(due);
    }
    branch.turn_time.as_ref().map(micros).or_else(|| {
        // A server that does not tell: the last event that could have made it its turn.
        let after = dependents(story, &branch.step);
        let before = |event: &&Event| branch.depends_on.contains(&event.step) || after.contains(&event.step);
        story.events().iter().filter(before).filter_map(|event| event.time.as_ref().map(micros)).max()
    })
}

/// True if nothing is called any more, for now or for good.
fn is_at_rest(story: &Story) -> bool {
    is_over(&story.saga) || story.saga.state() == SagaState::NeedsIntervention
}

fn label(row: &Row) -> String {
    match row.phase {
        Phase::Action => safe(row.step),
        Phase::Query | Phase::Compensation => format!("{} {}", safe(row.step), phase_name(row.phase)),
    }
}

fn row_line(row: &Row, axis: &Axis, label_width: usize, columns: usize, canvas: &Canvas) -> String {
    let wait = if canvas.is_ascii { '.' } else { '·' };
    let mut cells: Vec<(char, Style)> = vec![(' ', Style::Plain); columns];
    let place = |at: i64| axis.column(at).min(columns - 1);
    if let (Some(first), Some(last)) = (row.bars.first(), row.bars.last()) {
        cells[place(first.from)..=last_column(place(last.from), place(last.to))].fill((wait, Style::Dim));
    }
    cut_out(&mut cells, axis, canvas);
    for bar in &row.bars {
        let (from, to) = (place(bar.from), place(bar.to));
        let to = last_column(from, to);
        let drawn = bar.end.draw(canvas.is_ascii);
        let body = if bar.end == End::Open { if canvas.is_ascii { '=' } else { '▬' } } else { drawn };
        cells[from..=to].fill((body, bar.end.style()));
        cells[to] = (drawn, bar.end.style());
    }
    let took = row.bars.last().map(|bar| duration(gap(bar.from, bar.to))).unwrap_or_default();
    let suffix = match row.bars.len() {
        1 => took,
        count => format!("{count} x, last {took}"),
    };
    format!("  {:<label_width$}  {}  {suffix}\n", label(row), painted(&cells, canvas))
}

/// Where a bar ends that takes at least one column, and not the next bar's as well.
fn last_column(from: usize, to: usize) -> usize {
    if to > from { to - 1 } else { to }
}

fn cut_out(cells: &mut [(char, Style)], axis: &Axis, canvas: &Canvas) {
    let cut = if canvas.is_ascii { '~' } else { '╌' };
    for (columns, _) in axis.cuts() {
        for cell in cells.iter_mut().take(columns.end).skip(columns.start) {
            *cell = (cut, Style::Dim);
        }
    }
}

/// Cells as text, those alike painted together.
fn painted(cells: &[(char, Style)], canvas: &Canvas) -> String {
    let runs = cells.chunk_by(|one, other| one.1 == other.1);
    runs.map(|run| {
        let text: String = run.iter().map(|(c, _)| *c).collect();
        canvas.paint.apply(run[0].1, &text)
    })
    .collect()
}

/// The axis itself: the time of day at its beginning, and its length.
fn scale(
    axis: &Axis,
    began: &str,
    whole: std::time::Duration,
    label_width: usize,
    columns: usize,
    canvas: &Canvas,
) -> String {
    let line = if canvas.is_ascii { '-' } else { '─' };
    let mut cells: Vec<(char, Style)> = vec![(line, Style::Dim); columns];
    cut_out(&mut cells, axis, canvas);
    format!("  {began:<label_width$}  {}  {}\n", painted(&cells, canvas), duration(whole))
}

/// What happened to the saga as a whole, and when.
fn marks(events: &[Event]) -> Vec<(i64, char)> {
    use event::Type;
    let mark = |event: &Event| match event.r#type() {
        Type::RollbackDecided => Some('R'),
        Type::InterventionOpened => Some('!'),
        Type::BranchRetried | Type::BranchResolved => Some('P'),
        Type::Adopted => Some('A'),
        Type::Unspecified
        | Type::Started
        | Type::Released
        | Type::ActionSucceeded
        | Type::ActionFailed
        | Type::QueryAnswered
        | Type::QueryFailed
        | Type::CompensationSucceeded
        | Type::CompensationFailed
        | Type::SignalReported
        | Type::Succeeded
        | Type::RolledBack => None,
    };
    events.iter().filter_map(|event| Some((event.time.as_ref().map(micros)?, mark(event)?))).collect()
}

fn mark_line(
    marks: &[(i64, char)],
    axis: &Axis,
    begin: i64,
    label_width: usize,
    columns: usize,
    canvas: &Canvas,
) -> String {
    if marks.is_empty() {
        return String::new();
    }
    let mut cells: Vec<(char, Style)> = vec![(' ', Style::Plain); columns];
    cut_out(&mut cells, axis, canvas);
    // The newest wins where several fall together, and what wants a person's eye wins over all.
    for (at, mark) in marks.iter().filter(|(_, mark)| *mark != '!').chain(marks.iter().filter(|m| m.1 == '!'))
    {
        cells[axis.column(*at).min(columns - 1)] = (*mark, Style::Bold);
    }
    let mut said = Vec::new();
    for (mark, words) in [
        ('R', "R rollback decided"),
        ('!', "! needs a person"),
        ('P', "P a person's word"),
        ('A', "A taken over"),
    ] {
        let when: Vec<i64> = marks.iter().filter(|(_, other)| *other == mark).map(|(at, _)| *at).collect();
        match when.as_slice() {
            [] => {}
            [at] => said.push(format!("{words} at +{}", duration(gap(begin, *at)))),
            [.., last] => {
                said.push(format!("{words} {} times, last at +{}", when.len(), duration(gap(begin, *last))));
            }
        }
    }
    let line = painted(&cells, canvas);
    format!("  {:<label_width$}  {}\n  {}\n", "saga", line.trim_end(), said.join(", "))
}

fn legend(rows: &[Row], axis: &Axis, canvas: &Canvas) -> String {
    let ends = [End::Done, End::Refused, End::InDoubt, End::Open];
    let used = |end: &End| rows.iter().flat_map(|row| &row.bars).any(|bar| bar.end == *end);
    let mut words: Vec<String> = ends
        .into_iter()
        .filter(used)
        .map(|end| {
            format!(
                "{} {}",
                canvas.paint.apply(end.style(), &end.draw(canvas.is_ascii).to_string()),
                end.word()
            )
        })
        .collect();
    let cuts: Vec<String> = axis.cuts().map(|(_, micros)| duration(gap(0, micros))).collect();
    if !cuts.is_empty() {
        let sign = if canvas.is_ascii { '~' } else { '╌' };
        words.push(format!("{sign} nothing for {}", cuts.join(", ")));
    }
    if words.is_empty() { String::new() } else { format!("  {}\n", words.join("  ")) }
}
