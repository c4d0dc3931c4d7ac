//! The figures for programs. Rates and shares that are not known are null; times are in seconds.

use super::figures::{CoordinatorFigures, Figures, ParticipantFigures};
use crate::cli::text::time;
use serde_json::{Value, json};
use std::time::Duration;

/// All of it as one JSON document.
pub(super) fn document(at: prost_types::Timestamp, figures: &Figures) -> Value {
    let total = &figures.total;
    json!({
        "time": time(Some(&at)),
        "note": figures.note,
        "total": {
            "coordinatorsAnswering": total.answering,
            "sagasStartedPerSecond": total.started_per_second,
            "sagasEndedPerSecond": total.ended_per_second,
            "admissionsRefusedPerSecond": total.refused_per_second,
            "rolledBackShare": total.rolled_back_share,
            "liveSagas": total.live,
            "liveSagasMax": total.live_max,
            "callsInFlight": total.in_flight,
            "callsWaiting": total.waiting,
            "breakersOpen": total.breakers_open,
            "interventions": total.interventions,
            "oldestInterventionSeconds": total.oldest_intervention.map(|waited| waited.as_secs()),
        },
        "coordinators": figures.coordinators.iter().map(coordinator).collect::<Vec<_>>(),
        "participants": figures.participants.iter().map(participant).collect::<Vec<_>>(),
    })
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

fn coordinator(row: &CoordinatorFigures) -> Value {
    let CoordinatorFigures { id, address, figures } = row;
    match figures {
        Err(why) => json!({ "id": id, "address": address, "unreachable": why }),
        Ok(own) => json!({
            "id": id,
            "address": address,
            "sagasStartedPerSecond": own.started_per_second,
            "sagasEndedPerSecond": own.ended_per_second,
            "liveSagas": own.live,
            "liveSagasMax": own.live_max,
            "journalQueue": own.queue,
            "journalQueueMax": own.queue_max,
            "journalAppendP50Seconds": seconds(own.append_p50),
            "journalAppendP99Seconds": seconds(own.append_p99),
            "leaseRemainingSeconds": own.lease.as_secs_f64(),
            "draining": own.is_draining,
        }),
    }
}

fn participant(row: &ParticipantFigures) -> Value {
    json!({
        "participant": row.name,
        "breakersOpen": row.breakers_open,
        "callsPerSecond": row.calls_per_second,
        "failedShare": row.failed_share,
        "inFlight": row.in_flight,
        "inFlightMax": row.in_flight_max,
        "waiting": row.waiting,
        "meanSeconds": seconds(row.mean),
        "p50Seconds": seconds(row.p50),
        "p99Seconds": seconds(row.p99),
    })
}
