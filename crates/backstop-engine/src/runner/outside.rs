//! What one saga has going on outside: its calls and signals, compared with its agenda.
//!
//! # Invariants
//! * An attempt is sent at most once: its identity stays in `out` until the agenda no longer names it,
//!   also while its answer is decided but not yet durable.
//! * After a rollback is decided no action is sent, also not one that waits at its participant's gate or for its
//!   connection; one
//!   that the agenda still awaits and that never went out is answered as withdrawn.
//! * After the saga is dropped here, nothing of it goes out
//!   (`peer_09_after_a_lost_append_a_call_that_waits_for_its_connection_does_not_go_out_either`).
//! * What waits at a gate when the tenure comes into doubt, or a drain begins, does not go out.
//! * What has waited at a gate for `park_after` is held back: it waits no longer in memory, and nothing is decided
//!   about it.

use crate::gate::{Barred, Manner, Pass};
use crate::ports::participants::{CallReply, CallRequest, Calls};
use crate::shared::Shared;
use crate::tenure::{Clearance, Tenure};
use backstop_core::{
    Agenda, Answer, Call, Effect, Evidence, Input, NoAnswer, NotSent, OnFailure, Outcome, ParticipantName,
    Phase, PlannedCall, Saga, Signal, Tier, effect, tier,
};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Identity = (usize, Phase, u32);

/// One saga's calls and signals.
pub(crate) struct Outside {
    shared: Arc<Shared>,
    tenure: Arc<Tenure>,
    calls: Arc<dyn Calls>,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// Attempts that went out and that the agenda still names.
    out: BTreeMap<Identity, Attempt>,
    /// Calls that their gates did not let pass for a long time.
    held_back: BTreeSet<Identity>,
    signalling: BTreeSet<ParticipantName>,
    /// The saga was taken over: its calls wait in the backlog.
    is_backlog: bool,
    /// When the first of the calls now under way went out.
    calling_since: Option<Instant>,
    called: Duration,
}

/// An attempt that did not go out, and of which nothing is decided: it is to be sent another time, or by another.
struct NotBegun {
    identity: Identity,
    held_back: bool,
}

/// How something that was under way came to its end: with something for the saga to know, or not at all.
type Ended = Result<Input, NotBegun>;

struct Attempt {
    answered: bool,
    /// Keeps it from going out, if it has not.
    withdraw: CancellationToken,
    /// How to reset it once it is out, under `on_failure: CANCEL`.
    reset: Arc<OnceLock<AbortHandle>>,
}

impl Attempt {
    fn new() -> Self {
        Self { answered: false, withdraw: CancellationToken::new(), reset: Arc::default() }
    }
}

impl Outside {
    pub(crate) fn new(shared: Arc<Shared>, tenure: Arc<Tenure>, calls: Arc<dyn Calls>) -> Self {
        Self {
            shared,
            tenure,
            calls,
            under_way: FuturesUnordered::new(),
            out: BTreeMap::new(),
            held_back: BTreeSet::new(),
            signalling: BTreeSet::new(),
            is_backlog: false,
            calling_since: None,
            called: Duration::ZERO,
        }
    }

    /// From here on its calls wait behind the others of their kind.
    pub(crate) fn join_backlog(&mut self) {
        self.is_backlog = true;
    }

    /// Brings what goes on in line with the agenda. Answers inputs that are known at once.
    pub(crate) fn follow(&mut self, saga: &Arc<Saga>, agenda: &Agenda, may_send: bool) -> Vec<Input> {
        let wanted: BTreeSet<Identity> =
            agenda.calls.iter().chain(&agenda.awaited).map(Call::identity).collect();
        let resets = &self.shared.resets;
        self.out.retain(|identity, attempt| {
            let keep = wanted.contains(identity);
            if !keep {
                attempt.withdraw.cancel();
                if let Some(reset) = attempt.reset.get() {
                    resets.reset(reset.clone());
                }
            }
            keep
        });
        if self.out.is_empty() {
            // A map keeps room for eleven even so, and a saga that waits has nothing out for hours.
            self.out = BTreeMap::new();
        }
        self.held_back.retain(|identity| wanted.contains(identity));
        if may_send {
            for call in &agenda.calls {
                let identity = call.identity();
                if !self.out.contains_key(&identity) && !self.held_back.contains(&identity) {
                    self.send(saga, *call);
                }
            }
            for signal in &agenda.signals {
                if self.signalling.insert(signal.participant.clone()) {
                    let delivery = deliver(Arc::clone(&self.shared), Arc::clone(saga), signal.clone());
                    self.under_way.push(Box::pin(async move { Ok(delivery.await) }));
                }
            }
        }
        let mut never_sent = Vec::new();
        for call in &agenda.awaited {
            // Noted as answered: it is said once, also while that is not on disk yet.
            let known = self.out.entry(call.identity()).or_insert_with(|| {
                never_sent.push(Input::Answer(withdrawn(*call)));
                Attempt { answered: true, ..Attempt::new() }
            });
            // One that waits at the gate answers for itself.
            known.withdraw.cancel();
        }
        never_sent
    }

