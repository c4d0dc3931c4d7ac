//! What a coordinator has going on, for the wire.

use crate::convert::time::{wire_duration, wire_timestamp};
use backstop_engine::overview::{Overview, ParticipantOverview, Timed};
use backstop_proto::v1;
use backstop_proto::v1::get_overview_response as wire;

/// A coordinator at one moment.
pub(super) fn wire_overview(overview: Overview) -> v1::GetOverviewResponse {
    v1::GetOverviewResponse {
        coordinator: overview.coordinator.to_string(),
        uptime: Some(wire_duration(overview.uptime)),
        sagas_started_count: overview.sagas_started,
        sagas_succeeded_count: overview.sagas_succeeded,
        sagas_rolled_back_count: overview.sagas_rolled_back,
        admissions_refused_count: overview.admissions_refused,
        live_sagas: number(overview.live_sagas),
        live_sagas_max: number(overview.live_sagas_max),
        journal_queue: number(overview.journal_queue),
        journal_queue_max: number(overview.journal_queue_max),
        journal_appends: Some(timed(overview.journal_appends)),
        lease_remaining: Some(wire_duration(overview.lease_remaining)),
        draining: overview.is_draining,
        interventions: overview.interventions,
        oldest_intervention_time: overview.interventions_since.map(wire_timestamp),
        participants: overview.participants.into_iter().map(participant).collect(),
    }
}

fn participant(row: ParticipantOverview) -> wire::ParticipantOverview {
    let breaker = if row.breaker_open { v1::BreakerState::Open } else { v1::BreakerState::Closed };
    wire::ParticipantOverview {
        participant: row.participant.to_string(),
        breaker_state: breaker.into(),
        in_flight: number(row.in_flight),
        in_flight_max: number(row.in_flight_max),
        waiting: number(row.waiting),
        calls: Some(timed(row.calls)),
        failed_count: row.calls_failed,
    }
}

fn timed(timed: Timed) -> wire::Timed {
    wire::Timed {
        count: timed.count,
        recent_count: timed.recent,
        mean: Some(wire_duration(timed.mean)),
        p50: Some(wire_duration(timed.p50)),
        p99: Some(wire_duration(timed.p99)),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
