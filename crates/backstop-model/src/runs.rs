//! What is explored: each shape within several sets of bounds, each set in every manner, order and treatment of what is in
//! flight. A set bounds how much goes wrong in one run; within it everything is tried.

use crate::books::Said;
use crate::bounds::{ACTIONS, ACTIONS_FEW, Bounds};
use crate::checker::{Counterexample, Walk, explore};
use crate::coverage::Coverage;
use crate::shape::{Manner, ON_FAILURE, ORDERS, SHAPES, Shape};
use crate::world::World;
use backstop_core::{CompensationOrder, Definition, OnFailure};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The shape.
    pub shape: Shape,
    /// What the bounds are after.
    pub about: &'static str,
    /// How much goes wrong.
    pub bounds: Bounds,
    /// Fewer states that differ mean that the exploration has stopped somewhere.
    pub unique_min: usize,
}

/// What came of a line.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    /// States that were made.
    pub states: usize,
    /// States that differ.
    pub unique: usize,
    /// Longest way.
    pub depth: usize,
    /// Time, over all threads.
    pub time: Duration,
    /// What was reached.
    pub coverage: Coverage,
    /// The first broken promise, and in what definition.
    pub broken: Option<(String, Counterexample)>,
}

/// How much is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Seconds, also in a debug build.
    Small,
    /// Minutes.
    Standard,
    /// As long as it takes.
    Wide,
}

const REFUSES: &[Said] = &[Said::Refused];
const COMPENSATIONS: &[Said] = &[Said::Refused, Said::NotSent];

/// Messages that are lost, late, doubled; a coordinator that dies.
const NETWORK: Bounds = Bounds {
    faults: 2,
    crashes: 1,
    doubles: 1,
    actions: ACTIONS_FEW,
    compensations: REFUSES,
    ..Bounds::NONE
};
/// Two coordinators at once, one of them frozen.
const FENCING: Bounds = Bounds { faults: 1, takeovers: 1, freezes: 1, ..Bounds::NONE };
/// Commits of unknown fate, and two coordinators at once.
const COMMITS: Bounds = Bounds { faults: 1, crashes: 1, takeovers: 1, unknowns: 1, ..Bounds::NONE };
/// People, and coordinators that hand over.
const PEOPLE: Bounds = Bounds {
    faults: 2,
    crashes: 1,
    hand_overs: 1,
    cancels: 1,
    operators: 1,
    actions: ACTIONS_FEW,
    compensations: REFUSES,
    ..Bounds::NONE
};
/// Everything that can be answered.
const ANSWERS: Bounds =
    Bounds { faults: 3, crashes: 1, actions: ACTIONS, compensations: COMPENSATIONS, ..Bounds::NONE };

/// The sets of bounds, by what they are after.
const ABOUT: [(&str, Bounds); 5] = [
    ("network", NETWORK),
    ("fencing", FENCING),
    ("commits", COMMITS),
    ("people", PEOPLE),
    ("answers", ANSWERS),
];

/// The lines of a width.
#[must_use]
pub fn runs(_width: Width) -> Vec<Run> {
    let mut runs = Vec::new();
    for shape in SHAPES {
        for (about, bounds) in ABOUT {
            runs.push(Run { shape, about, bounds, unique_min: 0 });
        }
    }
    runs
}

/// One definition to explore.
struct Job {
    told: String,
    definition: Arc<Definition>,
}

impl Run {
    /// A rollback can be decided while a branch is in flight.
    fn may_be_in_flight(&self) -> bool {
        let is_chain = self.shape.steps.windows(2).all(|pair| pair[1].2.contains(&pair[0].0));
        !is_chain || self.shape.deadline.is_some() || self.bounds.cancels > 0
    }

    fn jobs(&self) -> Result<Vec<Job>, String> {
        let mut jobs = Vec::new();
        for manner in Manner::ALL {
            for order in ORDERS {
                for on_failure in ON_FAILURE {
                    // What is in flight matters only where something can be.
                    if on_failure == OnFailure::Cancel && !self.may_be_in_flight() {
                        continue;
                    }
                    let definition = self.shape.definition(manner, order, on_failure)?;
                    let told = told(&self.shape, manner, order, on_failure);
                    jobs.push(Job { told, definition });
                }
            }
        }
        Ok(jobs)
    }

    /// Explores all of it, on so many threads; stops soon after a promise is found broken.
    ///
    /// # Errors
    /// If a shape is no definition.
    pub fn explore(&self, walk: Walk, threads: usize) -> Result<Sum, String> {
        let jobs = self.jobs()?;
        let (queue, sum) = (Mutex::new(jobs.iter()), Mutex::new(Sum::default()));
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(job) = lock(&queue).next() {
                        if lock(&sum).broken.is_some() {
                            break;
                        }
                        match World::new(&job.definition, self.bounds) {
                            Ok(first) => lock(&sum).take(&job.told, explore(first, walk)),
                            Err(error) => *lock(&failed) = Some(error),
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or_else(|| Ok(sum.into_inner().unwrap_or_else(PoisonError::into_inner)), Err)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told(shape: &Shape, manner: Manner, order: CompensationOrder, on_failure: OnFailure) -> String {
    format!("{}, {manner:?}, {order:?}, {on_failure:?}", shape.name)
}

impl Sum {
    fn take(&mut self, told: &str, found: crate::checker::Found) {
        self.states += found.states;
        self.unique += found.unique;
        self.depth = self.depth.max(found.depth);
        self.time += found.time;
        self.coverage.extend(found.coverage);
        if let (None, Some(counterexample)) = (&self.broken, found.counterexample) {
            self.broken = Some((told.to_owned(), counterexample));
        }
    }
}
