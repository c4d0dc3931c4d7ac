//! A participant of the benchmark as a process: answers at once, on one thread, and keeps nothing.

use crate::wire::bench_server::{Bench, BenchServer};
use crate::wire::{Done, Work};
use anyhow::{Context, Result};
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// When a saga that is to wait shall come back: the longest that Backstop follows.
const LATER: Duration = Duration::from_secs(3_600);
/// Longest answer of the stand-in.
const ANSWER_MAX: usize = 1 << 20;

/// How a participant is run.
#[derive(Debug, Clone, clap::Args)]
pub struct Answer {
    /// Where it listens
    #[arg(long)]
    pub listen: SocketAddr,
}

struct AtOnce;

#[tonic::async_trait]
impl Bench for AtOnce {
    async fn act(&self, _: Request<Work>) -> Result<Response<Done>, Status> {
        Ok(Response::new(Done { receipt: "done".to_owned() }))
    }

    async fn undo(&self, _: Request<Work>) -> Result<Response<Done>, Status> {
        Ok(Response::new(Done { receipt: "undone".to_owned() }))
    }

    async fn start(&self, request: Request<Work>) -> Result<Response<Done>, Status> {
        let answer = usize::try_from(request.get_ref().answer).unwrap_or_default().min(ANSWER_MAX);
        Ok(Response::new(Done { receipt: "x".repeat(answer) }))
    }

    async fn later(&self, _: Request<Work>) -> Result<Response<Done>, Status> {
        let details = ErrorDetails::with_retry_info(Some(LATER));
        Err(Status::with_error_details(Code::Aborted, "come back later", details))
    }

    async fn refuse(&self, _: Request<Work>) -> Result<Response<Done>, Status> {
        Err(Status::failed_precondition("refused, as asked"))
    }

    async fn abort(&self, _: Request<Work>) -> Result<Response<Done>, Status> {
        Err(Status::aborted("refused, as asked"))
    }
}

/// Serves until the process is ended.
///
/// # Errors
/// If its port cannot be had.
pub async fn serve(answer: &Answer) -> Result<()> {
    let listener = TcpListener::bind(answer.listen).await.with_context(|| format!("{}", answer.listen))?;
    writeln!(std::io::stdout(), "listening {}", listener.local_addr()?)?;
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .add_service(BenchServer::new(AtOnce))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
