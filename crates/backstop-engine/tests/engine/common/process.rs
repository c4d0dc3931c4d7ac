//! A coordinator's process, as far as the world can tell: it lives, stalls or is dead.

use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Whether a coordinator's process still lives. A dead one gets no answer from anybody, ever.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) number: u32,
    dead: CancellationToken,
    /// True while it gets no journal to read.
    pub(crate) stalled: watch::Sender<bool>,
}

impl Process {
    pub(crate) fn new(number: u32) -> Arc<Self> {
        Arc::new(Self { number, dead: CancellationToken::new(), stalled: watch::channel(false).0 })
    }

    pub(crate) fn kill(&self) {
        self.dead.cancel();
    }

    /// Keeps it from reading journals, or lets it.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Comes back with the answer only while the process lives.
    pub(crate) async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.dead.cancelled() => std::future::pending().await,
            answer = work => answer,
        }
    }
}
