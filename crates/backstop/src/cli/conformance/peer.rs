//! The service that is checked: one connection, calls by descriptor, its reflection.
//!
//! # Invariants
//! * A status that our own client made up (a lost connection, a passed deadline) is never taken for the
//!   service's word.
//!
//! # Not here
//! What an answer is worth: `checks`.

use super::{ATTEMPTS_MAX, PAUSE};
use crate::cli::connect::{ConnectArgs, Connection, Output};
use crate::cli::error::{CliError, innermost};
use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient as AlphaClient;

/// Largest reply taken, in bytes.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most files taken from one service.
const FILES_MAX: usize = 2000;

/// The service.
#[derive(Clone)]
pub(super) struct Peer {
    channel: Channel,
    timeout: Duration,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// OK, with the reply's bytes.
    Reply(Bytes),
    /// The service's own status.
    Status(Box<Status>),
    /// Nothing that the service said.
    Silence(String),
}

impl Answer {
    /// True if it asks for another attempt and says nothing about the call.
    fn is_temporary(&self) -> bool {
        match self {
            Self::Reply(_) | Self::Silence(_) => false,
            Self::Status(status) => {
                matches!(status.code(), Code::Unavailable | Code::Aborted | Code::ResourceExhausted)
            }
        }
    }
}

impl Peer {
    pub(super) async fn connect(address: &str, timeout: Duration) -> Result<Self, CliError> {
        let args =
            ConnectArgs { server: address.to_owned(), timeout, output: Output::default(), json: false };
        let connection = Connection::open(&args).await.map_err(|error| match error {
            CliError::Unreachable { server, problem } => CliError::NoParticipant { address: server, problem },
            other => other,
        })?;
        Ok(Self { channel: connection.channel(), timeout })
    }

    /// One attempt.
    pub(super) async fn call(&self, path: PathAndQuery, metadata: MetadataMap, request: Bytes) -> Answer {
        let mut client =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(REPLY_BYTES_MAX);
        let call = async {
            client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            let mut request = Request::from_parts(metadata, tonic::Extensions::default(), request);
            request.set_timeout(self.timeout);
            client.unary(request, path, Raw).await
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(reply)) => Answer::Reply(reply.into_inner()),
            Ok(Err(status)) => match std::error::Error::source(&status) {
                Some(source) => Answer::Silence(innermost(source)),
                None => Answer::Status(Box::new(status)),
            },
            Err(_) => Answer::Silence(format!("nothing within {}", crate::cli::text::duration(self.timeout))),
        }
    }

    /// Attempts until one is no temporary failure; how many it took.
    pub(super) async fn call_patiently(
        &self,
        path: &PathAndQuery,
        request: &Bytes,
        metadata: impl Fn(u32) -> MetadataMap,
    ) -> (Answer, u32) {
        let mut attempt = 0;
        loop {
            let answer = self.call(path.clone(), metadata(attempt), request.clone()).await;
            attempt += 1;
            if !answer.is_temporary() || attempt >= ATTEMPTS_MAX {
                return (answer, attempt);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The files of some services, with their imports, as the service's reflection tells them.
    pub(super) async fn files(&self, services: &BTreeSet<&str>) -> Result<FileDescriptorSet, CliError> {
        let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
        let mut open: Vec<MessageRequest> = services
            .iter()
            .map(|service| MessageRequest::FileContainingSymbol((*service).to_owned()))
            .collect();
        let mut asked = BTreeSet::new();
        while let Some(question) = open.pop() {
            for file in self.ask(question).await? {
                for import in &file.dependency {
                    if asked.insert(import.clone()) && !files.contains_key(import) {
                        open.push(MessageRequest::FileByFilename(import.clone()));
                    }
                }
                files.insert(file.name().to_owned(), file);
            }
            if files.len() > FILES_MAX {
                return Err(CliError::Unfit(format!("its reflection tells more than {FILES_MAX} files")));
            }
        }
        Ok(FileDescriptorSet { file: files.into_values().collect() })
    }

    async fn ask(&self, question: MessageRequest) -> Result<Vec<FileDescriptorProto>, CliError> {
        let what = match &question {
            MessageRequest::FileContainingSymbol(name) | MessageRequest::FileByFilename(name) => name.clone(),
            other => format!("{other:?}"),
        };
        let unfit = |problem: String| {
            CliError::Unfit(format!(
                "server reflection on {what}: {problem}; --descriptors FILE does without"
            ))
        };
        let asking = async {
            match self.ask_v1(question.clone()).await {
                Err(status) if status.code() == Code::Unimplemented => self.ask_alpha(question).await,
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(self.timeout, asking)
            .await
            .map_err(|_| unfit("no answer in time".to_owned()))?
            .map_err(|status| unfit(format!("{:?} {}", status.code(), status.message())))?;
        match answer.message_response {
            Some(MessageResponse::FileDescriptorResponse(found)) => {
                let files = found.file_descriptor_proto.iter();
                files
                    .map(|file| FileDescriptorProto::decode(file.as_slice()))
                    .collect::<Result<_, _>>()
                    .map_err(|error| unfit(format!("an unreadable file: {error}")))
            }
            Some(MessageResponse::ErrorResponse(error)) => Err(unfit(error.error_message)),
            Some(_) | None => Err(unfit("an answer to another question".to_owned())),
        }
    }

    async fn ask_v1(&self, question: MessageRequest) -> Result<ServerReflectionResponse, Status> {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let mut client =
            ServerReflectionClient::new(self.channel.clone()).max_decoding_message_size(REPLY_BYTES_MAX);
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::internal("no answer"))
    }

    /// The messages of both versions are the same on the wire.
    async fn ask_alpha(&self, question: MessageRequest) -> Result<ServerReflectionResponse, Status> {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let again = |error: prost::DecodeError| Status::internal(error.to_string());
        let request = Message::decode(request.encode_to_vec().as_slice()).map_err(again)?;
        let mut client = AlphaClient::new(self.channel.clone()).max_decoding_message_size(REPLY_BYTES_MAX);
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
        let answer = answers.message().await?.ok_or_else(|| Status::internal("no answer"))?;
        ServerReflectionResponse::decode(answer.encode_to_vec().as_slice()).map_err(again)
    }
}

/// Bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
