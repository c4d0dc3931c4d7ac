//! What was ever stored is read for ever.
//!
//! `tests/fixtures/events-format-1.json` holds a row for every kind of event, as format 1 wrote it. It is
//! never written again: a change of the format gets a file of its own beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::decode::decode;
use super::event::{EventRow, encode};
use backstop_core::Event;
use backstop_engine::ports::store::StoreError;
use backstop_engine::store_contract::sample::of_every_kind;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;

const FORMAT_1: &str = include_str!("../../tests/fixtures/events-format-1.json");

/// A row in the fixture; the payload in hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    saga: String,
    seq: i64,
    kind: String,
    step: Option<String>,
    phase: Option<String>,
    attempt: Option<i64>,
    status: Option<String>,
    evidence: Option<String>,
    effect: Option<String>,
    fin_code: Option<String>,
    tier: Option<String>,
    clock: i64,
    epoch: i64,
    at: i64,
    elapsed_us: Option<i64>,
    message: Option<String>,
    format: i16,
    payload: String,
}

impl Stored {
    fn row(self) -> EventRow<'static> {
        let digits = self.payload.as_bytes().chunks(2);
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        EventRow {
            saga: Cow::Owned(self.saga),
            seq: self.seq,
            kind: Cow::Owned(self.kind),
            step: self.step.map(Cow::Owned),
            phase: self.phase.map(Cow::Owned),
            attempt: self.attempt,
            status: self.status.map(Cow::Owned),
            evidence: self.evidence.map(Cow::Owned),
            effect: self.effect.map(Cow::Owned),
            fin_code: self.fin_code.map(Cow::Owned),
            tier: self.tier.map(Cow::Owned),
            clock: self.clock,
            epoch: self.epoch,
            at: self.at,
            elapsed_us: self.elapsed_us,
            message: self.message.map(Cow::Owned),
            format: self.format,
            payload: digits.map(byte).collect(),
        }
    }

    fn of(row: &EventRow<'_>) -> Self {
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            saga: row.saga.to_string(),
            seq: row.seq,
            kind: row.kind.to_string(),
            step: text(&row.step),
            phase: text(&row.phase),
            attempt: row.attempt,
            status: text(&row.status),
            evidence: text(&row.evidence),
            effect: text(&row.effect),
            fin_code: text(&row.fin_code),
            tier: text(&row.tier),
            clock: row.clock,
            epoch: row.epoch,
            at: row.at,
            elapsed_us: row.elapsed_us,
            message: text(&row.message),
            format: row.format,
            payload: row.payload.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

fn stored() -> Vec<EventRow<'static>> {
    let rows: Vec<Stored> = serde_json::from_str(FORMAT_1).unwrap();
    rows.into_iter().map(Stored::row).collect()
}

#[test]
fn format_1_is_read_for_ever() {
    let read: Vec<Event> = stored().into_iter().map(|row| decode(row).unwrap()).collect();
    assert_eq!(read, of_every_kind("golden").events);
}

#[test]
fn today_format_1_is_written_as_it_always_was() {
    let append = of_every_kind("golden");
    let rows: Vec<EventRow<'_>> =
        append.events.iter().map(|event| encode("golden", append.head.epoch, event).unwrap()).collect();
    let written: Vec<Stored> = rows.iter().map(Stored::of).collect();
    let lines: Vec<String> = written.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    assert!(text == FORMAT_1, "the format has changed; it would have to be\n{text}");
}

#[test]
fn the_fixture_has_every_kind_of_event() {
    let kinds: BTreeSet<String> = stored().iter().map(|row| row.kind.to_string()).collect();
    assert_eq!(kinds.len(), 16, "as many as `EventKind` has: {kinds:?}");
}

#[test]
fn every_event_comes_back_as_it_was() {
    let append = of_every_kind("round-trip");
    for event in &append.events {
        let row = encode("round-trip", append.head.epoch, event).unwrap();
        assert_eq!(decode(row).unwrap(), *event);
    }
}

#[test]
fn peer_22_a_payload_or_column_that_is_missing_is_an_error_and_never_a_default() {
    let bare = ["released", "intervention_opened", "succeeded", "rolled_back", "compensation_succeeded"];
    for row in stored() {
        let place = format!("event {} of saga golden: ", row.seq);
        let refused = |row: EventRow<'static>, what: &str| {
            let kind = row.kind.to_string();
            let Err(StoreError::Unreadable(text)) = decode(row) else {
                panic!("{kind} without {what} is read")
            };
            assert!(text.starts_with(&place), "{text}");
        };
        if !bare.contains(&row.kind.as_ref()) {
            refused(EventRow { payload: Vec::new(), ..row.clone() }, "payload");
        }
        refused(EventRow { format: 0, ..row.clone() }, "format");
        refused(EventRow { kind: Cow::Borrowed("of_tomorrow"), ..row.clone() }, "kind");
        if row.phase.is_some() {
            refused(EventRow { phase: None, ..row.clone() }, "phase");
            refused(EventRow { step: None, ..row.clone() }, "step");
            refused(EventRow { attempt: None, ..row.clone() }, "attempt");
            refused(EventRow { elapsed_us: None, ..row.clone() }, "elapsed");
        }
        if row.status.is_some() {
            refused(EventRow { status: None, ..row.clone() }, "status");
            refused(EventRow { evidence: None, ..row.clone() }, "evidence");
            refused(EventRow { effect: None, ..row.clone() }, "effect");
            refused(EventRow { fin_code: None, ..row.clone() }, "fin_code");
            refused(EventRow { tier: None, ..row.clone() }, "tier");
            refused(EventRow { message: None, ..row.clone() }, "message");
        }
        if !row.payload.is_empty() {
            let mut torn = row.payload.clone();
            torn.pop();
            let torn = EventRow { payload: torn, ..row.clone() };
            assert!(
                decode(torn.clone()).is_err() || torn.kind == "query_answered",
                "{} cut short",
                torn.kind
            );
        }
    }
}

#[test]
fn a_status_that_contradicts_its_evidence_is_an_error() {
    let row = stored().into_iter().find(|row| row.evidence.as_deref() == Some("deadline")).unwrap();
    let refused = decode(EventRow { status: Some(Cow::Borrowed("INTERNAL")), ..row });
    assert!(matches!(refused, Err(StoreError::Unreadable(_))), "{refused:?}");
}
