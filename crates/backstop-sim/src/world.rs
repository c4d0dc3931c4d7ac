//! The world: its parts, what is counted, and the judges that see all of it.
//!
//! # Invariants
//! * The first violation ends the run; what comes after it proves nothing.

use crate::bank::Bank;
use crate::clients::Promises;
use crate::coverage::{Coverage, Point, point_name};
use crate::disk::Disk;
use crate::held;
use crate::log::Log;
use crate::machines::Machines;
use crate::net::Net;
use crate::options::{Class, Options};
use crate::plan::{Plan, Plans};
use crate::process::{Process, Watcher};
use crate::time::StoreTime;
use backstop_core::transcript::transcript;
use backstop_core::{DefinitionName, Epoch, Event, EventKind, ParticipantName, Saga, SagaId, Seq, replay};
use backstop_engine::memory_store::MemoryStore;
use backstop_engine::ports::store::{Append, Journal, Store};
use backstop_invariants::{Seen, Witness, kind_name};
use futures::FutureExt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The world.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) plans: Plans,
    pub(crate) log: Log,
    pub(crate) net: Net,
    pub(crate) disk: Disk,
    pub(crate) bank: Bank,
    pub(crate) time: Arc<StoreTime>,
    /// What is durable. Asked by the world itself it answers at once.
    pub(crate) data: MemoryStore,
    pub(crate) machines: Machines,
    pub(crate) promises: Mutex<Promises>,
    coverage: Mutex<Coverage>,
    witnesses: Mutex<BTreeMap<SagaId, Witness>>,
    broken: Mutex<Option<Broken>>,
    /// True from the first violation on.
    is_broken: tokio::sync::watch::Sender<bool>,
}

/// A violation.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) saga: Option<SagaId>,
    pub(crate) what: String,
}

impl World {
    pub(crate) fn new(options: Options) -> Result<Arc<Self>, String> {
        let plans = Plans::of(&options)?;
        let seed = options.seed;
        let time = Arc::new(StoreTime::new(plans.drift));
        let clock = Arc::clone(&time);
        let keyed: Vec<bool> = plans.cast.iter().map(|habits| habits.keyed).collect();
        Ok(Arc::new(Self {
            net: Net::new(seed, options.has(Class::Network)),
            disk: Disk::new(seed, options.has(Class::Fates)),
            bank: Bank::new(seed, options.has(Class::Participants), &keyed),
            data: MemoryStore::with_clock(move || clock.now()).shared(),
            machines: Machines::new(plans.machines),
            log: Log::new(),
            options,
            plans,
            time,
            promises: Mutex::default(),
            coverage: Mutex::default(),
            witnesses: Mutex::default(),
            broken: Mutex::default(),
            is_broken: tokio::sync::watch::channel(false).0,
        }))
    }

    pub(crate) fn count(&self, group: &'static str, name: impl Into<String>) {
        held(&self.coverage).count(group, name);
    }

    pub(crate) fn count_many(&self, group: &'static str, name: &'static str, times: u64) {
        held(&self.coverage).count_many(group, name, times);
    }

    pub(crate) fn count_fault(&self, name: &'static str) {
        debug_assert!(crate::faults::NAMES.contains(&name), "{name}");
        self.count("fault", name);
    }

    pub(crate) fn coverage(&self) -> Coverage {
        held(&self.coverage).clone()
    }

    /// Notes what must never happen. The first counts.
    pub(crate) fn broke(&self, saga: Option<&SagaId>, what: impl Into<String>) {
        let what = what.into();
        self.log.say("VIOLATED", &what);
        held(&self.broken).get_or_insert(Broken { saga: saga.cloned(), what });
        self.is_broken.send_replace(true);
    }

    pub(crate) fn broken(&self) -> Option<Broken> {
        held(&self.broken).clone()
    }

    /// Resolves at the first violation.
    pub(crate) async fn breaks(&self) {
        let mut is_broken = self.is_broken.subscribe();
        let _ = is_broken.wait_for(|is_broken| *is_broken).await;
    }

    pub(crate) fn participant(&self, name: &ParticipantName) -> Option<usize> {
        self.plans.cast.iter().position(|habits| habits.name == *name)
    }

    pub(crate) fn plan(&self, name: &DefinitionName) -> Option<&Plan> {
        self.plans.plans.iter().find(|plan| plan.definition.reference.name == *name)
    }

