//! The wall clock of a coordinator's machine may say what it likes: the database's clock decides.

use crate::common::api::{shown, state};
use crate::common::{Backstop, Bank, Engine, Gate, Reply, definition, eventually, step, tool};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::Code;

const SAGAS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn peer_12_clocks_hours_ahead_behind_jumping_and_in_another_zone_change_nothing() {
    let library = tool::faketime().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let jumping = folder.path().join("clock");
    std::fs::write(&jumping, "+0").unwrap();
    let file = jumping.display().to_string();
    // Only what programs call the time of day is set: no machine's monotonic clock jumps.
    let fake = [("LD_PRELOAD", library.as_str()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let with = |own: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        fake.iter().chain(own).map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    let first = Backstop::start(Engine::Postgres).await;
    let mut others = Vec::new();
    for own in [
        with(&[("FAKETIME", "+5h"), ("TZ", "Pacific/Auckland")]),
        with(&[("FAKETIME", "-7h"), ("TZ", "America/Anchorage")]),
        with(&[("FAKETIME_TIMESTAMP_FILE", &file), ("FAKETIME_NO_CACHE", "1")]),
    ] {
        let own: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
        others.push(first.beside(&own).await);
    }
    let api = first.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "deduplicatesByKey": true })).await;
    let [debit, credit] = ["debit", "credit"].map(|name| step(name, "bank").with("/action/timeout", "60s"));
    api.define(definition("pair", [debit, credit.after(&["debit"])])).await;
    let gate = Gate::closed();
    let (held, waiting) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&waiting);
    bank.answers(move |seen| match (seen.step().as_str(), seen.attempt()) {
        // A retry waits by the saga's clock: by a wrong one it would come at once, or hours later.
        ("debit", 1) => Reply::status(Code::Aborted, "lost a race"),
        ("credit", _) => {
            count.fetch_add(1, Ordering::SeqCst);
            Reply::Done.after(&held)
        }
        _ => Reply::Done,
    });
    let everyone: Vec<_> = std::iter::once(&first).chain(&others).map(Backstop::api).collect();
    for n in 0..SAGAS {
        everyone[n % everyone.len()].start("pair", &format!("saga-{n}")).await;
    }
    eventually("every saga to be in its second step", || async {
        let there = waiting.load(Ordering::SeqCst);
        if there == SAGAS { Ok(()) } else { Err(format!("{there} are")) }
    })
    .await;
    // With all of them in flight, a clock jumps forth and back by hours.
    for jump in ["+9h", "-9h", "+0"] {
        std::fs::write(&jumping, jump).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    }
    // And one is killed: takeover judges its lease by the database's clock.
    others[1].kill();
    gate.open();
    let mut epochs = BTreeMap::new();
    for n in 0..SAGAS {
        let saga = first.api().rest(&format!("saga-{n}")).await;
        assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
        *epochs.entry(saga.epoch).or_insert(0) += 1;
        let killed = n % everyone.len() == 2;
        assert_eq!(saga.epoch, if killed { 2 } else { 1 }, "nobody is robbed who lives: {}", shown(&saga));
        let calls = bank.seen_of(&saga.id).len();
        assert!(calls == 3 || (killed && calls <= 4), "nothing runs twice: {calls} calls\n{}", shown(&saga));
    }
    assert_eq!(epochs.len(), 2, "the kill hit sagas in flight: {epochs:?}");
    // That the clocks were wrong at all: their own logs bear the times that they believed in.
    let hours = |log: &str| {
        let stamp = log.lines().find_map(|line| line.split_once('T').map(|(_, time)| time.to_owned()));
        stamp.and_then(|time| time.get(..2).and_then(|hour| hour.parse::<i32>().ok()))
    };
    let (here, there) = (hours(&first.log()), hours(&others[0].log()));
    assert_ne!(here, there, "the fake clock is in force");
}
