//! A ledger books each call exactly once, whatever order, repetition or crash its calls come in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use backstop_demo::bank::ledger as pb;
use backstop_demo::bank::ledger::ledger_service_server::LedgerService;
use backstop_demo::ledger::signals::Listener;
use backstop_proto::participant::v1 as backstop;
use backstop_proto::participant::v1::rollback_listener_service_server::RollbackListenerService;
use common::{Bench, keyed};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

#[tokio::test]
async fn peer_18_the_same_key_gives_the_same_answer_even_when_the_books_have_changed() {
    let bench = Bench::new().await;
    bench.account("ann", 100).await;
    let done = bench.debit("k-done", "t-1", "ann", 60).await.unwrap();
    let refused = bench.debit("k-refused", "t-2", "ann", 60).await.unwrap_err();
    let unknown = bench.debit("k-unknown", "t-3", "bob", 60).await.unwrap_err();
    // Now both refusals would pass, and the debit would not.
    bench.reverse_debit("k-back", "t-1").await.unwrap();
    bench.account("bob", 100).await;
    let bench = bench.reopened().await;
    assert_eq!(bench.debit("k-done", "t-1", "ann", 60).await.unwrap(), done);
    for (key, transfer, account, first) in
        [("k-refused", "t-2", "ann", &refused), ("k-unknown", "t-3", "bob", &unknown)]
    {
        let again = bench.debit(key, transfer, account, 60).await.unwrap_err();
        assert_eq!(
            (again.code(), again.message(), again.details()),
            (first.code(), first.message(), first.details())
        );
    }
    assert_eq!(bench.balance("ann").await, (100, 0));
    assert_eq!(bench.balance("bob").await, (100, 0));
}

#[tokio::test]
async fn insufficient_funds_name_the_field_and_change_nothing() {
    let bench = Bench::new().await;
    bench.account("ann", 100).await;
    let refused = bench.debit("k-1", "t-1", "ann", 101).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let details = refused.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["effect"].as_str()), ("INSUFFICIENT_FUNDS", "none"));
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "amount_minor");
    assert_eq!(details.localized_message().unwrap().locale, "en");
    assert_eq!(bench.balance("ann").await, (100, 0));
    bench.debit("k-2", "t-2", "ann", 100).await.unwrap();
    assert_eq!(bench.balance("ann").await, (0, 0));
}

#[tokio::test]
async fn a_key_that_comes_with_another_request_or_for_another_method_is_refused() {
    let bench = Bench::new().await;
    bench.account("ann", 100).await;
    bench.debit("k-1", "t-1", "ann", 10).await.unwrap();
    assert_eq!(reason(&bench.debit("k-1", "t-1", "ann", 11).await.unwrap_err()), "KEY_REUSED");
    assert_eq!(reason(&bench.reverse_debit("k-1", "t-1").await.unwrap_err()), "KEY_REUSED");
    assert_eq!(bench.balance("ann").await, (90, 0));
}

