//! What goes out: every header of ours and no other, and the payload byte for byte.

use crate::fixture::{self, LONG, PARTICIPANT};
use crate::peer::{Heard, Peer, answer_ok, framed, grpc_headers, trailers};
use crate::world::{World, payload, reply};
use backstop_core::{Cause, CauseKind, Clock, Outcome, ParticipantName, Phase, Signal};
use backstop_engine::ports::participants::Participants;
use backstop_proto::participant::v1::OnRollbackRequest;
use backstop_proto::v1::{RollbackCause, rollback_cause};
use backstop_rpc::participants::ParticipantSettings;
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;
use tonic::metadata::MetadataMap;

async fn heard(prepare: impl FnOnce(&mut World), phase: Phase) -> Heard {
    let peer = Peer::answering(|respond| answer_ok(respond, &reply())).await;
    let mut spec = fixture::spec(vec![fixture::step("debit", &[], "")]);
    spec.steps[0].query = Some(fixture::call("Find", ""));
    let mut world = World::of(spec, ParticipantSettings::default(), &[peer.endpoint()]);
    prepare(&mut world);
    let got = world.phase(phase, LONG).await;
    assert_eq!(got.outcome, Outcome::Done(reply()));
    peer.seen.requests.lock().unwrap().first().unwrap().clone()
}

fn text<'a>(heard: &'a Heard, name: &str) -> &'a str {
    heard.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

