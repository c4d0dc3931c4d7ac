//! The way to the server: one channel, a client for each service, one timeout around each call.
//!
//! The timeout is our own and covers the whole answer: tonic's ends at the headers and reads as CANCELLED.
//!
//! Not here: what is called (`saga`, `definition`, …).

use super::error::{CliError, innermost};
use super::text::parse_duration;
use backstop_proto::v1::definition_service_client::DefinitionServiceClient;
use backstop_proto::v1::operator_service_client::OperatorServiceClient;
use backstop_proto::v1::participant_service_client::ParticipantServiceClient;
use backstop_proto::v1::saga_service_client::SagaServiceClient;
use std::future::Future;
use std::time::Duration;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Response, Status};

/// Largest answer taken, in bytes: the simulation of a definition with 256 steps is long.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest header list taken, in bytes. hyper's default of 16 KiB would turn a refusal with many field
/// violations into a protocol error.
const HEADER_LIST_BYTES_MAX: u32 = 128 * 1024;
/// Most pages that one command turns: far more than anybody reads, and an end to a server that repeats
/// itself.
const PAGES_MAX: usize = 100_000;

/// Where a server listens that was not told otherwise.
pub(crate) const SERVER_DEFAULT: &str = "http://127.0.0.1:7420";

/// Where the server is, and how its answers are shown.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConnectArgs {
    /// The Backstop server: http://HOST:PORT, or https://… for TLS
    #[arg(
        long,
        global = true,
        env = "BACKSTOP_SERVER",
        value_name = "URL",
        default_value = SERVER_DEFAULT,
        help_heading = "Connection (of client commands)"
    )]
    pub(crate) server: String,
    /// How long to wait for the connection and for each answer, beyond any --wait
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, help_heading = "Connection (of client commands)")]
    pub(crate) timeout: Duration,
    /// How answers are shown
    ///
    /// As JSON, a verb that is one call prints the server's answer in protobuf's mapping, lists with all their pages in
    /// one document; verbs that ask many (intervention list, several sagas at once, top) print a document of their
    /// own. What goes on (saga watch, top) prints one line an event or look.
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        value_enum,
        default_value_t,
        help_heading = "Output (of client commands)"
    )]
    pub(crate) output: Output,
    /// The same as --output json
    #[arg(long, global = true, conflicts_with = "output", help_heading = "Output (of client commands)")]
    pub(crate) json: bool,
}

/// How answers are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// Text and tables for people
    #[default]
    Table,
    /// For programs
    Json,
}

impl ConnectArgs {
    /// The same, with `json` true whichever of the two flags asked for it.
    pub(crate) fn settled(&self) -> Self {
        Self { json: self.json || self.output == Output::Json, ..self.clone() }
    }
}

/// A connection to the server.
pub(crate) struct Connection {
    channel: Channel,
    server: String,
    timeout: Duration,
}

impl Connection {
    /// Connects at once, so that a server that is not there is told apart from a call that failed.
    ///
    /// # Errors
    /// [`CliError::BadServer`], [`CliError::Unreachable`].
    pub(crate) async fn open(args: &ConnectArgs) -> Result<Self, CliError> {
        let server =
            if args.server.contains("://") { args.server.clone() } else { format!("http://{}", args.server) };
        let bad = |error: tonic::transport::Error| CliError::BadServer {
            server: args.server.clone(),
            problem: innermost(&error),
        };
        let mut endpoint = Endpoint::from_shared(server.clone())
            .map_err(bad)?
            .connect_timeout(args.timeout)
            .tcp_nodelay(true)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX);
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(bad)?;
            }
            Some(_) | None => {
                let problem = "it begins with http:// or https://".to_owned();
                return Err(CliError::BadServer { server: args.server.clone(), problem });
            }
        }
        let unreachable = |problem| CliError::Unreachable { server: server.clone(), problem };
        let channel = tokio::time::timeout(args.timeout, endpoint.connect())
            .await
            .map_err(|_| unreachable("no connection in time".to_owned()))?
            .map_err(|error| unreachable(innermost(&error)))?;
        Ok(Self { channel, server, timeout: args.timeout })
    }

    /// The channel itself, for calls that no client of the contract's makes.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// For definitions.
    pub(crate) fn definitions(&self) -> DefinitionServiceClient<Channel> {
        DefinitionServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// For sagas.
    pub(crate) fn sagas(&self) -> SagaServiceClient<Channel> {
        SagaServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// For participants.
    pub(crate) fn participants(&self) -> ParticipantServiceClient<Channel> {
        ParticipantServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// For operators.
    pub(crate) fn operators(&self) -> OperatorServiceClient<Channel> {
        OperatorServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Awaits one answer, for as long as `--timeout` says.
    ///
    /// # Errors
    /// [`CliError::Said`], [`CliError::TimedOut`], [`CliError::ConnectionLost`].
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        self.call_waiting(Duration::ZERO, call).await
    }

    /// As [`Connection::call`], for a call that the server may hold for `wait`.
    pub(crate) async fn call_waiting<T>(
        &self,
        wait: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        let after = self.timeout.saturating_add(wait);
        match tokio::time::timeout(after, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.judge(status)),
            Err(_) => Err(CliError::TimedOut { server: self.server.clone(), after }),
        }
    }

    /// Tells the server's own word from a status that tonic made up for a broken connection: only those
    /// have a source.
    pub(crate) fn judge(&self, status: Status) -> CliError {
        match std::error::Error::source(&status) {
            Some(source) => {
                CliError::ConnectionLost { server: self.server.clone(), problem: innermost(source) }
            }
            None => CliError::Said { status: Box::new(status), source_text: None },
        }
    }
}

/// Turns the pages of a list: `page` is asked with a token and answers its items and the next token.
/// Stops at the end or once `limit` items are there; the token then says whether there are more.
///
/// # Errors
/// Those of `page`; [`CliError::Mapping`] if a server gives pages without end.
pub(crate) async fn pages<T, F>(
    limit: Option<usize>,
    mut page: impl FnMut(i32, String) -> F,
) -> Result<(Vec<T>, String), CliError>
where
    F: Future<Output = Result<(Vec<T>, String), CliError>>,
{
    /// What the contract takes in one page.
    const PAGE_SIZE_MAX: usize = 500;
    let mut items = Vec::new();
    let mut token = String::new();
    for _ in 0..PAGES_MAX {
        let wanted = limit.map_or(PAGE_SIZE_MAX, |limit| (limit - items.len()).min(PAGE_SIZE_MAX));
        let (more, next) = page(i32::try_from(wanted).unwrap_or(0), token.clone()).await?;
        items.extend(more);
        if next.is_empty() || limit.is_some_and(|limit| items.len() >= limit) {
            items.truncate(limit.unwrap_or(usize::MAX));
            return Ok((items, next));
        }
        if next == token {
            return Err(CliError::Mapping("the server answers the same page again and again".to_owned()));
        }
        token = next;
    }
    Err(CliError::Mapping(format!("the list has more than {PAGES_MAX} pages")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_page_that_comes_again_and_again_ends_the_list() {
        let stuck = pages::<u8, _>(None, |_, _| async { Ok((vec![1], "same".to_owned())) }).await;
        assert!(matches!(stuck, Err(CliError::Mapping(problem)) if problem.contains("same page")));
    }

    #[tokio::test]
    async fn a_server_that_gives_more_than_was_asked_for_is_cut() {
        let generous = pages(Some(2), |_, _| async { Ok((vec![1, 2, 3], String::new())) }).await;
        assert_eq!(generous.unwrap().0, [1, 2]);
    }
}
