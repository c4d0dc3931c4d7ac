//! The store as coordinators see it: behind a network, on a disk that may be slow, with commits whose fate nobody tells.
//!
//! # Invariants
//! * The data are `backstop-engine`'s store in memory, which passes the store's contract: what it says is durable is.
//! * What it says it has not applied it has not, and never will; of what it does not say, anything may be true,
//!   also that it is applied later.

use crate::coverage::{Point, What, When};
use crate::dice::Dice;
use crate::held;
use crate::net::Place;
use crate::process::Process;
use crate::world::World;
use backstop_core::{SagaId, Seq};
use backstop_engine::ports::store::{StoreError, StoreResult};
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How long a coordinator's client waits for the store before it says that it does not know.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest way of a message to the store.
const WAY_MAX_MS: u64 = 800;

/// How the disk is.
pub(crate) struct Disk {
    pub(crate) dice: Dice,
    /// Commits may have an unknown fate.
    pub(crate) forgets: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slow_until: Option<Instant>,
    down_until: Option<Instant>,
    is_healed: bool,
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    /// Certainly not applied.
    Refused,
    /// Not applied, and nobody says so.
    Vanished,
    /// Applied, and nobody says so.
    Unheard,
    /// Applied later, when nobody reckons with it any more.
    Late,
}

impl Disk {
    pub(crate) fn new(seed: u64, forgets: bool) -> Self {
        Self { dice: Dice::of(seed, "disk"), forgets, state: Mutex::default() }
    }

    pub(crate) fn slow(&self, lasting: Duration) {
        held(&self.state).slow_until = Some(Instant::now() + lasting);
    }

    pub(crate) fn down(&self, lasting: Duration) {
        held(&self.state).down_until = Some(Instant::now() + lasting);
    }

    /// All is well from now on.
    pub(crate) fn heal(&self) {
        *held(&self.state) = State { is_healed: true, ..State::default() };
    }

    fn is_down(&self) -> bool {
        held(&self.state).down_until.is_some_and(|until| until > Instant::now())
    }

    fn flush(&self) -> Duration {
        let is_slow = held(&self.state).slow_until.is_some_and(|until| until > Instant::now());
        if is_slow { self.dice.ms(100, 1_800) } else { self.dice.ms(0, 4) }
    }

    fn fate(&self) -> Fate {
        if !self.forgets || held(&self.state).is_healed {
            return Fate::Well;
        }
        match self.dice.roll(100) {
            0 => Fate::Refused,
            1 => Fate::Vanished,
            2 | 3 => Fate::Unheard,
            4 => Fate::Late,
            _ => Fate::Well,
        }
    }
}

/// The store as one process sees it.
pub(crate) struct StoreOf {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
    pub(crate) place: Place,
    /// Appends that have failed before: whoever has written them asks once more before it believes the answer.
    pub(crate) in_doubt: Mutex<BTreeSet<(SagaId, Seq)>>,
}

fn unknown(text: &str) -> StoreError {
    StoreError::Unknown(text.to_owned())
}

impl StoreOf {
    /// Asks something that changes nothing.
    pub(crate) async fn read<T>(
        &self,
        what: &str,
        work: impl Future<Output = StoreResult<T>>,
    ) -> StoreResult<T> {
        let (world, disk) = (&self.world, &self.world.disk);
        if world.net.is_cut(self.place, Place::Store) || disk.is_down() {
            world.count_fault("the store is not reached");
            tokio::time::sleep(Duration::from_millis(disk.dice.roll(400))).await;
            return Err(StoreError::NotApplied(format!("{what}: connection refused")));
        }
        tokio::time::sleep(world.net.way(WAY_MAX_MS)).await;
        let answer = work.await?;
        if world.net.loses() {
            tokio::time::sleep(PATIENCE).await;
            return Err(unknown("no answer in time"));
        }
        tokio::time::sleep(world.net.way(WAY_MAX_MS)).await;
        Ok(answer)
    }

    /// Writes something. It is the store that does `work`, whatever becomes of the coordinator meanwhile.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        what: What,
        work: impl FnOnce(Arc<World>, Arc<Process>) -> BoxFuture<'static, StoreResult<T>> + Send + 'static,
    ) -> StoreResult<T> {
        self.process.step((what, When::Before)).await;
        let (world, disk) = (Arc::clone(&self.world), &self.world.disk);
        if world.net.is_cut(self.place, Place::Store) || disk.is_down() {
            world.count_fault("the store is not reached");
            // A firewall answers nothing; a machine without the service refuses.
            return if disk.dice.percent(50) {
                tokio::time::sleep(Duration::from_millis(disk.dice.roll(400))).await;
                Err(StoreError::NotApplied("connection refused".to_owned()))
            } else {
                tokio::time::sleep(PATIENCE).await;
                Err(unknown("no answer in time"))
            };
        }
        let fate = disk.fate();
        match fate {
            Fate::Well => {}
            Fate::Refused => world.count_fault("a write is refused"),
            Fate::Vanished => world.count_fault("a write vanishes"),
            Fate::Unheard => world.count_fault("a write is done and nobody hears"),
            Fate::Late => world.count_fault("a write is done later"),
        }
        if fate == Fate::Refused {
            tokio::time::sleep(world.net.way(WAY_MAX_MS)).await;
            return Err(StoreError::NotApplied("the store is out of connections".to_owned()));
        }
        let (heard, answer) = tokio::sync::oneshot::channel();
        let (process, way) = (Arc::clone(&self.process), world.net.way(WAY_MAX_MS));
        let (flush, back) = (disk.flush(), world.net.way(WAY_MAX_MS));
        let late = disk.dice.ms(2_500, 9_000);
        let lost = world.net.loses();
        tokio::spawn(async move {
            tokio::time::sleep(way / 2).await;
            process.reach((what, When::OnTheWay));
            tokio::time::sleep(way / 2 + flush).await;
            match fate {
                Fate::Vanished => return,
                Fate::Late => tokio::time::sleep(late).await,
                Fate::Well | Fate::Refused | Fate::Unheard => {}
            }
            let answer = work(Arc::clone(&world), Arc::clone(&process)).await;
            process.reach((what, When::Done));
            if matches!(fate, Fate::Unheard | Fate::Late) || lost {
                return;
            }
            tokio::time::sleep(back).await;
            let _ = heard.send(answer);
        });
        let answer = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            // The connection broke with the message, or nothing came.
            Ok(Err(_)) | Err(_) => Err(unknown("no answer in time")),
        };
        self.process.step((what, When::Answered)).await;
        answer
    }

    pub(crate) async fn at(&self, point: Point) {
        self.process.step(point).await;
    }
}
