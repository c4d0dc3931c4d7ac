//! Templates as stories: what is rendered, and what is refused at registration.

mod faults;
mod limits;
mod properties;
mod rendering;

use super::Template;
use crate::participants::fixture::{self, message, message_type, saga, spec, step};
use crate::participants::plan::{Plan, Source};
use backstop_core::{DefinitionSpec, Phase};
use bytes::Bytes;
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::{Value as Json, json};

const BYTES_MAX: usize = 1 << 20;

/// `debit` with a plain request, then `credit`, which depends on it, with this one.
fn transfer(credit: &Json) -> DefinitionSpec {
    spec(vec![step("debit", &[], r#"{"account": "A"}"#), step("credit", &["debit"], &credit.to_string())])
}

fn plan(spec: &DefinitionSpec) -> Plan {
    Plan::compile(spec, &fixture::files().encode_to_vec()).unwrap()
}

fn template(plan: &Plan, step: usize, phase: Phase) -> &Template {
    match &plan.call(step, phase).unwrap().request {
        Source::Template(template) => template,
        Source::Payload => panic!("no template"),
    }
}

fn reply(json: &Json) -> Bytes {
    message("bank.v1.Reply", json).encode_to_vec().into()
}

fn render(request: &Json, input: &Json, debit: &Json) -> Result<Bytes, String> {
    let spec = transfer(request);
    let saga = saga(&spec, input, &[("debit", reply(debit))]);
    template(&plan(&spec), 1, Phase::Action).render(&saga, 1, BYTES_MAX)
}

/// Renders the request of `credit` and shows it as protobuf's JSON mapping does.
fn shown(request: &Json, input: &Json, debit: &Json) -> Json {
    let bytes = render(request, input, debit).unwrap();
    serde_json::to_value(DynamicMessage::decode(message_type("bank.v1.Request"), bytes).unwrap()).unwrap()
}

fn refused(request: &Json, input: &Json, debit: &Json) -> String {
    render(request, input, debit).unwrap_err()
}

fn faults(request: &Json) -> Vec<String> {
    let found = Plan::compile(&transfer(request), &fixture::files().encode_to_vec()).err().unwrap();
    found.iter().map(ToString::to_string).collect()
}

/// Faults of one field's value, without the path up to it.
fn fault(request: &Json) -> String {
    let found = faults(request);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].strip_prefix("steps[1].action.request").unwrap_or_else(|| panic!("{}", found[0])).to_owned()
}
