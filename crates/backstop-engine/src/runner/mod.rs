//! Drives one saga from turn to turn: inputs in, events written, then the agenda followed.
//!
//! # Invariants
//! * The agenda is read off the saga *as it is on disk*. What is decided but not written yet is `ahead`,
//!   and nothing outside follows from it.
//! * A lost append ends the runner at once: no call, no signal, no answer after it. So does one that is on
//!   disk, but that another writer has built upon before its fate was known here.
//! * Nobody is told anything, a refusal included, that rests on what is `ahead`.
//! * A runner acts only within its tenure.
//! * A saga that is over is not let go of before its rollback signals have ended: nobody else would deliver them
//!   (`a_drain_waits_for_the_signals_of_a_saga_that_has_just_ended`).
//! * A saga for which nothing can be done for longer than `park_after` is let go of, with the time at which it is to
//!   come back: it waits in the store, not in memory.

mod outside;
mod report;

use crate::group_commit::Settled;
use crate::live::{Command, CommandFailed, Place};
use crate::ports::participants::Calls;
use crate::ports::store::{Append, Appended};
use crate::ports::traces::Chapter;
use crate::shared::Shared;
use crate::tenure::Tenure;
use backstop_core::{
    Agenda, Corrupt, Event, Input, Saga, Seq, Timestamp, agenda, apply, backoff, can_ride_along, decide,
};
use futures::FutureExt;
use outside::Outside;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How often a saga looks again whether it may act, while its tenure is in doubt.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// First and longest wait before an append that the store refuses is tried again.
const APPEND_RETRY_FIRST: Duration = Duration::from_millis(200);
const APPEND_RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Why a runner lets go of its saga without another word.
#[derive(Debug)]
enum Dropped {
    /// Another writer has taken the saga over.
    Lost,
    /// What was written last is on disk, but another writer has gone on from there.
    Overtaken,
    /// The lease is over.
    TenureEnded,
    /// An event that was just decided does not fit the saga: a fault in the rules.
    Corrupt(Corrupt),
}

/// Told once, when a new saga is on disk or certainly is not; broken if that will not be known here.
pub(crate) type Accepted = oneshot::Sender<Appended>;

/// Drives one saga.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    tenure: Arc<Tenure>,
    place: Place,
    fingerprint: [u8; 32],
    /// As it is on disk.
    saga: Arc<Saga>,
    /// Decided and not on disk yet. In a box: most wait with nothing ahead.
    ahead: Option<Box<Ahead>>,
    /// When it is to come back, once it is let go of.
    wake_at: Option<Timestamp>,
    outside: Outside,
}

struct Ahead {
    saga: Saga,
    events: Vec<Event>,
    since: Instant,
}

impl Runner {
    /// In a box: a future holds what it was called with twice.
    pub(crate) fn new(
        shared: Arc<Shared>,
        tenure: Arc<Tenure>,
        place: Place,
        calls: Arc<dyn Calls>,
        saga: Arc<Saga>,
        fingerprint: [u8; 32],
    ) -> Box<Self> {
        let outside = Outside::new(Arc::clone(&shared), Arc::clone(&tenure), calls);
        Box::new(Self { shared, tenure, place, fingerprint, saga, ahead: None, wake_at: None, outside })
    }

    /// Drives a new saga, beginning with its first event.
    pub(crate) async fn begin(mut self: Box<Self>, first: Event, accepted: Accepted) {
        let saga = Saga::clone(&self.saga);
        match Box::pin(self.write(Seq(0), saga, vec![first])).await {
            Ok(()) => {
                let _caller_may_be_gone = accepted.send(Appended::Written);
                self.run().await;
            }
            Err(Dropped::Lost) => {
                let _caller_may_be_gone = accepted.send(Appended::Lost);
            }
            Err(dropped @ Dropped::Overtaken) => {
                // It was accepted all the same; another drives it.
                self.say_dropped(&dropped);
                let _caller_may_be_gone = accepted.send(Appended::Written);
            }
            Err(Dropped::TenureEnded | Dropped::Corrupt(_)) => drop(accepted),
        }
    }

    /// Drives a saga that another coordinator, or an earlier life of this one, has left.
    pub(crate) async fn adopt(mut self: Box<Self>, handed_over: bool, adopted: oneshot::Sender<()>) {
        let coordinator = self.tenure.coordinator.clone();
        self.outside.join_backlog();
        let left_at = self.saga.seq;
        match self.turn_now(Input::Adopt { coordinator, handed_over }).await {
            Ok(()) => {
                if !handed_over && self.shared.traces.wants(&self.saga) {
                    self.shared.tell_what_was_left(&self.saga, left_at.next());
                }
                let _nobody_may_wait = adopted.send(());
                self.run().await;
            }
            Err(dropped) => self.give_up(dropped),
        }
    }

    async fn run(&mut self) {
        match self.drive().await {
            Ok(()) => {
                // From here on commands find the saga in the store.
                self.place.inbox.close();
                while let Some(command) = self.place.inbox.take() {
                    let _ = command.reply.send(Err(CommandFailed::Gone));
                }
            }
            Err(dropped) => self.give_up(dropped),
        }
    }

