//! What is explored: each shape within several sets of bounds, each set in every manner, order and treatment of what is in
//! flight. A set bounds how much goes wrong in one run; within it everything is tried.

use crate::books::Said;
use crate::bounds::{ACTIONS, ACTIONS_FEW, Bounds};
use crate::checker::{Counterexample, Walk, explore};
use crate::coverage::Coverage;
use crate::shape::{Manner, ON_FAILURE, ORDERS, SHAPES, Shape};
use crate::world::World;
use backstop_core::{CompensationOrder, Definition, OnFailure};
use backstop_invariants::Invariant;
use std::sync::{Arc, Mutex, PoisonError};

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
const COMMITS: Bounds = Bounds { faults: 1, takeovers: 1, unknowns: 1, ..Bounds::NONE };
/// A coordinator dies while another takes over.
const RACE: Bounds = Bounds { crashes: 1, takeovers: 1, unknowns: 1, ..Bounds::NONE };
/// Somebody cancels, and coordinators hand over or are not sure of their lease.
const PEOPLE: Bounds = Bounds { faults: 1, hand_overs: 1, cancels: 1, freezes: 1, ..Bounds::NONE };
/// What only an operator can finish.
const STUCK: Bounds = Bounds { faults: 2, operators: 1, compensations: REFUSES, ..Bounds::NONE };
/// Everything that can be answered.
const ANSWERS: Bounds =
    Bounds { faults: 2, crashes: 1, actions: ACTIONS, compensations: COMPENSATIONS, ..Bounds::NONE };
/// For sagas of three and four steps.
const ONE_FAULT: Bounds = Bounds { faults: 1, crashes: 1, ..Bounds::NONE };
const ONE_TAKEOVER: Bounds = Bounds { faults: 1, takeovers: 1, ..Bounds::NONE };
const TWO_FAULTS: Bounds = Bounds { faults: 2, ..Bounds::NONE };

/// A line by the name of its shape.
type Line = (&'static str, &'static str, Bounds, usize);

const SMALL: &[Line] = &[
    ("chain 2", "answers", Bounds { crashes: 0, doubles: 0, ..NETWORK }, 1),
    ("hurried", "doubles", Bounds { faults: 1, doubles: 1, ..Bounds::NONE }, 1),
    ("hurried", "crashes", ONE_FAULT, 1),
    ("pair", "answers", TWO_FAULTS, 1),
    ("fork", "answers", Bounds { faults: 1, ..TWO_FAULTS }, 1),
    ("join", "answers", Bounds { faults: 1, ..TWO_FAULTS }, 1),
    ("pivot", "people", Bounds { faults: 1, cancels: 1, operators: 1, ..Bounds::NONE }, 1),
    ("single", "people", Bounds { faults: 0, ..PEOPLE }, 1),
    ("chain 2", "people", Bounds { faults: 0, hand_overs: 0, ..PEOPLE }, 1),
    ("hurried", "stuck", Bounds { crashes: 1, ..STUCK }, 1),
    ("chain 2", "fencing", Bounds { faults: 0, ..FENCING }, 1),
    ("hurried", "commits", Bounds { faults: 0, ..COMMITS }, 1),
    ("chain 2", "crashes", ONE_FAULT, 1),
    ("single", "let go", Bounds { hand_overs: 1, cancels: 1, crashes: 1, ..Bounds::NONE }, 1),
    ("hurried", "frozen", Bounds { freezes: 1, crashes: 1, ..Bounds::NONE }, 1),
    ("pivot", "stuck", Bounds { faults: 1, crashes: 1, operators: 1, ..Bounds::NONE }, 1),
];

