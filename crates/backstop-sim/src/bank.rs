//! Participants behind the network, as one coordinator calls them.
//!
//! # Invariants
//! * The tenure is asked last of all, when there is a connection, as the real client does it.
//! * A request that comes late, or twice, comes only to participants with a barrier, and not where doubts are settled by
//!   asking: nothing but a barrier helps against those, as the contract for participants says.
//! * To the others an action comes before what is sent after it for the same step, or never: one connection is in order.
//! * What the caller is told is never stronger than what happened.

use crate::books::{Books, Said, service_time};
use crate::coverage::{What, When};
use crate::dice::{Dice, fnv};
use crate::held;
use crate::net::{PROMPT_MAX_MS, Place};
use crate::process::Process;
use crate::world::World;
use async_trait::async_trait;
use backstop_core::{
    Call, Clock, Details, Evidence, Fault, NoAnswer, NotSent, Outcome, Phase, Saga, SagaId, Signal, StepKind,
};
use backstop_engine::ports::participants::{CallReply, CallRequest, Calls, Participants};
use backstop_engine::ports::store::{Participant, StoredRevision};
use backstop_invariants::{Did, Seen, Sent};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Longest way of a request to a participant that can tell a late one from a new one.
const LATE_MAX_MS: u64 = 6_000;
/// Longest way of an answer.
const BACK_MAX_MS: u64 = 1_500;

/// All participants.
pub(crate) struct Bank {
    pub(crate) dice: Dice,
    /// Participants refuse and fail.
    fails: bool,
    state: Mutex<State>,
}

struct State {
    books: Vec<Books>,
    /// Nobody is there until then.
    away_until: Vec<Option<Instant>>,
    /// Actions on their way to those for whom the order of what comes matters, by saga and step.
    travelling: BTreeMap<(SagaId, usize), Vec<Weak<Slot>>>,
    /// Nobody will ever be there again.
    dead: Vec<bool>,
    is_well: bool,
}

impl Bank {
    pub(crate) fn new(seed: u64, fails: bool, keyed: &[bool]) -> Self {
        let books = keyed.iter().map(|keyed| Books::new(*keyed)).collect();
        let state = State {
            books,
            away_until: vec![None; keyed.len()],
            dead: vec![false; keyed.len()],
            travelling: BTreeMap::new(),
            is_well: !fails,
        };
        Self { dice: Dice::of(seed, "bank"), fails, state: Mutex::new(state) }
    }

    pub(crate) fn send_away(&self, place: usize, lasting: Duration) {
        held(&self.state).away_until[place] = Some(Instant::now() + lasting);
    }

    pub(crate) fn kill(&self, place: usize) {
        held(&self.state).dead[place] = true;
    }

    pub(crate) fn is_dead(&self, place: usize) -> bool {
        held(&self.state).dead[place]
    }

    /// All is well from now on, but for who is dead.
    pub(crate) fn heal(&self) {
        let mut state = held(&self.state);
        state.is_well = true;
        state.away_until.fill(None);
    }

    fn is_there(&self, place: usize) -> bool {
        let state = held(&self.state);
        !state.dead[place] && state.away_until[place].is_none_or(|until| until <= Instant::now())
    }

    fn is_well(&self) -> bool {
        !self.fails || held(&self.state).is_well
    }

    /// Something done with the books of a participant.
    pub(crate) fn with<T>(&self, place: usize, work: impl FnOnce(&mut Books) -> T) -> T {
        work(&mut held(&self.state).books[place])
    }
}

/// The participants as one process calls them.
#[derive(Clone)]
pub(crate) struct BankOf {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
    pub(crate) place: Place,
}

fn what_of(phase: Phase) -> What {
    match phase {
        Phase::Action => What::Action,
        Phase::Query => What::Query,
        Phase::Compensation => What::Compensation,
    }
}

