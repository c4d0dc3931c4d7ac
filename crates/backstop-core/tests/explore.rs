//! Small sagas, every interleaving: all that participants, networks, coordinators and people can do to them,
//! within the bounds below, with every promise checked at every state.
//!
//! # Invariants
//! * At each state the journal replays to the live saga, and DESIGN 6 holds against the books
//!   (`common::world`).
//! * The exploration proves that it explored: a floor under the states of each shape, and every kind of
//!   event, state and crash point reached.
//!
//! The wider bounds take minutes: `cargo test --release -p backstop-core --test explore -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use backstop_core::{BranchState, CompensationOrder, InDoubt, OnFailure, SagaState, replay};
use common::plan::Plan;
use common::world::{Coverage, KINDS_OF_TURNS, Rules, Said, World};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Attempts of every action and query, and refusals of a compensation until it is stuck.
const ATTEMPTS_MAX: u32 = 2;
/// A deadline that passes only when the explorer says so.
const FAR: Duration = Duration::from_secs(3600);
/// A deadline that passes before a second attempt is due.
const NEAR: Duration = Duration::from_micros(1);

/// Everything that a participant or the way to it can do.
const ACTIONS: &[Said] = &[
    Said::Refused,
    Said::Aborted,
    Said::InternalDone,
    Said::UnavailableDone,
    Said::TimeoutDone,
    Said::TimeoutNot,
    Said::TimeoutTravels,
    Said::NotSent,
];
const COMPENSATIONS: &[Said] = &[Said::Refused, Said::TimeoutDone, Said::NotSent];
/// One of each consequence: refused, in doubt and done, in doubt and not done, tried again without doubt.
const ACTIONS_FEW: &[Said] = &[Said::Refused, Said::TimeoutDone, Said::TimeoutTravels, Said::NotSent];
const COMPENSATIONS_FEW: &[Said] = &[Said::Refused];

const WIDE: Rules = Rules {
    faults: 3,
    crashes: 1,
    hand_overs: 1,
    cancels: 1,
    operators: 1,
    stragglers: false,
    actions: ACTIONS,
    compensations: COMPENSATIONS,
};
const NARROW: Rules =
    Rules { faults: 2, hand_overs: 0, actions: ACTIONS_FEW, compensations: COMPENSATIONS_FEW, ..WIDE };

/// For sagas that branch: what is left out here is in the wide ones, or in the chains.
const SMALL: Rules = Rules {
    cancels: 0,
    operators: 0,
    actions: &[Said::Refused, Said::TimeoutTravels, Said::TimeoutDone],
    ..NARROW
};
/// For sagas of four steps.
const SMALLER: Rules = Rules { actions: &[Said::Refused, Said::TimeoutDone], ..SMALL };

/// How the participants of a plan behave, and what is done about their doubts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// No dedup: undone as if done.
    Plain,
    /// Dedup: sent again.
    Resend,
    /// Dedup, and undone all the same.
    KeyedCompensate,
    /// Asked.
    Query,
}

impl Manner {
    const ALL: [Self; 4] = [Self::Plain, Self::Resend, Self::KeyedCompensate, Self::Query];

    /// Applies to the step that was added last.
    fn on(self, plan: Plan) -> Plan {
        let plan = plan.attempts(ATTEMPTS_MAX);
        match self {
            Self::Plain => plan,
            Self::Resend => plan.dedup(),
            Self::KeyedCompensate => plan.dedup().in_doubt(InDoubt::Compensate),
            Self::Query => plan.query().in_doubt(InDoubt::Query).attempts(ATTEMPTS_MAX),
        }
    }

    /// Pivots and retriable steps cannot be told to compensate.
    fn on_final(self, plan: Plan) -> Plan {
        match self {
            Self::KeyedCompensate => Self::Resend.on(plan),
            Self::Plain | Self::Resend | Self::Query => self.on(plan),
        }
    }

    fn step(self, plan: Plan, name: &str, after: &[&str]) -> Plan {
        self.on(plan.step(name, after).refusals(ATTEMPTS_MAX))
    }

    fn rules(self, rules: Rules) -> Rules {
        Rules { stragglers: matches!(self, Self::Resend | Self::KeyedCompensate), ..rules }
    }
}

const ORDERS: [CompensationOrder; 3] =
    [CompensationOrder::ReverseDag, CompensationOrder::Lifo, CompensationOrder::Concurrent];
const ON_FAILURE: [OnFailure; 2] = [OnFailure::Drain, OnFailure::Cancel];

/// A saga to explore: in each order, with either treatment of what is in flight, in each manner.
struct Shape {
    name: &'static str,
    rules: Rules,
    /// Fewer states than this mean that the exploration has stopped somewhere.
    states_min: usize,
    plan: fn(Manner) -> Plan,
}

fn single(manner: Manner) -> Plan {
    manner.step(Plan::new().deadline(FAR), "a", &[]).listens()
}

fn hurried(manner: Manner) -> Plan {
    manner.step(Plan::new().deadline(NEAR), "a", &[])
}

fn chain_of_two(manner: Manner) -> Plan {
    let plan = manner.step(Plan::new(), "a", &[]);
    manner.step(plan, "b", &["a"])
}

fn chain_of_three(manner: Manner) -> Plan {
    manner.step(chain_of_two(manner), "c", &["b"])
}

fn fork(manner: Manner) -> Plan {
    manner.step(chain_of_two(manner), "c", &["a"])
}

fn pair(manner: Manner) -> Plan {
    manner.step(manner.step(Plan::new(), "a", &[]), "b", &[])
}

