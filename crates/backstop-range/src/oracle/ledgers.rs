//! What the ledgers' books must say once all is quiet, and what an intervention may leave in them.
//!
//! # Invariants
//! * Each oracle finds what it is there for: a test each in `ledgers/tests.rs`.
//! * What an intervention explains is worked out from the payment and from which of its branches stand in the
//!   books, never from the sums that it is to explain.

#[cfg(test)]
mod tests;

use super::Violation;
use crate::payment::{Payment, STEPS, ledger_name};
use crate::wire::{Books, Entry};
use backstop_proto::v1::{Branch, BranchState, SagaState};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A ledger at the end.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What each account held at first.
    pub opening_balance: i64,
    /// Its books.
    pub books: Books,
    /// Whether it died for good.
    pub is_dead: bool,
}

/// A saga at the end.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it was to do.
    pub payment: Payment,
    /// Where it stands.
    pub state: SagaState,
    /// Its branches, if it is an intervention.
    pub branches: Vec<Branch>,
}

/// What a branch has left in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    None,
    /// All of it.
    Whole,
    /// Something else.
    Odd,
}

/// The entries of all ledgers by saga and step.
#[derive(Debug)]
pub struct Marks<'a>(HashMap<(&'a str, &'a str), Vec<(usize, &'a Entry)>>);

fn is_zero(entry: &Entry) -> bool {
    (entry.balance, entry.pending, entry.sent, entry.received) == (0, 0, 0, 0)
}

impl<'a> Marks<'a> {
    /// Reads them off the books.
    #[must_use]
    pub fn of(nodes: &'a [Node]) -> Self {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        for (number, node) in nodes.iter().enumerate() {
            for entry in node.books.entries.iter().filter(|entry| !is_zero(entry)) {
                all.entry((entry.saga.as_str(), entry.step.as_str())).or_default().push((number, entry));
            }
        }
        Self(all)
    }

    /// What a payment's branch has left.
    #[must_use]
    pub fn mark(&self, payment: &Payment, step: &str) -> Mark {
        let Some(left) = self.0.get(&(payment.saga.as_str(), step)) else { return Mark::None };
        let ledger = payment.ledger_of(step);
        // Both are sorted by peer: the books are read so.
        let is_whole = left.iter().all(|(number, _)| *number == ledger)
            && left.iter().map(|(_, entry)| *entry).eq(payment.entries_of(step).iter());
        if is_whole { Mark::Whole } else { Mark::Odd }
    }

    fn sagas(&self) -> impl Iterator<Item = &'a str> {
        self.0.keys().map(|(saga, _)| *saga)
    }
}

/// Accounts and positions are what their entries add up to, and each ledger's money is where it says.
#[must_use]
pub fn books_agree(nodes: &[Node]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut say = |text: String| {
        found.push(Violation { oracle: "each ledger's books agree", saga: None, text });
    };
    for node in nodes {
        let mut accounts: HashMap<u32, (i64, i64)> = HashMap::new();
        let mut nostros: HashMap<&str, (i64, i64)> = HashMap::new();
        for entry in &node.books.entries {
            let account = accounts.entry(entry.account).or_default();
            *account = (account.0 + entry.balance, account.1 + entry.pending);
            let nostro = nostros.entry(&entry.peer).or_default();
            *nostro = (nostro.0 + entry.sent, nostro.1 + entry.received);
        }
        for account in &node.books.accounts {
            let (balance, pending) = accounts.remove(&account.id).unwrap_or_default();
            if (account.balance, account.pending) != (node.opening_balance + balance, pending) {
                say(format!(
                    "{} account {}: {account:?}, its entries: {balance}, {pending}",
                    node.name, account.id
                ));
            }
        }
        for nostro in &node.books.nostros {
            let (sent, received) = nostros.remove(nostro.peer.as_str()).unwrap_or_default();
            if (nostro.sent, nostro.received) != (sent, received) {
                say(format!(
                    "{} towards {}: {nostro:?}, its entries: {sent}, {received}",
                    node.name, nostro.peer
                ));
            }
        }
        let lost_accounts = accounts.values().filter(|sums| **sums != (0, 0)).count();
        let lost_nostros = nostros.values().filter(|sums| **sums != (0, 0)).count();
        if lost_accounts + lost_nostros > 0 {
            say(format!(
                "{}: entries of {lost_accounts} accounts and {lost_nostros} peers that are not there",
                node.name
            ));
        }
        let nostro: i64 = node.books.nostros.iter().map(|nostro| nostro.sent - nostro.received).sum();
        let (held, opening) = (money(node), opening(node));
        if held + nostro != opening {
            say(format!("{}: {held} on accounts and {nostro} net sent, of {opening} at first", node.name));
        }
    }
    found
}

/// Balances and pending of all accounts.
#[must_use]
pub fn money(node: &Node) -> i64 {
    node.books.accounts.iter().map(|account| account.balance + account.pending).sum()
}

/// What all accounts held at first.
#[must_use]
pub fn opening(node: &Node) -> i64 {
    node.books.accounts.iter().map(|_| node.opening_balance).sum()
}

