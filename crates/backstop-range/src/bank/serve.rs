//! One participant on the wire.

use super::books::{Method, Refusal, Taken};
use super::record::Visit;
use super::{Inner, Manner};
use crate::call::{Call, Outcome};
use crate::wire::bank_server::{Bank, BankServer};
use crate::wire::{Posting, Receipt};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Second handles of open connections, to close them from outside.
type Twins = Arc<Mutex<HashMap<SocketAddr, std::net::TcpStream>>>;

pub(super) struct Server {
    address: SocketAddr,
    twins: Twins,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(name: &str, inner: &Arc<Inner>) -> Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").await.context("a port for a participant")?;
        let address = socket.local_addr()?;
        let twins = Twins::default();
        let kept = Arc::clone(&twins);
        let incoming = TcpListenerStream::new(socket).map(move |accepted| {
            accepted.and_then(|stream| {
                let (stream, twin) = with_twin(stream)?;
                let mut twins = kept.lock().unwrap_or_else(PoisonError::into_inner);
                twins.insert(stream.peer_addr()?, twin);
                Ok::<_, std::io::Error>(stream)
            })
        });
        let service = Service { name: name.to_owned(), inner: Arc::clone(inner), twins: Arc::clone(&twins) };
        let router = tonic::transport::Server::builder().add_service(BankServer::new(service));
        let task = tokio::spawn(async move {
            // The range ends this task; an error here would show as missing calls.
            let _ = router.serve_with_incoming(incoming).await;
        });
        Ok(Self { address, twins, task })
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // Connections live in tasks of their own.
        for (_, twin) in self.twins.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            // One that is closed already is as it should be.
            let _ = twin.shutdown(Shutdown::Both);
        }
    }
}

/// The stream, and a second handle to shut it down from outside.
fn with_twin(stream: TcpStream) -> std::io::Result<(TcpStream, std::net::TcpStream)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let twin = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, twin))
}

struct Service {
    name: String,
    inner: Arc<Inner>,
    twins: Twins,
}

impl Service {
    async fn take(&self, method: Method, request: Request<Posting>) -> Result<Response<Receipt>, Status> {
        let posting = request.get_ref();
        let (name, text) = (format!("{method:?}"), format!("{posting:?}"));
        let call = Call::arriving(request.metadata(), &self.name, &name, text);
        let mut visit = self.inner.record.arrived(call.clone());
        let script = Arc::clone(&self.inner.script.lock().unwrap_or_else(PoisonError::into_inner));
        match script(&call) {
            Manner::AtOnce => self.answer(method, posting, &call, &mut visit),
            Manner::BooksAfter(wait) => {
                tokio::time::sleep(wait).await;
                self.answer(method, posting, &call, &mut visit)
            }
            Manner::Held(gate) => {
                gate.passed().await;
                self.answer(method, posting, &call, &mut visit)
            }
            Manner::AnswersAfter(wait) => {
                let taken = self.book(method, posting, &call, &visit);
                tokio::time::sleep(wait).await;
                reply(taken, &mut visit)
            }
            Manner::Loses => {
                self.book(method, posting, &call, &visit);
                visit.leaves(Outcome::Lost);
                let remote = request.extensions().get::<TcpConnectInfo>().and_then(|info| info.remote_addr());
                let mut twins = self.twins.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(twin) = remote.and_then(|remote| twins.remove(&remote)) {
                    // One that is closed already is as it should be.
                    let _ = twin.shutdown(Shutdown::Both);
                }
                Err(Status::new(Code::Unavailable, "nobody reads this: the connection is closed"))
            }
            Manner::PushesBack(wait) => {
                visit.leaves(Outcome::Unavailable);
                let details = ErrorDetails::with_retry_info(Some(wait));
                Err(Status::with_error_details(Code::Unavailable, "come back later", details))
            }
        }
    }

    fn book(&self, method: Method, posting: &Posting, call: &Call, visit: &Visit) -> Taken {
        let Some(books) = self.inner.books.get(&self.name) else {
            return Taken { answer: Err(Refusal::NoAccount), is_duplicate: false };
        };
        let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = books.take(method, &call.saga, &call.step, &call.key, posting);
        if taken.is_duplicate {
            visit.is_duplicate();
        }
        taken
    }

    fn answer(
        &self,
        method: Method,
        posting: &Posting,
        call: &Call,
        visit: &mut Visit,
    ) -> Result<Response<Receipt>, Status> {
        reply(self.book(method, posting, call, visit), visit)
    }
}

fn reply(taken: Taken, visit: &mut Visit) -> Result<Response<Receipt>, Status> {
    visit.leaves(if taken.answer.is_ok() { Outcome::Done } else { Outcome::Refused });
    taken.answer.map(Response::new).map_err(|refusal| {
        let (message, effect) = match refusal {
            Refusal::Insufficient => ("insufficient funds", None),
            Refusal::NoAccount => ("no such account", None),
            Refusal::UndoneAlready => ("undone already", Some("none")),
        };
        let metadata: HashMap<String, String> =
            effect.into_iter().map(|effect| ("effect".to_owned(), effect.to_owned())).collect();
        let details = ErrorDetails::with_error_info("FIN-40005", "range", metadata);
        Status::with_error_details(Code::FailedPrecondition, message, details)
    })
}

#[tonic::async_trait]
impl Bank for Service {
    async fn check(&self, request: Request<Posting>) -> Result<Response<Receipt>, Status> {
        self.take(Method::Check, request).await
    }

    async fn debit(&self, request: Request<Posting>) -> Result<Response<Receipt>, Status> {
        self.take(Method::Debit, request).await
    }

    async fn credit(&self, request: Request<Posting>) -> Result<Response<Receipt>, Status> {
        self.take(Method::Credit, request).await
    }

    async fn undo_debit(&self, request: Request<Posting>) -> Result<Response<Receipt>, Status> {
        self.take(Method::UndoDebit, request).await
    }

    async fn undo_credit(&self, request: Request<Posting>) -> Result<Response<Receipt>, Status> {
        self.take(Method::UndoCredit, request).await
    }
}
