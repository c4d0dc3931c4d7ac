//! The way from one to another: how long it takes, and whether it is there.
//!
//! # Not here
//! What may be lost, doubled or late without breaking what a participant promises: `participants.rs`.

use crate::dice::Dice;
use crate::held;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

/// Longest way of a request to a participant that cannot tell a late one from a new one. Within the margin by which a
/// lease counts as over before its end (ADR on leases): else nobody could help it.
pub(crate) const PROMPT_MAX_MS: u64 = 250;

/// Somebody who can be cut off: a coordinator's slot, the store or a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A coordinator, by the machine that it runs on.
    Machine(usize),
    Store,
    Participant(usize),
}

/// The network.
pub(crate) struct Net {
    dice: Dice,
    /// Messages are slow and some are lost.
    is_bad: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cut: BTreeSet<(Place, Place)>,
    /// All is well from now on.
    is_healed: bool,
}

impl Net {
    pub(crate) fn new(seed: u64, is_bad: bool) -> Self {
        Self { dice: Dice::of(seed, "net"), is_bad, state: Mutex::default() }
    }

    /// Cuts the way between two, both directions, or mends it.
    pub(crate) fn cut(&self, a: Place, b: Place, is_cut: bool) {
        let pair = (a.min(b), a.max(b));
        let mut state = held(&self.state);
        if is_cut && !state.is_healed {
            state.cut.insert(pair);
        } else {
            state.cut.remove(&pair);
        }
    }

    /// All is well from now on.
    pub(crate) fn heal(&self) {
        let mut state = held(&self.state);
        state.cut.clear();
        state.is_healed = true;
    }

    pub(crate) fn is_cut(&self, a: Place, b: Place) -> bool {
        held(&self.state).cut.contains(&(a.min(b), a.max(b)))
    }

    fn is_well(&self) -> bool {
        !self.is_bad || held(&self.state).is_healed
    }

    /// True for a message that does not arrive.
    pub(crate) fn loses(&self) -> bool {
        !self.is_well() && self.dice.percent(2)
    }

    /// How long a message is on its way, at most `longest`.
    pub(crate) fn way(&self, longest: u64) -> Duration {
        if self.is_well() || self.dice.percent(70) {
            return self.dice.ms(0, 3);
        }
        match self.dice.roll(10) {
            0 => self.dice.ms(100, longest.max(100)).min(Duration::from_millis(longest)),
            _ => self.dice.ms(1, longest.min(60)),
        }
    }
}
