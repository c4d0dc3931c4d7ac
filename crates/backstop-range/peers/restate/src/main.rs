//! The service that restate-server drives in the benchmark: a saga of three branches, each one gRPC call to a participant,
//! each durable before the saga goes on.
//!
//! Usage: `peer-restate ADDRESS PARTICIPANT PARTICIPANT PARTICIPANT`, the latter as `http://HOST:PORT`.
//!
//! * `Saga/sequential`: three `ctx.run`, one after the other.
//! * `Saga/joined`: three `ctx.run` at once.
//! * `Saga/concurrent`: three durable calls of `Branch/call` at once, which is how Restate's handbook spreads work out.
//!
//! The last branch refuses if the request says so; then what succeeded is undone in reverse order, each compensation a
//! durable step, as in Restate's guide to sagas. The answer is how the saga ended. A participant's refusal is a terminal
//! error; anything else that goes wrong is tried again by Restate.

mod bytes_codec;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use bytes_codec::BytesCodec;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use restate_sdk::context::RequestTarget;
use restate_sdk::hyper::HyperEndpoint;
use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint as Address};

const BRANCHES: usize = 3;
const SUCCEEDED: &str = "SUCCEEDED";
const ROLLED_BACK: &str = "ROLLED_BACK";

/// What the participants' methods are called; the last branch's action may be another than the others'.
#[derive(Clone, Serialize, Deserialize)]
struct Methods {
    action: String,
    last: String,
    compensation: String,
}

impl Methods {
    fn of(&self, branch: usize) -> &str {
        if branch + 1 == BRANCHES { &self.last } else { &self.action }
    }
}

/// One call of one branch.
#[derive(Clone, Serialize, Deserialize)]
struct Call {
    branch: usize,
    method: String,
}

#[derive(Clone)]
struct Participants(Vec<Channel>);

impl Participants {
    async fn call(&self, call: Call) -> Result<(), HandlerError> {
        let channel = self.0.get(call.branch).cloned();
        let channel = channel.ok_or_else(|| TerminalError::new(format!("no branch {}", call.branch)))?;
        let path =
            PathAndQuery::try_from(call.method).map_err(|error| TerminalError::new(error.to_string()))?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await?;
        let request = tonic::Request::new(Bytes::new());
        match client.unary(request, path, BytesCodec).await {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::Aborted) => {
                Err(TerminalError::new(status.message()).into())
            }
            Err(status) => Err(status.into()),
        }
    }
}

struct Branch(Participants);

#[restate_sdk::service]
impl Branch {
    #[handler]
    async fn call(&self, _context: Context<'_>, Json(call): Json<Call>) -> Result<(), HandlerError> {
        self.0.call(call).await
    }
}

struct Saga(Participants);

#[restate_sdk::service]
impl Saga {
    #[handler]
    async fn sequential(
        &self,
        context: Context<'_>,
        Json(methods): Json<Methods>,
    ) -> Result<String, HandlerError> {
        for branch in 0..BRANCHES {
            if self.step(&context, branch, methods.of(branch)).await.is_err() {
                return self.undo(&context, &methods, (0..branch).collect()).await;
            }
        }
        Ok(SUCCEEDED.to_owned())
    }

    #[handler]
    async fn joined(
        &self,
        context: Context<'_>,
        Json(methods): Json<Methods>,
    ) -> Result<String, HandlerError> {
        let steps = (0..BRANCHES).map(|branch| self.step(&context, branch, methods.of(branch)));
        let answers = futures::future::join_all(steps).await;
        self.end(&context, &methods, answers.iter().map(Result::is_ok).collect()).await
    }

    #[handler]
    async fn concurrent(
        &self,
        context: Context<'_>,
        Json(methods): Json<Methods>,
    ) -> Result<String, HandlerError> {
        let mut calls = DurableFuturesUnordered::new();
        for branch in 0..BRANCHES {
            let call = Call { branch, method: methods.of(branch).to_owned() };
            let target = RequestTarget::service("Branch", "call");
            calls.push(context.request::<Json<Call>, ()>(target, Json(call)).call());
        }
        let mut succeeded = vec![false; BRANCHES];
        while let Some((branch, answer)) = calls.next().await? {
            if let Some(slot) = succeeded.get_mut(branch) {
                *slot = answer.is_ok();
            }
        }
        self.end(&context, &methods, succeeded).await
    }
}

impl Saga {
    async fn step(&self, context: &Context<'_>, branch: usize, method: &str) -> Result<(), TerminalError> {
        let call = Call { branch, method: method.to_owned() };
        context.run(|| self.0.call(call)).await
    }

    async fn end(
        &self,
        context: &Context<'_>,
        methods: &Methods,
        succeeded: Vec<bool>,
    ) -> Result<String, HandlerError> {
        if succeeded.iter().all(|succeeded| *succeeded) {
            return Ok(SUCCEEDED.to_owned());
        }
        let to_undo =
            succeeded.iter().enumerate().filter_map(|(branch, succeeded)| succeeded.then_some(branch));
        self.undo(context, methods, to_undo.collect()).await
    }

    async fn undo(
        &self,
        context: &Context<'_>,
        methods: &Methods,
        branches: Vec<usize>,
    ) -> Result<String, HandlerError> {
        for branch in branches.into_iter().rev() {
            self.step(context, branch, &methods.compensation).await?;
        }
        Ok(ROLLED_BACK.to_owned())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let address =
        arguments.next().context("usage: peer-restate ADDRESS PARTICIPANT PARTICIPANT PARTICIPANT")?;
    let connect =
        |address: String| anyhow::Ok(Address::from_shared(address)?.tcp_nodelay(true).connect_lazy());
    let participants = arguments.map(connect).collect::<Result<Vec<_>>>()?;
    if participants.len() != BRANCHES {
        bail!("{BRANCHES} participants, not {}", participants.len());
    }
    let participants = Participants(participants);
    let endpoint = Endpoint::builder().bind(Saga(participants.clone())).bind(Branch(participants)).build();
    let service = HyperEndpoint::new(endpoint);
    let listener = tokio::net::TcpListener::bind(&address).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        // The SDK's own server leaves Nagle's algorithm on; with it an idle saga of three steps takes 136 ms.
        socket.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let connection = http2::Builder::new(TokioExecutor::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(socket), service).await {
                eprintln!("peer-restate: a connection ended: {error}");
            }
        });
    }
}
