//! A client that writes HTTP/2 frame by frame, for what no library would do.

use crate::frame::{self, ACK, DATA, END_HEADERS, END_STREAM, Frame, SETTINGS, field};
pub(crate) use crate::frame::{HEADERS, PING, RST_STREAM};
use crate::world::LONG;
use bytes::BytesMut;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) struct Frames(TcpStream);

impl Frames {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// The next frame of one of these kinds that is no acknowledgement; none when the server has closed.
    pub(crate) async fn next_of(&mut self, kinds: &[u8]) -> Option<Frame> {
        tokio::time::timeout(LONG, self.read(kinds)).await.expect("the server neither speaks nor closes")
    }

    async fn read(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let read = frame::read(&mut self.0).await?;
            let is_answer = matches!(read.kind, SETTINGS | PING) && read.flags & ACK != 0;
            if read.kind == SETTINGS && !is_answer {
                self.send(SETTINGS, ACK, 0, &[]).await;
            }
            if kinds.contains(&read.kind) && !is_answer {
                return Some(read);
            }
        }
    }

    pub(crate) async fn pong(&mut self, ping: &Frame) {
        self.send(PING, ACK, 0, &ping.payload).await;
    }

    /// A whole call with the empty message.
    pub(crate) async fn call(&mut self, stream: u32, path: &str) {
        // `:method POST` and `:scheme http` of HPACK's static table.
        let mut head = BytesMut::from(&[0x83_u8, 0x86][..]);
        for (name, value) in [
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            field(&mut head, name, value);
        }
        self.send(HEADERS, END_HEADERS, stream, &head).await;
        self.send(DATA, END_STREAM, stream, &[0; 5]).await;
    }

    pub(crate) async fn cancel(&mut self, stream: u32) {
        self.send(RST_STREAM, 0, stream, &u32::from(h2::Reason::CANCEL).to_be_bytes()).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        frame::write(&mut self.0, kind, flags, stream, payload).await;
    }
}