    /// The next thing that ends; waits for ever if nothing is under way.
    pub(crate) async fn next(&mut self) -> Input {
        match self.under_way.next().await {
            Some(Ok(input)) => {
                self.note_end(&input);
                input
            }
            Some(Err(NotBegun { identity, held_back })) => {
                self.out.remove(&identity);
                if held_back {
                    self.held_back.insert(identity);
                }
                self.note_time();
                // Nothing to decide: the runner merely looks again at what should go out.
                Input::Wake
            }
            None => std::future::pending().await,
        }
    }

    /// True if a call is out whose answer has not come.
    pub(crate) fn is_calling(&self) -> bool {
        self.out.values().any(|attempt| !attempt.answered)
    }

    /// True if nothing at all is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.under_way.is_empty()
    }

    /// True if all of these calls were held back at their gates.
    pub(crate) fn holds_back(&self, calls: &[Call]) -> bool {
        calls.iter().all(|call| self.held_back.contains(&call.identity()))
    }

    /// Lets what was held back wait at its gate once more.
    pub(crate) fn try_held_back_again(&mut self) {
        self.held_back.clear();
    }

    /// How long at least one call was out.
    pub(crate) fn called(&self) -> Duration {
        self.called + self.calling_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn note_end(&mut self, input: &Input) {
        let Input::Answer(answer) = input else { return };
        if let Some(attempt) = self.out.get_mut(&(answer.step, answer.phase, answer.attempt)) {
            attempt.answered = true;
        }
        self.note_time();
    }

    fn note_time(&mut self) {
        if !self.is_calling()
            && let Some(since) = self.calling_since.take()
        {
            self.called += since.elapsed();
        }
    }

    fn send(&mut self, saga: &Arc<Saga>, call: Call) {
        let attempt = Attempt::new();
        let sending = Sending {
            shared: Arc::clone(&self.shared),
            tenure: Arc::clone(&self.tenure),
            calls: Arc::clone(&self.calls),
            saga: Arc::clone(saga),
            call,
            is_backlog: self.is_backlog,
            withdraw: attempt.withdraw.clone(),
            reset: Arc::clone(&attempt.reset),
        };
        self.under_way.push(Box::pin(sending.run()));
        self.out.insert(call.identity(), attempt);
        self.calling_since.get_or_insert_with(Instant::now);
    }
}

/// Once the saga is dropped here, nothing more of it goes out: also no call that has a task of its own, which outlives this.
impl Drop for Outside {
    fn drop(&mut self) {
        self.out.values().for_each(|attempt| attempt.withdraw.cancel());
    }
}

/// One attempt on its way: first through the participant's gate, then out.
struct Sending {
    shared: Arc<Shared>,
    tenure: Arc<Tenure>,
    calls: Arc<dyn Calls>,
    saga: Arc<Saga>,
    call: Call,
    is_backlog: bool,
    withdraw: CancellationToken,
    reset: Arc<OnceLock<AbortHandle>>,
}

impl Sending {
    async fn run(self) -> Ended {
        let call = self.call;
        let Some(plan) = call.plan(&self.saga) else { return Ok(Input::Answer(withdrawn(call))) };
        let began = Instant::now();
        let allowed = || match (call.phase, self.saga.started.deadline) {
            // An expired saga must not starve its own rollback.
            (Phase::Action, Some(deadline)) if !self.saga.is_past_pivot() => {
                plan.timeout.min(deadline.since(self.shared.clock.now()))
            }
            (Phase::Action | Phase::Query | Phase::Compensation, _) => plan.timeout,
        };
        let timeout = allowed();
        let not_begun = |held_back| NotBegun { identity: call.identity(), held_back };
        // The wait happens within the saga's own task: if the saga is dropped, the attempt never goes out.
        let pass = tokio::select! {
            biased;
            () = self.withdraw.cancelled() => Err(Barred::NotSent(NotSent::Withdrawn)),
            () = self.shared.draining.cancelled() => return Err(not_begun(false)),
            pass = self.pass_gate(plan, timeout) => pass,
        };
        if pass.is_ok() && !self.tenure.may_act() {
            return Err(not_begun(false));
        }
        let (sent, sent_out) = (Instant::now(), pass.is_ok());
        let reply = match pass {
            Err(Barred::HeldBack) => return Err(not_begun(true)),
            Err(Barred::NotSent(reason)) => not_sent(reason),
            Ok(pass) => {
                let left =
                    if self.is_hurried() { timeout.saturating_sub(began.elapsed()) } else { allowed() };
                self.call(pass, left).await
            }
        };
        // Held back by the lease, or withdrawn, by the last who asked for it: nothing is decided about it.
        if sent_out && is_withdrawn(&reply.outcome) {
            return Err(not_begun(false));
        }
        let elapsed = sent.elapsed();
        self.shared.metrics.call_ended(plan.participant.as_str(), call.phase.as_str(), elapsed);
        if sent_out {
            let failed = matches!(reply.outcome, Outcome::Failed { .. });
            self.shared.tally.called(&plan.participant, elapsed, failed);
        }
        Ok(Input::Answer(Answer {
            step: call.step,
            phase: call.phase,
            attempt: call.attempt,
            sent_clock: call.clock,
            peer_clock: reply.peer_clock,
            elapsed,
            outcome: reply.outcome,
        }))
    }