#[tokio::test]
async fn twenty_attempts_at_once_with_one_key_book_once_and_all_hear_the_same() {
    let bench = Bench::new().await;
    bench.account("ann", 100).await;
    let bench = std::sync::Arc::new(bench);
    let attempts: Vec<_> = (0..20)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move { bench.debit("k-1", "t-1", "ann", 30).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for attempt in attempts {
        answers.push(attempt.await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(bench.balance("ann").await, (70, 0));
}

#[tokio::test]
async fn peer_18_a_booking_that_comes_after_its_reversal_is_refused_without_effect() {
    let bench = Bench::new().await;
    bench.account("ann", 100).await;
    assert!(!bench.reverse_debit("k-back", "t-1").await.unwrap().reversed);
    assert!(!bench.reverse_credit("c-back", "t-1").await.unwrap().reversed);
    let bench = bench.reopened().await;
    let late = [
        bench.debit("k-1", "t-1", "ann", 10).await.unwrap_err(),
        bench.credit("c-1", "t-1", "ann", 10).await.unwrap_err(),
    ];
    for refused in late {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(reason(&refused), "TRANSFER_REVERSED");
        assert_eq!(refused.get_error_details().error_info().unwrap().metadata["effect"], "none");
    }
    assert_eq!(bench.balance("ann").await, (100, 0));
}

#[tokio::test]
async fn a_reversal_puts_back_once_however_often_and_under_whatever_key_it_comes() {
    let bench = Bench::new().await;
    bench.account("ann", 100).await;
    bench.debit("k-1", "t-1", "ann", 40).await.unwrap();
    bench.credit("c-1", "t-1", "ann", 7).await.unwrap();
    assert_eq!(bench.balance("ann").await, (60, 7));
    let first = bench.reverse_debit("k-back", "t-1").await.unwrap();
    assert!(first.reversed);
    assert_eq!(bench.reverse_debit("k-back", "t-1").await.unwrap(), first);
    assert!(!bench.reverse_debit("k-back-2", "t-1").await.unwrap().reversed);
    assert!(bench.reverse_credit("c-back", "t-1").await.unwrap().reversed);
    assert!(!bench.reverse_credit("c-back-2", "t-1").await.unwrap().reversed);
    assert_eq!(bench.balance("ann").await, (100, 0));
}

#[tokio::test]
async fn pending_money_becomes_available_once_and_cannot_be_taken_back_then() {
    let bench = Bench::new().await;
    bench.account("bob", 0).await;
    let credit = bench.credit("c-1", "t-1", "bob", 50).await.unwrap();
    assert_eq!(bench.balance("bob").await, (0, 50));
    assert_eq!(reason(&bench.debit("k-1", "t-9", "bob", 1).await.unwrap_err()), "INSUFFICIENT_FUNDS");
    assert_eq!(reason(&bench.settle("s-0", "t-1", "l-999").await.unwrap_err()), "OTHER_ENTRY");
    bench.settle("s-1", "t-1", &credit.entry_id).await.unwrap();
    assert_eq!(bench.balance("bob").await, (50, 0));
    assert_eq!(reason(&bench.settle("s-2", "t-1", &credit.entry_id).await.unwrap_err()), "TRANSFER_SETTLED");
    assert_eq!(reason(&bench.reverse_credit("c-back", "t-1").await.unwrap_err()), "TRANSFER_SETTLED");
    assert_eq!(reason(&bench.settle("s-3", "t-2", "l-1").await.unwrap_err()), "NOT_CREDITED");
    assert_eq!(bench.balance("bob").await, (50, 0));
}

#[tokio::test]
async fn a_transfer_has_one_debit_and_one_credit_whatever_the_keys() {
    let bench = Bench::new().await;
    bench.account("ann", 100).await;
    bench.debit("k-1", "t-1", "ann", 10).await.unwrap();
    bench.credit("c-1", "t-1", "ann", 10).await.unwrap();
    assert_eq!(reason(&bench.debit("k-2", "t-1", "ann", 10).await.unwrap_err()), "TRANSFER_BOOKED");
    assert_eq!(reason(&bench.credit("c-2", "t-1", "ann", 10).await.unwrap_err()), "TRANSFER_BOOKED");
    assert_eq!(bench.balance("ann").await, (90, 10));
}

#[tokio::test]
async fn a_call_without_a_key_and_a_request_that_cannot_be_right_are_told_so() {
    let bench = Bench::new().await;
    let request = pb::ReverseDebitRequest { transfer_id: "t".into(), reason: String::new() };
    let keyless = bench.ledger.reverse_debit(Request::new(request)).await.unwrap_err();
    assert_eq!(keyless.code(), Code::InvalidArgument);
    assert!(keyless.message().contains("idempotency-key"));
    let shapeless = bench.ledger.debit(keyed("k", pb::DebitRequest::default())).await.unwrap_err();
    let details = shapeless.get_error_details();
    let fields: Vec<_> =
        details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["transfer_id", "account", "amount_minor", "currency"]);
}

#[tokio::test]
async fn chaos_answers_internal_with_and_without_having_booked_and_a_plain_ledger_ignores_it() {
    let bench = Bench::new().await;
    bench.account("bob", 0).await;
    let credit = |transfer: &str, reference: &str| pb::CreditRequest {
        transfer_id: transfer.into(),
        account: "bob".into(),
        amount_minor: 5,
        currency: "EUR".into(),
        reference: reference.into(),
    };
    let send = async |key: &str, request| bench.ledger.credit(keyed(key, request)).await;
    let failed = send("c-1", credit("t-1", "chaos:credit:internal")).await.unwrap_err();
    assert_eq!((failed.code(), bench.balance("bob").await), (Code::Internal, (0, 0)));
    let lost = send("c-2", credit("t-2", "chaos:credit:lost-answer")).await.unwrap_err();
    assert_eq!((lost.code(), bench.balance("bob").await), (Code::Internal, (0, 5)));
    send("c-3", credit("t-3", "chaos:debit:internal")).await.unwrap();
    let nonsense = send("c-4", credit("t-4", "chaos:credit:maybe")).await.unwrap_err();
    assert_eq!(nonsense.code(), Code::InvalidArgument);
    let plain = backstop_demo::ledger::Ledger::new(bench.books.clone(), false);
    plain.credit(keyed("c-5", credit("t-5", "chaos:credit:internal"))).await.unwrap();
    assert_eq!(bench.balance("bob").await, (0, 15));
}

#[tokio::test]
async fn an_entry_is_found_by_the_key_that_made_it() {
    let bench = Bench::new().await;
    bench.account("ann", 100).await;
    let debit = bench.debit("k-1", "t-1", "ann", 40).await.unwrap();
    let find = async |key: &str| {
        bench.ledger.get_entry(Request::new(pb::GetEntryRequest { idempotency_key: key.into() })).await
    };
    let entry = find("k-1").await.unwrap().into_inner().entry.unwrap();
    assert_eq!(entry.id, debit.entry_id);
    assert_eq!((entry.available_delta_minor, entry.kind()), (-40, pb::entry::Kind::Debit));
    assert_eq!(find("k-2").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn opening_an_account_again_answers_it_and_opening_it_otherwise_is_refused() {
    let bench = Bench::new().await;
    let open = async |currency: &str, opening_minor| {
        let request =
            pb::OpenAccountRequest { account: "ann".into(), currency: currency.into(), opening_minor };
        bench.ledger.open_account(Request::new(request)).await.map(|answer| answer.into_inner().created)
    };
    assert!(open("EUR", 100).await.unwrap());
    assert!(!open("EUR", 100).await.unwrap());
    assert_eq!(reason(&open("CHF", 100).await.unwrap_err()), "OPENED_OTHERWISE");
    assert_eq!(reason(&open("EUR", 101).await.unwrap_err()), "OPENED_OTHERWISE");
    assert_eq!(bench.balance("ann").await, (100, 0));
}

#[tokio::test]
async fn a_rollback_signal_is_kept_once_with_its_cause() {
    let bench = Bench::new().await;
    let (listener, writer) = Listener::start(bench.books.clone());
    let failure = backstop_proto::v1::Failure { fin_code: "FIN-40005".into(), ..Default::default() };
    let signal = backstop::OnRollbackRequest {
        saga_id: "s-1".into(),
        cause: Some(backstop_proto::v1::RollbackCause {
            kind: backstop_proto::v1::rollback_cause::Kind::StepFailed as i32,
            step: "credit".into(),
            failure: Some(failure),
            ..Default::default()
        }),
        branches: vec![backstop::on_rollback_request::Branch {
            step: "debit".into(),
            state: "SUCCEEDED".into(),
            ..Default::default()
        }],
        clock: 7,
        ..Default::default()
    };
    for _ in 0..2 {
        listener.on_rollback(Request::new(signal.clone())).await.unwrap();
    }
    drop(listener);
    writer.await.unwrap();
    let kept = bench.books.rollback_signals().await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].cause, "STEP_FAILED credit FIN-40005");
    assert_eq!(kept[0].branches, "debit=SUCCEEDED");
}
