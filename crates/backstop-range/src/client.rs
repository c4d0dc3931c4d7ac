//! Load from outside: sagas start by the clock, whatever became of those before, and each is asked for
//! again, with the same id, until somebody answers.
//!
//! # Invariants
//! * A saga's start is due at its number over the rate. Latency counts from then, so a stall is paid for by
//!   everyone who was due in it.
//! * One id always carries one request.

use crate::api::Api;
use crate::moment::{Moment, now};
use crate::report::Kind;
use backstop_proto::v1::StartSagaRequest;
use hdrhistogram::Histogram;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Longest wait for one answer before another coordinator is asked.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Before the next coordinator is asked; doubles each time that all have been asked, so that load does not
/// become a storm of its own.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(25);
/// Longest of these.
const TRY_AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);
/// Longest time for one saga to be accepted.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// What is to be started, and how fast.
#[derive(Clone)]
pub struct Load {
    /// Sagas a second.
    pub rate: u32,
    /// Sagas in all.
    pub count: u64,
    /// The request of each number.
    pub request: Arc<dyn Fn(u64) -> StartSagaRequest + Send + Sync>,
}

/// How one start went.
#[derive(Debug, Clone)]
pub struct Started {
    /// The saga.
    pub id: String,
    /// When it was due.
    pub due: Moment,
    /// When it was answered, or given up.
    pub answered: Moment,
    /// Requests that were sent.
    pub tries: u32,
    /// Why nobody accepted it; none if somebody did.
    pub failure: Option<Failure>,
}

/// Why a saga was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The last answer.
    pub text: String,
    /// True if it was refused for good; false if nobody had time for it until we gave up.
    pub is_refused: bool,
}

impl Failure {
    /// A refusal breaks a promise. Patience that ran out is a matter of time.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.is_refused { Kind::Safety } else { Kind::Time }
    }
}

/// How all of them went.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Each, in no order.
    pub started: Vec<Started>,
}

impl Outcome {
    /// Those that were accepted.
    pub fn accepted(&self) -> impl Iterator<Item = &Started> {
        self.started.iter().filter(|started| started.failure.is_none())
    }

    /// Those that were not, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&Started, &Failure)> {
        self.started.iter().filter_map(|started| Some((started, started.failure.as_ref()?)))
    }

    /// Time from due to answer, in microseconds.
    #[must_use]
    pub fn latency(&self) -> Histogram<u64> {
        histogram(self.accepted().map(|started| started.answered - started.due))
    }
}

/// A histogram of microseconds.
#[must_use]
pub fn histogram(values: impl Iterator<Item = i64>) -> Histogram<u64> {
    let mut histogram = empty();
    for value in values {
        histogram.saturating_record(u64::try_from(value).unwrap_or_default());
    }
    histogram
}

#[allow(clippy::expect_used)] // the bounds are constants that a test tries
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds")
}

/// Starts them all and waits for all answers.
pub async fn run(load: &Load, apis: &[Api]) -> Outcome {
    let apis: Arc<[Api]> = apis.into();
    let begin = Instant::now();
    let begin_moment = now();
    let mut starts = JoinSet::new();
    for number in 0..load.count {
        let after = Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / load.rate.max(1);
        tokio::time::sleep_until(begin + after).await;
        let due = begin_moment + crate::moment::micros(after);
        let (apis, request) = (Arc::clone(&apis), (load.request)(number));
        starts.spawn(start(apis, number, due, request));
    }
    let started = starts.join_all().await;
    Outcome { started }
}

async fn start(apis: Arc<[Api]>, number: u64, due: Moment, request: StartSagaRequest) -> Started {
    let deadline = Instant::now() + GIVE_UP_AFTER;
    let mut tries = 0_u32;
    let failure = loop {
        let place = (number + u64::from(tries)) % (apis.len().max(1) as u64);
        let Some(api) = usize::try_from(place).ok().and_then(|place| apis.get(place)) else {
            break Some(Failure { text: "there is no coordinator".to_owned(), is_refused: true });
        };
        tries += 1;
        match tokio::time::timeout(ANSWER_MAX, api.start(request.clone())).await {
            Ok(Ok(_)) => break None,
            Ok(Err(status)) if !may_ask_again(&status) => {
                break Some(Failure { text: format!("{status}"), is_refused: true });
            }
            Ok(Err(status)) if Instant::now() >= deadline => {
                break Some(Failure { text: format!("given up: {status}"), is_refused: false });
            }
            Err(_) if Instant::now() >= deadline => {
                break Some(Failure { text: "given up: no answer".to_owned(), is_refused: false });
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(pause(tries, apis.len())).await,
        }
    };
    Started { id: request.saga_id, due, answered: now(), tries, failure }
}

fn pause(tries: u32, coordinators: usize) -> Duration {
    let rounds = tries / u32::try_from(coordinators.max(1)).unwrap_or(u32::MAX);
    TRY_AGAIN_AFTER.saturating_mul(1 << rounds.min(16)).min(TRY_AGAIN_AFTER_MAX)
}

/// The codes that say so, and whatever our own client made up about a lost connection.
fn may_ask_again(status: &Status) -> bool {
    let says_so =
        matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded);
    says_so || status.source().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_refused_for_good_is_not_asked_again() {
        assert!(!may_ask_again(&Status::invalid_argument("x")));
        assert!(!may_ask_again(&Status::already_exists("x")));
        assert!(may_ask_again(&Status::unavailable("x")));
    }

    #[test]
    fn a_histogram_takes_what_is_out_of_bounds() {
        let histogram = histogram([-5, 10, i64::MAX].into_iter());
        assert_eq!(histogram.len(), 3);
    }
}
