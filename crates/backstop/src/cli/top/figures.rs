//! What two looks at the coordinators come to: rates, sums, and who is slow. Pure.
//!
//! # Invariants
//! * A rate is a difference of a coordinator's own counters over its own clock; one that was restarted in between has
//!   none yet (`a_coordinator_that_was_restarted_has_no_rate_yet`).
//! * What is store-wide is not added up over coordinators (`interventions_are_not_added_up`).
//! * Quantiles of several coordinators cannot be merged: a participant's are those of the coordinator for which it is
//!   slowest.
//!
//! # Not here
//! How it is asked for (`sample`), and how it looks (`screen`).

use super::sample::{Sample, Seen};
use backstop_proto::v1::get_overview_response::{ParticipantOverview, Timed};
use backstop_proto::v1::{BreakerState, GetOverviewResponse};
use std::collections::BTreeMap;
use std::time::Duration;

/// What participants are ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// The slowest first, by p99
    #[default]
    Slowest,
    /// Those called most first
    Busiest,
    /// Those that fail most first
    Failing,
    /// By name
    Name,
}

impl Order {
    /// The next one, for a key that goes round.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Slowest => Self::Busiest,
            Self::Busiest => Self::Failing,
            Self::Failing => Self::Name,
            Self::Name => Self::Slowest,
        }
    }

    /// As the screen names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slowest => "slowest",
            Self::Busiest => "busiest",
            Self::Failing => "failing",
            Self::Name => "name",
        }
    }
}

/// All that is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) total: Total,
    pub(super) coordinators: Vec<CoordinatorFigures>,
    pub(super) participants: Vec<ParticipantFigures>,
    pub(super) note: String,
}

/// Over all coordinators that answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Total {
    pub(super) answering: usize,
    pub(super) started_per_second: Option<f64>,
    pub(super) ended_per_second: Option<f64>,
    pub(super) refused_per_second: Option<f64>,
    /// Of the sagas that ended, how many were undone; `None` if none ended.
    pub(super) rolled_back_share: Option<f64>,
    pub(super) live: u64,
    pub(super) live_max: u64,
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    pub(super) breakers_open: usize,
    pub(super) interventions: u64,
    pub(super) oldest_intervention: Option<Duration>,
}

/// One coordinator.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CoordinatorFigures {
    pub(super) id: String,
    pub(super) address: String,
    /// Why there are no figures, if there are none.
    pub(super) figures: Result<Own, String>,
}

/// What one coordinator says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Own {
    pub(super) started_per_second: Option<f64>,
    pub(super) ended_per_second: Option<f64>,
    pub(super) live: u32,
    pub(super) live_max: u32,
    pub(super) queue: u32,
    pub(super) queue_max: u32,
    pub(super) append_p50: Option<Duration>,
    pub(super) append_p99: Option<Duration>,
    pub(super) lease: Duration,
    pub(super) is_draining: bool,
}

/// One participant, over all coordinators that answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ParticipantFigures {
    pub(super) name: String,
    /// Coordinators that keep calls to it back.
    pub(super) breakers_open: usize,
    pub(super) calls_per_second: Option<f64>,
    /// Of the calls that came back, how many failed; `None` if none came back.
    pub(super) failed_share: Option<f64>,
    pub(super) in_flight: u64,
    pub(super) in_flight_max: u64,
    pub(super) waiting: u64,
    pub(super) mean: Option<Duration>,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
}

