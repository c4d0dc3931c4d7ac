//! What must be true once a range is quiet. Pure functions over what was seen from outside.
//!
//! # Invariants
//! * Each oracle finds what it is there for: a test beside it.
//!
//! # Not here
//! Times: `standstill`. What needs the journal's meaning (order of the DAG, Lamport clocks): the explorer.

pub mod ledgers;

use crate::bank::books::Standing;
use crate::call::{Call, Phase};
use backstop_proto::v1::SagaState;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The oracle that says so.
    pub oracle: &'static str,
    /// The saga that shows it.
    pub saga: Option<String>,
    /// What is wrong.
    pub text: String,
}

impl Violation {
    fn of(oracle: &'static str, saga: &str, text: impl Into<String>) -> Self {
        Self { oracle, saga: Some(saga.to_owned()), text: text.into() }
    }
}

/// Every accepted saga is there.
#[must_use]
pub fn accepted_is_kept<'a>(
    accepted: impl Iterator<Item = &'a str>,
    states: &BTreeMap<String, SagaState>,
) -> Vec<Violation> {
    accepted
        .filter(|id| !states.contains_key(*id))
        .map(|id| Violation::of("accepted is kept", id, "it was accepted and is not there"))
        .collect()
}

/// Every accepted saga is there and has ended, none needs a person.
#[must_use]
pub fn all_ended<'a>(
    accepted: impl Iterator<Item = &'a str>,
    states: &BTreeMap<String, SagaState>,
) -> Vec<Violation> {
    let mut found = accepted_is_kept(accepted, states);
    for (id, state) in states {
        if !matches!(state, SagaState::Succeeded | SagaState::RolledBack) {
            found.push(Violation::of("all end", id, crate::api::state_name(*state)));
        }
    }
    found
}

/// A branch bears one key, and a key one request.
#[must_use]
pub fn one_key_one_request(calls: &[Call]) -> Vec<Violation> {
    let mut first: HashMap<(&str, &str, &Phase), &Call> = HashMap::new();
    let mut found = Vec::new();
    for call in calls {
        let before = *first.entry((&call.saga, &call.step, &call.phase)).or_insert(call);
        let same = before.key == call.key
            && before.method == call.method
            && before.participant == call.participant
            && before.request == call.request;
        if !same || call.key.is_empty() {
            let text = format!("{}/{:?}: {before:?}, then {call:?}", call.step, call.phase);
            found.push(Violation::of("one key, one request", &call.saga, text));
        }
    }
    found
}

/// Late calls: those of a tenure that is over, or of actions that were undone meanwhile, let out by something
/// that had held them up: a coordinator that had been frozen, a wire. Anything else that goes back is a
/// violation, and so is an action that comes after its compensation has.
#[must_use]
pub fn epochs(calls: &[Call], was_held_up: impl Fn(&Call) -> bool) -> (Vec<Violation>, usize) {
    let mut newest: HashMap<&str, u64> = HashMap::new();
    let mut undone: HashSet<(&str, &str)> = HashSet::new();
    let (mut found, mut late) = (Vec::new(), 0);
    for call in calls {
        let newest = newest.entry(&call.saga).or_default();
        let branch = (call.saga.as_str(), call.step.as_str());
        let is_of_old_tenure = call.epoch < *newest;
        let is_undone = call.phase == Phase::Action && undone.contains(&branch);
        if (is_of_old_tenure || is_undone) && was_held_up(call) {
            late += 1;
        } else if is_of_old_tenure {
            let text = format!("a call of epoch {} after one of {newest}: {}", call.epoch, call.line(0));
            found.push(Violation::of("epochs grow", &call.saga, text));
        } else if is_undone {
            let text = format!("an action after its compensation: {}", call.line(0));
            found.push(Violation::of("no action once undone", &call.saga, text));
        }
        *newest = call.epoch.max(*newest);
        if call.phase == Phase::Compensation {
            undone.insert(branch);
        }
    }
    (found, late)
}

