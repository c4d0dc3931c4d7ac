//! A client, one registered participant, and a saga whose first step is about to be called.

use crate::fixture::{self, PARTICIPANT};
use backstop_core::{
    Code, DefinitionSpec, Evidence, Outcome, ParticipantName, Phase, Saga, StepName, Timestamp,
};
use backstop_core::{DefinitionName, DefinitionRef, Details, NoAnswer, NotSent, Revision};
use backstop_engine::ports::participants::{CallReply, CallRequest, Calls, Participants};
use backstop_engine::ports::store::{Participant, StoredRevision};
use backstop_rpc::participants::{ParticipantClient, ParticipantSettings};
use bytes::Bytes;
use prost::Message;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct World {
    pub(crate) client: ParticipantClient,
    pub(crate) calls: Arc<dyn Calls>,
    pub(crate) saga: Saga,
}

pub(crate) fn participant(endpoints: &[String]) -> Participant {
    Participant {
        name: ParticipantName::parse(PARTICIPANT).unwrap(),
        endpoints: endpoints.to_vec(),
        deduplicates_by_key: false,
        rollback_listener: true,
        in_flight_max: 256,
        keepalive: Duration::from_secs(300),
        updated_at: Timestamp(0),
    }
}

pub(crate) fn revision(spec: &DefinitionSpec, descriptors: Bytes) -> StoredRevision {
    StoredRevision {
        reference: DefinitionRef { name: DefinitionName::parse("transfer").unwrap(), revision: Revision(3) },
        spec: spec.clone(),
        descriptors,
        fingerprint: [0; 32],
        created_at: Timestamp(0),
    }
}

/// A subscriber for the whole process, before any call is made: a span that is first met while no subscriber is
/// there, just as another test brings its own, would stay disabled for that one too.
pub(crate) fn keep_spans_enabled() {
    // It is there already after the first time.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
}

impl World {
    /// One step whose action is sent as a raw payload.
    pub(crate) fn new(settings: ParticipantSettings, endpoints: &[String]) -> Self {
        Self::of(fixture::spec(vec![fixture::step("debit", &[], "")]), settings, endpoints)
    }

    pub(crate) fn of(spec: DefinitionSpec, settings: ParticipantSettings, endpoints: &[String]) -> Self {
        keep_spans_enabled();
        let client = ParticipantClient::new(settings);
        client.set(&participant(endpoints));
        let calls = client.prepare(&revision(&spec, fixture::files().encode_to_vec().into())).unwrap();
        let mut saga = fixture::saga(&spec, &json!({}), &[]);
        let mut started = (*saga.started).clone();
        started.payloads.insert(StepName::parse("debit").unwrap(), payload());
        saga.started = Arc::new(started);
        Self { client, calls, saga }
    }

    pub(crate) async fn call(&self, timeout: Duration) -> CallReply {
        self.phase(Phase::Action, timeout).await
    }

    pub(crate) async fn phase(&self, phase: Phase, timeout: Duration) -> CallReply {
        self.phase_within(phase, timeout, Duration::from_secs(3600)).await
    }

    /// A call of a coordinator whose lease runs for so long.
    pub(crate) async fn phase_within(&self, phase: Phase, timeout: Duration, lease: Duration) -> CallReply {
        let saga = Arc::new(self.saga.clone());
        let clearance = fixture::clearance(lease);
        self.calls.call(CallRequest { saga, call: fixture::attempt(0, phase), timeout, clearance }).await
    }
}

/// The request that the first step sends.
pub(crate) fn payload() -> Bytes {
    fixture::message("bank.v1.Request", &json!({"amountMinor": "12345", "account": "A-7"}))
        .encode_to_vec()
        .into()
}

/// A reply that decodes.
pub(crate) fn reply() -> Bytes {
    fixture::message("bank.v1.Reply", &json!({"entryId": "e-1", "balanceMinor": "9007199254740993"}))
        .encode_to_vec()
        .into()
}

pub(crate) fn evidence(reply: &CallReply) -> Evidence {
    match &reply.outcome {
        Outcome::Failed { evidence, .. } => *evidence,
        Outcome::Done(_) => panic!("the call succeeded"),
    }
}

pub(crate) fn details(reply: &CallReply) -> (&str, &Details) {
    match &reply.outcome {
        Outcome::Failed { message, details, .. } => (message, details),
        Outcome::Done(_) => panic!("the call succeeded"),
    }
}

pub(crate) const DEADLINE: Evidence = Evidence::NoAnswer(NoAnswer::Deadline);
pub(crate) const LOST: Evidence = Evidence::NoAnswer(NoAnswer::ConnectionLost);
pub(crate) const NO_CONNECTION: Evidence = Evidence::NotSent(NotSent::NoConnection);
pub(crate) const DRAINING: Evidence = Evidence::NotSent(NotSent::Draining);
pub(crate) const REFUSED: Evidence = Evidence::NotSent(NotSent::Refused);

pub(crate) fn said(code: Code) -> Evidence {
    Evidence::ParticipantSaid(code)
}
