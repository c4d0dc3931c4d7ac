//! Why the engine refuses or fails a command. `backstop-rpc` turns each into a gRPC status.

use crate::ports::store::{Head, StoreError};
use backstop_core::{CoordinatorId, Fault, Refused, SagaId};
use std::time::Duration;

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The request itself is at fault.
    #[error("the request has {} fault(s)", .0.len())]
    Invalid(Vec<Fault>),
    /// There is no such thing.
    #[error("there is no {what} \"{name}\"")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The saga id belongs to another request.
    #[error("saga \"{saga}\" was started by a request that differs in {difference}")]
    AlreadyExists {
        /// The saga.
        saga: SagaId,
        /// The fields that differ, as far as can be told: `input, labels`.
        difference: String,
    },
    /// The saga is not in a state for it.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// Too much is going on.
    #[error("{limit} is reached")]
    Busy {
        /// The setting that limits it.
        limit: &'static str,
        /// When to ask again.
        retry_after: Duration,
    },
    /// This coordinator is about to end, or has lost its lease.
    #[error("the coordinator does not take on sagas now")]
    NotServing,
    /// Another coordinator drives the saga, and it could not be had to do it.
    #[error("saga \"{saga}\" is driven by coordinator {owner}, which did not answer: ask again")]
    NotHere {
        /// The saga.
        saga: SagaId,
        /// Who drives it.
        owner: CoordinatorId,
        /// What came of asking it last, for the log.
        last: String,
    },
    /// The saga has ended so long ago that its journal is gone.
    #[error("saga \"{}\" has ended and its journal is retired", .head.saga)]
    Retired {
        /// What is left of it.
        head: Box<Head>,
    },
    /// The saga's journal cannot be replayed.
    #[error("the journal of saga \"{saga}\" cannot be replayed: {reason}")]
    Quarantined {
        /// The saga.
        saga: SagaId,
        /// Why.
        reason: String,
    },
    /// The saga is not in quarantine.
    #[error("saga \"{saga}\" is not in quarantine")]
    NotQuarantined {
        /// The saga.
        saga: SagaId,
    },
    /// The store did not do it, or did not say whether it did.
    #[error("the store failed")]
    Store(#[from] StoreError),
}
