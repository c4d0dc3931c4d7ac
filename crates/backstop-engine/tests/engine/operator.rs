//! A person's word: on sagas that run, that are at rest, that have ended, and that nobody knows.

use crate::common::bank::{Reply, says};
use crate::common::plan::Plan;
use crate::common::{Node, World, id, ms, quiet, request};
use backstop_core::{Code, Input, Refused, Resolution, Saga, SagaState, StepName};
use backstop_engine::{EngineError, Reach};
use std::sync::Arc;

fn one() -> Plan {
    Plan::new("one").step("a", &[]).refusals(1)
}

fn step(name: &str) -> StepName {
    StepName::parse(name).unwrap()
}

async fn retry(node: &Node, saga: &str) -> Result<Arc<Saga>, EngineError> {
    let input = Input::RetryBranch { step: step("a"), by: "ben".to_owned(), reason: "mended".to_owned() };
    node.coordinator.command(&id(saga), input, Reach::Anywhere).await
}

async fn resolve(node: &Node, saga: &str, resolution: Resolution) -> Result<Arc<Saga>, EngineError> {
    let (by, reason) = ("ben".to_owned(), "looked at the books".to_owned());
    node.coordinator
        .command(&id(saga), Input::ResolveBranch { step: step("a"), by, reason, resolution }, Reach::Anywhere)
        .await
}

/// A saga whose only branch is stuck.
async fn stuck() -> (World, Node) {
    let world = World::new();
    let node = world.node_for(&one()).await;
    world.bank.action("a", |_| says(Code::Internal));
    world.bank.undo("a", |_| says(Code::FailedPrecondition));
    assert_eq!(node.run("one", "pay-7").await.state, SagaState::NeedsIntervention);
    quiet().await;
    assert_eq!(world.owner("pay-7"), None, "it is at rest in the store");
    (world, node)
}

#[tokio::test(start_paused = true)]
async fn a_branch_at_rest_is_tried_again() {
    let (world, node) = stuck().await;
    world.bank.undo("a", |_| Reply::Ok);
    let saga = retry(&node, "pay-7").await.unwrap();
    assert_eq!(saga.state, SagaState::RollingBack, "answered when it is durable");
    world.ends("pay-7", SagaState::RolledBack).await;
    world.tells(
        "pay-7",
        "
        0001 saga     started        one@1
        0002 a        failed         #1  FIN-50001 INTERNAL in doubt
        0003 saga     rolling back   cause a
        0004 a        stuck          #1  FIN-40005 FAILED_PRECONDITION
        0005 saga     needs a person
        0006 saga     taken over     epoch 2
        0007 a        retried by     ben: mended
        0008 a        compensated    #2
        0009 saga     rolled back
        ",
    );
}

#[tokio::test(start_paused = true)]
async fn a_branch_at_rest_is_settled_by_hand() {
    let (world, node) = stuck().await;
    let error = resolve(&node, "pay-7", Resolution::TookEffect).await.unwrap_err();
    assert_eq!(error, EngineError::Refused(Refused::WrongResolution));
    assert_eq!(world.epoch("pay-7"), 1, "what is refused leaves no trace");
    let saga = resolve(&node, "pay-7", Resolution::Undone).await.unwrap();
    assert_eq!(saga.state, SagaState::RolledBack);
    assert_eq!(
        resolve(&node, "pay-7", Resolution::Undone).await.unwrap_err(),
        EngineError::Refused(Refused::Ended)
    );
    assert!(world.told("pay-7").contains("resolved by    ben: UNDONE  looked at the books"));
}

#[tokio::test(start_paused = true)]
async fn a_retried_branch_that_is_refused_again_waits_for_a_person_again() {
    let (world, node) = stuck().await;
    for times in 2..5 {
        retry(&node, "pay-7").await.unwrap();
        world.ends("pay-7", SagaState::NeedsIntervention).await;
        assert_eq!(world.told("pay-7").matches("needs a person").count(), times);
    }
}

#[tokio::test(start_paused = true)]
async fn many_people_at_once_get_one_word_in_and_the_others_an_answer() {
    let (world, node) = stuck().await;
    world.bank.undo("a", |_| Reply::Held);
    let mut people = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let coordinator = node.coordinator.clone();
        let input = Input::RetryBranch { step: step("a"), by: "ben".to_owned(), reason: "mended".to_owned() };
        people.spawn(async move { coordinator.command(&id("pay-7"), input, Reach::Anywhere).await });
    }
    let answers = people.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for error in answers.into_iter().filter_map(Result::err) {
        assert_eq!(error, EngineError::Refused(Refused::NotWaiting));
    }
    quiet().await;
    assert_eq!(world.told("pay-7").matches("retried by").count(), 1);
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
}

