//! A client that writes HTTP/2 frame by frame, for what no library would do.

use crate::world::LONG;
use bytes::{BufMut, BytesMut};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

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
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let is_answer = matches!(kind, SETTINGS | PING) && flags & ACK != 0;
            if kind == SETTINGS && !is_answer {
                self.send(SETTINGS, ACK, 0, &[]).await;
            }
            if kinds.contains(&kind) && !is_answer {
                return Some(Frame { kind, stream: u32::from_be_bytes(stream), payload });
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
            head.put_u8(0);
            for text in [name, value] {
                head.put_u8(u8::try_from(text.len()).unwrap());
                head.put_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &head).await;
        self.send(DATA, END_STREAM, stream, &[0; 5]).await;
    }

    pub(crate) async fn cancel(&mut self, stream: u32) {
        self.send(RST_STREAM, 0, stream, &u32::from(h2::Reason::CANCEL).to_be_bytes()).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_uint(payload.len() as u64, 3);
        frame.put_u8(kind);
        frame.put_u8(flags);
        frame.put_u32(stream);
        frame.put_slice(payload);
        // The server may have closed: then reading ends too.
        let _ = self.0.write_all(&frame).await;
    }
}
