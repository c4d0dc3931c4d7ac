//! What one saga has going on outside: its calls and signals, compared with its agenda.
//!
//! # Invariants
//! * An attempt is sent at most once: its identity stays in `out` until the agenda no longer names it,
//!   also while its answer is decided but not yet durable.
//! * After a rollback is decided no action is sent; one that the agenda still awaits and that never went
//!   out is answered as withdrawn.

use crate::gate::Pass;
use crate::ports::participants::{CallReply, CallRequest, Calls};
use crate::shared::Shared;
use backstop_core::{
    Agenda, Answer, Call, Effect, Evidence, Input, NoAnswer, NotSent, OnFailure, Outcome, ParticipantName, Phase,
    Saga, Signal, Tier, effect, tier,
};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

type Identity = (usize, Phase, u32);

/// One saga's calls and signals.
pub(crate) struct Outside {
    shared: Arc<Shared>,
    calls: Arc<dyn Calls>,
    under_way: FuturesUnordered<BoxFuture<'static, Input>>,
    /// Attempts that went out and that the agenda still names.
    out: BTreeMap<Identity, Attempt>,
    signalling: BTreeSet<ParticipantName>,
    /// When the first of the calls now under way went out.
    calling_since: Option<Instant>,
    called: Duration,
}

struct Attempt {
    answered: bool,
    /// How to reset it, under `on_failure: CANCEL`.
    reset: Option<AbortHandle>,
}

impl Outside {
    pub(crate) fn new(shared: Arc<Shared>, calls: Arc<dyn Calls>) -> Self {
        Self {
            shared,
            calls,
            under_way: FuturesUnordered::new(),
            out: BTreeMap::new(),
            signalling: BTreeSet::new(),
            calling_since: None,
            called: Duration::ZERO,
        }
    }

    /// Brings what goes on in line with the agenda. Answers inputs that are known at once.
    pub(crate) fn follow(&mut self, saga: &Arc<Saga>, agenda: &Agenda, may_send: bool) -> Vec<Input> {
        let wanted: BTreeSet<Identity> =
            agenda.calls.iter().chain(&agenda.awaited).map(Call::identity).collect();
        let resets = &self.shared.resets;
        self.out.retain(|identity, attempt| {
            let keep = wanted.contains(identity);
            if let (false, Some(reset)) = (keep, attempt.reset.take()) {
                resets.reset(reset);
            }
            keep
        });
        if may_send {
            for call in &agenda.calls {
                if !self.out.contains_key(&call.identity()) {
                    self.send(saga, *call);
                }
            }
            for signal in &agenda.signals {
                if self.signalling.insert(signal.participant.clone()) {
                    self.under_way.push(Box::pin(deliver(Arc::clone(&self.shared), Arc::clone(saga), signal.clone())));
                }
            }
        }
        let never_sent = agenda.awaited.iter().filter(|call| !self.out.contains_key(&call.identity()));
        never_sent.map(|call| Input::Answer(withdrawn(*call))).collect()
    }

    /// The next thing that ends; waits for ever if nothing is under way.
    pub(crate) async fn next(&mut self) -> Input {
        match self.under_way.next().await {
            Some(input) => {
                self.note_end(&input);
                input
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

    /// How long at least one call was out.
    pub(crate) fn called(&self) -> Duration {
        self.called + self.calling_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn note_end(&mut self, input: &Input) {
        let Input::Answer(answer) = input else { return };
        if let Some(attempt) = self.out.get_mut(&(answer.step, answer.phase, answer.attempt)) {
            attempt.answered = true;
        }
        if !self.is_calling() {
            if let Some(since) = self.calling_since.take() {
                self.called += since.elapsed();
            }
        }
    }

    fn send(&mut self, saga: &Arc<Saga>, call: Call) {
        let attempt = attempt(Arc::clone(&self.shared), Arc::clone(&self.calls), Arc::clone(saga), call);
        let reset = if saga.definition.on_failure == OnFailure::Cancel {
            // In a task of its own, so that it can be reset later, at the permitted rate, and not when
            // this saga's last future is dropped.
            let task = tokio::spawn(attempt);
            let reset = task.abort_handle();
            self.under_way.push(Box::pin(async move {
                task.await.unwrap_or_else(|_| Input::Answer(lost_to_a_reset(call)))
            }));
            Some(reset)
        } else {
            self.under_way.push(Box::pin(attempt));
            None
        };
        self.out.insert(call.identity(), Attempt { answered: false, reset });
        self.calling_since.get_or_insert_with(Instant::now);
    }
}

/// Sends one attempt through the participant's gate and judges what the breaker should learn of it.
async fn attempt(shared: Arc<Shared>, calls: Arc<dyn Calls>, saga: Arc<Saga>, call: Call) -> Input {
    let Some(plan) = call.plan(&saga) else { return Input::Answer(withdrawn(call)) };
    let began = Instant::now();
    let timeout = match (call.phase, saga.started.deadline) {
        // An expired saga must not starve its own rollback.
        (Phase::Action, Some(deadline)) if !saga.is_past_pivot() => {
            plan.timeout.min(deadline.since(shared.clock.now()))
        }
        (Phase::Action | Phase::Query | Phase::Compensation, _) => plan.timeout,
    };
    let gate = shared.gates.of(&plan.participant);
    let pass: Result<Pass, NotSent> = match call.phase {
        Phase::Action | Phase::Query => gate.enter(timeout).await,
        Phase::Compensation => Ok(gate.enter_when_possible().await),
    };
    let sent = Instant::now();
    let reply = match pass {
        Err(reason) => not_sent(reason),
        Ok(pass) => {
            let left = match call.phase {
                Phase::Action | Phase::Query => timeout.saturating_sub(began.elapsed()),
                Phase::Compensation => timeout,
            };
            let reply = calls.call(CallRequest { saga: Arc::clone(&saga), call, timeout: left }).await;
            pass.report(is_outage(&saga, &reply.outcome));
            reply
        }
    };
    let elapsed = sent.elapsed();
    shared.metrics.call_ended(plan.participant.as_str(), call.phase.as_str(), elapsed);
    Input::Answer(Answer {
        step: call.step,
        phase: call.phase,
        attempt: call.attempt,
        sent_clock: call.clock,
        peer_clock: reply.peer_clock,
        elapsed,
        outcome: reply.outcome,
    })
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

fn answer_of(call: Call, outcome: Outcome) -> Answer {
    Answer {
        step: call.step,
        phase: call.phase,
        attempt: call.attempt,
        sent_clock: call.clock,
        peer_clock: None,
        elapsed: Duration::ZERO,
        outcome,
    }
}

fn withdrawn(call: Call) -> Answer {
    answer_of(call, not_sent(NotSent::Withdrawn).outcome)
}

fn lost_to_a_reset(call: Call) -> Answer {
    let outcome = Outcome::Failed {
        evidence: Evidence::NoAnswer(NoAnswer::ConnectionLost),
        message: "the call was reset".to_owned(),
        details: backstop_core::Details::default(),
        pushback: None,
    };
    answer_of(call, outcome)
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
