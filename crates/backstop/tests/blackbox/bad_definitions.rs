//! Each fault of a definition that DESIGN 3.1 lists is refused with INVALID_ARGUMENT and its own path,
//! all of them at once, and nothing is stored.

use crate::common::api::{message, violations};
use crate::common::definition::{ACT, Step};
use crate::common::{Backstop, Bank, Engine, definition, step};
use backstop_proto::v1;
use serde_json::{Value, json};
use tonic::Code;

/// A definition, and the paths that must be named, each once.
struct Case {
    what: &'static str,
    definition: Value,
    paths: &'static [&'static str],
}

fn case(what: &'static str, steps: impl IntoIterator<Item = Step>, paths: &'static [&'static str]) -> Case {
    Case { what, definition: definition("faulty", steps), paths }
}

fn cases() -> Vec<Case> {
    let action = |field: &str, value: Value| step("a", "bank").with(&format!("/action/{field}"), value);
    let mut unnamed = case("an empty name", [step("a", "bank")], &["name"]);
    unnamed.definition["name"] = json!("");
    let mut deadline = case("a deadline of nothing", [step("a", "bank")], &["deadline"]);
    deadline.definition["deadline"] = json!("0s");
    let mut domain = case("an unknown error domain", [step("a", "bank")], &["error_domain"]);
    domain.definition["errorDomain"] = json!("nowhere");
    let mut uncompensated = step("a", "bank");
    uncompensated.0.as_object_mut().unwrap().remove("compensation");
    let many = (0..257).map(|n| step(&format!("s{n}"), "bank"));
    vec![
        unnamed,
        deadline,
        domain,
        uncompensated_case(uncompensated),
        case("no steps", [], &["steps"]),
        case("more than 256 steps", many, &["steps"]),
        case("a duplicate name", [step("a", "bank"), step("a", "bank")], &["steps[1].name"]),
        case("a name that is no identifier", [step("A-b", "bank")], &["steps[0].name"]),
        case("an unknown dependency", [step("a", "bank").after(&["zz"])], &["steps[0].depends_on[0]"]),
        case("itself as dependency", [step("a", "bank").after(&["a"])], &["steps[0].depends_on[0]"]),
        case(
            "a second pivot",
            [step("a", "bank").kind("PIVOT"), step("b", "bank").kind("PIVOT").after(&["a"])],
            &["steps[1].kind"],
        ),
        case(
            "a compensatable step after the pivot",
            [step("a", "bank").kind("PIVOT"), step("b", "bank").after(&["a"])],
            &["steps[1].kind"],
        ),
        case(
            "a read-only step beside the pivot",
            [step("a", "bank").kind("PIVOT"), step("b", "bank").kind("READ_ONLY")],
            &["steps[1].kind"],
        ),
        case("a retriable step without pivot", [step("a", "bank").kind("RETRIABLE")], &["steps[0].kind"]),
        case(
            "an unknown participant",
            [step("a", "bank").with("/action/participant", "nobody")],
            &["steps[0].action.participant"],
        ),
        case(
            "an unknown method",
            [action("method", json!("testbank.v1.Bank/Nothing"))],
            &["steps[0].action.method"],
        ),
        case(
            "an unknown service",
            [action("method", json!("testbank.v1.Nobody/Act"))],
            &["steps[0].action.method"],
        ),
        case("a method that is none", [action("method", json!("Act"))], &["steps[0].action.method"]),
        case(
            "a streaming method",
            [action("method", json!("testbank.v1.Bank/Follow"))],
            &["steps[0].action.method"],
        ),
        case(
            "a template that does not parse",
            [action("request", json!({ "account": "${input." }))],
            &["steps[0].action.request.account"],
        ),
        case(
            "a field that the message lacks",
            [action("request", json!({ "acount": "x" }))],
            &["steps[0].action.request.acount"],
        ),
        case(
            "a text where a number belongs",
            [action("request", json!({ "cents": "much" }))],
            &["steps[0].action.request.cents"],
        ),
        case(
            "an object where a text belongs",
            [action("request", json!({ "account": { "id": "x" } }))],
            &["steps[0].action.request.account"],
        ),
        case(
            "a wrong type deep in a list",
            [action("request", json!({ "tags": ["fine", true] }))],
            &["steps[0].action.request.tags[1]"],
        ),
        case(
            "a response of a step that does not come before",
            [step("a", "bank"), step("b", "bank").with("/action/request/memo", "${steps.a.response.id}")],
            &["steps[1].action.request.memo"],
        ),
        case(
            "a cause in an action",
            [action("request", json!({ "memo": "${cause.message}" }))],
            &["steps[0].action.request.memo"],
        ),
        case("a timeout of nothing", [action("timeout", json!("0s"))], &["steps[0].action.timeout"]),
        case("a negative timeout", [action("timeout", json!("-1s"))], &["steps[0].action.timeout"]),
        case(
            "a query that is not there",
            [step("a", "bank").with("/inDoubt", "IN_DOUBT_QUERY")],
            &["steps[0].query"],
        ),
        case(
            "resending to one that does not deduplicate",
            [step("a", "bank").with("/inDoubt", "IN_DOUBT_RESEND")],
            &["steps[0].in_doubt"],
        ),
        case(
            "several faults at once",
            [
                step("a", "bank").with("/action/timeout", "0s").after(&["b"]),
                step("b", "bank").with("/compensation/method", "testbank.v1.Bank/Nothing"),
                step("b", "nobody").after(&["zz"]),
            ],
            &[
                "steps[0].action.timeout",
                "steps[1].compensation.method",
                "steps[2].name",
                "steps[2].depends_on[0]",
                "steps[2].action.participant",
                "steps[2].compensation.participant",
            ],
        ),
    ]
}

fn uncompensated_case(step: Step) -> Case {
    case("a compensatable step without compensation", [step], &["steps[0].compensation"])
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_27_each_fault_is_refused_with_its_own_path() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let mut wrong = Vec::new();
    for case in cases() {
        match api.try_define(case.definition).await {
            Ok(_) => wrong.push(format!("{}: accepted", case.what)),
            Err(status) => {
                let said = violations(&status);
                let mut paths: Vec<_> = said.iter().map(|(path, _)| path.as_str()).collect();
                paths.sort_unstable();
                let mut expected = case.paths.to_vec();
                expected.sort_unstable();
                if status.code() != Code::InvalidArgument || paths != expected {
                    wrong.push(format!("{}: {:?} {said:?}, not {expected:?}", case.what, status.code()));
                }
                if said.iter().any(|(_, description)| description.is_empty()) {
                    wrong.push(format!("{}: a violation without a word", case.what));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all = api.definitions().list_definitions(v1::ListDefinitionsRequest::default()).await.unwrap();
    assert_eq!(all.into_inner().definitions.len(), 0, "nothing faulty is stored");
    // After all of it the server works.
    api.define(definition("good", [step("a", "bank")])).await;
    assert_eq!(crate::common::api::state(&api.run("good", "good").await), "SUCCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_is_named_with_the_steps_on_it() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let cycle = [
        step("start", "bank"),
        step("a", "bank").after(&["c", "start"]),
        step("b", "bank").after(&["a"]),
        step("c", "bank").after(&["b"]),
        step("end", "bank").after(&["c"]),
    ];
    let status = api.try_define(definition("cyclic", cycle)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let said = violations(&status);
    assert!(!said.is_empty());
    for (path, description) in said {
        let on_cycle = ["steps[1]", "steps[2]", "steps[3]"].iter().any(|step| path.starts_with(step));
        assert!(on_cycle, "{path} is not on the cycle: {description}");
        assert!(path.contains(".depends_on["), "{path} names the edge");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_over_a_mebibyte_is_refused_by_its_size() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let big = step("a", "bank").with("/action/request/memo", "x".repeat(1_100_000));
    let status = api.try_define(definition("big", [big])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    assert_eq!(violations(&status).len(), 1, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_the_same_revision_and_other_content_the_next() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let first = definition("grows", [step("a", "bank")]);
    let second = definition("grows", [step("a", "bank"), step("b", "bank").after(&["a"])]);
    assert_eq!(api.define(first.clone()).await.revision, 1);
    assert_eq!(api.define(first.clone()).await.revision, 1);
    let only_looked_at = json!({ "definition": second, "validateOnly": true });
    let request: v1::RegisterDefinitionRequest =
        message("backstop.v1.RegisterDefinitionRequest", only_looked_at);
    let response = api.definitions().register_definition(request).await.unwrap().into_inner();
    assert_eq!(response.definition.unwrap().revision, 2, "the revision that it would get");
    let get = |revision| v1::GetDefinitionRequest { name: "grows".to_owned(), revision };
    let newest = api.definitions().get_definition(get(0)).await.unwrap().into_inner().definition.unwrap();
    assert_eq!(newest.revision, 1, "validate_only stores nothing");
    assert_eq!(api.define(second).await.revision, 2);
    let old = api.definitions().get_definition(get(1)).await.unwrap().into_inner().definition.unwrap();
    assert_eq!(old.steps.len(), 1, "an old revision stays");
    assert_eq!(api.definitions().get_definition(get(9)).await.unwrap_err().code(), Code::NotFound);
    let both = [("old", 1), ("new", 2)];
    for (id, revision) in both {
        let json = json!({
            "definition": "grows", "revision": revision, "sagaId": id, "input": { "account": "a", "cents": "1" },
        });
        api.start_with(json).await.unwrap();
        assert_eq!(api.rest(id).await.branches.len(), revision, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_without_reflection_needs_descriptors_in_the_request() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let silent = Bank::start_without_reflection("silent").await;
    api.enlist(&silent).await;
    let json = json!({ "definition": definition("one", [step("a", "silent")]) });
    let mut request: v1::RegisterDefinitionRequest = message("backstop.v1.RegisterDefinitionRequest", json);
    let refused = api.definitions().register_definition(request.clone()).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::InvalidArgument | Code::Unavailable),
        "{ACT} cannot be known: {refused}"
    );
    request.descriptors = Some(crate::common::bank::descriptors());
    api.definitions().register_definition(request).await.expect("with descriptors it is known");
    assert_eq!(crate::common::api::state(&api.run("one", "one").await), "SUCCEEDED");
}
