//! The one task of a connection, and what it shares with the calls on it: how many streams the peer takes at once, and whether
//! it is still there.
//!
//! # Invariants
//! * No more calls are under way than the peer allows, as soon as its word is read. Where it lowers its limit, calls that end make
//!   no room until it is kept.
//! * Who waits for a stream is told when the connection takes no more, even while others end their calls on it.
//! * The peer is pinged only while calls are under way, and at most once in an interval in which it said nothing
//!   (`tests/participants/keepalive.rs`).
//! * A connection that nobody holds any more ends, also where the peer takes nothing of what is left to say.
//!
//! # Not here
//! What is sent: `super::wire`.

use super::wire::{Pings, Wire};
use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// What a connection's task and the calls on it share.
#[derive(Debug)]
pub(super) struct Line {
    /// Streams that may be opened now. Closed with the connection.
    free: Semaphore,
    /// Calls that have to end without making room, since the peer lowered its limit.
    owed: AtomicUsize,
    under_way: AtomicUsize,
    waiting: AtomicUsize,
    /// The peer has said something since the task last looked.
    heard: AtomicBool,
    /// The last holder of the connection is gone. h2 would tell the task so only if nothing waits to be written.
    abandoned: Notify,
}

impl Line {
    pub(super) fn new(streams_max: usize) -> Self {
        Self {
            free: Semaphore::new(streams_max),
            owed: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            abandoned: Notify::new(),
        }
    }

    /// Nobody holds the connection any more.
    pub(super) fn abandon(&self) {
        self.abandoned.notify_one();
    }

    /// The right to open one stream, in the order in which it was asked for; none if the connection takes no more.
    pub(super) async fn slot(&self, is_open: impl Fn() -> bool) -> Option<Slot<'_>> {
        loop {
            let permit = match self.free.try_acquire() {
                Ok(permit) => permit,
                Err(_) => {
                    let _waiting = Waiting::new(&self.waiting);
                    // Counted first and asked then: the task looks after the waiting once it has read that the peer goes away.
                    if !is_open() {
                        return None;
                    }
                    self.free.acquire().await.ok()?
                }
            };
            permit.forget();
            // Room that was made at the very moment in which the peer lowered its limit is none.
            if self.pay(1) == 0 {
                self.under_way.fetch_add(1, Ordering::Relaxed);
                return Some(Slot(self));
            }
        }
    }

    /// Follows the peer's limit from one value to the next.
    fn follow(&self, before: usize, now: usize) {
        if now > before {
            let more = now - before;
            let paid = self.pay(more);
            self.free.add_permits(more - paid);
        } else {
            let fewer = before - now;
            let taken = self.free.forget_permits(fewer);
            self.owed.fetch_add(fewer - taken, Ordering::AcqRel);
        }
    }

    /// Pays so much of what is owed, or all of it; how much that was.
    fn pay(&self, most: usize) -> usize {
        if self.owed.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let pay = |owed: usize| owed.checked_sub(most.min(owed));
        let owed = self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, pay);
        most.min(owed.unwrap_or(0))
    }
}

/// The right to one stream; it passes on to the next call when this is dropped.
#[derive(Debug)]
pub(super) struct Slot<'a>(&'a Line);

