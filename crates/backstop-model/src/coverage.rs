//! What was reached, so that a run can prove that it explored.

use crate::world::{World, Writing};
use backstop_core::{BranchState, Event, Saga, SagaState};
use backstop_invariants::{KINDS, kind_name};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Something that was reached.
#[derive(Debug, Clone)]
pub(crate) enum Point {
    /// An event became durable.
    Durable(Arc<Event>),
    /// The journal made this saga.
    Saga(Arc<Saga>),
    /// Two coordinators, or two copies of one message, came upon each other.
    Crossed(&'static str),
    /// A coordinator died.
    Crash {
        /// What it had decided: how far that was.
        stage: Option<Writing>,
        /// It had not sent yet what it was about to send.
        frozen: bool,
        /// The last event on disk.
        last: Arc<Event>,
    },
}

/// All that was reached.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    /// Kinds of events that became durable.
    pub events: BTreeSet<&'static str>,
    /// States of branches.
    pub branch_states: BTreeSet<BranchState>,
    /// States of sagas.
    pub saga_states: BTreeSet<SagaState>,
    /// How often a coordinator died, by the last event on disk.
    pub crashed_after: BTreeMap<&'static str, u64>,
    /// How often a coordinator died, by how far its turn was.
    pub crashed_while: BTreeMap<&'static str, u64>,
    /// How often one coordinator came upon what another had done, or a message upon nobody.
    pub crossed: BTreeMap<&'static str, u64>,
}

/// Every stage of a turn at which a coordinator can die.
pub const STAGES: [&str; 5] = [
    "decided, riding along",
    "append sent",
    "append durable, not acknowledged",
    "applied, calls not sent",
    "applied, calls sent",
];

/// Every way to come upon what another has done meanwhile.
pub const CROSSINGS: [&str; 5] = [
    "append lost to another's",
    "append repeated, its own rows recognised",
    "append durable, and built upon by another before its writer heard",
    "a coordinator that froze woke after a take-over",
    "a message arrived that nobody waits for",
];

impl Coverage {
    pub(crate) fn take(&mut self, point: &Point) {
        match point {
            Point::Durable(event) => {
                self.events.insert(kind_name(&event.kind));
            }
            Point::Saga(saga) => {
                self.saga_states.insert(saga.state);
                self.branch_states.extend(saga.branches.iter().map(|branch| branch.state));
            }
            Point::Crossed(how) => *self.crossed.entry(how).or_default() += 1,
            Point::Crash { stage, frozen, last } => {
                *self.crashed_after.entry(kind_name(&last.kind)).or_default() += 1;
                let stage = match stage {
                    Some(Writing::Riding) => STAGES[0],
                    Some(Writing::UnderWay) => STAGES[1],
                    Some(Writing::Durable) => STAGES[2],
                    None if *frozen => STAGES[3],
                    None => STAGES[4],
                };
                *self.crashed_while.entry(stage).or_default() += 1;
            }
        }
    }

    /// Takes in what the last step of a world reached.
    pub fn take_in(&mut self, world: &World) {
        world.reached.iter().for_each(|point| self.take(point));
    }

    /// Takes in what another run reached.
    pub fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
        self.branch_states.extend(other.branch_states);
        self.saga_states.extend(other.saga_states);
        for (kind, crashes) in other.crashed_after {
            *self.crashed_after.entry(kind).or_default() += crashes;
        }
        for (how, times) in other.crossed {
            *self.crossed.entry(how).or_default() += times;
        }
        for (stage, crashes) in other.crashed_while {
            *self.crashed_while.entry(stage).or_default() += crashes;
        }
    }

    /// What was not reached, and should have been.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        // Who has released a saga has nothing left to crash with.
        let crashes = KINDS.iter().filter(|kind| **kind != "Released");
        // Every saga here has started.
        let events = KINDS.iter().filter(|kind| **kind != "Started" && !self.events.contains(*kind));
        missing.extend(events.map(|kind| format!("event {kind}")));
        let after = crashes.filter(|kind| !self.crashed_after.contains_key(*kind));
        missing.extend(after.map(|kind| format!("crash after {kind}")));
        let stages = STAGES.iter().filter(|stage| !self.crashed_while.contains_key(*stage));
        missing.extend(stages.map(|stage| format!("crash with {stage}")));
        let crossings = CROSSINGS.iter().filter(|how| !self.crossed.contains_key(*how));
        missing.extend(crossings.map(|how| (*how).to_owned()));
        let branch = BranchState::ALL.into_iter().filter(|state| !self.branch_states.contains(state));
        missing.extend(branch.map(|state| format!("branch {}", state.as_str())));
        let saga = SagaState::ALL.into_iter().filter(|state| !self.saga_states.contains(state));
        missing.extend(saga.map(|state| format!("saga {}", state.as_str())));
        missing
    }
}
