//! For services that take part in sagas and want it safer and shorter: the [`Context`] of a call, and the
//! [`Barrier`] that makes repeats, races and crashes harmless.
//!
//! Nobody needs this crate: any gRPC service is a participant, and `docs/participant-contract.md` says, with
//! the SQL, what this crate does. With it a handler is a few lines more than without:
//!
//! ```
//! use backstop_participant::{Barrier, Context, Entered, Fingerprint, Stop};
//! use tonic::{Request, Response, Status};
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct DebitRequest { #[prost(string, tag = "1")] account: String, #[prost(int64, tag = "2")] amount_minor: i64 }
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct DebitReply { #[prost(int64, tag = "1")] available_minor: i64 }
//!
//! struct Ledger {
//!     barrier: Barrier<sqlx::Postgres>,
//! }
//!
//! impl Ledger {
//!     async fn debit(&self, request: Request<DebitRequest>) -> Result<Response<DebitReply>, Status> {
//!         let context = Context::require(request.metadata())?;
//!         let request = request.into_inner();
//!         let mut call = match self.barrier.enter(&context, Fingerprint::of("Debit", &request)).await? {
//!             Entered::First(call) => call,
//!             Entered::Answered(answer) => return answer,
//!         };
//!         let outcome = book(call.db(), &request).await;
//!         call.finish(outcome).await
//!     }
//! }
//!
//! /// Knows nothing of sagas.
//! async fn book(db: &mut sqlx::PgConnection, debit: &DebitRequest) -> Result<DebitReply, Stop> {
//!     let left: Option<(i64,)> = sqlx::query_as(
//!         "UPDATE account SET available = available - $2 WHERE id = $1 AND available >= $2 RETURNING available",
//!     )
//!     .bind(&debit.account)
//!     .bind(debit.amount_minor)
//!     .fetch_optional(db)
//!     .await?; // a database that is busy: nothing is kept, and the next attempt works again
//!     let Some((available_minor,)) = left else {
//!         // A business refusal: kept, so that every attempt gets it.
//!         return Err(Stop::Refused(Status::failed_precondition("insufficient funds")));
//!     };
//!     Ok(DebitReply { available_minor })
//! }
//! # async fn is_sent(ledger: &Ledger, request: Request<DebitRequest>) {
//! #     fn sent<F: Future + Send>(future: F) -> F { future }
//! #     let _ = sent(ledger.debit(request)).await;
//! # }
//! # fn main() {}
//! ```
//!
//! The handler of the compensation reads the same; `call.action_reply()` is what the action had answered. Create
//! the table with [`Engine::SCHEMA`], and register the participant with `deduplicates_by_key`, for now it does.
//!
//! # What it does not cover
//! * Work that reaches beyond the database of the barrier: see [`Barrier::begin_outside`].
//! * Handlers that write on another connection than [`FirstCall::db`].
//! * Response metadata: a duplicate gets the reply or the status with its details, not headers or trailers.
//! * A table restored from a backup: calls that came after the backup are then unknown here.
//!
//! # Walls
//! Knows tonic and sqlx. Knows nothing of the engine, and no rule of a saga but those of its own table.

mod answer;
mod barrier;
mod context;
mod fingerprint;
mod outside;
mod sql;
mod table;

pub use answer::{DETAILS_BYTES_MAX, MESSAGE_BYTES_MAX, REPLY_BYTES_MAX, Stop};
pub use backstop_proto::v1::RollbackCause;
pub use barrier::{Barrier, Entered, FirstCall, LOCK_WAIT_DEFAULT};
pub use context::{Context, ContextError, Phase};
pub use fingerprint::Fingerprint;
pub use outside::{Outside, OutsideCall};
pub use table::Engine;

/// The `domain` in the `google.rpc.ErrorInfo` of statuses that are this crate's own.
pub const DOMAIN: &str = "backstop.participant";

/// The statements by the names that they have in `docs/participant-contract.md`, for the test that compares.
#[doc(hidden)]
pub const STATEMENTS: [(&str, &str); 10] = [
    ("claim", sql::CLAIM),
    ("pass-fence", sql::PASS_FENCE),
    ("rows", sql::ROWS),
    ("closed", sql::CLOSED),
    ("mark", sql::MARK),
    ("roll-back-work", sql::ROLL_BACK_WORK),
    ("finish", sql::FINISH),
    ("refence", sql::REFENCE),
    ("close", sql::CLOSE),
    ("purge", sql::PURGE),
];
