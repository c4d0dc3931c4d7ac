//! Backstop's own services: the wire's words in, a command to the coordinator, the wire's words out.
//!
//! One file a service. All faults of a request's shape are collected before the coordinator is asked.
//!
//! # Not here
//! Any rule about sagas: `backstop-core`. What becomes of a refusal: [`crate::status_reply`].

pub(crate) mod definitions;
mod operators;
mod overview;
mod participants;
pub(crate) mod sagas;

pub use definitions::Definitions;
pub use operators::Operators;
pub use participants::ParticipantRegistry;
pub use sagas::Sagas;

use crate::convert::saga::wire_head;
use crate::peers;
use crate::status_reply::{invalid, saga_error};
use backstop_core::{Fault, SagaId, Seq, transcript};
use backstop_engine::{Coordinator, EngineError, Reach};
use backstop_proto::v1;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Events shown of a saga that is in quarantine.
const QUARANTINED_EVENTS_MAX: usize = 1_000;

/// Bytes of a person's name or login in the journal.
pub const PERSON_BYTES_MAX: usize = 128;
/// Bytes of a person's reason in the journal.
pub const REASON_BYTES_MAX: usize = 1_024;

fn saga_id(text: &str) -> Result<SagaId, Status> {
    SagaId::parse(text).map_err(|error| invalid(&[Fault::new("saga_id", error.to_string())]))
}

/// How far a command may be carried: one that another coordinator has carried here goes no further.
fn reach(metadata: &MetadataMap) -> Reach {
    if metadata.contains_key(peers::CARRIED) { Reach::Here } else { Reach::Anywhere }
}

/// What can still be told of a saga whose journal is gone or cannot be followed; any other error is one.
async fn from_head(coordinator: &Coordinator, id: &SagaId, error: &EngineError) -> Result<v1::Saga, Status> {
    match error {
        EngineError::Retired { head } => Ok(wire_head(head)),
        EngineError::Quarantined { .. } => {
            let head = coordinator.head(id).await.map_err(|error| saga_error(&error, id, None))?;
            if head.quarantine.is_none() {
                // Nobody has set it aside yet: that is takeover's, and not for one who merely looks.
                return Err(saga_error(error, id, None));
            }
            // As far as they can be read at all: whoever mends the journal wants to see them.
            let events = coordinator.events(id, Seq(0), QUARANTINED_EVENTS_MAX).await.unwrap_or_default();
            let transcript = transcript::transcript(&events).lines().map(str::to_owned).collect();
            Ok(v1::Saga { transcript, ..wire_head(&head) })
        }
        other => Err(saga_error(other, id, None)),
    }
}

/// The status of a command that was not carried out. Of one that the rules refuse it tells where the saga stands, so that
/// nobody has to ask what stood in the way.
async fn not_done(coordinator: &Coordinator, id: &SagaId, error: &EngineError) -> Status {
    let mut state = None;
    if let EngineError::Refused(_) = error {
        state = coordinator.head(id).await.ok().map(|head| head.state);
    }
    saga_error(error, id, state)
}

/// Checks a text from a person: bounded, and there at all if it must be.
fn person_text(path: &str, text: &str, bytes_max: usize, required: bool, faults: &mut Vec<Fault>) {
    if required && text.trim().is_empty() {
        faults.push(Fault::new(path, "must not be empty"));
    }
    if text.len() > bytes_max {
        faults.push(Fault::new(path, format!("must not be longer than {bytes_max} bytes")));
    }
}
