//! A participant in Python, with grpcio, its own proto and no code of ours, takes part in a saga.

use crate::common::api::{branch, shown, state};
use crate::common::{Backstop, Engine, eventually, tool};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

struct Python {
    process: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl Python {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");
        let mut process = Command::new(tool::python())
            .arg("participant.py")
            .arg(directory.path())
            .current_dir(here)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = tokio::task::spawn_blocking(move || lines.next()).await.unwrap();
        let address = first.expect("it says where it listens").unwrap();
        let address = address.strip_prefix("listening ").expect("listening HOST:PORT").to_owned();
        Self { process, address, directory }
    }

    /// Each call that it took: method, metadata, request.
    fn calls(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.directory.path().join("calls.jsonl")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_service_gets_the_metadata_and_its_field_violation_reaches_the_caller() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let python = Python::start().await;
    let participant = json!({ "name": "insurer", "endpoints": [format!("http://{}", python.address)] });
    api.register_participant(participant).await.unwrap();
    let call = |method: &str, request: Value| json!({ "participant": "insurer", "method": format!("insurer.policy.PolicyService/{method}"), "request": request });
    api.define(json!({
        "name": "insure",
        "steps": [
            {
                "name": "quote",
                "action": call("Quote", json!({ "customer": "${input.customer}", "sum_insured": "${input.sum}" })),
                "compensation": call("Withdraw", json!({ "quote_id": "${response.quote_id}", "why": "${cause.message}" })),
            },
            {
                "name": "bind",
                "dependsOn": ["quote"],
                "action": call("Bind", json!({
                    "quote_id": "${steps.quote.response.quote_id}", "premium": "${steps.quote.response.premium}",
                })),
                "compensation": call("Withdraw", json!({ "quote_id": "x", "why": "never needed" })),
            },
        ],
    }))
    .await;
    let start = |id: &str, sum: &str| {
        let json = json!({
            "definition": "insure", "sagaId": id, "input": { "customer": "Müller & 李", "sum": sum },
        });
        let api = api.clone();
        async move { api.start_with(json).await.unwrap() }
    };

    start("insured", "90071992547409931").await;
    let saga = api.rest("insured").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    start("declined", "13").await;
    let saga = api.rest("declined").await;

    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let failure = branch(&saga, "bind").failure.clone().expect("the failure is shown");
    assert_eq!((failure.fin_code.as_str(), failure.grpc_code.as_str()), ("FIN-40005", "INVALID_ARGUMENT"));
    assert_eq!(failure.tier().as_str_name(), "TIER_L3");
    assert_eq!(failure.evidence().as_str_name(), "EVIDENCE_PARTICIPANT_SAID");
    assert_eq!(failure.field_violations.len(), 1);
    assert_eq!(failure.field_violations[0].field, "premium");
    assert_eq!(failure.field_violations[0].description, "13 brings bad luck");
    let localized = failure.localized_message.as_ref().expect("the text for end users comes along");
    assert_eq!((localized.locale.as_str(), localized.message.as_str()), ("zh-CN", "不吉利"));
    assert_eq!(saga.cause.as_ref().unwrap().failure.as_ref().unwrap().field_violations[0].field, "premium");

    let calls = eventually("five calls to be written down", || async {
        let calls = python.calls();
        if calls.len() == 5 { Ok(calls) } else { Err(format!("{calls:#?}")) }
    })
    .await;
    let of = |saga: &str, method: &str| {
        let fits = |call: &&Value| call["metadata"]["backstop-saga-id"] == saga && call["method"] == method;
        calls.iter().find(fits).unwrap_or_else(|| panic!("no {method} of {saga} in {calls:#?}"))
    };
    let quote = of("insured", "Quote");
    assert_eq!(quote["request"], json!({ "customer": "Müller & 李", "sumInsured": "90071992547409931" }));
    let bind = of("insured", "Bind");
    assert_eq!(bind["request"]["quoteId"], "q-insured", "the reply of one step is the request of the next");
    for (key, value) in [
        ("backstop-definition", "insure@1"),
        ("backstop-step", "bind"),
        ("backstop-phase", "action"),
        ("backstop-attempt", "1"),
        ("backstop-epoch", "1"),
        ("idempotency-key", "insured/bind/action"),
    ] {
        assert_eq!(bind["metadata"][key], value, "{bind:#}");
    }
    assert!(bind["metadata"]["traceparent"].as_str().is_some_and(|text| text.starts_with("00-")), "{bind:#}");
    assert!(bind["deadline_seconds"].as_f64().is_some_and(|left| left > 0.0 && left < 2.1), "{bind:#}");
    let withdrawn = of("declined", "Withdraw");
    assert_eq!(withdrawn["request"], json!({ "quoteId": "q-declined", "why": "premium not acceptable" }));
    assert_eq!(withdrawn["metadata"]["backstop-phase"], "compensation");
    assert!(withdrawn["metadata"].get("backstop-cause-bin").is_some(), "{withdrawn:#}");
}
