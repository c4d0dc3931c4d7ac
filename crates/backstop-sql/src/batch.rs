//! A batch of appends, checked and encoded; and whether rows that are there already are its own.
//!
//! # Not here
//! How it is written: `postgres::journal`, `sqlite::journal`.

use crate::codec::event::{self, EventRow};
use crate::codec::head::{self, HeadRow};
use backstop_core::{SagaId, Seq};
use backstop_engine::ports::store::{Append, StoreError, StoreResult};
use std::collections::{BTreeMap, BTreeSet};

/// Why a batch cannot be written by anybody. A fault of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchFault {
    /// Two appends would have to be ordered, and a batch has no order.
    #[error("two appends of saga {0} in one batch")]
    SagaTwice(SagaId),
    /// There is nothing to write.
    #[error("an append of saga {0} has no events")]
    Empty(SagaId),
    /// The journal would have a gap.
    #[error("event {} of saga {saga} should be {}", .found.0, .expected.0)]
    OutOfOrder {
        /// Whose.
        saga: SagaId,
        /// The seq that it has.
        found: Seq,
        /// The seq that it should have.
        expected: Seq,
    },
    /// The head row is not the one after these events.
    #[error("the head of saga {0} does not go with its last event")]
    WrongHead(SagaId),
}

impl From<BatchFault> for StoreError {
    fn from(fault: BatchFault) -> Self {
        Self::NotApplied(fault.to_string())
    }
}

/// One append, encoded.
#[derive(Debug)]
pub(crate) struct EncodedAppend<'a> {
    /// Seq before its first event.
    pub(crate) expected: i64,
    pub(crate) head: HeadRow<'a>,
    pub(crate) events: Vec<EventRow<'a>>,
}

/// Checks and encodes a batch.
///
/// # Errors
/// `NotApplied` if the batch makes no sense or holds a number that is too large.
pub(crate) fn encode(batch: &[Append]) -> StoreResult<Vec<EncodedAppend<'_>>> {
    check(batch)?;
    batch.iter().map(encode_append).collect()
}

fn encode_append(append: &Append) -> StoreResult<EncodedAppend<'_>> {
    // Rows are large, and a `collect` that may fail moves them each time it has too little room.
    let mut events = Vec::with_capacity(append.events.len());
    for event in &append.events {
        events.push(event::encode(append.saga.as_str(), append.head.epoch, event)?);
    }
    Ok(EncodedAppend {
        expected: crate::codec::to_i64("seq", append.expected.0)?,
        head: head::encode(&append.head)?,
        events,
    })
}

fn check(batch: &[Append]) -> Result<(), BatchFault> {
    let mut sagas = BTreeSet::new();
    for append in batch {
        if !sagas.insert(&append.saga) {
            return Err(BatchFault::SagaTwice(append.saga.clone()));
        }
        let Some(last) = append.events.last() else {
            return Err(BatchFault::Empty(append.saga.clone()));
        };
        let mut expected = append.expected;
        for event in &append.events {
            expected = expected.next();
            if event.seq != expected {
                return Err(BatchFault::OutOfOrder { saga: append.saga.clone(), found: event.seq, expected });
            }
        }
        if append.head.saga != append.saga || append.head.seq != last.seq {
            return Err(BatchFault::WrongHead(append.saga.clone()));
        }
    }
    Ok(())
}

/// Rows that are in the journal, by saga and seq.
pub(crate) type StoredRows = BTreeMap<(String, i64), EventRow<'static>>;

impl EncodedAppend<'_> {
    /// True if exactly this append is in the journal: it was written by an earlier, unanswered try.
    pub(crate) fn is_among(&self, stored: &StoredRows) -> bool {
        self.events.iter().all(|event| {
            stored.get(&(event.saga.clone().into_owned(), event.seq)).is_some_and(|there| there == event)
        })
    }
}
