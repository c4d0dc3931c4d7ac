//! The small bank that all cases call: its message types, its definitions, and what it answers.

use crate::Broken;
use backstop_core::{
    CallSpec, Definition, DefinitionSpec, ErrorTable, ParticipantName, ParticipantTraits, Revision, StepSpec,
    validate,
};
use bytes::Bytes;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const PARTICIPANT: &str = "ledger";

/// What every action answers.
#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(string, tag = "1")]
    entry_id: String,
}

pub(crate) fn reply() -> Bytes {
    Reply { entry_id: "entry-0192f0c8-7a31-7c4e-9f0b-5d2f6b1e8a44".to_owned() }.encode_to_vec().into()
}

/// Every message and method, as a participant's reflection would tell them.
pub(crate) fn descriptors() -> Vec<u8> {
    let request = message(
        "Request",
        vec![
            field("transfer_id", 1, Type::String, None),
            field("account", 2, Type::String, None),
            field("amount_minor", 3, Type::Int64, None),
            field("currency", 4, Type::String, None),
            field("reference", 5, Type::String, None),
            field("earlier_entry_id", 6, Type::String, None),
            field("note", 7, Type::String, None),
            field("reason", 8, Type::String, None),
            FieldDescriptorProto {
                label: Some(Label::Repeated.into()),
                ..field("lines", 9, Type::Message, Some(".bank.v1.Line"))
            },
        ],
    );
    let line = message(
        "Line",
        vec![
            field("account", 1, Type::String, None),
            field("amount_minor", 2, Type::Int64, None),
            field("reference", 3, Type::String, None),
        ],
    );
    let reply = message("Reply", vec![field("entry_id", 1, Type::String, None)]);
    let method = |name: &str| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".bank.v1.Request".to_owned()),
        output_type: Some(".bank.v1.Reply".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let ledger = ServiceDescriptorProto {
        name: Some("Ledger".to_owned()),
        method: vec![method("Do"), method("Undo")],
        ..ServiceDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("bank.proto".to_owned()),
        package: Some("bank.v1".to_owned()),
        message_type: vec![request, line, reply],
        service: vec![ledger],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field, ..DescriptorProto::default() }
}

fn field(name: &str, number: i32, kind: Type, of: Option<&str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        type_name: of.map(str::to_owned),
        ..FieldDescriptorProto::default()
    }
}

/// A compensatable step. Without a request it takes a raw payload.
pub(crate) fn step(name: &str, after: &[&str], request: &str) -> StepSpec {
    let undo = r#"{"transfer_id": "${saga.id}", "reason": "rolled back by ${cause.step} ${cause.fin_code}"}"#;
    StepSpec {
        name: name.to_owned(),
        depends_on: after.iter().map(|name| (*name).to_owned()).collect(),
        action: call("Do", request),
        compensation: Some(call("Undo", undo)),
        ..StepSpec::default()
    }
}

fn call(method: &str, request: &str) -> CallSpec {
    CallSpec {
        participant: PARTICIPANT.to_owned(),
        method: format!("bank.v1.Ledger/{method}"),
        request: request.to_owned(),
        ..CallSpec::default()
    }
}

pub(crate) fn spec(steps: Vec<StepSpec>) -> DefinitionSpec {
    let deadline = Some(Duration::from_secs(30));
    DefinitionSpec { name: "transfer".to_owned(), deadline, steps, ..DefinitionSpec::default() }
}

pub(crate) fn definition(spec: &DefinitionSpec) -> Result<Arc<Definition>, Broken> {
    let ledger = ParticipantName::parse(PARTICIPANT).map_err(Broken::by)?;
    let participants = BTreeMap::from([(ledger, ParticipantTraits::default())]);
    let errors = Arc::new(ErrorTable::default());
    validate(spec, Revision(3), &participants, errors).map(Arc::new).map_err(Broken::by)
}

/// Three branches that wait for nothing.
pub(crate) fn three() -> DefinitionSpec {
    spec(["debit", "credit", "record"].map(|name| step(name, &[], "")).to_vec())
}

/// One branch, six that wait for it, and one that waits for those.
pub(crate) fn diamond() -> DefinitionSpec {
    let middle = ["m1", "m2", "m3", "m4", "m5", "m6"];
    let mut steps = vec![step("first", &[], "")];
    steps.extend(middle.map(|name| step(name, &["first"], "")));
    steps.push(step("last", &middle, ""));
    spec(steps)
}