fn told(evidence: Evidence) -> CallReply {
    let outcome =
        Outcome::Failed { evidence, message: String::new(), details: Details::default(), pushback: None };
    CallReply { outcome, peer_clock: None }
}

/// What a template could make the request of: the same for every attempt.
fn request_digest(saga: &Saga, call: &Call) -> u64 {
    let step = &saga.definition.steps[call.step];
    let method = call.plan(saga).map(|plan| plan.method.to_string()).unwrap_or_default();
    let mut bytes = method.into_bytes();
    bytes.extend_from_slice(&saga.started.input);
    for ancestor in step.ancestors.iter() {
        bytes.push(0xff);
        bytes.extend_from_slice(saga.branches[ancestor].response.as_deref().unwrap_or_default());
    }
    if call.phase == Phase::Compensation {
        bytes.extend_from_slice(saga.branches[call.step].response.as_deref().unwrap_or_default());
        bytes.extend_from_slice(format!("{:?}", saga.cause).as_bytes());
    }
    fnv(bytes.into_iter())
}

/// Where a message is until it arrives or is lost.
type Slot = Mutex<Option<Message>>;

/// One request on its way to a participant, or arrived there.
struct Message {
    world: Arc<World>,
    process: Arc<Process>,
    saga: Arc<Saga>,
    call: Call,
    to: usize,
}

impl Message {
    /// What was sent before on the same connection comes before it, or never.
    fn let_pass(&self) {
        let key = (self.saga.id.clone(), self.call.step);
        let before = held(&self.world.bank.state).travelling.remove(&key).unwrap_or_default();
        for slot in before.iter().filter_map(Weak::upgrade) {
            drop(Prompt(slot));
        }
    }

    /// The participant's code runs.
    fn arrive(&self) -> Said {
        if self.call.phase != Phase::Action {
            self.let_pass();
        }
        let world = &self.world;
        let (saga, call) = (&self.saga, self.call);
        let step = &saga.definition.steps[call.step];
        let amount = world.amount(saga, call.step);
        let is_well = world.bank.is_well();
        let said = world.bank.with(self.to, |books| {
            let call = (&saga.id, call.step, call.phase, call.attempt);
            books.hear(&world.bank.dice, call, step.kind, amount, is_well)
        });
        let outcome = match &said.outcome {
            Outcome::Done(_) => "OK",
            Outcome::Failed { evidence, .. } => evidence.code().name(),
        };
        let effect = match said.did {
            Some(true) => ", took effect",
            Some(false) => ", undone",
            None => "",
        };
        let what =
            format!("{} {} {} #{}: {outcome}{effect}", saga.id, step.name, call.phase.as_str(), call.attempt);
        world.log.say(&format!("bank-{}", self.to), &what);
        if let Outcome::Failed { evidence: Evidence::ParticipantSaid(code), .. } = &said.outcome {
            world.count("said", code.name());
        }
        match said.did {
            Some(took_effect) => {
                let did = if took_effect { Did::TookEffect } else { Did::Undid };
                world.see(&saga.id, Seen::Booked { step: call.step, did });
            }
            None if matches!(said.outcome, Outcome::Done(_)) => world.count("said", "OK"),
            None => {}
        }
        if said.did.is_some() && matches!(said.outcome, Outcome::Done(_)) {
            world.count("said", "OK");
        }
        self.process.reach((what_of(call.phase), When::Done));
        said
    }
}

/// What a caller holds of a message that must not come late: when the caller goes, it arrives now or never.
struct Prompt(Arc<Slot>);

impl Drop for Prompt {
    fn drop(&mut self) {
        let Some(message) = held(&self.0).take() else { return };
        if message.world.bank.dice.percent(50) && message.world.bank.is_there(message.to) {
            message.arrive();
        }
    }
}

impl BankOf {
    fn may_be_late(&self, saga: &Saga, call: &Call) -> bool {
        let step = &saga.definition.steps[call.step];
        step.deduplicates && !(step.asks && step.kind != StepKind::ReadOnly)
    }

