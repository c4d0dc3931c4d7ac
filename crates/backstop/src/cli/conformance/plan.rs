//! What is called, with which requests: flags made into methods and templates, every fault before any call.
//!
//! # Invariants
//! * A request that does not fit its method's message is refused before anything is booked.
//!
//! # Not here
//! Backstop's own templates: a check needs no more than an id and the reply's fields.

use super::Conformance;
use super::peer::Peer;
use crate::cli::error::CliError;
use crate::cli::file::descriptor_set;
use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use std::collections::BTreeSet;
use tonic::codegen::http::uri::PathAndQuery;

const SAGA_ID: &str = "${saga.id}";
const RESPONSE: &str = "${response.";

/// Every call that the checks make.
pub(super) struct Plan {
    pub(super) action: Template,
    pub(super) compensation: Template,
    pub(super) query: Option<Template>,
    pub(super) refused: Option<Template>,
    pub(super) other: Option<Template>,
    pub(super) read: Option<(Template, String)>,
}

/// A method and a request to it.
#[derive(Debug, Clone)]
pub(super) struct Template {
    method: MethodDescriptor,
    pub(super) path: PathAndQuery,
    request: Value,
}

impl Plan {
    pub(super) async fn make(args: &Conformance, peer: &Peer) -> Result<Self, CliError> {
        let methods = [Some(&args.action), Some(&args.compensation), args.query.as_ref(), args.read.as_ref()];
        let mut services = BTreeSet::new();
        for method in methods.into_iter().flatten() {
            services.insert(split(method)?.0);
        }
        let files = match &args.descriptors {
            Some(path) => descriptor_set(path)?,
            None => peer.files(&services).await?,
        };
        let pool = DescriptorPool::from_file_descriptor_set(files)
            .map_err(|error| CliError::Unfit(format!("the service's descriptors: {error}")))?;
        let template = |flag: &str, method: &str, request: &str| Template::make(&pool, flag, method, request);
        let of_action = |flag: &str, request: &Option<String>| {
            request.as_deref().map(|request| template(flag, &args.action, request)).transpose()
        };
        let query = args.query.as_deref().zip(args.query_request.as_deref());
        let read = args.read.as_deref().zip(args.read_request.as_deref()).zip(args.read_path.as_deref());
        let plan = Self {
            action: template("--action-request", &args.action, &args.action_request)?,
            compensation: template("--compensation-request", &args.compensation, &args.compensation_request)?,
            query: query.map(|(method, request)| template("--query-request", method, request)).transpose()?,
            refused: of_action("--refused-request", &args.refused_request)?,
            other: of_action("--other-request", &args.other_request)?,
            read: read
                .map(|((method, request), path)| {
                    template("--read-request", method, request).map(|template| (template, path.to_owned()))
                })
                .transpose()?,
        };
        if let Some(other) = &plan.other
            && other.request == plan.action.request
        {
            return Err(CliError::Unfit("--other-request is the same as --action-request".to_owned()));
        }
        Ok(plan)
    }
}

impl Template {
    fn make(pool: &DescriptorPool, flag: &str, method: &str, request: &str) -> Result<Self, CliError> {
        let (service, name) = split(method)?;
        let unfit = |problem: String| CliError::Unfit(format!("{flag}: {problem}"));
        let found = pool
            .get_service_by_name(service)
            .and_then(|service| service.methods().find(|candidate| candidate.name() == name))
            .ok_or_else(|| CliError::Unfit(format!("the service has no method {method}")))?;
        if found.is_client_streaming() || found.is_server_streaming() {
            return Err(CliError::Unfit(format!("{method} is a streaming method; sagas call unary ones")));
        }
        let request: Value =
            serde_json::from_str(request).map_err(|error| unfit(format!("it is no JSON: {error}")))?;
        let path = PathAndQuery::try_from(format!("/{service}/{name}"))
            .map_err(|error| CliError::Unfit(format!("{method}: {error}")))?;
        let template = Self { method: found, path, request };
        template.render("an-id", None).map_err(unfit)?;
        Ok(template)
    }