impl Slot<'_> {
    /// The peer has said something.
    pub(super) fn heard(&self) {
        self.0.heard.store(true, Ordering::Relaxed);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        if self.0.pay(1) == 0 {
            self.0.free.add_permits(1);
        }
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Polls a connection to its end: when the last holder and the last stream are gone, when the peer closes it, or when it does
/// not answer a ping.
pub(super) async fn drive<T>(
    mut connection: Connection<T, Bytes>,
    wire: Weak<Wire>,
    line: Arc<Line>,
    pings: Pings,
    peer: String,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let ping_pong = if pings.interval.is_zero() { None } else { connection.ping_pong() };
    let mut keepalive = ping_pong.map(|ping_pong| Keepalive::new(ping_pong, pings));
    let mut streams_max = super::wire::STREAMS_BEFORE_SETTINGS;
    let mut abandoned = pin!(line.abandoned.notified());
    let mut goodbye: Option<Pin<Box<Sleep>>> = None;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(ended.err().map(|error| error.to_string()));
        }
        let allowed = connection.max_concurrent_send_streams().min(Semaphore::MAX_PERMITS);
        if allowed != streams_max {
            line.follow(streams_max, allowed);
            streams_max = allowed;
        }
        if line.waiting.load(Ordering::SeqCst) > 0 && wire.upgrade().is_none_or(|wire| !wire.is_open()) {
            line.free.close();
        }
        if goodbye.is_none() && abandoned.as_mut().poll(cx).is_ready() {
            // Nobody waits for anything any more, so neither a deadline nor a ping would find out that it is stuck.
            goodbye = Some(Box::pin(sleep(pings.timeout)));
        }
        if goodbye.as_mut().is_some_and(|alarm| alarm.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some("it does not take our goodbye".to_owned()));
        }
        match &mut keepalive {
            Some(keepalive) => {
                keepalive.poll(cx, &line).map(|()| Some("it does not answer pings".to_owned()))
            }
            None => Poll::Pending,
        }
    })
    .await;
    // Ends the calls on it and turns new ones away; only then are those who wait sent on to another.
    drop(connection);
    line.free.close();
    if let Some(error) = ended {
        tracing::debug!(%peer, %error, "connection to a participant ended");
    }
}

/// Finds out whether a peer that says nothing is still there.
struct Keepalive {
    ping_pong: PingPong,
    pings: Pings,
    heard_at: Instant,
    alarm: Pin<Box<Sleep>>,
    state: Watch,
}

enum Watch {
    /// No call is under way.
    Idle,
    /// The peer is pinged when the alarm goes off, if it has said nothing until then.
    Listening,
    /// The connection is given up when the alarm goes off before the answer.
    Pinged,
}

impl Keepalive {
    fn new(ping_pong: PingPong, pings: Pings) -> Self {
        let alarm = Box::pin(sleep(Duration::ZERO));
        Self { ping_pong, pings, heard_at: Instant::now(), alarm, state: Watch::Idle }
    }

