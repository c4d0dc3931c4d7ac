//! The way from one coordinator to another: it works, is cut, or loses the answer.

use super::process::Process;
use async_trait::async_trait;
use backstop_core::{Input, SagaId};
use backstop_engine::ports::peers::{PeerError, Peers};
use backstop_engine::{Coordinator, EngineError, Reach};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// All coordinators, by address.
#[derive(Default)]
pub(crate) struct Net {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    there: BTreeMap<String, (Coordinator, Arc<Process>)>,
    is_cut: bool,
    loses_answers: bool,
    carried: usize,
}

impl Net {
    pub(crate) fn listens(&self, address: &str, coordinator: &Coordinator, process: &Arc<Process>) {
        self.state().there.insert(address.to_owned(), (coordinator.clone(), Arc::clone(process)));
    }

    /// No coordinator reaches another.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.state().is_cut = is_cut;
    }

    /// What is carried arrives, and its answer does not come back.
    pub(crate) fn lose_answers(&self, loses: bool) {
        self.state().loses_answers = loses;
    }

    /// Commands that arrived.
    pub(crate) fn carried(&self) -> usize {
        self.state().carried
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The net as one process sees it.
pub(crate) struct PeersOf {
    pub(crate) net: Arc<Net>,
    pub(crate) process: Arc<Process>,
}

#[async_trait]
impl Peers for PeersOf {
    async fn command(
        &self,
        address: &str,
        saga: &SagaId,
        input: &Input,
        timeout: Duration,
    ) -> Result<(), PeerError> {
        let (peer, is_cut) = {
            let state = self.net.state();
            (state.there.get(address).cloned(), state.is_cut)
        };
        let Some((coordinator, process)) = peer.filter(|_| !is_cut) else {
            return Err(PeerError::NotDone("connection refused".to_owned()));
        };
        self.net.state().carried += 1;
        let (saga, input) = (saga.clone(), input.clone());
        // On a task of its own, as on another machine: it goes on when the caller gives up.
        let there =
            tokio::spawn(async move { process.alive(coordinator.command(&saga, input, Reach::Here)).await });
        let answer = self.process.alive(tokio::time::timeout(timeout, there)).await;
        if self.net.state().loses_answers {
            return Err(PeerError::Unknown("connection lost".to_owned()));
        }
        match answer {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(EngineError::Refused(refused)))) => Err(PeerError::Refused(refused)),
            Ok(Ok(Err(other))) => Err(PeerError::NotDone(other.to_string())),
            Ok(Err(_)) | Err(_) => Err(PeerError::Unknown("no answer in time".to_owned())),
        }
    }
}
