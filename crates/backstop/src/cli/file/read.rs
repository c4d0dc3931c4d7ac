//! One YAML 1.2 document, JSON included, as a tree with positions.
//!
//! Invariants: what is read is bounded in depth and in values, anchors included, so a small hostile file
//! cannot grow (`a_bomb_of_anchors_is_defused`); a key stands once in its mapping; no number is changed.
//!
//! Not here: what fields there are and what they may hold (`shape`).

use super::number::{self, Word};
use super::tree::{Entry, Node, Path, Value};
use super::{Fault, Position};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Deepest nesting. Each level of a template costs three of protobuf's hundred.
pub(super) const DEPTH_MAX: usize = 32;
/// Most bytes of text and keys that the uses of anchors hold together.
pub(super) const ALIAS_BYTES_MAX: usize = 8 << 20;
/// Most values in a document, each use of an anchor counted.
pub(super) const NODES_MAX: usize = 100_000;

/// Reads the one document of a text.
pub(super) fn document(text: &str) -> Result<Node, Vec<Fault>> {
    // A byte order mark is an editor's business, not the author's.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = &*join_surrogates(text);
    let mut reader = Reader {
        text,
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
        alias_bytes: 0,
        path: Path::default(),
        faults: Vec::new(),
    };
    match reader.only_document() {
        Ok(node) if reader.faults.is_empty() => Ok(node),
        Ok(_) => Err(reader.faults),
        Err(fault) => {
            reader.faults.push(fault);
            Err(reader.faults)
        }
    }
}

/// JSON escapes a character beyond the basic plane as two halves (`\ud83d\ude00`), YAML as one
/// (`\U0001f600`). Only in JSON files: elsewhere the halves might stand outside double quotes.
fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with('{') || !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(c) = surrogate_pair(escape) {
            out.push_str(&format!("\\U{:08x}", u32::from(c)));
            rest = &escape[2 * HALF_BYTES..];
        } else {
            // The backslash and what it escapes, so that `\\u` is not taken for an escape.
            let taken = 1 + escape[1..].chars().next().map_or(0, char::len_utf8);
            out.push_str(&escape[..taken]);
            rest = &escape[taken..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Bytes of one half: `\ud83d`.
const HALF_BYTES: usize = 6;

fn surrogate_pair(escape: &str) -> Option<char> {
    let half =
        |at: usize| u16::from_str_radix(escape.get(at..at + HALF_BYTES)?.strip_prefix("\\u")?, 16).ok();
    let halves = [half(0)?, half(HALF_BYTES)?];
    // A single character of the basic plane decodes too, but then these are two characters.
    let mut chars = char::decode_utf16(halves);
    let first = chars.next()?.ok()?;
    (first.len_utf16() == 2).then_some(first)
}

/// How much a value holds.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    /// 1 for a word.
    levels: usize,
    bytes: usize,
}

impl Size {
    /// Recursion no deeper than [`DEPTH_MAX`]: what is deeper never became a value.
    fn of(node: &Node) -> Self {
        let mut size = Self { nodes: 1, levels: 1, bytes: 0 };
        let mut add = |inner: Self, key: usize| {
            size.nodes += inner.nodes;
            size.levels = size.levels.max(inner.levels + 1);
            size.bytes += inner.bytes + key;
        };
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| add(Self::of(item), 0)),
            Value::Map(entries) => {
                entries.iter().for_each(|entry| add(Self::of(&entry.node), entry.key.len()));
            }
            Value::Text(text) => size.bytes = text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        size
    }
}

struct Reader<'text> {
    text: &'text str,
    parser: Parser<'text, StrInput<'text>>,
    /// Values by anchor, with how much of each budget a use of one takes.
    anchors: HashMap<usize, (Node, Size)>,
    nodes: usize,
    alias_bytes: usize,
    path: Path,
    /// Faults after which reading can go on.
    faults: Vec<Fault>,
}

type Next<'text> = (Event<'text>, Span);

