//! A document as a tree whose every value knows its place, and paths through it.

use super::Position;
use std::fmt::{self, Write};

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// What a document can say. Numbers keep their text: only the field they are for knows what they may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value; keys of a map are unique.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for a sentence.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// The way from the root to a value, as field violations write it.
#[derive(Debug, Clone, Default)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    /// Goes down into a key.
    pub(super) fn push_key(&mut self, key: &str) {
        self.0.push(Step::Key(key.to_owned()));
    }

    /// Goes down into an item.
    pub(super) fn push_index(&mut self, index: usize) {
        self.0.push(Step::Index(index));
    }

    /// Goes up again.
    pub(super) fn pop(&mut self) {
        self.0.pop();
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if place == 0 => f.write_str(key)?,
                Step::Key(key) => {
                    f.write_char('.')?;
                    f.write_str(key)?;
                }
            }
        }
        Ok(())
    }
}

/// Where the value at `path` begins; if it is not there, where its nearest parent begins.
pub(super) fn locate(root: &Node, path: &str) -> Position {
    let mut node = root;
    let mut at = root.at;
    let mut rest = path;
    while let Some((entry_at, child, after)) = descend(node, rest) {
        (at, node, rest) = (entry_at, child, after);
    }
    at
}

/// One step down: the place to show, the child, and what is left of the path.
fn descend<'tree, 'path>(node: &'tree Node, path: &'path str) -> Option<(Position, &'tree Node, &'path str)> {
    match &node.value {
        Value::List(items) => {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            let item = items.get(index.parse::<usize>().ok()?)?;
            Some((item.at, item, rest))
        }
        // Keys of templates may hold dots: whichever key the path goes on with, the longest first.
        Value::Map(entries) => {
            let path = path.strip_prefix('.').unwrap_or(path);
            let (rest, entry) = entries
                .iter()
                .filter_map(|entry| Some((after_key(path, &entry.key)?, entry)))
                .min_by_key(|(rest, _)| rest.len())?;
            // Scalars are shown where they stand, lists and mappings at their key.
            let at = match entry.node.value {
                Value::List(_) | Value::Map(_) | Value::Null => entry.at,
                Value::Bool(_) | Value::Number(_) | Value::Text(_) => entry.node.at,
            };
            Some((at, &entry.node, rest))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => None,
    }
}

/// What follows the key in the path; the path says snake_case, the file may say lowerCamelCase.
fn after_key<'path>(path: &'path str, key: &str) -> Option<&'path str> {
    let rest = path.strip_prefix(key).or_else(|| path.strip_prefix(&snake_case(key)))?;
    (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
}

fn snake_case(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
        out
    })
}
