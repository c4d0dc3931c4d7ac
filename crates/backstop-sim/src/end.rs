//! What must be true once all is quiet.

use crate::clients::ask;
use crate::held;
use crate::world::World;
use backstop_core::{SagaId, SagaState, agenda, apply};
use backstop_engine::ports::store::MisfitKind;
use backstop_engine::{Examination, Finding, FindingKind, HowMuch};
use backstop_invariants::{Money, money};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time, by the world's clock, in which all must have come to an end.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// In this time everything that travels has arrived.
const LAST_ARRIVES: Duration = Duration::from_secs(20);

/// Waits until nothing happens any more.
pub(crate) async fn quiet(world: &World, with_people: bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let open = world.sagas().into_iter().find(|saga| !is_over(world, saga, with_people));
        let Some(open) = open else { break };
        if Instant::now() >= until {
            let head = world.journal(&open).map(|journal| journal.head);
            let stands = head.map(|h| (h.state, h.owner, h.wake_at, h.quarantine));
            let what = "I2: it hangs: an hour after all is well it has not come to an end";
            world.broke(Some(&open), format!("{what}: {stands:?}"));
            return;
        }
    }
    tokio::time::sleep(LAST_ARRIVES).await;
}

fn is_over(world: &World, saga: &SagaId, with_people: bool) -> bool {
    let Some(journal) = world.journal(saga) else { return true };
    match journal.head.state {
        SagaState::Succeeded | SagaState::RolledBack => true,
        SagaState::NeedsIntervention if !with_people => true,
        SagaState::NeedsIntervention => false,
        SagaState::Running | SagaState::RollingBack => waits_for_the_dead(world, saga),
    }
}

/// All that is still to be done is to be done by a participant that never comes back.
fn waits_for_the_dead(world: &World, id: &SagaId) -> bool {
    let Some(saga) = world.saga(id) else { return false };
    let picture = agenda(&saga, backstop_core::Timestamp(i64::MAX));
    let to =
        |call: &backstop_core::Call| call.plan(&saga).and_then(|plan| world.participant(&plan.participant));
    let mut calls = picture.calls.iter().chain(&picture.awaited).peekable();
    calls.peek().is_some() && calls.all(|call| to(call).is_some_and(|place| world.bank.is_dead(place)))
}

/// Judges all that has happened.
pub(crate) async fn judge(world: &Arc<World>) {
    for saga in world.sagas() {
        let Some(journal) = world.journal(&saga) else {
            world.broke(Some(&saga), "I2: it is lost");
            return;
        };
        world.was_read(&saga, &journal.events);
        count_states(world, &saga);
        if journal.head.state.is_at_rest() {
            world.judge(&saga, |witness| witness.at_rest());
            world.judge(&saga, |witness| witness.books_agree());
            world.count("saga ended", journal.head.state.as_str());
        } else {
            world.count("world", "waits for the dead");
        }
    }
    promises_are_kept(world);
    money_is_there(world);
    doctor_is_content(world).await;
}

fn count_states(world: &World, id: &SagaId) {
    let Some(journal) = world.journal(id) else { return };
    let Some(plan) = world.plan(&journal.head.definition.name) else { return };
    let Some((first, rest)) = journal.events.split_first() else { return };
    let Ok(mut saga) = backstop_core::apply::begin(id.clone(), Arc::clone(&plan.definition), first) else {
        world.broke(Some(id), "its journal does not begin");
        return;
    };
    for event in rest {
        if let Err(corrupt) = apply(&mut saga, event) {
            world.broke(Some(id), format!("its journal does not replay: {corrupt}"));
            return;
        }
        for branch in &saga.branches {
            world.count("branch was", branch.state.as_str());
        }
    }
    world.count_many("world", "events", journal.events.len() as u64);
}

fn promises_are_kept(world: &World) {
    let promises = held(&world.promises);
    for saga in promises.accepted.keys() {
        if world.journal(saga).is_none() {
            world.broke(Some(saga), "I2: it was accepted, and is lost");
        }
    }
    for (saga, told) in &promises.ended {
        let is = world.journal(saga).map(|journal| journal.head.state);
        if is != Some(*told) {
            world.broke(Some(saga), format!("I1: a client was told {}, and it is {is:?}", told.as_str()));
        }
    }
}

fn money_is_there(world: &World) {
    let name = |place: usize| world.plans.cast[place].name.to_string();
    let count = world.plans.cast.len();
    let fresh = |place| Money { name: name(place), balance: 0, pending: 0, net_flow: 0 };
    let before: Vec<Money> = (0..count).map(fresh).collect();
    let mut after: Vec<Money> = (0..count)
        .map(|place| {
            let (balance, net_flow) = world.bank.with(place, |books| (books.balance, books.net_flow));
            Money { name: name(place), balance, pending: 0, net_flow }
        })
        .collect();
    // What a saga that is not over has in force is exposed, and counts as pending.
    for saga in world.sagas().iter().filter_map(|saga| world.saga(saga)).filter(|saga| !saga.state.is_final())
    {
        for (step, planned) in saga.definition.steps.iter().enumerate() {
            let Some(place) = world.participant(&planned.action.participant) else { continue };
            let times = world.bank.with(place, |books| books.entry(&saga.id, step).effect);
            let exposed = world.amount(&saga, step) * i128::from(times);
            after[place].balance -= exposed;
            after[place].net_flow -= exposed;
            after[place].pending += exposed.abs();
        }
    }
    if let Err(violation) = money(&before, &after) {
        world.broke(None, violation.to_string());
    }
}

async fn doctor_is_content(world: &Arc<World>) {
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let Some(running) = world.machines.all().into_iter().next() else { continue };
        let patience = Duration::from_secs(60);
        let asked = ask(&running, patience, |c| async move { c.examine(HowMuch::Everything).await }).await;
        let Some(Ok(Examination { findings, .. })) = asked else { continue };
        // After the store's clock was set back a lease of before does run for long; it comes to its end.
        let is_lease = |finding: &Finding| finding.kind == FindingKind::Misfit(MisfitKind::Lease);
        match findings.iter().find(|finding| !is_lease(finding)) {
            Some(found) => {
                let saga = SagaId::parse(&found.subject).ok();
                return world.broke(saga.as_ref(), format!("I2: the doctor finds {found:?}"));
            }
            None if findings.is_empty() => return,
            None => {}
        }
    }
    world.broke(None, "I2: no coordinator answers the doctor, or a lease does not end");
}
