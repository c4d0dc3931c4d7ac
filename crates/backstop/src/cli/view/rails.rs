//! A directed graph drawn as rails beside a list: one node a line, each edge a rail from a node down to the next.
//!
//! A rail leads to the node that it waits for, so all edges into one node share a rail and join it where they
//! come from. Edges that follow from others are not drawn: `a → c` beside `a → b → c` says nothing new about
//! the order.
//!
//! Invariants: each node stands on exactly one line, below all that it depends on
//! (`each_node_stands_once_and_below_what_it_depends_on`); a graph that is none (a cycle, an unknown node) still
//! ends, its rest without rails.

use std::collections::BTreeSet;

/// Rails beside each other beyond which nobody can follow them.
const RAILS_MAX: usize = 10;

/// One line of a drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The rails, and the place of the node among them.
    pub(super) rails: Vec<Glyph>,
    /// The node that stands on the line; `None` for a line that only joins and forks.
    pub(super) node: Option<usize>,
}

/// What stands in one column of the rails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Glyph {
    /// The node itself.
    Node,
    /// Strokes from the middle of the column: up, down, left, right.
    Strokes([bool; 4]),
}

const BLANK: Glyph = Glyph::Strokes([false; 4]);
const DOWN: Glyph = Glyph::Strokes([true, true, false, false]);
const ACROSS: Glyph = Glyph::Strokes([false, false, true, true]);

impl Glyph {
    /// As a character.
    pub(super) fn draw(self, node: char, is_ascii: bool) -> char {
        let Self::Strokes([up, down, left, right]) = self else { return node };
        if is_ascii {
            return match (up || down, left || right) {
                (true, true) => '+',
                (true, false) => '|',
                (false, true) => '-',
                (false, false) => ' ',
            };
        }
        match (up, down, left, right) {
            (false, false, false, false) => ' ',
            (false, false, _, _) => '─',
            (_, _, false, false) => '│',
            (true, true, true, true) => '┼',
            (true, true, true, false) => '┤',
            (true, true, false, true) => '├',
            (true, false, true, true) => '┴',
            (true, false, true, false) => '╯',
            (true, false, false, true) => '╰',
            (false, true, true, true) => '┬',
            (false, true, true, false) => '╮',
            (false, true, false, true) => '╭',
        }
    }
}

/// The drawing, or `None` if it would need more rails than anybody can follow. `depends_on` holds for each node
/// the nodes before it.
pub(super) fn draw(depends_on: &[Vec<usize>]) -> Option<Vec<Line>> {
    let edges = without_shortcuts(depends_on);
    let mut missing: Vec<usize> = edges.iter().map(BTreeSet::len).collect();
    let mut is_drawn = vec![false; edges.len()];
    // What each rail waits for.
    let mut rails: Vec<Option<usize>> = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..edges.len() {
        let ready = rails.iter().position(|rail| rail.is_some_and(|node| missing[node] == 0));
        let column = match ready {
            Some(column) => column,
            None => {
                let is_root = |node: &usize| !is_drawn[*node] && missing[*node] == 0;
                let Some(root) = (0..edges.len()).find(is_root) else { break };
                place(&mut rails, 0, root)
            }
        };
        let Some(node) = rails[column] else { break };
        if edges[node].is_empty() && lines.last().is_some_and(|line| is_node(line, column)) {
            // Right below a node, it would look as if it came from there.
            let apart =
                rails.iter().map(|rail| if rail.is_some_and(|other| other != node) { DOWN } else { BLANK });
            lines.push(Line { rails: apart.collect(), node: None });
        }
        is_drawn[node] = true;
        let glyph = |(place, rail): (usize, &Option<usize>)| match rail {
            Some(_) if place == column => Glyph::Node,
            Some(_) => DOWN,
            None => BLANK,
        };
        lines.push(Line { rails: rails.iter().enumerate().map(glyph).collect(), node: Some(node) });
        let before = rails.clone();
        rails[column] = None;
        let mut targets = BTreeSet::new();
        for next in (0..edges.len()).filter(|next| edges[*next].contains(&node)) {
            missing[next] -= 1;
            let there = rails.iter().position(|rail| *rail == Some(next));
            targets.insert(there.unwrap_or_else(|| place(&mut rails, column, next)));
        }
        if targets.iter().any(|target| *target != column) {
            lines.push(Line { rails: connector(&before, &rails, column, &targets), node: None });
        }
        while rails.last().is_some_and(Option::is_none) {
            rails.pop();
        }
        if rails.len() > RAILS_MAX {
            return None;
        }
    }
    let rest = (0..edges.len()).filter(|node| !is_drawn[*node]);
    lines.extend(rest.map(|node| Line { rails: vec![Glyph::Node], node: Some(node) }));
    Some(lines)
}

fn is_node(line: &Line, column: usize) -> bool {
    line.rails.get(column) == Some(&Glyph::Node)
}

/// Gives a node the first free rail from `from` on.
fn place(rails: &mut Vec<Option<usize>>, from: usize, node: usize) -> usize {
    let free = (from..rails.len()).find(|place| rails[*place].is_none());
    let column = free.unwrap_or(rails.len());
    if column == rails.len() {
        rails.push(None);
    }
    rails[column] = Some(node);
    column
}

