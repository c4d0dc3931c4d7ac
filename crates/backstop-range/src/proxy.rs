//! A TCP proxy on loopback that can be told to break: the wire between one coordinator and Postgres, or
//! between all coordinators and one ledger.
//!
//! # Invariants
//! * What a black hole has swallowed comes out again, in order, once it is healed: as TCP does after a
//!   partition. So a commit may arrive long after its sender was given up.
//! * A refusing wire has also closed every connection that was there.
//! * A slow wire holds each piece for its time and keeps the order; both ways are slow, each by itself.
//! * The port stays ours, also while nobody listens there.

use crate::rng::Rng;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes carried at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Pieces on their way, for each direction of a connection.
const PIECES_MAX: usize = 64;
/// Before the port is asked for again.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Carries everything.
    Sound,
    /// Closes what is there and whoever comes.
    Refusing,
    /// Accepts, and carries nothing either way.
    BlackHole,
    /// Closes what is there, and nobody listens: the kernel refuses whoever comes.
    Gone,
    /// Carries everything late: each way by `delay`, and by up to `jitter` more.
    Slow {
        /// At least so late.
        delay: Duration,
        /// At most so much later.
        jitter: Duration,
    },
}

impl Wire {
    fn carries(self) -> bool {
        matches!(self, Self::Sound | Self::Slow { .. })
    }

    fn closes(self) -> bool {
        matches!(self, Self::Refusing | Self::Gone)
    }

    /// How late a piece is.
    fn late(self, rng: &mut Rng) -> Duration {
        match self {
            Self::Slow { delay, jitter } => {
                let more = rng.below(u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX).saturating_add(1));
                delay + Duration::from_micros(more)
            }
            Self::Sound | Self::Refusing | Self::BlackHole | Self::Gone => Duration::ZERO,
        }
    }
}

/// A running proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
    target: watch::Sender<SocketAddr>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and carries to `target`.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a proxy")?;
        let address = listener.local_addr()?;
        let wire = Arc::new(watch::Sender::new(Wire::Sound));
        let target = watch::Sender::new(target);
        let server = tokio::spawn(serve(listener, address, target.subscribe(), Arc::clone(&wire)));
        Ok(Self { address, wire, target, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the wire does this.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// From now on new connections are carried there.
    pub fn carry_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        // Connections live in tasks of their own.
        self.set(Wire::Refusing);
    }
}

/// Accepts, but while nobody is to listen: then a socket that only holds the port is there instead.
async fn serve(
    mut listener: TcpListener,
    address: SocketAddr,
    target: watch::Receiver<SocketAddr>,
    wire: Arc<watch::Sender<Wire>>,
) {
    let mut watched = wire.subscribe();
    let connections = AtomicU64::new(0);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error here (too many open files) passes; the next look shows whether it has.
                if let Ok((near, _)) = accepted {
                    let seed = connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(carry(near, target.clone(), wire.subscribe(), seed));
                }
            }
            () = until(&mut watched, |wire| wire == Wire::Gone) => {
                drop(listener);
                listener = away(address, &mut watched).await;
            }
        }
    }
}

/// Holds the port while nobody listens there, and listens again afterwards.
async fn away(address: SocketAddr, wire: &mut watch::Receiver<Wire>) -> TcpListener {
    let mut held = hold(address);
    until(wire, |wire| wire != Wire::Gone).await;
    loop {
        let listening = held.and_then(|held| {
            // To listen is to ask for the port once more.
            held.set_reuseaddr(true)?;
            held.listen(BACKLOG)
        });
        match listening {
            Ok(listener) => return listener,
            // Somebody's outgoing connection may have borrowed the port; nobody is there until it is back.
            Err(_) => tokio::time::sleep(LISTEN_AGAIN_AFTER).await,
        }
        held = hold(address);
    }
}

/// Its sender is ours, so it is there.
async fn until(wire: &mut watch::Receiver<Wire>, fits: impl Fn(Wire) -> bool) {
    let _ = wire.wait_for(|wire| fits(*wire)).await;
}

fn hold(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections that linger on the port do not count; whoever else would like to have it does.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.set_reuseaddr(false)?;
    Ok(socket)
}

