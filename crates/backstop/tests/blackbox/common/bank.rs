//! A participant inside the test: takes any method of `testbank.v1.Bank`, writes down every request, and
//! answers by a script. Also a rollback listener, and it serves reflection.

use super::eventually;
use super::script::{Reply, Seen};
use backstop_proto::participant::v1 as listener;
use backstop_proto::participant::v1::rollback_listener_service_server::{
    RollbackListenerService, RollbackListenerServiceServer,
};
use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status};

/// The request of every method of the test bank.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Posting {
    #[prost(string, tag = "1")]
    pub(crate) account: String,
    #[prost(int64, tag = "2")]
    pub(crate) cents: i64,
    #[prost(string, tag = "3")]
    pub(crate) memo: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) tags: Vec<String>,
}

/// The reply of every method of the test bank.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Receipt {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(int64, tag = "2")]
    pub(crate) balance_cents: i64,
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A running participant; it ends when it is dropped.
pub(crate) struct Bank {
    /// The name to register it under.
    pub(crate) name: String,
    address: SocketAddr,
    inner: Arc<Inner>,
    server: tokio::task::JoinHandle<()>,
}

struct Inner {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    signals: Mutex<Vec<Signal>>,
    /// What it says to signals, if it refuses them.
    signal_refusal: Mutex<Option<Status>>,
    connections: Mutex<HashMap<SocketAddr, std::net::TcpStream>>,
}

/// A rollback signal, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Signal {
    pub(crate) arrived: u64,
    pub(crate) request: listener::OnRollbackRequest,
}

/// Counts arrivals and answers over all participants of the process: an order without a clock.
fn next_moment() -> u64 {
    static MOMENTS: AtomicU64 = AtomicU64::new(1);
    MOMENTS.fetch_add(1, Ordering::SeqCst)
}

/// The test bank's own message types, compiled when first asked for.
pub(crate) fn descriptors() -> prost_types::FileDescriptorSet {
    static SET: OnceLock<prost_types::FileDescriptorSet> = OnceLock::new();
    let compile = || {
        let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proto");
        protox::compile(["testbank/v1/bank.proto"], [proto]).expect("the test bank's proto compiles")
    };
    SET.get_or_init(compile).clone()
}

impl Bank {
    /// One that answers everything with OK.
    pub(crate) async fn start(name: &str) -> Self {
        Self::build(name, true).await
    }

    /// One that serves no reflection.
    pub(crate) async fn start_without_reflection(name: &str) -> Self {
        Self::build(name, false).await
    }

    async fn build(name: &str, reflection: bool) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let inner = Arc::new(Inner {
            script: Mutex::new(Arc::new(|_| Reply::Done)),
            seen: Mutex::default(),
            signals: Mutex::default(),
            signal_refusal: Mutex::default(),
            connections: Mutex::default(),
        });
        let connections = Arc::clone(&inner);
        let incoming = TcpListenerStream::new(socket).map(move |accepted| {
            accepted.and_then(|stream| {
                let (stream, twin) = with_twin(stream)?;
                connections.connections.lock().unwrap().insert(stream.peer_addr()?, twin);
                Ok::<_, std::io::Error>(stream)
            })
        });
        let mut router = tonic::transport::Server::builder()
            .add_service(BankService(Arc::clone(&inner)))
            .add_service(RollbackListenerServiceServer::new(Listener(Arc::clone(&inner))));
        if reflection {
            router = router
                .add_service(reflection_of_all().build_v1().unwrap())
                .add_service(reflection_of_all().build_v1alpha().unwrap());
        }
        let server = tokio::spawn(async move {
            // The end of the test aborts this task; an error here would show as missing calls.
            let _ = router.serve_with_incoming(incoming).await;
        });
        Self { name: name.to_owned(), address, inner, server }
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, answers by this.
    pub(crate) fn answers(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Arc::new(script);
    }

    /// From now on, refuses every signal so.
    pub(crate) fn refuses_signals(&self, refusal: Status) {
        *self.inner.signal_refusal.lock().unwrap() = Some(refusal);
    }