#[tokio::test]
async fn an_action_bears_exactly_the_promised_metadata() {
    let heard = heard(|_| {}, Phase::Action).await;
    let names: Vec<&str> = {
        let mut names: Vec<&str> = heard.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(
        names,
        [
            "backstop-attempt",
            "backstop-clock",
            "backstop-definition",
            "backstop-epoch",
            "backstop-phase",
            "backstop-saga-id",
            "backstop-step",
            "content-type",
            "grpc-timeout",
            "idempotency-key",
            "te",
            "traceparent",
            "user-agent",
        ]
    );
    for (name, value) in [
        ("backstop-attempt", "2"),
        ("backstop-clock", "41"),
        ("backstop-definition", "transfer@3"),
        ("backstop-epoch", "2"),
        ("backstop-phase", "action"),
        ("backstop-saga-id", "pay/7"),
        ("backstop-step", "debit"),
        ("idempotency-key", "pay/7/debit/action"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        assert_eq!(text(&heard, name), value, "{name}");
    }
    assert_eq!(heard.path, "/bank.v1.Ledger/Debit");
}

#[tokio::test]
async fn a_payload_arrives_byte_for_byte() {
    let heard = heard(|_| {}, Phase::Action).await;
    assert_eq!(heard.body, framed(&payload()));
    // A payload need not be what the message types say, nor short.
    let odd: Bytes = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>().into();
    let sent = odd.clone();
    let heard = self::heard(
        move |world| {
            let mut started = (*world.saga.started).clone();
            started.payloads.values_mut().for_each(|payload| *payload = sent.clone());
            world.saga.started = Arc::new(started);
        },
        Phase::Action,
    )
    .await;
    assert_eq!(heard.body, framed(&odd));
}

#[tokio::test]
async fn the_timeout_sent_is_what_is_left() {
    let heard = heard(|_| {}, Phase::Action).await;
    let micros: u128 = text(&heard, "grpc-timeout").strip_suffix('u').unwrap().parse().unwrap();
    assert!(micros <= LONG.as_micros() && micros > 0, "{micros}");
}

#[tokio::test]
async fn a_call_stands_in_the_sagas_trace_at_a_place_of_its_own() {
    let heard = heard(|_| {}, Phase::Action).await;
    let place = text(&heard, "traceparent");
    assert!(place.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{place}");
    assert!(place.ends_with("-01") && place.len() == 55, "{place}");
    assert!(!place.contains("b7ad6b7169203331"), "not the saga's own span");
    let without = self::heard(
        |world| {
            let mut started = (*world.saga.started).clone();
            started.trace_parent = None;
            world.saga.started = Arc::new(started);
        },
        Phase::Action,
    )
    .await;
    assert!(!without.headers.contains_key("traceparent"));
}

#[tokio::test]
async fn a_compensation_bears_the_cause_and_other_calls_do_not() {
    let with_cause =
        |world: &mut World| world.saga.cause = Some(Arc::new(fixture::cause("credit", "账户已关闭")));
    let compensation = heard(with_cause, Phase::Compensation).await;
    assert_eq!(text(&compensation, "backstop-phase"), "compensation");
    assert_eq!(text(&compensation, "idempotency-key"), "pay/7/debit/compensation");
    assert_eq!(compensation.path, "/bank.v1.Ledger/Undo");
    let metadata = MetadataMap::from_headers(compensation.headers);
    let cause = metadata.get_bin("backstop-cause-bin").unwrap().to_bytes().unwrap();
    let cause = RollbackCause::decode(cause).unwrap();
    assert_eq!((cause.kind(), cause.step.as_str()), (rollback_cause::Kind::StepFailed, "credit"));
    let failure = cause.failure.unwrap();
    assert_eq!((failure.fin_code.as_str(), failure.message.as_str()), ("FIN-40005", "账户已关闭"));

    let query = heard(with_cause, Phase::Query).await;
    assert_eq!(text(&query, "backstop-phase"), "query");
    assert_eq!(text(&query, "idempotency-key"), "pay/7/debit/query");
    assert!(!query.headers.contains_key("backstop-cause-bin"));
}

#[tokio::test]
async fn all_metadata_of_a_compensation_stays_below_what_netty_takes() {
    let reason = "r".repeat(1 << 20);
    let kind = CauseKind::Cancelled { by: "b".repeat(1 << 20), reason };
    let heard = heard(
        |world| {
            let mut failure = fixture::cause("debit", &"m".repeat(2048)).failure;
            if let Some(failure) = &mut failure {
                failure.details.metadata = (0..40).map(|n| (format!("key{n}"), "v".repeat(100))).collect();
            }
            world.saga.cause = Some(Arc::new(Cause { kind, failure }));
            world.saga.id = backstop_core::SagaId::parse(&"s".repeat(128)).unwrap();
        },
        Phase::Compensation,
    )
    .await;
    // As HTTP/2 counts (RFC 9113, 6.5.2), with the four pseudo-headers on top.
    let size: usize = heard.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(size + 300 < 8192, "{size}");
}

#[tokio::test]
async fn the_later_clock_of_an_answer_is_handed_back() {
    let peer = Peer::answering(|mut respond| {
        let mut headers = grpc_headers();
        headers.headers_mut().insert("backstop-clock", "50".parse().unwrap());
        let mut body = respond.send_response(headers, false).unwrap();
        body.send_data(framed(&reply()), false).unwrap();
        body.send_trailers(trailers(&[("grpc-status", "0"), ("backstop-clock", "61")])).unwrap();
    })
    .await;
    let world = World::new(ParticipantSettings::default(), &[peer.endpoint()]);
    assert_eq!(world.call(LONG).await.peer_clock, Some(Clock(61)));
}

#[tokio::test]
async fn a_signal_tells_cause_branches_and_clock() {
    let peer = Peer::answering(|respond| answer_ok(respond, b"")).await;
    let mut world = World::new(ParticipantSettings::default(), &[peer.endpoint()]);
    world.saga.cause = Some(Arc::new(fixture::cause("credit", "closed")));
    let signal = Signal {
        participant: ParticipantName::parse(PARTICIPANT).unwrap(),
        steps: vec![0],
        clock: Clock(44),
    };
    world.client.signal(&world.saga, &signal, LONG).await.unwrap();
    let heard = peer.seen.requests.lock().unwrap().first().unwrap().clone();
    assert_eq!(heard.path, "/backstop.participant.v1.RollbackListenerService/OnRollback");
    let request = OnRollbackRequest::decode(&heard.body[5..]).unwrap();
    assert_eq!((request.saga_id.as_str(), request.definition.as_str()), ("pay/7", "transfer@3"));
    assert_eq!((request.clock, request.epoch), (44, 2));
    assert_eq!(request.cause.unwrap().step, "credit");
    let branch = &request.branches[0];
    assert_eq!((branch.step.as_str(), branch.state.as_str()), ("debit", "RUNNING"));
    assert_eq!(branch.idempotency_key, "pay/7/debit/action");
    assert!(text(&heard, "traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));

    drop(peer);
    let error = world.client.signal(&world.saga, &signal, LONG).await.unwrap_err();
    assert!(error.starts_with("UNAVAILABLE"), "{error}");
}
