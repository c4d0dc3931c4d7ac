//! Fills the journal with sagas by copying the rows of one that really ran, so that what is planted is what
//! Backstop writes.
//!
//! # Invariants
//! * Columns are listed from the database, not from memory: a column more is copied along.
//! * A copy's events go to the partition of its birth.
//! * The model's rows are taken aside in one transaction; what happens to it afterwards is not copied.
//!
//! # Not here
//! The saga's id within payloads: it is in none (backstop-sql's codec keeps it in its column).

use crate::moment::Moment;
use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, PgPool, Row};

/// Rows copied by one statement.
const BATCH: u64 = 50_000;

/// The rows of one saga, kept aside in tables of their own.
#[derive(Debug)]
pub struct Model {
    pool: PgPool,
    saga: String,
}

/// What of the head row is set anew in every copy.
#[derive(Debug, Clone, Default)]
pub struct Anew {
    /// `wake_at`, and nobody is the owner.
    pub wake_at: Option<Moment>,
    /// Each copy was born, went on and ended one microsecond before the copy of the number before.
    pub apart: bool,
}

impl Model {
    /// Takes the rows of a saga aside as they are now.
    ///
    /// # Errors
    /// If there is no such saga.
    pub async fn take(pool: &PgPool, saga: &str) -> Result<Self> {
        let mut transaction = pool.begin().await?;
        for (table, key) in [("saga", "id"), ("journal", "saga_id")] {
            let sql = format!("CREATE TABLE range_{table} AS SELECT * FROM {table} WHERE {key} = $1");
            sqlx::query(AssertSqlSafe(sql))
                .bind(saga)
                .execute(&mut *transaction)
                .await
                .with_context(|| table.to_owned())?;
        }
        transaction.commit().await?;
        let count: i64 = sqlx::query("SELECT count(*) FROM range_saga").fetch_one(pool).await?.try_get(0)?;
        if count != 1 {
            bail!("there is no saga {saga}");
        }
        Ok(Self { pool: pool.clone(), saga: saga.to_owned() })
    }

    /// Plants copies with the ids `prefix1`, `prefix2`, …
    ///
    /// # Errors
    /// If the rows do not fit.
    pub async fn plant(&self, prefix: &str, count: u64, anew: &Anew) -> Result<()> {
        self.plant_more(prefix, 1..=count, anew).await
    }

    /// Plants the copies of these numbers.
    ///
    /// # Errors
    /// If the rows do not fit.
    pub async fn plant_more(
        &self,
        prefix: &str,
        numbers: std::ops::RangeInclusive<u64>,
        anew: &Anew,
    ) -> Result<()> {
        let is_time = |column: &str| {
            anew.apart && ["created_at", "updated_at", "ended_at", "at", "born"].contains(&column)
        };
        let mut heads = Vec::new();
        for column in self.columns("saga").await? {
            heads.push(match (column.as_str(), anew.wake_at) {
                ("id", _) => (column, "$3 || number".to_owned()),
                ("owner", Some(_)) => (column, "NULL".to_owned()),
                ("wake_at", Some(at)) => (column, format!("{at} + number")),
                (name, _) if is_time(name) => {
                    let value = format!("\"{name}\" - number");
                    (column, value)
                }
                (_, _) => (column.clone(), format!("\"{column}\"")),
            });
        }
        let mut events = Vec::new();
        for column in self.columns("journal").await? {
            let value = match column.as_str() {
                "saga_id" => "$3 || number".to_owned(),
                name if is_time(name) => format!("\"{name}\" - number"),
                name => format!("\"{name}\""),
            };
            events.push((column, value));
        }
        for (table, columns) in [("saga", heads), ("journal", events)] {
            let (names, values): (Vec<_>, Vec<_>) =
                columns.into_iter().map(|(name, value)| (format!("\"{name}\""), value)).unzip();
            let sql = format!(
                "INSERT INTO {table} ({}) SELECT {} FROM range_{table}, generate_series($1::bigint, $2::bigint) AS number",
                names.join(", "),
                values.join(", ")
            );
            for from in numbers.clone().step_by(usize::try_from(BATCH)?) {
                let until = (from + BATCH - 1).min(*numbers.end());
                sqlx::query(AssertSqlSafe(sql.clone()))
                    .bind(i64::try_from(from)?)
                    .bind(i64::try_from(until)?)
                    .bind(prefix)
                    .execute(&self.pool)
                    .await
                    .with_context(|| format!("copies of {} in {table}", self.saga))?;
            }
        }
        for table in ["saga", "journal"] {
            sqlx::query(AssertSqlSafe(format!("VACUUM ANALYZE {table}"))).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Takes the rows that were kept aside away, so that another model may be taken.
    ///
    /// # Errors
    /// If the database does not.
    pub async fn put_away(self) -> Result<()> {
        sqlx::query("DROP TABLE range_saga, range_journal").execute(&self.pool).await?;
        Ok(())
    }

    async fn columns(&self, table: &str) -> Result<Vec<String>> {
        let rows = sqlx::query(
            "SELECT column_name::text FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = $1 AND is_generated = 'NEVER'
             ORDER BY ordinal_position",
        )
        .bind(table)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}