    /// Makes a connection; what went wrong if there is none.
    async fn connect(&self, to: usize, timeout: Duration) -> Result<(), CallReply> {
        let world = &self.world;
        let dice = &world.bank.dice;
        let is_cut = world.net.is_cut(self.place, Place::Participant(to));
        if is_cut || !world.bank.is_there(to) {
            world.count_fault(if is_cut { "a participant is not reached" } else { "a participant is away" });
            if dice.percent(50) {
                tokio::time::sleep(dice.ms(0, 50).min(timeout)).await;
                return Err(told(Evidence::NotSent(NotSent::NoConnection)));
            }
            // The connection stands, and nothing comes back.
            tokio::time::sleep(timeout).await;
            return Err(told(Evidence::NoAnswer(NoAnswer::Deadline)));
        }
        if !world.bank.is_well() && dice.percent(3) {
            let why = dice.pick(&[NotSent::Draining, NotSent::Refused], NotSent::NoConnection);
            return Err(told(Evidence::NotSent(why)));
        }
        tokio::time::sleep(world.net.way(PROMPT_MAX_MS)).await;
        Ok(())
    }

    async fn attempt(&self, request: CallRequest) -> CallReply {
        let CallRequest { saga, call, timeout, clearance } = request;
        let (world, what) = (&self.world, what_of(call.phase));
        self.process.step((what, When::Before)).await;
        let Some(to) = call.plan(&saga).and_then(|plan| world.participant(&plan.participant)) else {
            return told(Evidence::NotRendered);
        };
        let until = Instant::now() + timeout;
        if let Err(reply) = self.connect(to, timeout).await {
            return reply;
        }
        if !clearance.holds() {
            world.count_fault("a call is held back at the last moment");
            return told(Evidence::NotSent(NotSent::Withdrawn));
        }
        self.leaves(&saga, &call);
        let late = self.may_be_late(&saga, &call);
        let message = Message {
            world: Arc::clone(world),
            process: Arc::clone(&self.process),
            saga: Arc::clone(&saga),
            call,
            to,
        };
        let message = Arc::new(Mutex::new(Some(message)));
        if !late && call.phase == Phase::Action {
            let mut state = held(&world.bank.state);
            state.travelling.entry((saga.id.clone(), call.step)).or_default().push(Arc::downgrade(&message));
        }
        // Goes with this future, whether it ends or is dropped.
        let _prompt = (!late).then(|| Prompt(Arc::clone(&message)));
        let (heard, answer) = oneshot::channel();
        self.travel(&message, heard, late);
        let reply = match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => told(Evidence::NoAnswer(NoAnswer::ConnectionLost)),
            Err(_) => told(Evidence::NoAnswer(NoAnswer::Deadline)),
        };
        self.process.step((what, When::Answered)).await;
        reply
    }

    fn leaves(&self, saga: &Saga, call: &Call) {
        let step = &saga.definition.steps[call.step];
        let text = format!(
            "calls {} {} {} #{} in epoch {}",
            saga.id,
            step.name,
            call.phase.as_str(),
            call.attempt,
            saga.epoch.0
        );
        self.world.log.say(&self.process.name(), &text);
        let sent = Sent {
            epoch: saga.epoch,
            step: call.step,
            phase: call.phase,
            attempt: call.attempt,
            clock: call.clock,
            key: &call.key(saga),
            request: request_digest(saga, call),
        };
        self.world.see(&saga.id, Seen::Sent(sent));
    }

    /// Carries the message there, and the answer back.
    fn travel(&self, message: &Arc<Slot>, heard: oneshot::Sender<CallReply>, late: bool) {
        let (world, process) = (Arc::clone(&self.world), Arc::clone(&self.process));
        let is_well = world.bank.is_well();
        let way = world.net.way(if late { LATE_MAX_MS } else { PROMPT_MAX_MS });
        let doubled =
            (late && !is_well && world.bank.dice.percent(5)).then(|| world.bank.dice.ms(0, LATE_MAX_MS));
        let (lost, lost_answer) = (world.net.loses(), world.net.loses());
        let (work, back) = (service_time(&world.bank.dice, is_well), world.net.way(BACK_MAX_MS));
        let message = Arc::clone(message);
        tokio::spawn(async move {
            tokio::time::sleep(way / 2).await;
            let Some(what) = held(&message).as_ref().map(|message| what_of(message.call.phase)) else {
                return;
            };
            process.reach((what, When::OnTheWay));
            tokio::time::sleep(way - way / 2).await;
            if lost {
                world.count_fault("a request is lost");
                held(&message).take();
                return;
            }
            let Some(message) = held(&message).take() else { return };
            if !world.bank.is_there(message.to) {
                return;
            }
            if heard.is_closed() {
                world.count_fault("a request comes late");
            }
            let said = message.arrive();
            let clock = peer_clock(&world.bank.dice, message.call.clock);
            // A copy of what the business code has not seen yet would be another attempt.
            let is_known = world
                .bank
                .with(message.to, |books| books.entry(&message.saga.id, message.call.step).is_known());
            if let Some(later) = doubled.filter(|_| is_known) {
                tokio::spawn(arrives_again(message, later));
            }
            tokio::time::sleep(work + back).await;
            if lost_answer {
                world.count_fault("an answer is lost");
                return;
            }
            let _ = heard.send(CallReply { outcome: said.outcome, peer_clock: clock });
        });
    }
}

