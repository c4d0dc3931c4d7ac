//! A peer that writes HTTP/2 frame by frame, for what no library would do.

use crate::fixture::LONG;
use crate::frame::{self, ACK, END_HEADERS, END_STREAM, field};
pub(crate) use crate::frame::{DATA, Frame, HEADERS, PING, RST_STREAM, SETTINGS};
use crate::peer::Peer;
use bytes::{BufMut, BytesMut};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver};

const PREFACE_BYTES: usize = 24;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

impl Frame {
    /// True for the last frame of its stream.
    pub(crate) fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

pub(crate) struct Frames(TcpStream);

impl Frames {
    /// Takes the client's preface and says these settings.
    pub(crate) async fn accept(mut stream: TcpStream, settings: &[(u16, u32)]) -> Option<Self> {
        stream.read_exact(&mut [0; PREFACE_BYTES]).await.ok()?;
        let mut frames = Self(stream);
        frames.settings(settings).await;
        Some(frames)
    }

    pub(crate) async fn settings(&mut self, settings: &[(u16, u32)]) {
        let mut payload = BytesMut::new();
        for (id, value) in settings {
            payload.put_u16(*id);
            payload.put_u32(*value);
        }
        self.send(SETTINGS, 0, 0, &payload).await;
    }

    /// The next frame; settings are acknowledged and left out, and so are their acknowledgements. None when the client has
    /// closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let read = frame::read(&mut self.0).await?;
            match (read.kind, read.flags & ACK) {
                (SETTINGS, 0) => self.send(SETTINGS, ACK, 0, &[]).await,
                (SETTINGS, _) => {}
                _ => return Some(read),
            }
        }
    }

    /// The next frame of this kind.
    pub(crate) async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Reads one request to its end; its stream.
    pub(crate) async fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.next().await?;
            if frame.ends() {
                return Some(frame.stream);
            }
        }
    }

    pub(crate) async fn pong(&mut self, ping: &Frame) {
        self.send(PING, ACK, 0, &ping.payload).await;
    }

    /// Says goodbye: nothing after this stream was or will be looked at.
    pub(crate) async fn go_away(&mut self, last_stream: u32) {
        let mut payload = BytesMut::new();
        payload.put_u32(last_stream);
        payload.put_u32(0);
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    /// Closes its own half; what the client sends can still be read.
    pub(crate) async fn finish(&mut self) {
        let _ = self.0.shutdown().await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, reason: h2::Reason) {
        self.send(RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes()).await;
    }

    /// An answer with this message, but for its status.
    pub(crate) async fn begin_answer(&mut self, stream: u32, message: &[u8]) {
        let mut head = BytesMut::from(&[0x88_u8][..]); // :status 200, of the static table
        field(&mut head, "content-type", "application/grpc");
        self.send(HEADERS, END_HEADERS, stream, &head).await;
        self.send(DATA, 0, stream, &crate::peer::framed(message)).await;
    }

    /// A whole answer with this message and this status.
    pub(crate) async fn answer(&mut self, stream: u32, message: &[u8], status: &str) {
        self.begin_answer(stream, message).await;
        let mut trailers = BytesMut::new();
        field(&mut trailers, "grpc-status", status);
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &trailers).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        frame::write(&mut self.0, kind, flags, stream, payload).await;
    }
}

/// A peer that writes frames, and what it tells of them.
pub(crate) async fn by_frames<T, F, Fut>(treat: F) -> (Peer, mpsc::UnboundedReceiver<T>)
where
    T: Send + 'static,
    F: Fn(TcpStream, mpsc::UnboundedSender<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<()>> + Send + 'static,
{
    let (tell, told) = mpsc::unbounded_channel();
    let treat = Arc::new(treat);
    let peer = Peer::raw(move |stream, _| {
        let (treat, tell) = (treat.clone(), tell.clone());
        async move {
            treat(stream, tell).await;
        }
    })
    .await;
    (peer, told)
}

/// What a peer tells next, within the time that any of this may take.
pub(crate) async fn next<T>(told: &mut UnboundedReceiver<T>) -> T {
    tokio::time::timeout(LONG, told.recv()).await.expect("nothing is told").expect("the peer has ended")
}
