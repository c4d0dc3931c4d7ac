//! Each call once, in the transaction of its own work.
//!
//! # Invariants
//! * Work and row are one transaction: the row says `done` if and only if the work is in the books.
//! * Of calls with one key at most one runs at a time; the others wait for it and get its answer.
//! * Of an action and its compensation whichever comes first is seen by the other: both in order, or neither
//!   has an effect.
//! * Dropped at any await, a call leaves nothing behind; nor does a full disk (`bounds`). On Postgres a connection of one
//!   that waits for a lock is free again when its caller would have waited no longer (`abandoned`).
//!
//! Held on SQLite and Postgres by `tests/contract/`: `repeats`, `racing`, `crashing`.
//!
//! # Not here
//! Work that reaches beyond this database: `outside`. The statements: `table`.

use crate::answer::{self, REPLY_BYTES_MAX, Stop, in_doubt, no_effect, speaks_for_its_key, storage_failed};
use crate::context::{Context, Phase};
use crate::fingerprint::Fingerprint;
use crate::table::{Engine, Row, Rows, State};
use prost::Message;
use sqlx::pool::MaybePoolConnection;
use sqlx::{Connection, Pool, Transaction};
use std::marker::PhantomData;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::{Code, Response, Status};

/// How long one lock is waited for on Postgres where the call has no deadline, unless [`Barrier::with_lock_wait`] says
/// otherwise.
pub const LOCK_WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// So long at least, however little is left of a call's deadline: what is free is had at once.
const LOCK_WAIT_MIN: Duration = Duration::from_millis(10);

/// Stands before a participant's handlers. Cheap to clone.
#[derive(Debug)]
pub struct Barrier<DB: Engine> {
    pub(crate) pool: Pool<DB>,
    pub(crate) clock: fn() -> SystemTime,
    lock_wait: Duration,
}

impl<DB: Engine> Clone for Barrier<DB> {
    // Derived, it would ask for `DB: Clone`.
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), clock: self.clock, lock_wait: self.lock_wait }
    }
}

/// What [`Barrier::enter`] found.
#[derive(Debug)]
pub enum Entered<'c, DB: Engine, R> {
    /// The work is to be done, now, in this transaction.
    First(FirstCall<'c, DB, R>),
    /// There is nothing to do; this is the answer, and the transaction has ended.
    Answered(Result<Response<R>, Status>),
}

/// A call whose work is to be done. Dropped, it rolls back.
#[derive(Debug)]
#[must_use = "nothing is committed before `finish`"]
pub struct FirstCall<'c, DB: Engine, R> {
    tx: Transaction<'c, DB>,
    context: Box<Context>,
    /// What the action had answered, if this is its compensation.
    action_reply: Option<Vec<u8>>,
    clock: fn() -> SystemTime,
    reply: PhantomData<fn() -> R>,
}

impl<DB: Engine> Barrier<DB> {
    /// A barrier in the database where the work is done; its table must be there ([`Engine::SCHEMA`]).
    #[must_use]
    pub fn new(pool: Pool<DB>) -> Self {
        Self { pool, clock: SystemTime::now, lock_wait: LOCK_WAIT_DEFAULT }
    }

    /// The same that waits for one lock for so long where a call has no deadline: on Postgres, for SQLite has its
    /// `busy_timeout`. A call that has one waits as long as its caller does. After that it fails with ABORTED and has no effect.
    #[must_use]
    pub fn with_lock_wait(mut self, lock_wait: Duration) -> Self {
        self.lock_wait = lock_wait;
        self
    }

