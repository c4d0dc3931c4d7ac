//! Histories made by hand: a good one breaks nothing, and each of the others exactly one promise, at its last word.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use backstop_core::{
    CallSpec, Cause, CauseKind, Clock, Code, CompensationOrder, CoordinatorId, Definition, DefinitionSpec,
    Details, Effect, Epoch, ErrorTable, Event, EventKind, Evidence, Failure, IdempotencyKey, Next, NoAnswer,
    NotSent, OnFailure, ParticipantName, ParticipantTraits, Phase, Resolution, Revision, SagaId, Seq,
    Started, StepKind, StepName, StepSpec, Timestamp, validate,
};
use backstop_invariants::{Did, Invariant, Money, Seen, Sent, Violation, Witness, money};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// `debit`, then `credit`; then, if wanted, the pivot `book`.
fn definition(order: CompensationOrder, on_failure: OnFailure, pivot: bool) -> Arc<Definition> {
    let call = |participant: &str, method: &str| CallSpec {
        participant: participant.to_owned(),
        method: format!("bank.v1.Service/{method}"),
        ..CallSpec::default()
    };
    let step = |name: &str, after: &[&str]| StepSpec {
        name: name.to_owned(),
        depends_on: after.iter().map(|&name| name.to_owned()).collect(),
        action: call(name, "Do"),
        compensation: Some(call(name, "Undo")),
        ..StepSpec::default()
    };
    let mut steps = vec![step("debit", &[]), step("credit", &["debit"])];
    if pivot {
        steps.push(StepSpec { kind: StepKind::Pivot, compensation: None, ..step("book", &["credit"]) });
    }
    let spec = DefinitionSpec {
        name: "transfer".into(),
        steps,
        compensation_order: order,
        on_failure,
        ..DefinitionSpec::default()
    };
    let names = ["debit", "credit", "book"].map(|name| ParticipantName::parse(name).unwrap());
    let participants: BTreeMap<_, _> = names.map(|name| (name, ParticipantTraits::default())).into();
    Arc::new(validate(&spec, Revision(1), &participants, Arc::new(ErrorTable::default())).unwrap())
}

/// A history in the making: one word after the other, none of which may break anything until the last.
struct History {
    witness: Witness,
    definition: Arc<Definition>,
    by: Epoch,
    seq: u64,
    clock: u64,
}

type Judged = Result<(), Violation>;

impl History {
    fn new() -> Self {
        Self::of(definition(CompensationOrder::ReverseDag, OnFailure::Drain, false))
    }

    fn with_pivot() -> Self {
        Self::of(definition(CompensationOrder::ReverseDag, OnFailure::Drain, true))
    }

    fn of(definition: Arc<Definition>) -> Self {
        let witness = Witness::new(SagaId::parse("s").unwrap(), Arc::clone(&definition));
        let mut history = Self { witness, definition, by: Epoch(1), seq: 0, clock: 0 };
        let started = Started {
            definition: history.definition.reference.clone(),
            coordinator: CoordinatorId::parse("a").unwrap(),
            input: Bytes::from_static(b"{}"),
            payloads: BTreeMap::new(),
            labels: BTreeMap::new(),
            deadline: None,
            trace_parent: None,
        };
        history.event(EventKind::Started(Box::new(started))).unwrap();
        history
    }

    fn event(&mut self, kind: EventKind) -> Judged {
        (self.seq, self.clock) = (self.seq + 1, self.clock + 2);
        let event =
            Event { seq: Seq(self.seq), clock: Clock(self.clock), at: Timestamp(self.seq as i64), kind };
        self.witness.see(Seen::Durable { by: self.by, event: &Arc::new(event) })
    }

    fn send(&mut self, step: usize, phase: Phase, attempt: u32) -> Judged {
        self.send_at(step, phase, attempt, self.clock + 1, 0)
    }

    fn send_at(&mut self, step: usize, phase: Phase, attempt: u32, clock: u64, request: u64) -> Judged {
        let name = &self.definition.steps[step].name;
        let key = IdempotencyKey::new(&SagaId::parse("s").unwrap(), name, phase);
        let sent = Sent { epoch: self.by, step, phase, attempt, clock: Clock(clock), key: &key, request };
        self.witness.see(Seen::Sent(sent))
    }

    fn call(&mut self, step: usize) -> Judged {
        self.send(step, Phase::Action, 1)
    }

    fn undo(&mut self, step: usize) -> Judged {
        self.send(step, Phase::Compensation, 1)
    }

    fn books(&mut self, step: usize, did: Did) -> Judged {
        self.witness.see(Seen::Booked { step, did })
    }

