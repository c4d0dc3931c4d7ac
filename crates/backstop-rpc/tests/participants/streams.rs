//! What HTTP/2 itself asks of a client: windows, the limit of streams, goodbyes, and the end of streams and connections.

use crate::fixture::LONG;
use crate::frames::{DATA, Frames, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, RST_STREAM, by_frames, next};
use crate::peer::{Peer, answer_ok, answer_status, drive, framed, grpc_headers, hear};
use crate::world::{DEADLINE, LOST, World, evidence, participant, reply, said};
use backstop_core::{Code, Evidence, NotSent, Outcome, Phase, StepName};
use backstop_engine::ports::participants::Participants;
use backstop_rpc::participants::ParticipantSettings;
use bytes::Bytes;
use h2::{Reason, server};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Long enough to be reached only by calls that nobody answers.
const SHORT: Duration = Duration::from_millis(400);

/// One connection only, and a request of so many bytes.
fn world(peer: &Peer, bytes: usize) -> World {
    let settings = ParticipantSettings { connections_per_endpoint: 1, ..Default::default() };
    let mut world = World::new(settings, &[peer.endpoint()]);
    let mut started = (*world.saga.started).clone();
    started.payloads.insert(StepName::parse("debit").unwrap(), large(bytes));
    world.saga.started = Arc::new(started);
    world
}

fn large(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn a_request_larger_than_the_peers_window_arrives_whole() {
    for (window, bytes) in [(65_535, (4 << 20) - 5), (1_000, 100_000), (10, 1_000)] {
        let peer = Peer::raw(move |stream, seen| async move {
            let mut builder = server::Builder::new();
            builder.initial_window_size(window);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    hear(request, &seen).await;
                    answer_ok(respond, &reply());
                });
            }
        })
        .await;
        let got = world(&peer, bytes).call(LONG).await;
        assert_eq!(got.outcome, Outcome::Done(reply()), "window {window}");
        let heard = peer.seen.requests.lock().unwrap();
        assert!(heard[0].body == framed(&large(bytes)), "window {window}: the request is another");
    }
}

