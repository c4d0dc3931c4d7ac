//! Steps and their order as text for other programs to draw: a Mermaid flowchart, or a Graphviz digraph.
//!
//! Invariants: a name can break out of neither language (`a_label_cannot_break_out`): labels are quoted and
//! escaped, and nodes bear numbers, so that a step named `end` is no keyword; every declared edge is drawn, those
//! that follow from others too.

use crate::cli::text::{safe, short};
use backstop_proto::v1::{BranchState, Definition, Saga, StepKind};
use std::fmt::Write;

/// What is drawn.
pub(crate) struct Diagram {
    title: String,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    /// Lines below the name.
    lines: Vec<String>,
    class: Class,
    depends_on: Vec<String>,
}

/// How a node looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Plain,
    Good,
    Bad,
    Doubt,
    Moving,
    Undone,
    Idle,
    Pivot,
}

impl Class {
    const ALL: [Self; 8] = [
        Self::Plain,
        Self::Good,
        Self::Bad,
        Self::Doubt,
        Self::Moving,
        Self::Undone,
        Self::Idle,
        Self::Pivot,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "done",
            Self::Bad => "failed",
            Self::Doubt => "doubt",
            Self::Moving => "moving",
            Self::Undone => "undone",
            Self::Idle => "idle",
            Self::Pivot => "pivot",
        }
    }

    /// Fill and border; dark text is readable on every one of them.
    fn colours(self) -> (&'static str, &'static str) {
        match self {
            Self::Plain => ("#f5f5f5", "#616161"),
            Self::Good => ("#c8e6c9", "#2e7d32"),
            Self::Bad => ("#ffcdd2", "#c62828"),
            Self::Doubt => ("#ffe0b2", "#ef6c00"),
            Self::Moving => ("#bbdefb", "#1565c0"),
            Self::Undone => ("#e1bee7", "#6a1b9a"),
            Self::Idle => ("#eeeeee", "#9e9e9e"),
            Self::Pivot => ("#fff9c4", "#f9a825"),
        }
    }

    fn of_state(state: BranchState) -> Self {
        match state {
            BranchState::Succeeded => Self::Good,
            BranchState::Failed | BranchState::Stuck => Self::Bad,
            BranchState::InDoubt => Self::Doubt,
            BranchState::Running | BranchState::Compensating => Self::Moving,
            BranchState::Compensated | BranchState::Resolved => Self::Undone,
            BranchState::Pending | BranchState::Skipped => Self::Idle,
            BranchState::Unspecified => Self::Plain,
        }
    }
}

impl Diagram {
    /// A saga's steps with their states.
    pub(crate) fn of_saga(saga: &Saga) -> Self {
        let nodes = saga.branches.iter().map(|branch| Node {
            name: branch.step.clone(),
            lines: [super::branch_state_name(branch.state()), kind_name(branch.kind()), &branch.participant]
                .into_iter()
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            class: Class::of_state(branch.state()),
            depends_on: branch.depends_on.clone(),
        });
        let state = super::head::state_name(saga.state());
        let title = format!("{} {state} ({}@{})", saga.id, saga.definition, saga.revision);
        Self { title, nodes: nodes.collect() }
    }

    /// A definition's steps with their kinds.
    pub(crate) fn of_definition(definition: &Definition) -> Self {
        let nodes = definition.steps.iter().map(|step| {
            let participant = step.action.as_ref().map(|call| call.participant.clone()).unwrap_or_default();
            let kind = kind_name(step.kind());
            Node {
                name: step.name.clone(),
                lines: [kind.to_owned(), participant].into_iter().filter(|line| !line.is_empty()).collect(),
                class: match step.kind() {
                    StepKind::Compensatable | StepKind::Unspecified => Class::Plain,
                    StepKind::ReadOnly => Class::Idle,
                    StepKind::Pivot => Class::Pivot,
                    StepKind::Retriable => Class::Moving,
                },
                depends_on: step.depends_on.clone(),
            }
        });
        let title = match definition.revision {
            0 => definition.name.clone(),
            revision => format!("{}@{revision}", definition.name),
        };
        Self { title, nodes: nodes.collect() }
    }

    /// As a Mermaid flowchart.
    pub(crate) fn mermaid(&self) -> String {
        let mut out = format!("%% {}\nflowchart TD\n", mermaid_text(&self.title));
        // Writing to a String cannot fail, here and below.
        for (number, node) in self.nodes.iter().enumerate() {
            let lines = std::iter::once(&node.name).chain(&node.lines).map(|line| mermaid_text(line));
            let label = lines.collect::<Vec<_>>().join("<br/>");
            let _ = writeln!(out, "  n{number}[\"{label}\"]:::{}", node.class.name());
        }
        for (from, to) in self.edges() {
            let _ = writeln!(out, "  n{from} --> n{to}");
        }
        for class in self.classes() {
            let (fill, stroke) = class.colours();
            let name = class.name();
            let _ = writeln!(out, "  classDef {name} fill:{fill},stroke:{stroke},color:#212121");
        }
        out
    }

    /// As a Graphviz digraph.
    pub(crate) fn dot(&self) -> String {
        let mut out = format!("digraph {} {{\n", dot_text(&self.title));
        out.push_str("  rankdir=TB\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"]\n");
        for (number, node) in self.nodes.iter().enumerate() {
            let label =
                std::iter::once(&node.name).chain(&node.lines).cloned().collect::<Vec<_>>().join("\n");
            let (fill, stroke) = node.class.colours();
            let label = dot_text(&label);
            let _ = writeln!(out, "  n{number} [label={label}, fillcolor=\"{fill}\", color=\"{stroke}\"]");
        }
        for (from, to) in self.edges() {
            let _ = writeln!(out, "  n{from} -> n{to}");
        }
        out.push_str("}\n");
        out
    }

    fn edges(&self) -> Vec<(usize, usize)> {
        let place = |name: &String| self.nodes.iter().position(|node| node.name == *name);
        self.nodes
            .iter()
            .enumerate()
            .flat_map(|(to, node)| node.depends_on.iter().filter_map(place).map(move |from| (from, to)))
            .collect()
    }

    fn classes(&self) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(|class| self.nodes.iter().any(|node| node.class == *class))
    }
}

fn kind_name(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Compensatable | StepKind::Unspecified => "",
        StepKind::ReadOnly | StepKind::Pivot | StepKind::Retriable => short(kind.as_str_name(), "STEP_KIND_"),
    }
}

/// A text for a Mermaid label or message: what the grammar acts on is written as an entity.
pub(super) fn mermaid_text(text: &str) -> String {
    safe(text).chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '"' => out.push_str("#quot;"),
            '#' | ';' | '<' | '>' | '&' | '`' | '{' | '}' | '[' | ']' | '|' | '%' | '\\' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            other => out.push(other),
        }
        out
    })
}

/// A quoted string of the DOT language; newlines stay newlines of the label.
fn dot_text(text: &str) -> String {
    let lines: Vec<String> =
        text.split('\n').map(|line| safe(line).replace('\\', "\\\\").replace('"', "\\\"")).collect();
    format!("\"{}\"", lines.join("\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_out() {
        assert_eq!(mermaid_text("a\"]:::x; end\n"), "a#quot;#93;:::x#59; end#92;n");
        assert_eq!(dot_text("a\"; b -> c\\\nnext"), r#""a\"; b -> c\\\nnext""#);
    }
}
