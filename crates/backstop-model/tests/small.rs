//! What every `cargo test` explores: enough to reach everything once, in seconds. `cargo xtask model` goes further.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use backstop_invariants::Invariant;
use backstop_model::{
    Coverage, Manner, ON_FAILURE, ORDERS, SHAPES, Walk, Width, World, explore, runs, without_a_bound,
};

#[test]
fn small_sagas_keep_every_promise_whatever_happens() {
    let (mut reached, mut unique) = (Coverage::default(), 0);
    for run in runs(Width::Small) {
        let sum = run.explore(Walk::Whole, 2).unwrap();
        println!("{} {} ({}): {} states", run.shape.name, run.about, run.bounds.short(), sum.unique);
        if let Some((told, counterexample)) = sum.broken {
            let (trail, transcript) = (counterexample.trail.join("\n"), counterexample.transcript);
            panic!("{told}: {}\n{trail}\n{transcript}", counterexample.violation);
        }
        assert!(sum.unique >= run.unique_min, "only {}: it has stopped exploring", sum.unique);
        reached.extend(sum.coverage);
        unique += sum.unique;
    }
    assert_eq!(reached.missing(), Vec::<String>::new(), "reached in {unique} states");
}

/// What cannot hold without a barrier, does not: a message that comes after its own compensation is done, and stays.
#[test]
fn without_a_barrier_a_late_message_stays_and_with_one_it_does_not() {
    let find = |manner| {
        let definition = SHAPES[0].definition(manner, ORDERS[0], ON_FAILURE[0]).unwrap();
        explore(World::new(&definition, without_a_bound()).unwrap(), Walk::Shortest)
    };
    let counterexample = find(Manner::Plain).counterexample.expect("the bound hides something");
    assert_eq!(counterexample.violation.invariant, Invariant::I6);
    assert!(find(Manner::KeyedCompensate).counterexample.is_none());
}
