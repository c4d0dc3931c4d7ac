//! A saga on one screen: what happened, why it waits, what is exposed, what is awaited, what to type next.
//!
//! The state comes first, then the story (transcript, steps, time bars), and what a person needs to act on comes
//! last, since that is what is still on the screen above the prompt.
//!
//! Invariants: every function here is pure: the time, the width and what the terminal can show come in as a
//! [`Canvas`]; nothing from outside is shown raw; each section is bounded (`a_saga_of_256_steps_fits_the_page`)
//! unless it was asked for by name.
//!
//! Not here: what a failure means (the server says so); the calls that fetch a [`Story`] (`saga_show`).

mod awaited;
mod axis;
mod bars;
pub(crate) mod dag;
pub(crate) mod diagram;
mod exposed;
pub(crate) mod head;
mod next;
mod rails;
pub(crate) mod sequence;

#[cfg(test)]
mod tests;

use super::out::{Paint, Screen, Style};
use super::text::safe;
use backstop_core::Phase;
use backstop_proto::v1::{Branch, BranchState, Call, Definition, Event, Saga, SagaState, StepKind};
use prost_types::Timestamp;
use std::time::Duration;

/// Lines of a transcript that are shown of one that is longer than both: its beginning,
const TRANSCRIPT_HEAD: usize = 20;
/// and its end.
const TRANSCRIPT_TAIL: usize = 60;

/// All that is known of one saga.
#[derive(Debug, Clone, Default)]
pub(crate) struct Story {
    /// The saga, with branches and transcript.
    pub(crate) saga: Saga,
    /// Its journal; `None` if it could not be had.
    pub(crate) events: Option<Vec<Event>>,
    /// The revision that it runs; `None` if it could not be had.
    pub(crate) definition: Option<Definition>,
    /// What goes before the verbs of commands that are to be pasted: ` --server URL`, if it is not the default.
    pub(crate) server_flag: String,
}

/// What a text is laid out on, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Canvas {
    /// How to colour.
    pub(crate) paint: Paint,
    /// Columns.
    pub(crate) width: usize,
    /// True if only ASCII may be drawn with.
    pub(crate) is_ascii: bool,
    /// The present, in microseconds since 1970.
    pub(crate) now: i64,
}

/// A part of what is known of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// What it is, where it stands and why
    Head,
    /// The journal, a line an event
    Transcript,
    /// The steps in their order, with their states
    Dag,
    /// When each attempt was made and how long it took
    Bars,
    /// Which effects stand at which participant
    Exposed,
    /// What will be tried when, and who is waited for
    Awaited,
    /// The commands to go on with
    Next,
}

impl Part {
    /// Every part, in the order in which they are shown.
    pub(crate) const ALL: [Self; 7] =
        [Self::Head, Self::Transcript, Self::Dag, Self::Bars, Self::Exposed, Self::Awaited, Self::Next];

    fn heading(self) -> &'static str {
        match self {
            Self::Head => "",
            Self::Transcript => "TRANSCRIPT",
            Self::Dag => "STEPS",
            Self::Bars => "TIME",
            Self::Exposed => "EXPOSED",
            Self::Awaited => "AWAITED",
            Self::Next => "NEXT",
        }
    }
}

impl Canvas {
    /// The screen at an instant.
    pub(crate) fn new(paint: Paint, screen: Screen, now: i64) -> Self {
        Self { paint, width: screen.width, is_ascii: screen.is_ascii, now }
    }

    /// At most so many characters, the last of them saying that there were more.
    fn cut(&self, text: &str, chars_max: usize) -> String {
        if text.chars().count() <= chars_max {
            return text.to_owned();
        }
        let more = if self.is_ascii { '~' } else { '…' };
        text.chars().take(chars_max.saturating_sub(1)).chain([more]).collect()
    }
}

