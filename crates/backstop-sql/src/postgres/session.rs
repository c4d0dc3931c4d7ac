//! What every session of the store relies on: a server that takes writes, and settings of its own.
//!
//! # Invariants
//! * No statement of the store runs on a standby or in a session whose transactions only read. A standby is behind:
//!   leases read there have run out for coordinators that live. A session is asked when it is made, and one of the
//!   pool also each time before it is used (`tests/failover.rs`). One of a [`super::line::Line`] is not, so that an
//!   append stays one round trip: it only writes, or reads what its own write left, and a refusal ends it.
//!
//! # Not here
//! When a session is given up after an error: `crate::error::says_nothing_of_the_session`.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How the server may plan the statements of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plans {
    /// As it thinks best, anew for the values of each time: these decide which partitions of the journal it
    /// looks at (and locks) at all.
    Any,
    /// By key, one row at a time. The journal's statements are planned once and kept; planned while the
    /// tables are still small, they would read these whole from then on (measured with 200 000 sagas: some
    /// 40 ms for an append of one event, and by key no more than with an empty table).
    ByKey,
}

/// Why a server is not one for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("the server is a standby (in recovery) and takes no writes: the store needs the primary")]
    Standby,
    #[error(
        "the server takes no writes from this session (transaction_read_only is on; \
         see default_transaction_read_only): the store needs to write"
    )]
    ReadOnly,
}

/// Why the pool got no session last; nothing if it got one.
///
/// The driver tries again until the time for it is over, and then says only that it is over.
#[derive(Debug, Clone, Default)]
pub(super) struct LastRefusal(Arc<Mutex<Option<String>>>);

impl LastRefusal {
    /// An error of the pool, with what was behind it.
    pub(super) fn explain(&self, error: String) -> String {
        let refusal = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal.as_deref() {
            Some(refusal) if error == sqlx::Error::PoolTimedOut.to_string() => format!("{error}: {refusal}"),
            _ => error,
        }
    }

    fn note(&self, refusal: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }
}

/// Prepares a session of the pool.
pub(super) async fn prepare_pooled(
    connection: &mut PgConnection,
    statement_timeout: Duration,
    refusal: &LastRefusal,
) -> Result<(), sqlx::Error> {
    let prepared = prepare(connection, statement_timeout, Plans::Any).await;
    refusal.note(prepared.as_ref().err().map(text));
    prepared
}

/// Refuses a server that is not one for us, and sets what every session relies on.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    statement_timeout: Duration,
    plans: Plans,
) -> Result<(), sqlx::Error> {
    if let Some(unfit) = unfit(connection).await? {
        return Err(sqlx::Error::Configuration(Box::new(unfit)));
    }
    let settings = format!(
        "SET synchronous_commit = on; SET statement_timeout = {}; SET default_transaction_isolation = 'read committed'",
        statement_timeout.as_millis()
    );
    connection.execute(sqlx::raw_sql(AssertSqlSafe(settings))).await?;
    let hints: &[&str] = match plans {
        Plans::Any => &[
            "plan_cache_mode = force_custom_plan",
            // Every look would start workers for a handful of rows.
            "max_parallel_workers_per_gather = 0",
            // A partition of today may not have been analysed yet, and the planner takes it for small: 128 journals
            // were looked for in all of it (measured with 300,000 sagas: 350 ms, and by index 1 ms). There is an index
            // for all that is asked here but labels, by which sagas are listed along another index, page by page.
            // What has none is dear on purpose then, and not to be compiled for it.
            "enable_seqscan = off",
            "jit = off",
        ],
        Plans::ByKey => {
            &["enable_seqscan = off", "enable_hashjoin = off", "enable_mergejoin = off", "jit = off"]
        }
    };
    for hint in hints {
        let set = connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("SET {hint}")))).await;
        match set {
            // Engines that merely speak the protocol do not know all of these, and plan otherwise.
            Ok(_) | Err(sqlx::Error::Database(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// True if a session of the pool may be used once more: it answers, and its server takes writes. One round trip, in
/// place of the driver's own question.
pub(super) async fn may_be_used(connection: &mut PgConnection) -> bool {
    match unfit(connection).await {
        Ok(None) => true,
        Ok(Some(unfit)) => {
            tracing::info!(%unfit, "a session is given up");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "a session of the pool has broken");
            false
        }
    }
}

/// What is wrong with the server of this session, if anything.
async fn unfit(connection: &mut PgConnection) -> Result<Option<Unfit>, sqlx::Error> {
    const STATE: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let row = match connection.fetch_one(sqlx::raw_sql(STATE)).await {
        Ok(row) => row,
        // Engines that merely speak the protocol may not know these, and have no such servers then.
        Err(sqlx::Error::Database(refusal)) if is_unknown(refusal.code().as_deref()) => return Ok(None),
        Err(other) => return Err(other),
    };
    let (standby, read_only): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match (standby, read_only) {
        (true, _) => Some(Unfit::Standby),
        (false, true) => Some(Unfit::ReadOnly),
        (false, false) => None,
    })
}

/// By the classes "syntax error or access rule violation" and "feature not supported".
fn is_unknown(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("42") || code.starts_with("0A"))
}

/// What an error of a session that could not be made says, without the driver's word for where it comes from.
pub(super) fn text(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(source) => source.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_only_of_a_session_that_was_not_to_be_had() {
        let refusal = LastRefusal::default();
        let late = sqlx::Error::PoolTimedOut.to_string();
        assert_eq!(refusal.explain(late.clone()), late);
        refusal.note(Some(text(&sqlx::Error::Configuration(Box::new(Unfit::Standby)))));
        assert_eq!(refusal.explain(late.clone()), format!("{late}: {}", Unfit::Standby));
        assert_eq!(refusal.explain("syntax error".to_owned()), "syntax error");
        refusal.note(None);
        assert_eq!(refusal.explain(late.clone()), late);
    }
}