    fn manner(&self) -> Manner {
        let is_endless = self.saga.definition.steps[self.call.step].is_endless(self.call.phase);
        if is_endless { Manner::Patient } else { Manner::Prompt }
    }

    /// True if what it waits at the gate is part of its own time.
    fn is_hurried(&self) -> bool {
        self.manner() == Manner::Prompt && !self.is_backlog
    }

    async fn pass_gate(&self, plan: &PlannedCall, timeout: Duration) -> Result<Pass, Barred> {
        let patience = if self.is_hurried() { timeout } else { self.shared.settings.park_after };
        let progress = self.saga.branches[self.call.step].progress(self.call.phase);
        let give_up_at =
            progress.gives_up_at(&plan.retry).map(|at| Instant::now() + at.since(self.shared.clock.now()));
        let gate = self.shared.gates.of(&plan.participant);
        gate.enter(self.manner(), self.is_backlog, patience, give_up_at).await
    }

    /// Sends it, and tells the breaker what it should learn of its end.
    async fn call(&self, pass: Pass, timeout: Duration) -> CallReply {
        let clearance = Clearance::new(Arc::clone(&self.tenure), self.withdraw.clone());
        let request = CallRequest { saga: Arc::clone(&self.saga), call: self.call, timeout, clearance };
        let (calls, saga) = (Arc::clone(&self.calls), Arc::clone(&self.saga));
        let sent = async move {
            let reply = calls.call(request).await;
            // One that was held back says nothing about the participant.
            if !is_withdrawn(&reply.outcome) {
                pass.report(is_outage(&saga, &reply.outcome));
            }
            reply
        };
        match self.saga.definition.on_failure {
            OnFailure::Drain => sent.await,
            OnFailure::Cancel => {
                // In a task of its own, so that it can be reset later, at the permitted rate, and not when
                // this saga's last future is dropped.
                let (replied, reply) = oneshot::channel();
                let task = self.shared.spawn(async move {
                    // A saga that was dropped meanwhile waits for no reply.
                    let _ = replied.send(sent.await);
                });
                self.reset.get_or_init(|| task);
                reply.await.unwrap_or_else(|_| lost_to_a_reset())
            }
        }
    }
}

fn is_withdrawn(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { evidence: Evidence::NotSent(NotSent::Withdrawn), .. })
}

fn is_outage(saga: &Saga, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done(_) => false,
        Outcome::Failed { evidence, .. } => tier(&saga.definition.errors, evidence.code()).tier == Tier::L2,
    }
}

fn not_sent(reason: NotSent) -> CallReply {
    let evidence = Evidence::NotSent(reason);
    debug_assert_eq!(effect(evidence), Effect::None);
    let message = match reason {
        NotSent::BreakerOpen => "the participant's circuit breaker is open",
        NotSent::NoPermit => "no permit was free: the participant has in_flight_max calls already",
        NotSent::Withdrawn => "a rollback was decided before the attempt went out",
        NotSent::NoConnection | NotSent::Draining | NotSent::Refused => "",
    };
    CallReply {
        outcome: Outcome::Failed {
            evidence,
            message: message.to_owned(),
            details: backstop_core::Details::default(),
            pushback: None,
        },
        peer_clock: None,
    }
}

fn withdrawn(call: Call) -> Answer {
    Answer {
        step: call.step,
        phase: call.phase,
        attempt: call.attempt,
        sent_clock: call.clock,
        peer_clock: None,
        elapsed: Duration::ZERO,
        outcome: not_sent(NotSent::Withdrawn).outcome,
    }
}

fn lost_to_a_reset() -> CallReply {
    let outcome = Outcome::Failed {
        evidence: Evidence::NoAnswer(NoAnswer::ConnectionLost),
        message: "the call was reset".to_owned(),
        details: backstop_core::Details::default(),
        pushback: None,
    };
    CallReply { outcome, peer_clock: None }
}

/// Delivers a rollback signal, a bounded number of times.
async fn deliver(shared: Arc<Shared>, saga: Arc<Saga>, signal: Signal) -> Input {
    let settings = &shared.settings;
    let mut attempts = 0;
    let error = loop {
        attempts += 1;
        match shared.participants.signal(&saga, &signal, settings.signal_timeout).await {
            Ok(()) => break None,
            Err(error) if attempts >= settings.signal_attempts_max => break Some(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100) * attempts).await,
        }
    };
    Input::SignalReport { participant: signal.participant, attempts, error }
}
