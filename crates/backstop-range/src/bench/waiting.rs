//! Sagas that live and wait: their one step asks to be called again in an hour, so each holds its place in memory and
//! no call.

use super::shape::PARTICIPANTS;
use backstop_proto::v1::StartSagaRequest;
use serde_json::{Value, json};

/// The name of their definition.
const NAME: &str = "bench-waiting";

/// Their definition.
pub(super) fn definition() -> Value {
    let [participant, ..] = PARTICIPANTS;
    let call = |method: &str| {
        json!({ "participant": participant, "method": format!("range.v1.Bench/{method}"),
                "request": { "saga": "${saga.id}" } })
    };
    json!({ "name": NAME, "steps": [{ "name": "a", "action": call("Later"), "compensation": call("Undo") }] })
}

/// The request that starts one.
pub(super) fn request(id: String) -> StartSagaRequest {
    StartSagaRequest { saga_id: id, definition: NAME.to_owned(), ..StartSagaRequest::default() }
}
