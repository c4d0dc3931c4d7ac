//! Many calls at once to a peer that closes, says goodbye and vanishes all the time: whatever it does, no call is sent twice, and
//! none that is said not to have been sent was.

use crate::fixture::{self, LONG};
use crate::frames::{DATA, Frames, MAX_CONCURRENT_STREAMS};
use crate::peer::{Peer, framed};
use crate::world::{World, reply};
use backstop_core::{Evidence, NotSent, Outcome, Phase, StepName};
use backstop_engine::ports::participants::CallRequest;
use backstop_rpc::participants::ParticipantSettings;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const CALLS: usize = 2_000;
const AT_ONCE: usize = 16;

/// How often each request reached the peer, by its body.
type Heard = Arc<Mutex<BTreeMap<Bytes, usize>>>;

/// A generator of numbers that are all over the place, the same each time.
fn dice(state: &AtomicU64) -> u64 {
    let seed = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// Answers some requests, and ends the connection after a few in one of the ways there are.
async fn treat(mut frames: Frames, heard: Heard, state: Arc<AtomicU64>) -> Option<()> {
    let lasts = dice(&state) % 12;
    for _ in 0..lasts {
        let frame = frames.next_of(DATA).await?;
        *heard.lock().unwrap().entry(frame.payload.clone()).or_default() += 1;
        if !dice(&state).is_multiple_of(8) {
            frames.answer(frame.stream, &reply(), "0").await;
        }
        if dice(&state).is_multiple_of(16) {
            frames.settings(&[(MAX_CONCURRENT_STREAMS, 1 + u32::try_from(dice(&state) % 4).unwrap())]).await;
        }
    }
    if dice(&state).is_multiple_of(2) {
        frames.go_away(0).await;
    }
    if dice(&state).is_multiple_of(2) {
        // Closes its own half first, and hears what still comes.
        frames.finish().await;
        while let Some(frame) = frames.next().await {
            if frame.kind == DATA {
                *heard.lock().unwrap().entry(frame.payload).or_default() += 1;
            }
        }
    }
    Some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_sent_twice_and_none_that_is_said_unsent_was_whatever_the_peer_does() {
    let (heard, state) = (Heard::default(), Arc::new(AtomicU64::new(7)));
    let (noted, thrown) = (heard.clone(), state.clone());
    let peer = Peer::raw(move |stream, _| {
        let (heard, state) = (noted.clone(), thrown.clone());
        async move {
            if let Some(frames) = Frames::accept(stream, &[(MAX_CONCURRENT_STREAMS, 3)]).await {
                treat(frames, heard, state).await;
            }
        }
    })
    .await;
    let world = Arc::new(World::new(ParticipantSettings::default(), &[peer.endpoint()]));
    let callers = (0..AT_ONCE).map(|caller| {
        let world = world.clone();
        tokio::spawn(async move {
            let mut ended = Vec::new();
            for number in 0..CALLS / AT_ONCE {
                let body = Bytes::from(format!("{caller}/{number}"));
                let mut saga = world.saga.clone();
                let mut started = (*saga.started).clone();
                started.payloads.insert(StepName::parse("debit").unwrap(), body.clone());
                saga.started = Arc::new(started);
                let (call, clearance) = (fixture::attempt(0, Phase::Action), fixture::clearance(LONG));
                let timeout = std::time::Duration::from_millis(100);
                let request = CallRequest { saga: Arc::new(saga), call, timeout, clearance };
                ended.push((body, world.calls.call(request).await.outcome));
            }
            ended
        })
    });
    let mut ended = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        ended.extend(caller.await.unwrap());
    }
    let heard = heard.lock().unwrap();
    let (mut done, mut unsent) = (0, 0);
    for (body, outcome) in ended {
        let times = heard.get(&framed(&body)).copied().unwrap_or(0);
        assert!(times <= 1, "{body:?} was sent {times} times: {outcome:?}");
        match outcome {
            Outcome::Done(_) => done += 1,
            // The peer's word: it never refuses here.
            Outcome::Failed { evidence: Evidence::NotSent(NotSent::Refused), .. } => panic!("{body:?}"),
            Outcome::Failed { evidence: Evidence::NotSent(reason), .. } => {
                assert_eq!(times, 0, "{body:?} was sent, and said not to be: {reason:?}");
                unsent += 1;
            }
            Outcome::Failed { .. } => {}
        }
    }
    println!(
        "{done} of {CALLS} were answered, {unsent} not sent, over {} connections",
        peer.seen.connections()
    );
    assert!(done > 0 && peer.seen.connections() > CALLS / 100, "nothing much happened");
}
