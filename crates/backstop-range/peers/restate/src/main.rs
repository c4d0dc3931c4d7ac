//! The service that restate-server drives in the benchmark: a saga of three branches, each one gRPC call to a participant,
//! each durable before the saga goes on.
//!
//! Usage: `peer-restate PARTICIPANT PARTICIPANT PARTICIPANT --listen ADDRESS`, the first three as `http://HOST:PORT`.
//!
//! * `Saga/sequential`: three `ctx.run`, one after the other.
//! * `Saga/concurrent`: three durable calls of `Branch/call` at once. Restate's other languages can have several
//!   `ctx.run` under way; this SDK cannot: polled together, they wait until the server gives up after a minute.
//! * `Saga/one_step`: one `ctx.run` that makes all three calls at once. Less than what the others promise, since no branch
//!   is on record by itself: if the service dies, all three are called again. Here for the sake of the fastest figure.
//!
//! The last branch refuses if the request says so; then what succeeded is undone in reverse order, each compensation a
//! durable step, as in Restate's guide to sagas. The answer is how the saga ended. A participant's refusal is a terminal
//! error; anything else that goes wrong is tried again by Restate.

mod bytes_codec;

use anyhow::{Result, bail};
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

/// Why a call was not answered as one would wish.
#[derive(Debug)]
enum Failed {
    /// The participant says no: nothing to try again.
    Refused,
    /// Anything else: Restate tries again.
    Otherwise(String),
}

impl From<Failed> for HandlerError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused => TerminalError::new("refused").into(),
            Failed::Otherwise(why) => std::io::Error::other(why).into(),
        }
    }
}

impl Participants {
    async fn call(&self, call: Call) -> Result<(), Failed> {
        let channel = self.0.get(call.branch).cloned().ok_or_else(|| otherwise("no such branch"))?;
        let path = PathAndQuery::try_from(call.method).map_err(otherwise)?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(otherwise)?;
        match client.unary(tonic::Request::new(Bytes::new()), path, BytesCodec).await {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::Aborted) => {
                Err(Failed::Refused)
            }
            Err(status) => Err(otherwise(status)),
        }
    }
}

fn otherwise(why: impl ToString) -> Failed {
    Failed::Otherwise(why.to_string())
}

struct Branch(Participants);

#[restate_sdk::service]
impl Branch {
    #[handler]
    async fn call(&self, _context: Context<'_>, Json(call): Json<Call>) -> Result<(), HandlerError> {
        Ok(self.0.call(call).await?)
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
    async fn one_step(
        &self,
        context: Context<'_>,
        Json(methods): Json<Methods>,
    ) -> Result<String, HandlerError> {
        let calls = (0..BRANCHES).map(|branch| Call { branch, method: methods.of(branch).to_owned() });
        let calls: Vec<_> = calls.map(|call| self.0.call(call)).collect();
        let all = async {
            let mut succeeded = Vec::new();
            for answer in futures::future::join_all(calls).await {
                succeeded.push(match answer {
                    Ok(()) => true,
                    Err(Failed::Refused) => false,
                    Err(other) => return Err(other.into()),
                });
            }
            Ok(Json(succeeded))
        };
        let Json(succeeded) = context.run(|| all).await?;
        self.end(&context, &methods, succeeded).await
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
        context.run(|| async { Ok(self.0.call(call).await?) }).await
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
    let usage = "usage: peer-restate PARTICIPANT PARTICIPANT PARTICIPANT --listen ADDRESS";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addresses @ .., word, listen] = arguments.as_slice() else { bail!(usage) };
    if word != "--listen" || addresses.len() != BRANCHES {
        bail!(usage);
    }
    let connect = |address: &String| {
        anyhow::Ok(Address::from_shared(address.clone())?.tcp_nodelay(true).connect_lazy())
    };
    let participants = addresses.iter().map(connect).collect::<Result<Vec<_>>>()?;
    let participants = Participants(participants);
    let endpoint = Endpoint::builder().bind(Saga(participants.clone())).bind(Branch(participants)).build();
    let service = HyperEndpoint::new(endpoint);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening {}", listener.local_addr()?);
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
