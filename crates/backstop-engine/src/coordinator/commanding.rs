//! What a person or a client may want of a saga that has started: carried to wherever it is.
//!
//! # Invariants
//! * A command is carried out by the coordinator that drives the saga, or by whoever adopts it; never beside it.
//! * If it is not known whether another coordinator has carried it out, the journal is asked, not guessed
//!   (`tests/engine/commands.rs`).

use super::{Coordinator, no_saga};
use crate::error::EngineError;
use crate::live::Heard;
use crate::ports::peers::PeerError;
use crate::ports::store::StoreError;
use crate::takeover::Dead;
use crate::{live, takeover};
use backstop_core::{CoordinatorId, EventKind, Input, Refused, Saga, SagaId, Seq};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before a saga that was just changing hands is looked up again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How far a command may be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To whichever coordinator drives the saga.
    Anywhere,
    /// Not beyond this coordinator: it was carried here by another.
    Here,
}

/// What came of asking another coordinator.
enum Asked {
    Done,
    Refused(Refused),
    NotDone(String),
    Unknown(String),
}

impl Coordinator {
    /// Asks for a rollback; answers once it is decided durably.
    ///
    /// # Errors
    /// As [`Coordinator::command`].
    pub async fn cancel(&self, id: &SagaId, by: String, reason: String) -> Result<Arc<Saga>, EngineError> {
        self.command(id, Input::Cancel { by, reason }, Reach::Anywhere).await
    }