    /// Ends without another word. A saga that its own rules cannot go on with would stand still for as long as
    /// its owner lives: it is set aside for a person.
    fn give_up(&self, dropped: Dropped) {
        self.say_dropped(&dropped);
        if let Dropped::Corrupt(error) = dropped {
            self.shared.live.forsake(self.saga.id.clone(), error.to_string());
        }
    }

    async fn drive(&mut self) -> Result<(), Dropped> {
        loop {
            let now = self.shared.clock.now();
            let picture = agenda(&self.saga, now);
            let draining = self.shared.draining.is_cancelled();
            let may_act = self.tenure.may_act();
            // What is over nobody takes up again: its last signals are delivered here, also during a drain, which has its own
            // limit.
            let goes_on_elsewhere = draining && !self.saga.state.is_final();
            let known = self.outside.follow(&self.saga, &picture, may_act && !goes_on_elsewhere);
            if !known.is_empty() {
                self.turn(known, Vec::new()).await?;
                continue;
            }
            if self.is_done(&picture) {
                return Ok(());
            }
            if goes_on_elsewhere && !self.outside.is_calling() {
                return self.release(self.next_turn(&picture).unwrap_or(now)).await;
            }
            if self.has_nothing_going_on()
                && let Some(wake_at) = self.next_turn(&picture)
            {
                if wake_at.since(now) > self.shared.settings.park_after {
                    return self.release(wake_at).await;
                }
                // Something else comes sooner than parking is worth: what was held back waits here once more.
                self.outside.try_held_back_again();
                if !picture.calls.is_empty() {
                    continue;
                }
            }
            let wait = self.next_look(&picture, may_act);
            let (inputs, commands) = self.wait(wait).await?;
            self.turn(inputs, commands).await?;
        }
    }

    /// Nothing is left for a machine to do here: it is over, or waits for a person.
    fn is_done(&self, picture: &Agenda) -> bool {
        self.saga.state.is_at_rest()
            && picture.signals.is_empty()
            && self.ahead.is_none()
            && self.outside.is_quiet()
            && self.place.inbox.is_empty()
    }

    fn has_nothing_going_on(&self) -> bool {
        self.ahead.is_none() && self.outside.is_quiet() && self.place.inbox.is_empty()
    }

    /// When the saga wants its next turn; `None` if there is something to do now. What was held back at a gate is
    /// not: it is tried again the later, the more often it was tried in vain.
    fn next_turn(&self, picture: &Agenda) -> Option<Timestamp> {
        if picture.is_idle() {
            return picture.wake_at;
        }
        if !picture.awaited.is_empty()
            || !picture.signals.is_empty()
            || !self.outside.holds_back(&picture.calls)
        {
            return None;
        }
        let settings = &self.shared.settings;
        let away =
            backoff::parked(settings.park_after * 2, settings.park_max, &self.saga.id, self.saga.parked);
        let at = self.shared.clock.now().plus(away);
        Some(picture.wake_at.map_or(at, |wake_at| wake_at.min(at)))
    }

    /// Lets go of the saga in order: whoever is there takes it up again at that time.
    async fn release(&mut self, wake_at: Timestamp) -> Result<(), Dropped> {
        self.wake_at = Some(wake_at);
        self.turn_now(Input::Release).await
    }

    /// How long to wait at most if nothing comes in.
    fn next_look(&self, picture: &Agenda, may_act: bool) -> Option<Duration> {
        let timer = picture.wake_at.map(|at| at.since(self.shared.clock.now()));
        let ride = self
            .ahead
            .as_ref()
            .map(|ahead| self.shared.settings.ride_along_max.saturating_sub(ahead.since.elapsed()));
        let lease = (!may_act).then_some(LOOK_AGAIN);
        [timer, ride, lease].into_iter().flatten().min()
    }

