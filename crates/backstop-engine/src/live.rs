//! The sagas that this process drives now.
//!
//! # Invariants
//! * A saga is in here at most once: two runners of one saga in one process cannot be.
//! * There are never more than `live_sagas_max`.
//! * A saga whose runner cannot go on (it panicked, or its rules do not fit) is not forgotten: it would have an owner
//!   who lives and a runner that does not. [`Live::take_forsaken`] tells of it until it is set aside in the store.

use crate::error::EngineError;
use crate::inbox::{self, inbox};
use crate::metrics::Metrics;
use backstop_core::{Input, Refused, Saga, SagaId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// Commands that wait for one saga's attention; past it the sender waits.
const INBOX_MAX: usize = 64;

/// What a person or a client wants of a running saga.
pub(crate) struct Command {
    pub(crate) input: Input,
    pub(crate) reply: oneshot::Sender<Result<Arc<Saga>, CommandFailed>>,
}

/// Why a running saga did not do it.
#[derive(Debug)]
pub(crate) enum CommandFailed {
    /// The rules refuse it.
    Refused(Refused),
    /// The runner was just leaving; the saga is to be looked up again.
    Gone,
}

/// How to reach a running saga.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) inbox: inbox::Sender<Command>,
    /// The saga as it is on disk; changes with each write. Until the first event of a new one is there, the saga as it
    /// would then be, at seq 1: if its id is taken, it never comes to that, and the saga on disk is another request's.
    pub(crate) view: watch::Receiver<Arc<Saga>>,
}

/// What a runner holds of its place in here.
pub(crate) struct Place {
    pub(crate) inbox: inbox::Reader<Command>,
    pub(crate) view: watch::Sender<Arc<Saga>>,
    _leave: Leave,
}

struct Leave {
    live: Arc<Live>,
    saga: SagaId,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.live.sagas.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.saga);
        if std::thread::panicking() {
            self.live.forsake(self.saga.clone(), "driving it panicked: see the log".to_owned());
        }
        self.live.metrics.live_changed(-1);
    }
}

/// The registry.
pub(crate) struct Live {
    sagas: Mutex<BTreeMap<SagaId, Handle>>,
    slots: Arc<Semaphore>,
    reserve: usize,
    forsaken: Mutex<Vec<(SagaId, String)>>,
    metrics: Metrics,
}

impl Live {
    /// Of `live_sagas_max` places new sagas leave `reserve` free, or a tenth of all if that is less.
    pub(crate) fn new(live_sagas_max: usize, reserve: usize, metrics: Metrics) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(live_sagas_max.min(Semaphore::MAX_PERMITS)));
        let reserve = reserve.min(live_sagas_max / 10);
        Arc::new(Self { sagas: Mutex::default(), slots, reserve, forsaken: Mutex::default(), metrics })
    }

    pub(crate) fn find(&self, saga: &SagaId) -> Option<Handle> {
        self.sagas.lock().unwrap_or_else(PoisonError::into_inner).get(saga).cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.sagas.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Remembers a saga whose runner cannot go on, and why.
    pub(crate) fn forsake(&self, saga: SagaId, reason: String) {
        self.forsaken.lock().unwrap_or_else(PoisonError::into_inner).push((saga, reason));
    }

    /// Sagas whose runners could not go on, since this was asked last.
    pub(crate) fn take_forsaken(&self) -> Vec<(SagaId, String)> {
        std::mem::take(&mut *self.forsaken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For how many more sagas there is room.
    pub(crate) fn room(&self) -> usize {
        self.slots.available_permits()
    }

    /// Room for one more saga, if there is any.
    pub(crate) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// Room for a saga that begins. Callers who try again at once would take each place that becomes free, and what a dead
    /// coordinator left half done would wait for as long as they do.
    pub(crate) fn slot_for_a_new_one(&self) -> Option<OwnedSemaphorePermit> {
        self.slot().filter(|_| self.room() >= self.reserve)
    }

    /// Puts a saga in; `None` if it is in already.
    pub(crate) fn enter(
        self: &Arc<Self>,
        saga: Arc<Saga>,
        slot: OwnedSemaphorePermit,
    ) -> Option<(Handle, Place)> {
        let id = saga.id.clone();
        let (sender, reader) = inbox(INBOX_MAX);
        let (view, watched) = watch::channel(saga);
        let handle = Handle { inbox: sender, view: watched };
        let mut sagas = self.sagas.lock().unwrap_or_else(PoisonError::into_inner);
        if sagas.contains_key(&id) {
            return None;
        }
        sagas.insert(id.clone(), handle.clone());
        drop(sagas);
        self.metrics.live_changed(1);
        let leave = Leave { live: Arc::clone(self), saga: id, _slot: slot };
        Some((handle, Place { inbox: reader, view, _leave: leave }))
    }
}

impl Handle {
    /// Has a running saga do something.
    pub(crate) async fn command(&self, input: Input) -> Heard {
        let (command, answer) = Command::new(input);
        match self.inbox.put(command).await {
            Ok(()) => answered(answer).await,
            Err(_) => Heard::NotTaken,
        }
    }
}

impl Command {
    /// A command, and where its answer comes.
    pub(crate) fn new(input: Input) -> (Self, oneshot::Receiver<Result<Arc<Saga>, CommandFailed>>) {
        let (reply, answer) = oneshot::channel();
        (Self { input, reply }, answer)
    }
}

/// What came of a command to a running saga.
pub(crate) enum Heard {
    /// It was carried out, or refused.
    Answer(Result<Arc<Saga>, EngineError>),
    /// The runner was just leaving, and had not taken it.
    NotTaken,
    /// The runner has dropped the saga in the middle of it: what was decided may be on disk or not.
    Dropped,
}

/// Waits for the answer to a command.
pub(crate) async fn answered(answer: oneshot::Receiver<Result<Arc<Saga>, CommandFailed>>) -> Heard {
    match answer.await {
        Ok(Ok(saga)) => Heard::Answer(Ok(saga)),
        Ok(Err(CommandFailed::Refused(refused))) => Heard::Answer(Err(EngineError::Refused(refused))),
        Ok(Err(CommandFailed::Gone)) => Heard::NotTaken,
        Err(_) => Heard::Dropped,
    }
}
