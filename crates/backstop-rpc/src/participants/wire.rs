//! One HTTP/2 connection and the exchanges on it, from a caller's own task: nothing is spawned for a call.
//!
//! # Invariants
//! * [`Closing`] is said of a request of which not one byte went out, and only where that is certain: h2 refused it before it
//!   queued any of it, or its stream ended and nothing at all had been written since before it was queued
//!   (`tests/participants/storm.rs`).
//! * Once the peer has said how many streams it takes, a call waits for a free one on our side, where it is known to be unsent,
//!   and not in h2's queue, from which it would go out whenever there is a stream, whether or not it still may
//!   (`tests/participants/streams.rs`).
//! * An exchange that is dropped before its end asks for its stream to be reset before the next call takes its place.
//! * An answer that comes after its call was given up costs the connection nothing, and so none of the calls beside it
//!   (`tests/participants/streams.rs`).
//!
//! # Not here
//! Who polls the connection, keepalive, and how many streams there may be: `super::drive`. What an error means:
//! `super::evidence`.

use super::drive::{self, Line, Slot};
use super::noted::{Noted, Writes};
use super::settings::ParticipantSettings;
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, response};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// The most of one large request that is given to the connection before it has gone out.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Calls at once before the peer has said how many it takes: the least that HTTP/2 recommends to servers, so that the first
/// calls on a connection are not refused for being too many.
pub(super) const STREAMS_BEFORE_SETTINGS: usize = 100;
/// Calls given up on a connection whose answers may still come, and for how long: what comes to one of these is passed over.
const GIVEN_UP_REMEMBERED_MAX: usize = 4096;
const GIVEN_UP_REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Frames for streams that are not remembered, in a connection's whole life, before h2 takes the peer for hostile and ends
/// the connection with every call on it. By itself it would after 1,024, which a slow participant reaches in a day.
/// It bounds what a peer that reads nothing can make us queue: some 700 bytes for each.
const STRAY_FRAMES_MAX: usize = 1 << 16;
/// What frames of less than 256 bytes may lack of these, all together, before anybody reads them: replies of a few bytes, 16,000
/// at once. By itself h2 would take half of the connection's window, which is a setting.
const SMALL_FRAMES_BYTES: usize = 4 << 20;
/// A request up to here is given to the connection whole, window or no window. A longer one goes piece by piece as the peer
/// takes it: when the answer comes before that, what is left of it can still be withdrawn.
const BODY_AT_ONCE_BYTES_MAX: usize = 16 << 10;

/// Keepalive of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pings {
    /// Pause without a word from the peer, while calls are under way, before it is pinged; zero for never.
    pub(super) interval: Duration,
    /// How long the answer may take.
    pub(super) timeout: Duration,
}

/// The sending end of a connection, which lasts until the last of its holders, and the last exchange on it, are gone.
#[derive(Debug)]
pub(super) struct Wire {
    /// Only cloned and asked, never sent on: a handle that has sent a request may have to wait before it sends another.
    sender: Mutex<SendRequest<Bytes>>,
    writes: Writes,
    line: Arc<Line>,
    /// Calls in a row whose time passed without a word from the peer.
    silent: AtomicU32,
}

/// The connection takes no further request. Nothing was sent.
#[derive(Debug)]
pub(super) struct Closing;

/// Why no answer began.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nothing was sent.
    Closing,
    /// It may have been sent.
    Broken(h2::Error),
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.line.abandon();
    }
}

impl Wire {
    /// Shakes hands and spawns the task of the connection. `peer` names it in the log.
    ///
    /// # Errors
    /// What went wrong, for people. No byte of a request has been sent.
    pub(super) async fn open<T>(
        io: T,
        settings: &ParticipantSettings,
        pings: Pings,
        peer: String,
    ) -> Result<Arc<Self>, String>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        builder
            // Nothing that is pushed could be an answer to a call.
            .enable_push(false)
            .max_header_list_size(settings.reply_headers_bytes_max)
            .initial_window_size(settings.stream_window_bytes)
            .initial_connection_window_size(settings.connection_window_bytes)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
            .max_concurrent_reset_streams(GIVEN_UP_REMEMBERED_MAX)
            .reset_stream_duration(GIVEN_UP_REMEMBERED_FOR)
            .max_local_error_reset_streams(Some(STRAY_FRAMES_MAX))
            .data_frame_budget(SMALL_FRAMES_BYTES)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS);
        let (io, writes) = Noted::new(io);
        let (sender, connection) = builder.handshake(io).await.map_err(|e| e.to_string())?;
        let line = Arc::new(Line::new(STREAMS_BEFORE_SETTINGS));
        let wire = Arc::new(Self {
            sender: Mutex::new(sender),
            writes,
            line: line.clone(),
            silent: AtomicU32::new(0),
        });
        tokio::spawn(drive::drive(connection, Arc::downgrade(&wire), line, pings, peer));
        Ok(wire)
    }

    /// False once the peer has said that it is going away, or is gone.
    pub(super) fn is_open(&self) -> bool {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        // This handle has never sent anything, so it is ready at once or never again.
        matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// The peer has answered a call.
    pub(super) fn heard(&self) {
        self.silent.store(0, Ordering::Relaxed);
    }

    /// A call that was sent got no word from the peer in its time; how many have in a row.
    pub(super) fn not_heard(&self) -> u32 {
        self.silent.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// A free stream, waited for if the peer takes no more at once.
    ///
    /// # Errors
    /// [`Closing`].
    pub(super) async fn slot(&self) -> Result<Slot<'_>, Closing> {
        self.line.slot(|| self.is_open()).await.ok_or(Closing)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`Closing`].
    pub(super) fn send<'a>(
        &'a self,
        slot: Slot<'a>,
        request: Request<()>,
        body: Bytes,
    ) -> Result<Exchange<'a>, Closing> {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Before it is queued: what is written of it comes after.
        let written = self.writes.so_far();
        // h2 fails here before it has queued anything, or not at all.
        let (response, stream) = sender.send_request(request, false).map_err(|_| Closing)?;
        Ok(Exchange { upload: Upload::start(stream, body), response, writes: &self.writes, written, slot })
    }
}