    /// Waits for something to come in, and takes all that is there by then.
    async fn wait(&mut self, at_most: Option<Duration>) -> Result<(Vec<Input>, Vec<Command>), Dropped> {
        let (mut inputs, mut commands) = (Vec::new(), Vec::new());
        let timer = async {
            match at_most {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.tenure.ended() => return Err(Dropped::TenureEnded),
            input = self.outside.next() => inputs.push(input),
            command = self.place.inbox.next() => commands.push(command),
            () = self.shared.draining.cancelled(), if !self.shared.draining.is_cancelled() => {}
            () = timer => inputs.push(Input::Wake),
        }
        while let Some(input) = self.outside.next().now_or_never() {
            inputs.push(input);
        }
        while let Some(command) = self.place.inbox.take() {
            commands.push(command);
        }
        Ok((inputs, commands))
    }

    /// One turn: decides on all that came in; a success that nothing waits for may ride along later.
    async fn turn(&mut self, inputs: Vec<Input>, commands: Vec<Command>) -> Result<(), Dropped> {
        self.turn_by(inputs, commands, false).await
    }

    /// A turn whose events are written before it ends: another owner's first word, or this one's last.
    async fn turn_now(&mut self, input: Input) -> Result<(), Dropped> {
        self.turn_by(vec![input], Vec::new(), true).await
    }

    async fn turn_by(
        &mut self,
        inputs: Vec<Input>,
        commands: Vec<Command>,
        write_now: bool,
    ) -> Result<(), Dropped> {
        let now = self.shared.clock.now();
        let mut next = self.ahead.take().unwrap_or_else(|| {
            let saga = Saga::clone(&self.saga);
            Box::new(Ahead { saga, events: Vec::new(), since: Instant::now() })
        });
        for input in inputs {
            // Only a person's word can be refused, and those come as commands.
            next.take(decide(&next.saga, now, input).unwrap_or_default())?;
        }
        // A refusal too speaks of what was decided before it, and waits until that is on disk.
        let mut replies = Vec::new();
        for Command { input, reply } in commands {
            let refused = match decide(&next.saga, now, input) {
                Ok(events) => {
                    next.take(events)?;
                    None
                }
                Err(refused) => Some(refused),
            };
            replies.push((reply, refused));
        }
        if !next.events.is_empty() {
            let may_wait = !write_now
                && replies.is_empty()
                && next.since.elapsed() < self.shared.settings.ride_along_max
                && can_ride_along(&self.saga, &next.saga, now);
            if may_wait {
                self.ahead = Some(next);
                return Ok(());
            }
            // Most of a saga's life is waiting: what only a write needs is not kept meanwhile (1.5 of 4.7 KB).
            let Ahead { saga, events, .. } = *next;
            Box::pin(self.write(self.saga.seq, saga, events)).await?;
        }
        for (reply, refused) in replies {
            let answer =
                refused.map_or_else(|| Ok(Arc::clone(&self.saga)), |why| Err(CommandFailed::Refused(why)));
            let _ = reply.send(answer);
        }
        Ok(())
    }

    /// Writes events, however often it takes, and only then lets them be true.
    async fn write(&mut self, expected: Seq, next: Saga, events: Vec<Event>) -> Result<(), Dropped> {
        let (began, began_at) = (Instant::now(), self.shared.clock.now());
        let Some(last) = events.last() else { return Ok(()) };
        let head = Shared::head_of(&next, &last.kind, &self.tenure, self.fingerprint, self.wake_at);
        let append = Append { saga: next.id.clone(), expected, events, head };
        let (mut wait, mut is_repeat) = (APPEND_RETRY_FIRST, false);
        loop {
            let settled = tokio::select! {
                biased;
                () = self.tenure.ended() => return Err(Dropped::TenureEnded),
                settled = self.shared.journal.append(append.clone(), is_repeat) => settled,
            };
            match settled {
                Ok(Settled::Written) => break,
                Ok(Settled::Lost) => return Err(Dropped::Lost),
                Ok(Settled::Overtaken) => return Err(Dropped::Overtaken),
                Err(error) => {
                    is_repeat = true;
                    tracing::error!(saga = %next.id, trace_id = next.trace_id(), %error, "the saga's journal could not be written; trying again");
                    tokio::select! {
                        biased;
                        () = self.tenure.ended() => return Err(Dropped::TenureEnded),
                        () = tokio::time::sleep(wait) => {}
                    }
                    wait = (wait * 2).min(APPEND_RETRY_LONGEST);
                }
            }
        }
        self.shared.tally.appended(began.elapsed());
        let was_told = self.shared.traces.wants(&self.saga);
        self.saga = Arc::new(next);
        self.tell(&append, began_at, was_told);
        self.shared.metrics.committed(&self.saga, &append.events, self.outside.called());
        self.shared.tally.committed(&append.events);
        report::events(&self.saga, &append.events);
        self.place.view.send_replace(Arc::clone(&self.saga));
        Ok(())
    }

    /// Tells the saga's trace what has just become durable.
    fn tell(&self, append: &Append, began: Timestamp, was_told: bool) {
        let traces = &self.shared.traces;
        if !traces.wants(&self.saga) {
            return;
        }
        let written = Some((began, self.shared.clock.now()));
        traces.tell(&Chapter { saga: &self.saga, events: &append.events, append: written });
        if !was_told && append.expected > Seq(0) {
            self.shared.tell_from_the_start(&self.saga, append.expected.next());
        }
    }

    fn say_dropped(&self, dropped: &Dropped) {
        let (saga, trace_id) = (&self.saga.id, self.saga.trace_id());
        match dropped {
            Dropped::Lost | Dropped::Overtaken => {
                tracing::info!(%saga, trace_id, "another coordinator has written to the saga: dropped here");
            }
            Dropped::TenureEnded => tracing::info!(%saga, trace_id, "the lease is over: dropped here"),
            Dropped::Corrupt(error) => {
                tracing::error!(%saga, trace_id, %error, "the rules made an event that does not fit")
            }
        }
    }
}

impl Ahead {
    fn take(&mut self, events: Vec<Event>) -> Result<(), Dropped> {
        for event in &events {
            apply(&mut self.saga, event).map_err(Dropped::Corrupt)?;
        }
        self.events.extend(events);
        Ok(())
    }
}
