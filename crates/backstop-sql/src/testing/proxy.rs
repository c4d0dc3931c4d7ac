//! A TCP proxy that fails at will: between a store and its database, or a client and a server.
//!
//! # Invariants
//! * Bytes go through in order or not at all; a cut ends both directions at once, as a lost connection does.
//! * [`Proxy::cut_after_bytes`] cuts after exactly so many more bytes of its direction, once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Most bytes passed on at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Through,
    Refuse,
    BlackHole,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Bytes until the cut, by direction.
    left: [Option<u64>; 2],
    /// What went through since the last [`Proxy::record`], by direction.
    recorded: [Vec<u8>; 2],
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    /// Counted up to cut every connection.
    cut: watch::Sender<u64>,
}

/// A running proxy. Ends with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback, in front of a server.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = State { mode: Mode::Through, left: [None, None], recorded: [Vec::new(), Vec::new()] };
        let shared = Arc::new(Shared { server, state: Mutex::new(state), cut: watch::Sender::new(0) });
        let accepting = shared.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if accepting.state().mode != Mode::Refuse {
                    tokio::spawn(pass(accepting.clone(), client));
                }
            }
        });
        Ok(Self { address, shared, listening })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a server, by way of this proxy.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        url.replace(&self.shared.server.to_string(), &self.address.to_string())
    }

    /// Cuts every connection. New ones go through.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts every connection and closes each new one at once.
    pub fn refuse(&self) {
        self.shared.state().mode = Mode::Refuse;
        self.cut();
    }

    /// Swallows all bytes from now on, of connections that are there and of new ones, and says nothing.
    pub fn black_hole(&self) {
        self.shared.state().mode = Mode::BlackHole;
    }

    /// Cuts every connection after so many more bytes of a direction.
    pub fn cut_after_bytes(&self, direction: Direction, bytes: u64) {
        self.shared.state().left[direction as usize] = Some(bytes);
    }

    /// Lets everything through again. What was swallowed stays lost, so its connections are cut.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        let swallowed = state.mode == Mode::BlackHole;
        state.mode = Mode::Through;
        state.left = [None, None];
        drop(state);
        if swallowed {
            self.cut();
        }
    }

    /// Forgets what went through, and remembers what does from now on.
    pub fn record(&self) {
        self.shared.state().recorded = [Vec::new(), Vec::new()];
    }

    /// What went through since [`Proxy::record`].
    #[must_use]
    pub fn recorded(&self, direction: Direction) -> Vec<u8> {
        self.shared.state().recorded[direction as usize].clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of these bytes may pass, and whether the connection is cut after them.
    fn admit(&self, direction: Direction, bytes: &[u8]) -> (usize, bool) {
        let mut state = self.state();
        if state.mode == Mode::BlackHole {
            return (0, false);
        }
        let slot = direction as usize;
        let (pass, cut) = match &mut state.left[slot] {
            Some(left) if *left <= bytes.len() as u64 => {
                (usize::try_from(*left).unwrap_or(bytes.len()), true)
            }
            Some(left) => {
                *left -= bytes.len() as u64;
                (bytes.len(), false)
            }
            None => (bytes.len(), false),
        };
        if cut {
            state.left[slot] = None;
        }
        state.recorded[slot].extend_from_slice(&bytes[..pass]);
        (pass, cut)
    }
}

async fn pass(shared: Arc<Shared>, mut client: TcpStream) {
    let mut cut = shared.cut.subscribe();
    let Ok(mut server) = TcpStream::connect(shared.server).await else { return };
    // Small messages must not wait for each other.
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    tokio::select! {
        _ = cut.changed() => {}
        () = pump(&shared, Direction::Up, client_reads, server_writes) => {}
        () = pump(&shared, Direction::Down, server_reads, client_writes) => {}
    }
}

async fn pump(
    shared: &Shared,
    direction: Direction,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let (pass, cut) = shared.admit(direction, &buffer[..read]);
        if to.write_all(&buffer[..pass]).await.is_err() {
            return;
        }
        if cut {
            shared.cut.send_modify(|cuts| *cuts += 1);
            return;
        }
    }
}