    /// The same with another clock, for tests. It dates rows, and nothing but [`Barrier::purge`] looks at that.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> SystemTime) -> Self {
        self.clock = clock;
        self
    }

    /// Begins a transaction that suits [`Barrier::enter_in`]. It knows of no call's deadline: see
    /// [`Barrier::with_lock_wait`].
    ///
    /// # Errors
    /// A status that says that nothing was done.
    pub async fn begin(&self) -> Result<Transaction<'static, DB>, Status> {
        self.open(None).await.map_err(storage_failed)
    }

    pub(crate) async fn begin_for(&self, context: &Context) -> Result<Transaction<'static, DB>, Status> {
        self.open(context.deadline).await.map_err(storage_failed)
    }

    /// A transaction of one whose caller waits for so long. It waits for locks just as long and not a little less: the
    /// caller is then the first to give up, and takes it for the doubt that it is. An ABORTED that came sooner would count
    /// towards the few attempts of a compensation that is refused.
    pub(crate) async fn open(
        &self,
        deadline: Option<Duration>,
    ) -> Result<Transaction<'static, DB>, sqlx::Error> {
        let (began, wait) = (Instant::now(), deadline.unwrap_or(self.lock_wait));
        loop {
            let connection = self.pool.acquire().await?;
            if connection.is_in_transaction() {
                // A disk that was full has ended the transaction in SQLite but not in sqlx, and such a connection
                // never begins another: it makes room for a new one.
                // If it does not close in order, it is gone all the same.
                let _ = connection.close().await;
                continue;
            }
            let connection = MaybePoolConnection::PoolConnection(connection);
            let left = wait.saturating_sub(began.elapsed()).max(LOCK_WAIT_MIN);
            return Transaction::begin(connection, Some(DB::begin(left))).await;
        }
    }

    /// Takes a call in: an action or a compensation.
    ///
    /// A compensation of which there is nothing to undo is answered with the empty message.
    ///
    /// # Errors
    /// A status for the caller, if the barrier itself could not do its part.
    pub async fn enter<R: Message + Default>(
        &self,
        context: &Context,
        fingerprint: Fingerprint,
    ) -> Result<Entered<'static, DB, R>, Status> {
        self.enter_or(context, fingerprint, R::default).await
    }

    /// [`Barrier::enter`], with the answer of a compensation that has nothing to undo.
    ///
    /// # Errors
    /// As there.
    pub async fn enter_or<R: Message + Default>(
        &self,
        context: &Context,
        fingerprint: Fingerprint,
        nothing: impl FnOnce() -> R + Send,
    ) -> Result<Entered<'static, DB, R>, Status> {
        let tx = self.begin_for(context).await?;
        self.enter_in(tx, context, fingerprint, nothing).await
    }

    /// [`Barrier::enter_or`] in a transaction of your own. On Postgres it must be READ COMMITTED, and should have a
    /// `lock_timeout`; on SQLite it must have written first or be IMMEDIATE. What you have written in it stays also when the work is refused.
    ///
    /// # Errors
    /// As there; the transaction is then rolled back.
    pub async fn enter_in<'c, R: Message + Default>(
        &self,
        mut tx: Transaction<'c, DB>,
        context: &Context,
        fingerprint: Fingerprint,
        nothing: impl FnOnce() -> R + Send,
    ) -> Result<Entered<'c, DB, R>, Status> {
        let now = self.now_unix_micros();
        let found = match context.phase {
            Phase::Action => admit_action::<DB>(&mut tx, context, fingerprint, now).await?,
            Phase::Compensation => {
                let nothing = || nothing().encode_to_vec();
                admit_compensation::<DB>(&mut tx, context, fingerprint, now, nothing).await?
            }
            Phase::Query => {
                return Err(no_effect(
                    Code::InvalidArgument,
                    "WRONG_PHASE",
                    "a query is no work: use Barrier::query",
                ));
            }
        };
        Ok(match found {
            Found::Work { action_reply } => {
                DB::db(&mut tx).mark().await.map_err(storage_failed)?;
                let context = Box::new(context.clone());
                let clock = self.clock;
                Entered::First(FirstCall { tx, context, action_reply, clock, reply: PhantomData })
            }
            Found::Answer(answer) => {
                // The row that bars an action, or remembers an empty compensation, must be on disk first.
                tx.commit().await.map_err(commit_failed)?;
                Entered::Answered(answer.and_then(|bytes| decoded(&bytes)))
            }
            // Rolled back: a compensation that waits for its action has not begun.
            Found::Begun { .. } | Found::ActionBegun => Entered::Answered(Err(unfinished())),
        })
    }

    /// Answers whether an action took effect: OK with its reply, or NOT_FOUND.
    ///
    /// NOT_FOUND is also a promise: an action that was sent before this question is refused if it arrives
    /// after it. (One that Backstop sends after the question, which its clock tells, may run.)
    ///
    /// # Errors
    /// NOT_FOUND; or a status that says neither.
    pub async fn query<R: Message + Default>(&self, context: &Context) -> Result<Response<R>, Status> {
        self.ask(context, true).await
    }

    /// [`Barrier::query`] without that promise: only for a participant that keeps it in another way.
    ///
    /// # Errors
    /// As there.
    pub async fn query_unfenced<R: Message + Default>(
        &self,
        context: &Context,
    ) -> Result<Response<R>, Status> {
        self.ask(context, false).await
    }

    async fn ask<R: Message + Default>(&self, context: &Context, fence: bool) -> Result<Response<R>, Status> {
        if context.phase != Phase::Query {
            return Err(no_effect(Code::InvalidArgument, "WRONG_PHASE", "this method answers queries only"));
        }
        let mut tx = self.begin_for(context).await?;
        let now = self.now_unix_micros();
        let mut db = DB::db(&mut tx);
        if fence {
            // Waits for an action under way.
            let fenced = db.claim(context, Phase::Action, State::Fenced, None, now).await;
            if !fenced.map_err(storage_failed)? {
                db.refence(context, State::Fenced, now).await.map_err(storage_failed)?;
            }
        }
        let rows = db.rows(context).await.map_err(storage_failed)?;
        tx.commit().await.map_err(commit_failed)?;
        let is_undone = rows.of(Phase::Compensation).is_some();
        match rows.of(Phase::Action) {
            Some(Row { state: State::Started, .. }) => Err(unfinished()),
            Some(Row { state: State::Done, reply: Some(reply), .. }) if !is_undone => decoded(reply),
            Some(_) | None => Err(no_effect(Code::NotFound, "NO_EFFECT", "the action had no effect here")),
        }
    }

    /// Remembers that a saga rolls back, as a rollback signal tells: an action from an older epoch is refused
    /// from now on. Compensations alone do the same; this only does it sooner.
    ///
    /// # Errors
    /// A status that says that nothing was done.
    pub async fn close(&self, saga_id: &str, epoch: u64) -> Result<(), Status> {
        let mut tx = self.begin().await?;
        DB::db(&mut tx).close(saga_id, epoch, self.now_unix_micros()).await.map_err(storage_failed)?;
        tx.commit().await.map_err(commit_failed)
    }

    /// Deletes at most `rows_max` rows of calls that ended longer ago than `older_than`, the oldest first, and
    /// answers how many. Call it until it answers less than `rows_max`.
    ///
    /// Safe is an age that no saga reaches, *the time that it stands as an intervention included*: a
    /// compensation that comes after its action was purged finds nothing to undo. Calls that never ended are
    /// kept for ever.
    ///
    /// # Errors
    /// A status that says that nothing was done.
    pub async fn purge(&self, older_than: Duration, rows_max: u32) -> Result<u64, Status> {
        let before = (self.clock)().checked_sub(older_than).map_or(i64::MIN, unix_micros);
        let mut tx = self.begin().await?;
        let gone = DB::db(&mut tx).purge(before, rows_max).await.map_err(storage_failed)?;
        tx.commit().await.map_err(commit_failed)?;
        Ok(gone)
    }

    pub(crate) fn now_unix_micros(&self) -> i64 {
        unix_micros((self.clock)())
    }
}

