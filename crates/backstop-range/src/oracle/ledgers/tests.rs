//! Each oracle finds what it is there for, and nothing in sound books.

use super::*;
use crate::wire::{Account, Execution, Nostro};

const OPENING: i64 = 1_000_000;
/// More than enough: accounts are numbered below `ACCOUNTS`, and one payee may be beyond.
const ACCOUNTS: u32 = 2 * crate::payment::ACCOUNTS;

/// Three ledgers on which these branches are booked.
fn nodes(booked: &[(&Payment, &[&str])]) -> Vec<Node> {
    let mut nodes: Vec<Node> = (0..3)
        .map(|number| Node {
            name: ledger_name(number),
            opening_balance: OPENING,
            books: Books {
                accounts: (0..ACCOUNTS).map(|id| Account { id, balance: OPENING, pending: 0 }).collect(),
                ..Books::default()
            },
            is_dead: number == 2,
        })
        .collect();
    for (payment, steps) in booked {
        for step in *steps {
            let books = &mut nodes.get_mut(payment.ledger_of(step)).unwrap().books;
            let key = format!("{}/{step}/action", payment.saga);
            books.executions.push(Execution { key, count: 1 });
            for entry in payment.entries_of(step) {
                let account = books.accounts.get_mut(entry.account as usize).unwrap();
                account.balance += entry.balance;
                account.pending += entry.pending;
                let place = books.nostros.iter().position(|nostro| nostro.peer == entry.peer);
                let place = place.unwrap_or_else(|| {
                    books.nostros.push(Nostro { peer: entry.peer.clone(), ..Nostro::default() });
                    books.nostros.len() - 1
                });
                let nostro = books.nostros.get_mut(place).unwrap();
                nostro.sent += entry.sent;
                nostro.received += entry.received;
                books.entries.push(entry);
            }
        }
    }
    nodes
}

/// A payment whose payer is the dead ledger, number 2.
fn payment(number: u64) -> Payment {
    let mut payment = Payment::of(1, number, 3);
    payment.ledgers = [2, 0, 1];
    payment.amount = 100;
    payment.fee = 7;
    payment
}

fn case(payment: &Payment, state: SagaState, branches: &[(&str, BranchState)]) -> (String, Case) {
    let branch = |(step, state): &(&str, BranchState)| Branch {
        step: (*step).to_owned(),
        participant: ledger_name(payment.ledger_of(step)),
        state: *state as i32,
        ..Branch::default()
    };
    let branches = branches.iter().map(branch).collect();
    (payment.saga.clone(), Case { payment: payment.clone(), state, branches })
}

/// Everything that an oracle finds.
fn all(nodes: &[Node], cases: &BTreeMap<String, Case>) -> Vec<&'static str> {
    let marks = Marks::of(nodes);
    let explained = explained(cases, &marks);
    let found = [
        books_agree(nodes),
        pending_is_not_negative(nodes),
        nothing_unacknowledged(nodes, cases),
        all_or_nothing(cases, &marks),
        interventions_name_the_dead(nodes, cases),
        conservation(nodes, &explained),
        net_flow(nodes, &explained),
        executed_once(nodes, cases),
    ];
    let mut oracles: Vec<_> = found.iter().flatten().map(|violation| violation.oracle).collect();
    oracles.dedup();
    oracles
}

const STUCK_DEBIT: [(&str, BranchState); 4] = [
    ("debit", BranchState::Stuck),
    ("credit", BranchState::Compensated),
    ("fee", BranchState::Failed),
    ("settle", BranchState::Skipped),
];

#[test]
fn sound_books_are_sound_also_with_an_intervention_at_the_dead_ledger() {
    let (done, undone, open) = (payment(1), payment(2), payment(3));
    let nodes = nodes(&[(&done, &STEPS), (&open, &["debit"])]);
    let cases = BTreeMap::from([
        case(&done, SagaState::Succeeded, &[]),
        case(&undone, SagaState::RolledBack, &[]),
        case(&open, SagaState::NeedsIntervention, &STUCK_DEBIT),
    ]);
    assert_eq!(all(&nodes, &cases), [""; 0]);
    let exposed = cases.get(&open.saga).map(Case::exposed).unwrap();
    assert_eq!(exposed, BTreeMap::from([(2, 107)]));
}

#[test]
fn money_that_one_ledger_sent_and_nobody_received_is_explained_by_its_intervention_alone() {
    let open = payment(1);
    let nodes = nodes(&[(&open, &["debit", "settle"])]);
    let mut branches = STUCK_DEBIT;
    branches[3].1 = BranchState::Stuck;
    let cases = BTreeMap::from([case(&open, SagaState::NeedsIntervention, &branches)]);
    assert_eq!(all(&nodes, &cases), [""; 0]);
    let explained = explained(&cases, &Marks::of(&nodes));
    let name = ledger_name;
    assert_eq!(explained.money, -107);
    assert_eq!(explained.flows, BTreeMap::from([((name(2), name(0)), 100), ((name(2), name(1)), 7)]));
    assert_eq!(conservation(&nodes, &Explained::default()).len(), 1);
    assert_eq!(net_flow(&nodes, &Explained::default()).len(), 2);
}

