//! How many sagas wait for a person and since when, and since when the oldest of those that roll back runs.
//!
//! What it costs: a walk along two partial indexes (`saga_waiting_for_people`, `saga_unfinished`), each cut at the
//! limit, so what is over costs nothing however much of it there is.

use crate::{error, rows};
use backstop_engine::ports::store::{StoreResult, Unsettled};
use sqlx::PgPool;

pub(super) async fn unsettled(pool: &PgPool, limit: usize) -> StoreResult<Vec<Unsettled>> {
    let rows = sqlx::query(
        "WITH waiting AS MATERIALIZED (
             SELECT definition, updated_at FROM saga WHERE state = 'NEEDS_INTERVENTION'
             ORDER BY created_at, id LIMIT $1
         ), unfinished AS MATERIALIZED (
             SELECT definition, state, created_at FROM saga WHERE ended_at IS NULL ORDER BY created_at LIMIT $1
         )
         SELECT definition, max(waiting) AS waiting, max(waiting_since) AS waiting_since,
                max(rolling_back_since) AS rolling_back_since
         FROM (SELECT definition, count(*) AS waiting, min(updated_at) AS waiting_since,
                      NULL::bigint AS rolling_back_since
               FROM waiting GROUP BY definition
               UNION ALL
               SELECT definition, 0, NULL, min(created_at) FROM unfinished
               WHERE state = 'ROLLING_BACK' GROUP BY definition) AS part
         GROUP BY definition ORDER BY definition",
    )
    .bind(rows::limit(limit))
    .fetch_all(pool)
    .await
    .map_err(|e| error::of_read(&e))?;
    rows.iter().map(rows::unsettled).collect()
}