impl<DB: Engine, R: Message + Default> FirstCall<'_, DB, R> {
    /// The transaction, for the work. Do not end it; savepoints of your own are fine.
    pub fn db(&mut self) -> &mut DB::Connection {
        &mut self.tx
    }

    /// The call.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// In a compensation: what the action had answered.
    #[must_use]
    pub fn action_reply<A: Message + Default>(&self) -> Option<A> {
        A::decode(self.action_reply.as_deref()?).ok()
    }

    /// Keeps the work's outcome with the work, commits, and answers the caller.
    ///
    /// # Errors
    /// The refusal or the failure that the work ended in, or that the database did.
    pub async fn finish(mut self, outcome: Result<R, Stop>) -> Result<Response<R>, Status> {
        let phase = self.context.phase;
        let (state, bytes) = match settled(phase, outcome)? {
            Ok(bytes) => (State::Done, bytes),
            Err(refusal) => (State::Refused, refusal),
        };
        let now = unix_micros((self.clock)());
        let mut db = DB::db(&mut self.tx);
        if state == State::Refused {
            db.roll_back_work().await.map_err(storage_failed)?;
        }
        let is_kept =
            db.finish(&self.context, phase, state, Some(&bytes), now).await.map_err(storage_failed)?;
        if !is_kept {
            // The database has rolled the transaction back by itself, or the work has ended it.
            return Err(in_doubt(
                Code::Internal,
                "TRANSACTION_LOST",
                "the barrier's row is gone from the transaction",
            ));
        }
        self.tx.commit().await.map_err(commit_failed)?;
        replayed(state, &bytes)
    }
}

