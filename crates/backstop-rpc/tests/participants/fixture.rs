//! A small bank: its message types, a definition over them, and a saga of it. Shared by the tests beside it
//! and by those inside the crate.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use backstop_core::{
    Branch, BranchState, Call, CallSpec, Cause, CauseKind, Clock, Code, CoordinatorId, DefinitionName,
    DefinitionRef, DefinitionSpec, Details, Effect, Epoch, ErrorTable, Evidence, Failure, FinCode,
    ParticipantName, ParticipantTraits, Phase, Revision, Saga, SagaId, SagaState, Seq, Started, StepName,
    StepSpec, Tier, Timestamp, validate,
};
use backstop_engine::tenure::{Moment, Tenure};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use prost_types::FileDescriptorSet;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub const PARTICIPANT: &str = "ledger";

/// The bank's files with their imports and comments, and one file that nobody needs.
pub fn files() -> FileDescriptorSet {
    static FILES: OnceLock<FileDescriptorSet> = OnceLock::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/participants");
    FILES.get_or_init(|| protox::compile(["bank.proto", "unused.proto"], [folder]).unwrap()).clone()
}

pub fn pool() -> DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::from_file_descriptor_set(files()).unwrap()).clone()
}

pub fn message_type(name: &str) -> MessageDescriptor {
    pool().get_message_by_name(name).unwrap()
}

/// The tenure of a coordinator whose lease runs for so long.
pub fn tenure(lease: Duration) -> Arc<Tenure> {
    let coordinator = CoordinatorId::parse("c-1").unwrap();
    Arc::new(Tenure::new(coordinator, Moment::now(), lease))
}

/// A message from its JSON form.
pub fn message(name: &str, json: &serde_json::Value) -> DynamicMessage {
    DynamicMessage::deserialize(message_type(name), json.clone()).unwrap()
}

pub fn call(method: &str, request: &str) -> CallSpec {
    CallSpec {
        participant: PARTICIPANT.to_owned(),
        method: format!("bank.v1.Ledger/{method}"),
        request: request.to_owned(),
        ..CallSpec::default()
    }
}

/// A compensatable step.
pub fn step(name: &str, depends_on: &[&str], request: &str) -> StepSpec {
    StepSpec {
        name: name.to_owned(),
        depends_on: depends_on.iter().map(|name| (*name).to_owned()).collect(),
        action: call("Debit", request),
        compensation: Some(call("Undo", "")),
        ..StepSpec::default()
    }
}

pub fn spec(steps: Vec<StepSpec>) -> DefinitionSpec {
    DefinitionSpec { name: "transfer".to_owned(), steps, ..DefinitionSpec::default() }
}

/// A saga of this definition in which every step has succeeded that has a response here.
pub fn saga(spec: &DefinitionSpec, input: &serde_json::Value, responses: &[(&str, bytes::Bytes)]) -> Saga {
    try_saga(spec, input, responses).unwrap()
}

/// The same; none of a definition that is at fault or names other participants.
pub fn try_saga(
    spec: &DefinitionSpec,
    input: &serde_json::Value,
    responses: &[(&str, bytes::Bytes)],
) -> Option<Saga> {
    let traits =
        BTreeMap::from([(ParticipantName::parse(PARTICIPANT).unwrap(), ParticipantTraits::default())]);
    let definition = validate(spec, Revision(3), &traits, Arc::new(ErrorTable::default())).ok()?;
    let branch = |name: &StepName| {
        let response =
            responses.iter().find(|(step, _)| *step == name.as_str()).map(|(_, bytes)| bytes.clone());
        let state = if response.is_some() { BranchState::Succeeded } else { BranchState::Running };
        Branch { state, response, ..Branch::default() }
    };
    Some(Saga {
        id: SagaId::parse("pay/7").unwrap(),
        branches: definition.steps.iter().map(|step| branch(&step.name)).collect(),
        definition: Arc::new(definition),
        started: Arc::new(Started {
            definition: DefinitionRef {
                name: DefinitionName::parse("transfer").unwrap(),
                revision: Revision(3),
            },
            coordinator: CoordinatorId::parse("c-1").unwrap(),
            input: input.to_string().into(),
            payloads: BTreeMap::new(),
            labels: BTreeMap::new(),
            deadline: None,
            trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        }),
        started_at: Timestamp(0),
        seq: Seq(1),
        clock: Clock(40),
        updated_at: Timestamp(0),
        epoch: Epoch(2),
        state: SagaState::Running,
        cause: None,
        signals: Vec::new(),
        parked: 0,
        ended_at: None,
    })
}

/// The failure of a step, as a cause.
pub fn cause(step: &str, message: &str) -> Cause {
    Cause {
        kind: CauseKind::BranchFailed(StepName::parse(step).unwrap()),
        failure: Some(Failure {
            evidence: Evidence::ParticipantSaid(Code::FailedPrecondition),
            effect: Effect::None,
            fin_code: FinCode::REFUSED,
            tier: Tier::L3,
            message: message.to_owned(),
            details: Details::default(),
            pushback: None,
        }),
    }
}

pub fn attempt(step: usize, phase: Phase) -> Call {
    Call { step, phase, attempt: 2, clock: Clock(41) }
}

pub const LONG: Duration = Duration::from_secs(30);
