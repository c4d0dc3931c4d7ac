//! A place for a connection to one endpoint: dialled when it is first needed, and again when it is gone.
//!
//! Dialling and sending are two phases, so that "was it sent?" needs no guessing: while there is no
//! connection, nothing can have been sent.
//!
//! # Not here
//! HTTP/2 itself: `super::wire`. Which connection a call takes: `super::pool`.

use super::address::Address;
use super::settings::ParticipantSettings;
use super::tls::Tls;
use super::wire::{Pings, Wire};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

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
    wire: Mutex<Option<Arc<Wire>>>,
    /// Held while dialling; remembers how the last try failed, for those who waited for it.
    last_failure: tokio::sync::Mutex<Option<(Instant, String)>>,
    in_flight: AtomicUsize,
}

/// A connection, and whether it was made for this very call.
pub(super) struct Ready {
    pub(super) wire: Arc<Wire>,
    pub(super) fresh: bool,
}

impl Connection {
    pub(super) fn new(address: Address, keepalive: Duration, dialling: Arc<Dialling>) -> Self {
        Self {
            address,
            keepalive,
            dialling,
            wire: Mutex::new(None),
            last_failure: tokio::sync::Mutex::new(None),
            in_flight: AtomicUsize::new(0),
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
        self.held().as_ref().is_some_and(|wire| wire.is_open())
    }

    /// A call that was sent on this wire got no word from the peer in its time.
    pub(super) fn not_heard(&self, wire: &Arc<Wire>) {
        if wire.not_heard() >= self.dialling.settings.silent_calls_max {
            // Calls under way keep their streams; the connection ends with the last of them. What was dialled in its
            // place meanwhile stays.
            let mut held = self.held();
            if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, wire)) {
                *held = None;
            }
        }
    }

    /// A live connection, dialled if there is none. Callers that come meanwhile wait for the
    /// one dial and share its failure.
    ///
    /// # Errors
    /// Why there is no connection, for people.
    pub(super) async fn ready(&self) -> Result<Ready, String> {
        if let Some(wire) = self.live() {
            return Ok(Ready { wire, fresh: false });
        }
        let came = Instant::now();
        let mut last_failure = self.last_failure.lock().await;
        if let Some(wire) = self.live() {
            return Ok(Ready { wire, fresh: true });
        }
        if let Some((_, message)) = last_failure.as_ref().filter(|(at, _)| *at >= came) {
            return Err(message.clone());
        }
        match self.dial().await {
            Ok(wire) => {
                *last_failure = None;
                *self.held() = Some(wire.clone());
                Ok(Ready { wire, fresh: true })
            }
            Err(message) => {
                let message = format!("{}: {message}", self.address);
                *last_failure = Some((Instant::now(), message.clone()));
                Err(message)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Wire>>> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Option<Arc<Wire>> {
        self.held().as_ref().filter(|wire| wire.is_open()).cloned()
    }

    async fn dial(&self) -> Result<Arc<Wire>, String> {
        let settings = &self.dialling.settings;
        let limit = settings.connect_timeout;
        let pings = Pings { interval: self.keepalive, timeout: settings.keepalive_timeout };
        let peer = self.address.to_string();
        let dialled = timeout(limit, async {
            let tcp = self.tcp().await?;
            if self.address.tls {
                let tls = self.dialling.tls.connect(&self.address.host, tcp).await?;
                Wire::open(tls, settings, pings, peer).await
            } else {
                Wire::open(tcp, settings, pings, peer).await
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
}

/// Counts a call on its connection.
pub(super) struct InFlight(Arc<Connection>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
