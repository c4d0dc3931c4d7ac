//! Resets calls at a bounded rate.
//!
//! A burst of reset streams looks like an attack to a peer, which then closes the connection and with it
//! the calls of other sagas (PLATFORM 3.4). So calls given up under `on_failure: CANCEL` queue here.

use crate::ports::machine::Machine;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

#[derive(Clone)]
pub(crate) struct Resets {
    queue: mpsc::UnboundedSender<AbortHandle>,
}

impl Resets {
    /// Starts the task that paces them. The queue is bounded by the calls in flight, which are.
    pub(crate) fn spawn(machine: &dyn Machine, per_second_max: u32) -> Self {
        let (queue, mut given_up) = mpsc::unbounded_channel::<AbortHandle>();
        let pause = Duration::from_secs(1) / per_second_max.max(1);
        machine.spawn(Box::pin(async move {
            while let Some(call) = given_up.recv().await {
                // A call that has ended by itself meanwhile needs no reset.
                if !call.is_finished() {
                    call.abort();
                    tokio::time::sleep(pause).await;
                }
            }
        }));
        Self { queue }
    }

    pub(crate) fn reset(&self, call: AbortHandle) {
        // Without the task (at the end of the process) the call ends with its connection.
        let _ = self.queue.send(call);
    }
}
