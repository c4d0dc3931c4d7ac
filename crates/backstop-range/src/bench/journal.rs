//! What a run left in Backstop's journal, read from the store's documented tables after the run, so that it
//! costs nothing while it is measured.

use super::ground::connect;
use anyhow::{Context, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{PgPool, Row};
use std::collections::HashMap;
use tokio_stream::StreamExt;

/// When each call of a run was answered, and how long it had been out.
const CALLS: &str = "SELECT saga_id, at, elapsed_us FROM saga_event
    WHERE saga_id >= $1 AND saga_id < $2 AND elapsed_us IS NOT NULL";
/// Bytes of each event of a saga but for its key: numbers count as eight.
const SIZES: &str = "SELECT CAST(42 + length(payload) + length(kind) + coalesce(length(step), 0)
    + coalesce(length(phase), 0) + coalesce(length(status), 0) + coalesce(length(evidence), 0)
    + coalesce(length(effect), 0) + coalesce(length(fin_code), 0) + coalesce(length(tier), 0)
    + coalesce(length(message), 0) AS bigint) FROM saga_event WHERE saga_id = $1 ORDER BY seq";

/// A way to read it.
#[derive(Debug, Clone)]
pub(super) enum Journal {
    /// In Postgres.
    Postgres(PgPool),
    /// In a file.
    Sqlite(SqlitePool),
}

/// The answer of one call: from, until.
type Out = (i64, i64);

impl Journal {
    /// Opens the store at a URL.
    pub(super) async fn open(store: &str) -> Result<Self> {
        let Some(path) = store.strip_prefix("sqlite:") else {
            return Ok(Self::Postgres(connect(store).await?));
        };
        let options = SqliteConnectOptions::new().filename(path).pragma("query_only", "on");
        Ok(Self::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options)))
    }

    /// The time during which at least one call of each saga of a run was out.
    pub(super) async fn called(&self, run: &str) -> Result<HashMap<u64, u64>> {
        // All ids that begin with it: the character after the dash is the first that is not among them.
        let (from, until) = (format!("{run}-"), format!("{run}."));
        let mut out: HashMap<u64, Vec<Out>> = HashMap::new();
        let mut add = |id: &str, at: i64, elapsed: i64| {
            let (_, number) = id.rsplit_once('-').context("an id ends with a number")?;
            out.entry(number.parse()?).or_default().push((at - elapsed, at));
            anyhow::Ok(())
        };
        match self {
            Self::Postgres(pool) => {
                let mut rows = sqlx::query(CALLS).bind(&from).bind(&until).fetch(pool);
                while let Some(row) = rows.next().await {
                    let row = row?;
                    add(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)?;
                }
            }
            Self::Sqlite(pool) => {
                let mut rows = sqlx::query(CALLS).bind(&from).bind(&until).fetch(pool);
                while let Some(row) = rows.next().await {
                    let row = row?;
                    add(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)?;
                }
            }
        }
        Ok(out.into_iter().map(|(number, out)| (number, union(out))).collect())
    }

    /// The bytes of each event of a saga, in their order.
    pub(super) async fn sizes(&self, saga: &str) -> Result<Vec<usize>> {
        let sizes: Vec<i64> = match self {
            Self::Postgres(pool) => sqlx::query_scalar(SIZES).bind(saga).fetch_all(pool).await?,
            Self::Sqlite(pool) => sqlx::query_scalar(SIZES).bind(saga).fetch_all(pool).await?,
        };
        sizes.into_iter().map(|size| Ok(usize::try_from(size)?)).collect()
    }
}

/// The length of what spans of time cover together.
fn union(mut spans: Vec<Out>) -> u64 {
    spans.sort_unstable();
    let (mut covered, mut until) = (0, i64::MIN);
    for (from, to) in spans {
        covered += (to - from.max(until)).max(0);
        until = until.max(to);
    }
    u64::try_from(covered).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::union;

    #[test]
    fn time_in_which_two_calls_are_out_counts_once() {
        assert_eq!(union(vec![(5, 10), (0, 3), (8, 12), (9, 11)]), 3 + 7);
        assert_eq!(union(vec![]), 0);
    }
}
