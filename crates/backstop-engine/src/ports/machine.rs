//! The computer that a coordinator runs on: its tasks, its names, and the time it was suspended.
//!
//! A port, so that a simulated one can end all tasks of one coordinator between any two instants, hold them still
//! while time passes, and be the same again for the same seed.
//!
//! # Not here
//! The time by which sagas live: [`super::clock`]. Monotonic time: tokio's, which can be paused.

use futures::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::task::AbortHandle;
use uuid::Uuid;

/// A computer.
pub trait Machine: Send + Sync + 'static {
    /// Runs a task beside its caller, to its end or the process's.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle;

    /// For how long it has been suspended since it was started: time that its monotonic clock does not tell of.
    fn suspended(&self) -> Duration;

    /// An id that nobody has had before, anywhere.
    fn fresh_id(&self) -> Uuid;
}

/// The computer that this program runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        tokio::spawn(task).abort_handle()
    }

    /// The clock that counts it, less the one that does not. To the millisecond, since the two cannot be read at once.
    fn suspended(&self) -> Duration {
        let of = |clock| {
            let time = clock_gettime(clock);
            Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
        };
        let awake = of(ClockId::Monotonic);
        let slept = of(ClockId::Boottime).saturating_sub(awake);
        Duration::from_millis(u64::try_from(slept.as_millis()).unwrap_or(u64::MAX))
    }

    fn fresh_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
