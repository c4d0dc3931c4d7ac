//! Operators: they look what waits for a person, make something true by hand, and say so.

use crate::clients::{ask, somebody};
use crate::dice::Dice;
use crate::world::World;
use backstop_core::{BranchState, EventKind, Input, Resolution, Saga, SagaId, SagaState, StepKind};
use backstop_engine::ports::store::{SagaFilter, Store};
use backstop_engine::{EngineError, Reach};
use backstop_invariants::{Did, Seen};
use futures::FutureExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What was made true by hand already, and is to be said until it is heard.
type Settled = BTreeMap<(SagaId, usize), Resolution>;

/// Looks after what waits for a person, for ever.
pub(crate) async fn work(world: Arc<World>) {
    let dice = Dice::of(world.options.seed, "people");
    let mut settled = Settled::new();
    loop {
        tokio::time::sleep(dice.ms(300, 3_000)).await;
        for saga in waiting(&world) {
            if !dice.percent(60) {
                continue;
            }
            if let Some(saga) = world.saga(&saga)
                && let Some(step) = (0..saga.branches.len()).find(|step| saga.needs_person(*step))
            {
                say(&world, &dice, &mut settled, &saga, step).await;
            }
        }
    }
}

fn waiting(world: &World) -> Vec<SagaId> {
    let filter = SagaFilter { states: vec![SagaState::NeedsIntervention], ..SagaFilter::default() };
    let heads = world.data.list(&filter, None, usize::MAX).now_or_never().and_then(Result::ok);
    heads.unwrap_or_default().into_iter().map(|head| head.saga).collect()
}

/// What this person is going to say of a branch, after having made it true.
fn decide(world: &World, dice: &Dice, settled: &mut Settled, saga: &Saga, step: usize) -> Option<Resolution> {
    let key = (saga.id.clone(), step);
    if let Some(resolution) = settled.get(&key) {
        return Some(*resolution);
    }
    let (planned, branch) = (&saga.definition.steps[step], &saga.branches[step]);
    let to = world.participant(&planned.action.participant)?;
    let in_force = world.bank.with(to, |books| books.entry(&saga.id, step).effect > 0);
    // Sending it again is safe where it is certain that nothing was done, or where a barrier tells.
    let may_retry = branch.state != BranchState::InDoubt || planned.deduplicates || !in_force;
    if may_retry && dice.percent(60) {
        return None;
    }
    let resolution = match branch.state {
        BranchState::Stuck => Resolution::Undone,
        BranchState::InDoubt if planned.kind == StepKind::Pivot && !in_force => Resolution::NoEffect,
        _ => Resolution::TookEffect,
    };
    let amount = world.amount(saga, step);
    let is_true = resolution == Resolution::TookEffect;
    let did = world.bank.with(to, |books| books.by_hand(&saga.id, step, amount, is_true));
    if let Some(took_effect) = did {
        let did = if took_effect { Did::TookEffect } else { Did::Undid };
        world.see(&saga.id, Seen::Booked { step, did });
    }
    settled.insert(key, resolution);
    Some(resolution)
}

async fn say(world: &Arc<World>, dice: &Dice, settled: &mut Settled, saga: &Saga, step: usize) {
    let (by, reason) = ("olga".to_owned(), format!("case {}", dice.roll(1_000_000)));
    let name = saga.definition.steps[step].name.clone();
    let input = match decide(world, dice, settled, saga, step) {
        Some(resolution) => Input::ResolveBranch { step: name, by, reason: reason.clone(), resolution },
        None => Input::RetryBranch { step: name, by, reason: reason.clone() },
    };
    let running = somebody(world, dice).await;
    world.log.say("people", &format!("{}: {input:?}", saga.id));
    let id = saga.id.clone();
    let patience = world.plans.settings.command_patience + Duration::from_secs(4);
    let answer =
        ask(&running, patience, |c| async move { c.command(&id, input, Reach::Anywhere).await }).await;
    match answer {
        Some(Ok(_)) => {
            world.count("world", "a person is heard");
            let is_there = world.journal(&saga.id).is_some_and(|journal| {
                journal.events.iter().any(|event| match &event.kind {
                    EventKind::BranchRetried { reason: why, .. }
                    | EventKind::BranchResolved { reason: why, .. } => *why == reason,
                    _ => false,
                })
            });
            if !is_there {
                world.broke(Some(&saga.id), "I3: a person's word is acknowledged, and is not durable");
            }
        }
        Some(Err(error @ EngineError::NotFound { .. })) => {
            world.broke(Some(&saga.id), format!("a person is answered: {error}"));
        }
        Some(Err(_)) | None => world.count("world", "a person is not heard"),
    }
}
