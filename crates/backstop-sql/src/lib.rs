//! The journal in Postgres and in SQLite. The only crate that knows SQL.
//!
//! Both stores pass `backstop_engine::store_contract`; what they promise is told at
//! [`backstop_engine::ports::store`].
//!
//! # Not here
//! The rules of a saga: no state is judged in SQL. Who writes when: `backstop-engine`.

mod batch;
#[cfg(feature = "bench")]
pub mod bench;
mod codec;
mod error;
mod migrate;
mod misfit;
mod postgres;
mod rows;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::OpenError;
pub use postgres::{PostgresSettings, PostgresStore, postgres_migrate};
pub use sqlite::SqliteStore;