/// What the present look comes to, against the earliest of those before in which each coordinator was seen. Without one
/// there are no rates.
pub(super) fn figures(earlier: &[&Sample], present: &Sample, order: Order) -> Figures {
    let before = |seen: &Seen| {
        let earlier = earlier.iter().flat_map(|sample| &sample.coordinators);
        earlier.filter(|was| was.id == seen.id).find_map(|was| was.overview.as_ref().ok())
    };
    let pairs: Vec<Pair<'_>> = present
        .coordinators
        .iter()
        .filter_map(|seen| {
            let now = seen.overview.as_ref().ok()?;
            Some(Pair { was: before(seen).filter(|was| uptime(was) < uptime(now)), now })
        })
        .collect();
    let coordinators = present.coordinators.iter().map(|seen| CoordinatorFigures {
        id: seen.id.clone(),
        address: seen.address.clone(),
        figures: match &seen.overview {
            Ok(now) => Ok(own(&Pair { was: before(seen).filter(|was| uptime(was) < uptime(now)), now })),
            Err(why) => Err(why.clone()),
        },
    });
    let mut participants = participants(&pairs);
    sort(&mut participants, order);
    Figures {
        total: total(&pairs, &participants, present),
        coordinators: coordinators.collect(),
        participants,
        note: present.note.clone(),
    }
}

/// A coordinator now, and earlier if it was there.
struct Pair<'a> {
    was: Option<&'a GetOverviewResponse>,
    now: &'a GetOverviewResponse,
}

impl Pair<'_> {
    /// How much a counter has grown, and over how many seconds.
    fn growth(&self, counter: impl Fn(&GetOverviewResponse) -> u64) -> Option<(u64, f64)> {
        let was = self.was?;
        let seconds = (uptime(self.now) - uptime(was)).as_secs_f64();
        Some((counter(self.now).saturating_sub(counter(was)), seconds))
    }

    fn rate(&self, counter: impl Fn(&GetOverviewResponse) -> u64) -> Option<f64> {
        self.growth(counter).map(|(grown, seconds)| as_float(grown) / seconds)
    }
}

fn uptime(overview: &GetOverviewResponse) -> Duration {
    overview.uptime.map(duration).unwrap_or_default()
}

fn duration(wire: prost_types::Duration) -> Duration {
    Duration::try_from(wire).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn as_float(count: u64) -> f64 {
    count as f64
}

/// The sum of what is there; `None` if nothing is.
fn sum(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().reduce(|a, b| a + b)
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| as_float(part) / as_float(whole))
}

fn ended(overview: &GetOverviewResponse) -> u64 {
    overview.sagas_succeeded_count + overview.sagas_rolled_back_count
}

fn own(pair: &Pair<'_>) -> Own {
    let now = pair.now;
    let append = |pick: fn(&Timed) -> Option<prost_types::Duration>| {
        now.journal_appends.as_ref().filter(|timed| timed.recent_count > 0).and_then(pick).map(duration)
    };
    Own {
        started_per_second: pair.rate(|overview| overview.sagas_started_count),
        ended_per_second: pair.rate(ended),
        live: now.live_sagas,
        live_max: now.live_sagas_max,
        queue: now.journal_queue,
        queue_max: now.journal_queue_max,
        append_p50: append(|timed| timed.p50),
        append_p99: append(|timed| timed.p99),
        lease: now.lease_remaining.map(duration).unwrap_or_default(),
        is_draining: now.draining,
    }
}

