//! A TCP proxy on loopback that can be told to break: the wire between one coordinator and Postgres.
//!
//! # Invariants
//! * What a black hole has swallowed comes out again, in order, once it is healed: as TCP does after a
//!   partition. So a commit may arrive long after its sender was given up.
//! * A refusing wire has also closed every connection that was there.
//!
//! # Not here
//! Refusal of the connection itself: a cut wire accepts and closes at once, so that its port stays ours.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes carried at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Carries everything.
    Sound,
    /// Closes what is there and whoever comes.
    Refusing,
    /// Accepts, and carries nothing either way.
    BlackHole,
}

/// A running proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
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
        let server = tokio::spawn(accept(listener, target, Arc::clone(&wire)));
        Ok(Self { address, wire, server })
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        // Connections live in tasks of their own.
        self.set(Wire::Refusing);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, wire: Arc<watch::Sender<Wire>>) {
    // An error here (too many open files) passes; the next look shows whether it has.
    loop {
        if let Ok((near, _)) = listener.accept().await {
            tokio::spawn(carry(near, target, wire.subscribe()));
        }
    }
}

async fn carry(near: TcpStream, target: SocketAddr, mut wire: watch::Receiver<Wire>) {
    if until_sound(&mut wire).await.is_err() {
        return;
    }
    // Whatever fails here, both ends see a closed connection.
    let Ok(far) = TcpStream::connect(target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut cut = wire.clone();
    tokio::select! {
        () = pump(near_read, far_write, wire.clone()) => {}
        () = pump(far_read, near_write, wire) => {}
        _ = cut.wait_for(|wire| *wire == Wire::Refusing) => {}
    }
}

/// Carries one way until either end closes or the wire refuses.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
) {
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    loop {
        let Ok(read) = from.read(&mut chunk).await else { return };
        if read == 0 || until_sound(&mut wire).await.is_err() {
            return;
        }
        let Some(bytes) = chunk.get(..read) else { return };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Waits while the wire is a black hole; an error if it refuses.
async fn until_sound(wire: &mut watch::Receiver<Wire>) -> Result<(), ()> {
    match wire.wait_for(|wire| *wire != Wire::BlackHole).await.map(|wire| *wire) {
        Ok(Wire::Sound) => Ok(()),
        Ok(Wire::Refusing | Wire::BlackHole) | Err(_) => Err(()),
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
}
