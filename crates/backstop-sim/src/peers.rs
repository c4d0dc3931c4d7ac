//! The way from one coordinator to another.

use crate::coverage::{What, When};
use crate::machines::Running;
use crate::net::Place;
use crate::process::Process;
use crate::world::World;
use async_trait::async_trait;
use backstop_core::{Input, SagaId};
use backstop_engine::ports::peers::{PeerError, Peers};
use backstop_engine::{EngineError, Reach};
use std::sync::Arc;
use std::time::Duration;

/// The others, as one process sees them.
pub(crate) struct PeersOf {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
    pub(crate) place: Place,
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
        let point = |when| (What::Command, when);
        self.process.step(point(When::Before)).await;
        let world = &self.world;
        let not_done = || PeerError::NotDone("connection refused".to_owned());
        let there = world.machines.at(address).filter(|there| !world.net.is_cut(self.place, there.place));
        let Some(Running { coordinator, process, .. }) = there else {
            world.count_fault("a coordinator is not reached");
            return Err(not_done());
        };
        tokio::time::sleep(world.net.way(1_000)).await;
        self.process.step(point(When::OnTheWay)).await;
        let (saga, input) = (saga.clone(), input.clone());
        let work = async move { coordinator.command(&saga, input, Reach::Here).await };
        // On a task of its own: it goes on when the caller is gone.
        let there = tokio::spawn(async move { process.serve(work).await });
        let answer = tokio::time::timeout(timeout, there).await;
        self.process.step(point(When::Done)).await;
        if world.net.loses() {
            world.count_fault("a coordinator's answer is lost");
            return Err(PeerError::Unknown("connection lost".to_owned()));
        }
        tokio::time::sleep(world.net.way(1_000)).await;
        self.process.step(point(When::Answered)).await;
        match answer {
            Ok(Ok(Some(Ok(_)))) => Ok(()),
            Ok(Ok(Some(Err(EngineError::Refused(refused))))) => Err(PeerError::Refused(refused)),
            // As `backstop-rpc` has it: what may have been done is not known.
            Ok(Ok(Some(Err(
                error
                @ (EngineError::NotHere { .. } | EngineError::NotServing | EngineError::NotFound { .. }),
            )))) => Err(PeerError::NotDone(error.to_string())),
            Ok(Ok(Some(Err(error)))) => Err(PeerError::Unknown(error.to_string())),
            Ok(Ok(None) | Err(_)) | Err(_) => Err(PeerError::Unknown("no answer".to_owned())),
        }
    }
}
