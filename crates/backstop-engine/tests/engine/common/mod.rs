//! A small world for the engine: one disk, a bank, and as many coordinators as the story wants.
//!
//! Time is tokio's and paused: it moves only when everybody waits, so no real time decides anything.

// Each module of stories uses a part of this.
#![allow(dead_code)]

pub(crate) mod bank;
pub(crate) mod disk;
pub(crate) mod net;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod told;

use backstop_core::transcript::transcript;
use backstop_core::{DefinitionName, Saga, SagaId, SagaState, Seq};
use backstop_engine::ports::machine::ThisMachine;
use backstop_engine::{Coordinator, EngineError, Ports, Settings, StartSaga, StartedSaga};
use bank::{Bank, BankOf};
use bytes::Bytes;
use disk::{Disk, DiskOf};
use net::{Net, PeersOf};
use plan::Plan;
use process::Process;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use told::Told;

/// No story takes longer than this, by its own clock.
const STORY_MAX: Duration = Duration::from_secs(3600);

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn id(text: &str) -> SagaId {
    SagaId::parse(text).unwrap()
}

/// Waits until everybody waits for something: nothing more happens at this instant.
pub(crate) async fn quiet() {
    tokio::time::sleep(ms(1)).await;
}

/// Waits, by the story's clock, until it holds.
#[track_caller]
pub(crate) fn until(what: &'static str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let give_up = Instant::now() + STORY_MAX;
    let place = std::panic::Location::caller();
    async move {
        while !holds() {
            assert!(Instant::now() < give_up, "{place}: it never came to this: {what}");
            tokio::time::sleep(ms(1)).await;
        }
    }
}

/// Disk and bank.
pub(crate) struct World {
    pub(crate) disk: Arc<Disk>,
    pub(crate) bank: Arc<Bank>,
    pub(crate) net: Arc<Net>,
    pub(crate) traces: Arc<Told>,
    processes: AtomicU32,
}

/// One coordinator and its process.
pub(crate) struct Node {
    pub(crate) coordinator: Coordinator,
    process: Arc<Process>,
}

impl World {
    pub(crate) fn new() -> Self {
        let disk = Disk::new();
        let bank = Bank::new(&disk);
        Self { disk, bank, net: Arc::default(), traces: Arc::default(), processes: AtomicU32::new(1) }
    }

    /// A coordinator with the settings as they come.
    pub(crate) async fn node(&self) -> Node {
        self.node_with(|_| {}).await
    }

    pub(crate) async fn node_with(&self, change: impl FnOnce(&mut Settings)) -> Node {
        let mut settings = Settings::default();
        change(&mut settings);
        let process = Process::new(self.processes.fetch_add(1, Ordering::Relaxed));
        let store = DiskOf { disk: Arc::clone(&self.disk), process: Arc::clone(&process) };
        let bank = BankOf { bank: Arc::clone(&self.bank), process: Arc::clone(&process) };
        let peers = PeersOf { net: Arc::clone(&self.net), process: Arc::clone(&process) };
        let ports = Ports {
            store: Arc::new(store),
            participants: Arc::new(bank),
            peers: Arc::new(peers),
            machine: Arc::new(ThisMachine),
            traces: Arc::clone(&self.traces) as _,
        };
        let address = process.number.to_string();
        let coordinator = Coordinator::start(ports, settings, &address).await.unwrap();
        self.net.listens(&address, &coordinator, &process);
        Node { coordinator, process }
    }

    /// A node that knows this definition.
    pub(crate) async fn node_for(&self, plan: &Plan) -> Node {
        let node = self.node().await;
        node.register(plan).await;
        node
    }

    /// A saga as the journal tells it, one line an event, without times and names of coordinators.
    pub(crate) fn told(&self, saga: &str) -> String {
        let Some(journal) = self.disk.journal(&id(saga)) else { return String::new() };
        let plain = |line: &str| {
            let line = line.split(" by c-").next().unwrap();
            let words = line.split(' ').filter(|word| !word.ends_with("ms")).collect::<Vec<_>>().join(" ");
            words.trim_end().to_owned() + "\n"
        };
        transcript(&journal.events).lines().map(plain).collect()
    }

