//! What participants have in their books, and what they say.
//!
//! # Invariants
//! * One with a barrier (`keyed`) answers every attempt with one key alike once its business code has decided, and
//!   runs no action after its compensation.
//! * A plain one does whatever comes, as often as it comes; but its compensations can be repeated, as the contract for
//!   participants asks.
//! * What it says had no effect has had none.

use crate::dice::Dice;
use backstop_core::failure::Pushback;
use backstop_core::{Code, Details, Evidence, Outcome, Phase, SagaId, StepKind};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one participant keeps of one step of one saga.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// How often the action is in force.
    pub(crate) effect: u32,
    /// What was decided under the action's key.
    decided: Option<Decided>,
    /// It has been undone: no action comes through any more.
    is_closed: bool,
}

#[derive(Debug, Clone)]
enum Decided {
    Done,
    Refused(Code),
}

/// The books of one participant.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) keyed: bool,
    entries: BTreeMap<(SagaId, usize), Entry>,
    pub(crate) balance: i128,
    pub(crate) net_flow: i128,
}

/// What one message did and what is said about it.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) outcome: Outcome,
    /// +1: took effect once more; -1: undone.
    pub(crate) did: Option<bool>,
}

/// Codes of business that had no effect; a participant with a barrier stands by them.
const REFUSALS: [Code; 4] =
    [Code::FailedPrecondition, Code::InvalidArgument, Code::NotFound, Code::OutOfRange];
/// Codes that never came to the business code.
const OUTSIDE: [Code; 4] =
    [Code::Unimplemented, Code::Unauthenticated, Code::PermissionDenied, Code::Aborted];
/// Codes that leave open what happened.
const OPEN: [Code; 9] = [
    Code::Internal,
    Code::Unknown,
    Code::Unavailable,
    Code::DeadlineExceeded,
    Code::ResourceExhausted,
    Code::AlreadyExists,
    Code::Cancelled,
    Code::DataLoss,
    Code::Ok,
];

fn failed(evidence: Evidence, details: Details, pushback: Option<Pushback>) -> Outcome {
    let message = match evidence {
        Evidence::ParticipantSaid(code) => format!("it says {}", code.name()),
        Evidence::NotSent(_) | Evidence::NoAnswer(_) | Evidence::BadAnswer | Evidence::NotRendered => {
            String::new()
        }
    };
    Outcome::Failed { evidence, message, details, pushback }
}

fn says(code: Code) -> Outcome {
    failed(Evidence::ParticipantSaid(code), Details::default(), None)
}

fn swears(code: Code) -> Outcome {
    let metadata = BTreeMap::from([("effect".to_owned(), "none".to_owned())]);
    failed(Evidence::ParticipantSaid(code), Details { metadata, ..Details::default() }, None)
}

impl Books {
    pub(crate) fn new(keyed: bool) -> Self {
        Self { keyed, ..Self::default() }
    }

    /// The state of one step of one saga.
    pub(crate) fn entry(&self, saga: &SagaId, step: usize) -> Entry {
        self.entries.get(&(saga.clone(), step)).cloned().unwrap_or_default()
    }

    /// A message comes in; `amount` is what the step moves.
    pub(crate) fn hear(
        &mut self,
        dice: &Dice,
        call: (&SagaId, usize, Phase, u32),
        kind: StepKind,
        amount: i128,
        is_well: bool,
    ) -> Said {
        let (saga, step, phase, attempt) = call;
        let keyed = self.keyed;
        let entry = self.entries.entry((saga.clone(), step)).or_default();
        let said = match phase {
            Phase::Action => entry.action(dice, keyed, kind, attempt, is_well),
            Phase::Compensation => entry.compensation(dice, is_well),
            Phase::Query => entry.query(dice, is_well),
        };
        match said.did {
            Some(true) => {
                self.balance += amount;
                self.net_flow += amount;
            }
            Some(false) => {
                self.balance -= amount;
                self.net_flow -= amount;
            }
            None => {}
        }
        said
    }

    /// A person makes true what they are going to say. Answers what that did.
    pub(crate) fn by_hand(
        &mut self,
        saga: &SagaId,
        step: usize,
        amount: i128,
        in_force: bool,
    ) -> Option<bool> {
        let entry = self.entries.entry((saga.clone(), step)).or_default();
        entry.is_closed = !in_force;
        if in_force {
            entry.decided = Some(Decided::Done);
        }
        match (entry.effect > 0, in_force) {
            (false, true) => {
                entry.effect = 1;
                self.balance += amount;
                self.net_flow += amount;
                Some(true)
            }
            (true, false) => {
                let times = i128::from(entry.effect);
                entry.effect = 0;
                self.balance -= amount * times;
                self.net_flow -= amount * times;
                Some(false)
            }
            (true, true) | (false, false) => None,
        }
    }
}

