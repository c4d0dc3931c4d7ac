//! The second act: the coordinator is killed in the middle of a batch, started again on the same store, and
//! nothing is lost.
//!
//! # Invariants
//! - What a client would do is what happens here: a start without an answer is sent again under the same id,
//!   and nothing else is done.

use super::DemoError;
use super::act_transfers::differs;
use super::calls::Coordinator;
use super::files::{Expectation, Transfer};
use super::screen::{Ink, money};
use super::stage::{COORDINATOR, Ended, LEDGERS, Stage};
use backstop_proto::v1;
use backstop_proto::v1::SagaState;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Transfers in the batch.
const BATCH: usize = 20;
/// The coordinator is killed when this many starts have been answered.
const ANSWERED_AT_KILL: usize = BATCH / 2;
/// How long the batch may take to end after the coordinator is back. A lease lasts five seconds.
const BATCH_END_MAX: Duration = Duration::from_secs(60);
/// How often a saga that has not ended is asked for.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Smallest amount of the batch, in minor units; each transfer has one more.
const FIRST_AMOUNT_MINOR: i64 = 101;

pub(super) async fn play(stage: &mut Stage) -> Result<(), DemoError> {
    stage
        .screen
        .heading(&format!("kill -9, in the middle of {BATCH} transfers"))?;
    let Some(batch) = batch(stage).await? else {
        stage
            .screen
            .line("  no account has enough left for the batch, so this act is left out")?;
        return Ok(());
    };
    let sum: i64 = batch.iter().map(|transfer| transfer.amount_minor).sum();
    let currency = &batch[0].currency;
    let what = format!(
        "  {BATCH} transfers of {} {currency} in all start at once; ",
        money(sum, currency)
    );
    stage
        .screen
        .line(&(what + "ledger_a is made slow, so that they are"))?;
    stage
        .screen
        .line("  still on their way when the coordinator is killed.")?;

    let answered = start_and_kill(stage, &batch).await?;
    let began = Instant::now();
    stage.cast.start_again(COORDINATOR).await?;
    let line = format!(
        "  started again on the same store and port, ready after {} ms",
        began.elapsed().as_millis()
    );
    stage.screen.line(&line)?;

    let coordinator = stage.coordinator()?;
    let mut was_there = 0_usize;
    let mut unanswered = 0_usize;
    for transfer in batch.iter().filter(|transfer| !answered.contains(&transfer.id)) {
        unanswered += 1;
        let response = coordinator.start(transfer, None).await?;
        was_there += usize::from(!response.created);
    }
    stage.screen.line(&format!(
        "  the {unanswered} starts without an answer are sent again under the same ids; {was_there} of them had been accepted"
    ))?;
    finish(stage, &coordinator, batch, began).await
}

/// Equal transfers from the richest account that pays to all that are paid in its currency; `None` if it
/// does not hold enough.
async fn batch(stage: &Stage) -> Result<Option<Vec<Transfer>>, DemoError> {
    let balances = stage.balances().await?;
    let kept_by = |ledger: &str, account: &str| {
        stage
            .accounts
            .iter()
            .any(|known| known.ledger == ledger && known.account == account)
    };
    let payers = balances
        .iter()
        .filter(|account| kept_by(LEDGERS[0], &account.account));
    let Some(payer) = payers.max_by_key(|account| account.available_minor) else {
        return Ok(None);
    };
    let payees: Vec<&str> = balances
        .iter()
        .filter(|account| kept_by(LEDGERS[1], &account.account) && account.currency == payer.currency)
        .map(|account| account.account.as_str())
        .collect();
    let amounts: Vec<i64> = (FIRST_AMOUNT_MINOR..).take(BATCH).collect();
    if payees.is_empty() || payer.available_minor < amounts.iter().sum() {
        return Ok(None);
    }
    let transfer = |(index, amount_minor): (usize, i64)| Transfer {
        id: format!("batch-{:02}", index + 1),
        from: payer.account.clone(),
        to: payees[index % payees.len()].to_owned(),
        amount_minor,
        currency: payer.currency.clone(),
        reference: "chaos:debit:slow".to_owned(),
        note: "on its way when the coordinator was killed".to_owned(),
        down: None,
        expect: Expectation::Succeeded,
    };
    Ok(Some(amounts.into_iter().enumerate().map(transfer).collect()))
}

/// Starts all at once and kills the coordinator when half of them are answered. Those that were.
async fn start_and_kill(stage: &mut Stage, batch: &[Transfer]) -> Result<Vec<String>, DemoError> {
    let coordinator = stage.coordinator()?;
    let mut starts = JoinSet::new();
    for transfer in batch.iter().cloned() {
        let coordinator = coordinator.clone();
        starts.spawn(async move { coordinator.start(&transfer, None).await.map(|_| transfer.id) });
    }
    let mut answered = Vec::new();
    let mut killed = None;
    while let Some(start) = starts.join_next().await {
        match start {
            Ok(Ok(id)) => answered.push(id),
            // After the kill that is what happens to a client; before it, the demo is broken.
            Ok(Err(error)) if killed.is_none() => return Err(error),
            Ok(Err(_)) => {}
            Err(error) => return Err(DemoError::Output(std::io::Error::other(error))),
        }
        if killed.is_none() && answered.len() >= ANSWERED_AT_KILL {
            killed = Some(stage.cast.kill(COORDINATOR).await?);
        }
    }
    let pid = killed.unwrap_or_default();
    let text = format!(
        "  coordinator killed (kill -9 {pid}); {} starts had been answered",
        answered.len()
    );
    let text = stage.screen.ink(Ink::Undone, &text);
    stage.screen.line(&text)?;
    Ok(answered)
}

/// Waits until the whole batch has ended, and tells how.
async fn finish(
    stage: &mut Stage,
    coordinator: &Coordinator,
    batch: Vec<Transfer>,
    began: Instant,
) -> Result<(), DemoError> {
    let deadline = began + BATCH_END_MAX;
    let (mut taken_over, mut succeeded) = (0_usize, 0_usize);
    for transfer in batch {
        let saga = ended(coordinator, &transfer.id, deadline).await?;
        // The first tenure is the one that started it.
        taken_over += usize::from(saga.epoch > 1);
        succeeded += usize::from(saga.state() == SagaState::Succeeded);
        if let Some(fault) = differs(&transfer, &saga) {
            let line = stage.screen.ink(Ink::Bad, &format!("  not as expected: {fault}"));
            stage.screen.line(&line)?;
            stage.faults.push(fault);
        }
        stage.ended.push(Ended {
            state: saga.state(),
            transfer,
        });
    }
    let seconds = began.elapsed().as_secs_f64();
    stage.screen.line(&format!(
        "  {taken_over} were in flight and were taken over; {succeeded} of {BATCH} succeeded, the last {seconds:.1} s after the kill"
    ))?;
    Ok(())
}

/// The saga once it is over or waits for a person; as it stands when the time is up.
async fn ended(coordinator: &Coordinator, id: &str, deadline: Instant) -> Result<v1::Saga, DemoError> {
    loop {
        let saga = coordinator.get(id).await?;
        let is_under_way = match saga.state() {
            SagaState::Running | SagaState::RollingBack | SagaState::Unspecified => true,
            SagaState::Succeeded | SagaState::RolledBack | SagaState::NeedsIntervention => false,
        };
        if !is_under_way || Instant::now() >= deadline {
            return Ok(saga);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