    /// Ready when the peer is taken for gone.
    fn poll(&mut self, cx: &mut Context<'_>, line: &Line) -> Poll<()> {
        if line.heard.load(Ordering::Relaxed) {
            line.heard.store(false, Ordering::Relaxed);
            self.heard_at = Instant::now();
        }
        loop {
            let is_idle = line.under_way.load(Ordering::Relaxed) == 0;
            match self.state {
                Watch::Idle if is_idle => return Poll::Pending,
                // After a long pause that is in the past, and the first call comes with a ping.
                Watch::Idle => self.set(Watch::Listening, self.heard_at + self.pings.interval),
                Watch::Listening => {
                    ready!(self.alarm.as_mut().poll(cx));
                    let due = self.heard_at + self.pings.interval;
                    let now = Instant::now();
                    if is_idle {
                        self.state = Watch::Idle;
                    } else if due > now {
                        self.set(Watch::Listening, due);
                    } else if self.ping_pong.send_ping(Ping::opaque()).is_ok() {
                        self.set(Watch::Pinged, now + self.pings.timeout);
                    } else {
                        // The connection is at its end, and says so itself.
                        return Poll::Pending;
                    }
                }
                Watch::Pinged => match self.ping_pong.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.heard_at = Instant::now();
                        self.state = Watch::Idle;
                    }
                    Poll::Ready(Err(_)) => return Poll::Pending,
                    Poll::Pending => {
                        ready!(self.alarm.as_mut().poll(cx));
                        // What was answered meanwhile may stand before the pong, on a slow line.
                        let due = self.heard_at + self.pings.timeout;
                        if due <= Instant::now() {
                            return Poll::Ready(());
                        }
                        self.set(Watch::Pinged, due);
                    }
                },
            }
        }
    }

    fn set(&mut self, state: Watch, alarm: Instant) {
        self.state = state;
        self.alarm.as_mut().reset(alarm);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::participants::ParticipantSettings;
    use crate::participants::wire::Unanswered;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// A connection to a peer that reads and says nothing, and the peer's end of it.
    async fn to_a_mute(buffer: usize) -> (Arc<Wire>, DuplexStream) {
        let (ours, theirs) = duplex(buffer);
        let pings = Pings { interval: INTERVAL, timeout: INTERVAL };
        let settings = ParticipantSettings::default();
        (Wire::open(ours, &settings, pings, "a mute".to_owned()).await.unwrap(), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_holds_ends_though_the_peer_takes_nothing() {
        // Room for HTTP/2's preface, which is written at once, and no more.
        let (wire, mut theirs) = to_a_mute(24).await;
        tokio::time::sleep(INTERVAL).await;
        drop(wire);
        theirs.write_all(&[0]).await.unwrap();
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(theirs.write_all(&[0]).await.is_err(), "it is still there");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_as_a_sign_of_life_also_while_a_pong_is_awaited() {
        let (wire, _theirs) = to_a_mute(1 << 16).await;
        let (one, other) = (wire.slot().await.unwrap(), wire.slot().await.unwrap());
        let request = http::Request::post("http://a.mute/").body(()).unwrap();
        let exchange = wire.send(one, request, Bytes::new()).unwrap();
        let mut answer = pin!(exchange.answer());
        // Pinged after one interval, given up after two; in between another call is answered.
        assert!(timeout(INTERVAL * 3 / 2, &mut answer).await.is_err());
        other.heard();
        assert!(timeout(INTERVAL, &mut answer).await.is_err(), "it has said something");
        assert!(matches!(answer.await, Err(Unanswered::Broken(_))));
    }

    #[tokio::test]
    async fn room_made_while_the_limit_falls_is_not_taken() {
        let line = Line::new(1);
        let a = line.slot(|| true).await;
        line.follow(1, 0);
        // As if it had ended just then, and looked for what is owed a moment before it was.
        std::mem::forget(a);
        line.free.add_permits(1);
        assert!(!free(&line).await);
        line.follow(0, 1);
        assert!(free(&line).await);
    }

    async fn free(line: &Line) -> bool {
        futures::FutureExt::now_or_never(line.slot(|| true)).is_some()
    }

    #[tokio::test]
    async fn a_peer_that_lowers_its_limit_is_followed_as_calls_end_and_one_that_raises_it_at_once() {
        let line = Line::new(3);
        let (a, b, c) = (line.slot(|| true).await, line.slot(|| true).await, line.slot(|| true).await);
        assert!(!free(&line).await, "three are under way");
        line.follow(3, 1);
        drop(a);
        assert!(!free(&line).await, "two are, and one is allowed");
        drop(b);
        assert!(!free(&line).await, "one is, and one is allowed");
        drop(c);
        let a = line.slot(|| true).await;
        assert!(a.is_some() && !free(&line).await);
        line.follow(1, 0);
        line.follow(0, 2);
        assert!(free(&line).await, "of two that are allowed one is under way");
        let b = line.slot(|| true).await;
        assert!(!free(&line).await);
        drop((a, b));
        let (a, b) = (line.slot(|| true).await, line.slot(|| true).await);
        assert!(a.is_some() && b.is_some() && !free(&line).await);
    }

    #[tokio::test]
    async fn a_limit_that_falls_while_none_is_under_way_holds_at_once() {
        let line = Line::new(100);
        line.follow(100, 1);
        let a = line.slot(|| true).await;
        assert!(a.is_some() && !free(&line).await);
        line.follow(1, Semaphore::MAX_PERMITS);
        assert!(free(&line).await);
    }
}
