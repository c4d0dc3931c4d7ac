//! The message types of a definition's calls: found once, at registration, and stored with the revision.
//!
//! # Invariants
//! * What is gathered is canonical: the same files give the same bytes, in whatever order a participant's
//!   reflection tells them, with or without comments (`tests/participants/reflection.rs`).
//! * It holds the files that the definition's methods need, imports included, and no other.
//!
//! # Not here
//! Whether requests fit those types: `super::template`.

use super::pool::Pool;
use super::reflection;
use backstop_core::failure::MESSAGE_BYTES_MAX;
use backstop_core::{CallSpec, DefinitionSpec, Fault, ParticipantName, bounded_text};
use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Most files of message types, given or told.
pub(super) const FILES_MAX: usize = 2000;

/// Why a definition's message types could not be gathered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// The definition is wrong.
    #[error("the definition has faults")]
    Faults {
        /// Every fault, with its path.
        faults: Vec<Fault>,
        /// The types of the methods that could be found, so that the rest can be checked all the same.
        found: Bytes,
    },
    /// A participant's reflection did not answer; trying again may help.
    #[error("the server reflection of participant \"{participant}\" cannot be used: {message}")]
    Unreachable {
        /// Whose.
        participant: String,
        /// Why, for people.
        message: String,
    },
}

/// One call of a definition with its path: `steps[1].action`.
pub(super) fn calls(spec: &DefinitionSpec) -> impl Iterator<Item = (String, &CallSpec)> {
    spec.steps.iter().enumerate().flat_map(|(index, step)| {
        step.calls().map(move |(name, call)| (format!("steps[{index}].{name}"), call))
    })
}

/// The pool of some files, or what is wrong with them. The library judges files that no compiler made too, but not
/// all: over some it stumbles, where it looks for the place of what is wrong.
pub(super) fn pool(files: FileDescriptorSet) -> Result<DescriptorPool, String> {
    let built = std::panic::catch_unwind(|| DescriptorPool::from_file_descriptor_set(files));
    match built {
        Ok(Ok(pool)) => Ok(pool),
        Ok(Err(error)) => Err(bounded_text(&error.to_string(), MESSAGE_BYTES_MAX)),
        Err(_) => Err("the files contradict themselves: no compiler of protobuf made them".to_owned()),
    }
}

/// The descriptor of a unary method, or what is wrong with it.
pub(super) fn method(pool: &DescriptorPool, method: &str) -> Result<MethodDescriptor, String> {
    let (service, name) = method
        .split_once('/')
        .ok_or_else(|| format!("\"{method}\" is not of the form package.Service/Method"))?;
    let descriptor =
        pool.get_service_by_name(service).ok_or_else(|| format!("there is no service \"{service}\""))?;
    let found = descriptor.methods().find(|candidate| candidate.name() == name);
    let found = found.ok_or_else(|| format!("service \"{service}\" has no method \"{name}\""))?;
    if found.is_client_streaming() || found.is_server_streaming() {
        return Err(format!("\"{method}\" is a streaming method; a step calls unary ones"));
    }
    Ok(found)
}

/// Cuts a given set down to what the definition needs.
pub(super) fn from_given(spec: &DefinitionSpec, given: FileDescriptorSet) -> Result<Bytes, GatherError> {
    let mut files = Files::default();
    let mut faults = Vec::new();
    if given.file.len() > FILES_MAX {
        let text = format!("has {} files; the limit is {FILES_MAX}", given.file.len());
        return Err(GatherError::Faults {
            faults: vec![Fault::new("descriptors", text)],
            found: Bytes::new(),
        });
    }
    for file in given.file {
        if let Err(message) = files.add(file) {
            faults.push(Fault::new("descriptors", message));
        }
    }
    files.finish(spec, faults)
}

/// Asks the participants' reflection for what the definition needs.
pub(super) async fn from_reflection(
    spec: &DefinitionSpec,
    pool_of: impl Fn(&ParticipantName) -> Option<Arc<Pool>>,
    timeout: Duration,
) -> Result<Bytes, GatherError> {
    // Each participant once, with all services that the definition uses of it.
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    let mut places: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for (path, call) in calls(spec) {
        match call.method.split_once('/') {
            Some((service, _)) => {
                wanted.entry(&call.participant).or_default().insert(service);
                places.entry((&call.participant, service)).or_insert_with(|| format!("{path}.method"));
            }
            None => faults.push(Fault::new(
                format!("{path}.method"),
                format!("\"{}\" is not of the form package.Service/Method", call.method),
            )),
        }
    }
    let mut files = Files::default();
    for (participant, services) in wanted {
        let pool = ParticipantName::parse(participant).ok().and_then(|name| pool_of(&name));
        let Some(pool) = pool else {
            for service in services {
                let path = places.get(&(participant, service)).cloned().unwrap_or_default();
                faults.push(Fault::new(
                    path.replace(".method", ".participant"),
                    format!("no participant \"{participant}\" is registered"),
                ));
            }
            continue;
        };
        let told = reflection::files(&pool, &services, timeout)
            .await
            .map_err(|message| GatherError::Unreachable { participant: participant.to_owned(), message })?;
        for service in told.unknown {
            let path = places.get(&(participant, service.as_str())).cloned().unwrap_or_default();
            faults.push(Fault::new(
                path,
                format!("participant \"{participant}\" has no service \"{service}\""),
            ));
        }
        for file in told.files {
            if let Err(message) = files.add(file) {
                let service = services.iter().next().copied().unwrap_or_default();
                let path = places.get(&(participant, service)).cloned().unwrap_or_default();
                faults.push(Fault::new(path, format!("participant \"{participant}\": {message}")));
            }
        }
    }
    files.finish(spec, faults)
}

