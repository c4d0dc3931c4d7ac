//! Stories of sagas that have to be told from the journal: of those that were not sampled and turn out to fail, and of
//! those that another coordinator left behind, which may have died before its last spans were out.
//!
//! # Invariants
//! * No saga waits for it: what finds the queue full is counted as untold
//!   (`a_saga_does_not_wait_for_its_story_to_be_told`).
//! * It reads one journal at a time, and only of sagas that fail or were taken over from a dead coordinator.

use crate::ports::traces::Chapter;
use crate::shared::Shared;
use backstop_core::{Saga, Seq, Timestamp};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A story to be told: the events of `saga` before `until`, and not before `since`.
pub(crate) struct Story {
    saga: Arc<Saga>,
    since: Timestamp,
    until: Seq,
}

/// Where stories wait to be told.
pub(crate) struct Retelling {
    queue: mpsc::Sender<Story>,
}

impl Retelling {
    /// A queue of at most `queue_max` stories, and its other end.
    pub(crate) fn new(queue_max: usize) -> (Self, mpsc::Receiver<Story>) {
        let (queue, stories) = mpsc::channel(queue_max);
        (Self { queue }, stories)
    }
}

impl Shared {
    /// Has all told that happened to a saga before `until`: it was not sampled, and fails.
    pub(crate) fn tell_from_the_start(&self, saga: &Arc<Saga>, until: Seq) {
        self.retell(Story { saga: Arc::clone(saga), since: Timestamp(i64::MIN), until });
    }

    /// Has told what a coordinator that is gone may not have told any more.
    pub(crate) fn tell_what_was_left(&self, saga: &Arc<Saga>, until: Seq) {
        let back = i64::try_from(self.settings.retold_within.as_micros()).unwrap_or(i64::MAX);
        let since = Timestamp(saga.updated_at.0.saturating_sub(back));
        self.retell(Story { saga: Arc::clone(saga), since, until });
    }

    fn retell(&self, story: Story) {
        if self.retelling.queue.try_send(story).is_err() {
            self.traces.untold(1);
        }
    }
}

/// Tells one story after the other, for as long as the process lives.
pub(crate) async fn run(shared: Arc<Shared>, mut stories: mpsc::Receiver<Story>) {
    while let Some(Story { saga, since, until }) = stories.recv().await {
        match shared.store.journal(&saga.id).await {
            Ok(Some(journal)) => {
                let events: Vec<_> = journal
                    .events
                    .into_iter()
                    .filter(|event| event.seq < until && event.at >= since)
                    .collect();
                shared.traces.tell(&Chapter { saga: &saga, events: &events, append: None });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(saga = %saga.id, %error, "the saga's story could not be read for its trace");
                shared.traces.untold(1);
            }
        }
    }
}
