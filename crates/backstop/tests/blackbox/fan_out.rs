//! Branches that do not wait for each other run at once; when one fails, all are told, and what was done
//! is undone once, in reverse causal order.

use crate::common::api::{branch, shown, state, states};
use crate::common::script::Seen;
use crate::common::{Backstop, Bank, Engine, Reply, definition, step};
use backstop_proto::v1;
use backstop_proto::v1::signal_report::State as Signal;
use backstop_proto::v1::{RollbackCause, rollback_cause};
use prost::Message;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Barrier;
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

#[tokio::test(flavor = "multi_thread")]
async fn three_branches_are_in_flight_at_the_same_time() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("fan", ["a", "b", "c"].map(|name| step(name, "bank")))).await;
    // Each call waits until all three have come: were they sent one after the other, none would be
    // answered, and the saga would roll back for its timeout.
    let all_three = Arc::new(Barrier::new(3));
    bank.answers(move |_| Reply::Together(Arc::clone(&all_three), Box::new(Reply::Done)));

    let saga = api.run("fan", "at-once").await;

    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    let seen = bank.seen_of("at-once");
    assert_eq!(seen.len(), 3);
    let last_arrival = seen.iter().map(|s| s.arrived).max().unwrap();
    let first_answer = seen.iter().filter_map(|s| s.answered).min().unwrap();
    assert!(last_arrival < first_answer, "one was answered before all had come: {seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_not_called_before_what_it_depends_on_is_answered() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let diamond = [
        step("top", "bank"),
        step("left", "bank").after(&["top"]),
        step("right", "bank").after(&["top"]),
        step("bottom", "bank").after(&["left", "right"]),
    ];
    api.define(definition("diamond", diamond)).await;

    let saga = api.run("diamond", "in-order").await;

    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    let seen = bank.seen_of("in-order");
    let of = |name: &str| seen.iter().find(|s| s.step() == name).unwrap();
    for (before, after) in [("top", "left"), ("top", "right"), ("left", "bottom"), ("right", "bottom")] {
        assert!(of(before).answered.unwrap() < of(after).arrived, "{before} before {after}");
        assert!(of(before).number("backstop-clock") < of(after).number("backstop-clock"), "Lamport order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_branch_is_signalled_and_undone_in_reverse_order_on_sqlite() {
    a_failed_branch_is_signalled_and_undone_in_reverse_order(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_branch_is_signalled_and_undone_in_reverse_order_on_postgres() {
    a_failed_branch_is_signalled_and_undone_in_reverse_order(Engine::Postgres).await;
}

/// `hold` and `limit` first, concurrently; `debit` after `hold`; `credit` after `debit` and `limit` fails.
async fn a_failed_branch_is_signalled_and_undone_in_reverse_order(engine: Engine) {
    let backstop = Backstop::start(engine).await;
    let api = backstop.api();
    let (first, second, failing) =
        (Bank::start("first").await, Bank::start("second").await, Bank::start("failing").await);
    for bank in [&first, &second, &failing] {
        api.enlist_as(bank, json!({ "rollbackListener": true })).await;
    }
    let steps = [
        step("hold", "first"),
        step("limit", "second"),
        step("debit", "first").after(&["hold"]),
        step("credit", "failing").after(&["debit", "limit"]),
    ];
    api.define(definition("transfer", steps)).await;
    failing.answers(|_| {
        let details = ErrorDetails::with_bad_request_violation("account", "is closed");
        Reply::refuse(tonic::Status::with_error_details(Code::FailedPrecondition, "account closed", details))
    });

    let saga = api.run("transfer", "undone").await;

    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let expected =
        [("credit", "FAILED"), ("debit", "COMPENSATED"), ("hold", "COMPENSATED"), ("limit", "COMPENSATED")];
    assert_eq!(states(&saga).into_iter().collect::<Vec<_>>(), expected.map(|(n, s)| (n, s.to_owned())));
    let credit = branch(&saga, "credit").failure.clone().expect("the failure is shown");
    assert_eq!((credit.fin_code.as_str(), credit.tier().as_str_name()), ("FIN-40005", "TIER_L3"));
    assert_eq!(credit.field_violations[0].field, "account");

    // The failing participant has no branch that the rollback concerns: only the others are told, once. The
    // news never delays the undoing, so it may be reported after the end.
    let reported = |saga: &v1::Saga| saga.signals.iter().all(|signal| signal.state() != Signal::Pending);
    let saga = api.until("undone", "to have its signals reported", reported).await;
    let delivered: Vec<_> = saga.signals.iter().map(|s| (s.participant.as_str(), s.state() as i32)).collect();
    let fully = Signal::Delivered as i32;
    assert_eq!(delivered, [("first", fully), ("second", fully)]);
    assert_eq!(failing.signals().len(), 0);
    let refused_at = failing.seen_of("undone")[0].answered.unwrap();
    for (bank, branches) in [(&first, vec!["hold", "debit"]), (&second, vec!["limit"])] {
        let signals = bank.signals();
        assert_eq!(signals.len(), 1, "{} is told once", bank.name);
        assert!(signals[0].arrived > refused_at, "nobody is told before there is a reason");
        let signal = &signals[0].request;
        assert_eq!((signal.saga_id.as_str(), signal.definition.as_str()), ("undone", "transfer@1"));
        let named: Vec<_> = signal.branches.iter().map(|branch| branch.step.as_str()).collect();
        assert_eq!(named, branches);
        let keys: Vec<_> = signal.branches.iter().map(|branch| branch.idempotency_key.clone()).collect();
        assert_eq!(keys, branches.iter().map(|b| format!("undone/{b}/action")).collect::<Vec<_>>());
        check_cause(signal.cause.as_ref().expect("a cause"));
    }

    let mut undone: Vec<Seen> = first.seen_of("undone");
    undone.extend(second.seen_of("undone"));
    undone.extend(failing.seen_of("undone"));
    undone.retain(|seen| seen.phase() == "compensation");
    undone.sort_by_key(|seen| seen.arrived);
    let mut names: Vec<_> = undone.iter().map(Seen::short).collect();
    let position = |name: &str| undone.iter().position(|seen| seen.step() == name).expect(name);
    let (debit, hold) = (&undone[position("debit")], &undone[position("hold")]);
    assert!(debit.answered.unwrap() < hold.arrived, "hold is undone only once debit is: {names:?}");
    names.sort();
    assert_eq!(names, ["debit/compensation#1", "hold/compensation#1", "limit/compensation#1"]);
    for seen in &undone {
        let cause = seen.metadata.get_bin("backstop-cause-bin").expect("a compensation bears its cause");
        check_cause(&RollbackCause::decode(cause.to_bytes().unwrap()).unwrap());
        assert_eq!(seen.method, "Undo");
        assert_eq!(seen.key(), format!("undone/{}/compensation", seen.step()));
    }
}

fn check_cause(cause: &RollbackCause) {
    assert_eq!(cause.kind(), rollback_cause::Kind::StepFailed);
    assert_eq!(cause.step, "credit");
    let failure = cause.failure.as_ref().expect("the failure travels in the cause");
    assert_eq!(failure.grpc_code, "FAILED_PRECONDITION");
    assert_eq!(failure.fin_code, "FIN-40005");
    assert_eq!(failure.message, "account closed");
    assert_eq!(failure.field_violations.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_bears_the_metadata_of_the_contract_and_its_own_request() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("one", [step("debit", "bank").with("/action/timeout", "7s")])).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = crate::common::Api::start_request(json!({
        "definition": "one", "sagaId": "told", "input": { "account": "acc-9", "cents": "9007199254740993" },
    }));
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    api.sagas().start_saga(request).await.unwrap();

    let saga = api.rest("told").await;

    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    assert_eq!(saga.trace_id, "0af7651916cd43dd8448eb211c80319c", "the saga goes on in the caller's trace");
    let seen = &bank.seen_of("told")[0];
    let told = [
        ("backstop-saga-id", "told"),
        ("backstop-definition", "one@1"),
        ("backstop-step", "debit"),
        ("backstop-phase", "action"),
        ("backstop-attempt", "1"),
        ("backstop-epoch", "1"),
        ("idempotency-key", "told/debit/action"),
    ];
    assert_eq!(told.map(|(key, _)| (key, seen.text(key))), told.map(|(key, value)| (key, value.to_owned())));
    assert!(seen.number("backstop-clock") > 0);
    assert!(seen.text("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    assert_ne!(seen.text("traceparent"), trace, "the call has a span of its own");
    assert!(!seen.text("grpc-timeout").is_empty());
    assert!(seen.metadata.get_bin("backstop-cause-bin").is_none(), "an action has no cause");
    let ours = [
        "backstop-",
        "idempotency-key",
        "grpc-",
        "traceparent",
        "tracestate",
        "te",
        "user-agent",
        "content-type",
    ];
    for key in seen.metadata.keys() {
        let name = match key {
            tonic::metadata::KeyRef::Ascii(key) => key.as_str().to_owned(),
            tonic::metadata::KeyRef::Binary(key) => key.as_str().to_owned(),
        };
        assert!(ours.iter().any(|known| name.starts_with(known)), "unexpected metadata {name}");
    }
    let posting = seen.posting();
    assert_eq!((posting.account.as_str(), posting.memo.as_str()), ("acc-9", "debit"));
    assert_eq!(posting.cents, 9_007_199_254_740_993, "money never goes through a double");
}
