//! What the journal's rows cost to make and to read, for `backstop-bench` alone.
//!
//! Built with the feature `bench`, which nothing that ships asks for.
//!
//! # Not here
//! The cases and their counts: `backstop-bench`. SQL, and what a driver does to fetch a row.

use crate::batch;
use crate::codec::decode;
use crate::codec::event::EventRow;
use crate::codec::head::{self, HeadRow};
use backstop_core::Event;
use backstop_engine::ports::store::{Append, Head, StoreResult};
use std::borrow::Cow;

/// Checks and encodes a batch as both stores do before they write it; answers how many rows there are.
///
/// # Errors
/// `NotApplied` if the batch makes no sense.
pub fn encode(batch: &[Append]) -> StoreResult<usize> {
    let encoded = std::hint::black_box(batch::encode(batch)?);
    Ok(encoded.iter().map(|append| 1 + append.events.len()).sum())
}

/// Rows as a driver hands them over: they own what they hold.
#[derive(Debug)]
pub struct Rows {
    heads: Vec<HeadRow<'static>>,
    events: Vec<EventRow<'static>>,
}

impl Rows {
    /// The rows that a batch is written as.
    ///
    /// # Errors
    /// `NotApplied` if the batch makes no sense.
    pub fn of(batch: &[Append]) -> StoreResult<Self> {
        let mut rows = Self { heads: Vec::new(), events: Vec::new() };
        for append in batch::encode(batch)? {
            rows.heads.push(owned_head(append.head));
            rows.events.extend(append.events.into_iter().map(owned_event));
        }
        Ok(rows)
    }

    /// Reads them. A copy of each row stands for the driver's work.
    ///
    /// # Errors
    /// `Unreadable`, which no row of ours is.
    pub fn read(&self) -> StoreResult<(Vec<Head>, Vec<Event>)> {
        let heads = self.heads.iter().map(|row| head::decode(row.clone()));
        let events = self.events.iter().map(|row| decode::decode(row.clone()));
        Ok((heads.collect::<StoreResult<_>>()?, events.collect::<StoreResult<_>>()?))
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

fn owned_event(row: EventRow<'_>) -> EventRow<'static> {
    EventRow {
        saga: owned(row.saga),
        seq: row.seq,
        kind: owned(row.kind),
        step: row.step.map(owned),
        phase: row.phase.map(owned),
        attempt: row.attempt,
        status: row.status.map(owned),
        evidence: row.evidence.map(owned),
        effect: row.effect.map(owned),
        fin_code: row.fin_code.map(owned),
        tier: row.tier.map(owned),
        clock: row.clock,
        epoch: row.epoch,
        at: row.at,
        elapsed_us: row.elapsed_us,
        message: row.message.map(owned),
        format: row.format,
        payload: row.payload,
    }
}

fn owned_head(row: HeadRow<'_>) -> HeadRow<'static> {
    HeadRow {
        id: owned(row.id),
        definition: owned(row.definition),
        revision: row.revision,
        state: owned(row.state),
        seq: row.seq,
        epoch: row.epoch,
        owner: row.owner.map(owned),
        wake_at: row.wake_at,
        fin_code: row.fin_code,
        labels: row.labels,
        fingerprint: Cow::Owned(row.fingerprint.into_owned()),
        created_at: row.created_at,
        updated_at: row.updated_at,
        ended_at: row.ended_at,
        quarantine: row.quarantine.map(owned),
        retired: row.retired,
    }
}
