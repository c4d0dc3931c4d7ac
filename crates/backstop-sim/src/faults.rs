//! What goes wrong, and when.

use crate::coverage::{What, points};
use crate::dice::Dice;
use crate::machines::{self, Running};
use crate::net::Place;
use crate::options::Class;
use crate::process::{Doom, Process};
use crate::world::World;
use backstop_invariants::KINDS;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Everything that goes wrong, as the coverage names it.
pub(crate) const NAMES: [&str; 25] = [
    "a coordinator crashes",
    "a coordinator stands still",
    "a coordinator hands over",
    "a coordinator is not reached",
    "a coordinator's answer is lost",
    "a way is cut",
    "the store is not reached",
    "the store is down",
    "the disk is slow",
    "a write is refused",
    "a write vanishes",
    "a write is done and nobody hears",
    "a write is done later",
    "the store's clock leaps ahead",
    "the store's clock goes back",
    "a machine was suspended",
    "a participant is away",
    "a participant dies",
    "a participant is not reached",
    "a call is held back at the last moment",
    "a request is lost",
    "an answer is lost",
    "a request comes late",
    "a request comes twice",
    "a client cancels",
];

/// Goes on until all is to be well.
pub(crate) struct Trouble {
    world: Arc<World>,
    dice: Dice,
    is_over: AtomicBool,
}

impl Trouble {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        let dice = Dice::of(world.options.seed, "trouble");
        Arc::new(Self { world: Arc::clone(world), dice, is_over: AtomicBool::new(false) })
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// All is well from now on, but for who is dead.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.world.log.say("world", "all is well from here on");
        self.world.net.heal();
        self.world.disk.heal();
        self.world.bank.heal();
        for running in self.world.machines.all() {
            running.process.doom(None);
            running.process.thaw();
        }
    }

    /// Keeps a coordinator running on a machine, for ever.
    pub(crate) async fn keep(self: Arc<Self>, machine: usize) {
        loop {
            machines::start(&self.world, machine, |process| self.seal_fate(process)).await;
            if let Some(running) = self.world.machines.on(machine) {
                running.process.gone().await;
            }
            tokio::time::sleep(self.dice.ms(50, 7_000)).await;
        }
    }

    fn seal_fate(&self, process: &Process) {
        if self.is_over() || !self.world.options.has(Class::Crashes) {
            return;
        }
        let points = points();
        let doom = match self.dice.roll(10) {
            0..5 => {
                let point = points[self.dice.place(points.len())];
                let times = if self.is_rare(point.0) { 1 } else { 1 + self.dice.roll(8) };
                Doom::At(point, u32::try_from(times).unwrap_or(1))
            }
            5..8 => Doom::Durable(KINDS[self.dice.place(KINDS.len())]),
            8 => Doom::Polls(1 + self.dice.roll(3_000)),
            _ => return,
        };
        process.doom(Some(doom));
    }

    fn is_rare(&self, what: What) -> bool {
        !matches!(what, What::Append | What::Action | What::Renew)
    }

    /// One thing after another goes wrong.
    pub(crate) async fn go_on(self: Arc<Self>) {
        let world = &self.world;
        if world.options.has(Class::Deaths) && self.dice.percent(20) {
            let place = self.dice.place(world.plans.cast.len());
            let when = self.dice.ms(0, 8_000);
            let world = Arc::clone(world);
            tokio::spawn(async move {
                tokio::time::sleep(when).await;
                world.count_fault("a participant dies");
                world.log.say("world", &format!("bank-{place} dies"));
                world.bank.kill(place);
            });
        }
        loop {
            tokio::time::sleep(self.dice.ms(50, 1_600)).await;
            if self.is_over() {
                return;
            }
            let class = Class::ALL[self.dice.place(Class::ALL.len())];
            if world.options.has(class) {
                self.happens(class);
            }
        }
    }

    fn happens(self: &Arc<Self>, class: Class) {
        let (world, dice) = (&self.world, &self.dice);
        match class {
            Class::Partitions => {
                let machine = Place::Machine(dice.place(world.machines.count));
                let other = match dice.roll(3) {
                    0 => Place::Store,
                    1 => Place::Machine(dice.place(world.machines.count)),
                    _ => Place::Participant(dice.place(world.plans.cast.len())),
                };
                world.count_fault("a way is cut");
                world.log.say("world", &format!("{machine:?} and {other:?} are cut off"));
                world.net.cut(machine, other, true);
                self.later(dice.ms(100, 9_000), move |world| world.net.cut(machine, other, false));
            }
            Class::Crashes => {
                if let Some(running) = self.somebody() {
                    running.process.kill();
                }
            }
            Class::Freezes => {
                if let Some(Running { process, .. }) = self.somebody() {
                    if dice.percent(25) {
                        world.count_fault("a machine was suspended");
                        world.log.say(&process.name(), "finds that its machine was suspended");
                        process.oversleep(dice.ms(100, 9_000));
                        return;
                    }
                    world.count_fault("a coordinator stands still");
                    world.log.say(&process.name(), "stands still");
                    process.freeze();
                    self.later(dice.ms(100, 12_000), move |world| {
                        world.log.say(&process.name(), "goes on");
                        process.thaw();
                    });
                }
            }
            Class::Drains => {
                if let Some(running) = self.somebody() {
                    world.count_fault("a coordinator hands over");
                    world.log.say(&running.process.name(), "hands over");
                    let at_most = dice.ms(0, 6_000);
                    tokio::spawn(async move {
                        let Running { coordinator, process, .. } = running;
                        let done = process.serve(async move { coordinator.drain(at_most).await }).await;
                        if done.is_some() {
                            process.end();
                        }
                    });
                }
            }
            Class::Disk => {
                if dice.percent(50) {
                    world.count_fault("the disk is slow");
                    world.log.say("world", "the disk is slow");
                    world.disk.slow(dice.ms(200, 6_000));
                } else {
                    world.count_fault("the store is down");
                    world.log.say("world", "the store is down");
                    world.disk.down(dice.ms(100, 7_000));
                }
            }
            Class::Clocks => self.clock_jumps(),
            Class::Participants => {
                let place = dice.place(world.plans.cast.len());
                world.log.say("world", &format!("bank-{place} is away"));
                world.bank.send_away(place, dice.ms(100, 8_000));
            }
            // Those happen by themselves.
            Class::Network | Class::Fates | Class::Deaths | Class::Cancels | Class::Load => {}
        }
    }

    fn clock_jumps(&self) {
        let (world, dice) = (&self.world, &self.dice);
        let by = dice.ms(10, 20_000);
        if world.plans.clock_leaps && dice.percent(50) {
            world.count_fault("the store's clock leaps ahead");
            world.log.say("world", &format!("the store's clock leaps ahead by {by:?}"));
            world.time.jump(true, by);
        } else {
            world.count_fault("the store's clock goes back");
            world.log.say("world", &format!("the store's clock goes back by {by:?}"));
            world.time.jump(false, by);
        }
    }

    fn somebody(&self) -> Option<Running> {
        self.world.machines.on(self.dice.place(self.world.machines.count))
    }

    fn later(&self, wait: Duration, work: impl FnOnce(&World) + Send + 'static) {
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            work(&world);
        });
    }
}
