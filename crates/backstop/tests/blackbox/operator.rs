//! What a person may do: cancel before the pivot, retry and resolve what the machine cannot finish.

use crate::common::api::{branch, shown, state, states};
use crate::common::script::Seen;
use crate::common::{Api, Backstop, Bank, Engine, Gate, Reply, definition, eventually, get, step};
use backstop_proto::v1;
use serde_json::json;
use tonic::Code;

fn compensations(bank: &Bank, id: &str) -> Vec<String> {
    let undone = bank.seen_of(id).into_iter().filter(|seen| seen.phase() == "compensation");
    undone.map(|seen: Seen| seen.short()).collect()
}

/// Waits until the metric says so many.
async fn until_interventions(backstop: &Backstop, count: usize) {
    let address = backstop.metrics_address().await;
    eventually(&format!("backstop_interventions to be {count}"), || async {
        let text = get(&address, "/metrics").await;
        let line = text.lines().find(|line| line.starts_with("backstop_interventions ")).unwrap_or_default();
        if line.ends_with(&format!(" {count}")) { Ok(()) } else { Err(line.to_owned()) }
    })
    .await;
}

/// `hold`, `debit`, then `credit`, which is refused; so is undoing `debit`, until the bank is told to
/// answer otherwise.
pub(crate) async fn stuck(engine: Engine, id: &str) -> (Backstop, Api, Bank) {
    let backstop = Backstop::start(engine).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let steps = [
        step("hold", "bank"),
        step("debit", "bank").after(&["hold"]),
        step("credit", "bank").after(&["debit"]),
    ];
    api.define(definition("transfer", steps)).await;
    bank.answers(|seen| match (seen.step().as_str(), seen.phase().as_str()) {
        ("credit", "action") => Reply::status(Code::FailedPrecondition, "closed"),
        ("debit", "compensation") => Reply::status(Code::PermissionDenied, "not today"),
        _ => Reply::Done,
    });
    let saga = api.run("transfer", id).await;
    assert_eq!(state(&saga), "NEEDS_INTERVENTION", "{}", shown(&saga));
    (backstop, api, bank)
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_06_a_refused_compensation_waits_for_a_person_and_goes_on_after_a_retry_on_sqlite() {
    a_refused_compensation_waits_for_a_person_and_goes_on_after_a_retry(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_06_a_refused_compensation_waits_for_a_person_and_goes_on_after_a_retry_on_postgres() {
    a_refused_compensation_waits_for_a_person_and_goes_on_after_a_retry(Engine::Postgres).await;
}

async fn a_refused_compensation_waits_for_a_person_and_goes_on_after_a_retry(engine: Engine) {
    let (mut backstop, api, bank) = stuck(engine, "stuck").await;
    let saga = api.get("stuck").await.unwrap();
    let expected = [("credit", "FAILED"), ("debit", "STUCK"), ("hold", "SUCCEEDED")];
    assert_eq!(states(&saga).into_iter().collect::<Vec<_>>(), expected.map(|(n, s)| (n, s.to_owned())));
    assert_eq!(compensations(&bank, "stuck").len(), 3, "its few attempts, and no more");
    let failure = branch(&saga, "debit").compensation_failure.clone().unwrap();
    assert_eq!((failure.fin_code.as_str(), failure.tier().as_str_name()), ("FIN-50099", "TIER_L1"));
    assert_eq!(api.list("state = \"NEEDS_INTERVENTION\"").await.len(), 1);
    until_interventions(&backstop, 1).await;
    eventually("the log to say so", || async {
        let log = backstop.log();
        let said = ["a branch failed: a person should look", "the saga needs a person"];
        if said.iter().all(|said| log.contains(said)) { Ok(()) } else { Err(log) }
    })
    .await;

    // A person's queue outlives the coordinator, and so does the number that an alert watches.
    backstop.kill();
    backstop.start_again().await;
    until_interventions(&backstop, 1).await;
    let api = backstop.api();
    let saga = api.until("stuck", "to be shown again", |_| true).await;
    assert_eq!(state(&saga), "NEEDS_INTERVENTION", "{}", shown(&saga));

    bank.answers(|_| Reply::Done);
    let retry = v1::RetryBranchRequest {
        saga_id: "stuck".into(),
        step: "debit".into(),
        by: "ann".into(),
        reason: "rights restored".into(),
    };
    api.operator().retry_branch(retry).await.unwrap();
    let saga = api.rest("stuck").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    assert_eq!(branch(&saga, "debit").state().as_str_name(), "BRANCH_STATE_COMPENSATED");
    assert_eq!(branch(&saga, "hold").state().as_str_name(), "BRANCH_STATE_COMPENSATED");
    let hand = saga.transcript.iter().filter(|line| line.contains("ann") && line.contains("rights restored"));
    assert_eq!(hand.count(), 1, "the hand stays visible: {}", shown(&saga));
    until_interventions(&backstop, 0).await;
    let all = compensations(&bank, "stuck");
    assert_eq!(all.iter().filter(|call| call.starts_with("debit")).count(), 4, "{all:?}");
    assert_eq!(all.iter().filter(|call| call.starts_with("hold")).count(), 1, "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_05_a_stuck_branch_resolved_by_hand_lets_the_saga_roll_back() {
    let (_backstop, api, bank) = stuck(Engine::Sqlite, "by-hand").await;
    let resolve = |step: &str, resolution: v1::Resolution| v1::ResolveBranchRequest {
        saga_id: "by-hand".into(),
        step: step.into(),
        by: "ann".into(),
        reason: "booked back in the core system".into(),
        resolution: resolution.into(),
    };
    let operator = || api.operator();
    let wrong = operator().resolve_branch(resolve("debit", v1::Resolution::TookEffect)).await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition, "a compensation is not settled by that");
    let early = operator().resolve_branch(resolve("hold", v1::Resolution::Undone)).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "that branch does not wait");
    let unknown = operator().resolve_branch(resolve("nothing", v1::Resolution::Undone)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    operator().resolve_branch(resolve("debit", v1::Resolution::Undone)).await.unwrap();

    let saga = api.rest("by-hand").await;

    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let debit = branch(&saga, "debit");
    assert_eq!(debit.state().as_str_name(), "BRANCH_STATE_RESOLVED", "not shown as undone by the machine");
    assert_eq!(debit.resolution(), v1::Resolution::Undone);
    let hand = saga.transcript.iter().find(|line| line.contains("resolved by")).unwrap();
    for word in ["debit", "ann", "UNDONE", "booked back in the core system"] {
        assert!(hand.contains(word), "{word} is not in {hand}");
    }
    let all = compensations(&bank, "by-hand");
    assert_eq!(all.iter().filter(|call| call.starts_with("hold")).count(), 1, "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_21_a_cancelled_saga_calls_no_further_action_and_is_undone() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "rollbackListener": true })).await;
    let long = |name: &str| step(name, "bank").with("/action/timeout", "30s");
    api.define(definition("slow", [long("one"), long("two").after(&["one"]), long("three").after(&["two"])]))
        .await;
    let gate = Gate::closed();
    let held = gate.clone();
    bank.answers(move |seen| match (seen.step().as_str(), seen.phase().as_str()) {
        ("two", "action") => Reply::Done.after(&held),
        _ => Reply::Done,
    });
    api.start("slow", "unwanted").await;
    bank.until_seen("step two", |seen| seen.step() == "two").await;
    let cancel = v1::CancelSagaRequest {
        saga_id: "unwanted".into(),
        reason: "wrong account".into(),
        by: "ann".into(),
    };
    let answer = api.sagas().cancel_saga(cancel.clone()).await.unwrap().into_inner().saga.unwrap();
    assert_eq!(state(&answer), "ROLLING_BACK", "answered once the decision is durable");
    gate.open();
    let saga = api.rest("unwanted").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let cause = saga.cause.as_ref().unwrap();
    assert_eq!((cause.by.as_str(), cause.reason.as_str()), ("ann", "wrong account"));
    let actions: Vec<_> = bank.seen().iter().filter(|s| s.phase() == "action").map(Seen::step).collect();
    assert_eq!(actions, ["one", "two"], "step three is never called");
    assert_eq!(compensations(&bank, "unwanted"), ["two/compensation#1", "one/compensation#1"]);
    let told =
        |saga: &v1::Saga| saga.signals.iter().all(|s| s.state() == v1::signal_report::State::Delivered);
    api.until("unwanted", "to have told its listener", told).await;
    let signal = &bank.signals()[0].request;
    assert_eq!(signal.cause.as_ref().unwrap().by, "ann");
    let late = api.sagas().cancel_saga(cancel).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_pivot_there_is_no_cancelling_and_a_retriable_step_waits_for_a_person() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let steps = [
        step("debit", "bank"),
        step("settle", "bank").kind("PIVOT").after(&["debit"]),
        step("notify", "bank").kind("RETRIABLE").after(&["settle"]),
    ];
    api.define(definition("final", steps)).await;
    bank.answers(|seen| match seen.step().as_str() {
        "notify" => Reply::status(Code::InvalidArgument, "no such customer"),
        _ => Reply::Done,
    });
    let saga = api.run("final", "past").await;
    assert_eq!(state(&saga), "NEEDS_INTERVENTION", "{}", shown(&saga));
    let cancel =
        v1::CancelSagaRequest { saga_id: "past".into(), reason: "too late".into(), by: "ann".into() };
    assert_eq!(api.sagas().cancel_saga(cancel).await.unwrap_err().code(), Code::FailedPrecondition);
    let resolve = v1::ResolveBranchRequest {
        saga_id: "past".into(),
        step: "notify".into(),
        by: "ann".into(),
        reason: "told by letter".into(),
        resolution: v1::Resolution::TookEffect.into(),
    };
    api.operator().resolve_branch(resolve).await.unwrap();
    let saga = api.rest("past").await;
    assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
    assert_eq!(compensations(&bank, "past"), Vec::<String>::new(), "past the pivot nothing is undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_participants_and_simulations_are_shown() {
    let backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    let steps = [step("debit", "bank"), step("credit", "bank").after(&["debit"])];
    api.define(definition("transfer", steps)).await;

    let coordinators = api
        .operator()
        .list_coordinators(v1::ListCoordinatorsRequest {})
        .await
        .unwrap()
        .into_inner()
        .coordinators;
    assert_eq!(coordinators.len(), 1, "{coordinators:#?}");
    assert!(!coordinators[0].expired);
    assert_eq!(coordinators[0].address, backstop.address());

    let list = api.participants().list_participants(v1::ListParticipantsRequest::default()).await.unwrap();
    let participants = list.into_inner().participants;
    assert_eq!(participants.len(), 1);
    assert_eq!(participants[0].breaker_state(), v1::BreakerState::Closed);

    let simulate = v1::SimulateDefinitionRequest { name: "transfer".into(), ..Default::default() };
    let simulated = api.definitions().simulate_definition(simulate).await.unwrap().into_inner();
    let refused = simulated
        .runs
        .iter()
        .find(|run| {
            run.step == "credit" && run.fault() == v1::simulate_definition_response::run::Fault::Refused
        })
        .expect("credit is let fail");
    assert_eq!(refused.calls, ["debit/action", "credit/action", "debit/compensation"]);
    assert_eq!(refused.end_state(), v1::SagaState::RolledBack);
    assert!(!simulated.interventions.is_empty(), "a refused compensation ends at a person");
    assert_eq!(bank.seen().len(), 0, "nobody is called");

    let doctor = api.operator().run_doctor(v1::RunDoctorRequest::default()).await.unwrap().into_inner();
    assert_eq!(doctor.findings, [], "a healthy store");
}
