//! The first act: the transfers of the file, one after another, each held against its own expectation.

use super::DemoError;
use super::calls::Coordinator;
use super::files::{Expectation, Transfer};
use super::screen::{Ink, money, one_line};
use super::stage::{Ended, Stage};
use backstop_proto::v1;
use backstop_proto::v1::SagaState;
use backstop_proto::v1::event::Type;
use backstop_proto::v1::failure::Evidence;
use std::time::Duration;

/// How long a saga may take to end.
const SAGA_END_MAX: Duration = Duration::from_secs(60);
/// Failed attempts of a RETRIABLE step after which its service comes back: enough to see it tried again.
const RETRIES_SHOWN: u32 = 2;

pub(super) async fn play(stage: &mut Stage) -> Result<(), DemoError> {
    stage.screen.heading("The transfers")?;
    let mut has_shown_success = false;
    for (index, transfer) in stage.transfers.clone().into_iter().enumerate() {
        if index > 0 {
            stage.screen.line("")?;
        }
        announce(stage, &transfer)?;
        let saga = match &transfer.down {
            None => run(&stage.coordinator()?, &transfer).await?,
            Some(service) => run_without(stage, &transfer, service).await?,
        };
        show_end(stage, &saga)?;
        let plain_success = saga.state() == SagaState::Succeeded && transfer.down.is_none();
        if !plain_success || !has_shown_success {
            has_shown_success |= plain_success;
            for line in &saga.transcript {
                let line = stage.screen.ink(Ink::Dim, &format!("            {}", one_line(line)));
                stage.screen.line(&line)?;
            }
        }
        if let Some(fault) = differs(&transfer, &saga) {
            let line = stage.screen.ink(Ink::Bad, &format!("            not as expected: {fault}"));
            stage.screen.line(&line)?;
            stage.faults.push(fault);
        }
        stage.ended.push(Ended { state: saga.state(), transfer });
    }
    Ok(())
}

fn announce(stage: &mut Stage, transfer: &Transfer) -> Result<(), DemoError> {
    let amount = format!("{} {}", money(transfer.amount_minor, &transfer.currency), transfer.currency);
    let id = stage.screen.ink(Ink::Bold, &format!("{:<9}", one_line(&transfer.id)));
    let line =
        format!("  {id} {:<24} → {:<22} {amount:>14}", one_line(&transfer.from), one_line(&transfer.to));
    stage.screen.line(&line)?;
    if !transfer.note.is_empty() {
        stage.screen.line(&format!("            {}", one_line(&transfer.note)))?;
    }
    Ok(())
}

/// Starts a transfer, waits for its end, and asks for the whole saga.
async fn run(coordinator: &Coordinator, transfer: &Transfer) -> Result<v1::Saga, DemoError> {
    coordinator.start(transfer, Some(SAGA_END_MAX)).await?;
    coordinator.get(&transfer.id).await
}

/// Runs a transfer while a service is down: killed before the start, back once the saga has decided. It
/// stays away until then, so that nothing but the rules decides how the transfer ends.
async fn run_without(stage: &mut Stage, transfer: &Transfer, service: &str) -> Result<v1::Saga, DemoError> {
    let pid = stage.cast.kill(service).await?;
    stage.screen.line(&format!("            {service} killed (kill -9 {pid})"))?;
    let coordinator = stage.coordinator()?;
    coordinator.start(transfer, None).await?;
    let seen = watched_until(&coordinator, transfer, |event| {
        let is_retriable = stage
            .definition
            .steps
            .iter()
            .any(|step| step.name == event.step && step.kind() == v1::StepKind::Retriable);
        event.r#type() == Type::RollbackDecided
            || (event.r#type() == Type::ActionFailed && is_retriable && event.attempt >= RETRIES_SHOWN)
    })
    .await?;
    stage.cast.start_again(service).await?;
    let back = back_when(seen.as_ref());
    stage.screen.line(&format!("            {service} started again {back}"))?;
    run(&coordinator, transfer).await
}

/// Why a service came back when it did.
fn back_when(seen: Option<&v1::Event>) -> String {
    match seen {
        Some(event) if event.r#type() == Type::RollbackDecided => "once the rollback was decided".to_owned(),
        Some(event) => format!("after {} attempts of {}", event.attempt, one_line(&event.step)),
        None => "after the saga was over".to_owned(),
    }
}

/// Watches a saga until an event comes; `None` if it ended without.
async fn watched_until(
    coordinator: &Coordinator,
    transfer: &Transfer,
    is_it: impl Fn(&v1::Event) -> bool,
) -> Result<Option<v1::Event>, DemoError> {
    let what = "WatchSaga";
    let mut stream = coordinator.watch(&transfer.id).await?;
    let watching = async {
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if let Some(event) = message.event.filter(|event| is_it(event)) {
                        return Ok(Some(event));
                    }
                }
                Ok(None) => return Ok(None),
                Err(status) => {
                    return Err(DemoError::Call { what, status: Box::new(status) });
                }
            }
        }
    };
    match tokio::time::timeout(SAGA_END_MAX, watching).await {
        Ok(found) => found,
        Err(_) => Err(DemoError::Late { what: "a saga's decision", seconds: SAGA_END_MAX.as_secs() }),
    }
}

