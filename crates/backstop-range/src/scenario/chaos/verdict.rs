//! Every oracle over what a chaos has left, each with the words that the page shows.

use super::{Seen, standstills};
use crate::call::Call;
use crate::faults::{Class, Fault, Kind as FaultKind};
use crate::moment::micros;
use crate::oracle::{self, Violation, ledgers};
use crate::report::{Kind, Report};
use crate::standstill::{self, Span, Standstill};
use backstop_proto::v1::SagaState;
use std::collections::BTreeMap;
use std::time::Duration;

/// Lease (5 s) and two seconds: nobody may wait longer for a successor.
const STANDSTILL_MAX: Duration = Duration::from_secs(7);
/// How long after a thaw or a healed wire a call may still come out of where it was held up.
const THAW: Duration = Duration::from_secs(2);
/// How long after its healing a ledger may still be left alone: an open circuit breaker, and a backoff.
const LEFT_ALONE: Duration = Duration::from_secs(8);

/// Judges everything; answers a saga that shows what is wrong.
pub(super) fn judge(report: &mut Report, seen: &Seen) -> Option<String> {
    for (started, failure) in seen.outcome.failed().take(3) {
        let text = format!("{}: {}", started.id, failure.text);
        report.check(failure.kind(), "every start is answered", false, text);
    }
    for odd in seen.odd_inputs.iter().take(3) {
        report.check(Kind::Safety, "an intervention tells its input", false, odd);
    }
    let (nodes, cases) = (&seen.nodes, &seen.cases);
    let states: BTreeMap<String, SagaState> =
        seen.sagas.iter().map(|saga| (saga.id.clone(), saga.state())).collect();
    let accepted = || seen.outcome.accepted().map(|started| started.id.as_str());
    let has_dead = nodes.iter().any(|node| node.is_dead);
    let kept = if has_dead {
        oracle::accepted_is_kept(accepted(), &states)
    } else {
        oracle::all_ended(accepted(), &states)
    };
    let (backwards, late) = oracle::epochs(&seen.calls, |call| was_held_up(call, &seen.faults));
    report.figure("late calls", late);
    let marks = ledgers::Marks::of(nodes);
    let explained = ledgers::explained(cases, &marks);
    let found: [(&str, &str, Vec<Violation>); 11] = [
        (
            "nothing accepted is lost",
            "every saga whose start was answered is there; none waits for a person unless a ledger is dead",
            kept,
        ),
        (
            "all done, all undone, or an intervention",
            "SUCCEEDED: all four branches are in the books, whole. ROLLED_BACK: nothing is. Otherwise the saga \
             stands as an intervention, and the books have of it only what its branches say",
            ledgers::all_or_nothing(cases, &marks),
        ),
        (
            "an intervention names the dead ledger",
            "whatever is stuck or in doubt is at a ledger that died for good",
            ledgers::interventions_name_the_dead(nodes, cases),
        ),
        (
            "the money adds up",
            "the sum over all accounts of all ledgers is what it was, but for what the interventions explain",
            ledgers::conservation(nodes, &explained),
        ),
        (
            "net flow between ledgers is zero",
            "what each ledger has sent to each other is what that has received, with the same exception",
            ledgers::net_flow(nodes, &explained),
        ),
        (
            "pending is not negative",
            "on no account and for no saga: a settlement before its debit, or a debit undone first, would show",
            ledgers::pending_is_not_negative(nodes),
        ),
        (
            "nothing is left unacknowledged",
            "money is held for a peer only by an intervention",
            ledgers::nothing_unacknowledged(nodes, cases),
        ),
        (
            "each ledger's books agree",
            "accounts and positions are what their entries add up to, on the dead ledger's disk too",
            ledgers::books_agree(nodes),
        ),
        (
            "one key is executed once",
            "work under one idempotency key was committed once however often it was called, and for no saga that \
             is not there",
            ledgers::executed_once(nodes, cases),
        ),
        (
            "one key, one request",
            "all calls of a branch and phase bear one key, one method and one request",
            oracle::one_key_one_request(&seen.calls),
        ),
        (
            "no call goes back",
            "no call of an older tenure after one of a newer, no action after its compensation, unless a freeze or \
             a wire had held it up",
            backwards,
        ),
    ];
    for (name, meaning, violations) in &found {
        report.oracle(name, meaning, violations);
    }
    let standing = standstill::at_least(1, &seen.journals, &seen.calls);
    let longest = standstill::longest(&standing, |standstill| is_excused(standstill, seen));
    let slow = standstills(report, &longest, STANDSTILL_MAX);
    let is_reached = !has_dead || cases.values().any(ledgers::Case::is_open);
    report.check(
        Kind::Reach,
        "an intervention",
        is_reached,
        "a ledger died, and no saga was left open by it",
    );
    let of_saga = found.iter().flat_map(|(_, _, found)| found).find_map(|violation| violation.saga.clone());
    of_saga.or(slow)
}

/// True if something can have held this call up on its way.
fn was_held_up(call: &Call, faults: &[Fault]) -> bool {
    faults.iter().any(|fault| {
        let thawed = Span { from: fault.until, until: fault.until.saturating_add(micros(THAW)) };
        let span = match fault.kind {
            // A coordinator lets out what it was sending; a ledger takes in what came meanwhile.
            FaultKind::Freeze => thawed,
            FaultKind::Cut | FaultKind::BlackHole | FaultKind::Delay if fault.target == call.participant => {
                Span { from: fault.from, until: thawed.until }
            }
            FaultKind::Kill
            | FaultKind::Cut
            | FaultKind::BlackHole
            | FaultKind::Delay
            | FaultKind::FullDisk
            | FaultKind::Dead
            | FaultKind::Restart
            | FaultKind::Crash => return false,
        };
        span.from <= call.arrived && call.arrived <= span.until
    })
}

/// True if something that the saga needed was away: Postgres, or one of its own ledgers.
fn is_excused(standstill: &Standstill, seen: &Seen) -> bool {
    let own = seen.cases.get(&standstill.saga).map(|case| case.payment.ledgers).unwrap_or_default();
    let own = own.map(crate::payment::ledger_name);
    seen.faults.iter().any(|fault| {
        let span = fault.span();
        let span = match seen.targets.class(&fault.target) {
            Some(Class::Postgres) => span,
            Some(Class::Ledger) if own.contains(&fault.target) => {
                Span { from: span.from, until: span.until.saturating_add(micros(LEFT_ALONE)) }
            }
            Some(Class::Ledger | Class::Coordinator) | None => return false,
        };
        span.touches(standstill.span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::call;

    #[test]
    fn a_held_up_call_is_excused_by_its_own_wire_and_by_any_thaw_but_by_no_other_fault() {
        let mut call = call("s", 1);
        call.participant = "ledger_1".to_owned();
        call.arrived = 150;
        let fault = |kind, target: &str, from, until| Fault { kind, target: target.to_owned(), from, until };
        let excuses = |fault| was_held_up(&call, &[fault]);
        assert!(excuses(fault(FaultKind::BlackHole, "ledger_1", 100, 200)));
        assert!(!excuses(fault(FaultKind::BlackHole, "ledger_2", 100, 200)));
        assert!(excuses(fault(FaultKind::Freeze, "A", 100, 140)));
        assert!(!excuses(fault(FaultKind::Freeze, "A", 100, 160)), "it is frozen still");
        assert!(!excuses(fault(FaultKind::Kill, "ledger_1", 100, 200)));
        assert!(!excuses(fault(FaultKind::Dead, "ledger_1", 100, i64::MAX)));
    }
}
