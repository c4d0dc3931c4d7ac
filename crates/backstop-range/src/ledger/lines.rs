//! What a ledger's process tells the range about each call: a line when it comes and a line when it leaves.
//!
//! On its standard output, which neither a full disk nor a broken network stops, and which survives the
//! process: what was written before a `kill -9` is read after it.

use crate::call::{Call, Outcome};
use crate::moment::{Moment, now};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every line of ours begins so.
const MARK: &str = "call ";

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Came { number: u64, call: Call },
    Left { number: u64, at: Moment, outcome: Outcome, is_duplicate: bool },
}

/// The ledger's side.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    next: AtomicU64,
}

impl Teller {
    /// A call is here; dropped without an outcome, its caller has gone away.
    pub(crate) fn came(self: &Arc<Self>, call: Call) -> Visit {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        tell(&Line::Came { number, call });
        Visit { number, is_over: false }
    }
}

/// A call that is here.
#[derive(Debug)]
pub(crate) struct Visit {
    number: u64,
    is_over: bool,
}

impl Visit {
    /// It leaves.
    pub(crate) fn leaves(mut self, outcome: Outcome, is_duplicate: bool) {
        self.is_over = true;
        tell(&Line::Left { number: self.number, at: now(), outcome, is_duplicate });
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.is_over {
            let outcome = Outcome::Abandoned;
            tell(&Line::Left { number: self.number, at: now(), outcome, is_duplicate: false });
        }
    }
}

fn tell(line: &Line) {
    if let Ok(json) = serde_json::to_string(line) {
        // If nobody reads it any more, the range is gone, and its keeper ends us.
        let _ = writeln!(std::io::stdout().lock(), "{MARK}{json}");
    }
}

/// The range's side: the calls of one ledger through all its lives.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    calls: Vec<Call>,
    /// Where the open calls of the present process are.
    open: HashMap<u64, usize>,
    unread: usize,
}

impl Calls {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line in; false if it is not for us.
    pub fn hear(&self, line: &str) -> bool {
        let Some(json) = line.strip_prefix(MARK) else { return false };
        let mut heard = self.heard();
        match serde_json::from_str(json) {
            Ok(Line::Came { number, call }) => {
                let place = heard.calls.len();
                heard.open.insert(number, place);
                heard.calls.push(call);
            }
            Ok(Line::Left { number, at, outcome, is_duplicate }) => {
                let place = heard.open.remove(&number);
                if let Some(call) = place.and_then(|place| heard.calls.get_mut(place)) {
                    call.left = Some(at);
                    call.outcome = outcome;
                    call.is_duplicate = is_duplicate;
                }
            }
            // The last line of a killed process may be torn.
            Err(_) => heard.unread += 1,
        }
        true
    }

    /// The process is dead: so is all that was with it.
    pub fn died(&self, at: Moment) {
        let mut heard = self.heard();
        let Heard { calls, open, .. } = &mut *heard;
        for (_, place) in open.drain() {
            if let Some(call) = calls.get_mut(place) {
                call.left = Some(at);
                call.outcome = Outcome::Died;
            }
        }
    }

    /// All of them, in the order of their arrival.
    #[must_use]
    pub fn all(&self) -> Vec<Call> {
        self.heard().calls.clone()
    }

    /// Lines that could not be read.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.heard().unread
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::call;

    fn line(line: &Line) -> String {
        format!("{MARK}{}", serde_json::to_string(line).unwrap())
    }

    #[test]
    fn a_call_comes_and_leaves_or_dies_with_its_process() {
        let calls = Calls::default();
        for number in [0, 1] {
            let mut call = call("s", 1);
            (call.left, call.outcome) = (None, Outcome::Open);
            assert!(calls.hear(&line(&Line::Came { number, call })));
        }
        let left = Line::Left { number: 0, at: 77, outcome: Outcome::Done, is_duplicate: true };
        assert!(calls.hear(&line(&left)));
        calls.died(99);
        assert!(calls.hear("call {\"Left\":{\"num"));
        assert!(!calls.hear("something else"));
        let all: Vec<_> =
            calls.all().iter().map(|call| (call.left, call.outcome, call.is_duplicate)).collect();
        assert_eq!(all, [(Some(77), Outcome::Done, true), (Some(99), Outcome::Died, false)]);
        assert_eq!(calls.unread(), 1);
    }
}
