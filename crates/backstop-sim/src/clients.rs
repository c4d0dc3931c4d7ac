//! Clients: they start sagas, ask again when nobody answers, wait, cancel, and remember what they were told.
//!
//! # Invariants
//! * What a client was told is true, and stays so: [`Promises`] is held against the journals at the end.

use crate::dice::Dice;
use crate::held;
use crate::machines::Running;
use crate::options::Class;
use crate::world::World;
use backstop_core::{DefinitionName, Epoch, EventKind, Refused, Saga, SagaId, SagaState};
use backstop_engine::{Coordinator, EngineError, StartSaga, StartedSaga};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Answers that clients hear, for the coverage.
pub(crate) const HEARD: [&str; 10] = [
    "started",
    "found",
    "the id is taken",
    "busy",
    "not serving",
    "the store failed",
    "no answer",
    "how it ended",
    "cancelled",
    "not cancelled",
];

/// Tries of one start before its client gives up.
const TRIES_MAX: u32 = 60;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// What clients were told.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// Sagas that are accepted, and how often somebody was told that it was he who started it.
    pub(crate) accepted: BTreeMap<SagaId, u32>,
    /// How sagas ended.
    pub(crate) ended: BTreeMap<SagaId, SagaState>,
}

/// What one client wants.
struct Wish {
    id: Option<SagaId>,
    definition: DefinitionName,
    fingerprint: u8,
}

impl Wish {
    fn request(&self) -> StartSaga {
        StartSaga {
            id: self.id.clone(),
            spare_id: None,
            definition: self.definition.clone(),
            revision: None,
            input: Bytes::from_static(b"{}"),
            payloads: BTreeMap::new(),
            labels: BTreeMap::new(),
            fingerprint: [self.fingerprint; 32],
            trace_parent: None,
        }
    }
}

/// Asks a coordinator; `None` if no answer comes.
pub(crate) async fn ask<T: Send + 'static, W: Future<Output = T> + Send + 'static>(
    running: &Running,
    patience: Duration,
    work: impl FnOnce(Coordinator) -> W,
) -> Option<T> {
    let work = work(running.coordinator.clone());
    tokio::time::timeout(patience, running.process.serve(work)).await.ok().flatten()
}