    /// Every request so far, in the order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    /// The requests of one saga.
    pub(crate) fn seen_of(&self, saga: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.saga() == saga).collect()
    }

    /// Every rollback signal so far.
    pub(crate) fn signals(&self) -> Vec<Signal> {
        self.inner.signals.lock().unwrap().clone()
    }

    /// Waits until a request is there that fits.
    pub(crate) async fn until_seen(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        eventually(&format!("{} to see {what}", self.name), || async {
            let seen = self.seen();
            seen.iter()
                .find(|seen| fits(seen))
                .cloned()
                .ok_or_else(|| format!("it saw {:?}", seen.iter().map(Seen::short).collect::<Vec<_>>()))
        })
        .await
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.server.abort();
        // Connections live in tasks of their own.
        for (_, twin) in self.inner.connections.lock().unwrap().drain() {
            // One that is closed already is as it should be.
            let _ = twin.shutdown(Shutdown::Both);
        }
    }
}

fn reflection_of_all() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure().register_file_descriptor_set(descriptors())
}

/// The stream, and a second handle to shut it down from outside.
fn with_twin(stream: TcpStream) -> std::io::Result<(TcpStream, std::net::TcpStream)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let twin = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, twin))
}

impl Inner {
    async fn handle(&self, method: String, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let remote = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let seen = Seen {
            method,
            metadata: request.metadata().clone(),
            bytes: request.get_ref().clone(),
            arrived: next_moment(),
            answered: None,
        };
        let (place, script) = {
            let mut all = self.seen.lock().unwrap();
            all.push(seen.clone());
            (all.len() - 1, Arc::clone(&self.script.lock().unwrap()))
        };
        let mut reply = script(&seen);
        loop {
            reply = match reply {
                Reply::After(gate, then) => {
                    gate.passed().await;
                    *then
                }
                Reply::Together(barrier, then) => {
                    barrier.wait().await;
                    *then
                }
                Reply::Done => {
                    let receipt = Receipt { id: format!("receipt of {}", seen.key()), balance_cents: 1 };
                    Reply::Bytes(receipt.encode_to_vec().into())
                }
                Reply::Bytes(bytes) => {
                    self.seen.lock().unwrap()[place].answered = Some(next_moment());
                    return Ok(Response::new(bytes));
                }
                Reply::Refuse(status) => {
                    self.seen.lock().unwrap()[place].answered = Some(next_moment());
                    return Err(*status);
                }
                Reply::Drop => {
                    let twin = remote.and_then(|remote| self.connections.lock().unwrap().remove(&remote));
                    // A connection that is gone already needs no closing.
                    let _ = twin.expect("the connection is known").shutdown(Shutdown::Both);
                    Reply::Hang
                }
                Reply::Hang => std::future::pending().await,
            };
        }
    }
}

#[derive(Clone)]
struct BankService(Arc<Inner>);

impl tonic::server::NamedService for BankService {
    const NAME: &'static str = "testbank.v1.Bank";
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl tower::Service<http::Request<Body>> for BankService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            let handler = tower::service_fn(move |request: Request<Bytes>| {
                let (inner, method) = (Arc::clone(&inner), method.clone());
                async move { inner.handle(method, request).await }
            });
            Ok(tonic::server::Grpc::new(RawCodec).unary(handler, request).await)
        })
    }
}

struct Listener(Arc<Inner>);

#[tonic::async_trait]
impl RollbackListenerService for Listener {
    async fn on_rollback(
        &self,
        request: Request<listener::OnRollbackRequest>,
    ) -> Result<Response<listener::OnRollbackResponse>, Status> {
        let signal = Signal { arrived: next_moment(), request: request.into_inner() };
        self.0.signals.lock().unwrap().push(signal);
        match self.0.signal_refusal.lock().unwrap().clone() {
            Some(refusal) => Err(refusal),
            None => Ok(Response::new(listener::OnRollbackResponse {})),
        }
    }
}

/// Messages as bytes, both ways.
#[derive(Debug, Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