#[test]
fn a_half_done_payment_is_found_whatever_its_saga_says() {
    let half = payment(1);
    let nodes = nodes(&[(&half, &["debit", "credit"])]);
    let named = "all done, all undone, or an intervention";
    for state in [SagaState::Succeeded, SagaState::RolledBack, SagaState::Running] {
        let found = all(&nodes, &BTreeMap::from([case(&half, state, &[])]));
        assert!(found.contains(&named) && found.contains(&"the money adds up"), "{found:?}");
        assert!(found.contains(&"nothing is left unacknowledged"), "{found:?}");
    }
    // Named by an intervention, but said to be undone: the credit is there all the same.
    let cases = BTreeMap::from([case(&half, SagaState::NeedsIntervention, &STUCK_DEBIT)]);
    assert_eq!(all(&nodes, &cases), [named]);
}

#[test]
fn an_intervention_that_names_a_ledger_that_is_well_or_nobody_is_found() {
    let open = payment(1);
    let nodes = nodes(&[(&open, &["debit"])]);
    let named = "an intervention names the dead ledger";
    let mut at_the_living = STUCK_DEBIT;
    at_the_living[1].1 = BranchState::Stuck;
    let cases = BTreeMap::from([case(&open, SagaState::NeedsIntervention, &at_the_living)]);
    assert_eq!(all(&nodes, &cases), [named]);
    let mut nobody = STUCK_DEBIT;
    nobody[0].1 = BranchState::Succeeded;
    let cases = BTreeMap::from([case(&open, SagaState::NeedsIntervention, &nobody)]);
    assert_eq!(all(&nodes, &cases), [named]);
}

#[test]
fn pending_below_zero_is_found_on_the_account_and_by_saga() {
    let (early, held) = (payment(1), payment(2));
    let mut held_more = held.clone();
    held_more.accounts = early.accounts;
    held_more.amount = 500;
    // Settled, and its debit already undone: hidden on the account by what another saga holds there.
    let nodes = nodes(&[(&early, &["settle"]), (&held_more, &["debit"])]);
    let found = pending_is_not_negative(&nodes);
    assert_eq!(
        found.iter().map(|found| found.saga.as_deref()).collect::<Vec<_>>(),
        [Some(early.saga.as_str())]
    );
    let nodes = super::tests::nodes(&[(&early, &["settle"])]);
    assert_eq!(pending_is_not_negative(&nodes).len(), 2);
}

#[test]
fn books_that_contradict_themselves_are_found() {
    let done = payment(1);
    let cases = BTreeMap::from([case(&done, SagaState::Succeeded, &[])]);
    let sound = nodes(&[(&done, &STEPS)]);
    let mut account = sound.clone();
    account[0].books.accounts[3].balance += 1;
    assert_eq!(all(&account, &cases), ["each ledger's books agree", "the money adds up"]);
    let mut nostro = sound.clone();
    nostro[0].books.nostros[0].received += 1;
    assert_eq!(all(&nostro, &cases), ["each ledger's books agree", "net flow between ledgers is zero"]);
    let mut entry = sound;
    entry[0].books.entries.clear();
    assert_eq!(
        all(&entry, &cases),
        ["each ledger's books agree", "all done, all undone, or an intervention"]
    );
}

#[test]
fn a_second_execution_one_too_few_and_one_of_nobodys_are_found() {
    let done = payment(1);
    let cases = BTreeMap::from([case(&done, SagaState::Succeeded, &[])]);
    let sound = nodes(&[(&done, &STEPS)]);
    let texts = |nodes: &[Node], cases| -> Vec<String> {
        executed_once(nodes, cases).into_iter().map(|violation| violation.text).collect()
    };
    assert!(texts(&sound, &cases).is_empty());
    let mut twice = sound.clone();
    twice[0].books.executions[0].count = 2;
    assert!(texts(&twice, &cases)[0].contains("2 times"));
    let mut elsewhere = sound.clone();
    let again = elsewhere[0].books.executions[0].clone();
    elsewhere[1].books.executions.push(again);
    assert!(texts(&elsewhere, &cases)[0].contains("2 times"));
    let mut missing = sound.clone();
    missing[0].books.executions.clear();
    assert!(texts(&missing, &cases)[0].contains("never executed"));
    let nobody = BTreeMap::new();
    assert_eq!(texts(&sound, &nobody).len(), 4);
    let mut undone = sound;
    let key = format!("{}/nothing/compensation", done.saga);
    undone[0].books.executions.push(Execution { key, count: 1 });
    assert!(texts(&undone, &cases)[0].contains("its action never was"));
}

#[test]
fn money_on_the_wrong_ledger_is_odd() {
    let done = payment(1);
    let mut nodes = nodes(&[(&done, &STEPS)]);
    let place = nodes[0].books.entries.iter().position(|entry| entry.step == "credit").unwrap();
    let entry = nodes[0].books.entries.remove(place);
    nodes[1].books.entries.push(entry);
    assert_eq!(Marks::of(&nodes).mark(&done, "credit"), Mark::Odd);
}
