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

use backstop_core::CoordinatorId;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long before its end a lease counts as over: a call decided now must be on its way by then.
pub(crate) const MARGIN: Duration = Duration::from_millis(500);

/// One tenure.
#[derive(Debug)]
pub struct Tenure {
    /// Under which name.
    pub coordinator: CoordinatorId,
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
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { at: Instant::now(), suspended: suspended() }
    }

    /// Time since then, suspended or not.
    fn elapsed(&self) -> Duration {
        self.at.elapsed() + suspended().saturating_sub(self.suspended)
    }
}

/// A lease that was asked for then, for so long.
#[derive(Debug, Clone, Copy)]
struct Lease {
    asked: Moment,
    ttl: Duration,
}

impl Lease {
    fn left(&self) -> Duration {
        self.ttl.saturating_sub(self.asked.elapsed())
    }
}

/// How long this machine has been suspended since it was started: the clock that counts it, less the one that does
/// not. To the millisecond, since the two cannot be read at once.
fn suspended() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let of = |clock| {
        let time = clock_gettime(clock);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let awake = of(ClockId::Monotonic);
    let slept = of(ClockId::Boottime).saturating_sub(awake);
    Duration::from_millis(u64::try_from(slept.as_millis()).unwrap_or(u64::MAX))
}

impl Tenure {
    /// A tenure whose lease was asked for then.
    #[must_use]
    pub fn new(coordinator: CoordinatorId, asked: Moment, ttl: Duration) -> Self {
        Self { coordinator, lease: Mutex::new(Lease { asked, ttl }), ended: CancellationToken::new() }
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
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).left()
    }

    /// The lease was renewed; the renewal was asked for then.
    pub fn renewed(&self, asked: Moment, ttl: Duration) {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = Lease { asked, ttl };
        if renewed.left() > lease.left() {
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
