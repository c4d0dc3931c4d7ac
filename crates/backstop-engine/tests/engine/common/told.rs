//! A listener of sagas' stories: which were told when they happened, and which were read off the journal.

use super::*;
use backstop_core::{Saga, SagaState};
use backstop_engine::ports::traces::{Chapter, Traces};
use std::sync::Mutex;

/// Wants what the adapter wants: what was sampled, and what fails.
#[derive(Default)]
pub(crate) struct Told {
    chapters: Mutex<Vec<(String, bool, Vec<u64>)>>,
    untold: AtomicU32,
}

impl Told {
    /// The numbers of a saga's events that were told as they happened, or, if `retold`, from the journal.
    pub(crate) fn of(&self, saga: &str, retold: bool) -> Vec<u64> {
        let chapters = self.chapters.lock().unwrap();
        let of_saga = chapters.iter().filter(|(id, again, _)| id == saga && *again == retold);
        of_saga.flat_map(|(_, _, seqs)| seqs.iter().copied()).collect()
    }

    pub(crate) fn untold(&self) -> u32 {
        self.untold.load(Ordering::Relaxed)
    }
}

impl Traces for Told {
    fn wants(&self, saga: &Saga) -> bool {
        let sampled = saga.started.trace_parent.as_deref().is_some_and(|parent| parent.ends_with("-01"));
        sampled || saga.cause.is_some() || saga.state == SagaState::NeedsIntervention
    }

    fn tell(&self, chapter: &Chapter<'_>) {
        let seqs = chapter.events.iter().map(|event| event.seq.0).collect();
        self.chapters.lock().unwrap().push((chapter.saga.id.to_string(), chapter.is_retold(), seqs));
    }

    fn untold(&self, sagas: u64) {
        self.untold.fetch_add(u32::try_from(sagas).unwrap(), Ordering::Relaxed);
    }
}
