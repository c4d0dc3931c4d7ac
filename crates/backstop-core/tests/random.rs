//! Sagas of up to twelve steps, random in shape, kind and fortune: every promise at every step of the way,
//! and always an end.
//!
//! # Invariants
//! * DESIGN 6 after every choice (`common::world`), however many crashes come together.
//! * Once the world is kind again, every saga ends, and its journal replays to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use backstop_core::{BranchState, CompensationOrder, InDoubt, OnFailure, SagaState, replay};
use common::plan::Plan;
use common::world::{Choice, Coverage, KINDS_OF_TURNS, Rules, Said, World};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Sagas to walk through.
const CASES: u32 = 10_000;
/// Longest search for a smaller case that fails too.
const SHRINK_MS_MAX: u32 = 20_000;
const STEPS_MAX: usize = 12;
/// Far more than any saga here needs once nothing goes wrong any more.
const TURNS_MAX: usize = 2000;

const ROUGH: Rules = Rules {
    faults: 12,
    crashes: 3,
    hand_overs: 2,
    cancels: 1,
    operators: 4,
    stragglers: true,
    actions: &[
        Said::Refused,
        Said::Aborted,
        Said::InternalDone,
        Said::UnavailableDone,
        Said::TimeoutDone,
        Said::TimeoutNot,
        Said::TimeoutTravels,
        Said::NotSent,
    ],
    compensations: &[Said::Refused, Said::TimeoutDone, Said::NotSent],
};

const ORDERS: [CompensationOrder; 3] =
    [CompensationOrder::ReverseDag, CompensationOrder::Lifo, CompensationOrder::Concurrent];

/// One step's dice.
#[derive(Debug, Clone)]
struct Dice {
    /// Which earlier steps it waits for, a bit each.
    after: u16,
    read_only: bool,
    manner: u8,
    listens: bool,
}

fn dice() -> impl Strategy<Value = Dice> {
    // Two rolls at once keep the graphs sparse enough to have something run side by side.
    (any::<u16>(), any::<u16>(), prop::bool::weighted(0.15), 0..4_u8, prop::bool::weighted(0.2))
        .prop_map(|(a, b, read_only, manner, listens)| Dice { after: a & b, read_only, manner, listens })
}

fn plans() -> impl Strategy<Value = Plan> {
    let steps = prop::collection::vec(dice(), 1..=STEPS_MAX);
    let pivot = prop::option::weighted(0.5, 0..STEPS_MAX);
    (steps, pivot, 0..3_usize, any::<bool>(), prop::option::weighted(0.3, 1..200_u64)).prop_map(
        |(steps, pivot, order, cancels, deadline_ms)| {
            let plan = Plan::new().order(ORDERS[order]);
            let plan = plan.on_failure(if cancels { OnFailure::Cancel } else { OnFailure::Drain });
            let plan = match deadline_ms {
                Some(limit) => plan.deadline(Duration::from_millis(limit)),
                None => plan,
            };
            let pivot = pivot.filter(|at| *at < steps.len());
            steps.iter().enumerate().fold(plan, |plan, (n, dice)| add(plan, n, pivot, dice))
        },
    )
}

fn add(plan: Plan, n: usize, pivot: Option<usize>, dice: &Dice) -> Plan {
    let waits = |m: &usize| match pivot {
        Some(pivot) if n == pivot => true,
        Some(pivot) if n > pivot => *m == pivot || (*m > pivot && dice.after & (1 << m) != 0),
        Some(_) | None => dice.after & (1 << m) != 0,
    };
    let after: Vec<String> = (0..n).filter(waits).map(|m| format!("s{m}")).collect();
    let after: Vec<&str> = after.iter().map(String::as_str).collect();
    let name = format!("s{n}");
    let is_final = pivot.is_some_and(|pivot| n >= pivot);
    let plan = match pivot {
        Some(pivot) if n == pivot => plan.pivot(&name, &after),
        Some(pivot) if n > pivot => plan.retriable(&name, &after),
        Some(_) | None if dice.read_only => plan.read_only(&name, &after),
        Some(_) | None => plan.step(&name, &after).refusals(2),
    };
    let plan = match dice.manner {
        0 => plan,
        1 if !is_final => plan.dedup().in_doubt(InDoubt::Compensate),
        2 => plan.query().in_doubt(InDoubt::Query),
        _ => plan.dedup(),
    };
    let plan = plan.attempts(2);
    if dice.listens { plan.listens() } else { plan }
}

fn assert_replays(world: &World) {
    let again = replay(world.saga.id.clone(), Arc::clone(&world.saga.definition), &world.journal);
    if again.as_ref() != Ok(&*world.saga) {
        world.broken("the journal does not replay to the live saga");
    }
}

