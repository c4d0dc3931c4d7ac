//! Backstop's own services: the wire's words in, a command to the coordinator, the wire's words out.
//!
//! One file a service. All faults of a request's shape are collected before the coordinator is asked.
//!
//! # Not here
//! Any rule about sagas: `backstop-core`. What becomes of a refusal: [`crate::status_reply`].

mod definitions;
mod operators;
mod participants;
mod sagas;

pub use definitions::Definitions;
pub use operators::Operators;
pub use participants::ParticipantRegistry;
pub use sagas::Sagas;

use crate::status_reply::invalid;
use backstop_core::{Fault, SagaId};
use tonic::Status;

/// Bytes of a person's name or login in the journal.
pub const PERSON_BYTES_MAX: usize = 128;
/// Bytes of a person's reason in the journal.
pub const REASON_BYTES_MAX: usize = 1_024;

fn saga_id(text: &str) -> Result<SagaId, Status> {
    SagaId::parse(text).map_err(|error| invalid(&[Fault::new("saga_id", error.to_string())]))
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
