//! One HTTP/2 connection to one endpoint: made when it is first needed, and again when it is gone.
//!
//! Dialling and sending are two phases, so that "was it sent?" needs no guessing: while there is no
//! sender, nothing can have been sent; what the sender hands back was not sent either.
//!
//! # Not here
//! Which connection a call takes: `super::pool`. What a broken call means: `super::evidence`.

use super::address::Address;
use super::codec::Frame;
use super::settings::ParticipantSettings;
use super::tls::Tls;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

/// Most bytes of headers and trailers taken from a peer. hyper's default of 16 KiB would turn a refusal
/// with large details into a protocol error of our own.
const HEADERS_BYTES_MAX: u32 = 128 << 10;
/// So many calls in a row may pass their deadline without a sign of life before the connection is taken
/// for dead and the next call dials anew. Without it a host that vanished would swallow calls until TCP
/// gives up, a quarter of an hour later.
const SILENT_CALLS_MAX: u32 = 5;

/// What dialling needs besides the address.
#[derive(Debug)]
pub(super) struct Dialling {
    pub(super) settings: ParticipantSettings,
    pub(super) tls: Tls,
}

/// A place for a connection.
#[derive(Debug)]
pub(super) struct Connection {
    address: Address,
    keepalive: Duration,
    dialling: Arc<Dialling>,
    sender: Mutex<Option<SendRequest<Frame>>>,
    /// Held while dialling; remembers how the last try failed, for those who waited for it.
    last_failure: tokio::sync::Mutex<Option<(Instant, String)>>,
    in_flight: AtomicUsize,
    silent: AtomicU32,
}

/// A sender, and whether it was made for this very call.
pub(super) struct Ready {
    pub(super) sender: SendRequest<Frame>,
    pub(super) fresh: bool,
}

impl Connection {
    pub(super) fn new(address: Address, keepalive: Duration, dialling: Arc<Dialling>) -> Self {
        Self {
            address,
            keepalive,
            dialling,
            sender: Mutex::new(None),
            last_failure: tokio::sync::Mutex::new(None),
            in_flight: AtomicUsize::new(0),
            silent: AtomicU32::new(0),
        }
    }

    /// Calls on it now.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one call for as long as the guard lives.
    pub(super) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// True if a call would not have to dial.
    pub(super) fn is_open(&self) -> bool {
        self.held().as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// The peer has said something.
    pub(super) fn heard(&self) {
        self.silent.store(0, Ordering::Relaxed);
    }

    /// A call's time passed without a word from the peer.
    pub(super) fn not_heard(&self) {
        if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_CALLS_MAX {
            self.heard();
            // Calls under way keep their streams; the connection ends with the last of them.
            *self.held() = None;
        }
    }

    /// The sender of a live connection, dialled if there is none. Callers that come meanwhile wait for the
    /// one dial and share its failure.
    ///
    /// # Errors
    /// Why there is no connection, for people.
    pub(super) async fn ready(&self) -> Result<Ready, String> {
        if let Some(sender) = self.live() {
            return Ok(Ready { sender, fresh: false });
        }
        let came = Instant::now();
        let mut last_failure = self.last_failure.lock().await;
        if let Some(sender) = self.live() {
            return Ok(Ready { sender, fresh: true });
        }
        if let Some((_, message)) = last_failure.as_ref().filter(|(at, _)| *at >= came) {
            return Err(message.clone());
        }
        match self.dial().await {
            Ok(sender) => {
                *last_failure = None;
                *self.held() = Some(sender.clone());
                Ok(Ready { sender, fresh: true })
            }
            Err(message) => {
                let message = format!("{}: {message}", self.address);
                *last_failure = Some((Instant::now(), message.clone()));
                Err(message)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<SendRequest<Frame>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Option<SendRequest<Frame>> {
        self.held().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    async fn dial(&self) -> Result<SendRequest<Frame>, String> {
        let limit = self.dialling.settings.connect_timeout;
        let dialled = timeout(limit, async {
            let tcp = self.tcp().await?;
            if self.address.tls {
                let tls = self.dialling.tls.connect(&self.address.host, tcp).await?;
                self.handshake(TokioIo::new(tls)).await
            } else {
                self.handshake(TokioIo::new(tcp)).await
            }
        });
        dialled.await.unwrap_or_else(|_| Err(format!("no connection within {limit:?}")))
    }

    /// Asks DNS each time, and gives each address its share of the time: one that swallows packets must
    /// not use up what the next one needs.
    async fn tcp(&self) -> Result<TcpStream, String> {
        let found = lookup_host((self.address.host.as_str(), self.address.port)).await;
        let addresses: Vec<_> = found.map_err(|e| format!("name lookup: {e}"))?.collect();
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let share = self.dialling.settings.connect_timeout / count;
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(|e| e.to_string())?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: no answer within {share:?}"),
            }
        }
        Err(last)
    }

    async fn handshake<T>(&self, io: T) -> Result<SendRequest<Frame>, String>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS_BYTES_MAX)
            .keep_alive_interval((!self.keepalive.is_zero()).then_some(self.keepalive))
            .keep_alive_timeout(self.dialling.settings.keepalive_timeout)
            .keep_alive_while_idle(false);
        let (sender, connection) = builder.handshake(io).await.map_err(|e| e.to_string())?;
        let address = self.address.to_string();
        // Ends when the last sender is dropped and the last stream is done.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to a participant ended");
            }
        });
        Ok(sender)
    }
}

/// Counts a call on its connection.
pub(super) struct InFlight(Arc<Connection>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
