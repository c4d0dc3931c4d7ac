//! Definition files and saga inputs: YAML or JSON in, wire messages out, each fault with its place.
//!
//! `read` makes a tree with positions of the text, `shape` holds that against the contract's
//! descriptors, `write` is the way back. A server's field violations find their line by [`Source::place`].
//!
//! Not here: what a definition must fulfil (cycles, names, templates): the server alone judges that.

mod number;
mod read;
mod shape;
mod tree;
mod write;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use super::error::CliError;
use super::json;
use backstop_proto::v1;
use prost::Message;
use prost_reflect::DynamicMessage;
use std::fmt;
use std::io::Read;
use tree::{Node, Path};

pub(crate) use write::definition as write_definition;

/// Largest text that is read, in bytes: four times what the server takes, since comments do not travel.
pub(crate) const TEXT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Line and column, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: usize,
    /// The column.
    pub(crate) column: usize,
}

/// Something wrong at a place of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where.
    pub(crate) at: Position,
    /// The path within the document, `steps[2].depends_on[0]`; empty for the document itself.
    pub(crate) path: String,
    /// What.
    pub(crate) problem: String,
}

/// Message types from a file: an encoded `FileDescriptorSet`.
///
/// # Errors
/// [`CliError::Unreadable`].
pub(crate) fn descriptor_set(path: &str) -> Result<prost_types::FileDescriptorSet, CliError> {
    let unreadable = |problem: String| CliError::Unreadable { path: path.to_owned(), problem };
    let bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    prost_types::FileDescriptorSet::decode(bytes.as_slice())
        .map_err(|error| unreadable(format!("it is no FileDescriptorSet: {error}")))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}  ", self.at.line, self.at.column)?;
        if self.path.is_empty() {
            f.write_str(&self.problem)
        } else {
            write!(f, "{}: {}", self.path, self.problem)
        }
    }
}

/// A text that was understood, kept so that later faults can be shown in it.
#[derive(Debug)]
pub(crate) struct Source {
    /// What to call it: the file's path as given, or `<stdin>`.
    pub(crate) name: String,
    part: Part,
    root: Node,
}

/// Which part of a request a text became.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Field violations name paths within it.
    Definition,
    /// Field violations name paths from the request's root: `input.amount`.
    Input,
}

impl Source {
    /// Where the value at a path stands, or else its nearest parent: the server's `steps[2].depends_on[0]`.
    /// `None` if the path leads to another part of the request.
    pub(crate) fn place(&self, path: &str) -> Option<Position> {
        let path = match self.part {
            Part::Definition if path == "descriptors" || path.starts_with("descriptors.") => return None,
            Part::Definition => path.strip_prefix("definition.").unwrap_or(path),
            Part::Input => {
                let rest = path.strip_prefix("input")?;
                if !rest.is_empty() && !rest.starts_with(['.', '[']) {
                    return None;
                }
                rest
            }
        };
        Some(tree::locate(&self.root, path))
    }
}

/// Reads a text from a file, or from standard input if the path is `-`.
///
/// # Errors
/// [`CliError::Unreadable`] if it cannot be opened, is no UTF-8 or is larger than [`TEXT_BYTES_MAX`].
pub(crate) fn text_of(path: &str) -> Result<(String, String), CliError> {
    if path == "-" {
        return Ok(("<stdin>".to_owned(), bounded(path, std::io::stdin().lock())?));
    }
    let file = std::fs::File::open(path)
        .map_err(|error| CliError::Unreadable { path: path.to_owned(), problem: error.to_string() })?;
    Ok((path.to_owned(), bounded(path, file)?))
}

fn bounded(path: &str, from: impl Read) -> Result<String, CliError> {
    let mut text = String::new();
    let problem = match from.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(bytes) if bytes as u64 <= TEXT_BYTES_MAX => return Ok(text),
        Ok(_) => format!("it is larger than {TEXT_BYTES_MAX} bytes"),
        Err(error) => error.to_string(),
    };
    Err(CliError::Unreadable { path: path.to_owned(), problem })
}

/// Understands a text as a definition.
///
/// # Errors
/// [`CliError::Faults`] with all that is wrong with its shape.
pub(crate) fn definition(name: &str, text: &str) -> Result<(v1::Definition, Source), CliError> {
    message(Part::Definition, "backstop.v1.Definition", name, text)
}

/// Understands a text as a saga's input: an object of any shape.
///
/// # Errors
/// As [`definition`]; also for numbers that a double cannot hold exactly.
pub(crate) fn input(name: &str, text: &str) -> Result<(prost_types::Struct, Source), CliError> {
    message(Part::Input, "google.protobuf.Struct", name, text)
}

fn message<M: Message + Default>(
    part: Part,
    full_name: &str,
    name: &str,
    text: &str,
) -> Result<(M, Source), CliError> {
    let faults = |faults| CliError::Faults { text: name.to_owned(), faults };
    let descriptor = json::descriptor(full_name)?;
    let root = read::document(text).map_err(faults)?;
    let value = shape::message(&descriptor, &root).map_err(faults)?;
    // What `shape` lets pass, the mapping takes; if they should ever disagree, it is still said.
    let unexpected =
        |problem: String| faults(vec![Fault { at: root.at, path: Path::default().to_string(), problem }]);
    let message = DynamicMessage::deserialize(descriptor, value)
        .map_err(|error| unexpected(error.to_string()))?
        .transcode_to()
        .map_err(|error| unexpected(error.to_string()))?;
    Ok((message, Source { name: name.to_owned(), part, root }))
}
