//! How a watch ends.

use crate::world::{BRIEF, LONG, SLOW, World, info, told};
use backstop_proto::v1;
use backstop_rpc::ServerSettings;
use http::{HeaderMap, Request};
use prost::Message;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::{Code, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const DRAIN: Duration = Duration::from_millis(50);

fn watch(saga: &str) -> v1::WatchSagaRequest {
    v1::WatchSagaRequest { saga_id: saga.to_owned(), after_seq: 0 }
}

#[tokio::test]
async fn only_the_sagas_own_end_is_an_end() {
    let world = World::new(ServerSettings::default()).await;
    let saga = world.start(BRIEF, "over").await.unwrap();
    let mut stream = world.sagas().watch_saga(watch("over")).await.unwrap().into_inner();
    let mut seen = 0;
    while let Some(message) = stream.message().await.unwrap() {
        seen = message.event.unwrap().seq;
    }
    assert_eq!(seen, saga.seq);
}

#[tokio::test]
async fn a_coordinator_that_leaves_ends_a_watch_as_unavailable() {
    let world = World::new(ServerSettings::default()).await;
    world.start(SLOW, "pay-7").await.unwrap();
    let mut request = tonic::Request::new(watch("pay-7"));
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01").parse().unwrap());
    let mut stream = world.sagas().watch_saga(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().event.unwrap().seq, 1);
    world.coordinator.drain(DRAIN).await;
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an end would be taken for the saga's"),
            Err(status) => break status,
        }
    };
    let said = info(&ended);
    assert_eq!((ended.code(), said.reason.as_str()), (Code::Unavailable, "NOT_SERVING"));
    assert_eq!(told(&said, "saga_id"), Some("pay-7"));
    assert_eq!(told(&said, "trace_id"), Some(TRACE), "also long after its request was answered");
}

/// By h2 itself: a client of gRPC would end the call by its own clock.
#[tokio::test]
async fn the_callers_deadline_ends_a_watch_on_the_server_too() {
    let world = World::new(ServerSettings::default()).await;
    world.start(SLOW, "pay-7").await.unwrap();
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::post("http://localhost/backstop.v1.SagaService/WatchSaga")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "300m")
        .body(())
        .unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let message = watch("pay-7").encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    body.send_data(framed.into(), true).unwrap();
    let ended = tokio::time::timeout(LONG, status(answer)).await.expect("the watch goes on for ever");
    driving.abort();
    assert_eq!((ended.code(), info(&ended).reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

/// The status of an answer, in its headers or behind its messages.
async fn status(answer: h2::client::ResponseFuture) -> Status {
    let answer = answer.await.unwrap();
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    let trailers: HeaderMap = body.trailers().await.unwrap().expect("an answer ends with a status");
    Status::from_header_map(&trailers).unwrap()
}
