//! The connections to one participant, and the way of one unary call over them.
//!
//! A call takes the endpoint with the least in flight, and there the connection with the least in flight.
//! Where it could not be sent it goes on to the next endpoint, within the same attempt: what was certainly
//! not sent may be sent elsewhere. Each endpoint is tried once, over as many of its connections as turn out to
//! be closing and one that is new.
//!
//! # Invariants
//! * Once a request may have been sent it is not sent again here (`tests/participants/evidence.rs`).
//! * An endpoint that could not be reached is passed over, unless there is no other, until a dial in the
//!   background has reached it again: no call waits for an endpoint known to be dead (`tests/participants/pool.rs`).
//! * Memory is bounded by endpoints × connections; nothing queues here but callers that wait for one dial or for a stream.

use super::address::Address;
use super::codec::{self, Reply};
use super::connection::{Connection, Dialling};
use super::evidence::Failed;
use super::metadata;
use super::wire::{Closing, Unanswered, Wire};
use backstop_core::{Code, Evidence, NoAnswer, NotSent};
use backstop_engine::tenure::Clearance;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Version};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// First pause of an endpoint that could not be reached; doubles with each further failure.
const EJECTED_FOR_MIN: Duration = Duration::from_millis(100);
/// Longest pause of an endpoint that could not be reached.
const EJECTED_FOR_MAX: Duration = Duration::from_secs(10);
/// How long before our own deadline a participant's clock may say that the call's time is over: `grpc-timeout` is rounded
/// down, and timers go by the millisecond.
const CUT_SHORT_BEFORE: Duration = Duration::from_millis(10);

/// One unary call, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Unary {
    pub(super) path: PathAndQuery,
    /// All but `grpc-timeout`, which says what is left when it goes out.
    pub(super) headers: HeaderMap,
    pub(super) message: Bytes,
    pub(super) deadline: Instant,
    /// Whether it still may go out; none for what may go out at any time.
    pub(super) clearance: Option<Clearance>,
}

/// The endpoints of one participant.
#[derive(Debug)]
pub(super) struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    reply_bytes_max: usize,
}

/// The connections to one endpoint.
#[derive(Debug)]
struct Endpoint {
    address: Address,
    keepalive: Duration,
    connections: Vec<Arc<Connection>>,
    ejection: Mutex<Ejection>,
}

#[derive(Debug, Default)]
struct Ejection {
    failures: u32,
    until: Option<Instant>,
}

impl Pool {
    /// Connections to these addresses. Those that `former` held with the same keepalive are kept, with the
    /// calls on them; calls on the others end undisturbed, since each holds its connection.
    pub(super) fn new(
        addresses: Vec<Address>,
        keepalive: Duration,
        dialling: &Arc<Dialling>,
        former: Option<&Self>,
    ) -> Self {
        let kept = |address: &Address| {
            let mut endpoints = former.into_iter().flat_map(|pool| &pool.endpoints);
            endpoints
                .find(|endpoint| endpoint.address == *address && endpoint.keepalive == keepalive)
                .cloned()
        };
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if !endpoints.iter().any(|endpoint| endpoint.address == address) {
                let made =
                    kept(&address).unwrap_or_else(|| Arc::new(Endpoint::new(address, keepalive, dialling)));
                endpoints.push(made);
            }
        }
        Self { endpoints, reply_bytes_max: dialling.settings.reply_bytes_max }
    }

    /// Sends one call and waits for its whole reply, until the deadline.
    ///
    /// # Errors
    /// Anything but a reply with status OK, with the evidence for it.
    pub(super) async fn call(&self, call: &Unary) -> Result<Reply, Failed> {
        let framed = codec::framed(&call.message).map_err(|m| Failed::new(Evidence::NotRendered, m))?;
        let mut tried = vec![false; self.endpoints.len()];
        let mut failed = Failed::not_sent(NotSent::NoConnection, "the participant has no endpoint");
        while let Some(index) = self.pick(&tried) {
            if let Some(slot) = tried.get_mut(index) {
                *slot = true;
            }
            let Some(endpoint) = self.endpoints.get(index) else {
                break;
            };
            match endpoint.call(call, &framed, self.reply_bytes_max).await {
                Err(other) if matches!(other.evidence, Evidence::NotSent(_)) => failed = other,
                ended => return ended,
            }
            if Instant::now() >= call.deadline {
                break;
            }
        }
        Err(failed)
    }

    /// The endpoint to try next: one that is not ejected before one that is, then the least busy.
    fn pick(&self, tried: &[bool]) -> Option<usize> {
        let now = Instant::now();
        if self.endpoints.len() > 1 {
            self.endpoints.iter().filter(|endpoint| endpoint.wants_probe(now)).for_each(Endpoint::probe);
        }
        let untried =
            self.endpoints.iter().enumerate().filter(|(index, _)| tried.get(*index) == Some(&false));
        untried
            .min_by_key(|(_, endpoint)| (endpoint.ejected_until(), endpoint.in_flight()))
            .map(|(index, _)| index)
    }
}