impl<'text> Reader<'text> {
    fn only_document(&mut self) -> Result<Node, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(
                        self.fault(position(span.start), "a second document begins: one file, one document")
                    );
                }
                Event::DocumentStart(_) => {
                    let first = self.next()?;
                    root = Some(self.node(first, 0)?);
                }
                Event::StreamEnd => {
                    return root.ok_or_else(|| self.fault(Position { line: 1, column: 1 }, "it is empty"));
                }
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => return Err(self.fault(position(span.start), "a value out of place")),
            }
        }
    }

    fn next(&mut self) -> Result<Next<'text>, Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.not_yaml(&error)),
            None => Err(self.fault(Position { line: 1, column: 1 }, "it ends too early")),
        }
    }

    fn not_yaml(&self, error: &ScanError) -> Fault {
        let at = position(*error.marker());
        let line = self.text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        let hint = if indent.contains('\t') { "; indent with spaces, not with tabs" } else { "" };
        self.fault(at, &format!("this is not YAML: {}{hint}", error.info()))
    }

    fn node(&mut self, (event, span): Next<'text>, depth: usize) -> Result<Node, Fault> {
        let at = position(span.start);
        self.count(at, 1)?;
        if depth > DEPTH_MAX {
            return Err(self.too_deep(at));
        }
        let (value, anchor) = match event {
            Event::Scalar(word, style, anchor, tag) => (self.scalar(at, word, style, tag.as_deref()), anchor),
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(at, tag.as_deref());
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(at, tag.as_deref());
                (self.map(depth)?, anchor)
            }
            Event::Alias(id) => {
                // The budget is asked before the copy is made.
                let size = self.anchors.get(&id).map_or_else(Size::default, |(_, size)| *size);
                self.count(at, size.nodes)?;
                self.alias_bytes = self.alias_bytes.saturating_add(size.bytes);
                if self.alias_bytes > ALIAS_BYTES_MAX {
                    let problem = format!("the uses of its anchors hold more than {ALIAS_BYTES_MAX} bytes");
                    return Err(self.fault(at, &problem));
                }
                // An anchor within an anchor within …: each is shallow where it stands.
                if depth + size.levels > DEPTH_MAX + 1 {
                    return Err(self.too_deep(at));
                }
                let Some((node, _)) = self.anchors.get(&id) else {
                    return Err(self.fault(at, "an alias refers to the value that it stands in"));
                };
                (node.value.clone(), 0)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(self.fault(at, "a value is missing")),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), Size::of(&node)));
        }
        Ok(node)
    }

    fn too_deep(&self, at: Position) -> Fault {
        self.fault(at, &format!("it is nested deeper than {DEPTH_MAX} levels"))
    }

    fn count(&mut self, at: Position, more: usize) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > NODES_MAX {
            let problem = format!("it holds more than {NODES_MAX} values, each use of an anchor counted");
            return Err(self.fault(at, &problem));
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut items = Vec::new();
        loop {
            let next = self.next()?;
            if next.0 == Event::SequenceEnd {
                return Ok(Value::List(items));
            }
            self.path.push_index(items.len());
            items.push(self.node(next, depth + 1)?);
            self.path.pop();
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut entries = Vec::new();
        let mut first_lines = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let at = position(span.start);
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(key, ..) => key.into_owned(),
                Event::Alias(_) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                    return Err(self.fault(at, "a key must be a plain name"));
                }
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::SequenceEnd => return Err(self.fault(at, "a key is missing")),
            };
            self.path.push_key(&key);
            self.key_faults(at, &key, first_lines.insert(key.clone(), at.line));
            let next = self.next()?;
            let node = self.node(next, depth + 1)?;
            self.path.pop();
            entries.push(Entry { at, key, node });
        }
    }

    fn key_faults(&mut self, at: Position, key: &str, first_line: Option<usize>) {
        if key == "<<" {
            let problem =
                "merge keys are not part of YAML 1.2: repeat the fields, or use an alias for one value";
            self.faults.push(self.fault(at, problem));
        }
        if let Some(line) = first_line {
            let problem = format!("the key is here a second time; the first is in line {line}");
            self.faults.push(self.fault(at, &problem));
        }
    }

    fn scalar(&mut self, at: Position, word: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value {
        // `!!str 7` and `! 7` say that it is a text, as quotes do.
        let is_text_tag = tag
            .is_some_and(|tag| (tag.is_yaml_core_schema() && tag.suffix == "str") || tag.to_string() == "!");
        if !is_text_tag {
            self.refuse_tag(at, tag);
        }
        if style != ScalarStyle::Plain || is_text_tag {
            return Value::Text(word.into_owned());
        }
        match word.as_ref() {
            "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
            "true" | "True" | "TRUE" => return Value::Bool(true),
            "false" | "False" | "FALSE" => return Value::Bool(false),
            _ => {}
        }
        match number::classify(&word) {
            Word::Number => Value::Number(word.into_owned()),
            Word::Text => Value::Text(word.into_owned()),
            Word::Refused(why) => {
                self.faults.push(self.fault(at, &format!("{word} {why}")));
                Value::Null
            }
        }
    }

    fn refuse_tag(&mut self, at: Position, tag: Option<&Tag>) {
        if let Some(tag) = tag {
            self.faults.push(self.fault(at, &format!("the tag {tag} means nothing here")));
        }
    }

    fn fault(&self, at: Position, problem: &str) -> Fault {
        Fault { at, path: self.path.to_string(), problem: problem.to_owned() }
    }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}