impl Entry {
    /// Its business code has decided about it.
    pub(crate) fn is_known(&self) -> bool {
        self.decided.is_some() || self.is_closed
    }

    fn action(&mut self, dice: &Dice, keyed: bool, kind: StepKind, attempt: u32, is_well: bool) -> Said {
        let nothing = |outcome| Said { outcome, did: None };
        if keyed && self.is_closed {
            return nothing(swears(Code::FailedPrecondition));
        }
        if keyed && let Some(decided) = &self.decided {
            return nothing(match decided {
                Decided::Done => Outcome::Done(Bytes::from_static(b"done")),
                Decided::Refused(code) => says(*code),
            });
        }
        let roll = if is_well { 99 } else { dice.roll(100) };
        match roll {
            0..5 => {
                let code = dice.pick(&REFUSALS, Code::FailedPrecondition);
                self.decided = keyed.then_some(Decided::Refused(code));
                nothing(says(code))
            }
            5..9 => nothing(says(dice.pick(&OUTSIDE, Code::Aborted))),
            9..22 => {
                let code = dice.pick(&OPEN, Code::Internal);
                if dice.percent(50) {
                    Said { outcome: says(code), did: self.take_effect(kind) }
                } else if dice.percent(30) {
                    nothing(swears(code))
                } else {
                    let pushback = match dice.roll(6) {
                        0 => Some(Pushback::After(dice.ms(50, 3_000))),
                        1 => Some(Pushback::Stop),
                        _ => None,
                    };
                    nothing(failed(Evidence::ParticipantSaid(code), Details::default(), pushback))
                }
            }
            22 => {
                let did = if dice.percent(50) { self.take_effect(kind) } else { None };
                Said { outcome: failed(Evidence::BadAnswer, Details::default(), None), did }
            }
            _ => {
                let response = if keyed { "done".to_owned() } else { format!("done {attempt}") };
                Said { outcome: Outcome::Done(Bytes::from(response)), did: self.take_effect(kind) }
            }
        }
    }

    fn take_effect(&mut self, kind: StepKind) -> Option<bool> {
        self.decided = Some(Decided::Done);
        if kind == StepKind::ReadOnly {
            return None;
        }
        self.effect += 1;
        Some(true)
    }

    fn compensation(&mut self, dice: &Dice, is_well: bool) -> Said {
        let roll = if is_well { 99 } else { dice.roll(100) };
        match roll {
            // Refused: nothing is done.
            0..7 => Said { outcome: says(dice.pick(&REFUSALS, Code::FailedPrecondition)), did: None },
            7..10 => Said { outcome: says(dice.pick(&OUTSIDE, Code::Aborted)), did: None },
            10..20 => {
                let did = if dice.percent(50) { self.undo() } else { None };
                Said { outcome: says(dice.pick(&OPEN, Code::Unavailable)), did }
            }
            _ => Said { outcome: Outcome::Done(Bytes::new()), did: self.undo() },
        }
    }

    fn undo(&mut self) -> Option<bool> {
        self.is_closed = true;
        if self.effect == 0 {
            return None;
        }
        // One undo takes back one effect: what was done twice stays visible.
        self.effect -= 1;
        Some(false)
    }

    fn query(&mut self, dice: &Dice, is_well: bool) -> Said {
        let honest =
            if self.effect > 0 { Outcome::Done(Bytes::from_static(b"found")) } else { says(Code::NotFound) };
        let outcome = match dice.roll(100) {
            _ if is_well => honest,
            0..15 => says(dice.pick(&OPEN, Code::Unavailable)),
            15..18 => says(dice.pick(&OUTSIDE, Code::PermissionDenied)),
            _ => honest,
        };
        Said { outcome, did: None }
    }
}

/// How long a participant thinks about a call.
pub(crate) fn service_time(dice: &Dice, is_well: bool) -> Duration {
    match dice.roll(20) {
        _ if is_well => dice.ms(0, 5),
        0 => dice.ms(500, 4_000),
        1..5 => dice.ms(20, 400),
        _ => dice.ms(0, 10),
    }
}