    /// Carries a person's word to a saga, wherever it is, and answers the saga as it stands after it.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Refused, NotHere (its coordinator does not answer, or is not to be asked),
    /// NotServing, Busy, Quarantined, Retired, Store.
    pub async fn command(&self, id: &SagaId, input: Input, reach: Reach) -> Result<Arc<Saga>, EngineError> {
        let until = Instant::now() + self.shared.settings.command_patience;
        let dead = Dead::default();
        // Seq before the first word that may have been heard without an answer.
        let mut perhaps_since: Option<Seq> = None;
        loop {
            if let Some(handle) = self.shared.live.find(id) {
                let before = handle.view.borrow().seq;
                match handle.command(input.clone()).await {
                    Heard::Answer(answer) => {
                        return self.unless_done(id, perhaps_since, &input, answer).await;
                    }
                    Heard::NotTaken => {}
                    Heard::Dropped => dropped(reach, &mut perhaps_since, before)?,
                }
            }
            let head = self.shared.store.head(id).await?.ok_or_else(|| no_saga(id))?;
            if let Some(reason) = head.quarantine {
                return Err(EngineError::Quarantined { saga: id.clone(), reason });
            }
            if head.state.is_final() {
                return self.unless_done(id, perhaps_since, &input, Err(Refused::Ended.into())).await;
            }
            match head.owner.filter(|owner| *owner != self.shared.tenure().coordinator) {
                Some(owner) if reach == Reach::Here => {
                    return Err(EngineError::NotHere { saga: id.clone(), owner, last: String::new() });
                }
                Some(owner) if !dead.has(self.shared.store.as_ref(), &owner).await? => {
                    let last = match self.ask(&owner, id, &input).await? {
                        Asked::Refused(refused) => {
                            return self.unless_done(id, perhaps_since, &input, Err(refused.into())).await;
                        }
                        Asked::Done => return Ok(self.get_saga(id).await?.saga),
                        Asked::NotDone(reason) => reason,
                        Asked::Unknown(reason) => {
                            let before = *perhaps_since.get_or_insert(head.seq);
                            if let Some(saga) = self.done_since(id, before, &input).await? {
                                return Ok(saga);
                            }
                            reason
                        }
                    };
                    if Instant::now() >= until {
                        return Err(EngineError::NotHere { saga: id.clone(), owner, last });
                    }
                }
                _ if !self.is_serving() => return Err(EngineError::NotServing),
                _ => {
                    // Nobody drives it: whoever is asked takes it up again.
                    if let Some(settled) = self.idle_answer(id, perhaps_since, &input).await? {
                        return settled;
                    }
                    let (command, answer) = live::Command::new(input.clone());
                    if takeover::adopt(&self.shared, id, &dead, command).await?.is_some() {
                        match live::answered(answer).await {
                            Heard::Answer(answer) => {
                                return self.unless_done(id, perhaps_since, &input, answer).await;
                            }
                            Heard::NotTaken => {}
                            Heard::Dropped => dropped(reach, &mut perhaps_since, head.seq)?,
                        }
                    }
                }
            }
            if Instant::now() >= until {
                return Err(EngineError::Busy {
                    limit: "limits.command_patience",
                    retry_after: self.shared.settings.busy_retry_after,
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn ask(&self, owner: &CoordinatorId, id: &SagaId, input: &Input) -> Result<Asked, EngineError> {
        let rows = self.shared.store.coordinators().await?;
        let Some(row) = rows.into_iter().find(|row| row.coordinator == *owner) else {
            return Ok(Asked::NotDone("it has just left".to_owned()));
        };
        let timeout = self.shared.settings.peer_timeout;
        match self.shared.peers.command(&row.address, id, input, timeout).await {
            Ok(()) => Ok(Asked::Done),
            Err(PeerError::Refused(refused)) => Ok(Asked::Refused(refused)),
            Err(PeerError::NotDone(reason)) => Ok(Asked::NotDone(format!("{}: {reason}", row.address))),
            Err(PeerError::Unknown(reason)) => Ok(Asked::Unknown(format!("{}: {reason}", row.address))),
        }
    }

    /// A refusal counts only if it is not the echo of the very command, heard before without an answer.
    async fn unless_done(
        &self,
        id: &SagaId,
        perhaps_since: Option<Seq>,
        input: &Input,
        answer: Result<Arc<Saga>, EngineError>,
    ) -> Result<Arc<Saga>, EngineError> {
        match (answer, perhaps_since) {
            (Err(EngineError::Refused(refused)), Some(before)) => {
                let done = self.done_since(id, before, input).await?;
                done.ok_or(EngineError::Refused(refused))
            }
            (answer, _) => answer,
        }
    }

    /// The saga, if its journal tells of this very command after that seq.
    async fn done_since(
        &self,
        id: &SagaId,
        before: Seq,
        input: &Input,
    ) -> Result<Option<Arc<Saga>>, EngineError> {
        let view = self.get_saga(id).await?;
        let done = view.events.iter().any(|event| event.seq > before && is_done_by(input, &event.kind));
        Ok(done.then_some(view.saga))
    }

    /// Tells a person at once that their word would be refused, before the saga is taken up for it, or answers
    /// the saga as it is if their word changes nothing.
    async fn idle_answer(
        &self,
        id: &SagaId,
        perhaps_since: Option<Seq>,
        input: &Input,
    ) -> Result<Option<Result<Arc<Saga>, EngineError>>, EngineError> {
        let saga = self.get_saga(id).await?.saga;
        match backstop_core::decide(&saga, self.shared.clock.now(), input.clone()) {
            Ok(events) if events.is_empty() => Ok(Some(Ok(saga))),
            Ok(_) => Ok(None),
            Err(refused) => Ok(Some(self.unless_done(id, perhaps_since, input, Err(refused.into())).await)),
        }
    }
}

/// The saga was dropped here in the middle of the command: whoever goes on looks into the journal before a refusal is
/// told. A coordinator that the command was carried to does not go on with it, and says that it does not know.
fn dropped(reach: Reach, perhaps_since: &mut Option<Seq>, before: Seq) -> Result<(), EngineError> {
    perhaps_since.get_or_insert(before);
    match reach {
        Reach::Anywhere => Ok(()),
        Reach::Here => {
            let what = "the saga changed hands in the middle of the command".to_owned();
            Err(EngineError::Store(StoreError::Unknown(what)))
        }
    }
}

/// True for the event that tells of this very command.
fn is_done_by(input: &Input, kind: &EventKind) -> bool {
    match (input, kind) {
        (
            Input::RetryBranch { step, by, reason },
            EventKind::BranchRetried { step: at, by: who, reason: why },
        ) => (step, by, reason) == (at, who, why),
        (
            Input::ResolveBranch { step, by, reason, resolution },
            EventKind::BranchResolved { step: at, by: who, reason: why, resolution: as_what },
        ) => (step, by, reason, resolution) == (at, who, why, as_what),
        (Input::Cancel { .. }, EventKind::RollbackDecided { .. }) => true,
        _ => false,
    }
}
