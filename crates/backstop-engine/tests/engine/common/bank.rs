//! Participants that do as they are told, and remember all that they were asked.
//!
//! # Invariants
//! * At each call the bank looks into the store: a call that the journal does not allow yet, or not any
//!   more, is written down as a fault, and the story fails at its end (`World`'s drop).

use super::disk::Disk;
use super::process::Process;
use async_trait::async_trait;
use backstop_core::{
    Call, Code, Details, Event, EventKind, Evidence, Fault, NoAnswer, NotSent, Outcome, ParticipantName,
    Phase, Saga, Signal, StepName,
};
use backstop_engine::ports::participants::{CallReply, CallRequest, Calls, Participants};
use backstop_engine::ports::store::{Participant, StoredRevision};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What a participant does with one attempt.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Ok,
    Fail(Evidence),
    /// Answers like that, after this.
    After(Duration, Box<Reply>),
    /// Waits until the story lets it go, whatever the timeout says.
    Held,
    /// Never answers: the call's own timeout ends it.
    Hang,
    /// Our own code panics in the middle of it.
    Panic,
}

/// The participant itself says so.
pub(crate) fn says(code: Code) -> Reply {
    Reply::Fail(Evidence::ParticipantSaid(code))
}

pub(crate) fn after(wait: Duration, reply: Reply) -> Reply {
    Reply::After(wait, Box::new(reply))
}

/// What a listener does with a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    Ok,
    Hang,
    Fail,
}

/// How a call came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Out,
    Answered,
    /// Its future was dropped unanswered: a reset.
    Dropped(Instant),
}

/// One call as the participant saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) saga: String,
    pub(crate) step: String,
    pub(crate) phase: Phase,
    pub(crate) attempt: u32,
    pub(crate) key: String,
    pub(crate) epoch: u64,
    pub(crate) clock: u64,
    pub(crate) process: u32,
    pub(crate) at: Instant,
    pub(crate) timeout: Duration,
    pub(crate) end: End,
    /// What it failed with, if it was answered so.
    pub(crate) failed: Option<Evidence>,
}

impl Seen {
    fn text(&self) -> String {
        format!("{} {} #{}", self.step, self.phase.as_str(), self.attempt)
    }
}

type Script = Box<dyn FnMut(&Seen) -> Reply + Send>;

/// All participants.
pub(crate) struct Bank {
    disk: Arc<Disk>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    told: Vec<(String, String, Instant)>,
    scripts: BTreeMap<(String, Phase), Script>,
    listeners: BTreeMap<String, Listen>,
    connecting: BTreeMap<String, Duration>,
    held: BTreeMap<usize, oneshot::Sender<Reply>>,
    identities: BTreeSet<(String, String, Phase, u32)>,
    faults: Vec<String>,
}

