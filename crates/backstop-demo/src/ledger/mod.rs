//! A ledger: accounts in one SQLite file, each booking exactly once, no balance ever below zero.
//!
//! # Invariants
//! - The same idempotency key gives the same answer, refusals included
//!   (`tests/ledger.rs`: `peer_18_the_same_key_gives_the_same_answer_even_when_the_books_have_changed`).
//! - A reversal that comes first bars the booking that comes after it
//!   (`peer_18_a_booking_that_comes_after_its_reversal_is_refused_without_effect`).
//! - Opening balances, debits not put back and credits not taken back account for every balance, and
//!   entries add up to them (`any_sequence_of_calls_keeps_the_sum`).
//!
//! # Not here
//! The process around it: [`crate::service`].

mod booking;
mod books;
mod chaos;
mod posting;
mod refusal;
mod service;
pub mod signals;

pub use books::{Books, BooksError};
pub use chaos::SLOW;
pub use service::Ledger;

/// The `google.rpc.ErrorInfo` domain of a ledger's refusals.
pub const DOMAIN: &str = "ledger.bank.example";
