//! In what a StartSaga differs from the request that its saga id belongs to: fields by name, never a value.
//!
//! # Invariants
//! * Whoever is refused for its id learns which fields differ, as long as they can still be told apart: all of them
//!   while there is a journal, those of the head row for ever
//!   (`peer_23_another_request_with_the_same_id_is_told_what_differs_while_it_runs_and_after_its_end`).

use super::starting::StartSaga;
use crate::ports::store::Head;
use crate::shared::Shared;
use backstop_core::event::Started;
use backstop_core::{DefinitionName, EventKind, Revision, Saga, Seq, StepName};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a request asked for, as far as it makes it another request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    definition: &'a DefinitionName,
    revision: Option<Revision>,
    input: &'a Bytes,
    payloads: &'a BTreeMap<StepName, Bytes>,
    labels: &'a BTreeMap<String, String>,
    /// SHA-256 of the request.
    pub(super) fingerprint: &'a [u8; 32],
}

impl<'a> Asked<'a> {
    pub(super) fn by_request(request: &'a StartSaga) -> Self {
        Self {
            definition: &request.definition,
            revision: request.revision,
            input: &request.input,
            payloads: &request.payloads,
            labels: &request.labels,
            fingerprint: &request.fingerprint,
        }
    }

    /// By a saga that was to be started and found its id taken.
    pub(super) fn by_saga(saga: &'a Saga, revision: Option<Revision>, fingerprint: &'a [u8; 32]) -> Self {
        let Started { input, payloads, labels, .. } = saga.started.as_ref();
        Self { definition: &saga.definition.reference.name, revision, input, payloads, labels, fingerprint }
    }

    /// The fields that differ from those of the request behind this head row, as in `input, labels`.
    pub(super) async fn difference(self, shared: &Shared, head: &Head) -> String {
        let mut fields = Vec::new();
        let reference = &head.definition;
        if *self.definition != reference.name {
            fields.push("definition".to_owned());
        } else if self.revision.is_some_and(|revision| revision != reference.revision) {
            fields.push("revision".to_owned());
        }
        if *self.labels != head.labels {
            fields.push("labels".to_owned());
        }
        // No journal to be had says nothing about the rest: a repeated start is refused for it all the same.
        let first = shared.store.events(&head.saga, Seq(0), 1).await.unwrap_or_default();
        match first.first().map(|event| &event.kind) {
            Some(EventKind::Started(started)) => {
                if *self.input != started.input {
                    fields.push("input".to_owned());
                }
                fields.extend(self.payloads_unlike(&started.payloads));
                if fields.is_empty() {
                    fields.push("whether it names a revision or an input".to_owned());
                }
            }
            _ if fields.is_empty() => {
                fields.push("input, payloads or whether it names a revision".to_owned())
            }
            _ => {}
        }
        fields.join(", ")
    }

    fn payloads_unlike(self, there: &BTreeMap<StepName, Bytes>) -> Vec<String> {
        let missing = there.keys().filter(move |step| !self.payloads.contains_key(*step));
        let other = self.payloads.iter().filter(move |(step, payload)| there.get(*step) != Some(*payload));
        missing.chain(other.map(|(step, _)| step)).map(|step| format!("payloads.{step}")).collect()
    }
}
