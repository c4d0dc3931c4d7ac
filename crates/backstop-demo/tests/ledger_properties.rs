//! Whatever sequence of calls comes, with whatever keys, balances are what the answers say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::Bench;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const OPENING: i64 = 100;
const ACCOUNTS: [&str; 2] = ["ann", "bob"];

#[derive(Debug, Clone, Copy)]
enum Call {
    Debit { transfer: u8, account: usize, minor: i64 },
    Credit { transfer: u8, account: usize, minor: i64 },
    ReverseDebit { transfer: u8 },
    ReverseCredit { transfer: u8 },
    Settle { transfer: u8 },
}

fn call() -> impl Strategy<Value = Call> {
    // Few transfers and amounts near the balances, so that calls meet each other.
    let money = (0..4_u8, 0..2_usize, 1..120_i64);
    prop_oneof![
        money.clone().prop_map(|(transfer, account, minor)| Call::Debit { transfer, account, minor }),
        money.prop_map(|(transfer, account, minor)| Call::Credit { transfer, account, minor }),
        (0..4_u8).prop_map(|transfer| Call::ReverseDebit { transfer }),
        (0..4_u8).prop_map(|transfer| Call::ReverseCredit { transfer }),
        (0..4_u8).prop_map(|transfer| Call::Settle { transfer }),
    ]
}

/// What the answers say: (available, pending) by account, and where each transfer's halves are.
#[derive(Default)]
struct Model {
    moved: BTreeMap<&'static str, (i64, i64)>,
    debits: BTreeMap<u8, (usize, i64)>,
    credits: BTreeMap<u8, (usize, i64, String)>,
    keys_heard: BTreeSet<String>,
}

impl Model {
    fn shift(&mut self, account: usize, available: i64, pending: i64) {
        let at = self.moved.entry(ACCOUNTS[account]).or_default();
        *at = (at.0 + available, at.1 + pending);
    }
}

async fn play(bench: &Bench, model: &mut Model, key: u8, call: Call) {
    // The phase is in the key, as Backstop has it; the number lets the same call come under several.
    let entry_of = |transfer: u8, model: &Model| {
        model.credits.get(&transfer).map_or_else(|| "l-0".to_owned(), |(_, _, entry)| entry.clone())
    };
    let key = format!("{key}/{call:?}").replace(' ', "");
    let first = model.keys_heard.insert(key.clone());
    match call {
        Call::Debit { transfer, account, minor } => {
            let answer = bench.debit(&key, &transfer.to_string(), ACCOUNTS[account], minor).await;
            if first && answer.is_ok() {
                model.shift(account, -minor, 0);
                assert!(model.debits.insert(transfer, (account, minor)).is_none(), "two debits");
            }
        }
        Call::Credit { transfer, account, minor } => {
            let answer = bench.credit(&key, &transfer.to_string(), ACCOUNTS[account], minor).await;
            if let (true, Ok(answer)) = (first, answer) {
                model.shift(account, 0, minor);
                let half = (account, minor, answer.entry_id);
                assert!(model.credits.insert(transfer, half).is_none(), "two credits");
            }
        }
        Call::ReverseDebit { transfer } => {
            let answer = bench.reverse_debit(&key, &transfer.to_string()).await.unwrap();
            if first && answer.reversed {
                let (account, minor) = model.debits[&transfer];
                model.shift(account, minor, 0);
            }
        }
        Call::ReverseCredit { transfer } => {
            let answer = bench.reverse_credit(&key, &transfer.to_string()).await;
            if first && answer.is_ok_and(|answer| answer.reversed) {
                let (account, minor, _) = model.credits[&transfer].clone();
                model.shift(account, 0, -minor);
            }
        }
        Call::Settle { transfer } => {
            let entry = entry_of(transfer, model);
            let answer = bench.settle(&key, &transfer.to_string(), &entry).await;
            if first && answer.is_ok() {
                let (account, minor, _) = model.credits[&transfer].clone();
                model.shift(account, minor, -minor);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_keeps_the_sum(calls in proptest::collection::vec((0..3_u8, call()), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new().await;
            for account in ACCOUNTS {
                bench.account(account, OPENING).await;
            }
            let mut model = Model::default();
            for (key, call) in calls {
                play(&bench, &mut model, key, call).await;
            }
            let bench = bench.reopened().await;
            let entries = bench.books.entry_sums().await.unwrap();
            for (account, entry) in ACCOUNTS.into_iter().zip(entries) {
                let (available, pending) = bench.balance(account).await;
                let moved = model.moved.get(account).copied().unwrap_or_default();
                prop_assert_eq!((available - OPENING, pending), moved, "{} against the answers", account);
                prop_assert_eq!((account.to_owned(), available, pending), entry, "against the entries");
                prop_assert!(available >= 0 && pending >= 0);
            }
            Ok(())
        })?;
    }
}
