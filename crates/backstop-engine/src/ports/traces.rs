//! Where a saga's story goes as spans of its trace.
//!
//! A span says what the journal says: it is made of events once they are durable, and the id of an attempt's span
//! follows from the attempt itself. So whoever has the journal can tell the same story again: a coordinator that has
//! taken the saga over, or this one when a saga that was not sampled turns out to fail.
//!
//! # Not here
//! Names of spans and attributes, and their export: an adapter, in `backstop-rpc`.

use backstop_core::{Event, Saga, Timestamp};

/// A listener of what becomes durable. Nothing here may wait or fail: what cannot be told is counted and left out.
pub trait Traces: Send + Sync + 'static {
    /// True if the spans of a saga in this state are told: it was sampled when it started, or it fails.
    fn wants(&self, saga: &Saga) -> bool;

    /// Tells a part of a saga's story that [`Traces::wants`] said yes to.
    fn tell(&self, chapter: &Chapter<'_>);

    /// Stories that nobody found the time to tell.
    fn untold(&self, sagas: u64);
}

/// Events of one saga, in a row.
#[derive(Debug, Clone, Copy)]
pub struct Chapter<'a> {
    /// The saga, with these events and maybe later ones applied.
    pub saga: &'a Saga,
    /// What happened.
    pub events: &'a [Event],
    /// From when to when they were written, unless they were read off the journal.
    pub append: Option<(Timestamp, Timestamp)>,
}

impl Chapter<'_> {
    /// True if the events were read off the journal: they may have been told before.
    #[must_use]
    pub fn is_retold(&self) -> bool {
        self.append.is_none()
    }
}

/// Tells nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTraces;

impl Traces for NoTraces {
    fn wants(&self, _saga: &Saga) -> bool {
        false
    }

    fn tell(&self, _chapter: &Chapter<'_>) {}

    fn untold(&self, _sagas: u64) {}
}