/// The sum over all accounts is what it was.
#[must_use]
pub fn money(before: i64, after: i64) -> Vec<Violation> {
    if before == after {
        return Vec::new();
    }
    let text = format!("{before} before, {after} after");
    vec![Violation { oracle: "the money adds up", saga: None, text }]
}

/// SUCCEEDED means that both sides are booked, ROLLED_BACK that neither is.
#[must_use]
pub fn effects(
    states: &BTreeMap<String, SagaState>,
    standing: impl Fn(&str, &str) -> Standing,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for (id, state) in states {
        let booked = ["debit", "credit"].map(|step| standing(id, step) == Standing::Booked);
        let expected = match state {
            SagaState::Succeeded => true,
            SagaState::RolledBack => false,
            // Said by `all_ended`.
            SagaState::Unspecified
            | SagaState::Running
            | SagaState::RollingBack
            | SagaState::NeedsIntervention => continue,
        };
        if booked != [expected; 2] {
            let state = crate::api::state_name(*state);
            let text = format!("it is {state}; debit booked: {}, credit booked: {}", booked[0], booked[1]);
            found.push(Violation::of("state and books agree", id, text));
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::call::Outcome;

    pub(crate) fn call(saga: &str, epoch: u64) -> Call {
        Call {
            saga: saga.to_owned(),
            step: "debit".to_owned(),
            phase: Phase::Action,
            attempt: 1,
            epoch,
            key: format!("{saga}/debit/action"),
            participant: "ledger".to_owned(),
            method: "Debit".to_owned(),
            request: "amount: 2".to_owned(),
            arrived: 10,
            left: Some(20),
            outcome: Outcome::Done,
            is_duplicate: false,
        }
    }

    fn oracles(found: &[Violation]) -> Vec<&'static str> {
        found.iter().map(|violation| violation.oracle).collect()
    }

    #[test]
    fn a_lost_saga_and_one_that_hangs_are_named() {
        let states = BTreeMap::from([
            ("a".to_owned(), SagaState::Succeeded),
            ("b".to_owned(), SagaState::Running),
            ("c".to_owned(), SagaState::NeedsIntervention),
        ]);
        assert_eq!(
            oracles(&all_ended(["a", "gone"].into_iter(), &states)),
            ["accepted is kept", "all end", "all end"]
        );
    }

    #[test]
    fn another_key_and_another_request_are_named() {
        let one = call("s", 1);
        let (mut key, mut request) = (call("s", 2), call("s", 2));
        key.key.push('x');
        request.request.push('0');
        assert_eq!(one_key_one_request(&[one.clone(), call("s", 2)]), []);
        assert_eq!(one_key_one_request(&[one, key, request]).len(), 2);
    }

    #[test]
    fn an_epoch_that_goes_back_is_a_violation_unless_a_thaw_explains_it() {
        let calls = [call("s", 2), call("s", 1), call("t", 1)];
        assert_eq!(oracles(&epochs(&calls, |_| false).0), ["epochs grow"]);
        let (found, late) = epochs(&calls, |call| call.arrived == 10);
        assert_eq!((found.len(), late), (0, 1));
    }

    #[test]
    fn an_action_after_its_compensation_is_named() {
        let mut undo = call("s", 1);
        undo.phase = Phase::Compensation;
        assert_eq!(
            oracles(&epochs(&[call("s", 1), undo, call("s", 1)], |_| false).0),
            ["no action once undone"]
        );
    }

    #[test]
    fn books_that_contradict_a_saga_are_named() {
        let states = BTreeMap::from([
            ("good".to_owned(), SagaState::Succeeded),
            ("half".to_owned(), SagaState::Succeeded),
            ("left".to_owned(), SagaState::RolledBack),
        ]);
        let standing = |saga: &str, step: &str| match (saga, step) {
            ("good", _) | ("half", "debit") | ("left", "credit") => Standing::Booked,
            _ => Standing::Untouched,
        };
        let found = effects(&states, standing);
        let sagas: Vec<_> = found.iter().filter_map(|violation| violation.saga.as_deref()).collect();
        assert_eq!(sagas, ["half", "left"]);
        assert_eq!(money(5, 4).len(), 1);
    }
}