    #[track_caller]
    pub(crate) fn tells(&self, saga: &str, expected: &str) {
        let expected: String = expected.trim().lines().map(|line| line.trim().to_owned() + "\n").collect();
        let told = self.told(saga);
        assert!(told == expected, "told:\n{told}\nexpected:\n{expected}");
    }

    pub(crate) fn state(&self, saga: &str) -> Option<SagaState> {
        self.disk.journal(&id(saga)).map(|journal| journal.head.state)
    }

    /// Who owns the saga, by its head row.
    pub(crate) fn owner(&self, saga: &str) -> Option<String> {
        self.disk.journal(&id(saga)).and_then(|journal| journal.head.owner).map(|owner| owner.to_string())
    }

    pub(crate) fn epoch(&self, saga: &str) -> u64 {
        self.disk.journal(&id(saga)).unwrap().head.epoch.0
    }

    #[track_caller]
    pub(crate) fn ends(&self, saga: &str, state: SagaState) -> impl Future<Output = ()> {
        let give_up = Instant::now() + STORY_MAX;
        let place = std::panic::Location::caller();
        async move {
            while self.state(saga) != Some(state) {
                assert!(
                    Instant::now() < give_up,
                    "{place}: {saga} never came to be {}; out: {:?}\n{}",
                    state.as_str(),
                    self.bank.out(),
                    self.told(saga)
                );
                tokio::time::sleep(ms(1)).await;
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let faults = self.bank.faults();
        if !std::thread::panicking() {
            let stories: Vec<String> = faults
                .iter()
                .filter_map(|fault| fault.split_once(": "))
                .map(|(saga, _)| format!("{saga}:\n{}", self.told(saga)))
                .collect();
            assert!(
                faults.is_empty(),
                "the bank saw what must never happen: {faults:#?}\n{}",
                stories.first().map_or("", String::as_str)
            );
        }
    }
}

impl Node {
    pub(crate) async fn register(&self, plan: &Plan) {
        let definitions = self.coordinator.definitions();
        for participant in plan.participants.values() {
            definitions.put_participant(participant.clone()).await.unwrap();
        }
        let fingerprint = [u8::try_from(plan.spec.steps.len() % 256).unwrap(); 32];
        definitions.register(plan.spec.clone(), Bytes::new(), fingerprint, false).await.unwrap();
    }

    pub(crate) async fn start(&self, definition: &str, saga: &str) -> StartedSaga {
        self.coordinator.start_saga(request(definition, saga)).await.unwrap()
    }

    /// Starts a saga and waits for its end.
    pub(crate) async fn run(&self, definition: &str, saga: &str) -> Arc<Saga> {
        let started = self.start(definition, saga).await;
        self.coordinator.wait(started, STORY_MAX).await.unwrap()
    }

    /// Its process is gone from one instant to the next: nothing that it does reaches anybody.
    pub(crate) fn crash(&self) {
        self.process.kill();
    }

    /// Keeps it from reading journals, or lets it.
    pub(crate) fn stall(&self, stalled: bool) {
        self.process.stall(stalled);
    }

    pub(crate) async fn cancel(&self, saga: &str) -> Result<Arc<Saga>, EngineError> {
        self.coordinator.cancel(&id(saga), "ann".to_owned(), "wrong account".to_owned()).await
    }

    /// All events of a saga, as a watcher gets them, until its end.
    pub(crate) async fn watch(&self, saga: &str, mut after: Seq) -> Vec<u64> {
        let mut seen = Vec::new();
        loop {
            let events = self.coordinator.next_events(&id(saga), after).await.unwrap();
            let Some(last) = events.last() else { return seen };
            after = last.seq;
            seen.extend(events.iter().map(|event| event.seq.0));
        }
    }
}

pub(crate) fn request(definition: &str, saga: &str) -> StartSaga {
    StartSaga {
        id: Some(id(saga)),
        spare_id: None,
        definition: DefinitionName::parse(definition).unwrap(),
        revision: None,
        input: Bytes::from_static(b"{}"),
        payloads: BTreeMap::new(),
        labels: BTreeMap::new(),
        fingerprint: [7; 32],
        trace_parent: None,
    }
}
