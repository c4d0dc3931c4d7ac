//! What the journal costs before it gets to the database: events and heads as rows, and back.

use crate::bank;
use crate::turns::{Teller, Told};
use crate::{Broken, Entry, Run, require};
use backstop_core::SagaState;
use backstop_engine::ports::store::{Append, Head};
use backstop_sql::bench::{Rows, encode};
use std::hint::black_box;

pub(crate) const CASES: &[Entry] = &[
    ("codec/encode_three", "the saga of three branches as rows: two appends, five events", || {
        encoding(&appends(None, SagaState::Succeeded)?, 7)
    }),
    ("codec/encode_failing", "the one that is rolled back: three appends or four, eight events", || {
        encoding(&appends(Some(2), SagaState::RolledBack)?, 11)
    }),
    ("codec/decode_three", "the rows of the first, read as at a takeover", || {
        decoding(&appends(None, SagaState::Succeeded)?)
    }),
    ("codec/decode_failing", "the rows of the second", || {
        decoding(&appends(Some(2), SagaState::RolledBack)?)
    }),
];

/// The appends of a whole saga, in order.
fn appends(refuses: Option<usize>, end: SagaState) -> Result<Vec<Append>, Broken> {
    let Told { saga, written } = Teller::new(&bank::three(), refuses)?.tell()?;
    require(saga.state == end, "the saga ends otherwise")?;
    let append = |written: crate::turns::Written| {
        let saga = written.saga;
        let failure = saga.cause.as_ref().and_then(|cause| cause.failure.as_ref());
        let head = Head {
            saga: saga.id.clone(),
            definition: saga.definition.reference.clone(),
            state: saga.state,
            seq: saga.seq,
            epoch: saga.epoch,
            owner: (!saga.state.is_at_rest()).then(|| saga.started.coordinator.clone()),
            wake_at: None,
            fin_code: failure.map(|failure| failure.fin_code),
            labels: saga.started.labels.clone(),
            fingerprint: [7; 32],
            created_at: saga.started_at,
            updated_at: saga.updated_at,
            ended_at: saga.ended_at,
            quarantine: None,
            retired: false,
        };
        Append { saga: saga.id.clone(), expected: written.expected, events: written.events, head }
    };
    Ok(written.into_iter().map(append).collect())
}

fn encoding(appends: &[Append], rows: usize) -> Result<Run, Broken> {
    // No batch has two appends of one saga.
    let batches: Vec<Vec<Append>> = appends.iter().map(|append| vec![append.clone()]).collect();
    let mut made = 0;
    for batch in &batches {
        made += encode(batch).map_err(Broken::by)?;
    }
    require(made == rows, &format!("there are {made} rows"))?;
    Ok(Box::new(move || {
        for batch in black_box(&batches) {
            let _ = black_box(encode(batch));
        }
    }))
}

fn decoding(appends: &[Append]) -> Result<Run, Broken> {
    let rows: Vec<Rows> = appends
        .iter()
        .map(|append| Rows::of(std::slice::from_ref(append)).map_err(Broken::by))
        .collect::<Result<_, _>>()?;
    for (rows, append) in rows.iter().zip(appends) {
        let (heads, events) = rows.read().map_err(Broken::by)?;
        require(heads == [append.head.clone()] && events == append.events, "the rows are read otherwise")?;
    }
    Ok(Box::new(move || {
        for rows in black_box(&rows) {
            let _ = black_box(rows.read());
        }
    }))
}
