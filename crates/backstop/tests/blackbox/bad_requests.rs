//! Whatever a client sends, it gets a typed answer that is never INTERNAL, and the server goes on.

use crate::common::api::{message, state, violations};
use crate::common::{Api, Backstop, Bank, Engine, definition, step, tool};
use backstop_proto::v1;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

async fn server() -> (Backstop, Api, Bank) {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("one", [step("debit", "bank")])).await;
    (backstop, api, bank)
}

async fn still_works(backstop: &mut Backstop) {
    assert!(backstop.is_alive());
    assert!(!backstop.log().contains("panicked"), "{}", backstop.log());
    assert_eq!(state(&backstop.api().run("one", "afterwards").await), "SUCCEEDED");
}

/// A status, the paths that it names, and its ErrorInfo's domain.
fn told(status: &Status) -> (Code, Vec<String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status} has no ErrorInfo"));
    assert_eq!(info.domain, "backstop");
    assert!(!info.reason.is_empty());
    (status.code(), violations(status).into_iter().map(|(path, _)| path).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_be_names_the_field() {
    let (mut backstop, api, bank) = server().await;
    let good = json!({ "definition": "one", "sagaId": "x", "input": { "account": "a", "cents": "1" } });
    let with = |field: &str, value: Value| {
        let mut json = good.clone();
        json[field] = value;
        json
    };
    let many_labels: Value =
        (0..17).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let cases = [
        (with("definition", json!("")), Code::InvalidArgument, "definition"),
        (with("definition", json!("No Name")), Code::InvalidArgument, "definition"),
        (with("sagaId", json!("two words")), Code::InvalidArgument, "saga_id"),
        (with("sagaId", json!("x".repeat(129))), Code::InvalidArgument, "saga_id"),
        (with("sagaId", json!("line\nbreak")), Code::InvalidArgument, "saga_id"),
        (with("input", json!({ "cents": 9_007_199_254_740_993_u64 })), Code::InvalidArgument, "input.cents"),
        (with("input", json!({ "cents": 1e300 })), Code::InvalidArgument, "input.cents"),
        (with("labels", many_labels), Code::InvalidArgument, "labels"),
        (with("wait", json!("601s")), Code::InvalidArgument, "wait"),
        (with("wait", json!("-1s")), Code::InvalidArgument, "wait"),
        (with("payloads", json!({ "nobody": "AA==" })), Code::InvalidArgument, "payloads"),
        (with("payloads", json!({ "debit": "AA==" })), Code::InvalidArgument, "payloads"),
    ];
    let mut wrong = Vec::new();
    for (json, code, path) in cases {
        let request = Api::start_request(json.clone());
        match api.sagas().start_saga(request).await {
            Ok(_) => wrong.push(format!("accepted: {json}")),
            Err(status) => {
                let (said, paths) = told(&status);
                if said != code || paths.len() != 1 || !paths[0].starts_with(path) {
                    wrong.push(format!("{said:?} {paths:?}, not {path}: {json}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(bank.seen().len(), 0, "none of it was started");
    still_works(&mut backstop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_are_not_found_everywhere() {
    let (mut backstop, api, _bank) = server().await;
    api.run("one", "known").await;
    let mut codes = Vec::new();
    let nobody = || "nobody".to_owned();
    let start = |json| Api::start_request(json);
    codes.push(api.sagas().start_saga(start(json!({ "definition": "nobody" }))).await.unwrap_err());
    codes.push(
        api.sagas().start_saga(start(json!({ "definition": "one", "revision": 9 }))).await.unwrap_err(),
    );
    codes.push(api.get("nobody").await.unwrap_err());
    let cancel = v1::CancelSagaRequest { saga_id: nobody(), ..Default::default() };
    codes.push(api.sagas().cancel_saga(cancel).await.unwrap_err());
    let get = v1::GetDefinitionRequest { name: nobody(), revision: 0 };
    codes.push(api.definitions().get_definition(get).await.unwrap_err());
    let simulate = v1::SimulateDefinitionRequest { name: nobody(), ..Default::default() };
    codes.push(api.definitions().simulate_definition(simulate).await.unwrap_err());
    let get = v1::GetParticipantRequest { name: nobody() };
    codes.push(api.participants().get_participant(get).await.unwrap_err());
    let retry = |saga_id: &str, step: &str| v1::RetryBranchRequest {
        saga_id: saga_id.to_owned(),
        step: step.to_owned(),
        by: "ann".to_owned(),
        reason: "why not".to_owned(),
    };
    codes.push(api.operator().retry_branch(retry("nobody", "debit")).await.unwrap_err());
    for status in &codes {
        assert_eq!(told(status).0, Code::NotFound, "{status}");
    }
    still_works(&mut backstop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_page_token_or_page_size_that_cannot_be_is_invalid() {
    let (mut backstop, api, _bank) = server().await;
    let list = |json: Value| {
        let api = api.clone();
        async move {
            let request: v1::ListSagasRequest = message("backstop.v1.ListSagasRequest", json);
            api.sagas().list_sagas(request).await
        }
    };
    for json in [
        json!({ "pageSize": -1 }),
        json!({ "pageToken": "nonsense" }),
        json!({ "pageToken": "AAAA" }),
        json!({ "filter": "state" }),
        json!({ "filter": "state = " }),
        json!({ "filter": "state = \"ASLEEP\"" }),
        json!({ "filter": "colour = \"red\"" }),
        json!({ "filter": "fin_code = \"40005\"" }),
        json!({ "filter": "definition = \"' OR 1=1 --\"" }),
        json!({ "filter": "create_time >= \"yesterday\"" }),
        json!({ "filter": "definition = \"unterminated" }),
        json!({ "filter": "definition = \"a\" OR definition = \"b\" AND" }),
        json!({ "filter": "x".repeat(100_000) }),
        json!({ "filter": format!("{}state = \"RUNNING\"{}", "(".repeat(5_000), ")".repeat(5_000)) }),
    ] {
        let shown: String = json.to_string().chars().take(80).collect();
        let status = list(json).await.err().unwrap_or_else(|| panic!("accepted: {shown}"));
        assert_eq!(told(&status).0, Code::InvalidArgument, "{shown}: {status}");
    }
    for json in [json!({ "pageSize": 1_000_000 }), json!({})] {
        list(json).await.expect("a page size too large counts as the largest");
    }
    still_works(&mut backstop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_cannot_be_names_the_field() {
    let (mut backstop, api, _bank) = server().await;
    let good = json!({ "name": "p", "endpoints": ["http://127.0.0.1:1"] });
    let with = |field: &str, value: Value| {
        let mut json = good.clone();
        json[field] = value;
        json
    };
    let too_many: Vec<_> = (0..65).map(|n| format!("http://127.0.0.1:{}", 1000 + n)).collect();
    for (json, path) in [
        (with("name", json!("")), "participant.name"),
        (with("name", json!("Not A Name")), "participant.name"),
        (with("endpoints", json!([])), "participant.endpoints"),
        (with("endpoints", json!(["http://127.0.0.1:1", "ftp://x"])), "participant.endpoints[1]"),
        (with("endpoints", json!(["127.0.0.1:1"])), "participant.endpoints[0]"),
        (with("endpoints", json!([""])), "participant.endpoints[0]"),
        (with("endpoints", json!(too_many)), "participant.endpoints"),
        (with("keepaliveInterval", json!("-1s")), "participant.keepalive_interval"),
    ] {
        let status = api.register_participant(json.clone()).await.err();
        let status = status.unwrap_or_else(|| panic!("accepted: {json}"));
        let (code, paths) = told(&status);
        assert_eq!((code, paths), (Code::InvalidArgument, vec![path.to_owned()]), "{json}");
    }
    still_works(&mut backstop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_must_say_who_and_why() {
    let (mut backstop, api, _bank) = server().await;
    api.run("one", "over").await;
    let retry = |by: &str, reason: &str| v1::RetryBranchRequest {
        saga_id: "over".to_owned(),
        step: "debit".to_owned(),
        by: by.to_owned(),
        reason: reason.to_owned(),
    };
    for (by, reason, path) in [
        ("", "because", "by"),
        ("ann", "", "reason"),
        (&"x".repeat(129), "r", "by"),
        ("ann", &"x".repeat(1025), "reason"),
    ] {
        let status = api.operator().retry_branch(retry(by, reason)).await.unwrap_err();
        assert_eq!(told(&status), (Code::InvalidArgument, vec![path.to_owned()]));
    }
    let status = api.operator().retry_branch(retry("ann", "because")).await.unwrap_err();
    assert_eq!(told(&status).0, Code::FailedPrecondition, "nothing waits for her");
    let resolve = v1::ResolveBranchRequest {
        saga_id: "over".to_owned(),
        step: "debit".to_owned(),
        by: "ann".to_owned(),
        reason: "because".to_owned(),
        resolution: 0,
    };
    let status = api.operator().resolve_branch(resolve).await.unwrap_err();
    assert_eq!(told(&status), (Code::InvalidArgument, vec!["resolution".to_owned()]));
    let cancel =
        v1::CancelSagaRequest { saga_id: "over".to_owned(), reason: "late".to_owned(), by: String::new() };
    assert_eq!(told(&api.sagas().cancel_saga(cancel).await.unwrap_err()).0, Code::FailedPrecondition);
    still_works(&mut backstop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_get_a_typed_answer() {
    let (mut backstop, api, bank) = server().await;
    // Within what gRPC takes, over what a saga may have.
    let json = json!({ "definition": "one", "sagaId": "big", "input": { "account": "x".repeat(1_200_000) } });
    let status = api.start_with(json).await.unwrap_err();
    assert_eq!(told(&status), (Code::InvalidArgument, vec!["input".to_owned()]));
    // Over what gRPC takes.
    for size in [5 << 20, 20 << 20] {
        let json = json!({ "definition": "one", "sagaId": "huge", "input": { "account": "x".repeat(size) } });
        let status = api.start_with(json).await.unwrap_err();
        let typed =
            matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange);
        assert!(typed, "{size} bytes: {:?} {}", status.code(), status.message());
    }
    assert_eq!(bank.seen().len(), 0);
    assert_eq!(backstop.api().get("huge").await.unwrap_err().code(), Code::NotFound);
    still_works(&mut backstop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_and_methods_that_are_not_there_are_refused() {
    let (mut backstop, api, _bank) = server().await;
    let address = backstop.address();
    let malformed = tool::call(address, &["-d", "{ \"saga_id\": "], &["backstop.v1.SagaService/GetSaga"]);
    assert!(!malformed.status.success());
    for (method, data) in [
        ("backstop.v1.SagaService/GetSaga", r#"{"saga_id": 7}"#),
        ("backstop.v1.SagaService/GetSaga", r#"{"colour": "red"}"#),
        ("backstop.v1.SagaService/GetSaga", r#"{}"#),
        ("backstop.v1.SagaService/Nothing", r#"{}"#),
        ("backstop.v1.Nobody/GetSaga", r#"{}"#),
    ] {
        let output = tool::call(address, &["-d", data], &[method]);
        let said = tool::said(&output);
        assert!(!output.status.success(), "{method} {data}: {said}");
        assert!(!said.contains("Internal"), "{method} {data}: {said}");
    }
    // Raw garbage under a right path.
    let mut client = tonic::client::Grpc::new(api.channel());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/backstop.v1.SagaService/StartSaga");
    let garbage = v1::GetSagaRequest { saga_id: "\u{7f}".repeat(50), view: 77 };
    let codec = tonic_prost::ProstCodec::<v1::GetSagaRequest, v1::StartSagaResponse>::default();
    let status = client.unary(tonic::Request::new(garbage), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    still_works(&mut backstop).await;
}