/// A request that was queued, and whose answer has not begun.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    upload: Upload,
    response: ResponseFuture,
    writes: &'a Writes,
    written: u64,
    // Last: the stream is given up before its place is.
    slot: Slot<'a>,
}

impl<'a> Exchange<'a> {
    /// The beginning of the answer. The rest of the request goes out meanwhile.
    ///
    /// # Errors
    /// The stream or the connection ended without one.
    pub(super) async fn answer(self) -> Result<(response::Parts, Incoming<'a>), Unanswered> {
        // The slot first: variables go in turned order, and it is to go last.
        let Self { slot, mut upload, mut response, writes, written } = self;
        let head = poll_fn(|cx| {
            upload.poll(cx);
            Pin::new(&mut response).poll(cx)
        });
        let (parts, stream) = match head.await {
            Ok(response) => response.into_parts(),
            // It ended in the hands of the connection's task, which drops then what is queued of it, and asks the stream of bytes
            // to write as soon as it has encoded anything. The peer closed while the request was on its way to that task.
            Err(_) if writes.so_far() == written => return Err(Unanswered::Closing),
            Err(error) => return Err(Unanswered::Broken(error)),
        };
        slot.heard();
        Ok((parts, Incoming { upload, stream, unreleased: 0, is_cut: false, slot }))
    }
}

/// The rest of an answer, and of a request that is not out yet. Dropping it early resets the stream.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    upload: Upload,
    stream: RecvStream,
    unreleased: usize,
    /// The peer has ended the stream before its end.
    is_cut: bool,
    // Last, as in [`Exchange`].
    slot: Slot<'a>,
}

impl Incoming<'_> {
    /// The next piece of the body; none at its end, and where the peer ends the stream without blaming anything: what then
    /// is missing is for the reader to notice.
    ///
    /// # Errors
    /// The stream or the connection broke off.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let Self { upload, stream, unreleased, is_cut, slot } = self;
        let piece = poll_fn(|cx| {
            upload.poll(cx);
            let polled = stream.poll_data(cx);
            if polled.is_pending() && *unreleased > 0 {
                // The peer may wait for room. A reply that is all there needs none: its room comes back with the stream.
                let _ = stream.flow_control().release_capacity(std::mem::take(unreleased));
            }
            polled
        });
        match piece.await {
            Some(Ok(piece)) => {
                slot.heard();
                *unreleased += piece.len();
                Ok(Some(piece))
            }
            None => Ok(None),
            Some(Err(error)) => match error.reason() {
                Some(h2::Reason::NO_ERROR | h2::Reason::CANCEL) => {
                    *is_cut = true;
                    Ok(None)
                }
                Some(_) | None => Err(error),
            },
        }
    }

    /// The trailers, after the body.
    ///
    /// # Errors
    /// The stream or the connection broke off.
    pub(super) async fn trailers(&mut self) -> Result<Option<HeaderMap>, h2::Error> {
        if self.is_cut {
            return Ok(None);
        }
        let trailers = poll_fn(|cx| {
            self.upload.poll(cx);
            self.stream.poll_trailers(cx)
        })
        .await;
        self.slot.heard();
        trailers
    }
}

/// The sending half of a stream, with what it has not been given yet.
#[derive(Debug)]
struct Upload {
    stream: SendStream<Bytes>,
    left: Bytes,
}

impl Upload {
    fn start(stream: SendStream<Bytes>, body: Bytes) -> Self {
        let mut upload = Self { stream, left: body };
        if upload.left.len() <= BODY_AT_ONCE_BYTES_MAX {
            let body = std::mem::take(&mut upload.left);
            upload.give(body, true);
        }
        upload
    }

    /// Gives the connection what the peer's window has room for. A stream that has ended takes no more: why it ended, its
    /// answer says, and an answer counts whether or not the peer read the whole request.
    fn poll(&mut self, cx: &mut Context<'_>) {
        while !self.left.is_empty() {
            self.stream.reserve_capacity(self.left.len());
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(room))) => {
                    let piece = self.left.split_to(room.min(self.left.len()));
                    let is_last = self.left.is_empty();
                    self.give(piece, is_last);
                }
                Poll::Ready(Some(Err(_)) | None) => self.left = Bytes::new(),
                Poll::Pending => break,
            }
        }
    }

    fn give(&mut self, piece: Bytes, is_last: bool) {
        if self.stream.send_data(piece, is_last).is_err() {
            self.left = Bytes::new();
        }
    }
}
