//! Walks through every state of a run, by `stateright`.
//!
//! A run is one definition within one set of bounds, walked by one thread, so that its figures are the same every time.
//! Depth first when nothing is expected to be found (it needs little memory), breadth first when a counterexample is
//! wanted (the first one is a shortest).

use crate::coverage::Coverage;
use crate::world::{Choice, World};
use backstop_invariants::{Invariant, Violation};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::sync::{Arc, Mutex, PoisonError};

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Found {
    /// States that were made, those seen before included.
    pub states: usize,
    /// States that differ.
    pub unique: usize,
    /// Longest way from the first state.
    pub depth: usize,
    /// What was reached.
    pub coverage: Coverage,
    /// The first broken promise, if there is one.
    pub counterexample: Option<Counterexample>,
}

/// How a promise was broken.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// Which, and how.
    pub violation: Violation,
    /// The steps that led there.
    pub trail: Vec<String>,
    /// The journal by then.
    pub transcript: String,
}

/// How to walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Everything, in little memory.
    Whole,
    /// Until the first counterexample, by the shortest way.
    Shortest,
}

struct Run {
    first: World,
    coverage: Arc<Mutex<Coverage>>,
    found: Arc<Mutex<Option<Counterexample>>>,
}

/// Walks through all that can happen from here.
#[must_use]
pub fn explore(first: World, walk: Walk) -> Found {
    let (coverage, found) = (Arc::new(Mutex::default()), Arc::new(Mutex::new(None)));
    let run = Run { first, coverage: Arc::clone(&coverage), found: Arc::clone(&found) };
    let builder = run.checker().finish_when(HasDiscoveries::AnyFailures);
    let (states, unique, depth) = match walk {
        Walk::Whole => figures(&builder.spawn_dfs().join()),
        Walk::Shortest => figures(&builder.spawn_bfs().join()),
    };
    let take = |coverage: &Arc<Mutex<Coverage>>| {
        std::mem::take(&mut *coverage.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let counterexample = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    Found { states, unique, depth, coverage: take(&coverage), counterexample }
}

fn figures(checker: &impl Checker<Run>) -> (usize, usize, usize) {
    (checker.state_count(), checker.unique_state_count(), checker.max_depth())
}

impl Model for Run {
    type State = World;
    type Action = Choice;

    fn init_states(&self) -> Vec<World> {
        vec![self.first.clone()]
    }

    fn actions(&self, world: &World, choices: &mut Vec<Choice>) {
        world.choices(choices);
    }

    fn next_state(&self, world: &World, choice: Choice) -> Option<World> {
        let mut next = world.clone();
        next.step(choice);
        let mut coverage = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        coverage.take_in(&next);
        next.reached.clear();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("every promise holds, and the journal replays", Self::holds)]
    }
}

impl Run {
    fn holds(&self, world: &World) -> bool {
        let replays = world.broken.is_some() || world.replays();
        let unlike =
            || Violation { invariant: Invariant::I3, what: "the journal does not replay".to_owned() };
        let violation = world.broken.clone().or_else(|| (!replays).then(unlike));
        let Some(violation) = violation else { return true };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get_or_insert_with(|| Counterexample {
            violation,
            trail: world.trail(),
            transcript: world.transcript(),
        });
        false
    }
}
