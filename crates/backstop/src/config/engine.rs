//! The engine's limits and intervals, and the error domains.
//!
//! # Not here
//! Their meaning: `backstop_engine::Settings`; their defaults: `default.toml`, which a test holds against the code's.

use super::reader::Reader;
use backstop_core::breaker::BreakerPolicy;
use backstop_core::{Code, ErrorTable, FinCode, RetryRule, Row, Tier, tier};
use backstop_engine::Settings;
use backstop_engine::ports::store::Retention;
use config::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most sagas that one metric may name at once: each is a time series of its own.
const L1_SHOWN_MAX: usize = 256;

/// Reads them, and checks what one of them asks of another.
pub(super) fn read(reader: &mut Reader) -> Settings {
    let settings = Settings {
        live_sagas_max: reader.count("limits.live_sagas_max"),
        takeover_reserve: reader.count("limits.takeover_reserve"),
        journal_queue_max: reader.count("journal.queue_max"),
        batch_events_max: reader.count("journal.batch_events_max"),
        batch_bytes_max: reader.count("journal.batch_bytes_max"),
        ride_along_max: reader.duration("journal.ride_along_max"),
        busy_retry_after: reader.duration("limits.busy_retry_after"),
        signal_timeout: reader.duration("signals.timeout"),
        signal_attempts_max: reader.count("signals.attempts_max"),
        lease_ttl: reader.duration("lease.ttl"),
        lease_renew_every: reader.duration("lease.renew_every"),
        takeover_every: reader.duration("lease.takeover_every"),
        takeover_batch_max: reader.count("lease.takeover_batch_max"),
        set_aside_for: reader.duration("lease.set_aside_for"),
        park_after: reader.duration("limits.park_after"),
        park_max: reader.duration("limits.park_max"),
        command_patience: reader.duration("limits.command_patience"),
        peer_timeout: reader.duration("limits.peer_timeout"),
        breaker: BreakerPolicy {
            calls_min: reader.count("breaker.calls_min"),
            failures_percent: reader.count("breaker.failures_percent"),
            window: reader.duration("breaker.window"),
            open_for: reader.duration("breaker.open_for"),
        },
        in_flight_max_default: reader.count("participants.in_flight_max"),
        calls_waiting_max: reader.count("participants.calls_waiting_max"),
        watch_poll_every: reader.duration("limits.watch_poll_every"),
        retelling_queue_max: reader.count("telemetry.retelling_queue_max"),
        retold_within: reader.duration("telemetry.retold_within"),
        retention: Retention {
            journals_for: reader.duration("retention.journals_for"),
            ids_for: reader.duration("retention.ids_for"),
        },
        retention_every: reader.duration("retention.every"),
        retention_batch_max: reader.count("retention.batch_max"),
        doctor_findings_max: reader.count("limits.doctor_findings_max"),
        doctor_every: reader.duration_or_never("doctor.every"),
        doctor_sample: reader.count("doctor.sample"),
        doctor_run_max: reader.duration("doctor.run_max"),
        interventions_counted_every: reader.duration("limits.interventions_counted_every"),
        interventions_counted_max: reader.count("limits.interventions_counted_max"),
        l1_shown_max: reader.count_within("telemetry.l1_shown_max", 0..=L1_SHOWN_MAX),
        l1_shown_for: reader.duration("telemetry.l1_shown_for"),
        wait_max: reader.duration("limits.wait_max"),
        input_bytes_max: reader.count("limits.input_bytes_max"),
        labels_max: reader.count("limits.labels_max"),
        label_bytes_max: reader.count("limits.label_bytes_max"),
        definition_bytes_max: reader.count("limits.definition_bytes_max"),
        compiled_revisions_max: reader.count("limits.compiled_revisions_max"),
        newest_revision_age_max: reader.duration("limits.newest_revision_age_max"),
        resets_per_second_max: reader.count("participants.resets_per_second_max"),
        error_domains: error_domains(reader),
    };
    if settings.lease_renew_every * 3 > settings.lease_ttl {
        reader.fault(
            "lease.renew_every",
            "must be at most a third of lease.ttl, so that one lost renewal does no harm",
        );
    }
    if settings.retention.ids_for < settings.retention.journals_for {
        reader.fault("retention.ids_for", "must not be shorter than retention.journals_for");
    }
    if settings.retention.journals_for < settings.signal_timeout * settings.signal_attempts_max * 2 {
        reader.fault(
            "retention.journals_for",
            "must be longer than twice what signals.timeout and signals.attempts_max allow: a rollback signal may be \
             reported after the saga's end",
        );
    }
    if settings.park_max < settings.park_after {
        reader.fault("limits.park_max", "must not be shorter than limits.park_after");
    }
    if settings.command_patience < settings.lease_ttl {
        reader.fault("limits.command_patience", "must not be shorter than lease.ttl");
    }
    if settings.breaker.failures_percent > 100 {
        reader.fault("breaker.failures_percent", "must be at most 100");
    }
    settings
}

fn error_domains(reader: &mut Reader) -> BTreeMap<String, Arc<ErrorTable>> {
    let mut domains = BTreeMap::new();
    for (domain, rows) in reader.table("error_domains") {
        let mut table = ErrorTable::default();
        for (name, row) in rows.into_table().unwrap_or_default() {
            // Keys come in lower case from the environment.
            let key = format!("error_domains.{domain}.{name}");
            let code = Code::parse(&name.to_uppercase()).filter(|code| *code != Code::Ok);
            match code {
                Some(code) => table = table.with(code, error_row(reader, &key, code, row)),
                None => reader.fault(&key, "is not the name of a gRPC status that a failure can have"),
            }
        }
        domains.insert(domain, Arc::new(table));
    }
    domains
}

/// A row of the table: what is not said stays as it is by default.
fn error_row(reader: &mut Reader, key: &str, code: Code, value: Value) -> Row {
    let mut row = tier(&ErrorTable::default(), code);
    for (field, value) in value.into_table().unwrap_or_default() {
        let at = format!("{key}.{field}");
        let text = value.clone().into_string().unwrap_or_default();
        let understood = match field.as_str() {
            "fin_code" => FinCode::parse(&text).map(|code| row.fin_code = code),
            "tier" => Tier::parse(&text).map(|tier| row.tier = tier),
            "http_status" => {
                text.parse().ok().filter(|s| (400..600).contains(s)).map(|s| row.http_status = s)
            }
            "retry" => value.into_bool().ok().map(|retry| {
                row.retry = if retry { RetryRule::Policy } else { RetryRule::Never };
            }),
            _ => None,
        };
        if understood.is_none() {
            let known = "fin_code \"FIN-nnnnn\", tier L1 L2 L3, http_status 400 to 599, retry true or false";
            reader.fault(&at, format!("\"{text}\" is not understood; a row has {known}"));
        }
    }
    row
}