    /// Called, done, and its success durable.
    fn done(&mut self, step: usize) -> &mut Self {
        self.call(step).unwrap();
        self.books(step, Did::TookEffect).unwrap();
        self.succeeds(step).unwrap();
        self
    }

    fn succeeds(&mut self, step: usize) -> Judged {
        let step = self.name(step);
        let response = Bytes::new();
        self.event(EventKind::ActionSucceeded { step, attempt: 1, elapsed: Duration::ZERO, response })
    }

    fn fails(&mut self, step: usize, attempt: u32, evidence: Evidence, next: Next) -> Judged {
        let (step, failure) = (self.name(step), Box::new(failure(evidence)));
        let (elapsed, settles_doubt) = (Duration::ZERO, false);
        self.event(EventKind::ActionFailed { step, attempt, elapsed, failure, settles_doubt, next })
    }

    fn refused(&mut self, step: usize) -> &mut Self {
        self.call(step).unwrap();
        self.fails(step, 1, REFUSED, Next::GiveUp).unwrap();
        self
    }

    fn decides(&mut self) -> Judged {
        let cause = Cause { kind: CauseKind::DeadlinePassed, failure: None };
        self.event(EventKind::RollbackDecided { cause: Box::new(cause), signals: Vec::new() })
    }

    /// The rollback is decided, and all that follows may break something.
    fn back(&mut self) -> &mut Self {
        self.decides().unwrap();
        self
    }

    fn undone(&mut self, step: usize) -> Judged {
        let step = self.name(step);
        self.event(EventKind::CompensationSucceeded { step, attempt: 1, elapsed: Duration::ZERO })
    }

    fn name(&self, step: usize) -> StepName {
        self.definition.steps[step].name.clone()
    }
}

const REFUSED: Evidence = Evidence::ParticipantSaid(Code::FailedPrecondition);
const LATE: Evidence = Evidence::NoAnswer(NoAnswer::Deadline);
const CLOSED: Evidence = Evidence::NotSent(NotSent::BreakerOpen);

fn failure(evidence: Evidence) -> Failure {
    let row = backstop_core::tier(&ErrorTable::default(), evidence.code());
    Failure {
        evidence,
        effect: Effect::None,
        fin_code: row.fin_code,
        tier: row.tier,
        message: String::new(),
        details: Details::default(),
        pushback: None,
    }
}

fn breaks(invariant: Invariant, judged: Judged) {
    match judged {
        Ok(()) => panic!("{invariant} is broken, and nobody says so"),
        Err(violation) => assert_eq!(violation.invariant, invariant, "{violation}"),
    }
}

#[test]
fn a_good_history_breaks_nothing() {
    let mut h = History::new();
    h.done(0).refused(1).back();
    h.witness.see(Seen::Acknowledged { by: h.by, seq: Seq(h.seq) }).unwrap();
    h.undo(0).unwrap();
    h.books(0, Did::Undid).unwrap();
    h.undone(0).unwrap();
    h.event(EventKind::RolledBack).unwrap();
    h.witness.at_rest().unwrap();
    h.witness.books_agree().unwrap();
    let journal = h.witness.journal().to_vec();
    h.witness.see(Seen::Read(&journal)).unwrap();

    let mut h = History::with_pivot();
    h.done(0).done(1).done(2).event(EventKind::Succeeded).unwrap();
    h.witness.at_rest().unwrap();
    h.witness.books_agree().unwrap();
}

#[test]
fn i1_a_rollback_is_decided_twice() {
    let mut h = History::new();
    h.refused(0).back();
    breaks(Invariant::I1, h.decides());
}

#[test]
fn i1_it_commits_after_its_rollback_was_decided() {
    let mut h = History::new();
    h.done(0).done(1).back();
    breaks(Invariant::I1, h.event(EventKind::Succeeded));
}

#[test]
fn i1_it_commits_with_a_step_that_is_not_done() {
    let mut h = History::new();
    h.done(0);
    breaks(Invariant::I1, h.event(EventKind::Succeeded));
}

#[test]
fn i1_an_action_is_called_by_somebody_who_knows_of_the_rollback() {
    let mut h = History::new();
    h.done(0).back();
    // An old picture, with an old clock, may leave a moment later; but not once its sender has been told.
    let (seq, old) = (Seq(h.seq), h.clock - 1);
    h.send_at(1, Phase::Action, 1, old, 0).unwrap();
    h.witness.see(Seen::Acknowledged { by: h.by, seq }).unwrap();
    breaks(Invariant::I1, h.send_at(1, Phase::Action, 2, old, 0));
    let mut h = History::new();
    h.done(0).back();
    breaks(Invariant::I1, h.call(1));
}