    /// What a step of a saga moves.
    pub(crate) fn amount(&self, saga: &Saga, step: usize) -> i128 {
        let plan = self.plan(&saga.definition.reference.name);
        plan.and_then(|plan| plan.amounts.get(step)).copied().unwrap_or(0)
    }

    /// A saga as it stands in the store.
    pub(crate) fn journal(&self, saga: &SagaId) -> Option<Journal> {
        self.data.journal(saga).now_or_never().and_then(Result::ok).flatten()
    }

    /// The saga that its journal in the store makes.
    pub(crate) fn saga(&self, saga: &SagaId) -> Option<Saga> {
        let journal = self.journal(saga)?;
        let plan = self.plan(&journal.head.definition.name)?;
        replay(saga.clone(), Arc::clone(&plan.definition), &journal.events).ok()
    }

    pub(crate) fn transcript(&self, saga: &SagaId) -> String {
        self.journal(saga).map(|journal| transcript(&journal.events)).unwrap_or_default()
    }

    /// Shows a witness what has happened to its saga.
    pub(crate) fn see(&self, saga: &SagaId, seen: Seen<'_>) {
        let verdict = match held(&self.witnesses).get_mut(saga) {
            Some(witness) => witness.see(seen),
            None => {
                self.broke(Some(saga), format!("I4: {seen:?} of a saga that is not durable"));
                return;
            }
        };
        if let Err(violation) = verdict {
            self.broke(Some(saga), format!("{violation} ({})", violation.invariant.forbids()));
        }
    }

    /// Asks a witness something at the end.
    pub(crate) fn judge<E: ToString>(&self, saga: &SagaId, ask: impl FnOnce(&Witness) -> Result<(), E>) {
        let verdict = held(&self.witnesses).get(saga).map(ask);
        if let Some(Err(violation)) = verdict {
            self.broke(Some(saga), violation.to_string());
        }
    }

    /// What the store has just answered `Written` for, whether or not anybody hears it.
    pub(crate) fn durable(&self, append: &Append, before: Seq, process: &Process) {
        let by = append.head.epoch;
        for event in &append.events {
            let is_new = event.seq > before;
            if is_new {
                let line = backstop_core::transcript::line(event, 8);
                self.log
                    .say("store", &format!("{} {line} by {} epoch {}", append.saga, process.name(), by.0));
            }
            self.begin_to_watch(&append.saga, event);
            self.see(&append.saga, Seen::Durable { by, event: &Arc::new(event.clone()) });
            if is_new {
                process.wrote(kind_name(&event.kind));
            }
        }
    }

    fn begin_to_watch(&self, saga: &SagaId, event: &Event) {
        let EventKind::Started(started) = &event.kind else { return };
        let Some(plan) = self.plan(&started.definition.name) else { return };
        let fresh = || Witness::new(saga.clone(), Arc::clone(&plan.definition));
        held(&self.witnesses).entry(saga.clone()).or_insert_with(fresh);
    }

    /// Somebody has been told that all up to this event is durable.
    pub(crate) fn acknowledged(&self, saga: &SagaId, by: Epoch, seq: Seq) {
        self.see(saga, Seen::Acknowledged { by, seq });
    }

    /// The store was read.
    pub(crate) fn was_read(&self, saga: &SagaId, events: &[Event]) {
        let events: Vec<Arc<Event>> = events.iter().cloned().map(Arc::new).collect();
        self.see(saga, Seen::Read(&events));
    }

    pub(crate) fn sagas(&self) -> Vec<SagaId> {
        held(&self.witnesses).keys().cloned().collect()
    }
}

impl Watcher for World {
    fn crashed(&self, process: u32, last: Option<Point>, durable: Option<&'static str>) {
        let at = last.map_or_else(|| "nowhere".to_owned(), point_name);
        self.log.say(&format!("node-{process}"), &format!("CRASHES, last {at}"));
        self.count_fault("a coordinator crashes");
        if let Some(last) = last {
            self.count("crash point", point_name(last));
        }
        if let Some(durable) = durable {
            self.count("durable before a crash", durable);
        }
    }

    fn panicked(&self, process: u32, what: String) {
        self.broke(None, format!("a task of node-{process} panicked: {what}"));
    }
}