fn show_end(stage: &mut Stage, saga: &v1::Saga) -> Result<(), DemoError> {
    let took = took(saga);
    match saga.state() {
        SagaState::Succeeded => {
            let end = stage.screen.ink(Ink::Good, "succeeded");
            stage.screen.line(&format!("            {end} in {took}"))?;
        }
        SagaState::RolledBack => {
            let end = stage.screen.ink(Ink::Undone, "rolled back");
            stage.screen.line(&format!("            {end} in {took}"))?;
        }
        SagaState::Unspecified
        | SagaState::Running
        | SagaState::RollingBack
        | SagaState::NeedsIntervention => {
            let end = stage.screen.ink(Ink::Bad, saga.state().as_str_name());
            stage.screen.line(&format!("            {end}"))?;
        }
    }
    for line in cause_lines(saga) {
        stage.screen.line(&format!("            {line}"))?;
    }
    Ok(())
}

/// Why a saga rolled back, as its caller is told.
fn cause_lines(saga: &v1::Saga) -> Vec<String> {
    let Some(cause) = &saga.cause else {
        return Vec::new();
    };
    let Some(failure) = &cause.failure else {
        return vec![format!("cause: {}", one_line(&cause.reason))];
    };
    let said = match failure.evidence() {
        Evidence::ParticipantSaid => format!("answered {}", failure.grpc_code),
        // Not the service's word but what Backstop saw.
        seen => format!("{}, counted as {}", evidence_in_words(seen), failure.grpc_code),
    };
    let step = if cause.step.is_empty() { "saga" } else { cause.step.as_str() };
    let tier = failure.tier();
    let (code, http) = (&failure.fin_code, failure.http_status);
    let mut lines = vec![
        format!("cause: {}: {said}", one_line(step)),
        format!("{code}, HTTP {http}, tier {}: {}", tier_name(tier), tier_meaning(tier)),
    ];
    for violation in &failure.field_violations {
        lines.push(format!("field {}: {}", one_line(&violation.field), one_line(&violation.description)));
    }
    if let Some(text) = &failure.localized_message {
        lines.push(format!("for the customer: \"{}\"", one_line(&text.message)));
    }
    let told: Vec<&str> = saga
        .signals
        .iter()
        .filter(|signal| signal.state() == v1::signal_report::State::Delivered)
        .map(|signal| signal.participant.as_str())
        .collect();
    if !told.is_empty() {
        lines.push(format!("rollback signal delivered to: {}", told.join(", ")));
    }
    lines
}

/// `NO_CONNECTION` as `no connection`.
fn evidence_in_words(evidence: Evidence) -> String {
    let name = evidence.as_str_name().trim_start_matches("EVIDENCE_");
    name.replace('_', " ").to_lowercase()
}

fn tier_name(tier: v1::Tier) -> &'static str {
    tier.as_str_name().trim_start_matches("TIER_")
}

