//! What a participant is told of its place in the saga's trace.

use crate::fixture::LONG;
use crate::peer::{Peer, answer_ok};
use crate::world::{World, reply};
use backstop_rpc::participants::ParticipantSettings;

const SAGA_SPAN: &str = "b7ad6b7169203331";
const SAGA_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

async fn told() -> String {
    let peer = Peer::answering(|respond| answer_ok(respond, &reply())).await;
    World::new(ParticipantSettings::default(), &[peer.endpoint()]).call(LONG).await;
    let heard = peer.seen.requests.lock().unwrap().first().unwrap().clone();
    heard.headers["traceparent"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_participant_is_told_the_place_of_its_own_attempt_the_same_by_every_coordinator() {
    let place = told().await;
    let parts: Vec<&str> = place.split('-').collect();
    assert_eq!(parts[..2], ["00", SAGA_TRACE]);
    assert_ne!(parts[2], SAGA_SPAN, "it is a place of its own, below the saga's");
    assert_eq!(parts[3], "01", "as the saga was sampled");
    assert_eq!(told().await, place);
}