impl Bank {
    pub(crate) fn new(disk: &Arc<Disk>) -> Arc<Self> {
        Arc::new(Self { disk: Arc::clone(disk), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What the action of a step does, in any saga.
    pub(crate) fn action(&self, step: &str, script: impl FnMut(&Seen) -> Reply + Send + 'static) {
        self.state().scripts.insert((step.to_owned(), Phase::Action), Box::new(script));
    }

    /// What the compensation of a step does, in any saga.
    pub(crate) fn undo(&self, step: &str, script: impl FnMut(&Seen) -> Reply + Send + 'static) {
        self.state().scripts.insert((step.to_owned(), Phase::Compensation), Box::new(script));
    }

    /// A connection for the calls of a step takes that long.
    pub(crate) fn connects_in(&self, step: &str, takes: Duration) {
        self.state().connecting.insert(step.to_owned(), takes);
    }

    pub(crate) fn listener(&self, participant: &str, does: Listen) {
        self.state().listeners.insert(participant.to_owned(), does);
    }

    /// Answers the oldest held call of a step.
    #[track_caller]
    pub(crate) fn let_go(&self, step: &str, reply: Reply) {
        let mut state = self.state();
        let place = state.held.keys().copied().find(|place| state.seen[*place].step == step);
        let place = place.unwrap_or_else(|| panic!("no call of {step} is held"));
        let waiting = state.held.remove(&place).unwrap();
        // The call may have been reset meanwhile: then nobody hears the answer.
        let _heard = waiting.send(reply);
    }

    /// Every call, in the order in which they went out, as `debit action #1`.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state().seen.iter().map(Seen::text).collect()
    }

    pub(crate) fn calls_of(&self, saga: &str) -> Vec<String> {
        self.state().seen.iter().filter(|seen| seen.saga == saga).map(Seen::text).collect()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Signals as `saga participant`.
    pub(crate) fn told(&self) -> Vec<String> {
        self.state().told.iter().map(|(saga, participant, _)| format!("{saga} {participant}")).collect()
    }

    /// Calls that went out and have no answer yet.
    pub(crate) fn out(&self) -> Vec<String> {
        self.state().seen.iter().filter(|seen| seen.end == End::Out).map(Seen::text).collect()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    fn see(&self, process: u32, saga: &Saga, call: &Call, timeout: Duration) -> (usize, Seen) {
        let step = &saga.definition.steps[call.step];
        let seen = Seen {
            saga: saga.id.to_string(),
            step: step.name.to_string(),
            phase: call.phase,
            attempt: call.attempt,
            key: call.key(saga).to_string(),
            epoch: saga.epoch.0,
            clock: call.clock.0,
            process,
            at: Instant::now(),
            timeout,
            end: End::Out,
            failed: None,
        };
        let events = self.disk.journal(&saga.id).map(|journal| journal.events).unwrap_or_default();
        let mut faults = faults_of(saga, call, &events);
        let mut state = self.state();
        let identity = (seen.saga.clone(), seen.step.clone(), seen.phase, seen.attempt);
        if !state.identities.insert(identity) {
            faults.push("the same attempt was called before".to_owned());
        }
        let who = format!("{}: {} by process {process}: ", seen.saga, seen.text());
        state.faults.extend(faults.into_iter().map(|fault| who.clone() + &fault));
        state.seen.push(seen.clone());
        (state.seen.len() - 1, seen)
    }

    async fn answer(&self, place: usize, reply: Reply, timeout: Duration) -> Outcome {
        match reply {
            Reply::Ok => Outcome::Done(Bytes::from_static(b"done")),
            Reply::Fail(evidence) => Outcome::Failed {
                evidence,
                message: String::new(),
                details: Details::default(),
                pushback: None,
            },
            Reply::After(wait, reply) => {
                tokio::time::sleep(wait).await;
                Box::pin(self.answer(place, *reply, timeout.saturating_sub(wait))).await
            }
            Reply::Panic => panic!("as the story wants"),
            Reply::Held => {
                let (let_go, held) = oneshot::channel();
                self.state().held.insert(place, let_go);
                let reply = held.await.unwrap();
                Box::pin(self.answer(place, reply, timeout)).await
            }
            Reply::Hang => {
                tokio::time::sleep(timeout).await;
                let evidence = Evidence::NoAnswer(NoAnswer::Deadline);
                Box::pin(self.answer(place, Reply::Fail(evidence), timeout)).await
            }
        }
    }
}

/// What the journal has against this call.
fn faults_of(saga: &Saga, call: &Call, events: &[Event]) -> Vec<String> {
    let mut faults = Vec::new();
    let has = |wanted: &dyn Fn(&EventKind) -> bool| events.iter().any(|event| wanted(&event.kind));
    let succeeded = |name: &StepName| {
        has(&|kind| match kind {
            EventKind::ActionSucceeded { step, .. }
            | EventKind::QueryAnswered { step, found: Some(_), .. }
            | EventKind::BranchResolved { step, .. } => step == name,
            _ => false,
        })
    };
    let decided = has(&|kind| matches!(kind, EventKind::RollbackDecided { .. }));
    if !has(&|kind| matches!(kind, EventKind::Started(_))) {
        faults.push("the saga's start is not on disk".to_owned());
    }
    if events.iter().any(|event| event.clock.0 >= call.clock.0 && event.seq <= saga.seq) {
        faults.push(format!("clock {} is not later than what the saga knew", call.clock.0));
    }
    match call.phase {
        Phase::Action => {
            let definition = &saga.definition;
            for dependency in &definition.steps[call.step].depends_on {
                let name = &definition.steps[*dependency].name;
                if !succeeded(name) {
                    faults.push(format!("the success of {name} is not on disk"));
                }
            }
            if decided {
                faults.push("a rollback was decided".to_owned());
            }
        }
        Phase::Compensation if !decided => faults.push("no rollback is on disk".to_owned()),
        Phase::Compensation | Phase::Query => {}
    }
    faults
}

/// The bank as one process calls it.
pub(crate) struct BankOf {
    pub(crate) bank: Arc<Bank>,
    pub(crate) process: Arc<Process>,
}

#[async_trait]
impl Participants for BankOf {
    fn set(&self, _: &Participant) {}

    fn prepare(&self, revision: &StoredRevision) -> Result<Arc<dyn Calls>, Vec<Fault>> {
        if revision.spec.description == "cannot be prepared" {
            return Err(vec![Fault::new("steps", "its templates do not parse any more")]);
        }
        Ok(Arc::new(Self { bank: Arc::clone(&self.bank), process: Arc::clone(&self.process) }))
    }

    async fn signal(&self, saga: &Saga, signal: &Signal, timeout: Duration) -> Result<(), String> {
        let name: &ParticipantName = &signal.participant;
        let events = self.bank.disk.journal(&saga.id).map(|journal| journal.events).unwrap_or_default();
        let does = {
            let mut state = self.bank.state();
            if !events.iter().any(|event| matches!(event.kind, EventKind::RollbackDecided { .. })) {
                state
                    .faults
                    .push(format!("{name} was told of a rollback of {} that is not on disk", saga.id));
            }
            state.told.push((saga.id.to_string(), name.to_string(), Instant::now()));
            state.listeners.get(name.as_str()).copied().unwrap_or(Listen::Ok)
        };
        match does {
            Listen::Ok => Ok(()),
            Listen::Fail => Err("nobody is at home".to_owned()),
            Listen::Hang => {
                tokio::time::sleep(timeout).await;
                Err("no answer in time".to_owned())
            }
        }
    }
}

struct Ending {
    bank: Arc<Bank>,
    place: usize,
    answered: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let end = if self.answered { End::Answered } else { End::Dropped(Instant::now()) };
        self.bank.state().seen[self.place].end = end;
    }
}

#[async_trait]
impl Calls for BankOf {
    async fn call(&self, request: CallRequest) -> CallReply {
        let CallRequest { saga, call, timeout, clearance } = request;
        let work = async {
            let step = saga.definition.steps[call.step].name.to_string();
            let connecting = self.bank.state().connecting.get(&step).copied();
            if let Some(takes) = connecting {
                tokio::time::sleep(takes).await;
            }
            if !clearance.holds() {
                let withdrawn = Reply::Fail(Evidence::NotSent(NotSent::Withdrawn));
                return CallReply {
                    outcome: self.bank.answer(0, withdrawn, timeout).await,
                    peer_clock: None,
                };
            }
            let (place, seen) = self.bank.see(self.process.number, &saga, &call, timeout);
            let mut ending = Ending { bank: Arc::clone(&self.bank), place, answered: false };
            let reply = match self.bank.state().scripts.get_mut(&(seen.step.clone(), seen.phase)) {
                Some(script) => script(&seen),
                None => Reply::Ok,
            };
            let outcome = self.bank.answer(place, reply, timeout).await;
            ending.answered = true;
            if let Outcome::Failed { evidence, .. } = &outcome {
                self.bank.state().seen[place].failed = Some(*evidence);
            }
            CallReply { outcome, peer_clock: None }
        };
        self.process.alive(work).await
    }
}
