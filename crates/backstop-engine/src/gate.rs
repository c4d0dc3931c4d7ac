//! What stands between us and one participant: permits and the circuit breaker.
//!
//! # Invariants
//! * Every [`Pass`] gives its permit back, also when it is dropped. The breaker hears how each call went that went out, and
//!   of a probe that did not.
//! * While the breaker is open, actions do not pass, also those that came before it opened and have waited for a permit
//!   since; compensations and the actions of RETRIABLE steps wait: these are never given up for load, and for an outage only
//!   when their definition says after what time.
//! * What was taken over from another coordinator has at most half of the permits, whatever it calls: a backlog of thousands
//!   does not keep out what is new.

use crate::ports::clock::Clock;
use backstop_core::breaker::{Breaker, BreakerPolicy, BreakerState};
use backstop_core::{NotSent, ParticipantName};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a patient call waits at an open breaker before it looks again, at most.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);
/// Longest patience: an instant has room for it. What is stored may say more.
const PATIENCE_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

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

    /// Sets how many calls may be in flight to a participant; 0 means the default. A changed number makes a new gate, with
    /// a closed breaker; what is in flight or waits at the old one ends there.
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
    /// What any call of a saga that was taken over needs besides.
    backlog_permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    breaker: Mutex<Breaker>,
    changed: Notify,
}

/// How a call stands at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Gives up, unsent, when the breaker is open or no permit comes within its time: an action or a query.
    Prompt,
    /// Waits also for the breaker: a compensation, or the action of a RETRIABLE step. Both are tried until they
    /// succeed, so to answer them "not sent" would only fill their journals and keep them in memory.
    Patient,
}

/// Why a call did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// It is answered as not sent.
    NotSent(NotSent),
    /// It has waited for as long as it may, and nothing is decided about it: it comes another time.
    HeldBack,
}

impl Gate {
    fn new(clock: Arc<dyn Clock>, policy: BreakerPolicy, permits_max: u32) -> Self {
        Self {
            clock,
            permits_max,
            permits: Arc::new(Semaphore::new(permits_max as usize)),
            backlog_permits: Arc::new(Semaphore::new((permits_max as usize / 2).max(1))),
            waiting: AtomicUsize::new(0),
            breaker: Mutex::new(Breaker::new(policy)),
            changed: Notify::new(),
        }
    }

    /// Waits for the right to send one call, for at most `patience`. A patient one for which there is a limit
    /// waits for an open breaker until `give_up_at`, and is then answered as not sent. One of a saga that was taken over
    /// (`is_backlog`) waits behind the others of its kind, and that does not use up its attempts.
    ///
    /// # Errors
    /// Why there is none. Nothing was sent.
    pub async fn enter(
        self: &Arc<Self>,
        manner: Manner,
        is_backlog: bool,
        patience: Duration,
        give_up_at: Option<Instant>,
    ) -> Result<Pass, Barred> {
        let is_hurried = manner == Manner::Prompt && !is_backlog;
        // What waits in the backlog or to undo something is not held against what is new.
        let _waiting = is_hurried.then(|| Waiting::new(self));
        let until = Instant::now() + patience.min(PATIENCE_MAX);
        let late = if is_hurried { Barred::NotSent(NotSent::NoPermit) } else { Barred::HeldBack };
        loop {
            let is_probe = self.breaker_lets_pass(manner, until, late, give_up_at).await?;
            let mut pass =
                Pass { gate: Arc::clone(self), permit: None, backlog: None, is_probe, reported: false };
            // Always in this order, and never at the breaker with either of them: who has the one waits for nobody who
            // waits for it. The semaphores are never closed; without a permit the call would merely go uncounted.
            if is_backlog {
                let permit = Arc::clone(&self.backlog_permits).acquire_owned();
                pass.backlog = tokio::time::timeout_at(until, permit).await.map_err(|_| late)?.ok();
            }
            let permit = Arc::clone(&self.permits).acquire_owned();
            pass.permit = tokio::time::timeout_at(until, permit).await.map_err(|_| late)?.ok();
            if pass.is_probe {
                return Ok(pass);
            }
            // The breaker may have opened since it was asked. If so, the permits go back.
            if let Some(is_probe) = self.try_breaker() {
                pass.is_probe = is_probe;
                return Ok(pass);
            }
        }
    }

    /// Waits for the breaker, if that is the call's manner; true for the probe that decides whether it closes.
    async fn breaker_lets_pass(
        &self,
        manner: Manner,
        until: Instant,
        late: Barred,
        give_up_at: Option<Instant>,
    ) -> Result<bool, Barred> {
        loop {
            // Before the breaker is asked, so that no change in between is missed.
            let changed = self.changed.notified();
            if let Some(is_probe) = self.try_breaker() {
                return Ok(is_probe);
            }
            let now = Instant::now();
            if manner != Manner::Patient || give_up_at.is_some_and(|at| at <= now) {
                return Err(Barred::NotSent(NotSent::BreakerOpen));
            }
            if now >= until {
                return Err(late);
            }
            let look_again = (now + self.breaker_wait()).min(until).min(give_up_at.unwrap_or(until));
            let _either_way_look_again = tokio::time::timeout_at(look_again, changed).await;
        }
    }

    /// Asks the breaker once: `None` if it does not let the call pass, else whether the call is its probe.
    fn try_breaker(&self) -> Option<bool> {
        self.with_breaker(|breaker, now| {
            breaker.try_pass(now).then(|| breaker.state() == BreakerState::Probing)
        })
    }

    /// Time until the breaker may let a call pass.
    fn breaker_wait(&self) -> Duration {
        let wait = self.with_breaker(|breaker, now| match breaker.state() {
            BreakerState::Open(until) => until.since(now),
            BreakerState::Closed | BreakerState::Probing => LOOK_AGAIN_MAX,
        });
        wait.min(LOOK_AGAIN_MAX)
    }

    /// True while calls are kept back.
    pub fn is_open(&self) -> bool {
        self.with_breaker(|breaker, _| breaker.state() != BreakerState::Closed)
    }

    /// Calls that hold a permit now.
    pub fn in_flight(&self) -> usize {
        (self.permits_max as usize).saturating_sub(self.permits.available_permits())
    }

    /// Most calls that may hold a permit at once.
    pub fn in_flight_max(&self) -> usize {
        self.permits_max as usize
    }

    /// Calls that wait here for a permit, without the backlog and without patient ones.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
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
    backlog: Option<OwnedSemaphorePermit>,
    /// The breaker lets nobody else pass until it has heard of this one.
    is_probe: bool,
    reported: bool,
}

/// Counts a call that waits.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.waiting.fetch_add(1, Ordering::Relaxed);
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
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
        // What did not go out says nothing; but if it was the probe, another is due.
        if self.is_probe && !self.reported {
            self.gate.with_breaker(|breaker, now| breaker.abandon(now));
            self.gate.changed.notify_waiters();
        }
    }
}
