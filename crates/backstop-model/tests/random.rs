//! Sagas of up to twelve steps, random in shape, kind and fortune: every promise at every step of the way, and always an
//! end.
//!
//! # Invariants
//! * Every promise of `backstop-invariants` after every choice, however many crashes and take-overs come together.
//! * Once the world is kind again, every saga ends, and its journal replays to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use backstop_core::{
    BranchState, CallSpec, CompensationOrder, Definition, DefinitionSpec, ErrorTable, InDoubt, OnFailure,
    ParticipantName, ParticipantTraits, RetryPolicy, Revision, StepKind, StepSpec, validate,
};
use backstop_model::{ACTIONS, Bounds, Choice, Coverage, Manner, ORDERS, SHAPES, Said, World};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Sagas to walk through.
const CASES: u32 = 2_000;
/// Longest search for a smaller case that fails too.
const SHRINK_MS_MAX: u32 = 20_000;
const STEPS_MAX: usize = 12;
/// Far more than any saga here needs once nothing goes wrong any more.
const STEPS_TO_THE_END_MAX: usize = 2000;

const ROUGH: Bounds = Bounds {
    faults: 12,
    crashes: 3,
    takeovers: 2,
    freezes: 2,
    unknowns: 2,
    doubles: 2,
    hand_overs: 2,
    cancels: 1,
    operators: 4,
    actions: ACTIONS,
    compensations: &[Said::Refused, Said::NotSent],
    plain_late: false,
};

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

fn definitions() -> impl Strategy<Value = Arc<Definition>> {
    let steps = prop::collection::vec(dice(), 1..=STEPS_MAX);
    let pivot = prop::option::weighted(0.5, 0..STEPS_MAX);
    (steps, pivot, 0..3_usize, any::<bool>(), prop::option::weighted(0.3, 1..200_u64)).prop_map(
        |(dice, pivot, order, cancels, deadline_ms)| {
            let pivot = pivot.filter(|at| *at < dice.len());
            let spec = DefinitionSpec {
                name: "random".into(),
                deadline: deadline_ms.map(Duration::from_millis),
                compensation_order: ORDERS[order],
                on_failure: if cancels { OnFailure::Cancel } else { OnFailure::Drain },
                steps: dice.iter().enumerate().map(|(n, dice)| step(n, pivot, dice)).collect(),
                ..DefinitionSpec::default()
            };
            let traits = |dice: &Dice| ParticipantTraits {
                deduplicates_by_key: matches!(dice.manner, 1 | 3),
                listens: dice.listens,
            };
            let named = dice.iter().enumerate().map(|(n, dice)| (name(n), traits(dice)));
            let participants = named.map(|(name, traits)| (ParticipantName::parse(&name).unwrap(), traits));
            let participants: BTreeMap<_, _> = participants.collect();
            Arc::new(validate(&spec, Revision(1), &participants, Arc::new(ErrorTable::default())).unwrap())
        },
    )
}

fn name(n: usize) -> String {
    format!("s{n}")
}