#[test]
fn i1_something_happens_after_the_end() {
    let mut h = History::new();
    h.refused(0).back().event(EventKind::RolledBack).unwrap();
    breaks(Invariant::I1, h.event(EventKind::InterventionOpened));
}

#[test]
fn i2_it_hangs() {
    let mut h = History::new();
    h.done(0);
    breaks(Invariant::I2, h.witness.at_rest());
    h.event(EventKind::InterventionOpened).unwrap();
    breaks(Invariant::I2, h.witness.at_rest());
}

#[test]
fn i3_an_acknowledged_event_is_missing() {
    let mut h = History::new();
    h.done(0);
    h.witness.see(Seen::Acknowledged { by: h.by, seq: Seq(2) }).unwrap();
    let journal = h.witness.journal()[..1].to_vec();
    breaks(Invariant::I3, h.witness.see(Seen::Read(&journal)));
    breaks(Invariant::I3, h.witness.see(Seen::Acknowledged { by: h.by, seq: Seq(3) }));
    h.seq += 1;
    breaks(Invariant::I3, h.event(EventKind::Succeeded));
}

#[test]
fn i4_an_action_is_called_before_its_dependency_is_done() {
    let mut h = History::new();
    h.call(0).unwrap();
    h.books(0, Did::TookEffect).unwrap();
    breaks(Invariant::I4, h.call(1));
}

#[test]
fn i5_a_branch_is_compensated_before_one_that_depends_on_it() {
    let mut h = History::new();
    h.done(0).done(1).back();
    breaks(Invariant::I5, h.undo(0));
}

#[test]
fn i5_a_branch_is_compensated_while_one_that_depends_on_it_is_out() {
    let mut h = History::new();
    h.done(0).call(1).unwrap();
    h.back();
    breaks(Invariant::I5, h.undo(0));
}

#[test]
fn i5_under_lifo_the_newest_goes_first() {
    let mut h = History::of(definition(CompensationOrder::Lifo, OnFailure::Drain, false));
    h.done(0).done(1).back().undo(1).unwrap();
    breaks(Invariant::I5, h.undo(0));
}

#[test]
fn i6_what_had_no_effect_is_compensated() {
    let mut h = History::new();
    h.done(0).refused(1).back();
    breaks(Invariant::I6, h.undo(1));
}

#[test]
fn i6_what_cannot_have_been_sent_is_compensated() {
    let mut h = History::new();
    h.call(0).unwrap();
    h.fails(0, 1, CLOSED, Next::GiveUp).unwrap();
    h.back();
    breaks(Invariant::I6, h.undo(1));
    breaks(Invariant::I6, h.undo(0));
}

#[test]
fn i6_what_may_have_happened_is_not_compensated() {
    let mut h = History::new();
    h.call(0).unwrap();
    h.fails(0, 1, LATE, Next::GiveUp).unwrap();
    h.back();
    breaks(Invariant::I6, h.event(EventKind::RolledBack));
}

#[test]
fn i6_a_later_refusal_does_not_settle_an_earlier_doubt() {
    let mut h = History::new();
    h.call(0).unwrap();
    h.fails(0, 1, LATE, Next::RetryAt(Timestamp(0))).unwrap();
    h.fails(0, 2, REFUSED, Next::GiveUp).unwrap();
    h.back();
    breaks(Invariant::I6, h.event(EventKind::RolledBack));
}

#[test]
fn i6_what_was_reset_is_in_doubt() {
    let mut h = History::of(definition(CompensationOrder::ReverseDag, OnFailure::Cancel, false));
    h.done(0).call(1).unwrap();
    h.back().undo(1).unwrap();
    h.undone(1).unwrap();
    h.undo(0).unwrap();
    h.undone(0).unwrap();
    h.event(EventKind::RolledBack).unwrap();
    breaks(Invariant::I6, h.witness.books_agree());
}

#[test]
fn i7_a_compensation_or_a_signal_before_the_decision() {
    let mut h = History::new();
    h.done(0);
    breaks(Invariant::I7, h.undo(0));
    let participant = ParticipantName::parse("debit").unwrap();
    breaks(Invariant::I7, h.witness.see(Seen::Signalled { participant: &participant, clock: Clock(9) }));
}

#[test]
fn i8_the_rollback_of_a_saga_whose_pivot_may_have_succeeded() {
    let mut h = History::with_pivot();
    h.done(0).done(1).done(2);
    breaks(Invariant::I8, h.decides());
    let mut h = History::with_pivot();
    h.done(0).done(1).call(2).unwrap();
    breaks(Invariant::I8, h.decides());
    let mut h = History::with_pivot();
    h.done(0).done(1).refused(2).back();
    breaks(Invariant::I8, h.books(2, Did::TookEffect));
    breaks(Invariant::I8, h.undo(1));
}

