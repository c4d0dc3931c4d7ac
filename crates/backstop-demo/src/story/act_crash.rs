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
use tokio::task::{JoinError, JoinSet};

/// Transfers in the batch.
const BATCH: usize = 20;
/// So many starts are answered before the others are sent, into the kill.
const ANSWERED_BEFORE_KILL: usize = BATCH / 2;
/// How long the others have to leave this process before the kill.
const HEAD_START: Duration = Duration::from_millis(1);
/// How long the batch may take to end after the coordinator is back. A lease lasts five seconds.
const BATCH_END_MAX: Duration = Duration::from_secs(60);
/// How often a saga that has not ended is asked for.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Smallest amount of the batch, in minor units; each transfer has one more.
const FIRST_AMOUNT_MINOR: i64 = 101;

pub(super) async fn play(stage: &mut Stage) -> Result<(), DemoError> {
    stage.screen.heading(&format!("kill -9, in the middle of {BATCH} transfers"))?;
    let Some(batch) = batch(stage).await? else {
        stage.screen.line("  no account has enough left for the batch, so this act is left out")?;
        return Ok(());
    };
    let sum: i64 = batch.iter().map(|transfer| transfer.amount_minor).sum();
    let currency = &batch[0].currency;
    stage.screen.line(&format!(
        "  {} {currency} together; ledger_a is made slow, so that they are on their way at the kill",
        money(sum, currency),
    ))?;
    let answered = start_and_kill(stage, &batch).await?;
    let began = Instant::now();
    stage.cast.start_again(COORDINATOR).await?;
    let line =
        format!("  started again on the same store and port, ready after {} ms", began.elapsed().as_millis());
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
        "  started anew under the same ids: the {unanswered} without an answer; {was_there} had been accepted"
    ))?;
    finish(stage, &coordinator, batch, began).await
}

/// Equal transfers from the richest account that pays to all that are paid in its currency; `None` if it
/// does not hold enough.
async fn batch(stage: &Stage) -> Result<Option<Vec<Transfer>>, DemoError> {
    let balances = stage.balances().await?;
    let kept_by = |ledger: &str, account: &str| {
        stage.accounts.iter().any(|known| known.ledger == ledger && known.account == account)
    };
    let payers = balances.iter().filter(|account| kept_by(LEDGERS[0], &account.account));
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

/// Starts one half and hears that it is accepted, sends the other half, and kills the coordinator before it
/// can answer them all. Those that were answered.
async fn start_and_kill(stage: &mut Stage, batch: &[Transfer]) -> Result<Vec<String>, DemoError> {
    let coordinator = stage.coordinator()?;
    let (first, second) = batch.split_at(ANSWERED_BEFORE_KILL);
    let mut answered = Vec::new();
    let mut starts = all_at_once(&coordinator, first);
    while let Some(start) = starts.join_next().await {
        answered.push(joined(start)??);
    }
    let mut starts = all_at_once(&coordinator, second);
    tokio::time::sleep(HEAD_START).await;
    let pid = stage.cast.kill(COORDINATOR).await?;
    while let Some(start) = starts.join_next().await {
        // No answer: the client cannot know whether its saga was accepted.
        answered.extend(joined(start)?);
    }
    let text =
        format!("  coordinator killed (kill -9 {pid}); {} of {BATCH} starts were answered", answered.len());
    let text = stage.screen.ink(Ink::Undone, &text);
    stage.screen.line(&text)?;
    Ok(answered)
}

type Start = Result<String, DemoError>;

fn all_at_once(coordinator: &Coordinator, transfers: &[Transfer]) -> JoinSet<Start> {
    let mut starts = JoinSet::new();
    for transfer in transfers.iter().cloned() {
        let coordinator = coordinator.clone();
        starts.spawn(async move { coordinator.start(&transfer, None).await.map(|_| transfer.id) });
    }
    starts
}

fn joined(start: Result<Start, JoinError>) -> Result<Start, DemoError> {
    start.map_err(|error| DemoError::Output(std::io::Error::other(error)))
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
        stage.ended.push(Ended { state: saga.state(), transfer });
    }
    let seconds = began.elapsed().as_secs_f64();
    stage.screen.line(&format!(
        "  in flight and taken over: {taken_over}; succeeded: {succeeded} of {BATCH}, the last {seconds:.1} s after the kill"
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