fn step(n: usize, pivot: Option<usize>, dice: &Dice) -> StepSpec {
    let waits = |m: &usize| match pivot {
        Some(pivot) if n == pivot => true,
        Some(pivot) if n > pivot => *m == pivot || (*m > pivot && dice.after & (1 << m) != 0),
        Some(_) | None => dice.after & (1 << m) != 0,
    };
    let kind = match pivot {
        Some(pivot) if n == pivot => StepKind::Pivot,
        Some(pivot) if n > pivot => StepKind::Retriable,
        Some(_) | None if dice.read_only => StepKind::ReadOnly,
        Some(_) | None => StepKind::Compensatable,
    };
    let call = |method: &str| CallSpec {
        participant: name(n),
        method: format!("bank.v1.Service/{method}"),
        retry: RetryPolicy {
            initial: Duration::from_millis(100),
            max: Duration::from_millis(100),
            attempts_max: 2,
            give_up_after: None,
        },
        ..CallSpec::default()
    };
    StepSpec {
        name: name(n),
        kind,
        depends_on: (0..n).filter(waits).map(name).collect(),
        action: call("Do"),
        compensation: (kind == StepKind::Compensatable).then(|| call("Undo")),
        in_doubt: match dice.manner {
            1 if kind == StepKind::Compensatable => Some(InDoubt::Compensate),
            2 if kind != StepKind::ReadOnly => Some(InDoubt::Query),
            _ => None,
        },
        query: (dice.manner == 2 && kind != StepKind::ReadOnly).then(|| call("Ask")),
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
    let script = prop::collection::vec(any::<u16>(), 0..200);
    let walked = TestRunner::new(config).run(&(definitions(), script), |(definition, script)| {
        walk(&definition, &script, &mut seen.borrow_mut());
        Ok(())
    });
    // The error shows the smallest definition and script that fail.
    walked.unwrap_or_else(|error| panic!("{error}"));
    let seen = seen.into_inner();
    assert_eq!(seen.missing(), Vec::<String>::new());
    println!("crashes while {:?}, after {:?}", seen.crashed_while, seen.crashed_after);
}

/// What may happen at this roll. Violence is rare, or no saga would live to see its later steps; and most answers are
/// good ones.
fn choices_for(world: &World, roll: u16) -> Vec<Choice> {
    let is_violent = |choice: &Choice| {
        matches!(
            choice,
            Choice::Crash { .. }
                | Choice::HandOver { .. }
                | Choice::Cancel { .. }
                | Choice::Deadline { .. }
                | Choice::TakeOver { .. }
                | Choice::ToldAndFreezes { .. }
                | Choice::CommitUnheard { .. }
        )
    };
    let is_bad = |choice: &Choice| match choice {
        Choice::Answer { said, .. } => !matches!(said, Said::Ok | Said::NotFound),
        Choice::Timeout { .. } | Choice::Serve { .. } => true,
        _ => false,
    };
    let mut choices = Vec::new();
    world.choices(&mut choices);
    let (violent, calm): (Vec<Choice>, Vec<Choice>) = choices.into_iter().partition(is_violent);
    if (roll.is_multiple_of(9) || calm.is_empty()) && !violent.is_empty() {
        return violent;
    }
    let good: Vec<Choice> = calm.iter().copied().filter(|choice| !is_bad(choice)).collect();
    if roll.is_multiple_of(5) || good.is_empty() { calm } else { good }
}

fn walk(definition: &Arc<Definition>, script: &[u16], seen: &mut Coverage) {
    let mut world = World::new(definition, ROUGH).unwrap();
    for roll in script {
        let choices = choices_for(&world, *roll);
        if choices.is_empty() {
            break;
        }
        world.step(choices[usize::from(*roll) % choices.len()]);
        seen.take_in(&world);
    }
    finish(&mut world, seen);
}

/// Brings the saga to its end as a kind world and a patient person would.
fn finish(world: &mut World, seen: &mut Coverage) {
    assert!(world.replays(), "the journal does not replay");
    for _ in 0..STEPS_TO_THE_END_MAX {
        world.be_kind();
        let mut choices = Vec::new();
        world.choices(&mut choices);
        let calm = |choice: &&Choice| !matches!(choice, Choice::Deadline { .. });
        let Some(choice) = choices.iter().find(calm) else { break };
        world.step(*choice);
        seen.take_in(world);
    }
    let told = || format!("{:?}\n{}\n{}", world.broken, world.trail().join("\n"), world.transcript());
    assert!(world.broken.is_none(), "{}", told());
    assert!(world.has_ended(), "it does not come to an end\n{}", told());
    assert!(world.replays(), "the journal does not replay");
}

/// One branch of a fork fails, its sibling is undone, then a crash; the join must not make the saga unrecoverable.
#[test]
fn peer_30_a_fork_that_aborts_before_its_join_survives_a_crash_at_every_event() {
    let bounds = Bounds { faults: 1, crashes: 1, ..Bounds::NONE };
    let diamond = SHAPES.into_iter().find(|shape| shape.name == "diamond").unwrap();
    let (mut seen, mut failed, mut crashes) = (Coverage::default(), BTreeSet::new(), 0);
    for order in [CompensationOrder::ReverseDag, CompensationOrder::Lifo, CompensationOrder::Concurrent] {
        for manner in [Manner::Plain, Manner::Resend] {
            for victim in 0..4 {
                let definition = diamond.definition(manner, order, OnFailure::Drain).unwrap();
                let mut world = World::new(&definition, bounds).unwrap();
                while !world.has_ended() {
                    let mut choices = Vec::new();
                    world.choices(&mut choices);
                    if choices.contains(&Choice::Crash { slot: 0 }) {
                        let mut after_crash = world.clone();
                        after_crash.step(Choice::Crash { slot: 0 });
                        seen.take_in(&after_crash);
                        finish(&mut after_crash, &mut seen);
                        crashes += 1;
                    }
                    let refuses = |choice: &Choice| matches!(choice, Choice::Answer { place, said: Said::Refused } if world.step_of(*place) == victim);
                    let next = choices.iter().copied().find(refuses);
                    world.step(next.unwrap_or(choices[0]));
                }
                assert_eq!(world.branch_states()[victim], BranchState::Failed);
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