/// Nothing is pending below zero: neither on an account nor for a saga.
#[must_use]
pub fn pending_is_not_negative(nodes: &[Node]) -> Vec<Violation> {
    let oracle = "pending is not negative";
    let mut found = Vec::new();
    for node in nodes {
        for account in node.books.accounts.iter().filter(|account| account.pending < 0) {
            let text = format!("{} account {} has {} pending", node.name, account.id, account.pending);
            found.push(Violation { oracle, saga: None, text });
        }
    }
    for (saga, pending) in pending_of_sagas(nodes).into_iter().filter(|(_, pending)| *pending < 0) {
        found.push(Violation::of(oracle, saga, format!("{pending} is pending for it")));
    }
    found
}

fn pending_of_sagas(nodes: &[Node]) -> BTreeMap<&str, i64> {
    let mut sums = BTreeMap::new();
    for entry in nodes.iter().flat_map(|node| &node.books.entries) {
        *sums.entry(entry.saga.as_str()).or_default() += entry.pending;
    }
    sums
}

/// Nothing is held for a peer but by an intervention.
#[must_use]
pub fn nothing_unacknowledged(nodes: &[Node], cases: &BTreeMap<String, Case>) -> Vec<Violation> {
    let is_open = |saga: &str| cases.get(saga).is_some_and(Case::is_open);
    let held = pending_of_sagas(nodes).into_iter().filter(|(saga, pending)| *pending > 0 && !is_open(saga));
    held.map(|(saga, pending)| {
        Violation::of("nothing is left unacknowledged", saga, format!("{pending} is held for it"))
    })
    .collect()
}

impl Case {
    /// True if it waits for a person.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == SagaState::NeedsIntervention
    }

    /// Steps that are neither undone nor known to have had no effect.
    pub fn unsettled(&self) -> impl Iterator<Item = &Branch> {
        self.branches.iter().filter(|branch| match branch.state() {
            BranchState::Succeeded
            | BranchState::Running
            | BranchState::InDoubt
            | BranchState::Compensating
            | BranchState::Stuck => true,
            BranchState::Unspecified
            | BranchState::Pending
            | BranchState::Failed
            | BranchState::Compensated
            | BranchState::Skipped
            | BranchState::Resolved => false,
        })
    }

    /// The money that is exposed, by ledger: what its unsettled branches there may have moved. `debit` and
    /// `settle` move the same money.
    #[must_use]
    pub fn exposed(&self) -> BTreeMap<usize, i64> {
        let mut exposed: BTreeMap<usize, i64> = BTreeMap::new();
        let (mut payer, payer_ledger) = (0, self.payment.ledger_of("debit"));
        for branch in self.unsettled() {
            let money = self.payment.money_of(&branch.step);
            match branch.step.as_str() {
                "debit" | "settle" => payer = money,
                step => *exposed.entry(self.payment.ledger_of(step)).or_default() += money,
            }
        }
        if payer != 0 {
            *exposed.entry(payer_ledger).or_default() += payer;
        }
        exposed
    }
}

/// Each saga is all done, all undone, or an intervention that is open only where it says so.
#[must_use]
pub fn all_or_nothing(cases: &BTreeMap<String, Case>, marks: &Marks<'_>) -> Vec<Violation> {
    let oracle = "all done, all undone, or an intervention";
    let mut found = Vec::new();
    for (id, case) in cases {
        for step in STEPS {
            let mark = marks.mark(&case.payment, step);
            let branch = case.branches.iter().find(|branch| branch.step == step).map(Branch::state);
            let fits = match (case.state, branch) {
                (SagaState::Succeeded, _) => mark == Mark::Whole,
                (SagaState::RolledBack, _) => mark == Mark::None,
                (SagaState::NeedsIntervention, Some(state)) => match state {
                    BranchState::Succeeded => mark == Mark::Whole,
                    BranchState::Running
                    | BranchState::InDoubt
                    | BranchState::Compensating
                    | BranchState::Stuck => mark != Mark::Odd,
                    BranchState::Pending
                    | BranchState::Failed
                    | BranchState::Compensated
                    | BranchState::Skipped => mark == Mark::None,
                    // Nobody resolves anything here.
                    BranchState::Unspecified | BranchState::Resolved => false,
                },
                (SagaState::NeedsIntervention, None) => false,
                (SagaState::Unspecified | SagaState::Running | SagaState::RollingBack, _) => false,
            };
            if !fits {
                let (state, branch) = (case.state.as_str_name(), branch.map(|state| state.as_str_name()));
                let text =
                    format!("{state}; {step} ({}) has left in the books: {mark:?}", branch.unwrap_or("-"));
                found.push(Violation::of(oracle, id, text));
            }
        }
    }
    let unknown: HashSet<&str> = marks.sagas().filter(|saga| !cases.contains_key(*saga)).collect();
    for saga in unknown {
        found.push(Violation::of(oracle, saga, "it is in the books, and there is no such saga"));
    }
    found
}

