//! Lives through one world.

use crate::coverage::Coverage;
use crate::faults::Trouble;
use crate::options::Options;
use crate::world::World;
use crate::{clients, end, people};
use backstop_engine::ports::store::{Store, StoreResult};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Lines of the world's log that are shown of a failure.
const TAIL_LINES: usize = 4_000;

/// What came of one world.
#[derive(Debug, Clone)]
pub struct Lived {
    /// Which.
    pub options: Options,
    /// A digest of all that happened, in order.
    pub digest: u64,
    /// What was reached.
    pub coverage: Coverage,
    /// Sagas that were started.
    pub sagas: u64,
    /// How long it lasted, by its own clock.
    pub lasted: Duration,
    /// What must never happen, if it did.
    pub failure: Option<Failure>,
}

/// Something that must never happen.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The promise that is broken, and how.
    pub what: String,
    /// The saga's transcript, if it is about one.
    pub transcript: Option<String>,
    /// The last lines of the world's log.
    pub tail: Vec<String>,
}

/// Lives through the world that these options make.
#[must_use]
pub fn live(options: &Options) -> Lived {
    let nothing = |what: String| Lived {
        options: options.clone(),
        digest: 0,
        coverage: Coverage::default(),
        sagas: 0,
        lasted: Duration::ZERO,
        failure: Some(Failure { what, transcript: None, tail: Vec::new() }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(live_within(options)).unwrap_or_else(nothing),
        Err(error) => nothing(format!("no runtime: {error}")),
    }
}

async fn live_within(options: &Options) -> Result<Lived, String> {
    let began = Instant::now();
    let world = World::new(options.clone())?;
    register(&world).await.map_err(|error| error.to_string())?;
    tokio::select! {
        biased;
        () = world.breaks() => {}
        () = life(&world) => {}
    }
    let lived = Lived {
        options: options.clone(),
        digest: world.log.digest(),
        coverage: world.coverage(),
        sagas: world.sagas().len() as u64,
        lasted: began.elapsed(),
        failure: world.broken().map(|broken| Failure {
            transcript: broken.saga.as_ref().map(|saga| format!("{saga}\n{}", world.transcript(saga))),
            what: broken.what,
            tail: world.log.tail(TAIL_LINES),
        }),
    };
    world.machines.end();
    Ok(lived)
}

/// What stands in the store before anything happens.
async fn register(world: &World) -> StoreResult<()> {
    for habits in &world.plans.cast {
        world.data.put_participant(&habits.registration()).await?;
    }
    for plan in &world.plans.plans {
        let (name, now) = (&plan.definition.reference.name, world.time.now());
        world.data.put_revision(name, &plan.spec, &Bytes::new(), [1; 32], now).await?;
    }
    Ok(())
}

async fn life(world: &Arc<World>) {
    let trouble = Trouble::new(world);
    for machine in 0..world.machines.count {
        tokio::spawn(Arc::clone(&trouble).keep(machine));
    }
    tokio::spawn(Arc::clone(&trouble).go_on());
    let with_people = world.plans.with_people;
    if with_people {
        tokio::spawn(people::work(Arc::clone(world)));
    }
    let load = clients::load(Arc::clone(world));
    // Whoever is still asking then is answered in a world that is well.
    let _in_time = tokio::time::timeout(world.plans.trouble_lasts, load).await;
    trouble.end();
    end::quiet(world, with_people).await;
    end::judge(world).await;
}
