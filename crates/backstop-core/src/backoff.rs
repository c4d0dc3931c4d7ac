//! Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015).
//!
//! The jitter is a hash of the call's identity and attempt, not a random number: different sagas spread
//! out just as well, and the same saga replays to the same instant.

use crate::definition::RetryPolicy;
use crate::ids::{IdempotencyKey, SagaId};
use std::time::Duration;

/// Of the time for which a call has been tried without end, one wait takes this part at the most.
const PART_OF_THE_TIME: u32 = 8;
/// But no wait takes longer, unless the policy says so.
const PATIENT_MAX: Duration = Duration::from_secs(300);

/// How long to wait after failed attempt number `attempt` (from 1): uniform in `[0, ceiling]`, where the
/// ceiling doubles from `initial` up to `max`.
///
/// `endless_for`: how long a call that is tried without end is being tried; zero for others. The ceiling grows with it beyond
/// `max`: each failure is a row of the journal, and one participant that is away for a week is not to write a million of
/// them for one saga.
#[must_use]
pub fn delay(policy: &RetryPolicy, key: &IdempotencyKey, attempt: u32, endless_for: Duration) -> Duration {
    let doublings = attempt.saturating_sub(1).min(32);
    let highest = policy.max.max((endless_for / PART_OF_THE_TIME).min(PATIENT_MAX));
    let ceiling =
        policy.initial.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(highest);
    let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX - 1);
    Duration::from_micros(spread(key.as_str(), attempt) % (micros + 1))
}

/// How long a saga stays away that nothing can be done for now, because a participant takes no calls: twice as
/// long each time in a row that it has come back in vain, from `first` up to `longest`. Between half of that
/// and the whole, so that the sagas of one dead participant do not all come back at once.
#[must_use]
pub fn parked(first: Duration, longest: Duration, saga: &SagaId, times: u32) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX));
    let half = u64::try_from(doubled.min(longest).as_micros() / 2).unwrap_or(u64::MAX / 2);
    Duration::from_micros(half + spread(saga.as_str(), times) % (half + 1))
}

/// When, within a time in which each of several does something once, the one of this name does it: so that they do it
/// apart.
#[must_use]
pub fn apart(every: Duration, name: &str) -> Duration {
    let micros = u64::try_from(every.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(spread(name, 0) % micros.max(1))
}

/// FNV-1a over the key and attempt, finished with splitmix64 so that near keys land far apart.
fn spread(key: &str, attempt: u32) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.bytes().chain(attempt.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Phase, SagaId, StepName};

    fn key(saga: &str) -> IdempotencyKey {
        IdempotencyKey::new(&SagaId::parse(saga).unwrap(), &StepName::parse("debit").unwrap(), Phase::Action)
    }

    #[test]
    fn whoever_comes_back_in_vain_stays_away_twice_as_long_up_to_a_limit() {
        let (first, longest) = (Duration::from_secs(10), Duration::from_secs(300));
        for times in 0..70 {
            let ceiling = first.saturating_mul(1 << times.min(10)).min(longest);
            for n in 0..50 {
                let wait = parked(first, longest, &SagaId::parse(&format!("saga-{n}")).unwrap(), times);
                assert!(wait >= ceiling / 2 && wait <= ceiling, "{times}: {wait:?} of {ceiling:?}");
            }
        }
    }

    #[test]
    fn those_who_do_something_once_in_a_while_do_it_apart() {
        let every = Duration::from_secs(900);
        let mut counts = [0; 10];
        for n in 0..1000_usize {
            let at = apart(every, &format!("c-0192f0c8-{n}"));
            counts[usize::try_from(at.as_secs() / 90).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
        assert_eq!(apart(Duration::ZERO, "c"), Duration::ZERO);
    }

    #[test]
    fn peer_14_the_wait_never_passes_the_ceiling_and_sagas_spread_over_it() {
        let policy = RetryPolicy::default();
        for attempt in 1..70 {
            let ceiling =
                Duration::from_millis(50).saturating_mul(1 << (attempt - 1).min(10)).min(policy.max);
            assert!(delay(&policy, &key("a"), attempt, Duration::ZERO) <= ceiling, "attempt {attempt}");
        }
        let of = |n: &usize| delay(&policy, &key(&format!("saga-{n}")), 1, Duration::ZERO);
        let late = (0..1000_usize).filter(|n| of(n) > policy.initial / 2).count();
        assert!((400..600).contains(&late), "{late} of 1000 in the upper half");
    }

    #[test]
    fn who_stays_away_for_a_week_is_tried_some_thousand_times_and_found_soon_all_the_same() {
        let policy = RetryPolicy::default();
        let week = Duration::from_secs(7 * 24 * 3_600);
        let (mut tried_for, mut attempt) = (Duration::ZERO, 0);
        while tried_for < week {
            attempt += 1;
            let wait = delay(&policy, &key("a"), attempt, tried_for);
            let longest = if tried_for < Duration::from_secs(16) { policy.max } else { tried_for / 8 };
            assert!(wait <= longest.min(Duration::from_secs(300)), "{wait:?} after {tried_for:?}");
            tried_for += wait;
        }
        assert!((3_000..8_000).contains(&attempt), "{attempt} attempts");
    }
}