async fn carry(
    near: TcpStream,
    target: watch::Receiver<SocketAddr>,
    mut wire: watch::Receiver<Wire>,
    seed: u64,
) {
    if until_carrying(&mut wire).await.is_err() {
        return;
    }
    let target = *target.borrow();
    // Whatever fails here, both ends see a closed connection.
    let Ok(far) = TcpStream::connect(target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut cut = wire.clone();
    let (up, down) = (Rng::of(seed, &["up"]), Rng::of(seed, &["down"]));
    tokio::select! {
        () = pump(near_read, far_write, wire.clone(), up) => {}
        () = pump(far_read, near_write, wire, down) => {}
        _ = cut.wait_for(|wire| wire.closes()) => {}
    }
}

/// Carries one way until either end closes or the wire closes.
async fn pump(from: OwnedReadHalf, to: OwnedWriteHalf, wire: watch::Receiver<Wire>, rng: Rng) {
    let (pieces, arriving) = mpsc::channel(PIECES_MAX);
    // Both run until the writer is done: an end that was read is passed on after what came before it.
    tokio::join!(take_in(from, pieces, wire.clone(), rng), let_out(to, arriving, wire));
}

/// Reads, and says of each piece when it is due at the other end.
async fn take_in(
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    wire: watch::Receiver<Wire>,
    mut rng: Rng,
) {
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    loop {
        let read = tokio::select! {
            read = from.read(&mut chunk) => read,
            () = pieces.closed() => return,
        };
        let Ok(read) = read else { return };
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { return };
        let due = Instant::now() + wire.borrow().late(&mut rng);
        if pieces.send((due, bytes.to_vec())).await.is_err() {
            return;
        }
    }
}

/// Writes each piece when it is due and the wire carries.
async fn let_out(
    mut to: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut wire: watch::Receiver<Wire>,
) {
    while let Some((due, bytes)) = pieces.recv().await {
        // A timer rounds up to the millisecond; what is due already does not wait for one.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        if until_carrying(&mut wire).await.is_err() || to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Waits while the wire is a black hole; an error if it closes.
async fn until_carrying(wire: &mut watch::Receiver<Wire>) -> Result<(), ()> {
    match wire.wait_for(|wire| *wire != Wire::BlackHole).await.map(|wire| *wire) {
        Ok(wire) if wire.carries() => Ok(()),
        Ok(_) | Err(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_black_hole_gives_back_what_it_swallowed_and_a_refusing_wire_closes() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let mut four = [0_u8; 4];
        stream.write_all(b"one.").await.unwrap();
        stream.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"one.");

        proxy.set(Wire::BlackHole);
        stream.write_all(b"two.").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut four)).await;
        assert!(early.is_err(), "nothing passes a black hole");
        proxy.set(Wire::Sound);
        stream.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"two.");

        proxy.set(Wire::Refusing);
        // A reset is as good as an end.
        let read = stream.read(&mut four).await.unwrap_or(0);
        assert_eq!(read, 0);
    }

    #[tokio::test]
    async fn a_slow_wire_is_late_both_ways_and_keeps_the_order() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let delay = Duration::from_millis(40);
        proxy.set(Wire::Slow { delay, jitter: Duration::from_millis(10) });
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let begin = Instant::now();
        let text = b"one.two.three.";
        for piece in text.chunks(4) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut back = [0_u8; 14];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, text);
        // Never early; how late is the machine's affair.
        assert!(begin.elapsed() >= 2 * delay);
    }

    #[tokio::test]
    async fn where_nobody_listens_the_kernel_refuses_and_the_port_stays_ours() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut before = TcpStream::connect(proxy.address()).await.unwrap();
        before.write_all(b"one.").await.unwrap();
        let mut four = [0_u8; 4];
        before.read_exact(&mut four).await.unwrap();
        proxy.set(Wire::Gone);
        assert_eq!(before.read(&mut four).await.unwrap_or(0), 0, "what was there is closed");
        let refused = || async {
            let error = TcpStream::connect(proxy.address()).await.err();
            Ok(error.filter(|error| error.kind() == std::io::ErrorKind::ConnectionRefused))
        };
        crate::process::eventually("refusal", Duration::from_secs(10), refused).await.unwrap();
        assert!(TcpListener::bind(proxy.address()).await.is_err(), "nobody else gets the port");
        proxy.set(Wire::Sound);
        let again = || async {
            let Ok(mut stream) = TcpStream::connect(proxy.address()).await else { return Ok(None) };
            stream.write_all(b"two.").await?;
            let mut four = [0_u8; 4];
            stream.read_exact(&mut four).await?;
            Ok(Some(four))
        };
        let four = crate::process::eventually("a sound wire", Duration::from_secs(10), again).await.unwrap();
        assert_eq!(&four, b"two.");
    }
}
