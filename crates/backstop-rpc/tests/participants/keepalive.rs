//! When a peer is pinged, and what is concluded when it answers neither pings nor calls.

use crate::fixture::LONG;
use crate::frames::{Frames, PING, by_frames, next};
use crate::peer::Peer;
use crate::world::{DEADLINE, LOST, World, evidence, participant, reply};
use backstop_core::Outcome;
use backstop_engine::ports::participants::Participants;
use backstop_rpc::participants::ParticipantSettings;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const INTERVAL: Duration = Duration::from_millis(60);
/// Calls beside a slow one.
const CALLS: u32 = 12;
/// Long beside the interval: what would be pinged in it, would be.
const PAUSE: Duration = Duration::from_millis(400);

async fn world<T, F, Fut>(timeout: Duration, treat: F) -> (World, Peer, mpsc::UnboundedReceiver<T>)
where
    T: Send + 'static,
    F: Fn(Frames, mpsc::UnboundedSender<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<()>> + Send + 'static,
{
    let treat = Arc::new(treat);
    let (peer, told) = by_frames(move |stream, tell| {
        let treat = treat.clone();
        async move { treat(Frames::accept(stream, &[]).await?, tell).await }
    })
    .await;
    let settings =
        ParticipantSettings { keepalive_timeout: timeout, connections_per_endpoint: 1, ..Default::default() };
    let world = World::new(settings, &[]);
    let mut registered = participant(&[peer.endpoint()]);
    registered.keepalive = INTERVAL;
    world.client.set(&registered);
    (world, peer, told)
}

#[tokio::test]
async fn a_peer_that_goes_silent_while_a_call_is_under_way_is_pinged_and_given_up() {
    let (world, peer, mut told) = world(INTERVAL, |mut frames, tell| async move {
        frames.request().await?;
        frames.next_of(PING).await?;
        tell.send(()).ok()?;
        // Read on, and never answered.
        while frames.next().await.is_some() {}
        tell.send(()).ok()
    })
    .await;
    assert_eq!(evidence(&world.call(LONG).await), LOST);
    // It was asked, and then hung up on.
    next(&mut told).await;
    next(&mut told).await;
    assert_eq!(peer.seen.connections(), 1, "the call was sent once");
}

#[tokio::test]
async fn an_idle_connection_is_not_pinged_and_after_a_long_pause_a_call_comes_with_a_ping() {
    let (world, peer, mut told) = world(LONG, |mut frames, tell| async move {
        for number in 0..3 {
            let stream = frames.request().await?;
            if number > 0 {
                let ping = frames.next_of(PING).await?;
                frames.pong(&ping).await;
            }
            frames.answer(stream, &reply(), "0").await;
            let pause = tokio::time::timeout(PAUSE, frames.next_of(PING)).await;
            tell.send(pause.is_ok()).ok()?;
        }
        Some(())
    })
    .await;
    for _ in 0..3 {
        assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
        assert!(!next(&mut told).await, "pinged while no call was under way");
    }
    assert_eq!(peer.seen.connections(), 1);
}

#[tokio::test]
async fn a_slow_peer_that_answers_pings_is_kept_and_pinged_once_an_interval() {
    let (world, peer, mut told) = world(LONG, |mut frames, tell| async move {
        let stream = frames.request().await?;
        for _ in 0..4 {
            let ping = frames.next_of(PING).await?;
            frames.pong(&ping).await;
            let answered = Instant::now();
            let next = frames.next_of(PING).await?;
            tell.send(answered.elapsed()).ok()?;
            frames.pong(&next).await;
        }
        frames.answer(stream, &reply(), "0").await;
        frames.next().await.map(|_| ())
    })
    .await;
    assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
    for _ in 0..4 {
        let pause = next(&mut told).await;
        assert!(pause >= INTERVAL, "pinged again after {pause:?}");
    }
    assert_eq!(peer.seen.connections(), 1);
}

#[tokio::test]
async fn a_peer_that_has_just_answered_is_not_pinged() {
    let (world, _peer, mut told) = world(LONG, |mut frames, tell| async move {
        let slow = frames.request().await?;
        // When an answer was written that the client is known to have read, since it has called again after it.
        let (mut written, mut read) = (Instant::now(), Instant::now());
        loop {
            let frame = frames.next().await?;
            if frame.kind == PING {
                tell.send(read.elapsed()).ok()?;
                frames.pong(&frame).await;
                (written, read) = (Instant::now(), Instant::now());
            } else if frame.ends() {
                read = written;
                written = Instant::now();
                frames.answer(frame.stream, &reply(), "0").await;
                if frame.stream > slow + 2 * CALLS {
                    frames.answer(slow, &reply(), "0").await;
                }
            }
        }
    })
    .await;
    let calls = async {
        for _ in 0..=CALLS {
            tokio::time::sleep(INTERVAL / 4).await;
            assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
        }
    };
    let (slow, ()) = tokio::join!(world.call(LONG), calls);
    assert_eq!(slow.outcome, Outcome::Done(reply()));
    while let Ok(pause) = told.try_recv() {
        assert!(pause >= INTERVAL, "pinged {pause:?} after an answer");
    }
}

#[tokio::test]
async fn calls_that_die_with_a_silent_connection_say_nothing_of_the_one_after_it() {
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (peer, _told) = by_frames(move |stream, _: mpsc::UnboundedSender<()>| {
        let number = connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            let mut frames = Frames::accept(stream, &[]).await?;
            loop {
                let stream = frames.request().await?;
                if number > 0 {
                    frames.answer(stream, &reply(), "0").await;
                }
            }
        }
    })
    .await;
    let settings =
        ParticipantSettings { connections_per_endpoint: 1, silent_calls_max: 3, ..Default::default() };
    let world = World::new(settings, &[peer.endpoint()]);
    let slow = async {
        let (a, b, c) = tokio::join!(world.call(PAUSE * 2), world.call(PAUSE * 2), world.call(PAUSE * 2));
        assert_eq!([a, b, c].map(|call| evidence(&call)), [DEADLINE; 3]);
    };
    let quick = async {
        let (a, b, c) = tokio::join!(world.call(PAUSE), world.call(PAUSE), world.call(PAUSE));
        assert_eq!([a, b, c].map(|call| evidence(&call)), [DEADLINE; 3]);
        // Three without a word: dialled anew.
        assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
    };
    tokio::join!(slow, quick);
    assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
    assert_eq!(peer.seen.connections(), 2);
}
