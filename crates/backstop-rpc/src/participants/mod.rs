//! The outgoing half: everything between the engine's `Participants` port and a participant's gRPC server.
//!
//! The way of one call: `calls` renders the request (`template`) and writes its metadata (`metadata`,
//! `span`); `pool` picks an endpoint and a `connection` to it; `wire` sends it there, while `drive` keeps the
//! connection going; `codec` reads the reply; `evidence` and `details` say what is known of its end. At registration `descriptors` gathers message types by
//! `reflection`, and `plan` compiles the calls.
//!
//! # Invariants
//! * One call sends at most one request that can take effect.
//! * `NotSent` is said only of what certainly was not sent (`tests/participants/evidence.rs`).
//! * No payload is ever logged, nor any value of one put into a message for people.
//!
//! # Not here
//! Permits, the circuit breaker and retries: the engine and the core.

mod address;
#[cfg(feature = "bench")]
pub mod bench;
mod calls;
mod codec;
mod connection;
mod descriptors;
mod details;
mod drive;
mod evidence;
#[cfg(test)]
#[path = "../../tests/participants/fixture.rs"]
mod fixture;
#[cfg(test)]
pub(crate) mod fuzz;
mod metadata;
mod noted;
mod plan;
mod pool;
mod reflection;
mod settings;
mod signal;
pub(crate) mod span;
mod template;
mod tls;
mod wire;

pub use address::Address;
pub use descriptors::GatherError;
pub use settings::{ParticipantSettings, WINDOW_BYTES_MAX};

use async_trait::async_trait;
use backstop_core::{DefinitionSpec, Fault, ParticipantName, Saga, Signal};
use backstop_engine::ports::participants::{Calls, Participants};
use backstop_engine::ports::store::{Participant, StoredRevision};
use bytes::Bytes;
use calls::RevisionCalls;
use connection::Dialling;
use plan::Plan;
use pool::Pool;
use prost_types::FileDescriptorSet;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tls::Tls;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Calls participants over gRPC.
#[derive(Debug, Clone)]
pub struct ParticipantClient {
    registry: Arc<Registry>,
}

/// Where each participant is.
#[derive(Debug)]
struct Registry {
    dialling: Arc<Dialling>,
    pools: RwLock<BTreeMap<ParticipantName, Arc<Pool>>>,
}

impl ParticipantClient {
    /// A client that knows no participant yet. Connects when the first call comes.
    #[must_use]
    pub fn new(settings: ParticipantSettings) -> Self {
        let tls = Tls::new(settings.extra_roots_pem.clone());
        let dialling = Arc::new(Dialling { settings, tls });
        Self { registry: Arc::new(Registry { dialling, pools: RwLock::default() }) }
    }

    /// The message types that a definition's calls need, as a canonical, encoded `FileDescriptorSet`: cut
    /// out of what is given or, if nothing is, asked of the participants' server reflection.
    ///
    /// # Errors
    /// [`GatherError`]: faults of the definition (no such service or method, streaming methods), or a
    /// reflection that cannot be reached.
    pub async fn gather(
        &self,
        spec: &DefinitionSpec,
        given: Option<FileDescriptorSet>,
    ) -> Result<Bytes, GatherError> {
        match given {
            Some(given) => beside_the_runtime(|| descriptors::from_given(spec, given)),
            None => {
                let timeout = self.registry.settings().reflection_timeout;
                descriptors::from_reflection(spec, |name| self.registry.pool(name), timeout).await
            }
        }
    }
}

/// Everything that is wrong with a definition's calls, judged by their message types: methods, templates,
/// and what templates read. Empty if nothing is.
#[must_use]
pub fn check(spec: &DefinitionSpec, descriptors: &[u8]) -> Vec<Fault> {
    Plan::compile(spec, descriptors).err().unwrap_or_default()
}

/// Names of the steps whose action has no request template: for each of them, and for no other, StartSaga
/// must bring a raw payload.
pub fn payload_steps(spec: &DefinitionSpec) -> impl Iterator<Item = &str> {
    spec.steps.iter().filter(|step| step.action.request.is_empty()).map(|step| step.name.as_str())
}

/// A definition as large as may be takes seconds to compile; meanwhile the tasks of this worker, leases among them,
/// go on elsewhere. A runtime of one thread has no elsewhere.
fn beside_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        Ok(_) | Err(_) => work(),
    }
}

#[async_trait]
impl Participants for ParticipantClient {
    fn set(&self, participant: &Participant) {
        self.registry.set(participant);
    }

    fn prepare(&self, revision: &StoredRevision) -> Result<Arc<dyn Calls>, Vec<Fault>> {
        let plan = beside_the_runtime(|| Plan::compile(&revision.spec, &revision.descriptors))?;
        let definition = metadata::definition(&revision.reference);
        Ok(Arc::new(RevisionCalls { registry: self.registry.clone(), plan, definition }))
    }

    async fn signal(&self, saga: &Saga, signal: &Signal, timeout: Duration) -> Result<(), String> {
        signal::deliver(&self.registry, saga, signal, timeout).await
    }
}

impl Registry {
    fn settings(&self) -> &ParticipantSettings {
        &self.dialling.settings
    }

    fn pool(&self, participant: &ParticipantName) -> Option<Arc<Pool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).get(participant).cloned()
    }

    fn set(&self, participant: &Participant) {
        let mut addresses = Vec::with_capacity(participant.endpoints.len());
        for endpoint in &participant.endpoints {
            match Address::parse(endpoint) {
                Ok(address) => addresses.push(address),
                // Registration has checked them: only a hand in the database gets here.
                Err(error) => tracing::error!(participant = %participant.name, %error, "endpoint left out"),
            }
        }
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let former = pools.get(&participant.name).cloned();
        let pool = Pool::new(addresses, participant.keepalive, &self.dialling, former.as_deref());
        pools.insert(participant.name.clone(), Arc::new(pool));
    }
}
