//! Work that another system does: it cannot be in one transaction with the barrier's row.
//!
//! The intent is on disk before anything goes out, the result after it came back. In between lies a doubt that no
//! table can settle: whoever finds a call that was begun and has no outcome has to *ask*.
//!
//! ```
//! # use backstop_participant::{Barrier, Context, Fingerprint, Outside, OutsideCall, Stop};
//! # use tonic::{Response, Status};
//! # struct Bank;
//! # impl Bank {
//! #     async fn pay(&self, key: &str) -> Result<String, Stop> { Ok(key.to_owned()) }
//! #     async fn find(&self, key: &str) -> Result<Option<String>, Stop> { Ok(Some(key.to_owned())) }
//! # }
//! async fn pay(
//!     barrier: &Barrier<sqlx::Sqlite>,
//!     bank: &Bank,
//!     context: &Context,
//!     print: Fingerprint,
//! ) -> Result<Response<String>, Status> {
//!     match barrier.begin_outside(context, print).await? {
//!         Outside::Answered(answer) => answer,
//!         // Under our key, so that the bank can be asked by it.
//!         Outside::First(call) => {
//!             let outcome = bank.pay(&context.idempotency_key).await;
//!             call.finish(outcome).await
//!         }
//!         Outside::Unfinished(call) => match bank.find(&context.idempotency_key).await {
//!             Ok(Some(receipt)) => call.finish(Ok(receipt)).await,
//!             // The first attempt may still be on its way. Only if the bank itself deduplicates by key may
//!             // it be sent again here.
//!             Ok(None) | Err(_) => Err(call.in_doubt()),
//!         },
//!     }
//! }
//! ```
//!
//! # Invariants
//! * Nothing goes out before its row is on disk, and no second call goes out unless the caller says so.
//! * The first outcome that is kept is everybody's answer.
//! * A failure of the database after the work never says that there was no effect.
//!
//! Held on both engines by `tests/contract/outside.rs`.
//!
//! # What it does not cover
//! * Another system that neither can be asked by key nor deduplicates by it: after a crash the action stays in
//!   doubt, and a person decides.
//! * An action that is still on its way *inside the other system* when its compensation undoes it: the undoing has
//!   to shut it out there, by the same key.

use crate::answer::{Stop, in_doubt};
use crate::barrier::{
    Barrier, Found, admit_action, admit_compensation, answer_action, commit_failed, decoded, replayed,
    settled, unfinished, unreadable,
};
use crate::context::{Context, Phase};
use crate::fingerprint::Fingerprint;
use crate::table::{Engine, Rows, State};
use prost::Message;
use std::marker::PhantomData;
use tonic::{Code, Response, Status};

/// What [`Barrier::begin_outside`] found.
#[derive(Debug)]
pub enum Outside<DB: Engine, R> {
    /// Nobody has begun it; now it is on disk that you have. Call the other system.
    First(OutsideCall<DB, R>),
    /// Somebody has begun it, and no outcome is kept: they are still at it, or they are gone. Ask.
    Unfinished(OutsideCall<DB, R>),
    /// There is nothing to do; this is the answer.
    Answered(Result<Response<R>, Status>),
}

/// A call that was begun outside. Dropped, it stays begun.
#[derive(Debug)]
#[must_use = "no outcome is kept before `finish`"]
pub struct OutsideCall<DB: Engine, R> {
    barrier: Barrier<DB>,
    context: Box<Context>,
    fingerprint: Fingerprint,
    action_reply: Option<Vec<u8>>,
    reply: PhantomData<fn() -> R>,
}

