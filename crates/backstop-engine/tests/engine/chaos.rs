//! Everything at once: participants that fail in every way, a disk that forgets to answer, coordinators that
//! crash, drain and lose their leases, from a seed. A seed that fails prints itself.
//!
//! # Invariants
//! * Every saga that was accepted ends, or waits for a person, once the world is well again.
//! * A saga that succeeded has nothing undone; of one that was rolled back nothing is left standing.

use crate::common::bank::{Bank, Reply, Seen, after, says};
use crate::common::disk::Fault;
use crate::common::plan::Plan;
use crate::common::{Node, World, id, ms, quiet, request, until};
use backstop_core::{
    Code, CompensationOrder, Effect, Evidence, NoAnswer, OnFailure, Phase, SagaState, effect,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Worlds that are tried.
const SEEDS: u64 = 60;
/// Sagas in each.
const SAGAS: usize = 24;

/// Numbers that look random and are not (splitmix64).
#[derive(Clone)]
struct Dice(Arc<AtomicU64>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    fn roll(&self, below: u64) -> u64 {
        let seed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn plans() -> [Plan; 4] {
    [
        Plan::new("three").step("a", &[]).step("b", &[]).dedup().listens().step("c", &[]),
        Plan::new("line").step("a", &[]).step("b", &["a"]).dedup().listens().step("c", &["b"]),
        Plan::new("fork")
            .step("a", &[])
            .step("b", &["a"])
            .dedup()
            .listens()
            .step("c", &["a"])
            .step("d", &["b", "c"])
            .on_failure(OnFailure::Cancel),
        Plan::new("lifo")
            .step("a", &[])
            .step("b", &[])
            .dedup()
            .listens()
            .step("c", &["a"])
            .step("d", &["a", "b"])
            .order(CompensationOrder::Lifo)
            .deadline(ms(20_000)),
    ]
}

fn teach(bank: &Bank, dice: &Dice, well: &Arc<AtomicBool>) {
    for step in ["a", "b", "c", "d"] {
        let (rolls, is_well) = (dice.clone(), Arc::clone(well));
        bank.action(step, move |_| match rolls.roll(20) {
            _ if is_well.load(Ordering::Relaxed) => Reply::Ok,
            0..10 => after(ms(rolls.roll(300)), Reply::Ok),
            10 => says(Code::Unavailable),
            11 => says(Code::Internal),
            12 => says(Code::FailedPrecondition),
            13 => says(Code::Aborted),
            14 => Reply::Hang,
            15 => after(ms(rolls.roll(500)), Reply::Fail(Evidence::NoAnswer(NoAnswer::ConnectionLost))),
            _ => Reply::Ok,
        });
        let (rolls, is_well) = (dice.clone(), Arc::clone(well));
        bank.undo(step, move |_| match rolls.roll(12) {
            _ if is_well.load(Ordering::Relaxed) => Reply::Ok,
            0..3 => after(ms(rolls.roll(300)), Reply::Ok),
            3 => says(Code::Unavailable),
            4 => Reply::Hang,
            _ => Reply::Ok,
        });
    }
}

async fn fresh(world: &World) -> Node {
    let node = world.node_with(|settings| settings.live_sagas_max = 15).await;
    for plan in plans() {
        node.register(&plan).await;
    }
    node
}

async fn trouble(world: &World, nodes: &mut [Node], dice: &Dice) {
    let one = usize::try_from(dice.roll(2)).unwrap();
    match dice.roll(12) {
        0 => {
            nodes[one].crash();
            nodes[one] = fresh(world).await;
        }
        1 => {
            let coordinator = nodes[one].coordinator.clone();
            let at_most = ms(dice.roll(3_000));
            tokio::spawn(async move { coordinator.drain(at_most).await });
            nodes[one] = fresh(world).await;
        }
        2 => {
            world.disk.renewals_fail(true);
            tokio::time::sleep(ms(dice.roll(9_000))).await;
            world.disk.renewals_fail(false);
        }
        3 => {
            world.disk.block();
            tokio::time::sleep(ms(dice.roll(7_000))).await;
            world.disk.unblock();
        }
        4 => {
            world.disk.down(true);
            tokio::time::sleep(ms(dice.roll(9_000))).await;
            world.disk.down(false);
        }
        5..9 => {
            let fault = [Fault::Refuse, Fault::ApplyAndForget, Fault::Forget];
            let count = dice.roll(4);
            world.disk.fail_next((0..count).map(|_| fault[usize::try_from(dice.roll(3)).unwrap()]));
        }
        9 => {
            let saga = format!("pay-{}", dice.roll(SAGAS as u64));
            // Whatever it hears: the books at the end tell whether it was true.
            let _answer = nodes[one].cancel(&saga).await;
        }
        _ => {}
    }
}

/// What the bank's books say of a saga, by its steps: was the action perhaps done, was it undone?
fn check_books(world: &World, saga: &str, seen: &[Seen]) {
    let of = |phase: Phase| -> BTreeSet<&str> {
        let calls = seen.iter().filter(|call| call.saga == saga && call.phase == phase);
        calls.map(|call| call.step.as_str()).collect()
    };
    let (called, undone) = (of(Phase::Action), of(Phase::Compensation));
    let told = world.told(saga);
    match world.state(saga).unwrap() {
        SagaState::Succeeded => {
            assert!(undone.is_empty(), "{saga} succeeded and was undone\n{told}");
            let steps = world.disk.journal(&id(saga)).unwrap().head.definition;
            let plan = plans().into_iter().find(|plan| plan.spec.name == steps.name.as_str()).unwrap();
            assert_eq!(called.len(), plan.spec.steps.len(), "{saga}\n{told}");
        }
        SagaState::RolledBack => {
            for step in called.difference(&undone) {
                let attempts = seen
                    .iter()
                    .filter(|call| call.saga == saga && call.phase == Phase::Action && call.step == **step);
                let attempts: Vec<Option<Evidence>> = attempts.map(|call| call.failed).collect();
                let harmless =
                    |failed: &Option<Evidence>| failed.is_some_and(|why| effect(why) == Effect::None);
                // b deduplicates: its last refusal speaks for all attempts with the key.
                let refused = Some(Evidence::ParticipantSaid(Code::FailedPrecondition));
                let settled = *step == "b" && attempts.last() == Some(&refused);
                assert!(
                    settled || attempts.iter().all(harmless),
                    "{saga}: {step} may have been done and was not undone\n{told}"
                );
            }
        }
        SagaState::Running | SagaState::RollingBack | SagaState::NeedsIntervention => {
            panic!("{saga} is not over\n{told}");
        }
    }
}

async fn live_through(seed: u64) -> [usize; 2] {
    let world = World::new();
    let dice = Dice::new(seed.wrapping_mul(0xa076_1d64_78bd_642f));
    let well = Arc::new(AtomicBool::new(false));
    teach(&world.bank, &dice, &well);
    let mut nodes = [fresh(&world).await, fresh(&world).await];
    let names = ["three", "line", "fork", "lifo"];
    let (mut starts, mut accepted) = (tokio::task::JoinSet::new(), Vec::new());
    for n in 0..SAGAS {
        let coordinator = nodes[n % 2].coordinator.clone();
        let request = request(names[usize::try_from(dice.roll(4)).unwrap()], &format!("pay-{n}"));
        starts.spawn(async move { (n, coordinator.start_saga(request).await) });
        tokio::time::sleep(ms(dice.roll(400))).await;
        trouble(&world, &mut nodes, &dice).await;
    }
    world.disk.unblock();
    world.disk.down(false);
    well.store(true, Ordering::Relaxed);
    // Starts that are still on their way come in.
    tokio::time::sleep(ms(30_000)).await;
    let names = (0..SAGAS).map(|n| format!("pay-{n}")).collect::<Vec<_>>();
    until("every saga that is on disk is over", || {
        names.iter().all(|saga| world.state(saga).is_none_or(SagaState::is_final))
    })
    .await;
    quiet().await;
    while let Some(answer) = starts.try_join_next() {
        let (n, answer) = answer.unwrap();
        if answer.is_ok_and(|started| started.created) {
            accepted.push(n);
        }
    }
    let seen = world.bank.seen();
    let mut ends = [0; 2];
    for saga in &names {
        match world.state(saga) {
            Some(state) => {
                check_books(&world, saga, &seen);
                ends[usize::from(state == SagaState::RolledBack)] += 1;
            }
            None => assert!(seen.iter().all(|call| call.saga != *saga), "{saga} was never accepted"),
        }
    }
    for n in accepted {
        assert!(world.state(&names[n]).is_some(), "{} was accepted and is lost", names[n]);
    }
    ends
}

/// `BACKSTOP_SEEDS=17..18 cargo test -p backstop-engine --test engine chaos` looks at one seed alone.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("BACKSTOP_SEEDS") else { return 0..SEEDS };
    let (first, end) = text.split_once("..").expect("BACKSTOP_SEEDS is FIRST..END");
    first.parse().unwrap()..end.parse().unwrap()
}

#[test]
fn whatever_happens_every_saga_comes_to_an_end_that_the_books_bear_out() {
    let mut ends = [0; 2];
    for seed in seeds() {
        let told = std::panic::catch_unwind(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
            runtime.unwrap().block_on(live_through(seed))
        });
        match told {
            Ok(counts) => ends = [ends[0] + counts[0], ends[1] + counts[1]],
            Err(_) => panic!("seed {seed} failed"),
        }
    }
    if seeds() == (0..SEEDS) {
        assert!(ends.iter().all(|count| *count > 100), "of both ends there are many: {ends:?}");
    }
}
