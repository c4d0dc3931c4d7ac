//! The sagas that the screens show.

use crate::cli::view::Story;
use backstop_proto::v1::event::Type;
use backstop_proto::v1::failure::{Effect, Evidence};
use backstop_proto::v1::signal_report::State;
use backstop_proto::v1::{
    Branch, BranchState, Call, Definition, Event, Failure, RollbackCause, Saga, SagaState, SignalReport,
    Step, StepKind, Tier, rollback_cause::Kind,
};
use prost_types::{Duration, Timestamp};

/// 2026-11-24T00:00:00Z, when every saga of the stories starts, in seconds.
const BEGIN: i64 = 1_795_478_400;
/// A minute later, in microseconds.
pub(super) const NOW: i64 = (BEGIN + 60) * 1_000_000;

fn at(millis: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(millis % 1000).unwrap() * 1_000_000;
    Some(Timestamp { seconds: BEGIN + millis / 1000, nanos })
}

fn failure(code: &str, fin_code: &str, tier: Tier, evidence: Evidence, message: &str) -> Failure {
    let effect = match evidence {
        Evidence::ParticipantSaid => Effect::None,
        _ => Effect::InDoubt,
    };
    Failure {
        grpc_code: code.to_owned(),
        fin_code: fin_code.to_owned(),
        tier: tier.into(),
        evidence: evidence.into(),
        effect: effect.into(),
        message: message.to_owned(),
        ..Failure::default()
    }
}

fn closed() -> Failure {
    failure("FAILED_PRECONDITION", "FIN-40005", Tier::L3, Evidence::ParticipantSaid, "account closed")
}

fn denied() -> Failure {
    failure("PERMISSION_DENIED", "FIN-50099", Tier::L1, Evidence::ParticipantSaid, "not today")
}

fn late() -> Failure {
    failure("DEADLINE_EXCEEDED", "FIN-50302", Tier::L2, Evidence::Deadline, "")
}

fn branch(step: &str, state: BranchState, participant: &str, depends_on: &[&str]) -> Branch {
    Branch {
        step: step.to_owned(),
        kind: StepKind::Compensatable.into(),
        state: state.into(),
        participant: participant.to_owned(),
        depends_on: depends_on.iter().map(|name| (*name).to_owned()).collect(),
        action_attempts: u32::from(!matches!(state, BranchState::Pending | BranchState::Skipped)),
        idempotency_key: format!("pay-7/{step}/action"),
        ..Branch::default()
    }
}

/// An event that ends an attempt.
fn ended(millis: i64, kind: Type, step: &str, attempt: u32, elapsed: i32, failure: Option<Failure>) -> Event {
    Event {
        time: at(millis),
        r#type: kind.into(),
        step: step.to_owned(),
        attempt,
        elapsed: Some(Duration { seconds: 0, nanos: elapsed * 1_000_000 }),
        failure,
        line: format!("0000 {step} …"),
        ..Event::default()
    }
}