fn total(pairs: &[Pair<'_>], participants: &[ParticipantFigures], present: &Sample) -> Total {
    let growth = |counter: fn(&GetOverviewResponse) -> u64| -> u64 {
        pairs.iter().filter_map(|pair| pair.growth(counter)).map(|(grown, _)| grown).sum()
    };
    let rate = |counter: fn(&GetOverviewResponse) -> u64| sum(pairs.iter().map(|pair| pair.rate(counter)));
    let oldest = pairs.iter().filter_map(|pair| pair.now.oldest_intervention_time.as_ref());
    let ages = oldest.filter_map(|since| crate::cli::text::between(Some(since), Some(&present.time)));
    Total {
        answering: pairs.len(),
        started_per_second: rate(|overview| overview.sagas_started_count),
        ended_per_second: rate(ended),
        refused_per_second: rate(|overview| overview.admissions_refused_count),
        rolled_back_share: share(growth(|overview| overview.sagas_rolled_back_count), growth(ended)),
        live: pairs.iter().map(|pair| u64::from(pair.now.live_sagas)).sum(),
        live_max: pairs.iter().map(|pair| u64::from(pair.now.live_sagas_max)).sum(),
        in_flight: participants.iter().map(|row| row.in_flight).sum(),
        waiting: participants.iter().map(|row| row.waiting).sum(),
        breakers_open: participants.iter().filter(|row| row.breakers_open > 0).count(),
        interventions: pairs.iter().map(|pair| pair.now.interventions).max().unwrap_or(0),
        oldest_intervention: ages.max(),
    }
}

fn participants(pairs: &[Pair<'_>]) -> Vec<ParticipantFigures> {
    let mut by_name: BTreeMap<&str, Gathered> = BTreeMap::new();
    for pair in pairs {
        for row in &pair.now.participants {
            let was =
                pair.was.and_then(|was| was.participants.iter().find(|r| r.participant == row.participant));
            by_name.entry(&row.participant).or_default().add(pair, row, was);
        }
    }
    by_name.into_iter().map(|(name, gathered)| gathered.figures(name)).collect()
}

/// A participant's figures while they are added up.
#[derive(Default)]
struct Gathered {
    row: ParticipantFigures,
    came_back: u64,
    failed: u64,
    recent: u64,
    recent_time: Duration,
}

impl Gathered {
    fn add(&mut self, pair: &Pair<'_>, now: &ParticipantOverview, was: Option<&ParticipantOverview>) {
        let calls = |row: &ParticipantOverview| row.calls.as_ref().map_or(0, |calls| calls.count);
        let row = &mut self.row;
        row.breakers_open += usize::from(now.breaker_state() == BreakerState::Open);
        row.in_flight += u64::from(now.in_flight);
        row.in_flight_max += u64::from(now.in_flight_max);
        row.waiting += u64::from(now.waiting);
        // One that was not there earlier had not been called: it has grown from nothing.
        if let Some((_, seconds)) = pair.growth(|_| 0) {
            let grown = calls(now).saturating_sub(was.map_or(0, calls));
            row.calls_per_second = sum([row.calls_per_second, Some(as_float(grown) / seconds)].into_iter());
            self.came_back += grown;
            self.failed += now.failed_count.saturating_sub(was.map_or(0, |was| was.failed_count));
        }
        let Some(timed) = now.calls.as_ref().filter(|timed| timed.recent_count > 0) else { return };
        self.recent += timed.recent_count;
        let times = u32::try_from(timed.recent_count).unwrap_or(u32::MAX);
        let mean = timed.mean.map(duration).unwrap_or_default();
        self.recent_time = self.recent_time.saturating_add(mean.saturating_mul(times));
        row.p50 = row.p50.max(timed.p50.map(duration));
        row.p99 = row.p99.max(timed.p99.map(duration));
    }

    fn figures(self, name: &str) -> ParticipantFigures {
        let times = u32::try_from(self.recent).unwrap_or(u32::MAX);
        ParticipantFigures {
            name: name.to_owned(),
            failed_share: share(self.failed, self.came_back),
            mean: self.recent_time.checked_div(times),
            ..self.row
        }
    }
}

/// Open breakers first, whatever the order: they keep everything back that follows.
fn sort(rows: &mut [ParticipantFigures], order: Order) {
    // By name to begin with: equals keep that order.
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let descending = |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
    match order {
        Order::Name => return,
        Order::Slowest => rows.sort_by_key(|row| std::cmp::Reverse(row.p99)),
        Order::Busiest => rows.sort_by(|a, b| descending(a.calls_per_second, b.calls_per_second)),
        Order::Failing => rows.sort_by(|a, b| descending(a.failed_share, b.failed_share)),
    }
    rows.sort_by_key(|row| row.breakers_open == 0);
}
