//! One writer for all sagas: what has queued up while the last batch was being written is the next batch.
//!
//! # Invariants
//! * An answer leaves only after its events are on disk.
//! * A batch holds at most one append of a saga.
//! * A failed write is repeated word for word, so a commit of unknown fate is settled by the store's own
//!   recognition of its rows; it is never taken for written or for lost.
//! * What was settled so late is [`Settled::Written`] only if nobody has built upon it since: the lease alone
//!   does not keep a writer from acting on a saga that another has taken over while it waited.
//! * A panic ends neither the writing nor a certainty: what was being written is of unknown fate, and the writer goes on
//!   (`a_panic_of_the_writer_leaves_a_fate_open_and_it_goes_on_with_the_queue`).
//!
//! # Not here
//! What an append means: the runner's turn. How rows are written: `backstop-sql`.

use crate::metrics::Metrics;
use crate::ports::machine::Machine;
use crate::ports::store::{Append, Appended, Store, StoreError, StoreResult};
use backstop_core::{SagaId, Seq};
use futures::FutureExt;
use std::collections::{BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Rounds of yielding before a batch is closed. Measured on PLATFORM's journal prototype: four rounds let
/// the sagas just woken by the last batch join this one (16 in flight: 0.50 ms → 0.34 ms) and cost an idle
/// coordinator nothing; a timer cannot do it, its step is 1 ms.
const YIELDS_BEFORE_WRITE: usize = 4;
/// First and longest wait before a failed write is repeated.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// Hands appends to the writer.
#[derive(Clone)]
pub struct GroupCommit {
    queue: mpsc::Sender<Queued>,
    metrics: Metrics,
}

/// What became of an append in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is on disk, and the last word on its saga.
    Written,
    /// Nothing of it is on disk: another writer was there first.
    Lost,
    /// It is on disk, but since then another writer has gone on with the saga.
    Overtaken,
}

struct Queued {
    append: Append,
    size: Size,
    waiter: Waiter,
}

/// Who waits for an append.
struct Waiter {
    /// The append was tried before, and its fate is unknown.
    is_repeat: bool,
    reply: oneshot::Sender<Result<Settled, StoreError>>,
}

/// How much waits, and how much is written at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Appends that wait.
    pub queue_max: usize,
    /// Events in one write.
    pub batch_events_max: usize,
    /// Bytes of callers and participants in the events of one write.
    pub batch_bytes_max: usize,
}

/// How large appends are together.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    events: usize,
    bytes: usize,
}

impl Size {
    fn of(append: &Append) -> Self {
        let bytes = append.events.iter().map(|event| event.kind.outside_bytes()).sum();
        Self { events: append.events.len(), bytes }
    }

    fn and(self, other: Self) -> Self {
        Self { events: self.events + other.events, bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn fits(self, limits: &Limits) -> bool {
        self.events <= limits.batch_events_max && self.bytes <= limits.batch_bytes_max
    }
}

impl GroupCommit {
    /// Starts the writer's task. It ends when the last handle is gone and the queue is empty.
    #[must_use]
    pub fn spawn(machine: &dyn Machine, store: Arc<dyn Store>, limits: Limits, metrics: Metrics) -> Self {
        let (queue, arrivals) = mpsc::channel(limits.queue_max);
        let writer = Writer { store, arrivals, waiting: VecDeque::new(), limits, metrics: metrics.clone() };
        machine.spawn(Box::pin(writer.run()));
        Self { queue, metrics }
    }

    /// True if another append would have to wait for room in the queue.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.capacity() == 0
    }

    /// Appends that wait in the queue now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Writes one append; waits for room in the queue and for the disk. `is_repeat` if this very append was
    /// handed in before and ended in an error.
    ///
    /// # Errors
    /// When the store refuses this very append, or does not say what became of it, while it answers otherwise; when the
    /// writer panics with it in hand. During an outage it waits.
    pub async fn append(&self, append: Append, is_repeat: bool) -> Result<Settled, StoreError> {
        let began = Instant::now();
        let (reply, answer) = oneshot::channel();
        let gone = |_| StoreError::NotApplied("the journal's writer has stopped".to_owned());
        let size = Size::of(&append);
        let queued = Queued { append, size, waiter: Waiter { is_repeat, reply } };
        self.queue.send(queued).await.map_err(gone)?;
        // It was in the writer's hands.
        let unknown = |_| StoreError::Unknown("the journal's writer stopped in the middle of it".to_owned());
        let settled = answer.await.map_err(unknown)?;
        self.metrics.appended(began.elapsed());
        settled
    }
}

struct Writer {
    store: Arc<dyn Store>,
    arrivals: mpsc::Receiver<Queued>,
    /// Taken from the queue, not yet written.
    waiting: VecDeque<Queued>,
    limits: Limits,
    metrics: Metrics,
}

impl Writer {
    async fn run(mut self) {
        loop {
            match AssertUnwindSafe(self.write_next()).catch_unwind().await {
                Ok(true) => {}
                Ok(false) => return,
                // Nothing of ours is half done: what was in hand is dropped, and its waiters learn that.
                Err(_) => {
                    self.metrics.journal_failed();
                    tracing::error!("the journal's writer panicked; it goes on with what waits");
                    tokio::time::sleep(RETRY_FIRST).await;
                }
            }
        }
    }

