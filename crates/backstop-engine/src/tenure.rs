//! The time during which this process may drive sagas: from one `enter` to the lease's end.
//!
//! # Invariants
//! * Whoever asks [`Tenure::may_act`] and hears yes has a lease that, by our monotonic clock, runs for at
//!   least [`MARGIN`] more: it was counted from *before* the renewal was sent.
//! * A tenure that has ended never begins again; its coordinator id is not used twice.
//! * Time during which the machine was suspended counts: the monotonic clock stands still then, leases do not.
//!
//! # Not here
//! A virtual machine that its host pauses without telling it: no clock of the guest shows that before the next
//! renewal. Its appends are fenced by seq; one late call is for the participant's barrier.

use crate::ports::machine::Machine;
use backstop_core::CoordinatorId;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long before its end a lease counts as over: a call decided now must be on its way by then.
pub(crate) const MARGIN: Duration = Duration::from_millis(500);

/// One tenure.
pub struct Tenure {
    /// Under which name.
    pub coordinator: CoordinatorId,
    machine: Arc<dyn Machine>,
    lease: Mutex<Lease>,
    ended: CancellationToken,
}

/// An instant, and how long the machine had been suspended by then since it was started.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock that stands still while the machine is suspended.
    pub at: Instant,
    suspended: Duration,
}

impl Moment {
    /// Now, on this machine.
    #[must_use]
    pub fn now(machine: &dyn Machine) -> Self {
        Self { at: Instant::now(), suspended: machine.suspended() }
    }

    /// Time since then, suspended or not.
    fn elapsed(&self, machine: &dyn Machine) -> Duration {
        self.at.elapsed() + machine.suspended().saturating_sub(self.suspended)
    }
}

/// A lease that was asked for then, for so long.
#[derive(Debug, Clone, Copy)]
struct Lease {
    asked: Moment,
    ttl: Duration,
}

impl Lease {
    fn left(&self, machine: &dyn Machine) -> Duration {
        self.ttl.saturating_sub(self.asked.elapsed(machine))
    }
}

/// Whether a call that is about to leave still may.
#[derive(Debug, Clone)]
pub struct Clearance {
    tenure: Arc<Tenure>,
    withdrawn: CancellationToken,
}

impl Clearance {
    /// For a call that may leave within this tenure, until it is withdrawn.
    #[must_use]
    pub fn new(tenure: Arc<Tenure>, withdrawn: CancellationToken) -> Self {
        Self { tenure, withdrawn }
    }

    /// For a call that nobody withdraws.
    #[must_use]
    pub fn within(tenure: Arc<Tenure>) -> Self {
        Self::new(tenure, CancellationToken::new())
    }

    /// True while it may leave: the lease holds, and the saga still wants it.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.withdrawn.is_cancelled() && self.tenure.may_act()
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenure").field("coordinator", &self.coordinator).finish_non_exhaustive()
    }
}

impl Tenure {
    /// A tenure whose lease was asked for then, on this machine.
    #[must_use]
    pub fn new(coordinator: CoordinatorId, machine: Arc<dyn Machine>, asked: Moment, ttl: Duration) -> Self {
        Self {
            coordinator,
            machine,
            lease: Mutex::new(Lease { asked, ttl }),
            ended: CancellationToken::new(),
        }
    }

    /// True if it is certain that nobody else may drive our sagas yet.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.remaining() > MARGIN
    }

    /// Time until the lease runs out unless it is renewed; zero once the tenure has ended.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.has_ended() {
            return Duration::ZERO;
        }
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).left(self.machine.as_ref())
    }

    /// The lease was renewed; the renewal was asked for then.
    pub fn renewed(&self, asked: Moment, ttl: Duration) {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = Lease { asked, ttl };
        if renewed.left(self.machine.as_ref()) > lease.left(self.machine.as_ref()) {
            *lease = renewed;
        }
    }

    /// Ends it: every runner drops its saga without another word.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// True if it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }
}
