//! What comes back from a peer that had the request: statuses, and all that is no answer of gRPC.

use crate::evidence::concludes;
use crate::fixture::LONG;
use crate::peer::{Peer, answer_ok, answer_status, framed, grpc_headers, trailers};
use crate::world::{LOST, World, details, evidence, reply, said};
use backstop_core::{Code, Evidence, Outcome};
use backstop_rpc::participants::{ParticipantSettings, WINDOW_BYTES_MAX};
use bytes::Bytes;
use http::Response;

#[tokio::test]
async fn an_http_error_without_a_grpc_status_is_no_answer_of_grpc() {
    for status in [404, 429, 502, 503, 403, 500] {
        let peer = Peer::answering(move |mut respond| {
            let response =
                Response::builder().status(status).header("content-type", "text/html").body(()).unwrap();
            let mut body = respond.send_response(response, false).unwrap();
            body.send_data(Bytes::from_static(b"<html>a proxy</html>"), true).unwrap();
        })
        .await;
        concludes(&peer, LONG, Evidence::BadAnswer).await;
    }
}

#[tokio::test]
async fn an_http_error_is_no_answer_even_if_what_follows_looks_like_success() {
    let peer = Peer::answering(|mut respond| {
        let response =
            Response::builder().status(502).header("content-type", "application/grpc").body(()).unwrap();
        let mut body = respond.send_response(response, false).unwrap();
        body.send_data(framed(&reply()), false).unwrap();
        body.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
    })
    .await;
    concludes(&peer, LONG, Evidence::BadAnswer).await;
}

#[tokio::test]
async fn an_http_error_with_a_grpc_status_is_what_the_status_says() {
    let peer = Peer::answering(|mut respond| {
        let response = Response::builder().status(503).header("grpc-status", "14").body(()).unwrap();
        respond.send_response(response, true).unwrap();
    })
    .await;
    concludes(&peer, LONG, said(Code::Unavailable)).await;
}

#[tokio::test]
async fn a_page_with_status_200_is_no_answer_of_grpc() {
    let peer = Peer::answering(|mut respond| {
        let response = Response::builder().header("content-type", "text/html").body(()).unwrap();
        let mut body = respond.send_response(response, false).unwrap();
        body.send_data(Bytes::from_static(b"<html>hello</html>"), true).unwrap();
    })
    .await;
    concludes(&peer, LONG, Evidence::BadAnswer).await;
}

#[tokio::test]
async fn a_reply_without_trailers_is_no_answer_of_grpc() {
    let peer = Peer::answering(|mut respond| {
        let mut body = respond.send_response(grpc_headers(), false).unwrap();
        body.send_data(framed(&reply()), true).unwrap();
    })
    .await;
    concludes(&peer, LONG, Evidence::BadAnswer).await;
}

#[tokio::test]
async fn trailers_without_a_usable_grpc_status_are_no_answer_of_grpc() {
    for entries in [&[("x", "y")][..], &[("grpc-status", "")], &[("grpc-status", "fine")]] {
        let peer = Peer::answering(move |mut respond| {
            let mut body = respond.send_response(grpc_headers(), false).unwrap();
            body.send_data(framed(&reply()), false).unwrap();
            body.send_trailers(trailers(entries)).unwrap();
        })
        .await;
        concludes(&peer, LONG, Evidence::BadAnswer).await;
    }
}

#[tokio::test]
async fn ok_with_no_message_or_with_two_is_no_answer_of_grpc() {
    for messages in [0, 2] {
        let peer = Peer::answering(move |mut respond| {
            let mut body = respond.send_response(grpc_headers(), false).unwrap();
            for _ in 0..messages {
                body.send_data(framed(&reply()), false).unwrap();
            }
            body.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
        })
        .await;
        concludes(&peer, LONG, Evidence::BadAnswer).await;
    }
}

#[tokio::test]
async fn a_reply_that_does_not_decode_is_no_answer() {
    // Field 1 of the reply is a string; these bytes are not UTF-8.
    let peer = Peer::answering(|respond| answer_ok(respond, b"\x0a\x02\xff\xfe")).await;
    concludes(&peer, LONG, Evidence::BadAnswer).await;
}

#[tokio::test]
async fn a_reply_beyond_the_limit_is_no_answer_and_one_at_the_limit_is() {
    let exact: Bytes = [b"\x0a\xe5\x07".as_slice(), &[b'x'; 997]].concat().into();
    assert_eq!(exact.len(), 1000);
    for (limit, fits) in [(1000, true), (999, false)] {
        let answer = exact.clone();
        let peer = Peer::answering(move |respond| answer_ok(respond, &answer)).await;
        let settings = ParticipantSettings { reply_bytes_max: limit, ..Default::default() };
        let got = World::new(settings, &[peer.endpoint()]).call(LONG).await;
        match fits {
            true => assert_eq!(got.outcome, Outcome::Done(exact.clone())),
            false => assert_eq!(evidence(&got), Evidence::BadAnswer),
        }
        assert_eq!(peer.seen.requests(), 1);
    }
}