/// What the rows say of a call.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its row is claimed: the work is to be done.
    Work { action_reply: Option<Vec<u8>> },
    /// The encoded reply, or a status.
    Answer(Result<Vec<u8>, Status>),
    /// It was begun outside this database and has no outcome. Of a compensation: what its action had answered.
    Begun { action_reply: Option<Vec<u8>> },
    /// A compensation whose row is claimed, and whose action was begun and has no outcome.
    ActionBegun,
}

pub(crate) async fn admit_action<DB: Engine>(
    connection: &mut DB::Connection,
    context: &Context,
    fingerprint: Fingerprint,
    now: i64,
) -> Result<Found, Status> {
    let mut db = DB::db(connection);
    let print = fingerprint.as_bytes();
    let claimed = db.claim(context, Phase::Action, State::Started, Some(print), now).await;
    if !claimed.map_err(storage_failed)? && !db.pass_fence(context, print).await.map_err(storage_failed)? {
        let rows = db.rows(context).await.map_err(storage_failed)?;
        return answer_action(&rows, fingerprint);
    }
    if db.is_closed_to(context).await.map_err(storage_failed)? {
        db.finish(context, Phase::Action, State::Barred, None, now).await.map_err(storage_failed)?;
        return Ok(Found::Answer(Err(barred())));
    }
    Ok(Found::Work { action_reply: None })
}

pub(crate) fn answer_action(rows: &Rows, fingerprint: Fingerprint) -> Result<Found, Status> {
    let row = rows.of(Phase::Action).ok_or_else(unreadable)?;
    if row.fingerprint.as_deref().is_some_and(|kept| kept != fingerprint.as_bytes()) {
        return Ok(Found::Answer(Err(key_reused())));
    }
    let is_undone = rows.of(Phase::Compensation).is_some();
    Ok(match row.state {
        State::Refused => Found::Answer(Err(kept_refusal(row)?)),
        State::Barred | State::Done | State::Started if is_undone => Found::Answer(Err(barred())),
        State::Barred => Found::Answer(Err(barred())),
        State::Fenced => Found::Answer(Err(no_effect(
            Code::FailedPrecondition,
            "FENCED",
            "the action was asked about before it came, and has no effect any more",
        ))),
        State::Done => Found::Answer(Ok(row.reply.clone().ok_or_else(unreadable)?)),
        State::Started => Found::Begun { action_reply: None },
    })
}

