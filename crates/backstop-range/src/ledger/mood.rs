//! How fast a ledger takes a call: half of them at once and most others soon; some slowly, a few later than
//! the caller waits.

use crate::call::Call;
use crate::rng::Rng;
use std::time::Duration;

/// What a call waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mood {
    /// Before it is booked.
    pub(crate) before: Duration,
    /// After that, before it is answered.
    pub(crate) after: Duration,
}

/// By what the call is, not by when it comes: a tenure more does not change the rest.
pub(crate) fn of(seed: u64, call: &Call) -> Mood {
    let (phase, attempt, epoch) =
        (format!("{:?}", call.phase), call.attempt.to_string(), call.epoch.to_string());
    let mut rng = Rng::of(seed, &[&call.saga, &call.step, &phase, &attempt, &epoch]);
    let mut millis = |from: u64, more: u64| Duration::from_millis(from + rng.below(more));
    let none = Duration::ZERO;
    let drawn = millis(0, 1_000).as_millis();
    match drawn {
        0..25 => Mood { before: millis(50, 400), after: none },
        25..50 => Mood { before: none, after: millis(50, 400) },
        50..53 => Mood { before: Duration::from_secs(3), after: none },
        53..56 => Mood { before: none, after: Duration::from_secs(3) },
        56..500 => Mood { before: none, after: millis(1, 30) },
        _ => Mood::default(),
    }
}
