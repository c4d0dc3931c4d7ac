//! The doctor finds what nobody would ever finish, and is silent where all is well. And quarantine: a journal
//! that cannot be followed is set aside, for all to see, and comes back once it is mended.

use crate::common::bank::{Reply, says};
use crate::common::plan::Plan;
use crate::common::{Node, World, id, ms, quiet, until};
use backstop_core::{Code, SagaState, Seq};
use backstop_engine::ports::store::MisfitKind;
use backstop_engine::{EngineError, FindingKind, HowMuch};
use std::time::Duration;

fn line() -> Plan {
    Plan::new("line").step("a", &[]).step("b", &["a"])
}

async fn findings(node: &Node) -> Vec<(FindingKind, String)> {
    let found = node.coordinator.examine(HowMuch::Everything).await.unwrap();
    found.findings.into_iter().map(|finding| (finding.kind, finding.subject)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_healthy_store_has_no_findings_whatever_goes_on() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("b", |_| Reply::Held);
    for n in 0..5 {
        node.start("line", &format!("pay-{n}")).await;
    }
    quiet().await;
    assert_eq!(findings(&node).await, []);
    world.bank.let_go("b", says(Code::FailedPrecondition));
    world.ends("pay-0", SagaState::RolledBack).await;
    let found = node.coordinator.examine(HowMuch::Newest(3)).await.unwrap();
    assert_eq!((found.journals_replayed, found.findings.len()), (3, 0));
    (1..5).for_each(|_| world.bank.let_go("b", Reply::Ok));
}

#[tokio::test(start_paused = true)]
async fn peer_34_each_kind_of_misery_is_found_and_named() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    for saga in ["forsaken", "double", "gap", "differs", "well"] {
        node.run("line", saga).await;
    }
    world.disk.plant("forsaken", |journal| {
        journal.events.truncate(1);
        journal.head.seq = Seq(1);
        journal.head.state = SagaState::Running;
        journal.head.ended_at = None;
    });
    world.disk.plant("double", |journal| journal.head.wake_at = Some(journal.head.updated_at));
    world.disk.plant("gap", |journal| drop(journal.events.remove(1)));
    world.disk.plant("differs", |journal| journal.head.state = SagaState::RolledBack);
    let found = findings(&node).await;
    for expected in [
        (FindingKind::Misfit(MisfitKind::Forsaken), "forsaken".to_owned()),
        (FindingKind::Misfit(MisfitKind::Overdetermined), "double".to_owned()),
        (FindingKind::JournalBroken, "gap".to_owned()),
        (FindingKind::HeadDiffers, "differs".to_owned()),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    assert!(!found.iter().any(|(_, saga)| saga == "well"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn peer_42_a_journal_that_cannot_be_followed_is_quarantined_and_comes_back_once_it_is_mended() {
    let world = World::new();
    let node = world.node_for(&line().dedup()).await;
    world.bank.action("b", |_| Reply::Held);
    node.start("line", "pay-7").await;
    node.start("line", "good").await;
    quiet().await;
    node.crash();
    let whole = world.disk.journal(&id("pay-7")).unwrap();
    world.disk.plant("pay-7", |journal| drop(journal.events.remove(1)));
    world.bank.action("b", |_| Reply::Ok);
    let next = world.node().await;
    world.ends("good", SagaState::Succeeded).await;
    until("it is set aside", || world.state("pay-7") == Some(SagaState::NeedsIntervention)).await;
    assert_eq!(world.owner("pay-7"), None);
    let error = next.coordinator.get_saga(&id("pay-7")).await.unwrap_err();
    assert!(matches!(error, EngineError::Quarantined { .. }), "{error:?}");
    assert!(findings(&next).await.contains(&(FindingKind::Quarantined, "pay-7".to_owned())));
    let refused = next.coordinator.release_saga(&id("pay-7"), "ben", "too early").await.unwrap_err();
    assert!(matches!(refused, EngineError::Quarantined { .. }), "{refused:?}");
    let refused = next.cancel("pay-7").await.unwrap_err();
    assert!(matches!(refused, EngineError::Quarantined { .. }), "nobody acts on what cannot be read");
    let refused = next.coordinator.release_saga(&id("good"), "ben", "").await.unwrap_err();
    assert!(matches!(refused, EngineError::NotQuarantined { .. }), "{refused:?}");

    world.disk.plant("pay-7", |journal| journal.events = whole.events.clone());
    next.coordinator.release_saga(&id("pay-7"), "ben", "restored from the backup").await.unwrap();
    world.ends("pay-7", SagaState::Succeeded).await;
    assert_eq!(findings(&next).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_is_at_fault_puts_none_of_its_sagas_into_quarantine() {
    let world = World::new();
    let node = world.node_for(&line().dedup()).await;
    world.bank.action("b", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    node.crash();
    world.disk.break_definitions(true);
    world.bank.action("b", |_| Reply::Ok);
    let _next = world.node().await;
    tokio::time::sleep(ms(30_000)).await;
    assert_eq!(world.state("pay-7"), Some(SagaState::Running), "its journal is as good as ever");
    world.disk.break_definitions(false);
    world.ends("pay-7", SagaState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_could_not_be_written_is_written_later() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |_| Reply::Panic);
    node.start("line", "bad").await;
    world.disk.down(true);
    tokio::time::sleep(ms(2_000)).await;
    world.disk.down(false);
    until("it is set aside", || world.state("bad") == Some(SagaState::NeedsIntervention)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_program_wrote_is_left_to_it() {
    let world = World::new();
    let node = world.node_for(&line().dedup()).await;
    world.bank.action("b", |_| Reply::Held);
    node.start("line", "pay-7").await;
    quiet().await;
    node.crash();
    world.disk.write_newer("pay-7", true);
    let _old = world.node().await;
    tokio::time::sleep(ms(30_000)).await;
    assert_eq!(
        world.state("pay-7"),
        Some(SagaState::Running),
        "not quarantined: there is nothing wrong with it"
    );
    world.disk.write_newer("pay-7", false);
    world.bank.action("b", |_| Reply::Ok);
    world.ends("pay-7", SagaState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_saga_whose_driving_panics_is_set_aside_and_nothing_else_is_hurt() {
    let world = World::new();
    let node = world.node_for(&line()).await;
    world.bank.action("a", |call| if call.saga == "bad" { Reply::Panic } else { Reply::Ok });
    node.start("line", "bad").await;
    assert_eq!(node.run("line", "good").await.state, SagaState::Succeeded);
    until("it is set aside", || world.state("bad") == Some(SagaState::NeedsIntervention)).await;
}

const EVERY: Duration = Duration::from_secs(15 * 60);

/// A world with one saga whose head row does not say what its journal says, and a coordinator.
async fn with_one_finding() -> (World, Node) {
    let world = World::new();
    let node = world.node_for(&line()).await;
    node.run("line", "differs").await;
    world.disk.plant("differs", |journal| journal.head.state = SagaState::RolledBack);
    (world, node)
}

#[tokio::test(start_paused = true)]
async fn each_coordinator_makes_its_rounds_and_tells_what_is_and_what_is_well_again() {
    let (world, node) = with_one_finding().await;
    let never = world.node_with(|settings| settings.doctor_every = Duration::ZERO).await;
    assert!(node.coordinator.doctor_findings().is_empty(), "nobody has looked yet");
    tokio::time::sleep(EVERY).await;
    let findings = node.coordinator.doctor_findings();
    assert_eq!(findings[&FindingKind::HeadDiffers], 1, "{findings:?}");
    assert_eq!(findings[&FindingKind::JournalBroken], 0, "{findings:?}");
    world.disk.plant("differs", |journal| journal.head.state = SagaState::Succeeded);
    tokio::time::sleep(EVERY).await;
    assert_eq!(node.coordinator.doctor_findings()[&FindingKind::HeadDiffers], 0);
    assert!(never.coordinator.doctor_findings().is_empty(), "zero means never");
}

#[tokio::test(start_paused = true)]
async fn an_examination_that_was_asked_for_is_told_too() {
    let (_world, node) = with_one_finding().await;
    findings(&node).await;
    assert_eq!(node.coordinator.doctor_findings()[&FindingKind::HeadDiffers], 1);
}

#[tokio::test(start_paused = true)]
async fn no_round_is_made_during_a_drain() {
    let (world, node) = with_one_finding().await;
    world.bank.action("a", |_| Reply::Held);
    node.start("line", "held").await;
    quiet().await;
    let coordinator = node.coordinator.clone();
    let draining = tokio::spawn(async move { coordinator.drain(3 * EVERY).await });
    tokio::time::sleep(2 * EVERY).await;
    assert!(!draining.is_finished(), "a call is out");
    assert!(node.coordinator.doctor_findings().is_empty());
    world.bank.let_go("a", Reply::Ok);
    draining.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_round_that_hangs_is_given_up_and_the_next_one_is_made() {
    let (_world, node) = with_one_finding().await;
    node.stall(true);
    tokio::time::sleep(EVERY + Duration::from_secs(60)).await;
    node.stall(false);
    quiet().await;
    assert!(node.coordinator.doctor_findings().is_empty(), "it was given up meanwhile");
    tokio::time::sleep(EVERY).await;
    assert_eq!(node.coordinator.doctor_findings()[&FindingKind::HeadDiffers], 1);
}