fn join(manner: Manner) -> Plan {
    let plan = manner.step(Plan::new(), "a", &[]);
    let plan = manner.step(plan, "b", &[]);
    manner.step(plan, "c", &["a", "b"])
}

fn diamond(manner: Manner) -> Plan {
    manner.step(fork(manner), "d", &["b", "c"])
}

fn pivot(manner: Manner) -> Plan {
    let plan = manner.step(Plan::new().deadline(FAR), "a", &[]);
    let plan = manner.on_final(plan.pivot("p", &["a"]));
    manner.on_final(plan.retriable("r", &["p"]))
}

fn hurried_pivot(manner: Manner) -> Plan {
    manner.on_final(Plan::new().deadline(NEAR).pivot("p", &[]))
}

fn two_retriables(manner: Manner) -> Plan {
    let plan = manner.on_final(Plan::new().pivot("p", &[]));
    let plan = manner.on_final(plan.retriable("r", &["p"]));
    manner.on_final(plan.retriable("s", &["p"]))
}

fn read_only_first(manner: Manner) -> Plan {
    manner.step(Plan::new().read_only("risk", &[]).attempts(ATTEMPTS_MAX), "a", &["risk"])
}

/// Explores all that can happen to one plan; answers how many states there are.
fn explore(plan: &Plan, rules: Rules, seen: &mut Coverage) -> usize {
    let first = World::new(plan, rules);
    let mut visited = BTreeSet::from([first.key()]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        for choice in world.enabled() {
            let mut next = world.clone();
            next.step(choice, seen);
            if visited.insert(next.key()) {
                let definition = Arc::clone(&next.saga.definition);
                let again = replay(next.saga.id.clone(), definition, &next.journal);
                if again.as_ref() != Ok(&*next.saga) {
                    next.broken("the journal does not replay to the live saga");
                }
                open.push(next);
            }
        }
    }
    visited.len()
}

fn explore_shape(shape: &Shape, seen: &mut Coverage) {
    let mut states = 0;
    for order in ORDERS {
        for on_failure in ON_FAILURE {
            for manner in Manner::ALL {
                let plan = (shape.plan)(manner).order(order).on_failure(on_failure);
                states += explore(&plan, manner.rules(shape.rules), seen);
            }
        }
    }
    println!("{}: {states} states", shape.name);
    assert!(states >= shape.states_min, "{}: only {states} states: it has stopped exploring", shape.name);
}

/// Explores all shapes on two threads; answers what was reached.
fn explore_all(shapes: &[Shape]) -> Coverage {
    let queue = Mutex::new(shapes.iter());
    let reached = Mutex::new(Coverage::default());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = Coverage::default();
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(shape) = next else { break };
                    explore_shape(shape, &mut seen);
                }
                reached.lock().unwrap().extend(seen);
            });
        }
    });
    reached.into_inner().unwrap()
}

fn assert_that_all_was_reached(reached: &Coverage) {
    assert_eq!(reached.events, BTreeSet::from(KINDS_OF_TURNS), "every kind of event");
    assert_eq!(reached.branch_states, BTreeSet::from(BranchState::ALL), "every state of a branch");
    assert_eq!(reached.saga_states, BTreeSet::from(SagaState::ALL), "every state of a saga");
    // Who has released a saga has nothing left to crash with.
    let mut crash_points = BTreeSet::from(KINDS_OF_TURNS);
    crash_points.remove("Released");
    crash_points.insert("Started");
    assert_eq!(reached.crashed_after.keys().copied().collect::<BTreeSet<_>>(), crash_points);
    println!("crashes after {:?}", reached.crashed_after);
}

const SHAPES: [Shape; 12] = [
    Shape { name: "fork", rules: SMALL, states_min: 150_000, plan: fork },
    Shape { name: "join", rules: SMALL, states_min: 100_000, plan: join },
    Shape { name: "diamond", rules: SMALLER, states_min: 150_000, plan: diamond },
    Shape { name: "pivot", rules: NARROW, states_min: 120_000, plan: pivot },
    Shape { name: "chain of three", rules: SMALL, states_min: 25_000, plan: chain_of_three },
    Shape { name: "two retriables", rules: SMALL, states_min: 60_000, plan: two_retriables },
    Shape { name: "chain of two", rules: NARROW, states_min: 70_000, plan: chain_of_two },
    Shape {
        name: "pair",
        rules: Rules { cancels: 0, operators: 0, ..NARROW },
        states_min: 80_000,
        plan: pair,
    },
    Shape { name: "read only first", rules: NARROW, states_min: 16_000, plan: read_only_first },
    Shape { name: "hurried pivot", rules: NARROW, states_min: 6_000, plan: hurried_pivot },
    Shape { name: "hurried", rules: NARROW, states_min: 14_000, plan: hurried },
    Shape { name: "single", rules: Rules { hand_overs: 1, ..NARROW }, states_min: 180_000, plan: single },
];

#[test]
fn small_sagas_keep_every_promise_in_every_interleaving() {
    let reached = explore_all(&SHAPES);
    assert_that_all_was_reached(&reached);
}

#[test]
#[ignore = "takes minutes, and wants --release"]
fn small_sagas_keep_every_promise_within_wider_bounds() {
    let wide = SHAPES.map(|shape| {
        let rules = match shape.name {
            "diamond" => SMALL,
            "fork" | "join" | "pair" | "chain of three" | "two retriables" => NARROW,
            _ => WIDE,
        };
        Shape { rules, ..shape }
    });
    let reached = explore_all(&wide);
    assert_that_all_was_reached(&reached);
}