/// An intervention has a branch that is stuck, and every branch that is stuck or in doubt is at a dead ledger.
#[must_use]
pub fn interventions_name_the_dead(nodes: &[Node], cases: &BTreeMap<String, Case>) -> Vec<Violation> {
    let dead: HashSet<&str> =
        nodes.iter().filter(|node| node.is_dead).map(|node| node.name.as_str()).collect();
    let mut found = Vec::new();
    for (id, case) in cases.iter().filter(|(_, case)| case.is_open()) {
        let mut say = |text: String| {
            found.push(Violation::of("an intervention names the dead ledger", id, text));
        };
        let mut stuck = 0;
        for branch in &case.branches {
            let is_stuck = branch.state() == BranchState::Stuck;
            stuck += usize::from(is_stuck);
            let is_lost = is_stuck || matches!(branch.state(), BranchState::InDoubt | BranchState::Running);
            if is_lost && !dead.contains(branch.participant.as_str()) {
                let state = branch.state().as_str_name();
                say(format!("{} is {state} at {}, which is not dead", branch.step, branch.participant));
            }
        }
        if stuck == 0 {
            say("none of its branches is stuck".to_owned());
        }
    }
    found
}

/// What the open interventions have left in the books, from what their payments say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explained {
    /// By how much the sum over all accounts may differ.
    pub money: i64,
    /// What one ledger has sent and the other not received, by both names.
    pub flows: BTreeMap<(String, String), i64>,
}

/// Adds it up.
#[must_use]
pub fn explained(cases: &BTreeMap<String, Case>, marks: &Marks<'_>) -> Explained {
    let mut explained = Explained::default();
    for case in cases.values().filter(|case| case.is_open()) {
        for step in STEPS.iter().filter(|step| marks.mark(&case.payment, step) == Mark::Whole) {
            let own = ledger_name(case.payment.ledger_of(step));
            for entry in case.payment.entries_of(step) {
                explained.money += entry.balance + entry.pending;
                let (there, back) = ((own.clone(), entry.peer.clone()), (entry.peer, own.clone()));
                *explained.flows.entry(there).or_default() += entry.sent;
                *explained.flows.entry(back).or_default() -= entry.received;
            }
        }
    }
    explained.flows.retain(|_, amount| *amount != 0);
    explained
}

/// The sum over all accounts is what it was, but for what the interventions explain.
#[must_use]
pub fn conservation(nodes: &[Node], explained: &Explained) -> Vec<Violation> {
    let (before, after): (i64, i64) = (nodes.iter().map(opening).sum(), nodes.iter().map(money).sum());
    if after - before == explained.money {
        return Vec::new();
    }
    let text = format!("{before} before, {after} after; interventions explain {}", explained.money);
    vec![Violation { oracle: "the money adds up", saga: None, text }]
}

/// What each ledger has sent to each other is what that has received, but for what the interventions explain.
#[must_use]
pub fn net_flow(nodes: &[Node], explained: &Explained) -> Vec<Violation> {
    let mut found = Vec::new();
    for (from, to) in nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to))) {
        let open = flow(from, to);
        let explained =
            explained.flows.get(&(from.name.clone(), to.name.clone())).copied().unwrap_or_default();
        if open != explained {
            let text = format!("{} to {}: {open} open, {explained} explained", from.name, to.name);
            found.push(Violation { oracle: "net flow between ledgers is zero", saga: None, text });
        }
    }
    found
}

/// What one has sent and the other has not received.
#[must_use]
pub fn flow(from: &Node, to: &Node) -> i64 {
    let of = |node: &Node, peer: &str| node.books.nostros.iter().find(|nostro| nostro.peer == peer).cloned();
    let sent = of(from, &to.name).map_or(0, |nostro| nostro.sent);
    sent - of(to, &from.name).map_or(0, |nostro| nostro.received)
}

/// Work under one key has been committed once, for a saga that is there; all four branches of one that succeeded.
#[must_use]
pub fn executed_once(nodes: &[Node], cases: &BTreeMap<String, Case>) -> Vec<Violation> {
    let oracle = "one key is executed once";
    let mut found = Vec::new();
    let mut keys: HashMap<&str, i64> = HashMap::new();
    for execution in nodes.iter().flat_map(|node| &node.books.executions) {
        *keys.entry(&execution.key).or_default() += execution.count;
    }
    for (key, count) in &keys {
        let mut parts = key.split('/');
        let (saga, step, phase) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if *count != 1 {
            found.push(Violation::of(oracle, saga, format!("{key} was executed {count} times")));
        }
        if !cases.contains_key(saga) {
            found.push(Violation::of(oracle, saga, format!("{key} was executed, and there is no such saga")));
        }
        if let (Some(step), Some("compensation")) = (step, phase)
            && !keys.contains_key(format!("{saga}/{step}/action").as_str())
        {
            found.push(Violation::of(oracle, saga, format!("{key} was executed, and its action never was")));
        }
    }
    for (id, _) in cases.iter().filter(|(_, case)| case.state == SagaState::Succeeded) {
        for step in STEPS {
            if !keys.contains_key(format!("{id}/{step}/action").as_str()) {
                found.push(Violation::of(oracle, id, format!("it succeeded and {step} was never executed")));
            }
        }
    }
    found
}
