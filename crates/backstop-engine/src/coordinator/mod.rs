//! One running coordinator: what the outside may ask of it.
//!
//! Coming and going are here; `starting`, `commanding`, `reading` and `examining` hold what is asked meanwhile.
//!
//! # Not here
//! How one saga is driven: [`crate::runner`]. Wire types: `backstop-rpc`.

mod commanding;
mod difference;
mod examining;
mod reading;
mod starting;

pub use commanding::Reach;
pub(crate) use examining::examine;
pub use examining::{Examination, Finding, FindingKind, HowMuch};
pub use reading::SagaView;
pub use starting::{StartSaga, StartedSaga};

use crate::clock::StoreClock;
use crate::definitions::Definitions;
use crate::error::EngineError;
use crate::gate::Gates;
use crate::group_commit::{GroupCommit, Limits};
use crate::live::Live;
use crate::metrics::{self, Metrics};
use crate::overview::Tally;
use crate::ports::clock::Clock;
use crate::ports::machine::Machine;
use crate::ports::participants::Participants;
use crate::ports::peers::Peers;
use crate::ports::store::{Store, StoreError};
use crate::ports::traces::Traces;
use crate::resets::Resets;
use crate::retelling::{self, Retelling};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::{definitions, doctor, interventions, lease, retention, takeover};
use backstop_core::SagaId;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a coordinator needs of the world.
pub struct Ports {
    /// The journal and the tables beside it.
    pub store: Arc<dyn Store>,
    /// The services that sagas call.
    pub participants: Arc<dyn Participants>,
    /// The other coordinators.
    pub peers: Arc<dyn Peers>,
    /// The computer that it runs on.
    pub machine: Arc<dyn Machine>,
    /// Where sagas' traces are told.
    pub traces: Arc<dyn Traces>,
}

/// A running coordinator. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

impl Coordinator {
    /// Enters the store's list of coordinators and begins to work: to keep the lease, and to take on sagas
    /// that nobody drives. `address` is where the others reach its API.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn start(ports: Ports, settings: Settings, address: &str) -> Result<Self, StoreError> {
        let Ports { store, participants, peers, machine, traces } = ports;
        let store_clock = Arc::new(StoreClock::read(store.as_ref()).await?);
        let clock: Arc<dyn Clock> = Arc::clone(&store_clock) as _;
        let settings = Arc::new(settings);
        let metrics = Metrics::of_process(&settings);
        metrics::show_zeros(&metrics);
        let gates =
            Arc::new(Gates::new(Arc::clone(&clock), settings.breaker, settings.in_flight_max_default));
        let definitions = Definitions::new(
            Arc::clone(&store),
            Arc::clone(&participants),
            Arc::clone(&gates),
            Arc::clone(&clock),
            Arc::clone(&settings),
        );
        let tenure = lease::enter(store.as_ref(), &machine, address, settings.lease_ttl).await?;
        tracing::info!(coordinator = %tenure.coordinator, "the coordinator has its lease");
        let limits = Limits {
            queue_max: settings.journal_queue_max,
            batch_events_max: settings.batch_events_max,
            batch_bytes_max: settings.batch_bytes_max,
        };
        let journal = GroupCommit::spawn(machine.as_ref(), Arc::clone(&store), limits, metrics.clone());
        let (retelling, stories) = Retelling::new(settings.retelling_queue_max);
        let shared = Arc::new(Shared {
            store,
            journal,
            participants,
            peers,
            traces,
            retelling,
            resets: Resets::spawn(machine.as_ref(), settings.resets_per_second_max),
            machine,
            gates,
            definitions,
            clock,
            store_clock,
            live: Live::new(settings.live_sagas_max, settings.takeover_reserve, metrics.clone()),
            metrics,
            tally: Tally::new(),
            settings,
            tenure: RwLock::new(Arc::new(tenure)),
            draining: CancellationToken::new(),
        });
        metrics::gauges::observe_coordinator(&Arc::downgrade(&shared));
        shared.spawn(lease::keep(Arc::clone(&shared), address.to_owned()));
        shared.spawn(takeover::watch(Arc::clone(&shared)));
        shared.spawn(definitions::watch(Arc::clone(&shared)));
        shared.spawn(retention::run(Arc::clone(&shared)));
        shared.spawn(interventions::watch(Arc::clone(&shared)));
        shared.spawn(retelling::run(Arc::clone(&shared), stories));
        shared.spawn(doctor::rounds(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Definitions and participants.
    #[must_use]
    pub fn definitions(&self) -> &Definitions {
        &self.shared.definitions
    }

    /// The limits in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// True while it may take on and drive sagas.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.shared.draining.is_cancelled() && self.shared.tenure().may_act()
    }

    /// Resolves when [`Coordinator::is_serving`] may have changed: at once on shutdown, otherwise after
    /// `at_most`, since a lease runs out in silence.
    pub async fn serving_may_have_changed(&self, at_most: Duration) {
        let draining = &self.shared.draining;
        tokio::select! {
            biased;
            () = draining.cancelled(), if !draining.is_cancelled() => {}
            () = tokio::time::sleep(at_most) => {}
        }
    }

    /// Stops taking on sagas, lets go of those that run as soon as none of their calls is out, and of those that have
    /// ended as soon as their listeners have been told, and ends the lease. Sagas whose calls are not answered within
    /// `at_most` are left to takeover.
    pub async fn drain(&self, at_most: Duration) {
        self.shared.draining.cancel();
        let until = Instant::now() + at_most;
        let me = self.shared.tenure();
        // So that the others look into its share from now on. Not knowing, they would do so a little later.
        let told = tokio::time::timeout_at(until, self.shared.store.set_draining(&me.coordinator)).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::debug!("the others could not be told of the drain");
        }
        while self.shared.live.count() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let tenure = self.shared.tenure();
        let left = self.shared.live.count();
        tenure.end();
        // A store that is away is not waited for beyond the time that a stop may take: the lease ends by itself.
        let leaving = self.shared.store.leave(&tenure.coordinator);
        match tokio::time::timeout_at(until.max(Instant::now() + LEAVE_AT_LEAST), leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be ended; it will run out"),
            Err(_) => tracing::warn!("the lease could not be ended in time; it will run out"),
        }
        tracing::info!(sagas_left_to_takeover = left, "drained");
    }
}

/// What ending the lease may take when a drain has used up its time.
const LEAVE_AT_LEAST: Duration = Duration::from_secs(1);

fn no_saga(id: &SagaId) -> EngineError {
    EngineError::NotFound { what: "saga", name: id.to_string() }
}
