//! How others lost money, told of the real binary: failures of other orchestrators, by their rows in
//! `docs/peer-failures.md`. Rows that another story tells anyway are there, under their numbers.

use crate::common::api::{branch, message, shown, state, states, violations};
use crate::common::script::Seen;
use crate::common::{Api, Backstop, Bank, Engine, Reply, definition, step};
use backstop_proto::v1;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

async fn one_step(engine: Engine, settings: &[(&str, &str)]) -> (Backstop, Api, Bank) {
    let backstop = Backstop::start_with(engine, settings).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("one", [step("debit", "bank")])).await;
    (backstop, api, bank)
}

fn request(id: &str) -> Value {
    json!({ "definition": "one", "sagaId": id, "input": { "account": "acc-1", "cents": "5" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_10_any_id_is_taken_as_it_is_or_refused_by_its_field_on_sqlite() {
    any_id_is_taken_as_it_is_or_refused_by_its_field(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_10_any_id_is_taken_as_it_is_or_refused_by_its_field_on_postgres() {
    any_id_is_taken_as_it_is_or_refused_by_its_field(Engine::Postgres).await;
}

async fn any_id_is_taken_as_it_is_or_refused_by_its_field(engine: Engine) {
    let (mut backstop, api, bank) = one_step(engine, &[]).await;
    let long = "x".repeat(128);
    let ids = [
        "pay-7",
        "pay-70",
        "pay-7/debit",
        "pay-7/debit/action",
        "pay-_",
        "pay-%",
        "%",
        "_",
        "'",
        "''",
        "\"",
        "\\",
        "'; DROP TABLE saga; --",
        "$1",
        "?",
        "*",
        "{}",
        "null",
        "../pay-7",
        "%2e%2e",
        &long,
        &long[1..],
    ];
    let ids = ids.map(|id| id.replace(' ', "+"));
    for (n, id) in ids.iter().enumerate() {
        let mut json = request(id);
        json["input"]["cents"] = json!((n + 1).to_string());
        api.start_with(json).await.unwrap_or_else(|status| panic!("{id}: {status}"));
    }
    for (n, id) in ids.iter().enumerate() {
        let saga = api.rest(id).await;
        assert_eq!((saga.id.as_str(), state(&saga)), (id.as_str(), "SUCCEEDED"), "{}", shown(&saga));
        let seen: Vec<_> = bank.seen_of(id).iter().map(|seen| (seen.key(), seen.posting().cents)).collect();
        assert_eq!(seen, [(format!("{id}/debit/action"), n as i64 + 1)], "called once, with its own input");
    }
    // Page by page each of them once, whatever a page ends with.
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            v1::ListSagasRequest { page_size: 3, page_token, filter: "state = \"SUCCEEDED\"".into() };
        let page = api.sagas().list_sagas(request).await.unwrap().into_inner();
        listed.extend(page.sagas.into_iter().map(|saga| saga.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    listed.sort();
    let mut expected = ids.to_vec();
    expected.sort();
    assert_eq!(listed, expected);
    let too_long = "x".repeat(129);
    for id in [
        "two words",
        " ",
        "tab\there",
        "line\nbreak",
        "nul\0",
        "del\u{7f}",
        "grün",
        "支付-7",
        "💸",
        "\u{202e}7",
        &too_long,
    ] {
        let refused = api.start_with(request(id)).await.unwrap_err();
        let paths: Vec<String> = violations(&refused).into_iter().map(|(path, _)| path).collect();
        assert_eq!((refused.code(), paths), (Code::InvalidArgument, vec!["saga_id".to_owned()]), "{id:?}");
        assert!(refused.message().contains("1 to 128 visible ASCII characters"), "{refused}");
        assert_eq!(api.get(id).await.unwrap_err().code(), Code::InvalidArgument, "{id:?}");
    }
    assert_eq!(bank.seen().len(), ids.len(), "none of those was started");
    assert!(backstop.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_11_a_refusal_of_any_length_is_kept_bounded_with_a_mark_and_undone_all_the_same() {
    let (_backstop, api, bank) = one_step(Engine::Sqlite, &[]).await;
    api.define(definition("two", [step("debit", "bank"), step("credit", "bank").after(&["debit"])])).await;
    bank.answers(|seen| match seen.short().as_str() {
        "credit/action#1" => {
            let mut details = ErrorDetails::new();
            for n in 0..20 {
                details.add_bad_request_violation(format!("field_{n}"), "é".repeat(200));
            }
            let message = format!("{}{}", "ü".repeat(10_000), "the end");
            Reply::refuse(Status::with_error_details(Code::FailedPrecondition, message, details))
        }
        _ => Reply::Done,
    });
    let saga = api.run("two", "wordy").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let failure = branch(&saga, "credit").failure.clone().unwrap();
    assert_eq!(failure.grpc_code, "FAILED_PRECONDITION");
    assert!(
        failure.message.len() <= 2048 && failure.message.ends_with("…[cut]"),
        "{} bytes",
        failure.message.len()
    );
    assert!(failure.details_truncated && !failure.field_violations.is_empty());
    assert!(saga.transcript.iter().all(|line| line.chars().count() < 250), "{:#?}", saga.transcript);
    // The compensation bears the cause, and is not too large to be sent.
    let undone = bank.seen_of("wordy").into_iter().find(|seen| seen.phase() == "compensation").unwrap();
    let cause = undone.metadata.get_bin("backstop-cause-bin").unwrap().to_bytes().unwrap();
    assert!(cause.len() < 8 * 1024, "{} bytes", cause.len());
}

/// What must not be in any answer to a client.
const INTERNALS: [&str; 14] = [
    "relation",
    "select ",
    "insert ",
    "update ",
    "sqlx",
    "postgres",
    "column",
    "127.0.0.1",
    "_gone",
    "does not exist",
    "/tmp",
    ".rs:",
    "panicked",
    "pool",
];

/// With the patience of a caller.
fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_secs(3));
    request
}

fn leaks_nothing(what: &str, status: &Status) {
    let details = status.get_error_details();
    let text = format!("{} {details:?}", status.message()).to_lowercase();
    for internal in INTERNALS {
        assert!(!text.contains(internal), "{what} tells {internal:?}: {text}");
    }
    let typed = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
    assert!(typed, "{what}: {:?} {}", status.code(), status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_16_errors_of_the_store_are_typed_and_nothing_internal_reaches_clients() {
    let (mut backstop, api, _bank) = one_step(Engine::Postgres, &[]).await;
    api.run("one", "before").await;
    let sql = async |text: String| {
        let mut database = PgConnection::connect(&backstop.store_url()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut database).await.unwrap();
    };
    // Leases go on, so the coordinator serves; all else fails with the database's own words.
    let tables = ["saga", "journal", "definition", "participant"];
    let rename = |from: &str, to: &str| {
        let renames = tables.map(|table| format!("ALTER TABLE {table}{from} RENAME TO {table}{to};"));
        renames.concat()
    };
    sql(rename("", "_gone")).await;
    let mut statuses = Vec::new();
    let mut failed = |what: &'static str, status: Option<Status>| {
        let status = status.unwrap_or_else(|| panic!("{what} was answered without its tables"));
        // tonic's client calls its own deadline CANCELLED.
        if status.code() != Code::Cancelled {
            leaks_nothing(what, &status);
        }
        statuses.push(what);
    };
    let get = v1::GetSagaRequest { saga_id: "before".into(), view: 0 };
    failed("GetSaga", api.sagas().get_saga(get).await.err());
    failed("ListSagas", api.sagas().list_sagas(v1::ListSagasRequest::default()).await.err());
    let watch = v1::WatchSagaRequest { saga_id: "before".into(), after_seq: 0 };
    failed("WatchSaga", api.sagas().watch_saga(watch).await.err());
    let cancel = v1::CancelSagaRequest { saga_id: "before".into(), ..Default::default() };
    failed("CancelSaga", api.sagas().cancel_saga(timed(cancel)).await.err());
    failed(
        "StartSaga again",
        api.sagas().start_saga(timed(Api::start_request(request("before")))).await.err(),
    );
    failed("StartSaga", api.sagas().start_saga(timed(Api::start_request(request("during")))).await.err());
    failed("RegisterDefinition", api.try_define(definition("new", [step("a", "bank")])).await.err());
    let list = v1::ListDefinitionsRequest::default();
    failed("ListDefinitions", api.definitions().list_definitions(list).await.err());
    let get = v1::GetDefinitionRequest { name: "unknown".into(), revision: 7 };
    failed("GetDefinition", api.definitions().get_definition(get).await.err());
    let participant = json!({ "name": "p", "endpoints": ["http://127.0.0.1:1"] });
    failed("RegisterParticipant", api.register_participant(participant).await.err());
    let list = v1::ListParticipantsRequest::default();
    failed("ListParticipants", api.participants().list_participants(list).await.err());
    let retry = v1::RetryBranchRequest {
        saga_id: "before".into(),
        step: "debit".into(),
        by: "ann".into(),
        reason: "because".into(),
    };
    failed("RetryBranch", api.operator().retry_branch(timed(retry)).await.err());
    let release =
        v1::ReleaseSagaRequest { saga_id: "before".into(), by: "ann".into(), reason: "because".into() };
    failed("ReleaseSaga", api.operator().release_saga(timed(release)).await.err());
    failed("RunDoctor", api.operator().run_doctor(timed(v1::RunDoctorRequest::default())).await.err());
    assert_eq!(statuses.len(), 14);
    // Whoever runs the coordinator is told: the log has what clients have not.
    assert!(backstop.log().contains("does not exist"), "{}", backstop.log());

    sql(rename("_gone", "")).await;
    // Whether or not the start got as far as the journal's queue meanwhile: the same request is welcome again.
    api.start_with(request("during")).await.unwrap();
    let saga = api.rest("during").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    assert!(!backstop.log().contains("panicked"), "{}", backstop.log());
    assert!(backstop.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_28_whatever_is_too_large_is_named_by_its_field_and_limit() {
    let settings = [
        ("BACKSTOP_LIMITS__INPUT_BYTES_MAX", "1000"),
        ("BACKSTOP_LIMITS__LABEL_BYTES_MAX", "20"),
        ("BACKSTOP_LIMITS__LABELS_MAX", "2"),
        ("BACKSTOP_LIMITS__REQUEST_BYTES_MAX", "100000"),
        ("BACKSTOP_LIMITS__DEFINITION_BYTES_MAX", "5000"),
    ];
    let (mut backstop, api, bank) = one_step(Engine::Sqlite, &settings).await;
    let mut raw = definition("raw", [step("debit", "bank")]);
    raw["steps"][0]["action"].as_object_mut().unwrap().remove("request");
    api.define(raw).await;
    let with = |field: &str, value: Value| {
        let mut json = request("large");
        json[field] = value;
        json
    };
    let mut payload: v1::StartSagaRequest =
        message("backstop.v1.StartSagaRequest", json!({ "definition": "raw", "sagaId": "large" }));
    payload.payloads.insert("debit".to_owned(), vec![1; 1001].into());
    let cases = [
        ("input", "1000", Api::start_request(with("input", json!({ "account": "x".repeat(1000) })))),
        ("payloads.debit", "1000", payload),
        ("labels.branch", "20", Api::start_request(with("labels", json!({ "branch": "x".repeat(21) })))),
        ("labels", "2", Api::start_request(with("labels", json!({ "a": "1", "b": "2", "c": "3" })))),
        ("(request)", "100000", Api::start_request(with("input", json!({ "account": "x".repeat(100_001) })))),
    ];
    for (field, limit, request) in cases {
        let refused = api.sagas().start_saga(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused}");
        let found = violations(&refused);
        let [(path, description)] = found.as_slice() else { panic!("{field}: {found:?}") };
        assert_eq!(path, field);
        assert!(description.contains(limit), "{field}: the limit is not in {description}");
    }
    let mut big = definition("big", [step("debit", "bank")]);
    big["description"] = json!("x".repeat(5000));
    let refused = api.try_define(big).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(violations(&refused).iter().any(|(_, description)| description.contains("5000")), "{refused}");
    assert_eq!(api.get("large").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(bank.seen().len(), 0);
    assert!(backstop.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_46_255_branches_at_once_and_their_join_run_to_either_end_and_257_steps_are_refused() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "inFlightMax": 1000 })).await;
    let names: Vec<String> = (0..255).map(|n| format!("s{n}")).collect();
    let patient =
        |name: &str| step(name, "bank").with("/action/timeout", "60s").with("/compensation/timeout", "60s");
    let mut steps: Vec<_> = names.iter().map(|name| patient(name)).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    steps.push(patient("join").after(&all));
    api.define(definition("fan", steps.clone())).await;
    // Nobody is answered before all have come.
    let together = Arc::new(Barrier::new(255));
    bank.answers(move |seen: &Seen| {
        match (seen.step().as_str(), seen.phase().as_str(), seen.saga().as_str()) {
            ("join", "action", "bad") => Reply::status(Code::FailedPrecondition, "no"),
            ("join", ..) => Reply::Done,
            _ => Reply::Together(Arc::clone(&together), Box::new(Reply::Done)),
        }
    });
    let saga = api.run("fan", "good").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    assert_eq!(bank.seen_of("good").len(), 256);
    let saga = api.run("fan", "bad").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    assert_eq!(states(&saga).values().filter(|state| *state == "COMPENSATED").count(), 255);
    assert_eq!(bank.seen_of("bad").len(), 256 + 255);

    steps.push(patient("one_more"));
    let refused = api.try_define(definition("fan", steps)).await.unwrap_err();
    let found = violations(&refused);
    assert_eq!(found, [("steps".to_owned(), "has 257 entries; the limit is 256".to_owned())], "{refused}");
}
