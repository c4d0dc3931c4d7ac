//! One test for each way a connection or a stream can fail: what we conclude, and whether the application
//! had the request. What comes back and is no good answer: `answers`.

use crate::fixture::LONG;
use crate::peer::{Peer, answer_ok, answer_status, dead_endpoint, drive, framed, grpc_headers, hear, reset};
use crate::world::{DEADLINE, DRAINING, LOST, NO_CONNECTION, REFUSED, World, evidence, participant, reply};
use backstop_core::{Code, Evidence, Outcome};
use backstop_engine::ports::participants::Participants;
use backstop_rpc::participants::ParticipantSettings;
use h2::{Reason, server};
use std::future::pending;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Long enough to be reached only by calls that nobody answers.
const SHORT: Duration = Duration::from_millis(400);

fn world(peer: &Peer) -> World {
    World::new(ParticipantSettings::default(), &[peer.endpoint()])
}

/// Asserts what is concluded from a peer that had the request exactly once.
pub(crate) async fn concludes(peer: &Peer, timeout: Duration, expected: Evidence) {
    let got = world(peer).call(timeout).await;
    assert_eq!(evidence(&got), expected, "{got:?}");
    assert_eq!(peer.seen.requests(), 1, "the application had it, once");
}

#[tokio::test]
async fn a_refused_connection_sends_nothing() {
    let world = World::new(ParticipantSettings::default(), &[dead_endpoint().await]);
    assert_eq!(evidence(&world.call(LONG).await), NO_CONNECTION);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_sends_nothing() {
    let world = World::new(ParticipantSettings::default(), &["http://no-such-host.invalid:1".to_owned()]);
    assert_eq!(evidence(&world.call(LONG).await), NO_CONNECTION);
}

#[tokio::test]
async fn a_participant_that_nobody_registered_is_sent_nothing() {
    let world = World::new(ParticipantSettings::default(), &[]);
    assert_eq!(evidence(&world.call(LONG).await), NO_CONNECTION);
}

/// A listener whose queue of connections is full drops further SYNs.
async fn black_hole() -> (tokio::net::TcpListener, Vec<tokio::task::JoinHandle<()>>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..8 {
        fillers.push(tokio::spawn(async move {
            let _held = TcpStream::connect(address).await;
            pending::<()>().await;
        }));
    }
    // The queue is full once a further connection does not come about.
    while let Ok(Ok(held)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        fillers.push(tokio::spawn(async move {
            let _held = held;
            pending::<()>().await;
        }));
    }
    (listener, fillers)
}

#[tokio::test]
async fn a_black_hole_sends_nothing_whether_the_connect_timeout_or_the_call_ends_first() {
    let (listener, fillers) = black_hole().await;
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let settings = ParticipantSettings { connect_timeout: Duration::from_millis(200), ..Default::default() };
    let got = World::new(settings, std::slice::from_ref(&endpoint)).call(LONG).await;
    assert_eq!(evidence(&got), NO_CONNECTION);
    let settings = ParticipantSettings { connect_timeout: LONG, ..Default::default() };
    let got = World::new(settings, &[endpoint]).call(SHORT).await;
    assert_eq!(evidence(&got), NO_CONNECTION, "the deadline passed before there was a connection");
    fillers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_speaks_leaves_a_doubt() {
    let peer = Peer::raw(|stream, _| async move {
        let _held = stream;
        pending::<()>().await;
    })
    .await;
    assert_eq!(evidence(&world(&peer).call(SHORT).await), DEADLINE);
    assert_eq!(peer.seen.requests(), 0);
}

#[tokio::test]
async fn a_peer_that_closes_right_after_accepting_is_never_said_to_have_answered() {
    let peer = Peer::raw(|stream, _| async move { drop(stream) }).await;
    let got = evidence(&world(&peer).call(LONG).await);
    assert!([NO_CONNECTION, DRAINING, LOST].contains(&got), "{got:?}");
    assert_eq!(peer.seen.requests(), 0);
}

#[tokio::test]
async fn an_http1_peer_gives_no_answer_of_grpc() {
    let peer = Peer::raw(|mut stream: TcpStream, _| async move {
        // The preface has 24 bytes; what follows SETTINGS is the request.
        let mut read = [0; 1024];
        let mut all = Vec::new();
        while !all.windows(8).any(|window| window == b"transfer") {
            match stream.read(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(n) => all.extend_from_slice(&read[..n]),
            }
            if all.len() > 200 {
                break;
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        // Reads on until the client hangs up, so that no reset overtakes the answer.
        while matches!(stream.read(&mut read).await, Ok(n) if n > 0) {}
    })
    .await;
    assert_eq!(evidence(&world(&peer).call(LONG).await), Evidence::BadAnswer);
}

#[tokio::test]
async fn a_connection_closed_after_the_request_was_read_is_lost() {
    let peer = Peer::after_request(|respond, connection| async move { drop((respond, connection)) }).await;
    concludes(&peer, LONG, LOST).await;
}

#[tokio::test]
async fn a_connection_reset_after_the_request_was_read_is_lost() {
    let peer = Peer::raw(|stream, seen| async move {
        stream.set_zero_linger().unwrap();
        let Ok(mut connection) = server::handshake(stream).await else {
            return;
        };
        let Some(Ok((request, _respond))) = connection.accept().await else {
            return;
        };
        let hearing = tokio::spawn(async move { hear(request, &seen).await });
        tokio::select! { _ = hearing => {}, _ = connection.accept() => {} }
    })
    .await;
    concludes(&peer, LONG, LOST).await;
}

#[tokio::test]
async fn a_connection_lost_after_response_headers_is_lost() {
    let peer = Peer::after_request(|mut respond, mut connection| async move {
        let _body = respond.send_response(grpc_headers(), false).unwrap();
        // One poll writes what is queued; then the connection is dropped.
        let _ = tokio::time::timeout(Duration::from_millis(50), connection.accept()).await;
    })
    .await;
    concludes(&peer, LONG, LOST).await;
}

#[tokio::test]
async fn a_connection_lost_after_the_message_is_lost() {
    let peer = Peer::after_request(|mut respond, mut connection| async move {
        let mut body = respond.send_response(grpc_headers(), false).unwrap();
        body.send_data(framed(&reply()), false).unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(50), connection.accept()).await;
    })
    .await;
    concludes(&peer, LONG, LOST).await;
}

#[tokio::test]
async fn headers_and_then_silence_end_at_the_deadline() {
    let peer = Peer::after_request(|mut respond, connection| async move {
        let _body = respond.send_response(grpc_headers(), false).unwrap();
        drive(connection).await;
    })
    .await;
    concludes(&peer, SHORT, DEADLINE).await;
}

#[tokio::test]
async fn no_reply_ends_at_the_deadline() {
    let peer = Peer::after_request(|respond, connection| async move {
        let _held = respond;
        drive(connection).await;
    })
    .await;
    concludes(&peer, SHORT, DEADLINE).await;
}

#[tokio::test]
async fn a_participant_whose_library_answers_cancelled_when_the_time_is_over_has_not_answered() {
    let peer = Peer::answering(|respond| {
        // As tonic's servers do by `grpc-timeout`; whether ours or theirs comes first is open.
        tokio::spawn(async move {
            tokio::time::sleep(SHORT.saturating_sub(Duration::from_millis(3))).await;
            answer_status(respond, &[("grpc-status", "1"), ("grpc-message", "Timeout expired")]);
        });
    })
    .await;
    concludes(&peer, SHORT, DEADLINE).await;
    let peer = Peer::answering(|respond| answer_status(respond, &[("grpc-status", "1")])).await;
    concludes(&peer, LONG, Evidence::ParticipantSaid(Code::Cancelled)).await;
}

#[tokio::test]
async fn a_reset_stream_is_lost_unless_the_transport_refused_it() {
    for reason in [
        Reason::NO_ERROR,
        Reason::INTERNAL_ERROR,
        Reason::CANCEL,
        Reason::ENHANCE_YOUR_CALM,
        Reason::PROTOCOL_ERROR,
    ] {
        let peer = Peer::answering(move |respond| reset(respond, reason)).await;
        concludes(&peer, LONG, LOST).await;
    }
}

#[tokio::test]
async fn a_stream_that_the_transport_refused_was_not_sent() {
    // A transport refuses a stream before the application has it: this peer notes nothing.
    let peer = Peer::raw(|stream, _| async move {
        let Ok(mut connection) = server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((_, respond))) = connection.accept().await {
            reset(respond, Reason::REFUSED_STREAM);
        }
    })
    .await;
    assert_eq!(evidence(&world(&peer).call(LONG).await), REFUSED);
    assert_eq!((peer.seen.requests(), peer.seen.connections()), (0, 1));
}

#[tokio::test]
async fn a_stream_that_is_refused_after_it_answered_leaves_a_doubt() {
    let peer = Peer::after_request(|mut respond, mut connection| async move {
        let mut body = respond.send_response(grpc_headers(), false).unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(50), connection.accept()).await;
        body.send_reset(Reason::REFUSED_STREAM);
        drive(connection).await;
    })
    .await;
    concludes(&peer, LONG, LOST).await;
}

#[tokio::test]
async fn an_abrupt_goaway_is_lost() {
    let peer = Peer::after_request(|respond, mut connection| async move {
        let _held = respond;
        connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
        drive(connection).await;
    })
    .await;
    concludes(&peer, LONG, LOST).await;
}

#[tokio::test]
async fn a_graceful_goaway_disturbs_neither_the_call_under_way_nor_the_next() {
    let peer = Peer::after_request(|respond, mut connection| async move {
        connection.graceful_shutdown();
        answer_ok(respond, &reply());
        drive(connection).await;
    })
    .await;
    let world = world(&peer);
    for n in 1..=5 {
        assert_eq!(world.call(LONG).await.outcome, Outcome::Done(reply()), "call {n}");
        assert_eq!(peer.seen.requests(), n);
    }
    assert_eq!(peer.seen.connections(), 5, "each connection took one call and said goodbye");
}

#[tokio::test]
async fn a_server_that_drains_every_connection_at_once_is_never_said_to_have_had_the_request() {
    let peer = Peer::raw(|stream, seen| async move {
        let Ok(mut connection) = server::handshake(stream).await else {
            return;
        };
        connection.abrupt_shutdown(Reason::NO_ERROR);
        while let Some(Ok((request, _))) = connection.accept().await {
            hear(request, &seen).await;
        }
    })
    .await;
    let got = evidence(&world(&peer).call(LONG).await);
    assert!([DRAINING, NO_CONNECTION, LOST].contains(&got), "{got:?}");
    assert_eq!(peer.seen.requests(), 0);
}

#[tokio::test]
async fn a_frozen_peer_is_found_out_by_keepalive() {
    let peer = Peer::after_request(|respond, connection| async move {
        // Held, and not driven: pings stay unanswered.
        let _held = (respond, connection);
        pending::<()>().await;
    })
    .await;
    let settings =
        ParticipantSettings { keepalive_timeout: Duration::from_millis(100), ..Default::default() };
    let world = World::new(settings, &[]);
    let mut registered = participant(&[peer.endpoint()]);
    registered.keepalive = Duration::from_millis(100);
    world.client.set(&registered);
    assert_eq!(evidence(&world.call(LONG).await), LOST);
    assert_eq!(peer.seen.requests(), 1);
}

#[tokio::test]
async fn a_failed_tls_handshake_sends_nothing() {
    let peer = Peer::answering(|respond| answer_ok(respond, &reply())).await;
    let world = World::new(ParticipantSettings::default(), &[peer.endpoint().replace("http:", "https:")]);
    assert_eq!(evidence(&world.call(LONG).await), NO_CONNECTION);
    assert_eq!(peer.seen.requests(), 0);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_reset_and_disturbs_no_other() {
    let (noticed, mut was_reset) = tokio::sync::mpsc::unbounded_channel();
    let peer = Peer::answering(move |mut respond| {
        let noticed = noticed.clone();
        tokio::spawn(async move {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            let _ = noticed.send(reason.unwrap());
        });
    })
    .await;
    let world = world(&peer);
    let dropped = world.call(LONG);
    tokio::select! {
        _ = dropped => panic!("nobody answers"),
        () = async { while peer.seen.requests() == 0 { tokio::task::yield_now().await } } => {}
    }
    assert_eq!(was_reset.recv().await, Some(Reason::CANCEL));
    assert_eq!(evidence(&world.call(SHORT).await), DEADLINE);
    assert_eq!(peer.seen.connections(), 1, "the connection is still the first one");
}
