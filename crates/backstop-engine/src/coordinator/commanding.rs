//! What a person or a client may want of a saga that has started: carried to wherever it is.

use super::{Coordinator, no_saga};
use crate::error::EngineError;
use crate::{live, takeover};
use backstop_core::{Input, Refused, Saga, SagaId};
use std::sync::Arc;

/// How often a command is carried to a saga that keeps changing hands before it is given up.
const COMMAND_ATTEMPTS_MAX: usize = 5;

impl Coordinator {
    /// Asks for a rollback; answers once it is decided durably.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Refused, NotHere, Quarantined, Store.
    pub async fn cancel(&self, id: &SagaId, by: String, reason: String) -> Result<Arc<Saga>, EngineError> {
        self.command(id, Input::Cancel { by, reason }).await
    }

    /// Carries an operator's word to a saga, wherever it is.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Refused, NotHere, Quarantined, Store.
    pub async fn command(&self, id: &SagaId, input: Input) -> Result<Arc<Saga>, EngineError> {
        for _ in 0..COMMAND_ATTEMPTS_MAX {
            if let Some(handle) = self.shared.live.find(id) {
                if let Some(answer) = handle.command(input.clone()).await {
                    return answer;
                }
                continue;
            }
            let head = self.shared.store.head(id).await?.ok_or_else(|| no_saga(id))?;
            if head.state.is_final() {
                return Err(EngineError::Refused(Refused::Ended));
            }
            if let Some(owner) = head.owner.filter(|owner| *owner != self.shared.tenure().coordinator) {
                return Err(EngineError::NotHere { saga: id.clone(), owner });
            }
            if !self.is_serving() {
                return Err(EngineError::NotServing);
            }
            // It waits for a person: whoever is asked takes it up again.
            if let Some(saga) = self.idle_answer(id, &input).await? {
                return Ok(saga);
            }
            let (command, answer) = live::Command::new(input.clone());
            if takeover::adopt(&self.shared, id, None, Some(command)).await?.is_some()
                && let Some(answer) = live::answered(answer).await
            {
                return answer;
            }
        }
        Err(EngineError::Busy {
            limit: "the saga keeps changing hands; attempts to reach it",
            retry_after: self.shared.settings.busy_retry_after,
        })
    }

    /// Tells a person at once that their word would be refused, before the saga is taken up for it, or answers
    /// the saga as it is if their word changes nothing.
    async fn idle_answer(&self, id: &SagaId, input: &Input) -> Result<Option<Arc<Saga>>, EngineError> {
        let saga = self.get_saga(id).await?.saga;
        let events = backstop_core::decide(&saga, self.shared.clock.now(), input.clone());
        let events = events.map_err(EngineError::Refused)?;
        Ok(events.is_empty().then_some(saga))
    }
}