#[tokio::test(start_paused = true)]
async fn peer_21_a_live_saga_is_cancelled_and_the_answer_comes_when_that_is_durable() {
    let world = World::new();
    let node = world.node_for(&one()).await;
    world.bank.action("a", |_| Reply::Held);
    node.start("one", "pay-7").await;
    quiet().await;
    world.disk.block();
    let coordinator = node.coordinator.clone();
    let cancelling =
        tokio::spawn(
            async move { coordinator.cancel(&id("pay-7"), "ann".to_owned(), "typo".to_owned()).await },
        );
    tokio::time::sleep(ms(2_000)).await;
    assert!(!cancelling.is_finished());
    world.disk.unblock();
    assert_eq!(cancelling.await.unwrap().unwrap().state, SagaState::RollingBack);
    assert_eq!(node.cancel("pay-7").await.unwrap().state, SagaState::RollingBack, "cancelled already");
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-7", SagaState::RolledBack).await;
    assert_eq!(node.cancel("pay-7").await.unwrap_err(), EngineError::Refused(Refused::Ended));
    assert_eq!(world.bank.calls(), ["a action #1", "a compensation #1"]);
}

#[tokio::test(start_paused = true)]
async fn cancelling_what_rolls_back_at_rest_changes_nothing() {
    let (world, node) = stuck().await;
    let before = world.told("pay-7");
    assert_eq!(node.cancel("pay-7").await.unwrap().state, SagaState::NeedsIntervention);
    quiet().await;
    assert_eq!(world.told("pay-7"), before);
}

#[tokio::test(start_paused = true)]
async fn past_the_pivot_a_cancel_is_refused() {
    let world = World::new();
    let plan = Plan::new("three").step("a", &[]).pivot("p", &["a"]).retriable("r", &["p"]);
    let node = world.node_for(&plan).await;
    for name in ["p", "r"] {
        world.bank.action(name, |_| Reply::Held);
    }
    node.start("three", "pay-7").await;
    quiet().await;
    assert_eq!(node.cancel("pay-7").await.unwrap_err(), EngineError::Refused(Refused::PivotOpen));
    world.bank.let_go("p", Reply::Ok);
    quiet().await;
    assert_eq!(node.cancel("pay-7").await.unwrap_err(), EngineError::Refused(Refused::PastPivot));
    world.bank.let_go("r", Reply::Ok);
    world.ends("pay-7", SagaState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_sagas_and_those_that_are_over_are_said_to_be_so() {
    let world = World::new();
    let node = world.node_for(&one()).await;
    assert!(matches!(node.cancel("pay-7").await.unwrap_err(), EngineError::NotFound { .. }));
    node.start("one", "pay-7").await;
    world.ends("pay-7", SagaState::Succeeded).await;
    assert_eq!(node.cancel("pay-7").await.unwrap_err(), EngineError::Refused(Refused::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_word_that_comes_as_the_runner_leaves_finds_the_saga_in_the_store() {
    // At each of many moments around the saga's end the person hears an answer, and never a wrong one.
    let mut answers = [0; 2];
    for moment in 0..40 {
        let world = World::new();
        let node = world.node_for(&one()).await;
        world.bank.action("a", |_| Reply::Held);
        node.start("one", "pay-7").await;
        quiet().await;
        let coordinator = node.coordinator.clone();
        let cancelling = async move {
            for _ in 20..moment {
                tokio::task::yield_now().await;
            }
            coordinator.cancel(&id("pay-7"), "ann".to_owned(), "typo".to_owned()).await
        };
        let answering = async {
            for _ in moment..20 {
                tokio::task::yield_now().await;
            }
            world.bank.let_go("a", Reply::Ok);
        };
        let (answer, ()) = tokio::join!(cancelling, answering);
        match answer {
            Ok(saga) => {
                answers[0] += 1;
                assert!(saga.cause.is_some());
                world.ends("pay-7", SagaState::RolledBack).await;
            }
            Err(error) => {
                answers[1] += 1;
                assert_eq!(error, EngineError::Refused(Refused::Ended), "at moment {moment}");
                world.ends("pay-7", SagaState::Succeeded).await;
            }
        }
    }
    assert!(answers.iter().all(|count| *count > 0), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_word_for_a_saga_at_rest_needs_no_more_room_than_there_is() {
    let (world, node) = stuck().await;
    drop(node);
    let node = world.node_with(|settings| settings.live_sagas_max = 1).await;
    world.bank.action("a", |_| Reply::Held);
    node.coordinator.start_saga(request("one", "pay-8")).await.unwrap();
    quiet().await;
    let error = retry(&node, "pay-7").await.unwrap_err();
    assert!(matches!(error, EngineError::Busy { .. }), "{error:?}");
    world.bank.let_go("a", Reply::Ok);
    world.ends("pay-8", SagaState::Succeeded).await;
    quiet().await;
    world.bank.undo("a", |_| Reply::Ok);
    retry(&node, "pay-7").await.unwrap();
    world.ends("pay-7", SagaState::RolledBack).await;
}
