//! After the last act: lines to paste into a terminal, for looking on.

use super::DemoError;
use super::calls::input;
use super::files::Transfer;
use super::screen::Ink;
use super::stage::{COORDINATOR, LEDGERS, Stage};
use backstop_proto::v1::SagaState;
use prost_types::value::Kind;

pub(super) fn show(stage: &mut Stage, exit: bool) -> Result<(), DemoError> {
    let coordinator = stage.address(COORDINATOR)?;
    let ledger = stage.address(LEDGERS[0])?;
    let undone = stage.ended.iter().rev().find(|ended| ended.state == SagaState::RolledBack);
    let undone = undone.or(stage.ended.first()).map(|ended| ended.transfer.id.clone()).unwrap_or_default();
    let saga = serde_json::json!({ "saga_id": undone }).to_string();
    let rolled_back = serde_json::json!({ "filter": "state = \"ROLLED_BACK\"" }).to_string();
    let mut commands = vec![
        ("what there is", grpcurl("", &format!("{coordinator} list"))),
        ("the manual", grpcurl("", &format!("{coordinator} describe backstop.v1.SagaService"))),
        (
            "a saga that was undone, with its transcript",
            grpcurl(&saga, &format!("{coordinator} backstop.v1.SagaService/GetSaga")),
        ),
        (
            "all that were undone",
            grpcurl(&rolled_back, &format!("{coordinator} backstop.v1.SagaService/ListSagas")),
        ),
        (
            "its events, one by one",
            grpcurl(&saga, &format!("{coordinator} backstop.v1.SagaService/WatchSaga")),
        ),
    ];
    if let Some(transfer) = stage.transfers.first() {
        let start = start(&stage.definition.name, transfer);
        commands.push((
            "another transfer",
            grpcurl(&start, &format!("{coordinator} backstop.v1.SagaService/StartSaga")),
        ));
    }
    commands.push((
        "the ledger's own word",
        grpcurl("", &format!("{ledger} bank.ledger.v1.LedgerService/GetBalances")),
    ));
    stage.screen.heading("Go on from here")?;
    for (what, command) in commands {
        let what = stage.screen.ink(Ink::Dim, &format!("  # {what}"));
        stage.screen.line(&what)?;
        stage.screen.line(&format!("  {command}"))?;
    }
    let end = if exit {
        "\nThe processes end now, as --exit asks; without it they stay up for these lines."
    } else {
        "\nEverything stays up until Ctrl-C."
    };
    stage.screen.line(end)?;
    Ok(())
}

/// A line that a shell takes as it stands.
fn grpcurl(data: &str, rest: &str) -> String {
    if data.is_empty() {
        return format!("grpcurl -plaintext {rest}");
    }
    format!("grpcurl -plaintext -d '{}' {rest}", data.replace('\'', "'\\''"))
}

fn start(definition: &str, like: &Transfer) -> String {
    let input: serde_json::Map<String, serde_json::Value> = input(like)
        .fields
        .into_iter()
        .filter_map(|(name, value)| match value.kind {
            Some(Kind::StringValue(text)) => Some((name, text.into())),
            Some(_) | None => None,
        })
        .collect();
    serde_json::json!({ "definition": definition, "input": input, "wait": "5s" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_the_data_cannot_end_the_argument() {
        let line = grpcurl("{\"note\":\"it's\"}", "127.0.0.1:1 a.B/C");
        assert_eq!(line, "grpcurl -plaintext -d '{\"note\":\"it'\\''s\"}' 127.0.0.1:1 a.B/C");
    }
}