/// The parts that were asked for, in full; or, if none was, all that fits on a page or two.
pub(crate) fn show(story: &Story, only: &[Part], canvas: &Canvas) -> String {
    let is_bounded = only.is_empty();
    let mut out = String::new();
    for part in Part::ALL.into_iter().filter(|part| only.is_empty() || only.contains(part)) {
        let text = match part {
            Part::Head => head::head(story, canvas),
            Part::Transcript => transcript(&story.saga, is_bounded),
            Part::Dag => dag::dag(story, is_bounded, canvas),
            Part::Bars => bars::bars(story, is_bounded, canvas),
            Part::Exposed => exposed::exposed(story, is_bounded, canvas),
            Part::Awaited => awaited::awaited(story, is_bounded, canvas),
            Part::Next => next::next(story, canvas),
        };
        if text.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        // A part that was asked for alone needs no heading.
        if only.len() != 1 && !part.heading().is_empty() {
            out.push_str(&canvas.paint.apply(Style::Bold, part.heading()));
            if part == Part::Exposed && is_bounded {
                // The head may have left the screen by now; what follows is about what it said.
                let state = story.saga.state();
                let name = canvas.paint.apply(head::state_style(state), head::state_name(state));
                out.push_str(&format!("  by {}, {name}", safe(&story.saga.id)));
            }
            out.push('\n');
        }
        out.push_str(&text);
    }
    out
}

/// A saga in a few lines, none longer than the canvas is wide: how many branches are in which state, and what it
/// waits for.
pub(crate) fn block(story: &Story, canvas: &Canvas) -> String {
    let saga = &story.saga;
    let now = story.now(canvas);
    let age = saga.create_time.as_ref().map(|at| gap(micros(at), now)).unwrap_or_default();
    let line = if canvas.is_ascii { "--" } else { "──" };
    let head = format!(
        "{line} {} {} for {}: {}",
        safe(&saga.id),
        head::state_name(saga.state()),
        super::text::duration(age),
        dag::counts(&story.branches())
    );
    let text = head + "\n" + &awaited::awaited(story, true, canvas);
    text.lines().map(|line| canvas.cut(line, canvas.width.saturating_sub(1)) + "\n").collect()
}

fn transcript(saga: &Saga, is_bounded: bool) -> String {
    let lines: Vec<String> = saga.transcript.iter().map(|line| safe(line) + "\n").collect();
    if !is_bounded || lines.len() <= TRANSCRIPT_HEAD + TRANSCRIPT_TAIL + 1 {
        return lines.concat();
    }
    let left_out = lines.len() - TRANSCRIPT_HEAD - TRANSCRIPT_TAIL;
    [
        lines[..TRANSCRIPT_HEAD].concat(),
        format!("     … {left_out} lines left out; --only transcript shows them all\n"),
        lines[lines.len() - TRANSCRIPT_TAIL..].concat(),
    ]
    .concat()
}

/// How a step's call is defined, if it is.
fn defined_call<'a>(definition: &'a Definition, step: &str, phase: Phase) -> Option<&'a Call> {
    let step = definition.steps.iter().find(|other| other.name == step)?;
    match phase {
        Phase::Action => step.action.as_ref(),
        Phase::Query => step.query.as_ref(),
        Phase::Compensation => step.compensation.as_ref(),
    }
}

/// Whom a call of a branch goes to, as far as the branch itself tells: it does not say whom a question goes to.
pub(crate) fn participant_of(branch: &Branch, phase: Phase) -> &str {
    match phase {
        Phase::Compensation if !branch.compensation_participant.is_empty() => {
            &branch.compensation_participant
        }
        Phase::Action | Phase::Query | Phase::Compensation => &branch.participant,
    }
}

impl Story {
    /// How a step's call is defined, if the definition is known and has it.
    fn call(&self, step: &str, phase: Phase) -> Option<&Call> {
        defined_call(self.definition.as_ref()?, step, phase)
    }

    /// Whom a call goes to, safe to show: `bank (bank.v1.Ledger/Undo)`.
    fn target(&self, branch: &Branch, phase: Phase) -> String {
        match self.call(&branch.step, phase) {
            Some(call) => format!("{} ({})", safe(&call.participant), safe(&call.method)),
            None => safe(participant_of(branch, phase)),
        }
    }