#[test]
fn a_random_saga_keeps_every_promise_and_comes_to_an_end() {
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        max_shrink_time: SHRINK_MS_MAX,
        ..ProptestConfig::default()
    };
    let seen = RefCell::new(Coverage::default());
    let script = prop::collection::vec(any::<u16>(), 0..150);
    let walked = TestRunner::new(config).run(&(plans(), script), |(plan, script)| {
        walk(&plan, &script, &mut seen.borrow_mut());
        Ok(())
    });
    // The error shows the smallest plan and script that fail.
    walked.unwrap_or_else(|error| panic!("{error}"));
    let seen = seen.into_inner();
    assert_eq!(seen.events, BTreeSet::from(KINDS_OF_TURNS), "every kind of event");
    assert_eq!(seen.branch_states, BTreeSet::from(BranchState::ALL), "every state of a branch");
    println!("crashes after {:?}", seen.crashed_after);
}

/// What may happen at this roll. Violence is rare, or no saga would live to see its later steps; and most
/// answers are good ones.
fn choices_for(world: &World, roll: u16) -> Vec<Choice> {
    let is_violent = |choice: &Choice| {
        matches!(choice, Choice::Crash(_) | Choice::HandOver | Choice::Cancel | Choice::Deadline)
    };
    let is_bad = |choice: &Choice| matches!(choice, Choice::Answer(_, said) if !matches!(said, Said::Ok | Said::NotFound));
    let (violent, calm): (Vec<Choice>, Vec<Choice>) = world.enabled().into_iter().partition(is_violent);
    if (roll.is_multiple_of(9) || calm.is_empty()) && !violent.is_empty() {
        return violent;
    }
    let good: Vec<Choice> = calm.iter().copied().filter(|choice| !is_bad(choice)).collect();
    if roll.is_multiple_of(5) || good.is_empty() { calm } else { good }
}

fn walk(plan: &Plan, script: &[u16], seen: &mut Coverage) {
    let mut world = World::new(plan, ROUGH);
    for roll in script {
        let choices = choices_for(&world, *roll);
        if choices.is_empty() {
            break;
        }
        world.step(choices[usize::from(*roll) % choices.len()], seen);
    }
    assert_replays(&world);
    if !world.finish(TURNS_MAX, seen) {
        world.broken("it does not come to an end");
    }
    assert_replays(&world);
}

/// The shape of omicron #10531: one branch of a fork fails, its sibling is undone, then a crash; the join
/// must not make the saga unrecoverable.
fn fork_join(order: CompensationOrder, dedup: bool) -> Plan {
    let shape: [(&str, &[&str]); 4] = [("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])];
    shape.iter().fold(Plan::new().order(order), |plan, (name, after)| {
        let plan = plan.step(name, after);
        if dedup { plan.dedup() } else { plan }
    })
}

#[test]
fn peer_30_a_fork_that_aborts_before_its_join_survives_a_crash_at_every_event() {
    let rules = Rules { faults: 1, crashes: 1, hand_overs: 0, cancels: 0, operators: 0, ..ROUGH };
    let mut seen = Coverage::default();
    let mut failed = BTreeSet::new();
    let mut crashes = 0;
    for order in ORDERS {
        for dedup in [false, true] {
            for victim in 0..4 {
                let mut world = World::new(&fork_join(order, dedup), rules);
                while !world.saga.state.is_final() {
                    let mut after_crash = world.clone();
                    after_crash.step(Choice::Crash(false), &mut seen);
                    assert!(after_crash.finish(TURNS_MAX, &mut seen), "{}", after_crash.told());
                    assert_replays(&after_crash);
                    crashes += 1;
                    let is_refusal = |choice: &Choice| matches!(choice, Choice::Answer(place, Said::Refused) if world.step_of(*place) == victim);
                    let choices = world.enabled();
                    let next = choices.iter().copied().find(is_refusal);
                    world.step(next.unwrap_or(choices[0]), &mut seen);
                }
                assert_eq!(world.saga.state, SagaState::RolledBack);
                assert_eq!(world.saga.branches[victim].state, BranchState::Failed);
                failed.insert(victim);
            }
        }
    }
    assert_eq!(failed, BTreeSet::from([0, 1, 2, 3]), "every step has failed once");
    println!("{crashes} crashes after {:?}", seen.crashed_after);
    for kind in ["Started", "ActionSucceeded", "RollbackDecided", "CompensationSucceeded"] {
        assert!(seen.crashed_after.contains_key(kind), "no crash after {kind}");
    }
}
