//! What stands between us and one participant: permits and the circuit breaker.
//!
//! # Invariants
//! * Every [`Pass`] gives its permit back and tells the breaker how it went, also when it is dropped.
//! * While the breaker is open, actions do not pass and compensations wait: an undo is never given up
//!   for load.

use crate::ports::clock::Clock;
use backstop_core::breaker::{Breaker, BreakerPolicy, BreakerState};
use backstop_core::{NotSent, ParticipantName};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How long a compensation waits at an open breaker before it looks again, at most.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// The gates of all participants.
pub struct Gates {
    clock: Arc<dyn Clock>,
    policy: BreakerPolicy,
    in_flight_max_default: u32,
    by_name: RwLock<BTreeMap<ParticipantName, Arc<Gate>>>,
}

impl Gates {
    /// No gates yet: each is made when it is first asked for.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, policy: BreakerPolicy, in_flight_max_default: u32) -> Self {
        Self { clock, policy, in_flight_max_default, by_name: RwLock::default() }
    }

    /// The gate of a participant.
    pub fn of(&self, name: &ParticipantName) -> Arc<Gate> {
        let known = self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| self.set(name, 0))
    }

    /// Sets how many calls may be in flight to a participant; 0 means the default. A changed number makes
    /// a new gate; calls in flight end under the old one.
    pub fn set(&self, name: &ParticipantName, in_flight_max: u32) -> Arc<Gate> {
        let permits = if in_flight_max == 0 { self.in_flight_max_default } else { in_flight_max };
        let mut gates = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        match gates.get(name) {
            Some(gate) if gate.permits_max == permits => Arc::clone(gate),
            Some(_) | None => {
                let gate = Arc::new(Gate::new(Arc::clone(&self.clock), self.policy, permits));
                gates.insert(name.clone(), Arc::clone(&gate));
                gate
            }
        }
    }

    /// Every gate, by name.
    pub fn all(&self) -> Vec<(ParticipantName, Arc<Gate>)> {
        let gates = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        gates.iter().map(|(name, gate)| (name.clone(), Arc::clone(gate))).collect()
    }
}

/// The gate of one participant.
pub struct Gate {
    clock: Arc<dyn Clock>,
    permits_max: u32,
    permits: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
    changed: Notify,
}

impl Gate {
    fn new(clock: Arc<dyn Clock>, policy: BreakerPolicy, permits_max: u32) -> Self {
        Self {
            clock,
            permits_max,
            permits: Arc::new(Semaphore::new(permits_max as usize)),
            breaker: Mutex::new(Breaker::new(policy)),
            changed: Notify::new(),
        }
    }

    /// Passes at once or not at all, but for waiting for a permit.
    ///
    /// # Errors
    /// Why nothing was sent.
    pub async fn enter(self: &Arc<Self>, timeout: Duration) -> Result<Pass, NotSent> {
        if !self.with_breaker(|breaker, now| breaker.try_pass(now)) {
            return Err(NotSent::BreakerOpen);
        }
        let mut pass = Pass { gate: Arc::clone(self), permit: None, reported: false };
        match tokio::time::timeout(timeout, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => {
                pass.permit = Some(permit);
                Ok(pass)
            }
            Ok(Err(_)) | Err(_) => Err(NotSent::NoPermit),
        }
    }

    /// Waits until the breaker lets it pass and a permit is free, however long that takes.
    pub async fn enter_when_possible(self: &Arc<Self>) -> Pass {
        loop {
            let changed = self.changed.notified();
            if self.with_breaker(|breaker, now| breaker.try_pass(now)) {
                let mut pass = Pass { gate: Arc::clone(self), permit: None, reported: false };
                // The semaphore is never closed; without a permit the call merely goes uncounted.
                pass.permit = Arc::clone(&self.permits).acquire_owned().await.ok();
                return pass;
            }
            let wait = self.with_breaker(|breaker, now| match breaker.state() {
                BreakerState::Open(until) => until.since(now),
                BreakerState::Closed | BreakerState::Probing => LOOK_AGAIN_MAX,
            });
            let _either_way_look_again = tokio::time::timeout(wait.min(LOOK_AGAIN_MAX), changed).await;
        }
    }

    /// True while calls are kept back.
    pub fn is_open(&self) -> bool {
        self.with_breaker(|breaker, _| breaker.state() != BreakerState::Closed)
    }

    /// Calls that hold a permit now.
    pub fn in_flight(&self) -> usize {
        (self.permits_max as usize).saturating_sub(self.permits.available_permits())
    }

    fn with_breaker<T>(&self, f: impl FnOnce(&mut Breaker, backstop_core::Timestamp) -> T) -> T {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut breaker, self.clock.now())
    }
}

/// The right to send one call.
pub struct Pass {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
    reported: bool,
}

impl Pass {
    /// Reports how the call went; `failed` means an L2 failure.
    pub fn report(mut self, failed: bool) {
        self.reported = true;
        self.gate.with_breaker(|breaker, now| breaker.record(now, failed));
        self.gate.changed.notify_waiters();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.reported {
            self.gate.with_breaker(|breaker, now| breaker.abandon(now));
            self.gate.changed.notify_waiters();
        }
    }
}
