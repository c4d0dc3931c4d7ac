//! A coordinator's process: it runs, stands still, or is gone from one instant to the next.
//!
//! # Invariants
//! * A process that is killed does nothing more: all its tasks are dropped at that instant, wherever they wait.
//! * One that is frozen does nothing while time passes, and goes on where it was.

use crate::coverage::Point;
use crate::held;
use backstop_engine::ports::machine::Machine;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

/// What happens to a process without its doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    Frozen,
    Dead,
}

/// When it is going to crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doom {
    /// When it comes to this point, for the so-manieth time from now on.
    At(Point, u32),
    /// When this event has become durable by its hand and it has not heard so.
    Durable(&'static str),
    /// After so many polls of its tasks.
    Polls(u64),
}

/// Who wants to know of a crash or a panic.
pub(crate) trait Watcher: Send + Sync {
    /// It is gone; the last point that it had come to, and the last event that was durable by its hand.
    fn crashed(&self, process: u32, last: Option<Point>, durable: Option<&'static str>);
    /// A task of it has panicked.
    fn panicked(&self, process: u32, what: String);
}

/// A process.
pub(crate) struct Process {
    pub(crate) number: u32,
    seed: u64,
    myself: Weak<Process>,
    watcher: Weak<dyn Watcher>,
    state: Mutex<State>,
    ids: AtomicU64,
    gone: watch::Sender<bool>,
}

struct State {
    life: Life,
    doom: Option<Doom>,
    last: Option<Point>,
    durable: Option<&'static str>,
    suspended: Duration,
    tasks: Vec<Weak<Task>>,
    /// So many tasks are there when it is looked for those that have ended.
    look_through_at: usize,
}

#[derive(Default)]
struct Task {
    work: Mutex<Option<BoxFuture<'static, ()>>>,
    waker: Mutex<Option<Waker>>,
}

impl Process {
    pub(crate) fn new(number: u32, seed: u64, watcher: Weak<dyn Watcher>) -> Arc<Self> {
        let state = State {
            life: Life::Running,
            doom: None,
            last: None,
            durable: None,
            suspended: Duration::ZERO,
            tasks: Vec::new(),
            look_through_at: 64,
        };
        Arc::new_cyclic(|myself| Self {
            number,
            seed,
            myself: Weak::clone(myself),
            watcher,
            state: Mutex::new(state),
            ids: AtomicU64::new(0),
            gone: watch::channel(false).0,
        })
    }

    pub(crate) fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    pub(crate) fn is_dead(&self) -> bool {
        held(&self.state).life == Life::Dead
    }

    /// It is to crash then; `None`: not any more.
    pub(crate) fn doom(&self, doom: Option<Doom>) {
        held(&self.state).doom = doom;
    }

    /// It is gone.
    pub(crate) fn kill(&self) {
        let (tasks, last, durable) = {
            let mut state = held(&self.state);
            if state.life == Life::Dead {
                return;
            }
            state.life = Life::Dead;
            (std::mem::take(&mut state.tasks), state.last, state.durable)
        };
        if let Some(watcher) = self.watcher.upgrade() {
            watcher.crashed(self.number, last, durable);
        }
        self.bury(&tasks);
    }

    /// It ends in order: nobody counts that as a crash.
    pub(crate) fn end(&self) {
        let tasks = {
            let mut state = held(&self.state);
            state.life = Life::Dead;
            std::mem::take(&mut state.tasks)
        };
        self.bury(&tasks);
    }

    /// Resolves when it is dead.
    pub(crate) async fn gone(&self) {
        let mut gone = self.gone.subscribe();
        let _ = gone.wait_for(|gone| *gone).await;
    }

    fn bury(&self, tasks: &[Weak<Task>]) {
        self.gone.send_replace(true);
        for task in tasks.iter().filter_map(Weak::upgrade) {
            // Dropped outside of any lock: what it holds may look at the process again.
            let work = held(&task.work).take();
            drop(work);
            if let Some(waker) = held(&task.waker).take() {
                waker.wake();
            }
        }
    }

    pub(crate) fn freeze(&self) {
        let mut state = held(&self.state);
        if state.life == Life::Running {
            state.life = Life::Frozen;
        }
    }