const STANDARD: &[Line] = &[
    ("single", "network", Bounds { faults: 1, ..NETWORK }, 1),
    ("single", "fencing", FENCING, 1),
    ("single", "people", PEOPLE, 1),
    ("single", "stuck", STUCK, 1),
    ("single", "let go", Bounds { hand_overs: 1, cancels: 1, crashes: 1, freezes: 1, ..Bounds::NONE }, 1),
    ("hurried", "network", NETWORK, 1),
    ("hurried", "fencing", FENCING, 1),
    ("hurried", "commits", COMMITS, 1),
    ("hurried", "race", RACE, 1),
    ("hurried", "stuck", Bounds { crashes: 1, ..STUCK }, 1),
    ("hurried", "answers", ANSWERS, 1),
    ("chain 2", "network", Bounds { faults: 1, ..NETWORK }, 1),
    ("chain 2", "fencing", FENCING, 1),
    ("chain 2", "commits", COMMITS, 1),
    ("chain 2", "people", PEOPLE, 1),
    ("chain 2", "stuck", STUCK, 1),
    ("chain 2", "answers", ANSWERS, 1),
    ("chain 3", "crashes", ONE_FAULT, 1),
    ("chain 3", "fencing", ONE_TAKEOVER, 1),
    ("chain 4", "answers", TWO_FAULTS, 1),
    ("chain 4", "crashes", ONE_FAULT, 1),
    ("pair", "crashes", ONE_FAULT, 1),
    ("pair", "fencing", ONE_TAKEOVER, 1),
    ("pair", "answers", TWO_FAULTS, 1),
    ("fork", "answers", TWO_FAULTS, 1),
    ("fork", "crashes", ONE_FAULT, 1),
    ("join", "answers", TWO_FAULTS, 1),
    ("join", "crashes", ONE_FAULT, 1),
    ("diamond", "answers", TWO_FAULTS, 1),
    ("diamond", "crashes", ONE_FAULT, 1),
    ("hurried pivot", "network", NETWORK, 1),
    ("hurried pivot", "fencing", FENCING, 1),
    ("hurried pivot", "people", PEOPLE, 1),
    ("pivot", "crashes", ONE_FAULT, 1),
    ("pivot", "fencing", ONE_TAKEOVER, 1),
    ("pivot", "people", Bounds { faults: 1, cancels: 1, operators: 1, ..Bounds::NONE }, 1),
    ("pivot", "stuck", Bounds { faults: 1, crashes: 1, operators: 1, ..Bounds::NONE }, 1),
    ("pivot 2", "crashes", ONE_FAULT, 1),
    ("pivot 2", "stuck", STUCK, 1),
    ("read only", "crashes", ONE_FAULT, 1),
    ("read only", "fencing", ONE_TAKEOVER, 1),
];

/// The lines of a width.
#[must_use]
pub fn runs(width: Width) -> Vec<Run> {
    let named = |line: &Line| {
        let shape = SHAPES.into_iter().find(|shape| shape.name == line.0)?;
        Some(Run { shape, about: line.1, bounds: line.2, unique_min: line.3 })
    };
    match width {
        Width::Small => SMALL.iter().filter_map(named).collect(),
        Width::Standard => STANDARD.iter().filter_map(named).collect(),
        Width::Wide => {
            let sets = [
                ("network", NETWORK),
                ("fencing", FENCING),
                ("commits", COMMITS),
                ("people", PEOPLE),
                ("answers", ANSWERS),
            ];
            let all = |shape| sets.map(|(about, bounds)| Run { shape, about, bounds, unique_min: 1 });
            SHAPES.into_iter().flat_map(all).collect()
        }
    }
}

/// Without a barrier: messages to plain participants arrive however late.
#[must_use]
pub fn without_a_bound() -> Bounds {
    Bounds { plain_late: true, ..ONE_FAULT }
}

/// Looks for the shortest way to break this promise, in small runs first; also how many states that took.
///
/// # Errors
/// If a shape is no definition.
pub fn hunt(invariant: Invariant) -> Result<(usize, Option<(String, Counterexample)>), String> {
    let mut states = 0;
    for run in runs(Width::Small).into_iter().chain(runs(Width::Standard)) {
        for job in run.jobs()? {
            let found = explore(World::new(&job.definition, run.bounds)?, Walk::Shortest);
            states += found.unique;
            if let Some(counterexample) = found.counterexample.filter(|c| c.violation.invariant == invariant)
            {
                return Ok((states, Some((job.told, counterexample))));
            }
        }
    }
    Ok((states, None))
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
        self.coverage.extend(found.coverage);
        if let (None, Some(counterexample)) = (&self.broken, found.counterexample) {
            self.broken = Some((told.to_owned(), counterexample));
        }
    }
}
