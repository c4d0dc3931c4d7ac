//! Connections of clients that vanish, and calls beyond what one connection has.

use crate::frames::{Frames, HEADERS, PING, RST_STREAM};
use crate::world::{BRIEF, LONG, World};
use backstop_proto::v1;
use backstop_rpc::ServerSettings;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(50);
/// A stream that never ends.
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

#[tokio::test]
async fn a_client_that_answers_no_ping_is_hung_up_on() {
    let settings = ServerSettings {
        keepalive_interval: INTERVAL,
        keepalive_timeout: INTERVAL,
        ..ServerSettings::default()
    };
    let world = World::bare(settings).await;
    let mut client = Frames::connect(world.address).await;
    client.call(1, HEALTH_WATCH).await;
    assert!(client.next_of(&[PING]).await.is_some(), "it is asked first");
    assert!(client.next_of(&[PING]).await.is_none(), "and asked once");
}

#[tokio::test]
async fn a_client_that_is_there_is_kept_however_silent() {
    let settings =
        ServerSettings { keepalive_interval: INTERVAL, keepalive_timeout: LONG, ..ServerSettings::default() };
    let world = World::bare(settings).await;
    let mut client = Frames::connect(world.address).await;
    for _ in 0..3 {
        let ping = client.next_of(&[PING]).await.expect("it is still there");
        client.pong(&ping).await;
    }
    client.call(1, HEALTH_WATCH).await;
    assert_eq!(client.next_of(&[HEADERS]).await.map(|answer| answer.stream), Some(1));
}

#[tokio::test]
async fn what_comes_beyond_the_limit_is_refused_unseen_until_there_is_room() {
    let world = World::new(ServerSettings { streams_max: 2, ..ServerSettings::default() }).await;
    let mut client = Frames::connect(world.address).await;
    for stream in [1, 3] {
        client.call(stream, HEALTH_WATCH).await;
        assert_eq!(client.next_of(&[HEADERS]).await.map(|answer| answer.stream), Some(stream));
    }
    client.call(5, HEALTH_WATCH).await;
    let refused = client.next_of(&[HEADERS, RST_STREAM]).await.unwrap();
    assert_eq!((refused.kind, refused.stream), (RST_STREAM, 5));
    // This code says that the request was not looked at, and may be sent again.
    assert_eq!(refused.payload[..], u32::from(h2::Reason::REFUSED_STREAM).to_be_bytes());
    client.cancel(1).await;
    client.call(7, HEALTH_WATCH).await;
    // What is still said of the one that was refused is passed over.
    let answer = loop {
        let frame = client.next_of(&[HEADERS, RST_STREAM]).await.expect("the connection is kept");
        if frame.stream == 7 {
            break frame;
        }
    };
    assert_eq!(answer.kind, HEADERS);
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_for_each_other_and_none_is_lost() {
    const SAGAS: usize = 50;
    let world = World::new(ServerSettings { streams_max: 2, ..ServerSettings::default() }).await;
    let starts = (0..SAGAS).map(|n| {
        let world = &world;
        async move { world.start(BRIEF, &format!("pay-{n}")).await.unwrap().state() }
    });
    for state in futures::future::join_all(starts).await {
        assert_eq!(state, v1::SagaState::RolledBack);
    }
}
