//! `kill -9` with a thousand sagas running, three times: all of them end, each branch bears one key and one
//! request, and the money adds up.

use crate::common::api::{message, shown, state};
use crate::common::script::Seen;
use crate::common::{Api, Backstop, Bank, Engine, Gate, Reply, definition, eventually, step};
use backstop_proto::v1;
use bytes::Bytes;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tonic::Code;

const SAGAS: usize = 1_000;
/// Every so many sagas have an account that is refused at the last step.
const REFUSED_EVERY: usize = 5;
/// StartSaga calls at a time.
const STARTS_AT_ONCE: usize = 64;

/// A bank's book: what each key did, and what was undone. One entry a key, as a real bank would keep it.
#[derive(Default)]
struct Book {
    /// Cents by `saga/step`.
    done: BTreeMap<String, i64>,
    undone: BTreeSet<String>,
    refused: BTreeSet<String>,
}

impl Book {
    /// Books a request once by its key, and answers every attempt of it alike.
    fn take(&mut self, seen: &Seen) -> Reply {
        let entry = format!("{}/{}", seen.saga(), seen.step());
        match seen.phase().as_str() {
            "action" if self.refused.contains(&entry) => {
                Reply::status(Code::InvalidArgument, "no such account")
            }
            // An action that comes after its own compensation must not take effect any more.
            "action" if self.undone.contains(&entry) => {
                Reply::status(Code::FailedPrecondition, "undone already")
            }
            "action" if seen.step() == "credit" && is_refused(&seen.saga()) => {
                self.refused.insert(entry);
                Reply::status(Code::InvalidArgument, "no such account")
            }
            "action" => {
                let sign = if seen.step() == "credit" { 1 } else { -1 };
                self.done.insert(entry, sign * seen.posting().cents);
                Reply::Done
            }
            _ => {
                self.undone.insert(entry);
                Reply::Done
            }
        }
    }

    fn sum(&self) -> i64 {
        self.done.iter().filter(|(entry, _)| !self.undone.contains(*entry)).map(|(_, cents)| cents).sum()
    }
}

fn number(saga: &str) -> usize {
    saga.trim_start_matches("saga-").parse().expect("saga-N")
}

fn is_refused(saga: &str) -> bool {
    number(saga).is_multiple_of(REFUSED_EVERY)
}