async fn arrives_again(message: Message, later: Duration) {
    tokio::time::sleep(later).await;
    if message.world.bank.is_there(message.to) {
        message.world.count_fault("a request comes twice");
        message.arrive();
    }
}

/// Most know nothing of clocks; some answer a sound one, and some any number.
fn peer_clock(dice: &Dice, sent: Clock) -> Option<Clock> {
    match dice.roll(20) {
        0..4 => Some(Clock(sent.0 + dice.roll(5))),
        4 => Some(Clock(u64::MAX - dice.roll(3))),
        _ => None,
    }
}

#[async_trait]
impl Calls for BankOf {
    async fn call(&self, request: CallRequest) -> CallReply {
        self.attempt(request).await
    }
}

#[async_trait]
impl Participants for BankOf {
    fn set(&self, _: &Participant) {}

    fn prepare(&self, _: &StoredRevision) -> Result<Arc<dyn Calls>, Vec<Fault>> {
        Ok(Arc::new(self.clone()))
    }

    async fn signal(&self, saga: &Saga, signal: &Signal, timeout: Duration) -> Result<(), String> {
        self.process.step((What::Signal, When::Before)).await;
        let world = &self.world;
        let Some(to) = world.participant(&signal.participant) else { return Err("nobody".to_owned()) };
        if let Err(reply) = self.connect(to, timeout).await {
            return Err(format!("{:?}", reply.outcome));
        }
        world.log.say(&self.process.name(), &format!("signals {} to {}", saga.id, signal.participant));
        world.see(&saga.id, Seen::Signalled { participant: &signal.participant, clock: signal.clock });
        self.process.step((What::Signal, When::OnTheWay)).await;
        tokio::time::sleep(world.net.way(BACK_MAX_MS).min(timeout)).await;
        let answer = match world.bank.dice.roll(10) {
            _ if world.bank.is_well() => Ok(()),
            0 => Err("not now".to_owned()),
            1 => {
                tokio::time::sleep(timeout).await;
                Err("no answer in time".to_owned())
            }
            _ => Ok(()),
        };
        self.process.step((What::Signal, When::Done)).await;
        tokio::time::sleep(world.net.way(BACK_MAX_MS).min(timeout)).await;
        self.process.step((What::Signal, When::Answered)).await;
        answer
    }
}
