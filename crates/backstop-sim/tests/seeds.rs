//! The simulator itself: same seed, same world; enough seeds, everything reached; nothing violated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use backstop_sim::{Class, Coverage, Options, hunt, live};

/// Worlds that every run of the tests lives through, without optimisation. `cargo xtask sim` lives through more.
const SEEDS: u64 = 200;

#[test]
fn the_same_seed_makes_the_same_world_to_the_last_line() {
    for seed in 0..6 {
        let (once, again) = (live(&Options::seed(seed)), live(&Options::seed(seed)));
        assert_eq!(once.digest, again.digest, "seed {seed}");
        assert_eq!(once.coverage, again.coverage, "seed {seed}");
        assert_eq!(once.lasted, again.lasted, "seed {seed}");
    }
    assert_ne!(live(&Options::seed(1)).digest, live(&Options::seed(2)).digest);
}

#[test]
fn no_promise_is_broken_in_the_worlds_of_these_seeds() {
    let hunt = hunt(&Options::seed(0), 0..SEEDS, None, 2, |failed| !failed.is_empty());
    if let Some(lived) = hunt.failed.first() {
        let failure = lived.failure.as_ref().unwrap();
        panic!("{}\n{:?}\n{}", failure.what, failure.transcript, lived.options.command());
    }
    assert_eq!(hunt.seeds, SEEDS);
    assert!(hunt.sagas > SEEDS * 5, "{}", hunt.sagas);
}

#[test]
fn a_class_of_faults_that_is_left_out_does_not_happen() {
    let mut options = Options::seed(3);
    options.without = Class::ALL.into_iter().collect();
    let lived = live(&options);
    assert!(lived.failure.is_none(), "{:?}", lived.failure);
    assert_eq!(lived.coverage.group("fault").count(), 0, "nothing went wrong");
    assert_eq!(lived.coverage.of("saga ended", "SUCCEEDED"), lived.sagas, "so everything succeeds");
}

#[test]
fn what_was_never_reached_is_named() {
    let missing = Coverage::default().missing();
    assert!(missing.iter().any(|name| name == "crash point: adopt: done, not answered"), "{missing:?}");
    assert!(missing.iter().any(|name| name == "said: RESOURCE_EXHAUSTED"), "{missing:?}");
}

#[test]
fn the_command_that_replays_a_world_names_all_that_makes_it() {
    let mut options = Options::seed(7);
    options.sagas = Some(3);
    options.without = [Class::Crashes, Class::Load].into();
    assert_eq!(options.command(), "cargo xtask sim --seed 7 --sagas 3 --without crashes --without load");
}
