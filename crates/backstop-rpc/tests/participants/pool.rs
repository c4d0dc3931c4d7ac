//! Several endpoints and connections: dead ones beside live ones, restarts, changed registrations.

use crate::fixture::LONG;
use crate::peer::{Peer, Seen, answer_ok, dead_endpoint, reset};
use crate::world::{NO_CONNECTION, World, evidence, participant, reply};
use backstop_core::{Evidence, NotSent, Outcome, Phase};
use backstop_engine::ports::participants::Participants;
use backstop_rpc::participants::ParticipantSettings;
use futures::future::join_all;
use h2::Reason;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;

async fn living() -> Peer {
    Peer::answering(|respond| answer_ok(respond, &reply())).await
}

async fn all_succeed(world: &World, calls: usize) {
    for ended in join_all((0..calls).map(|_| world.call(LONG))).await {
        assert_eq!(ended.outcome, Outcome::Done(reply()));
    }
}

#[tokio::test]
async fn a_dead_endpoint_beside_a_live_one_fails_no_call_of_a_thousand() {
    let peer = living().await;
    let world = World::new(ParticipantSettings::default(), &[dead_endpoint().await, peer.endpoint()]);
    for _ in 0..50 {
        all_succeed(&world, 20).await;
    }
    assert_eq!(peer.seen.requests(), 1000, "each was sent, and once");
    assert!(peer.seen.connections() <= 2);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_left_alone_for_a_while() {
    // It takes connections and counts them, but TLS never comes about.
    let unreachable = Peer::raw(|stream, _| async move { drop(stream) }).await;
    let peer = living().await;
    let endpoints = [unreachable.endpoint().replace("http:", "https:"), peer.endpoint()];
    let world = World::new(ParticipantSettings::default(), &endpoints);
    for _ in 0..200 {
        all_succeed(&world, 1).await;
    }
    let dialled = unreachable.seen.connections();
    // Pauses double up to ten seconds: fifty dials would take minutes.
    assert!((1..50).contains(&dialled), "dialled {dialled} times for 200 calls");
}

#[tokio::test]
async fn an_endpoint_that_refuses_streams_hands_its_calls_to_the_other() {
    let refusing = Peer::raw(|stream, _| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((_, respond))) = connection.accept().await {
            reset(respond, Reason::REFUSED_STREAM);
        }
    })
    .await;
    let peer = living().await;
    let world = World::new(ParticipantSettings::default(), &[refusing.endpoint(), peer.endpoint()]);
    for _ in 0..20 {
        all_succeed(&world, 5).await;
    }
    assert_eq!(peer.seen.requests(), 100);
    assert!(refusing.seen.connections() > 0, "it was tried");
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let first = Peer::answering_on(listener, |respond| answer_ok(respond, &reply()));
    let world = World::new(ParticipantSettings::default(), &[first.endpoint()]);
    all_succeed(&world, 3).await;
    drop(first);
    // The port is free once the listener's task is gone.
    let listener = loop {
        if let Ok(listener) = TcpListener::bind(address).await {
            break listener;
        }
        tokio::task::yield_now().await;
    };
    drop(listener);
    assert_eq!(evidence(&world.call(LONG).await), NO_CONNECTION, "nobody is there");
    let listener = TcpListener::bind(address).await.unwrap();
    let second = Peer::answering_on(listener, |respond| answer_ok(respond, &reply()));
    all_succeed(&world, 3).await;
    assert_eq!(second.seen.requests(), 3);
}

#[tokio::test]
async fn connections_are_opened_when_they_are_needed_and_no_more_than_allowed() {
    let open = Arc::new(Notify::new());
    let gate = open.clone();
    let peer = Peer::answering(move |respond| {
        let gate = gate.clone();
        tokio::spawn(async move {
            gate.notified().await;
            answer_ok(respond, &reply());
        });
    })
    .await;
    let settings = ParticipantSettings { connections_per_endpoint: 3, ..Default::default() };
    let world = World::new(settings, &[peer.endpoint()]);
    assert_eq!(peer.seen.connections(), 0, "lazy");
    let until = |seen: Arc<Seen>, requests: usize| async move {
        while seen.requests() < requests {
            tokio::task::yield_now().await;
        }
    };
    let calls = join_all((0..9).map(|_| world.call(LONG)));
    let release = async {
        until(peer.seen.clone(), 9).await;
        assert_eq!(peer.seen.connections(), 3, "nine calls share three connections");
        (0..9).for_each(|_| {
            open.notify_one();
        });
        // `notify_one` keeps at most one permit for those who are not waiting yet.
        loop {
            open.notify_waiters();
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::select! { ended = calls => ended, () = release => Vec::new() };
    assert_eq!(ended.len(), 9);
}

#[tokio::test]
async fn a_changed_registration_moves_new_calls_and_leaves_those_under_way() {
    let open = Arc::new(Notify::new());
    let gate = open.clone();
    let old = Peer::answering(move |respond| {
        let gate = gate.clone();
        tokio::spawn(async move {
            gate.notified().await;
            answer_ok(respond, &reply());
        });
    })
    .await;
    let new = living().await;
    let world = World::new(ParticipantSettings::default(), &[old.endpoint()]);
    let under_way = world.call(LONG);
    let change = async {
        while old.seen.requests() == 0 {
            tokio::task::yield_now().await;
        }
        world.client.set(&participant(&[new.endpoint()]));
        all_succeed(&world, 10).await;
        open.notify_one();
    };
    let (ended, ()) = tokio::join!(under_way, change);
    assert_eq!(ended.outcome, Outcome::Done(reply()));
    assert_eq!((old.seen.requests(), new.seen.requests()), (1, 10));
}

#[tokio::test]
async fn an_endpoint_that_stays_registered_keeps_its_connection() {
    let (kept, added) = (living().await, living().await);
    let world = World::new(ParticipantSettings::default(), &[kept.endpoint()]);
    all_succeed(&world, 1).await;
    world.client.set(&participant(&[added.endpoint(), kept.endpoint()]));
    while kept.seen.requests() < 2 {
        // Two at a time: the second goes to the other endpoint.
        all_succeed(&world, 2).await;
    }
    assert_eq!(kept.seen.connections(), 1);
}

#[tokio::test]
async fn a_registration_without_endpoints_or_with_unreadable_ones_sends_nothing() {
    let peer = living().await;
    let world = World::new(ParticipantSettings::default(), &[]);
    world.client.set(&participant(&["nonsense".to_owned()]));
    assert_eq!(evidence(&world.call(LONG).await), NO_CONNECTION);
    world.client.set(&participant(&["nonsense".to_owned(), peer.endpoint()]));
    all_succeed(&world, 1).await;
}

#[tokio::test]
async fn what_has_a_connection_only_after_the_lease_does_not_go_out() {
    let peer = living().await;
    let world = World::new(ParticipantSettings::default(), &[peer.endpoint()]);
    let late = world.phase_within(Phase::Action, LONG, Duration::ZERO).await;
    assert_eq!(evidence(&late), Evidence::NotSent(NotSent::Withdrawn));
    world.call(LONG).await;
    assert_eq!(
        (peer.seen.requests(), peer.seen.connections()),
        (1, 1),
        "the first had only its connection made"
    );
}
