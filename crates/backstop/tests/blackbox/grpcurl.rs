//! All that an application needs, with nothing but `grpcurl -plaintext`.

use crate::common::tool::{call, call_ok, said};
use crate::common::{Backstop, Bank, Engine, Gate, Reply, definition, step};
use serde_json::{Value, json};
use tonic::Code;
use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn post(address: &str, method: &str, data: &Value) -> Value {
    json_of(&call_ok(address, &["-d", &data.to_string()], &[&format!("backstop.v1.{method}")]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_from_registration_to_cancelling_with_grpcurl_alone_on_sqlite() {
    a_saga_from_registration_to_cancelling_with_grpcurl_alone(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_from_registration_to_cancelling_with_grpcurl_alone_on_postgres() {
    a_saga_from_registration_to_cancelling_with_grpcurl_alone(Engine::Postgres).await;
}

async fn a_saga_from_registration_to_cancelling_with_grpcurl_alone(engine: Engine) {
    let backstop = Backstop::start(engine).await;
    let address = backstop.address();
    let bank = Bank::start("bank").await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |seen| match (seen.saga().as_str(), seen.step().as_str(), seen.phase().as_str()) {
        ("curl-2", "credit", "action") => Reply::status(Code::FailedPrecondition, "account closed"),
        ("curl-3", "debit", "action") => Reply::Done.after(&held),
        _ => Reply::Done,
    });

    let services = call_ok(address, &[], &["list"]);
    for service in [
        "backstop.v1.DefinitionService",
        "backstop.v1.OperatorService",
        "backstop.v1.ParticipantService",
        "backstop.v1.SagaService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(services.lines().any(|line| line == service), "{service} is not in\n{services}");
    }
    // Older clients ask the older version; it answers the same.
    let mut older = ServerReflectionClient::new(backstop.api().channel());
    let list = MessageRequest::ListServices(String::new());
    let question = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let answers = older.server_reflection_info(tokio_stream::once(question)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().expect("an answer");
    assert!(format!("{answer:?}").contains("backstop.v1.SagaService"), "{answer:?}");
    let described = call_ok(address, &[], &["describe", "backstop.v1.SagaService"]);
    for word in ["rpc StartSaga", "rpc WatchSaga", "stream", "Asks for a rollback"] {
        assert!(described.contains(word), "the manual lacks {word:?}:\n{described}");
    }
    let described = call_ok(address, &[], &["describe", "backstop.v1.StartSagaRequest"]);
    assert!(described.contains("How long to wait for the end"), "fields are documented:\n{described}");

    let participant = json!({ "participant": { "name": "bank", "endpoints": [bank.endpoint()] } });
    let registered = post(address, "ParticipantService/RegisterParticipant", &participant);
    assert_eq!(registered["participant"]["name"], "bank");
    let long = |name: &str| step(name, "bank").with("/action/timeout", "60s");
    let transfer = definition("transfer", [long("debit"), long("credit").after(&["debit"])]);
    let defined = post(address, "DefinitionService/RegisterDefinition", &json!({ "definition": transfer }));
    assert_eq!((&defined["definition"]["revision"], &defined["created"]), (&json!(1), &json!(true)));

    let start = |id: &str, wait: &str| {
        json!({
            "definition": "transfer", "saga_id": id, "wait": wait, "labels": { "customer": "42" },
            "input": { "account": "acc-1", "cents": "1250" },
        })
    };
    let started = post(address, "SagaService/StartSaga", &start("curl-1", "30s"));
    assert_eq!(started["saga"]["state"], "SAGA_STATE_SUCCEEDED", "{started:#}");
    let refused = post(address, "SagaService/StartSaga", &start("curl-2", "30s"));
    assert_eq!(refused["saga"]["state"], "SAGA_STATE_ROLLED_BACK", "{refused:#}");

    let got = post(address, "SagaService/GetSaga", &json!({ "saga_id": "curl-2" }));
    assert_eq!(got["saga"]["finCode"], "FIN-40005", "{got:#}");
    let last = got["saga"]["transcript"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
    assert!(last.contains("rolled back"), "{got:#}");
    let filter = json!({ "filter": "state = \"ROLLED_BACK\" AND labels.customer = \"42\"" });
    let listed = post(address, "SagaService/ListSagas", &filter);
    let ids: Vec<_> = listed["sagas"].as_array().unwrap().iter().map(|saga| saga["id"].clone()).collect();
    assert_eq!(ids, ["curl-2"]);

    let watched =
        call_ok(address, &["-d", r#"{"saga_id": "curl-2"}"#], &["backstop.v1.SagaService/WatchSaga"]);
    let events = serde_json::Deserializer::from_str(&watched).into_iter::<Value>();
    let types: Vec<_> =
        events.map(|event| event.unwrap()["event"]["type"].as_str().unwrap().to_owned()).collect();
    let expected = [
        "STARTED",
        "ACTION_SUCCEEDED",
        "ACTION_FAILED",
        "ROLLBACK_DECIDED",
        "COMPENSATION_SUCCEEDED",
        "ROLLED_BACK",
    ];
    assert_eq!(types, expected.map(|name| format!("TYPE_{name}")));

    let mut waiting = start("curl-3", "0s");
    waiting.as_object_mut().unwrap().remove("wait");
    assert_eq!(post(address, "SagaService/StartSaga", &waiting)["saga"]["state"], "SAGA_STATE_RUNNING");
    bank.until_seen("curl-3", |seen| seen.saga() == "curl-3").await;
    let cancel = json!({ "saga_id": "curl-3", "reason": "wrong account", "by": "ann" });
    let cancelled = post(address, "SagaService/CancelSaga", &cancel);
    assert_eq!(cancelled["saga"]["state"], "SAGA_STATE_ROLLING_BACK");
    gate.open();
    let saga = backstop.api().rest("curl-3").await;
    assert_eq!(crate::common::api::state(&saga), "ROLLED_BACK");

    let again = call(address, &["-d", &cancel.to_string()], &["backstop.v1.SagaService/CancelSaga"]);
    assert!(said(&again).contains("FailedPrecondition"), "{}", said(&again));
    assert!(said(&again).contains("google.rpc.ErrorInfo"), "the details are readable: {}", said(&again));
}