fn happened(millis: i64, kind: Type, line: &str) -> Event {
    Event { time: at(millis), r#type: kind.into(), line: line.to_owned(), ..Event::default() }
}

fn call(participant: &str, method: &str) -> Option<Call> {
    Some(Call { participant: participant.to_owned(), method: method.to_owned(), ..Call::default() })
}

fn step(name: &str, participant: &str, action: &str, compensation: &str) -> Step {
    Step {
        name: name.to_owned(),
        action: call(participant, action),
        compensation: call(participant, compensation),
        ..Step::default()
    }
}

fn transfer() -> Definition {
    Definition {
        name: "transfer".to_owned(),
        revision: 3,
        steps: vec![
            step("hold", "limits", "bank.limits.v1.Limits/Hold", "bank.limits.v1.Limits/Free"),
            step("debit", "ledger_a", "bank.ledger.v1.Ledger/Debit", "bank.ledger.v1.Ledger/ReverseDebit"),
            step("credit", "ledger_b", "bank.ledger.v1.Ledger/Credit", "bank.ledger.v1.Ledger/ReverseCredit"),
        ],
        ..Definition::default()
    }
}

fn saga(state: SagaState, branches: Vec<Branch>, transcript: &[&str]) -> Saga {
    Saga {
        id: "pay-7".to_owned(),
        definition: "transfer".to_owned(),
        revision: 3,
        state: state.into(),
        branches,
        transcript: transcript.iter().map(|line| (*line).to_owned()).collect(),
        labels: [("customer".to_owned(), "42".to_owned())].into(),
        create_time: at(0),
        update_time: at(800),
        epoch: 1,
        seq: 9,
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        ..Saga::default()
    }
}

fn cause(step: &str, failure: Failure) -> Option<RollbackCause> {
    Some(RollbackCause {
        kind: Kind::StepFailed.into(),
        step: step.to_owned(),
        failure: Some(failure),
        ..RollbackCause::default()
    })
}

/// `hold`, `debit`, then `credit`, which is refused; so is undoing `debit`.
pub(super) fn stuck() -> Story {
    let debit = Branch {
        compensation_attempts: 3,
        compensation_failure: Some(denied()),
        ..branch("debit", BranchState::Stuck, "ledger_a", &["hold"])
    };
    let credit =
        Branch { failure: Some(closed()), ..branch("credit", BranchState::Failed, "ledger_b", &["debit"]) };
    let branches = vec![branch("hold", BranchState::Succeeded, "limits", &[]), debit, credit];
    let told = |participant: &str, state: State| SignalReport {
        participant: participant.to_owned(),
        state: state.into(),
    };
    let saga = Saga {
        fin_code: "FIN-40005".to_owned(),
        cause: cause("credit", closed()),
        signals: vec![told("ledger_a", State::Delivered), told("limits", State::Failed)],
        ..saga(
            SagaState::NeedsIntervention,
            branches,
            &[
                "0001 saga     started        transfer@3",
                "0002 hold     succeeded      #1  12.0ms",
                "0003 debit    succeeded      #1  30.0ms",
                "0004 credit   failed         #1  FIN-40005 FAILED_PRECONDITION  account closed",
                "0005 saga     rolling back   cause credit",
                "0006 debit    undo failed    #1  FIN-50099 PERMISSION_DENIED  not today",
                "0007 debit    undo failed    #2  FIN-50099 PERMISSION_DENIED  not today",
                "0008 debit    stuck          #3  FIN-50099 PERMISSION_DENIED  not today",
                "0009 saga     needs a person",
            ],
        )
    };
    let events = vec![
        happened(0, Type::Started, "0001 saga     started        transfer@3"),
        ended(13, Type::ActionSucceeded, "hold", 1, 12, None),
        ended(44, Type::ActionSucceeded, "debit", 1, 30, None),
        ended(80, Type::ActionFailed, "credit", 1, 35, Some(closed())),
        happened(80, Type::RollbackDecided, "0005 saga     rolling back   cause credit"),
        ended(100, Type::CompensationFailed, "debit", 1, 18, Some(denied())),
        ended(300, Type::CompensationFailed, "debit", 2, 20, Some(denied())),
        ended(800, Type::CompensationFailed, "debit", 3, 25, Some(denied())),
        happened(800, Type::InterventionOpened, "0009 saga     needs a person"),
    ];
    Story { saga, events: Some(events), definition: Some(transfer()), ..Story::default() }
}

/// `debit` waits for its third attempt.
pub(super) fn retrying() -> Story {
    let debit = Branch {
        action_attempts: 2,
        in_doubt: true,
        failure: Some(late()),
        next_attempt_time: at(63_200),
        turn_time: at(13),
        ..branch("debit", BranchState::Running, "ledger_a", &["hold"])
    };
    let branches = vec![
        branch("hold", BranchState::Succeeded, "limits", &[]),
        debit,
        branch("credit", BranchState::Pending, "ledger_b", &["debit"]),
    ];
    let saga = Saga {
        owner: "host-1/4711".to_owned(),
        deadline: at(90_000),
        update_time: at(59_500),
        ..saga(
            SagaState::Running,
            branches,
            &[
                "0001 saga     started        transfer@3",
                "0002 hold     succeeded      #1  12.0ms",
                "0003 debit    will retry     #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt",
                "0004 debit    will retry     #2  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt",
            ],
        )
    };
    let events = vec![
        happened(0, Type::Started, "0001 saga     started        transfer@3"),
        ended(13, Type::ActionSucceeded, "hold", 1, 12, None),
        ended(2_013, Type::ActionFailed, "debit", 1, 900, Some(late())),
        ended(59_500, Type::ActionFailed, "debit", 2, 900, Some(late())),
    ];
    Story { saga, events: Some(events), definition: Some(transfer()), ..Story::default() }
}

/// `debit` is being undone, and its participant is not there.
pub(super) fn awaiting() -> Story {
    let mut story = stuck();
    story.saga.state = SagaState::RollingBack.into();
    story.saga.owner = "host-1/4711".to_owned();
    story.saga.id = "pay $7".to_owned();
    story.server_flag = " --server http://bank:7420".to_owned();
    let debit = &mut story.saga.branches[1];
    debit.state = BranchState::Compensating.into();
    debit.in_doubt = true;
    debit.compensation_failure = Some(late());
    debit.next_attempt_time = at(63_200);
    debit.give_up_time = at(600_000);
    story
}

/// Everything is undone.
pub(super) fn rolled_back_diamond() -> Story {
    let branches = vec![
        branch("hold", BranchState::Compensated, "limits", &[]),
        branch("debit", BranchState::Compensated, "ledger_a", &["hold"]),
        branch("fx", BranchState::Compensated, "fx", &["hold"]),
        Branch {
            failure: Some(closed()),
            ..branch("credit", BranchState::Failed, "ledger_b", &["debit", "fx"])
        },
        branch("settle", BranchState::Skipped, "ledger_b", &["credit"]),
    ];
    let saga = Saga {
        fin_code: "FIN-40005".to_owned(),
        cause: cause("credit", closed()),
        end_time: at(120),
        update_time: at(120),
        ..saga(SagaState::RolledBack, branches, &["0001 saga     started        transfer@3"])
    };
    let events = vec![
        happened(0, Type::Started, "0001 saga     started        transfer@3"),
        ended(10, Type::ActionSucceeded, "hold", 1, 10, None),
        ended(40, Type::ActionSucceeded, "debit", 1, 30, None),
        ended(60, Type::ActionSucceeded, "fx", 1, 50, None),
        ended(75, Type::ActionFailed, "credit", 1, 15, Some(closed())),
        happened(75, Type::RollbackDecided, "0006 saga     rolling back   cause credit"),
        ended(95, Type::CompensationSucceeded, "debit", 1, 20, None),
        ended(105, Type::CompensationSucceeded, "fx", 1, 30, None),
        ended(120, Type::CompensationSucceeded, "hold", 1, 15, None),
        happened(120, Type::RolledBack, "0011 saga     rolled back"),
    ];
    Story { saga, events: Some(events), ..Story::default() }
}

/// Its journal cannot be followed.
pub(super) fn quarantined() -> Story {
    let saga = Saga {
        quarantine: "event 3 does not fit: its clock does not grow".to_owned(),
        update_time: at(800),
        ..saga(SagaState::NeedsIntervention, vec![], &[])
    };
    Story { saga, ..Story::default() }
}

/// Its journal is gone.
pub(super) fn retired() -> Story {
    let saga = Saga {
        journal_retired: true,
        fin_code: "FIN-40005".to_owned(),
        end_time: at(120),
        trace_id: String::new(),
        ..saga(SagaState::RolledBack, vec![], &[])
    };
    Story { saga, ..Story::default() }
}

/// 256 steps, each after two before it, of which one cannot be undone.
pub(super) fn big() -> Story {
    let name = |number: usize| format!("step_{number:03}");
    let branches: Vec<Branch> = (0..256_usize)
        .map(|number| {
            let before: Vec<String> = [number.checked_sub(1 + number % 3), number.checked_sub(17)]
                .into_iter()
                .flatten()
                .map(name)
                .collect();
            let before: Vec<&str> = before.iter().map(String::as_str).collect();
            let state = match number {
                0..=99 => BranchState::Succeeded,
                100 => BranchState::Stuck,
                101..=249 => BranchState::Compensated,
                250 => BranchState::Failed,
                _ => BranchState::Skipped,
            };
            let mut one = branch(&name(number), state, "bank", &before);
            if number == 100 {
                one.compensation_failure = Some(denied());
                one.compensation_attempts = 3;
            }
            one
        })
        .collect();
    let transcript: Vec<String> = (1..=700).map(|seq| format!("{seq:04} step_{:03} …", seq % 256)).collect();
    let transcript: Vec<&str> = transcript.iter().map(String::as_str).collect();
    let events = (0..250_u32)
        .map(|number| {
            ended(
                i64::from(number) + 40,
                Type::ActionSucceeded,
                &name(usize::try_from(number).unwrap()),
                1,
                30,
                None,
            )
        })
        .collect();
    let saga = Saga {
        cause: cause("step_250", closed()),
        ..saga(SagaState::NeedsIntervention, branches, &transcript)
    };
    Story { saga, events: Some(events), ..Story::default() }
}