impl<DB: Engine> Barrier<DB> {
    /// Takes in an action or a compensation whose work another system does.
    ///
    /// # Errors
    /// A status for the caller, if the barrier itself could not do its part; nothing was begun by this call.
    pub async fn begin_outside<R: Message + Default>(
        &self,
        context: &Context,
        fingerprint: Fingerprint,
    ) -> Result<Outside<DB, R>, Status> {
        let now = self.now_unix_micros();
        let mut tx = self.begin_for(context).await?;
        let found = match context.phase {
            Phase::Action => admit_action::<DB>(&mut tx, context, fingerprint, now).await?,
            Phase::Compensation => {
                let nothing = || R::default().encode_to_vec();
                admit_compensation::<DB>(&mut tx, context, fingerprint, now, nothing).await?
            }
            Phase::Query => return Err(wrong_phase()),
        };
        tx.commit().await.map_err(commit_failed)?;
        let call = |action_reply| OutsideCall {
            barrier: self.clone(),
            context: Box::new(context.clone()),
            fingerprint,
            action_reply,
            reply: PhantomData,
        };
        Ok(match found {
            Found::Work { action_reply } => Outside::First(call(action_reply)),
            // Nobody has begun to undo it; but what there is to undo has to be asked.
            Found::ActionBegun => Outside::Unfinished(call(None)),
            Found::Begun { action_reply } => Outside::Unfinished(call(action_reply)),
            Found::Answer(answer) => Outside::Answered(answer.and_then(|bytes| decoded(&bytes))),
        })
    }
}

impl<DB: Engine, R: Message + Default> OutsideCall<DB, R> {
    /// The call.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// In a compensation: what the action had answered; none if it has no outcome either, and then the other
    /// system must be asked, or undo in a way that also shuts out what is still on its way.
    #[must_use]
    pub fn action_reply<A: Message + Default>(&self) -> Option<A> {
        A::decode(self.action_reply.as_deref()?).ok()
    }

    /// The answer of someone who cannot tell: the call stays begun, and the next attempt asks again.
    #[must_use]
    pub fn in_doubt(self) -> Status {
        unfinished()
    }

    /// Keeps the outcome, unless another has kept one meanwhile, and answers the one that is kept. A
    /// [`Stop::Failed`] keeps nothing: the next attempt finds the call begun.
    ///
    /// # Errors
    /// The refusal or the failure that the work ended in. If the outcome could not be kept, that is in doubt.
    pub async fn finish(self, outcome: Result<R, Stop>) -> Result<Response<R>, Status> {
        let phase = self.context.phase;
        let (state, bytes) = match settled(phase, outcome)? {
            Ok(bytes) => (State::Done, bytes),
            Err(refusal) => (State::Refused, refusal),
        };
        match self.keep(phase, state, &bytes).await.map_err(commit_failed)? {
            None => replayed(state, &bytes),
            Some(rows) => self.answered_meanwhile(&rows),
        }
    }

    /// The rows, if the call had ended before.
    async fn keep(&self, phase: Phase, state: State, bytes: &[u8]) -> Result<Option<Rows>, sqlx::Error> {
        let now = self.barrier.now_unix_micros();
        // The work has been done elsewhere, and took its time: that its outcome is kept matters also when the caller has gone.
        let mut tx = self.barrier.open(None).await?;
        let mut db = DB::db(&mut tx);
        let is_kept = db.finish(&self.context, phase, state, Some(bytes), now).await?;
        let rows = if is_kept { None } else { Some(db.rows(&self.context).await?) };
        if is_kept && phase == Phase::Compensation {
            // An action that never had an outcome has none now.
            db.finish(&self.context, Phase::Action, State::Barred, None, now).await?;
        }
        tx.commit().await?;
        Ok(rows)
    }

    fn answered_meanwhile(&self, rows: &Rows) -> Result<Response<R>, Status> {
        match self.context.phase {
            Phase::Action => {
                if rows.of(Phase::Action).is_some_and(|row| row.state == State::Barred) {
                    // Whether the undoing saw this work nobody here knows.
                    let text = "the action was compensated while it was under way outside";
                    return Err(in_doubt(Code::Internal, "COMPENSATED_MEANWHILE", text));
                }
                match answer_action(rows, self.fingerprint)? {
                    Found::Answer(answer) => answer.and_then(|bytes| decoded(&bytes)),
                    Found::Begun { .. } | Found::ActionBegun | Found::Work { .. } => Err(unfinished()),
                }
            }
            Phase::Compensation | Phase::Query => {
                let kept = rows.of(Phase::Compensation).filter(|row| row.state == State::Done);
                decoded(kept.and_then(|row| row.reply.as_deref()).ok_or_else(unreadable)?)
            }
        }
    }
}

fn wrong_phase() -> Status {
    crate::answer::no_effect(Code::InvalidArgument, "WRONG_PHASE", "a query is no work: use Barrier::query")
}
