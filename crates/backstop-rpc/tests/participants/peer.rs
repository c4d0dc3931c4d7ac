//! A fake peer on raw h2 and TCP that fails in every way a peer can fail.

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a peer has noticed.
#[derive(Default)]
pub(crate) struct Seen {
    /// Connections made to it.
    pub(crate) connections: AtomicUsize,
    /// Requests that reached the application, whole.
    pub(crate) requests: Mutex<Vec<Heard>>,
}

#[derive(Clone)]
pub(crate) struct Heard {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A listening peer; it ends when this is dropped.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Treats each connection as `treat` does.
    pub(crate) async fn raw<F, Fut>(treat: F) -> Self
    where
        F: Fn(TcpStream, Arc<Seen>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), treat)
    }

    pub(crate) fn on<F, Fut>(listener: TcpListener, treat: F) -> Self
    where
        F: Fn(TcpStream, Arc<Seen>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                noted.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(treat(stream, noted.clone()));
            }
        });
        Self { address, seen, task }
    }

    /// Reads each request whole, then answers it as `answer` does. The connection is driven meanwhile.
    pub(crate) async fn answering<F>(answer: F) -> Self
    where
        F: Fn(SendResponse<Bytes>) + Send + Sync + 'static,
    {
        Self::answering_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    pub(crate) fn answering_on<F>(listener: TcpListener, answer: F) -> Self
    where
        F: Fn(SendResponse<Bytes>) + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        Self::on(listener, move |stream, seen| {
            let answer = answer.clone();
            async move {
                let Ok(mut connection) = server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let (answer, seen) = (answer.clone(), seen.clone());
                    tokio::spawn(async move {
                        hear(request, &seen).await;
                        answer(respond);
                    });
                }
            }
        })
    }

    /// Takes one request whole, then does what `then` does with stream and connection.
    pub(crate) async fn after_request<F, Fut>(then: F) -> Self
    where
        F: Fn(SendResponse<Bytes>, Connection<TcpStream, Bytes>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let then = Arc::new(then);
        Self::raw(move |stream, seen| {
            let then = then.clone();
            async move {
                let Ok(mut connection) = server::handshake(stream).await else {
                    return;
                };
                let Some(Ok((request, respond))) = connection.accept().await else {
                    return;
                };
                let hearing = tokio::spawn(async move { hear(request, &seen).await });
                tokio::select! {
                    _ = hearing => {}
                    _ = connection.accept() => {}
                }
                then(respond, connection).await;
            }
        })
        .await
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Reads a request to its end and notes it.
pub(crate) async fn hear(request: Request<RecvStream>, seen: &Seen) {
    let (parts, mut body) = request.into_parts();
    let mut collected = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        collected.put_slice(&data);
    }
    let heard = Heard { path: parts.uri.path().to_owned(), headers: parts.headers, body: collected.freeze() };
    seen.requests.lock().unwrap().push(heard);
}

/// Headers of a gRPC answer.
pub(crate) fn grpc_headers() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

/// A message behind its prefix.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

pub(crate) fn trailers(entries: &[(&'static str, &str)]) -> HeaderMap {
    entries.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// Answers OK with this message.
pub(crate) fn answer_ok(mut respond: SendResponse<Bytes>, message: &[u8]) {
    let mut body = respond.send_response(grpc_headers(), false).unwrap();
    body.send_data(framed(message), false).unwrap();
    body.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
}

/// Answers with a status in trailers and nothing else.
pub(crate) fn answer_status(mut respond: SendResponse<Bytes>, entries: &[(&'static str, &str)]) {
    let mut body = respond.send_response(grpc_headers(), false).unwrap();
    body.send_trailers(trailers(entries)).unwrap();
}

/// Resets the stream.
pub(crate) fn reset(mut respond: SendResponse<Bytes>, reason: Reason) {
    respond.send_reset(reason);
}

/// Drives a connection until the other side ends it.
pub(crate) async fn drive(mut connection: Connection<TcpStream, Bytes>) {
    while let Some(Ok(_)) = connection.accept().await {}
}

/// A port on which nobody listens.
pub(crate) async fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