    /// The method's own name.
    pub(super) fn name(&self) -> &str {
        self.method.name()
    }

    /// The request for a saga, encoded and as it is shown.
    pub(super) fn render(&self, saga_id: &str, response: Option<&Value>) -> Result<(Bytes, Value), String> {
        let filled = filled(&self.request, saga_id, response)?;
        let message = DynamicMessage::deserialize(self.method.input(), filled.clone())
            .map_err(|error| error.to_string())?;
        Ok((message.encode_to_vec().into(), filled))
    }

    /// A reply as JSON, fields with their default value included.
    pub(super) fn reply(&self, bytes: Bytes) -> Result<Value, String> {
        let message =
            DynamicMessage::decode(self.method.output(), bytes).map_err(|error| error.to_string())?;
        let options = SerializeOptions::new().skip_default_fields(false);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| error.to_string())
    }
}

/// A value with its placeholders filled in; a reply that is not there is null, which protobuf takes for the default.
fn filled(value: &Value, saga_id: &str, response: Option<&Value>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => match text.strip_prefix(RESPONSE).and_then(|rest| rest.strip_suffix('}')) {
            Some(path) => response.map_or(Value::Null, |response| at(response, path).clone()),
            None => {
                let text = text.replace(SAGA_ID, saga_id);
                if text.contains("${") {
                    return Err(format!("{text}: a check knows ${{saga.id}} and ${{response.FIELD}} alone"));
                }
                Value::String(text)
            }
        },
        Value::Array(items) => {
            items.iter().map(|item| filled(item, saga_id, response)).collect::<Result<_, _>>()?
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                filled(value, saga_id, response).map(|value| (name.clone(), value))
            };
            Value::Object(fields.iter().map(field).collect::<Result<_, _>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// The value at `a.b.0.c`, in either spelling of a field's name, items counted from 0; null if there is none.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    let step = |value: &'a Value, name: &str| match value {
        Value::Object(fields) => fields.get(name).or_else(|| fields.get(&camel(name))),
        Value::Array(items) => name.parse::<usize>().ok().and_then(|place| items.get(place)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    path.split('.').fold(value, |value, name| step(value, name).unwrap_or(&Value::Null))
}

/// `available_minor` as protobuf's JSON mapping writes it.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut out, word| {
        let mut letters = word.chars();
        out.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        out.push_str(letters.as_str());
        out
    })
}

fn split(method: &str) -> Result<(&str, &str), CliError> {
    method
        .trim_start_matches('/')
        .split_once('/')
        .filter(|(service, name)| !service.is_empty() && !name.is_empty() && !name.contains('/'))
        .ok_or_else(|| CliError::Unfit(format!("{method} is not of the form PACKAGE.SERVICE/METHOD")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn placeholders_are_an_id_and_the_replys_fields_and_nothing_else() {
        let template =
            json!({ "id": "t-${saga.id}", "list": ["${response.a.b}"], "n": 7, "k": "${response.entry_id}" });
        let reply = json!({ "a": { "b": "x" }, "entryId": "9" });
        let full = filled(&template, "s1", Some(&reply)).unwrap();
        assert_eq!(full, json!({ "id": "t-s1", "list": ["x"], "n": 7, "k": "9" }));
        let empty = filled(&template, "s1", None).unwrap();
        assert_eq!(empty, json!({ "id": "t-s1", "list": [null], "n": 7, "k": null }));
        let list = json!({ "accounts": [{ "availableMinor": "1" }, { "availableMinor": "2" }] });
        assert_eq!(at(&list, "accounts.1.available_minor"), "2");
        assert_eq!(at(&list, "accounts.2.available_minor"), &Value::Null);
        assert!(filled(&json!("${input.x}"), "s1", None).unwrap_err().contains("alone"));
    }
}
