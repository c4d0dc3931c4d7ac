//! A client of gRPC server reflection, v1 and, where a server does not know it, v1alpha.
//!
//! Each question is a stream of its own with one request and one reply, so it goes over the same
//! connections, and under the same rules of evidence, as a call.

use super::descriptors::FILES_MAX;
use super::evidence::Failed;
use super::pool::{Pool, Unary};
use backstop_core::{Code, Evidence};
use bytes::Bytes;
use http::HeaderMap;
use http::uri::PathAndQuery;
use prost::Message;
use prost_types::FileDescriptorProto;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// The messages of both versions are the same on the wire.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Most bytes of all files taken from one participant.
const FILES_BYTES_MAX: usize = 16 << 20;

/// What a participant's reflection told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The files of the services that it knows, with all imports that it knows.
    pub(super) files: Vec<FileDescriptorProto>,
    /// The services that it does not know.
    pub(super) unknown: Vec<String>,
}

/// Asks for the files of some services.
///
/// # Errors
/// Why the reflection cannot be used, for people.
pub(super) async fn files(pool: &Pool, services: &BTreeSet<&str>, timeout: Duration) -> Result<Told, String> {
    let mut asked =
        Conversation { pool, deadline: Instant::now() + timeout, version: 0, bytes_left: FILES_BYTES_MAX };
    let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    let mut unknown = Vec::new();
    for service in services {
        match asked.ask(MessageRequest::FileContainingSymbol((*service).to_owned())).await? {
            Some(found) => files.extend(found.into_iter().map(|file| (file.name().to_owned(), file))),
            None => unknown.push((*service).to_owned()),
        }
    }
    let mut untold = BTreeSet::new();
    loop {
        let imports = files.values().flat_map(|file| &file.dependency);
        let missing: BTreeSet<String> =
            imports.filter(|name| !files.contains_key(*name) && !untold.contains(*name)).cloned().collect();
        if missing.is_empty() {
            return Ok(Told { files: files.into_values().collect(), unknown });
        }
        for name in missing {
            match asked.ask(MessageRequest::FileByFilename(name.clone())).await? {
                Some(found) => files.extend(found.into_iter().map(|file| (file.name().to_owned(), file))),
                None => {
                    untold.insert(name);
                }
            }
            if files.len() > FILES_MAX {
                return Err(format!("it told more than {FILES_MAX} files"));
            }
        }
    }
}

struct Conversation<'a> {
    pool: &'a Pool,
    deadline: Instant,
    version: usize,
    bytes_left: usize,
}

impl Conversation<'_> {
    /// `None`: the server says that there is no such thing.
    async fn ask(&mut self, question: MessageRequest) -> Result<Option<Vec<FileDescriptorProto>>, String> {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let message: Bytes = request.encode_to_vec().into();
        let answer = loop {
            let Some(path) = PATHS.get(self.version) else {
                return Err("the server has no reflection, neither v1 nor v1alpha".to_owned());
            };
            let call = Unary {
                path: PathAndQuery::from_static(path),
                headers: HeaderMap::new(),
                message: message.clone(),
                deadline: self.deadline,
                clearance: None,
            };
            match self.pool.call(&call).await {
                Ok(reply) => break reply.message,
                Err(Failed { evidence: Evidence::ParticipantSaid(Code::Unimplemented), .. }) => {
                    self.version += 1
                }
                // Some servers (tonic's) end the stream with the status instead of answering it.
                Err(Failed { evidence: Evidence::ParticipantSaid(Code::NotFound), .. }) => return Ok(None),
                Err(failed) => {
                    return Err(format!("{} {}", failed.evidence.code().name(), failed.message));
                }
            }
        };
        let answer =
            ServerReflectionResponse::decode(answer).map_err(|e| format!("unreadable answer: {e}"))?;
        match answer.message_response {
            Some(MessageResponse::FileDescriptorResponse(found)) => {
                let bytes = found.file_descriptor_proto.iter().map(Vec::len).sum();
                let left = self.bytes_left.checked_sub(bytes);
                self.bytes_left =
                    left.ok_or_else(|| format!("it told more than {FILES_BYTES_MAX} bytes of files"))?;
                let decoded = found
                    .file_descriptor_proto
                    .iter()
                    .map(|file| FileDescriptorProto::decode(file.as_slice()));
                decoded.collect::<Result<_, _>>().map(Some).map_err(|e| format!("unreadable file: {e}"))
            }
            Some(MessageResponse::ErrorResponse(error)) if error.error_code == Code::NotFound.number() => {
                Ok(None)
            }
            Some(MessageResponse::ErrorResponse(error)) => Err(error.error_message),
            Some(
                MessageResponse::AllExtensionNumbersResponse(_) | MessageResponse::ListServicesResponse(_),
            )
            | None => Err("an answer to another question".to_owned()),
        }
    }
}
