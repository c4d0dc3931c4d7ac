//! A ledger as a real process: what it answered survives `kill -9`, and a full disk costs nothing but time.

// Helpers of tests are not seen as tests by clippy.
#![allow(clippy::unwrap_used)]

use backstop_range::ledger::{Common, Ledger};
use backstop_range::process::eventually;
use backstop_range::wire::ledger_client::LedgerClient;
use backstop_range::wire::{Booked, Booking, Leg};
use std::path::Path;
use std::time::Duration;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

async fn ledger(folder: &Path) -> Ledger {
    let common = Common {
        program: env!("CARGO_BIN_EXE_backstop-range").into(),
        folder: folder.to_owned(),
        accounts: 5,
        opening_balance: 1_000,
        moods: None,
    };
    Ledger::start_new("ledger_0", &common).await.unwrap()
}

async fn debit(ledger: &Ledger, saga: &str, amount: i64) -> Result<Booked, Status> {
    let (_, endpoint) = ledger.endpoint();
    let channel = Endpoint::from_shared(endpoint).unwrap().connect().await;
    let mut client = LedgerClient::new(channel.map_err(|error| Status::unavailable(error.to_string()))?);
    let legs = vec![Leg { peer: "ledger_1".to_owned(), amount }];
    let mut request = Request::new(Booking { account: 1, legs });
    for (key, value) in [
        ("backstop-saga-id", saga.to_owned()),
        ("backstop-definition", "payment@1".to_owned()),
        ("backstop-step", "debit".to_owned()),
        ("backstop-phase", "action".to_owned()),
        ("backstop-attempt", "1".to_owned()),
        ("backstop-clock", "1".to_owned()),
        ("backstop-epoch", "1".to_owned()),
        ("idempotency-key", format!("{saga}/debit/action")),
    ] {
        request.metadata_mut().insert(key, value.parse().unwrap());
    }
    Ok(client.debit(request).await?.into_inner())
}

/// Starts it again, and waits until its wire takes calls.
async fn start_again(ledger: &Ledger) {
    ledger.start().await.unwrap();
    let (_, endpoint) = ledger.endpoint();
    let endpoint = Endpoint::from_shared(endpoint).unwrap();
    let look = || async { Ok(endpoint.connect().await.ok()) };
    eventually("the wire", Duration::from_secs(10), look).await.unwrap();
}

fn booked(balance: i64, pending: i64) -> Booked {
    Booked { balance, pending }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill_and_is_answered_again() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path()).await;
    assert_eq!(debit(&ledger, "one", 100).await.unwrap(), booked(900, 100));
    ledger.kill().await.unwrap();
    debit(&ledger, "two", 1).await.unwrap_err();
    let on_disk = ledger.read_file().await.unwrap();
    start_again(&ledger).await;
    assert_eq!(ledger.snapshot().await.unwrap(), on_disk);
    assert_eq!(debit(&ledger, "one", 100).await.unwrap(), booked(900, 100));
    assert_eq!(debit(&ledger, "two", 50).await.unwrap(), booked(850, 150));
    let books = ledger.snapshot().await.unwrap();
    assert!(books.executions.iter().all(|execution| execution.count == 1));
    let duplicates: Vec<_> =
        ledger.calls().iter().map(|call| (call.saga.clone(), call.is_duplicate)).collect();
    let expected = [("one", false), ("one", true), ("two", false)];
    assert_eq!(duplicates, expected.map(|(saga, is_duplicate)| (saga.to_owned(), is_duplicate)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_nothing_is_lost_or_half_done() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path()).await;
    debit(&ledger, "before", 100).await.unwrap();
    let before = ledger.snapshot().await.unwrap();
    ledger.fill_disk(true).await.unwrap();
    for _ in 0..3 {
        let refused = debit(&ledger, "during", 100).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
    assert_eq!(ledger.snapshot().await.unwrap(), before, "it still reads, and nothing was booked");
    assert_eq!(ledger.read_file().await.unwrap(), before);
    ledger.fill_disk(false).await.unwrap();
    let healed = debit(&ledger, "during", 100).await;
    assert!(healed.is_ok(), "{healed:?}\n{}", ledger.last_lines(20).join("\n"));
    assert_eq!(healed.unwrap(), booked(800, 200));
    // Dying with a full disk is no worse than dying.
    ledger.fill_disk(true).await.unwrap();
    debit(&ledger, "later", 100).await.unwrap_err();
    ledger.kill().await.unwrap();
    start_again(&ledger).await;
    assert_eq!(debit(&ledger, "later", 100).await.unwrap(), booked(700, 300));
}