#[test]
fn i9_one_key_two_requests() {
    let mut h = History::new();
    h.call(0).unwrap();
    breaks(Invariant::I9, h.send_at(0, Phase::Action, 2, 9, 1));
}

#[test]
fn i9_one_call_under_the_key_of_another() {
    let mut h = History::new();
    let key = IdempotencyKey::new(&SagaId::parse("s").unwrap(), &h.name(1), Phase::Action);
    let (epoch, phase, clock) = (h.by, Phase::Action, Clock(9));
    let sent = Sent { epoch, step: 0, phase, attempt: 1, clock, key: &key, request: 0 };
    breaks(Invariant::I9, h.witness.see(Seen::Sent(sent)));
}

#[test]
fn i9_what_may_be_done_is_sent_again_to_one_that_cannot_tell() {
    let mut h = History::new();
    h.call(0).unwrap();
    h.fails(0, 1, LATE, Next::RetryAt(Timestamp(0))).unwrap();
    breaks(Invariant::I9, h.send(0, Phase::Action, 2));
    h.books(0, Did::TookEffect).unwrap();
    breaks(Invariant::I9, h.books(0, Did::TookEffect));
}

#[test]
fn i10_two_events_at_one_seq() {
    let mut h = History::new();
    h.refused(0);
    // Written again word for word: nothing has happened.
    let last = Arc::clone(h.witness.journal().last().unwrap());
    h.witness.see(Seen::Durable { by: h.by, event: &last }).unwrap();
    h.seq -= 1;
    breaks(Invariant::I10, h.event(EventKind::InterventionOpened));
}

#[test]
fn i10_an_event_of_a_fenced_coordinator() {
    let mut h = History::new();
    let old = h.by;
    h.by = Epoch(2);
    let coordinator = CoordinatorId::parse("b").unwrap();
    h.event(EventKind::Adopted { epoch: h.by, coordinator }).unwrap();
    h.by = old;
    breaks(Invariant::I10, h.event(EventKind::Released));
}

#[test]
fn i11_the_clock_stands_still() {
    let mut h = History::new();
    h.clock -= 2;
    breaks(Invariant::I11, h.event(EventKind::Released));
    let mut h = History::new();
    h.done(0);
    breaks(Invariant::I11, h.send_at(1, Phase::Action, 1, h.clock, 0));
    let mut h = History::new();
    h.send_at(0, Phase::Action, 1, 99, 0).unwrap();
    breaks(Invariant::I11, h.succeeds(0));
}

#[test]
fn i11_the_way_back_goes_the_other_way_round() {
    let mut h = History::new();
    h.done(0).done(1).back().undo(1).unwrap();
    h.undone(1).unwrap();
    breaks(Invariant::I11, h.send_at(0, Phase::Compensation, 1, h.clock, 0));
}

#[test]
fn i12_money_is_made_or_lost() {
    let books = |balance, pending, net_flow| Money { name: "ann".into(), balance, pending, net_flow };
    let before = [books(70, 0, 0), books(30, 0, 0)];
    money(&before, &[books(60, 0, 0), books(40, 1, 0)]).unwrap();
    breaks(Invariant::I12, money(&before, &[books(60, 0, 0), books(41, 0, 0)]));
    breaks(Invariant::I12, money(&before, &[books(60, -1, 0), books(40, 0, 0)]));
    breaks(Invariant::I12, money(&before, &[books(60, 0, 1), books(40, 0, 0)]));
}

#[test]
fn a_person_may_settle_what_the_machine_may_not() {
    let mut h = History::new();
    h.done(0).refused(1).back().undo(0).unwrap();
    let (step, failure) = (h.name(0), Box::new(failure(REFUSED)));
    let (elapsed, next) = (Duration::ZERO, Next::GiveUp);
    h.event(EventKind::CompensationFailed { step, attempt: 1, elapsed, failure, next }).unwrap();
    h.event(EventKind::InterventionOpened).unwrap();
    h.witness.at_rest().unwrap();
    let (step, by, reason) = (h.name(0), "ann".to_owned(), String::new());
    h.event(EventKind::BranchResolved { step, by, reason, resolution: Resolution::Undone }).unwrap();
    h.event(EventKind::RolledBack).unwrap();
    h.witness.at_rest().unwrap();
    h.witness.books_agree().unwrap();
}