impl Endpoint {
    fn new(address: Address, keepalive: Duration, dialling: &Arc<Dialling>) -> Self {
        let connection = || Arc::new(Connection::new(address.clone(), keepalive, dialling.clone()));
        let connections =
            (0..dialling.settings.connections_per_endpoint.max(1)).map(|_| connection()).collect();
        Self { address, keepalive, connections, ejection: Mutex::default() }
    }

    fn in_flight(&self) -> usize {
        self.connections.iter().map(|connection| connection.in_flight()).sum()
    }

    /// The least busy connection; of equals one that is open already.
    fn connection(&self) -> Option<&Arc<Connection>> {
        self.connections.iter().min_by_key(|connection| (connection.in_flight(), !connection.is_open()))
    }

    fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` sorts first: not ejected.
    fn ejected_until(&self) -> Option<Instant> {
        self.ejection().until
    }

    /// True for one caller each time that the backoff has lapsed.
    fn wants_probe(&self, now: Instant) -> bool {
        let mut ejection = self.ejection();
        let lapsed = ejection.until.is_some_and(|until| until <= now);
        if lapsed {
            ejection.until = Some(now + EJECTED_FOR_MAX);
        }
        lapsed
    }

    /// Dials in the background.
    fn probe(self: &Arc<Self>) {
        let endpoint = self.clone();
        tokio::spawn(async move {
            let Some(connection) = endpoint.connection() else {
                return;
            };
            match connection.ready().await {
                Ok(_) => endpoint.restore(),
                Err(_) => endpoint.eject(),
            }
        });
    }

    fn eject(&self) {
        let mut ejection = self.ejection();
        let wait = EJECTED_FOR_MIN.saturating_mul(1 << ejection.failures.min(16)).min(EJECTED_FOR_MAX);
        ejection.failures = ejection.failures.saturating_add(1);
        ejection.until = Some(Instant::now() + wait);
    }

    fn restore(&self) {
        *self.ejection() = Ejection::default();
    }

    async fn call(&self, call: &Unary, framed: &Bytes, reply_bytes_max: usize) -> Result<Reply, Failed> {
        // Each connection may turn out to be closing; after that one is dialled afresh.
        for _ in 0..=self.connections.len() {
            let Some(connection) = self.connection() else {
                break;
            };
            let _counted = connection.enter();
            let ready = match timeout_at(call.deadline, connection.ready()).await {
                Ok(Ok(ready)) => ready,
                Ok(Err(message)) => {
                    self.eject();
                    return Err(Failed::not_sent(NotSent::NoConnection, message));
                }
                Err(_) => {
                    let message = format!("{}: no connection within the call's time", self.address);
                    return Err(Failed::not_sent(NotSent::NoConnection, message));
                }
            };
            if ready.fresh {
                self.restore();
            }
            let mut reached = Reached::Nothing;
            let ended = self.exchange(&ready.wire, call, framed, reply_bytes_max, &mut reached);
            let ended = timeout_at(call.deadline, ended).await;
            match (&ended, reached) {
                (_, Reached::Answer) => ready.wire.heard(),
                // Its time is over, and nobody has said anything.
                (Err(_), Reached::Wire) => connection.not_heard(&ready.wire),
                // A call that only waited for a stream says nothing of the peer, but that it is busy.
                (Err(_), Reached::Nothing) | (Ok(_), Reached::Nothing | Reached::Wire) => {}
            }
            return match ended {
                Ok(Ok(Ok(reply))) => match reply.status {
                    0 => Ok(reply),
                    _ if is_cut_short(&reply, call.deadline) => Err(too_late()),
                    _ => Err(Failed::said(&reply)),
                },
                Ok(Ok(Err(failed))) => Err(failed),
                // Not one byte of it went out.
                Ok(Err(Closing)) => continue,
                Err(_) if reached == Reached::Nothing => Err(self.no_stream_in_time()),
                Err(_) => Err(too_late()),
            };
        }
        let message = format!("{}: the connection was closing each time", self.address);
        Err(Failed::not_sent(NotSent::Draining, message))
    }

    /// One exchange on one connection. What it has reached is known even when it is cut off.
    async fn exchange(
        &self,
        wire: &Wire,
        call: &Unary,
        framed: &Bytes,
        reply_bytes_max: usize,
        reached: &mut Reached,
    ) -> Result<Result<Reply, Failed>, Closing> {
        let slot = wire.slot().await?;
        // The last thing before the request goes out.
        if call.clearance.as_ref().is_some_and(|clearance| !clearance.holds()) {
            let message = "the lease ran out, or it was withdrawn, before it could go out";
            return Ok(Err(Failed::not_sent(NotSent::Withdrawn, message)));
        }
        // A timeout looks at the clock after what it limits: what comes to its turn too late would still go out.
        if Instant::now() >= call.deadline {
            return Ok(Err(self.no_stream_in_time()));
        }
        let exchange = wire.send(slot, self.request(call), framed.clone())?;
        *reached = Reached::Wire;
        let (parts, body) = match exchange.answer().await {
            Ok(answer) => answer,
            Err(Unanswered::Closing) => return Err(Closing),
            Err(Unanswered::Broken(error)) => return Ok(Err(Failed::without_headers(&error))),
        };
        *reached = Reached::Answer;
        Ok(codec::read(parts, body, reply_bytes_max).await.map_err(Failed::unread))
    }

    fn no_stream_in_time(&self) -> Failed {
        let message = format!("{}: no stream was free within the call's time", self.address);
        Failed::not_sent(NotSent::NoPermit, message)
    }

    fn request(&self, call: &Unary) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.address.uri(&call.path);
        *request.headers_mut() = call.headers.clone();
        metadata::protocol(request.headers_mut(), call.deadline.saturating_duration_since(Instant::now()));
        request
    }
}

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// It waits for a stream.
    Nothing,
    /// The connection has the request: from here on it may have been sent.
    Wire,
    /// The peer has begun to answer.
    Answer,
}

/// True for what a participant's own library makes of the time that we have given it: tonic's servers answer CANCELLED when
/// `grpc-timeout` is over, a moment before or after our own clock says the same. It is the call's end that is told
/// so, and not a word of the business code.
fn is_cut_short(reply: &Reply, deadline: Instant) -> bool {
    Code::from_number(reply.status) == Code::Cancelled && Instant::now() + CUT_SHORT_BEFORE >= deadline
}

fn too_late() -> Failed {
    Failed::new(Evidence::NoAnswer(NoAnswer::Deadline), "no answer within the call's time")
}