#[tokio::test]
async fn a_reply_comes_whole_through_windows_of_any_size() {
    // Field 1 of the reply, 100,000 bytes long.
    let whole: Bytes = [b"\x0a\xa0\x8d\x06".as_slice(), &[b'x'; 100_000]].concat().into();
    for (stream, connection) in
        [(1_000, 5 << 20), (WINDOW_BYTES_MAX, 70_000), (WINDOW_BYTES_MAX, WINDOW_BYTES_MAX)]
    {
        let answer = whole.clone();
        let peer = Peer::answering(move |respond| answer_ok(respond, &answer)).await;
        let settings = ParticipantSettings {
            stream_window_bytes: stream,
            connection_window_bytes: connection,
            ..Default::default()
        };
        let got = World::new(settings, &[peer.endpoint()]).call(LONG).await;
        assert_eq!(got.outcome, Outcome::Done(whole.clone()), "windows of {stream} and {connection}");
    }
}

#[tokio::test]
async fn a_status_in_headers_counts_like_one_in_trailers() {
    let peer = Peer::answering(|mut respond| {
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "9")
            .header("grpc-message", "account%20closed")
            .header("backstop-clock", "77")
            .body(())
            .unwrap();
        respond.send_response(response, true).unwrap();
    })
    .await;
    let got = World::new(ParticipantSettings::default(), &[peer.endpoint()]).call(LONG).await;
    assert_eq!(evidence(&got), said(Code::FailedPrecondition));
    assert_eq!(details(&got).0, "account closed");
    assert_eq!(got.peer_clock, Some(backstop_core::Clock(77)));
}

#[tokio::test]
async fn a_refusal_with_large_details_keeps_its_code_as_far_as_headers_are_taken() {
    for (bytes, expected) in [
        (60_000, said(Code::FailedPrecondition)),
        // Beyond our limit h2 drops what does not fit: here the message, not the code before it.
        (140_000, said(Code::FailedPrecondition)),
        // Far beyond it h2 gives the whole connection up, and calls beside this one cannot be told apart.
        (400_000, LOST),
    ] {
        let text = "x".repeat(bytes);
        let peer = Peer::answering(move |respond| {
            answer_status(respond, &[("grpc-status", "9"), ("grpc-message", &text)]);
        })
        .await;
        concludes(&peer, LONG, expected).await;
    }
}

#[tokio::test]
async fn a_code_that_is_lost_behind_oversized_headers_is_not_made_up() {
    let text = "x".repeat(140_000);
    let peer = Peer::answering(move |respond| {
        answer_status(respond, &[("grpc-message", &text), ("grpc-status", "9")]);
    })
    .await;
    concludes(&peer, LONG, Evidence::BadAnswer).await;
    // Whose participants say so much can give them room.
    let settings = ParticipantSettings { reply_headers_bytes_max: 200_000, ..Default::default() };
    let got = World::new(settings, &[peer.endpoint()]).call(LONG).await;
    assert_eq!(evidence(&got), said(Code::FailedPrecondition));
}

#[tokio::test]
async fn a_code_that_grpc_does_not_define_is_unknown() {
    let peer = Peer::answering(|respond| answer_status(respond, &[("grpc-status", "99")])).await;
    concludes(&peer, LONG, said(Code::Unknown)).await;
}

#[tokio::test]
async fn peer_04_words_in_a_reply_or_a_message_are_never_read_as_a_status() {
    let words = ["FAILURE", "SUCCESS", "ONGOING", "ABORTED", "error", "grpc-status: 13", "{\"code\":13}"];
    for word in words {
        // The reply's one field is this word.
        let reply: Bytes =
            [b"\x0a".as_slice(), &[u8::try_from(word.len()).unwrap()], word.as_bytes()].concat().into();
        let answer = reply.clone();
        let peer = Peer::answering(move |respond| answer_ok(respond, &answer)).await;
        let got = World::new(ParticipantSettings::default(), &[peer.endpoint()]).call(LONG).await;
        assert_eq!(got.outcome, Outcome::Done(reply), "{word}: OK is OK, whatever the reply says");

        for (status, code) in [("9", Code::FailedPrecondition), ("14", Code::Unavailable)] {
            let peer = Peer::answering(move |respond| {
                answer_status(respond, &[("grpc-status", status), ("grpc-message", word)]);
            })
            .await;
            concludes(&peer, LONG, said(code)).await;
        }
        // Beside a page that is no answer of gRPC the word counts as little.
        let peer = Peer::answering(move |mut respond| {
            let mut body = respond.send_response(Response::builder().body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(word.as_bytes()), true).unwrap();
        })
        .await;
        concludes(&peer, LONG, Evidence::BadAnswer).await;
    }
}