pub(crate) async fn admit_compensation<DB: Engine>(
    connection: &mut DB::Connection,
    context: &Context,
    fingerprint: Fingerprint,
    now: i64,
    nothing: impl FnOnce() -> Vec<u8>,
) -> Result<Found, Status> {
    let mut db = DB::db(connection);
    // Waits for an action under way; one that has not come is shut out.
    let is_first =
        db.claim(context, Phase::Action, State::Barred, None, now).await.map_err(storage_failed)?;
    let print = Some(fingerprint.as_bytes());
    if !db.claim(context, Phase::Compensation, State::Started, print, now).await.map_err(storage_failed)? {
        let rows = db.rows(context).await.map_err(storage_failed)?;
        let row = rows.of(Phase::Compensation).ok_or_else(unreadable)?;
        if row.fingerprint.as_deref() != print {
            return Ok(Found::Answer(Err(key_reused())));
        }
        return Ok(match row.state {
            State::Started => match rows.of(Phase::Action) {
                Some(Row { state: State::Done, reply, .. }) => Found::Begun { action_reply: reply.clone() },
                Some(_) | None => Found::Begun { action_reply: None },
            },
            State::Done => Found::Answer(Ok(row.reply.clone().ok_or_else(unreadable)?)),
            State::Refused | State::Barred | State::Fenced => return Err(unreadable()),
        });
    }
    if !is_first {
        // Before the row is read: an action that passes its fence just now is waited for as well.
        db.refence(context, State::Barred, now).await.map_err(storage_failed)?;
        let rows = db.rows(context).await.map_err(storage_failed)?;
        let action = rows.of(Phase::Action).ok_or_else(unreadable)?;
        match action.state {
            State::Done => return Ok(Found::Work { action_reply: action.reply.clone() }),
            State::Started => return Ok(Found::ActionBegun),
            State::Refused | State::Barred => {}
            State::Fenced => return Err(unreadable()),
        }
    }
    let reply = nothing();
    let kept = db.finish(context, Phase::Compensation, State::Done, Some(&reply), now).await;
    if kept.map_err(storage_failed)? { Ok(Found::Answer(Ok(reply))) } else { Err(unreadable()) }
}

/// An outcome as it is kept, or the status of one that is not kept.
pub(crate) fn settled<R: Message>(
    phase: Phase,
    outcome: Result<R, Stop>,
) -> Result<Result<Vec<u8>, Vec<u8>>, Status> {
    match outcome {
        Ok(reply) if reply.encoded_len() > REPLY_BYTES_MAX => {
            Err(no_effect(Code::Internal, "REPLY_TOO_LARGE", "the reply is larger than the barrier keeps"))
        }
        Ok(reply) => Ok(Ok(reply.encode_to_vec())),
        Err(stop) if stop.status().code() == Code::Ok => {
            Err(no_effect(Code::Internal, "REFUSED_WITH_OK", "the work refused with the status OK"))
        }
        // A compensation that is refused is tried again, by Backstop or by a person, under the same key.
        Err(Stop::Refused(status) | Stop::Failed(status)) if phase != Phase::Action => Err(status),
        Err(Stop::Failed(status)) if !speaks_for_its_key(status.code()) => Err(status),
        Err(Stop::Refused(status) | Stop::Failed(status)) => Ok(Err(answer::refusal_bytes(&status))),
    }
}

pub(crate) fn replayed<R: Message + Default>(state: State, bytes: &[u8]) -> Result<Response<R>, Status> {
    match state {
        State::Refused => Err(answer::refusal(bytes).ok_or_else(unreadable)?),
        State::Done | State::Started | State::Barred | State::Fenced => decoded(bytes),
    }
}

pub(crate) fn decoded<R: Message + Default>(bytes: &[u8]) -> Result<Response<R>, Status> {
    R::decode(bytes).map(Response::new).map_err(|_| unreadable())
}

fn kept_refusal(row: &Row) -> Result<Status, Status> {
    row.reply.as_deref().and_then(answer::refusal).ok_or_else(unreadable)
}

fn barred() -> Status {
    no_effect(
        Code::FailedPrecondition,
        "COMPENSATED",
        "the saga rolls back: the action is compensated, and has no effect any more",
    )
}

/// Not one of the codes that speak for a key: the key's own request may well have taken effect.
fn key_reused() -> Status {
    in_doubt(Code::AlreadyExists, "KEY_REUSED", "this idempotency key came with another request before")
}

pub(crate) fn unfinished() -> Status {
    in_doubt(
        Code::Unavailable,
        "UNFINISHED",
        "the work was begun outside this database and has no outcome yet",
    )
}

pub(crate) fn unreadable() -> Status {
    in_doubt(Code::Internal, "UNREADABLE", "the barrier's row makes no sense")
}

/// Nobody knows whether the commit took place; the next attempt finds out.
pub(crate) fn commit_failed(error: sqlx::Error) -> Status {
    let mut status = in_doubt(Code::Unavailable, "COMMIT", "whether the work was committed is not known");
    status.set_source(std::sync::Arc::new(error));
    status
}

pub(crate) fn unix_micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