fn tier_meaning(tier: v1::Tier) -> &'static str {
    match tier {
        v1::Tier::Unspecified => "",
        v1::Tier::L1 => "a person is paged",
        v1::Tier::L2 => "tried again, then undone",
        v1::Tier::L3 => "the caller is told what to mend",
    }
}

fn took(saga: &v1::Saga) -> String {
    let micros = |time: &Option<prost_types::Timestamp>| {
        time.as_ref().map(|time| i128::from(time.seconds) * 1_000_000 + i128::from(time.nanos) / 1_000)
    };
    match (micros(&saga.create_time), micros(&saga.end_time)) {
        (Some(from), Some(to)) => format!("{} ms", (to - from) / 1_000),
        (_, _) => "some time".to_owned(),
    }
}

/// How a saga's end differs from what the file says, if it does.
pub(super) fn differs(transfer: &Transfer, saga: &v1::Saga) -> Option<String> {
    let found = match (saga.state(), &saga.cause) {
        (SagaState::RolledBack, Some(cause)) => {
            let failure = cause.failure.clone().unwrap_or_default();
            Some(Expectation::RolledBack {
                step: cause.step.clone(),
                tier: failure.tier(),
                fin_code: failure.fin_code,
            })
        }
        (SagaState::Succeeded, _) => Some(Expectation::Succeeded),
        (_, _) => None,
    };
    if found.as_ref() == Some(&transfer.expect) {
        return None;
    }
    let found = found.as_ref().map_or_else(|| saga.state().as_str_name().to_owned(), in_words);
    Some(format!("transfer {} is {found}, and was to be {}", transfer.id, in_words(&transfer.expect)))
}

fn in_words(end: &Expectation) -> String {
    match end {
        Expectation::Succeeded => "SUCCEEDED".to_owned(),
        Expectation::RolledBack { step, fin_code, tier } => {
            format!("ROLLED_BACK ({step} {fin_code} {})", tier_name(*tier))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_proto::v1::RollbackCause;

    fn transfer(expect: Expectation) -> Transfer {
        Transfer {
            id: "p-1".into(),
            from: "a".into(),
            to: "b".into(),
            amount_minor: 1,
            currency: "EUR".into(),
            reference: String::new(),
            note: String::new(),
            down: None,
            expect,
        }
    }

    fn rolled_back(step: &str, fin_code: &str, tier: v1::Tier) -> v1::Saga {
        let failure = v1::Failure { fin_code: fin_code.into(), tier: tier as i32, ..Default::default() };
        let cause = RollbackCause { step: step.into(), failure: Some(failure), ..Default::default() };
        v1::Saga { state: SagaState::RolledBack as i32, cause: Some(cause), ..Default::default() }
    }

    #[test]
    fn an_end_is_held_against_every_word_of_the_expectation() {
        let refused = transfer(Expectation::RolledBack {
            step: "debit".into(),
            fin_code: "FIN-40005".into(),
            tier: v1::Tier::L3,
        });
        assert_eq!(differs(&refused, &rolled_back("debit", "FIN-40005", v1::Tier::L3)), None);
        for other in [
            rolled_back("credit", "FIN-40005", v1::Tier::L3),
            rolled_back("debit", "FIN-50001", v1::Tier::L3),
            rolled_back("debit", "FIN-40005", v1::Tier::L1),
            v1::Saga { state: SagaState::Succeeded as i32, ..Default::default() },
            v1::Saga { state: SagaState::NeedsIntervention as i32, ..Default::default() },
        ] {
            assert!(differs(&refused, &other).is_some(), "{other:?}");
        }
        let fine = transfer(Expectation::Succeeded);
        let said = differs(&fine, &rolled_back("debit", "FIN-40005", v1::Tier::L3));
        let expected = "transfer p-1 is ROLLED_BACK (debit FIN-40005 L3), and was to be SUCCEEDED";
        assert_eq!(said.as_deref(), Some(expected));
        let running = v1::Saga { state: SagaState::Running as i32, ..Default::default() };
        assert!(differs(&fine, &running).is_some());
    }
}