    pub(crate) fn thaw(&self) {
        let tasks = {
            let mut state = held(&self.state);
            if state.life != Life::Frozen {
                return;
            }
            state.life = Life::Running;
            state.tasks.retain(|task| task.strong_count() > 0);
            state.tasks.clone()
        };
        for task in tasks.iter().filter_map(Weak::upgrade) {
            if let Some(waker) = held(&task.waker).take() {
                waker.wake();
            }
        }
    }

    /// Its own clock finds that the machine had been suspended.
    pub(crate) fn oversleep(&self, by: Duration) {
        held(&self.state).suspended += by;
    }

    /// Notes that it has come to this point, by a hand of its own or a message of its; it may be its last.
    pub(crate) fn reach(&self, point: Point) {
        let is_doomed = {
            let mut state = held(&self.state);
            if state.life == Life::Dead {
                return;
            }
            state.last = Some(point);
            match &mut state.doom {
                Some(Doom::At(at, left)) if *at == point => {
                    *left = left.saturating_sub(1);
                    *left == 0
                }
                Some(Doom::At(..) | Doom::Durable(_) | Doom::Polls(_)) | None => false,
            }
        };
        if is_doomed {
            self.kill();
        }
    }

    /// As [`Process::reach`], for its own tasks: whoever is dead does not come back from it.
    pub(crate) async fn step(&self, point: Point) {
        self.reach(point);
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Notes that an event of its hand is durable; it may be its last.
    pub(crate) fn wrote(&self, event: &'static str) {
        let is_doomed = {
            let mut state = held(&self.state);
            state.durable = Some(event);
            state.life != Life::Dead && state.doom == Some(Doom::Durable(event))
        };
        if is_doomed {
            self.kill();
        }
    }

    /// Runs something within the process, as its server does with a request; `None` if it dies meanwhile.
    pub(crate) async fn serve<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.spawn(Box::pin(async move {
            let _ = done.send(work.await);
        }));
        answer.await.ok()
    }

    /// True if the next poll is not to be.
    fn dies_of_polls(&self) -> bool {
        let mut state = held(&self.state);
        if state.life != Life::Running {
            return false;
        }
        match &mut state.doom {
            Some(Doom::Polls(left)) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            Some(Doom::At(..) | Doom::Durable(_)) | None => false,
        }
    }
}

impl Machine for Process {
    fn spawn(&self, work: BoxFuture<'static, ()>) -> AbortHandle {
        let task = Arc::new(Task { work: Mutex::new(Some(work)), waker: Mutex::default() });
        let mut state = held(&self.state);
        if state.tasks.len() >= state.look_through_at {
            state.tasks.retain(|task| task.strong_count() > 0);
            state.look_through_at = (state.tasks.len() * 2).max(64);
        }
        state.tasks.push(Arc::downgrade(&task));
        drop(state);
        let process = Weak::clone(&self.myself);
        tokio::spawn(Guest { process, task }).abort_handle()
    }

    fn suspended(&self) -> Duration {
        held(&self.state).suspended
    }

    fn fresh_id(&self) -> Uuid {
        let count = self.ids.fetch_add(1, Ordering::Relaxed);
        Uuid::from_u64_pair(u64::from(self.number) << 32 | count, self.seed)
    }
}

/// A task of a process, as the runtime sees it.
struct Guest {
    process: Weak<Process>,
    task: Arc<Task>,
}

impl Future for Guest {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(process) = self.process.upgrade() else { return Poll::Ready(()) };
        if process.dies_of_polls() {
            process.kill();
        }
        let life = held(&process.state).life;
        match life {
            Life::Dead => return Poll::Ready(()),
            Life::Frozen => {
                *held(&self.task.waker) = Some(context.waker().clone());
                return Poll::Pending;
            }
            Life::Running => {}
        }
        *held(&self.task.waker) = Some(context.waker().clone());
        let Some(mut work) = held(&self.task.work).take() else { return Poll::Ready(()) };
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Ready(())) => Poll::Ready(()),
            Ok(Poll::Pending) if process.is_dead() => Poll::Ready(()),
            Ok(Poll::Pending) => {
                *held(&self.task.work) = Some(work);
                Poll::Pending
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                if let Some(watcher) = process.watcher.upgrade() {
                    watcher.panicked(process.number, text.unwrap_or_default());
                }
                Poll::Ready(())
            }
        }
    }
}