/// Where a saga is held up until the coordinator is killed: spread over all that can be in flight.
fn is_held_here(seen: &Seen) -> bool {
    let saga = seen.saga();
    let here = (seen.step(), seen.phase());
    match number(&saga) % 4 {
        0 => here == ("left".into(), "action".into()),
        1 => here == ("right".into(), "action".into()),
        2 => here == ("credit".into(), "action".into()),
        _ if is_refused(&saga) => here == ("left".into(), "compensation".into()),
        _ => here == ("credit".into(), "action".into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sagas_survive_three_kills_on_sqlite() {
    a_thousand_sagas_survive_three_kills(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sagas_survive_three_kills_on_postgres() {
    a_thousand_sagas_survive_three_kills(Engine::Postgres).await;
}

async fn a_thousand_sagas_survive_three_kills(engine: Engine) {
    let mut backstop = Backstop::start(engine).await;
    let api = backstop.api();
    let (left, right, credit) =
        (Bank::start("left").await, Bank::start("right").await, Bank::start("credit").await);
    let banks = [&left, &right, &credit];
    for bank in banks {
        api.enlist_as(bank, json!({ "deduplicatesByKey": true, "inFlightMax": 4 * SAGAS })).await;
    }
    // `left` and `right` debit concurrently; `credit` pays both out.
    let patient =
        |name: &str| step(name, name).with("/action/timeout", "120s").with("/compensation/timeout", "120s");
    let steps = [
        patient("left"),
        patient("right"),
        patient("credit").after(&["left", "right"]).with("/action/request/cents", "${input.both}"),
    ];
    api.define(definition("split", steps)).await;

    let book = Arc::new(Mutex::new(Book::default()));
    // Sagas of even and of odd numbers are held by different gates.
    let gates = [Gate::closed(), Gate::closed()];
    let held = Arc::new(AtomicUsize::new(0));
    for bank in banks {
        let (book, gates, held) = (Arc::clone(&book), gates.clone(), Arc::clone(&held));
        bank.answers(move |seen| {
            let reply = book.lock().unwrap().take(seen);
            if is_held_here(seen) {
                held.fetch_add(1, Ordering::SeqCst);
                return reply.after(&gates[number(&seen.saga()) % 2]);
            }
            reply
        });
    }
    start_all(&api).await;
    until_held(&held, SAGAS).await;

    // Killed with every saga in flight.
    backstop.kill();
    gates[0].open();
    backstop.start_again().await;
    until_ended(&backstop.api(), SAGAS / 2).await;
    // Each saga's own call has been sent again by now; those of odd numbers are held again.
    until_held(&held, 2 * SAGAS).await;
    // Killed with half of them over and the other half in flight.
    backstop.kill();
    gates[1].open();
    backstop.start_again().await;
    // Killed wherever they happen to be.
    until_ended(&backstop.api(), SAGAS * 3 / 4).await;
    backstop.kill();
    backstop.start_again().await;
    let api = backstop.api();
    until_ended(&api, SAGAS).await;

    // That the kills hit what they were to hit: each saga knows how often it changed hands.
    for saga in api.list("").await {
        let at_least = if number(&saga.id).is_multiple_of(2) { 2 } else { 3 };
        assert!(saga.epoch >= at_least, "{} was in flight at the kills: epoch {}", saga.id, saga.epoch);
    }
    let succeeded = api.list_count("state = \"SUCCEEDED\"").await;
    let rolled_back = api.list_count("state = \"ROLLED_BACK\"").await;
    let refused = SAGAS / REFUSED_EVERY;
    if (succeeded, rolled_back) != (SAGAS - refused, refused) {
        let odd = api
            .list("")
            .await
            .into_iter()
            .find(|saga| (state(saga) == "ROLLED_BACK") != is_refused(&saga.id));
        let odd = api.get(&odd.expect("one of them is").id).await.unwrap();
        panic!("{succeeded} succeeded, {rolled_back} were rolled back; for one\n{}", shown(&odd));
    }
    let book = book.lock().unwrap();
    assert_eq!(book.sum(), 0, "money was made or lost");
    assert_eq!(
        book.done.len(),
        2 * SAGAS + (SAGAS - refused),
        "each debit and each credit that was not refused"
    );
    assert_eq!(book.undone.len(), 2 * refused);
    for bank in banks {
        check_keys(&bank.seen());
    }
}

/// One key for each branch and phase, one request for each key.
fn check_keys(seen: &[Seen]) {
    type Call = (String, String, String);
    type Meaning = (String, String, Bytes);
    let mut by_call: BTreeMap<Call, BTreeSet<Meaning>> = BTreeMap::new();
    for seen in seen {
        let call = (seen.saga(), seen.step(), seen.phase());
        assert_eq!(seen.key(), format!("{}/{}/{}", call.0, call.1, call.2));
        by_call.entry(call).or_default().insert((seen.key(), seen.method.clone(), seen.bytes.clone()));
    }
    for (call, different) in by_call {
        assert_eq!(different.len(), 1, "{call:?} was called with different meanings: {different:?}");
    }
}

async fn start_all(api: &Api) {
    let permits = Arc::new(tokio::sync::Semaphore::new(STARTS_AT_ONCE));
    let starts: Vec<_> = (0..SAGAS)
        .map(|n| {
            let (api, permits) = (api.clone(), Arc::clone(&permits));
            tokio::spawn(async move {
                let _permit = permits.acquire_owned().await.unwrap();
                let json = json!({
                    "definition": "split", "sagaId": format!("saga-{n}"),
                    "input": { "account": format!("acc-{n}"), "cents": "100", "both": "200" },
                });
                api.start_with(json).await.unwrap_or_else(|status| panic!("saga-{n}: {status}"));
            })
        })
        .collect();
    for start in starts {
        start.await.unwrap();
    }
}

async fn until_held(held: &AtomicUsize, count: usize) {
    eventually(&format!("{count} calls to be held"), || async {
        let held = held.load(Ordering::SeqCst);
        if held >= count { Ok(()) } else { Err(format!("{held} are")) }
    })
    .await;
}

async fn until_ended(api: &Api, count: usize) {
    eventually(&format!("{count} sagas to end"), || async {
        let ended = api.list_count("(state = \"SUCCEEDED\" OR state = \"ROLLED_BACK\")").await;
        if ended >= count { Ok(()) } else { Err(format!("{ended} have ended")) }
    })
    .await;
}

impl Api {
    async fn list_count(&self, filter: &str) -> usize {
        self.list(filter).await.len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_start_is_there_after_a_kill_that_follows_at_once() {
    let mut backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist_as(&bank, json!({ "deduplicatesByKey": true })).await;
    api.define(definition("one", [step("debit", "bank")])).await;
    for round in 0..5 {
        let id = format!("round-{round}");
        backstop.api().start("one", &id).await;
        backstop.kill();
        backstop.start_again().await;
        let saga = backstop.api().rest(&id).await;
        assert_eq!(state(&saga), "SUCCEEDED", "{}", shown(&saga));
        let list: v1::ListParticipantsRequest = message("backstop.v1.ListParticipantsRequest", json!({}));
        let list = backstop.api().participants().list_participants(list).await.unwrap().into_inner();
        assert_eq!(list.participants.len(), 1, "registrations are as durable as sagas");
    }
    check_keys(&bank.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_sent_before_the_kill_is_undone_for_one_that_does_not_deduplicate() {
    let mut backstop = Backstop::start(Engine::Sqlite).await;
    let api = backstop.api();
    let bank = Bank::start("bank").await;
    api.enlist(&bank).await;
    api.define(definition("one", [step("debit", "bank").with("/action/timeout", "60s")])).await;
    bank.answers(|seen| if seen.phase() == "action" { Reply::Hang } else { Reply::Done });
    api.start("one", "lost").await;
    bank.until_seen("the action", |seen| seen.phase() == "action").await;
    backstop.kill();
    backstop.start_again().await;
    let saga = backstop.api().rest("lost").await;
    assert_eq!(state(&saga), "ROLLED_BACK", "{}", shown(&saga));
    let calls: Vec<_> = bank.seen().iter().map(Seen::short).collect();
    assert_eq!(calls, ["debit/action#1", "debit/compensation#1"], "never sent twice to such a participant");
    let epochs: Vec<_> = bank.seen().iter().map(|seen| seen.number("backstop-epoch")).collect();
    assert!(epochs[0] < epochs[1], "the epoch grows with each coordinator: {epochs:?}");
}