/// The line below a node, on which its edges go to the rails that they belong to.
fn connector(
    before: &[Option<usize>],
    after: &[Option<usize>],
    column: usize,
    targets: &BTreeSet<usize>,
) -> Vec<Glyph> {
    let low = targets.first().map_or(column, |first| column.min(*first));
    let high = targets.last().map_or(column, |last| column.max(*last));
    (0..before.len().max(after.len()))
        .map(|place| {
            let is_within = place >= low && place <= high;
            let up = place == column || before.get(place).is_some_and(Option::is_some);
            let down = after.get(place).is_some_and(Option::is_some);
            if is_within && (place == column || targets.contains(&place)) {
                Glyph::Strokes([up, down, place > low, place < high])
            } else if up && down {
                // A rail that has nothing to do with this node passes over.
                DOWN
            } else if is_within {
                ACROSS
            } else {
                BLANK
            }
        })
        .collect()
}

/// The edges but for those that follow from others.
fn without_shortcuts(depends_on: &[Vec<usize>]) -> Vec<BTreeSet<usize>> {
    let count = depends_on.len();
    let edges: Vec<BTreeSet<usize>> = depends_on
        .iter()
        .map(|before| before.iter().copied().filter(|node| *node < count).collect())
        .collect();
    let ancestors: Vec<BTreeSet<usize>> = (0..count).map(|node| reached(&edges, node)).collect();
    let is_needed = |before: &usize, all: &BTreeSet<usize>| {
        !all.iter().any(|other| other != before && ancestors[*other].contains(before))
    };
    edges.iter().map(|all| all.iter().copied().filter(|before| is_needed(before, all)).collect()).collect()
}

fn reached(edges: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut look: Vec<usize> = edges[from].iter().copied().collect();
    while let Some(node) = look.pop() {
        if found.insert(node) {
            look.extend(edges[node].iter().copied());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn drawn(depends_on: &[&[usize]], is_ascii: bool) -> String {
        let depends_on: Vec<Vec<usize>> = depends_on.iter().map(|all| all.to_vec()).collect();
        let lines = draw(&depends_on).unwrap();
        let mut out = String::new();
        for line in lines {
            let mut text = String::new();
            for (place, glyph) in line.rails.iter().enumerate() {
                text.push(glyph.draw('o', is_ascii));
                text.push(super::super::dag::between(glyph, line.rails.get(place + 1), is_ascii));
            }
            let name = line.node.map(|node| node.to_string()).unwrap_or_default();
            out += format!("{text} {name}").trim_end();
            out.push('\n');
        }
        out
    }

    #[test]
    fn a_diamond_forks_and_joins() {
        insta::assert_snapshot!(drawn(&[&[], &[0], &[0], &[1, 2]], false), @r#"
o  0
├─╮
o │  1
│ o  2
├─╯
o  3
"#);
        insta::assert_snapshot!(drawn(&[&[], &[0], &[0], &[1, 2]], true), @r#"
o  0
+-+
o |  1
| o  2
+-+
o  3
"#);
    }

    #[test]
    fn a_fork_of_three_with_a_chain_beside_it_and_a_shortcut() {
        insta::assert_snapshot!(drawn(&[&[], &[0], &[0], &[0], &[1], &[4, 2, 3], &[0, 5], &[]], false), @r#"
o  0
├─┬─╮
o │ │  1
o │ │  4
│ o │  2
├─╯ │
│   o  3
├───╯
o  5
o  6

o  7
"#);
    }

    #[test]
    fn rails_that_cross_pass_over_each_other() {
        insta::assert_snapshot!(drawn(&[&[], &[], &[], &[0, 1], &[0, 2], &[1, 2], &[3, 4, 5]], false), @r#"
o  0
├─╮
│ │ o  1
├─│─┤
o │ │  3
│ │ │ o  2
│ ├─┼─╯
│ o │  4
├─╯ │
│   o  5
├───╯
o  6
"#);
    }

    #[test]
    fn each_node_stands_once_and_below_what_it_depends_on() {
        // A cheap generator of graphs: enough of them to meet every shape of up to eight nodes' rails.
        let mut seed: u64 = 7;
        let mut drawings = 0;
        for _ in 0..2_000 {
            let count = 1 + usize::try_from(seed % 8).unwrap();
            let depends_on: Vec<Vec<usize>> = (0..count)
                .map(|node| {
                    (0..node)
                        .filter(|_| {
                            seed = seed
                                .wrapping_mul(6_364_136_223_846_793_005)
                                .wrapping_add(1_442_695_040_888_963_407);
                            (seed >> 33).is_multiple_of(3)
                        })
                        .collect()
                })
                .collect();
            let Some(lines) = draw(&depends_on) else { continue };
            drawings += 1;
            let order: Vec<usize> = lines.iter().filter_map(|line| line.node).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>(), "{depends_on:?}");
            for (node, before) in depends_on.iter().enumerate() {
                let place = |wanted: usize| order.iter().position(|other| *other == wanted).unwrap();
                assert!(
                    before.iter().all(|before| place(*before) < place(node)),
                    "{depends_on:?}: {order:?}"
                );
            }
            for line in lines.iter().filter(|line| line.node.is_some()) {
                assert_eq!(line.rails.iter().filter(|glyph| **glyph == Glyph::Node).count(), 1);
            }
        }
        assert!(drawings > 1_900, "{drawings}");
    }

    #[test]
    fn what_is_no_graph_still_ends() {
        let lines = draw(&[vec![1], vec![0], vec![], vec![99]]).unwrap();
        assert_eq!(lines.iter().filter(|line| line.node.is_some()).count(), 4);
        assert_eq!(
            draw(&(0..40).map(|node| if node == 0 { vec![] } else { vec![0] }).collect::<Vec<_>>()),
            None
        );
    }
}
