//! The steps of a saga in their order, one a line, with their states; the edges drawn as rails where they can be
//! followed.

use super::head::failure_in_short;
use super::rails::{self, Glyph};
use super::{Canvas, Phase, Story, branch_state_name, branch_style};
use crate::cli::out::Style;
use crate::cli::text::{safe, short};
use backstop_proto::v1::{Branch, BranchState, Resolution, StepKind};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Lines of a drawing beyond which only the steps that stand out are shown.
const LINES_MAX: usize = 48;
/// Steps shown of such a saga.
const STANDING_OUT_MAX: usize = 20;

/// The steps.
pub(crate) fn dag(story: &Story, is_bounded: bool, canvas: &Canvas) -> String {
    let branches = story.branches();
    if branches.is_empty() {
        return String::new();
    }
    let depends_on = indices(&branches);
    let drawing = rails::draw(&depends_on);
    let lines = drawing.as_ref().map_or(branches.len(), Vec::len);
    if is_bounded && lines > LINES_MAX {
        return condensed(story, &branches, &depends_on, canvas);
    }
    match drawing {
        Some(lines) => drawn(story, &branches, &lines, canvas),
        None => layered(story, &branches, &depends_on, &|_| true, canvas),
    }
}

fn indices(branches: &[&Branch]) -> Vec<Vec<usize>> {
    let place = |name: &String| branches.iter().position(|branch| branch.step == *name);
    branches.iter().map(|branch| branch.depends_on.iter().filter_map(place).collect()).collect()
}

fn drawn(story: &Story, branches: &[&Branch], lines: &[rails::Line], canvas: &Canvas) -> String {
    let rails_width = lines.iter().map(|line| line.rails.len() * 2).max().unwrap_or(0);
    let widths = Widths::of(branches);
    let mut out = String::new();
    for line in lines {
        let branch = line.node.and_then(|node| branches.get(node));
        let mut used = 0;
        out.push_str("  ");
        for (place, glyph) in line.rails.iter().enumerate() {
            let node = branch.map_or(' ', |branch| mark(branch.state(), canvas.is_ascii));
            let drawn = glyph.draw(node, canvas.is_ascii).to_string();
            match (glyph, branch) {
                (Glyph::Node, Some(branch)) => {
                    out.push_str(&canvas.paint.apply(branch_style(branch.state()), &drawn));
                }
                (Glyph::Node | Glyph::Strokes(_), _) => out.push_str(&drawn),
            }
            out.push(between(glyph, line.rails.get(place + 1), canvas.is_ascii));
            used += 2;
        }
        if let Some(branch) = branch {
            out.extend(std::iter::repeat_n(' ', rails_width - used + 1));
            out.push_str(&widths.row(story, branch, rails_width + 3, canvas));
        }
        while out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
    }
    out
}

/// What stands between two columns.
pub(super) fn between(left: &Glyph, right: Option<&Glyph>, is_ascii: bool) -> char {
    let to_the_right = matches!(left, Glyph::Strokes([_, _, _, true]));
    let to_the_left = matches!(right, Some(Glyph::Strokes([_, _, true, _])));
    match (to_the_right || to_the_left, is_ascii) {
        (true, true) => '-',
        (true, false) => '─',
        (false, _) => ' ',
    }
}

/// A step's state in one character; those that want a person's eye are the same in ASCII.
fn mark(state: BranchState, is_ascii: bool) -> char {
    let (drawn, ascii) = match state {
        BranchState::Pending => ('○', 'o'),
        BranchState::Running => ('◐', '>'),
        BranchState::Succeeded => ('●', '*'),
        BranchState::Failed => ('✗', 'x'),
        BranchState::InDoubt => ('?', '?'),
        BranchState::Compensating => ('◑', '<'),
        BranchState::Compensated => ('◌', '.'),
        BranchState::Stuck => ('!', '!'),
        BranchState::Skipped => ('-', '-'),
        BranchState::Resolved => ('◆', '='),
        BranchState::Unspecified => (' ', ' '),
    };
    if is_ascii { ascii } else { drawn }
}

struct Widths {
    name: usize,
    state: usize,
}

impl Widths {
    fn of(branches: &[&Branch]) -> Self {
        let name = branches.iter().map(|branch| branch.step.len()).max().unwrap_or(0);
        let state = branches.iter().map(|branch| branch_state_name(branch.state()).len()).max().unwrap_or(0);
        Self { name, state }
    }

    /// Name, state and what there is to say, within the canvas.
    fn row(&self, story: &Story, branch: &Branch, indent: usize, canvas: &Canvas) -> String {
        let state = branch_state_name(branch.state());
        let painted = canvas.paint.apply(branch_style(branch.state()), state);
        let mut row = format!("{:<width$}  {painted}", safe(&branch.step), width = self.name);
        row.extend(std::iter::repeat_n(' ', self.state.saturating_sub(state.len())));
        let left = canvas.width.saturating_sub(indent + self.name + self.state + 4);
        // Writing to a String cannot fail.
        let _ = write!(row, "  {}", canvas.paint.apply(Style::Dim, &canvas.cut(&note(story, branch), left)));
        row
    }
}