#[tokio::test]
async fn a_peer_that_never_opens_its_window_leaves_a_doubt_and_its_stream_is_reset() {
    for bytes in [10, 100_000] {
        let (peer, mut told) = by_frames(|stream, tell| async move {
            let mut frames = Frames::accept(stream, &[(INITIAL_WINDOW_SIZE, 0)]).await?;
            // What was sent before the settings came is no business of this test: it sends its own after them.
            let first = frames.next_of(RST_STREAM).await?.stream;
            while let Some(frame) = frames.next().await {
                if frame.stream > first {
                    tell.send((frame.kind, frame.payload)).ok()?;
                }
            }
            Some(())
        })
        .await;
        let world = world(&peer, bytes);
        assert_eq!(evidence(&world.call(SHORT).await), DEADLINE);
        assert_eq!(evidence(&world.call(SHORT).await), DEADLINE);
        let mut kinds = Vec::new();
        loop {
            let (kind, payload) = next(&mut told).await;
            kinds.push(kind);
            if kind == RST_STREAM {
                assert_eq!(payload, u32::from(Reason::CANCEL).to_be_bytes().as_slice());
                break;
            }
        }
        assert!(!kinds.contains(&DATA), "there was no room for any: {kinds:?}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_while_the_request_goes_out_counts_and_the_rest_is_withdrawn() {
    let (noticed, mut told) = mpsc::unbounded_channel();
    let peer = Peer::raw(move |stream, _| {
        let noticed = noticed.clone();
        async move {
            let Ok(mut connection) = server::handshake(stream).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                answer_status(respond, &[("grpc-status", "9")]);
                let noticed = noticed.clone();
                tokio::spawn(async move {
                    // Reads all that comes, and never makes room for more.
                    let mut body = request.into_body();
                    let ended = loop {
                        match body.data().await {
                            Some(Ok(_)) => {}
                            ended => break ended.and_then(Result::err).and_then(|error| error.reason()),
                        }
                    };
                    let _ = noticed.send(ended);
                });
            }
        }
    })
    .await;
    let world = world(&peer, 1 << 20);
    for _ in 0..3 {
        assert_eq!(evidence(&world.call(LONG).await), said(Code::FailedPrecondition));
        assert_eq!(next(&mut told).await, Some(Reason::CANCEL));
    }
    assert_eq!(peer.seen.connections(), 1);
}

#[tokio::test]
async fn a_peer_that_answers_and_then_asks_for_no_more_of_the_request_has_answered() {
    let (peer, _told) = by_frames(|stream, _: mpsc::UnboundedSender<()>| async move {
        let mut frames = Frames::accept(stream, &[]).await?;
        while let Some(frame) = frames.next().await {
            if frame.kind == DATA && !frame.ends() {
                frames.answer(frame.stream, &reply(), "0").await;
                frames.reset(frame.stream, Reason::NO_ERROR).await;
                // The rest of the window may still come.
                while !frames.next().await?.payload.is_empty() {}
            }
        }
        Some(())
    })
    .await;
    let got = world(&peer, 1 << 20).call(LONG).await;
    assert_eq!(got.outcome, Outcome::Done(reply()));
}

#[tokio::test]
async fn a_stream_that_ends_without_blame_before_its_status_is_no_answer() {
    for reason in [Reason::NO_ERROR, Reason::CANCEL] {
        let (peer, _told) = by_frames(move |stream, _: mpsc::UnboundedSender<()>| async move {
            let mut frames = Frames::accept(stream, &[]).await?;
            let stream = frames.request().await?;
            frames.begin_answer(stream, &reply()).await;
            frames.reset(stream, reason).await;
            frames.next().await.map(|_| ())
        })
        .await;
        assert_eq!(evidence(&world(&peer, 10).call(LONG).await), Evidence::BadAnswer);
    }
}

/// A peer that takes one call at a time and answers it when it is told so; the client knows that by a first call, which was
/// answered at once.
async fn one_at_a_time() -> (Peer, World, mpsc::UnboundedReceiver<u32>, Arc<tokio::sync::Notify>) {
    let open = Arc::new(tokio::sync::Notify::new());
    let gate = open.clone();
    let (peer, told) = by_frames(move |stream, tell| {
        let gate = gate.clone();
        async move {
            let mut frames = Frames::accept(stream, &[(MAX_CONCURRENT_STREAMS, 1)]).await?;
            let first = frames.request().await?;
            frames.answer(first, &reply(), "0").await;
            loop {
                let stream = frames.request().await?;
                tell.send(stream).ok()?;
                // Whatever else comes before it is answered is told too.
                loop {
                    tokio::select! {
                        () = gate.notified() => break,
                        frame = frames.next_of(DATA) => tell.send(frame?.stream).ok()?,
                    }
                }
                frames.answer(stream, &reply(), "0").await;
            }
        }
    })
    .await;
    let world = world(&peer, 10);
    assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
    (peer, world, told, open)
}

#[tokio::test]
async fn a_call_beyond_the_peers_limit_is_sent_when_another_ends() {
    let (peer, world, mut told, open) = one_at_a_time().await;
    let (first, second) = (world.call(LONG), world.call(LONG));
    let mut second = std::pin::pin!(second);
    let watch = async {
        assert_eq!(next(&mut told).await, 3);
        tokio::select! {
            biased;
            _ = &mut second => panic!("nobody has answered it"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        assert!(told.is_empty(), "the peer takes one at a time");
        open.notify_one();
    };
    let (ended, ()) = tokio::join!(first, watch);
    assert_eq!(ended.outcome, Outcome::Done(reply()));
    let answer = async {
        assert_eq!(next(&mut told).await, 5);
        open.notify_one();
    };
    let (ended, ()) = tokio::join!(second, answer);
    assert_eq!(ended.outcome, Outcome::Done(reply()));
    assert_eq!(peer.seen.connections(), 1);
}

#[tokio::test]
async fn a_call_whose_time_is_over_before_a_stream_is_free_is_never_sent() {
    let (peer, world, mut told, open) = one_at_a_time().await;
    let first = world.call(LONG);
    let watch = async {
        assert_eq!(next(&mut told).await, 3);
        let (a, b, c, d, e, f) = tokio::join!(
            world.call(SHORT),
            world.call(SHORT),
            world.call(SHORT),
            world.call(SHORT),
            world.call(SHORT),
            world.call(SHORT),
        );
        for late in [a, b, c, d, e, f] {
            assert_eq!(evidence(&late), Evidence::NotSent(NotSent::NoPermit));
        }
        open.notify_one();
    };
    let (ended, ()) = tokio::join!(first, watch);
    assert_eq!(ended.outcome, Outcome::Done(reply()));
    // What comes next on the wire is the last call, and nothing of those that waited. A peer that is merely busy is not taken
    // for silent: that would be a way around its limit.
    let last = world.call(LONG);
    let answer = async {
        assert_eq!(next(&mut told).await, 5);
        open.notify_one();
    };
    let (ended, ()) = tokio::join!(last, answer);
    assert_eq!(ended.outcome, Outcome::Done(reply()));
    assert_eq!(peer.seen.connections(), 1);
}

#[tokio::test]
async fn a_call_that_has_no_time_left_is_not_sent() {
    let (_peer, world, mut told, open) = one_at_a_time().await;
    let late = world.call(Duration::ZERO).await;
    assert_eq!(evidence(&late), Evidence::NotSent(NotSent::NoPermit));
    let answer = async {
        assert_eq!(next(&mut told).await, 3, "the one before has taken no stream");
        open.notify_one();
    };
    let (ended, ()) = tokio::join!(world.call(LONG), answer);
    assert_eq!(ended.outcome, Outcome::Done(reply()));
}

#[tokio::test]
async fn answers_that_come_after_their_calls_were_given_up_cost_no_other_call() {
    // More than h2 bears by itself, in which each would count.
    const LATE: usize = 1_200;
    let (peer, mut told) = by_frames(|stream, tell| async move {
        let mut frames = Frames::accept(stream, &[(MAX_CONCURRENT_STREAMS, 10_000)]).await?;
        let first = frames.request().await?;
        frames.answer(first, &reply(), "0").await;
        let mut given_up = Vec::new();
        while given_up.len() < LATE {
            given_up.push(frames.next_of(RST_STREAM).await?.stream);
        }
        for stream in given_up {
            frames.answer(stream, &reply(), "0").await;
        }
        tell.send(()).ok()?;
        let last = frames.request().await?;
        frames.answer(last, &reply(), "0").await;
        frames.next().await.map(|_| ())
    })
    .await;
    let settings =
        ParticipantSettings { connections_per_endpoint: 1, silent_calls_max: u32::MAX, ..Default::default() };
    let world = World::new(settings, &[peer.endpoint()]);
    // By its answer the client knows the settings.
    assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
    let late = (0..LATE).map(|_| world.call(SHORT));
    for late in futures::future::join_all(late).await {
        assert_eq!(evidence(&late), DEADLINE);
    }
    next(&mut told).await;
    assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
    assert_eq!(peer.seen.connections(), 1);
}

#[tokio::test]
async fn a_call_that_waits_for_a_stream_goes_elsewhere_when_the_peer_goes_away() {
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (peer, mut told) = by_frames(move |stream, tell| {
        let number = connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            let mut frames = Frames::accept(stream, &[(MAX_CONCURRENT_STREAMS, 1)]).await?;
            let mut stream = frames.request().await?;
            if number == 0 {
                // By its answer the client knows the settings too.
                frames.answer(stream, &reply(), "0").await;
                stream = frames.request().await?;
                tell.send(()).ok()?;
            }
            if number == 0 {
                // The second call waits by now, or will find the connection closing.
                tokio::time::sleep(Duration::from_millis(50)).await;
                frames.go_away(stream).await;
                // The first call stays under way.
                frames.next_of(RST_STREAM).await?;
            }
            frames.answer(stream, &reply(), "0").await;
            frames.next().await.map(|_| ())
        }
    })
    .await;
    let world = world(&peer, 10);
    assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
    let first = world.call(LONG);
    let mut first = std::pin::pin!(first);
    tokio::select! {
        _ = &mut first => panic!("nobody answers it"),
        _ = next(&mut told) => {}
    }
    let second = tokio::select! {
        _ = &mut first => panic!("nobody answers it"),
        second = world.call(LONG) => second,
    };
    assert_eq!(second.outcome, Outcome::Done(reply()));
    assert_eq!(peer.seen.connections(), 2);
}

#[tokio::test]
async fn a_goodbye_leaves_earlier_calls_alone_and_later_ones_in_doubt() {
    let (peer, _told) = by_frames(|stream, _: mpsc::UnboundedSender<()>| async move {
        let mut frames = Frames::accept(stream, &[]).await?;
        let (first, second) = (frames.request().await?, frames.request().await?);
        frames.go_away(first.min(second)).await;
        // Calls that are cut off say no more, so this is the client's answer to nothing else.
        tokio::time::sleep(Duration::from_millis(50)).await;
        frames.answer(first.min(second), &reply(), "0").await;
        frames.next().await.map(|_| ())
    })
    .await;
    let world = world(&peer, 10);
    let (first, second) = tokio::join!(world.call(LONG), world.call(LONG));
    assert_eq!(first.outcome, Outcome::Done(reply()));
    assert_eq!(evidence(&second), LOST, "what the peer says of it is no proof");
}

#[tokio::test]
async fn a_reply_beyond_the_limit_is_reset_and_not_read_on() {
    let (noticed, mut told) = mpsc::unbounded_channel();
    let peer = Peer::answering(move |mut respond| {
        let noticed = noticed.clone();
        tokio::spawn(async move {
            let mut body = respond.send_response(grpc_headers(), false).unwrap();
            let mut sent = 0;
            loop {
                body.reserve_capacity(16 << 10);
                match poll_fn(|cx| body.poll_capacity(cx)).await {
                    Some(Ok(room)) => {
                        sent += room;
                        body.send_data(vec![0; room].into(), false).unwrap();
                    }
                    _ => break,
                }
            }
            let reason = poll_fn(|cx| body.poll_reset(cx)).await.unwrap();
            let _ = noticed.send((reason, sent));
        });
    })
    .await;
    // Held to the end: closing the connection would tell the peer as much.
    let world = world(&peer, 10);
    assert_eq!(evidence(&world.call(LONG).await), Evidence::BadAnswer);
    let (reason, sent) = next(&mut told).await;
    assert_eq!(reason, Reason::CANCEL);
    assert!(sent < 16 << 20, "{sent} bytes");
}

#[tokio::test]
async fn replies_of_many_windows_in_sum_are_read_on_one_connection() {
    let large: Bytes = [b"\x0a\x80\x80\x80\x01".as_slice(), &vec![b'x'; 2 << 20]].concat().into();
    let answer = large.clone();
    let peer = Peer::answering(move |respond| answer_ok(respond, &answer)).await;
    let world = world(&peer, 10);
    for _ in 0..4 {
        let ended = futures::future::join_all((0..4).map(|_| world.call(LONG))).await;
        assert!(ended.iter().all(|reply| reply.outcome == Outcome::Done(large.clone())));
    }
    assert_eq!(peer.seen.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_nobody_holds_any_more_is_closed() {
    let (noticed, mut told) = mpsc::unbounded_channel();
    let peer = Peer::after_request(move |respond, connection| {
        let noticed = noticed.clone();
        async move {
            answer_ok(respond, &reply());
            drive(connection).await;
            let _ = noticed.send(());
        }
    })
    .await;
    let world = world(&peer, 10);
    assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()));
    assert!(told.is_empty(), "it is held for the next call");
    world.client.set(&participant(&[]));
    next(&mut told).await;
}

#[tokio::test]
async fn a_dropped_call_that_waits_for_a_stream_leaves_its_place_to_the_next() {
    let (_peer, world, mut told, open) = one_at_a_time().await;
    let first = world.call(LONG);
    let watch = async {
        assert_eq!(next(&mut told).await, 3);
        let dropped = tokio::time::timeout(Duration::from_millis(20), world.call(LONG)).await;
        assert!(dropped.is_err());
        let third = world.call(LONG);
        let release = async {
            open.notify_one();
            assert_eq!(next(&mut told).await, 5);
            open.notify_one();
        };
        tokio::join!(third, release).0
    };
    let (first, third) = tokio::join!(first, watch);
    assert_eq!((first.outcome, third.outcome), (Outcome::Done(reply()), Outcome::Done(reply())));
}

#[tokio::test]
async fn what_gets_its_stream_only_after_the_lease_does_not_go_out() {
    // Nothing goes out in its last half second.
    const LEASE: Duration = Duration::from_millis(900);
    let (_peer, world, mut told, open) = one_at_a_time().await;
    let first = world.call(LONG);
    let watch = async {
        assert_eq!(next(&mut told).await, 3);
        let release = async {
            tokio::time::sleep(LEASE).await;
            open.notify_one();
        };
        tokio::join!(world.phase_within(Phase::Action, LONG, LEASE), release).0
    };
    let (first, late) = tokio::join!(first, watch);
    assert_eq!(first.outcome, Outcome::Done(reply()));
    assert_eq!(evidence(&late), Evidence::NotSent(NotSent::Withdrawn));
    assert!(told.is_empty());
}
