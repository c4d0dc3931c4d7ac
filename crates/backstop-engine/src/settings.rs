//! Every limit of the engine: its name, its default and its unit. The binary's configuration fills it.

use crate::ports::store::Retention;
use backstop_core::ErrorTable;
use backstop_core::breaker::BreakerPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Limits and intervals of one coordinator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sagas in memory at once; past it StartSaga answers RESOURCE_EXHAUSTED.
    pub live_sagas_max: usize,
    /// Of these, places that new sagas leave free for taking over others and for operators' commands; at most a tenth.
    pub takeover_reserve: usize,
    /// Appends that wait for the journal's writer; past it StartSaga answers RESOURCE_EXHAUSTED and
    /// running sagas wait.
    pub journal_queue_max: usize,
    /// Events in one write; at least one append goes in whatever its size.
    pub batch_events_max: usize,
    /// Bytes of inputs, payloads and replies in one write; at least one append goes in whatever its size. A statement of
    /// Postgres takes 1 GiB at the most, and a batch is in memory some three times while it is written.
    pub batch_bytes_max: usize,
    /// How long a success that nothing waits for may wait for the next write.
    pub ride_along_max: Duration,
    /// What a StartSaga is told to wait when it is refused for load.
    pub busy_retry_after: Duration,
    /// Time for one attempt to deliver a rollback signal.
    pub signal_timeout: Duration,
    /// Attempts to deliver a rollback signal.
    pub signal_attempts_max: u32,
    /// How long a lease lasts unless it is renewed.
    pub lease_ttl: Duration,
    /// How often a lease is renewed.
    pub lease_renew_every: Duration,
    /// How often sagas without a live owner are looked for.
    pub takeover_every: Duration,
    /// Sagas taken over in one bite.
    pub takeover_batch_max: usize,
    /// How long a saga that this version of the program cannot read is left to others before it is looked at
    /// again.
    pub set_aside_for: Duration,
    /// A saga for which nothing can be done for longer than this leaves memory and comes back when its time
    /// has come, on any coordinator.
    pub park_after: Duration,
    /// Longest time away for a saga whose participant takes no calls; it doubles each time in vain up to this.
    pub park_max: Duration,
    /// How long a command is carried after a saga that another coordinator drives before the caller is told to
    /// ask again. Longer than a lease, so that the death of that coordinator is waited out.
    pub command_patience: Duration,
    /// Time for one attempt to reach another coordinator.
    pub peer_timeout: Duration,
    /// When a participant's circuit breaker opens.
    pub breaker: BreakerPolicy,
    /// Calls in flight to a participant whose registration does not say.
    pub in_flight_max_default: u32,
    /// Calls that wait for a permit of one participant; past it, StartSaga of a definition that calls it answers
    /// RESOURCE_EXHAUSTED.
    pub calls_waiting_max: usize,
    /// How often WatchSaga asks the store for events of a saga that another coordinator drives.
    pub watch_poll_every: Duration,
    /// Sagas whose traces wait to be told from their journals; more are counted as untold.
    pub retelling_queue_max: usize,
    /// How old the last events of a dead coordinator may be, at the takeover, to be told again: those before are out,
    /// since it had its lease and its exporter for longer than that.
    pub retold_within: Duration,
    /// How long what has ended is kept.
    pub retention: Retention,
    /// How often it is looked for what can be retired.
    pub retention_every: Duration,
    /// Sagas retired in one bite.
    pub retention_batch_max: usize,
    /// Things found by one run of the doctor; past it the run ends and says so.
    pub doctor_findings_max: usize,
    /// How often the doctor runs by itself; zero: never.
    pub doctor_every: Duration,
    /// Journals that such a run replays: those of the newest sagas.
    pub doctor_sample: usize,
    /// How long such a run may take.
    pub doctor_run_max: Duration,
    /// How often those who wait for a person are counted, beside whenever this coordinator changes their number.
    pub interventions_counted_every: Duration,
    /// Sagas looked at in one count.
    pub interventions_counted_max: usize,
    /// The newest L1 failures that the metric `backstop_l1_failure` names at once; 0: none.
    pub l1_shown_max: usize,
    /// For how long it names each.
    pub l1_shown_for: Duration,
    /// Longest `wait` of StartSaga.
    pub wait_max: Duration,
    /// Bytes of a saga's input, as JSON, and of each raw payload.
    pub input_bytes_max: usize,
    /// Labels of one saga.
    pub labels_max: usize,
    /// Bytes of a label's key or value.
    pub label_bytes_max: usize,
    /// Bytes of a definition.
    pub definition_bytes_max: usize,
    /// Revisions kept compiled.
    pub compiled_revisions_max: usize,
    /// How old the answer to "which revision is the newest" may be: a revision registered on another
    /// coordinator is used here after this long at the latest.
    pub newest_revision_age_max: Duration,
    /// Calls that are reset in a second under `on_failure: CANCEL`; a burst of resets makes peers close
    /// the connection that other calls share.
    pub resets_per_second_max: u32,
    /// Error domains beside the default one, which is named by the empty text.
    pub error_domains: BTreeMap<String, Arc<ErrorTable>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            live_sagas_max: 10_000,
            takeover_reserve: 256,
            journal_queue_max: 16_384,
            batch_events_max: 4_096,
            batch_bytes_max: 32 << 20,
            ride_along_max: Duration::from_millis(100),
            busy_retry_after: Duration::from_millis(500),
            signal_timeout: Duration::from_secs(2),
            signal_attempts_max: 3,
            lease_ttl: Duration::from_secs(5),
            lease_renew_every: Duration::from_secs(1),
            takeover_every: Duration::from_millis(250),
            takeover_batch_max: 128,
            set_aside_for: Duration::from_secs(60),
            park_after: Duration::from_secs(10),
            park_max: Duration::from_secs(300),
            command_patience: Duration::from_secs(10),
            peer_timeout: Duration::from_secs(2),
            breaker: BreakerPolicy::default(),
            in_flight_max_default: 256,
            calls_waiting_max: 1_024,
            watch_poll_every: Duration::from_millis(200),
            retelling_queue_max: 1024,
            retold_within: Duration::from_secs(30),
            retention: Retention {
                journals_for: Duration::from_secs(30 * 24 * 3600),
                ids_for: Duration::from_secs(90 * 24 * 3600),
            },
            retention_every: Duration::from_secs(60),
            retention_batch_max: 500,
            doctor_findings_max: 1_000,
            doctor_every: Duration::from_secs(15 * 60),
            doctor_sample: 100,
            doctor_run_max: Duration::from_secs(60),
            interventions_counted_every: Duration::from_secs(15),
            interventions_counted_max: 100_000,
            l1_shown_max: 16,
            l1_shown_for: Duration::from_secs(600),
            wait_max: Duration::from_secs(600),
            input_bytes_max: 1 << 20,
            labels_max: 16,
            label_bytes_max: 128,
            definition_bytes_max: 1 << 20,
            compiled_revisions_max: 1_024,
            newest_revision_age_max: Duration::from_secs(1),
            resets_per_second_max: 500,
            error_domains: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// The table of an error domain; `None` if there is no such domain.
    #[must_use]
    pub fn error_table(&self, domain: &str) -> Option<Arc<ErrorTable>> {
        match self.error_domains.get(domain) {
            Some(table) => Some(Arc::clone(table)),
            None if domain.is_empty() => Some(Arc::new(ErrorTable::default())),
            None => None,
        }
    }
}
