//! Rows that somebody wrote who should not have: every column of an event and of a head, and the JSON of definitions.
//! Nothing may panic, and what is read is what would be written: no row becomes another event in silence.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::decode;
use super::event::{self, EventRow};
use super::head::{self, HeadRow};
use super::{definition, text};
use backstop_core::Epoch;
use backstop_engine::ports::store::StoreError;
use backstop_fuzz::{Kind, Target};
use std::borrow::Cow;

fn target(name: &'static str) -> Target {
    const WORDS: &[&str] = &[
        "started",
        "adopted",
        "action_failed",
        "query_answered",
        "rollback_decided",
        "branch_resolved",
        "action",
        "compensation",
        "query",
        "in_doubt",
        "none",
        "L1",
        "FIN-40005",
        "INTERNAL",
        "UNAVAILABLE",
        "participant_said",
        "deadline",
        "RUNNING",
        "ROLLED_BACK",
        "null",
        "-",
        "\u{1a}",
        "\u{1a}0",
        "\\u0000",
        "-1",
    ];
    Target::new(name, env!("CARGO_MANIFEST_DIR"), Kind::Text).words(WORDS)
}

/// The lines of an input: each a column, `-` for null.
fn columns(input: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(input).split('\n').map(str::to_owned).collect()
}

struct Columns(std::vec::IntoIter<String>);

impl Columns {
    fn text(&mut self) -> String {
        self.0.next().unwrap_or_default()
    }
    fn text_or_null(&mut self) -> Option<String> {
        Some(self.text()).filter(|text| text != "-")
    }
    fn number(&mut self) -> i64 {
        self.text().parse().unwrap_or(i64::MIN)
    }
    fn number_or_null(&mut self) -> Option<i64> {
        self.text_or_null().map(|text| text.parse().unwrap_or(i64::MAX))
    }
    /// Hexadecimal digits; what is none counts as itself.
    fn bytes(&mut self) -> Vec<u8> {
        let text = self.text();
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| {
                std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok()).unwrap_or(pair[0])
            })
            .collect()
    }
}

/// A refusal says which row, and is one of the two that put a saga aside.
fn is_told(error: &StoreError, saga: &str) {
    match error {
        StoreError::Unreadable(text) | StoreError::Newer(text) => {
            assert!(text.contains(saga) && text.len() > saga.len())
        }
        other => panic!("not a refusal to read: {other:?}"),
    }
}

#[test]
fn journal_row() {
    target("journal_row").run(3_000, |input| {
        let mut columns = Columns(columns(input).into_iter());
        let mut word = || columns.text_or_null().map(Cow::Owned);
        let (kind, step, phase) = (word().unwrap_or_default(), word(), word());
        let (status, evidence, effect, fin_code, tier, message) =
            (word(), word(), word(), word(), word(), word());
        let row = EventRow {
            saga: Cow::Borrowed("pay/7"),
            kind,
            step,
            phase,
            status,
            evidence,
            effect,
            fin_code,
            tier,
            message,
            seq: columns.number(),
            attempt: columns.number_or_null(),
            clock: columns.number(),
            epoch: columns.number(),
            at: columns.number(),
            elapsed_us: columns.number_or_null(),
            format: i16::try_from(columns.number()).unwrap_or(i16::MAX),
            payload: columns.bytes(),
        };
        match decode::decode(row.clone()) {
            Ok(read) => {
                let written = event::encode("pay/7", Epoch(0), &read).unwrap();
                // The columns that say what happened are those that were read.
                assert_eq!(
                    (&written.kind, written.seq, written.clock, written.at),
                    (&row.kind, row.seq, row.clock, row.at)
                );
                for (ours, theirs) in
                    [(&written.status, &row.status), (&written.tier, &row.tier), (&written.phase, &row.phase)]
                {
                    assert!(ours.is_none() || ours == theirs, "{ours:?} out of {theirs:?}");
                }
                assert_eq!(decode::decode(written.clone()).unwrap(), read, "{written:?}");
            }
            Err(error) => is_told(&error, "pay/7"),
        }
    });
}

#[test]
fn head_row() {
    target("head_row").run(3_000, |input| {
        let mut columns = Columns(columns(input).into_iter());
        let row = HeadRow {
            id: Cow::Owned(columns.text()),
            definition: Cow::Owned(columns.text()),
            state: Cow::Owned(columns.text()),
            owner: columns.text_or_null().map(Cow::Owned),
            fin_code: columns.text_or_null(),
            labels: columns.text(),
            quarantine: columns.text_or_null().map(Cow::Owned),
            revision: columns.number(),
            seq: columns.number(),
            epoch: columns.number(),
            wake_at: columns.number_or_null(),
            created_at: columns.number(),
            updated_at: columns.number(),
            ended_at: columns.number_or_null(),
            retired: columns.text() == "true",
            fingerprint: Cow::Owned(columns.bytes()),
        };
        match head::decode(row.clone()) {
            Ok(read) => {
                let written = head::encode(&read).unwrap();
                assert_eq!((&written.id, &written.state, written.seq), (&row.id, &row.state, row.seq));
                assert_eq!(head::decode(written.clone()).unwrap(), read);
                assert!(!written.labels.contains('\0'));
            }
            Err(error) => is_told(&error, &row.id),
        }
    });
}

#[test]
fn definition_spec() {
    target("definition_spec").run(600, |input| {
        let Ok(json) = std::str::from_utf8(input) else { return };
        if let Ok(read) = definition::decode(json) {
            assert_eq!(definition::decode(&definition::encode(&read).unwrap()).as_ref(), Ok(&read));
        }
        // Any text at all, and any column.
        let column = text::to_column(json);
        assert!(!column.contains('\0'));
        assert_eq!(text::from_column("message", &column).as_deref(), Ok(json));
        if let Ok(plain) = text::from_column("message", json) {
            assert!(json.contains('\0') || text::to_column(&plain) == json, "one way to write each text");
        }
    });
}