    /// Whom a call goes to, by name alone.
    fn participant(&self, branch: &Branch, phase: Phase) -> String {
        let call = self.call(&branch.step, phase);
        safe(call.map_or_else(|| participant_of(branch, phase), |call| call.participant.as_str()))
    }

    /// The branches in the definition's order, which stays the same while the saga goes on.
    fn branches(&self) -> Vec<&Branch> {
        let mut branches: Vec<&Branch> = self.saga.branches.iter().collect();
        if let Some(definition) = &self.definition {
            let place = |branch: &Branch| definition.steps.iter().position(|step| step.name == branch.step);
            branches.sort_by_key(|branch| place(branch).unwrap_or(usize::MAX));
        }
        branches
    }

    fn branch(&self, step: &str) -> Option<&Branch> {
        self.saga.branches.iter().find(|branch| branch.step == step)
    }

    fn events(&self) -> &[Event] {
        self.events.as_deref().unwrap_or_default()
    }

    /// The present as this saga can know it: the server's clock may be ahead of ours.
    fn now(&self, canvas: &Canvas) -> i64 {
        let last = self.saga.update_time.as_ref().map_or(i64::MIN, micros);
        canvas.now.max(last)
    }
}

/// True if a person has to decide about this branch before the saga can go on.
pub(crate) fn waits_for_a_person(branch: &Branch) -> bool {
    let is_past_the_point = matches!(branch.kind(), StepKind::Pivot | StepKind::Retriable);
    match branch.state() {
        BranchState::Stuck => true,
        BranchState::InDoubt => is_past_the_point,
        BranchState::Failed => branch.kind() == StepKind::Retriable,
        BranchState::Pending
        | BranchState::Running
        | BranchState::Succeeded
        | BranchState::Compensating
        | BranchState::Compensated
        | BranchState::Skipped
        | BranchState::Resolved
        | BranchState::Unspecified => false,
    }
}

/// True if a saga has ended.
fn is_over(saga: &Saga) -> bool {
    match saga.state() {
        SagaState::Succeeded | SagaState::RolledBack => true,
        SagaState::Running
        | SagaState::RollingBack
        | SagaState::NeedsIntervention
        | SagaState::Unspecified => false,
    }
}

/// `STUCK`.
pub(crate) fn branch_state_name(state: BranchState) -> &'static str {
    super::text::short(state.as_str_name(), "BRANCH_STATE_")
}

/// How a branch's state stands out.
pub(crate) fn branch_style(state: BranchState) -> Style {
    match state {
        BranchState::Succeeded => Style::Good,
        BranchState::Failed | BranchState::Stuck | BranchState::InDoubt => Style::Bad,
        BranchState::Running
        | BranchState::Compensating
        | BranchState::Compensated
        | BranchState::Resolved => Style::Warn,
        BranchState::Pending | BranchState::Skipped => Style::Dim,
        BranchState::Unspecified => Style::Plain,
    }
}

/// The key that the attempts of a branch's compensation bear.
fn compensation_key(branch: &Branch) -> String {
    let stem = branch.idempotency_key.strip_suffix("/action").unwrap_or(&branch.idempotency_key);
    safe(&format!("{stem}/compensation"))
}

/// Microseconds since 1970; what is beyond them counts as the end of time.
pub(crate) fn micros(at: &Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1000)
}

/// The present.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// The time from one instant to another, or nothing if they are the wrong way round.
fn gap(from: i64, to: i64) -> Duration {
    Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

/// `03:12:07Z`, with the date in front if it is not today's.
fn clock_time(at: i64, now: i64) -> String {
    let zoned =
        |micros| jiff::Timestamp::from_microsecond(micros).map(|at| at.to_zoned(jiff::tz::TimeZone::UTC));
    match (zoned(at), zoned(now)) {
        (Ok(at), Ok(now)) if at.date() == now.date() => at.strftime("%H:%M:%SZ").to_string(),
        (Ok(at), _) => at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        (Err(_), _) => String::new(),
    }
}