/// Whom it calls, of which kind it is, and how it failed.
fn note(story: &Story, branch: &Branch) -> String {
    let kind = match branch.kind() {
        StepKind::Compensatable | StepKind::Unspecified => "",
        StepKind::ReadOnly => "read only",
        StepKind::Pivot => "PIVOT",
        StepKind::Retriable => "retriable",
    };
    let (phase, failure) = match branch.state() {
        BranchState::Stuck | BranchState::Compensating => {
            (Phase::Compensation, branch.compensation_failure.as_ref())
        }
        BranchState::Running | BranchState::Failed | BranchState::InDoubt => {
            (Phase::Action, branch.failure.as_ref())
        }
        BranchState::Pending
        | BranchState::Succeeded
        | BranchState::Compensated
        | BranchState::Skipped
        | BranchState::Resolved
        | BranchState::Unspecified => (Phase::Action, None),
    };
    let tries = match phase {
        Phase::Compensation => (branch.compensation_attempts, "undo"),
        Phase::Action | Phase::Query => (branch.action_attempts, "tried"),
    };
    let tries = match tries {
        (0 | 1, _) => String::new(),
        (count, word) => format!("{word} {count}x"),
    };
    let by_hand = match branch.resolution() {
        Resolution::Unspecified => "",
        other => short(other.as_str_name(), "RESOLUTION_"),
    };
    let to = story.participant(branch, phase);
    let failure = failure.map(failure_in_short).unwrap_or_default();
    let parts = [to.as_str(), kind, by_hand, &tries, &failure];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

/// How far each step is from the first ones.
fn layers(depends_on: &[Vec<usize>]) -> Vec<usize> {
    let mut layers = vec![0; depends_on.len()];
    // A graph without cycles is settled after as many rounds as it has layers.
    for _ in 0..depends_on.len() {
        let mut is_settled = true;
        for (node, before) in depends_on.iter().enumerate() {
            let layer = before.iter().map(|before| layers[*before] + 1).max().unwrap_or(0);
            if layer > layers[node] && layer < depends_on.len() {
                layers[node] = layer;
                is_settled = false;
            }
        }
        if is_settled {
            break;
        }
    }
    layers
}

/// One step a line by layers, each with what it depends on: for what is too wide to be drawn.
fn layered(
    story: &Story,
    branches: &[&Branch],
    depends_on: &[Vec<usize>],
    is_shown: &dyn Fn(&Branch) -> bool,
    canvas: &Canvas,
) -> String {
    const AFTER_MAX: usize = 24;
    let layers = layers(depends_on);
    let mut order: Vec<usize> = (0..branches.len()).filter(|node| is_shown(branches[*node])).collect();
    order.sort_by_key(|node| layers[*node]);
    let shown: Vec<&Branch> = order.iter().map(|node| branches[*node]).collect();
    let widths = Widths::of(&shown);
    let mut out = String::new();
    for node in order {
        let branch = branches[node];
        let glyph = mark(branch.state(), canvas.is_ascii).to_string();
        let glyph = canvas.paint.apply(branch_style(branch.state()), &glyph);
        let after = match branch.depends_on.as_slice() {
            [] => String::new(),
            names => canvas.cut(&format!("after {}", safe(&names.join(", "))), AFTER_MAX),
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "  {:>3} {glyph} {after:<AFTER_MAX$}  ", layers[node] + 1);
        out.push_str(widths.row(story, branch, AFTER_MAX + 10, canvas).trim_end());
        out.push('\n');
    }
    out
}

/// How many branches are in which state.
pub(super) fn counts(branches: &[&Branch]) -> String {
    let mut counts: BTreeMap<BranchState, usize> = BTreeMap::new();
    for branch in branches {
        *counts.entry(branch.state()).or_default() += 1;
    }
    let counts = counts.iter().map(|(state, count)| format!("{count} {}", branch_state_name(*state)));
    counts.collect::<Vec<_>>().join(", ")
}

/// How many are in which state, and those that stand out.
fn condensed(story: &Story, branches: &[&Branch], depends_on: &[Vec<usize>], canvas: &Canvas) -> String {
    let depth = layers(depends_on).into_iter().max().unwrap_or(0) + 1;
    let mut out = format!("  {} steps in {depth} layers: {}\n", branches.len(), counts(branches));
    let mut standing_out: Vec<&str> = branches
        .iter()
        .filter(|branch| {
            matches!(
                branch.state(),
                BranchState::Stuck
                    | BranchState::InDoubt
                    | BranchState::Failed
                    | BranchState::Running
                    | BranchState::Compensating
            )
        })
        .map(|branch| branch.step.as_str())
        .collect();
    let more = standing_out.len().saturating_sub(STANDING_OUT_MAX);
    standing_out.truncate(STANDING_OUT_MAX);
    let is_shown = |branch: &Branch| standing_out.contains(&branch.step.as_str());
    out += &layered(story, branches, depends_on, &is_shown, canvas);
    let more = if more > 0 { format!("and {more} more like these; ") } else { String::new() };
    out += &format!("  {more}--only dag shows every step\n");
    out
}
