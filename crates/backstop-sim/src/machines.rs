//! The machines that coordinators run on: each has one process at a time, or none.

use crate::bank::BankOf;
use crate::disk::StoreOf;
use crate::held;
use crate::net::Place;
use crate::peers::PeersOf;
use crate::process::{Process, Watcher};
use crate::world::World;
use backstop_engine::ports::traces::NoTraces;
use backstop_engine::{Coordinator, Ports};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// Wait before a coordinator that could not start is started again.
const START_AGAIN: Duration = Duration::from_millis(700);

/// A coordinator that runs, as far as anybody can tell.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) coordinator: Coordinator,
    pub(crate) process: Arc<Process>,
    pub(crate) place: Place,
}

/// All machines.
pub(crate) struct Machines {
    pub(crate) count: usize,
    processes: AtomicU32,
    running: Mutex<BTreeMap<usize, Running>>,
}

impl Machines {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, processes: AtomicU32::new(1), running: Mutex::default() }
    }

    /// The coordinator on this machine; `None` while there is none.
    pub(crate) fn on(&self, machine: usize) -> Option<Running> {
        held(&self.running).get(&machine).filter(|running| !running.process.is_dead()).cloned()
    }

    /// The coordinator whose API is at this address.
    pub(crate) fn at(&self, address: &str) -> Option<Running> {
        address
            .strip_prefix("machine-")
            .and_then(|number| number.parse().ok())
            .and_then(|machine| self.on(machine))
    }

    pub(crate) fn all(&self) -> Vec<Running> {
        (0..self.count).filter_map(|machine| self.on(machine)).collect()
    }

    /// All are gone, and let go of the world.
    pub(crate) fn end(&self) {
        let all = std::mem::take(&mut *held(&self.running));
        all.values().for_each(|running| running.process.end());
    }

    /// What was there, if it is dead, is taken away.
    fn clear(&self, machine: usize) {
        let mut running = held(&self.running);
        let gone = running.get(&machine).is_some_and(|running| running.process.is_dead());
        let dropped = if gone { running.remove(&machine) } else { None };
        drop(running);
        drop(dropped);
    }
}

/// Starts a coordinator on a machine, however often it takes; comes back when it runs.
pub(crate) async fn start(world: &Arc<World>, machine: usize, prepare: impl Fn(&Process)) {
    loop {
        world.machines.clear(machine);
        let number = world.machines.processes.fetch_add(1, Ordering::Relaxed);
        let watcher: Weak<dyn Watcher> = Arc::downgrade(&(Arc::clone(world) as Arc<dyn Watcher>));
        let process = Process::new(number, world.options.seed, watcher);
        prepare(&process);
        let (place, of) = (Place::Machine(machine), (Arc::clone(world), Arc::clone(&process)));
        let ports = Ports {
            store: Arc::new(StoreOf {
                world: Arc::clone(&of.0),
                process: Arc::clone(&of.1),
                place,
                in_doubt: Mutex::default(),
            }),
            participants: Arc::new(BankOf { world: Arc::clone(&of.0), process: Arc::clone(&of.1), place }),
            peers: Arc::new(PeersOf { world: of.0, process: of.1, place }),
            machine: Arc::clone(&process) as _,
            traces: Arc::new(NoTraces),
        };
        let settings = world.plans.settings.clone();
        let address = format!("machine-{machine}");
        let started = process.serve(async move { Coordinator::start(ports, settings, &address).await }).await;
        match started {
            Some(Ok(coordinator)) if !process.is_dead() => {
                world.log.say(&process.name(), &format!("runs on machine {machine}"));
                held(&world.machines.running).insert(machine, Running { coordinator, process, place });
                return;
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                world.log.say(&process.name(), &format!("does not start: {error}"));
                process.end();
            }
        }
        tokio::time::sleep(START_AGAIN).await;
    }
}