/// A file without what some compilers write down and others leave to the reader: JSON names that are what they would be
/// anyway.
fn plain(file: &FileDescriptorProto) -> FileDescriptorProto {
    let mut file = file.clone();
    file.extension.iter_mut().for_each(leave_out_json_name);
    // A list and no recursion: whoever sent the file has nested its messages.
    let mut open: Vec<&mut DescriptorProto> = file.message_type.iter_mut().collect();
    while let Some(message) = open.pop() {
        message.field.iter_mut().chain(&mut message.extension).for_each(leave_out_json_name);
        open.extend(&mut message.nested_type);
    }
    file
}

fn leave_out_json_name(field: &mut FieldDescriptorProto) {
    // As protobuf's own compiler makes it: underscores go, and what follows one is upper case.
    let mut usual = String::new();
    let mut is_after_underscore = false;
    for letter in field.name().chars() {
        if letter == '_' {
            is_after_underscore = true;
        } else {
            usual.push(if is_after_underscore { letter.to_ascii_uppercase() } else { letter });
            is_after_underscore = false;
        }
    }
    field.json_name.take_if(|name| *name == usual);
}

/// Files by name, without comments.
#[derive(Default)]
struct Files(BTreeMap<String, FileDescriptorProto>);

impl Files {
    fn add(&mut self, mut file: FileDescriptorProto) -> Result<(), String> {
        file.source_code_info = None;
        let name = file.name().to_owned();
        match self.0.get(&name) {
            Some(known) if *known != file && plain(known) != plain(&file) => {
                Err(format!("file \"{name}\" differs from one of the same name that came before"))
            }
            Some(_) => Ok(()),
            None => {
                self.0.insert(name, file);
                Ok(())
            }
        }
    }

    /// The files that the definition's methods need, each after its imports.
    fn finish(mut self, spec: &DefinitionSpec, mut faults: Vec<Fault>) -> Result<Bytes, GatherError> {
        self.add_well_known();
        let whole = FileDescriptorSet { file: self.0.values().cloned().collect() };
        let pool = match pool(whole) {
            Ok(pool) => pool,
            Err(message) => {
                faults.push(Fault::new("descriptors", message));
                let found = Bytes::new();
                return Err(GatherError::Faults { faults, found });
            }
        };
        let mut roots = BTreeSet::new();
        for (path, call) in calls(spec) {
            match method(&pool, &call.method) {
                Ok(found) => {
                    roots.insert(found.parent_file().name().to_owned());
                }
                Err(message) => faults.push(Fault::new(format!("{path}.method"), message)),
            }
        }
        let mut placed = BTreeSet::new();
        let mut set = FileDescriptorSet::default();
        for root in roots {
            self.place(&root, &mut placed, &mut set);
        }
        let found = Bytes::from(set.encode_to_vec());
        if faults.is_empty() { Ok(found) } else { Err(GatherError::Faults { faults, found }) }
    }

    /// Imports of `google/protobuf/` that were not told are known here, as they are to every compiler.
    fn add_well_known(&mut self) {
        let known = DescriptorPool::global();
        loop {
            let imports = self.0.values().flat_map(|file| &file.dependency);
            let missing: Vec<_> = imports
                .filter(|name| name.starts_with("google/protobuf/") && !self.0.contains_key(*name))
                .filter_map(|name| known.get_file_by_name(name))
                .collect();
            if missing.is_empty() {
                return;
            }
            for file in missing {
                // The name is not there yet, so it cannot differ.
                let _ = self.add(file.file_descriptor_proto().clone());
            }
        }
    }

    /// Puts a file behind its imports. Imports cannot be cyclic: the pool has been built from these files. But
    /// they may form a chain of all of them, so they are not followed by recursion.
    fn place(&self, root: &str, placed: &mut BTreeSet<String>, set: &mut FileDescriptorSet) {
        let mut open: Vec<(&FileDescriptorProto, usize)> = Vec::new();
        let enter = |name: &str, placed: &mut BTreeSet<String>| {
            self.0.get(name).filter(|_| placed.insert(name.to_owned())).map(|file| (file, 0))
        };
        open.extend(enter(root, placed));
        while let Some((file, next)) = open.last_mut() {
            match file.dependency.get(*next) {
                Some(import) => {
                    *next += 1;
                    open.extend(enter(import, placed));
                }
                None => {
                    set.file.push((*file).clone());
                    open.pop();
                }
            }
        }
    }
}