/// Some coordinator, as a load balancer would have it.
pub(crate) async fn somebody(world: &World, dice: &Dice) -> Running {
    loop {
        if let Some(running) = world.machines.on(dice.place(world.machines.count)) {
            return running;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// All clients: comes back when each has its answer or has given up.
pub(crate) async fn load(world: Arc<World>) {
    let dice = Arc::new(Dice::of(world.options.seed, "clients"));
    let count = world.options.sagas.unwrap_or_else(|| 6 + dice.roll(24));
    let mut clients = Vec::new();
    for n in 0..count {
        let plan = &world.plans.plans[dice.place(world.plans.plans.len())];
        let definition = plan.definition.reference.name.clone();
        let id = (!dice.percent(5)).then(|| SagaId::parse(&format!("pay-{n}")).ok()).flatten();
        let fingerprint = u8::try_from(n % 200).unwrap_or(0);
        let twice = id.is_some() && dice.percent(20);
        for copy in 0..1 + u64::from(twice) {
            let wish = Wish { id: id.clone(), definition: definition.clone(), fingerprint };
            let dice = Dice::of(world.options.seed, &format!("client {n} {copy}"));
            clients.push(tokio::spawn(client(Arc::clone(&world), wish, dice)));
        }
        tokio::time::sleep(dice.ms(0, 700)).await;
    }
    for client in clients {
        let _ = client.await;
    }
}

async fn client(world: Arc<World>, wish: Wish, dice: Dice) {
    let Some((started, running)) = start(&world, &wish, &dice).await else { return };
    let id = started.saga.id.clone();
    if dice.percent(8) && wish.id.is_some() {
        other_request(&world, &wish, &dice).await;
    }
    if world.options.has(Class::Cancels) && dice.percent(25) {
        tokio::time::sleep(dice.ms(0, 3_000)).await;
        cancel(&world, &id, &dice).await;
    }
    if dice.percent(40) {
        let patience = Duration::from_secs(20);
        let answer = ask(&running, patience * 2, |c| async move { c.wait(started, patience).await }).await;
        if let Some(Ok(saga)) = answer {
            heard(&world, &saga);
            if saga.state.is_final() {
                world.count("heard by a client", "how it ended");
                held(&world.promises).ended.insert(id, saga.state);
            }
        }
    }
}

/// What a client has seen is durable. That says nothing of what the saga's own coordinator knows: whoever has answered
/// may have read the store.
fn heard(world: &World, saga: &Saga) {
    world.acknowledged(&saga.id, Epoch(0), saga.seq);
}

async fn start(world: &Arc<World>, wish: &Wish, dice: &Dice) -> Option<(StartedSaga, Running)> {
    for _ in 0..TRIES_MAX {
        let running = somebody(world, dice).await;
        let request = wish.request();
        let answer = ask(&running, PATIENCE, |c| async move { c.start_saga(request).await }).await;
        let what = match answer {
            Some(Ok(started)) => {
                accepted(world, &started);
                return Some((started, running));
            }
            Some(Err(EngineError::Busy { limit, .. })) => {
                world.count("world", format!("refused for {limit}"));
                "busy"
            }
            Some(Err(EngineError::NotServing)) => "not serving",
            Some(Err(EngineError::Store(_))) => "the store failed",
            Some(Err(error)) => {
                world.broke(wish.id.as_ref(), format!("a start is answered: {error}"));
                return None;
            }
            None => "no answer",
        };
        world.count("heard by a client", what);
        // Without an id a repetition would start another.
        wish.id.as_ref()?;
        tokio::time::sleep(dice.ms(50, 1_500)).await;
    }
    None
}

fn accepted(world: &World, started: &StartedSaga) {
    world.count("heard by a client", if started.created { "started" } else { "found" });
    let id = &started.saga.id;
    world.log.say("client", &format!("{id} is accepted, created: {}", started.created));
    if world.journal(id).is_none() {
        world.broke(Some(id), "I3: a start is acknowledged, and nothing is durable");
        return;
    }
    heard(world, &started.saga);
    let times = {
        let mut promises = held(&world.promises);
        let times = promises.accepted.entry(id.clone()).or_default();
        *times += u32::from(started.created);
        *times
    };
    if times > 1 {
        world.broke(Some(id), "I9: two clients are told that they started it");
    }
}

/// The same id with another request.
async fn other_request(world: &Arc<World>, wish: &Wish, dice: &Dice) {
    let running = somebody(world, dice).await;
    let request = StartSaga { fingerprint: [201; 32], ..wish.request() };
    match ask(&running, PATIENCE, |c| async move { c.start_saga(request).await }).await {
        Some(Ok(_)) => world.broke(wish.id.as_ref(), "I9: another request with its id is accepted"),
        Some(Err(EngineError::AlreadyExists { .. })) => world.count("heard by a client", "the id is taken"),
        Some(Err(_)) | None => {}
    }
}

async fn cancel(world: &Arc<World>, id: &SagaId, dice: &Dice) {
    let reason = format!("reason {}", dice.roll(1_000));
    for _ in 0..4 {
        let running = somebody(world, dice).await;
        world.count_fault("a client cancels");
        let (saga, why) = (id.clone(), reason.clone());
        let patience = world.plans.settings.command_patience * 2;
        let answer =
            ask(&running, patience, |c| async move { c.cancel(&saga, "ann".to_owned(), why).await }).await;
        match answer {
            Some(Ok(saga)) => {
                world.count("heard by a client", "cancelled");
                heard(world, &saga);
                let decided = world.journal(id).is_some_and(|journal| {
                    journal.events.iter().any(|e| matches!(e.kind, EventKind::RollbackDecided { .. }))
                });
                if !decided {
                    world.broke(Some(id), "I3: a cancellation is acknowledged, and no rollback is durable");
                }
                return;
            }
            Some(Err(EngineError::Refused(refused))) => {
                world.count("heard by a client", "not cancelled");
                let over = world.journal(id).is_some_and(|journal| journal.head.state.is_final());
                if refused == Refused::Ended && !over {
                    world.broke(Some(id), "I3: a cancellation is refused for an end that is not durable");
                }
                return;
            }
            Some(Err(error @ (EngineError::NotFound { .. } | EngineError::Invalid(_)))) => {
                world.broke(Some(id), format!("a cancellation is answered: {error}"));
                return;
            }
            Some(Err(_)) | None => tokio::time::sleep(dice.ms(100, 1_000)).await,
        }
    }
}
