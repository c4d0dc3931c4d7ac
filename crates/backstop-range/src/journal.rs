//! When each event of each saga happened, read from the database in one sweep.
//!
//! WatchSaga tells the same, one saga at a time: too slow for tens of thousands. Only the columns that
//! operators are told of are read; what an event says is left to the API.

use crate::moment::Moment;
use anyhow::Result;
use sqlx::{PgPool, Row};
use std::collections::BTreeMap;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What: `adopted`.
    pub kind: String,
    /// When.
    pub at: Moment,
}

/// The events of every saga, in their order.
///
/// # Errors
/// If the database cannot be asked.
pub async fn all(pool: &PgPool) -> Result<BTreeMap<String, Vec<Event>>> {
    let rows =
        sqlx::query("SELECT saga_id, kind, at FROM saga_event ORDER BY saga_id, seq").fetch_all(pool).await?;
    let mut journals: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for row in rows {
        let event = Event { kind: row.try_get("kind")?, at: row.try_get("at")? };
        journals.entry(row.try_get("saga_id")?).or_default().push(event);
    }
    Ok(journals)
}