    /// Waits for something to write and writes it; false once nobody is left who could bring anything.
    async fn write_next(&mut self) -> bool {
        if self.waiting.is_empty() {
            match self.arrivals.recv().await {
                Some(first) => self.waiting.push_back(first),
                None => return false,
            }
        }
        self.gather().await;
        let batch = self.next_batch();
        self.write(batch).await;
        true
    }

    async fn gather(&mut self) {
        for _ in 0..YIELDS_BEFORE_WRITE {
            // No more than one batch beyond the queue's own bound is held here.
            let mut size = self.waiting.iter().fold(Size::default(), |size, queued| size.and(queued.size));
            while size.fits(&self.limits)
                && let Ok(more) = self.arrivals.try_recv()
            {
                size = size.and(more.size);
                self.waiting.push_back(more);
            }
            if !size.fits(&self.limits) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes what goes in together: bounded in events and bytes, one append a saga, the rest stays in order.
    fn next_batch(&mut self) -> Vec<Queued> {
        let mut sagas: BTreeSet<SagaId> = BTreeSet::new();
        let mut batch: Vec<Queued> = Vec::with_capacity(self.waiting.len());
        let mut later = VecDeque::new();
        let mut size = Size::default();
        for queued in self.waiting.drain(..) {
            let with_this = size.and(queued.size);
            let fits = batch.is_empty() || with_this.fits(&self.limits);
            if fits && sagas.insert(queued.append.saga.clone()) {
                size = with_this;
                batch.push(queued);
            } else {
                later.push_back(queued);
            }
        }
        self.waiting = later;
        batch
    }

    /// Writes a batch, however long it takes.
    async fn write(&mut self, batch: Vec<Queued>) {
        let (appends, mut waiters): (Vec<Append>, Vec<Waiter>) =
            batch.into_iter().map(|queued| (queued.append, queued.waiter)).unzip();
        self.metrics.written(appends.iter().map(|append| append.events.len()).sum());
        let mut wait = RETRY_FIRST;
        loop {
            match self.try_write(&appends).await {
                Ok(results) => {
                    let mut asked_about = Vec::new();
                    for ((append, waiter), appended) in appends.iter().zip(waiters).zip(results) {
                        // What needs another look at the store keeps nobody else from knowing.
                        if waiter.is_repeat {
                            asked_about.push((append, waiter, appended));
                        } else {
                            self.answer(append, waiter, Ok(appended)).await;
                        }
                    }
                    for (append, waiter, appended) in asked_about {
                        self.answer(append, waiter, Ok(appended)).await;
                    }
                    return;
                }
                Err(error) => {
                    self.metrics.journal_failed();
                    tracing::warn!(%error, appends = appends.len(), "the journal could not be written");
                    waiters.iter_mut().for_each(|waiter| waiter.is_repeat = true);
                    if self.store.now().await.is_ok() {
                        // The store lives, so something in the batch is at fault: each for itself.
                        return self.write_singly(&appends, waiters).await;
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    /// A store that panics has not said whether it wrote. Caught here, so that an append at which it always does stands
    /// alone in the end, like one that it always refuses.
    async fn try_write(&self, appends: &[Append]) -> StoreResult<Vec<Appended>> {
        let written = AssertUnwindSafe(self.store.append(appends)).catch_unwind().await;
        written.unwrap_or_else(|_| {
            tracing::error!(appends = appends.len(), "the store panicked at a write to the journal");
            Err(StoreError::Unknown("it panicked".to_owned()))
        })
    }

    async fn write_singly(&self, appends: &[Append], waiters: Vec<Waiter>) {
        for (append, waiter) in appends.iter().zip(waiters) {
            let result = self.try_write(std::slice::from_ref(append)).await;
            let result = result.and_then(|results| {
                let missing = || StoreError::Unknown("the store gave no answer for the append".to_owned());
                results.first().copied().ok_or_else(missing)
            });
            if result.is_err() {
                self.metrics.journal_failed();
            }
            self.answer(append, waiter, result).await;
        }
    }

    async fn answer(&self, append: &Append, waiter: Waiter, result: Result<Appended, StoreError>) {
        let settled = match result {
            Err(error) => Err(error),
            Ok(Appended::Lost) => Ok(Settled::Lost),
            Ok(Appended::Written) if waiter.is_repeat => self.last_word(append).await,
            Ok(Appended::Written) => Ok(Settled::Written),
        };
        // Counted here, for whoever lost the saga may have dropped it before it hears so. That the id of a new saga
        // is taken is nothing to wonder at.
        if matches!(settled, Ok(Settled::Lost | Settled::Overtaken)) && append.expected != Seq(0) {
            self.metrics.append_lost();
        }
        // Nobody waits any more for a saga that was dropped meanwhile.
        let _ = waiter.reply.send(settled);
    }

    async fn last_word(&self, append: &Append) -> Result<Settled, StoreError> {
        let head = self.store.head(&append.saga).await?;
        let is_last = head.is_some_and(|head| head.seq == append.head.seq);
        Ok(if is_last { Settled::Written } else { Settled::Overtaken })
    }
}
