//! The page for other languages says what this crate does, and its SQL runs as it stands there.

use crate::common::World;
use backstop_participant::{Engine, STATEMENTS};
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../../../docs/participant-contract.md");

/// The blocks of SQL by the name in their first line.
fn blocks() -> BTreeMap<&'static str, &'static str> {
    let mut blocks = BTreeMap::new();
    for block in PAGE.split("```sql\n").skip(1) {
        let (block, _) = block.split_once("\n```").expect("a block ends");
        let (name, sql) = block.split_once('\n').expect("a name, and SQL");
        let twice = blocks.insert(name.strip_prefix("-- ").expect("-- NAME"), sql);
        assert_eq!(twice, None, "{name}");
    }
    blocks
}

#[test]
fn every_statement_stands_on_the_page_word_for_word() {
    let mut page = blocks();
    let schemas = [
        ("schema-postgres", <sqlx::Postgres as Engine>::SCHEMA),
        ("schema-sqlite", <sqlx::Sqlite as Engine>::SCHEMA),
    ];
    for (name, sql) in STATEMENTS.into_iter().chain(schemas) {
        assert_eq!(page.remove(name), Some(sql.trim_end()), "{name}");
    }
    assert_eq!(page, BTreeMap::new(), "SQL that this crate does not run");
}

/// A call's way through the page's blocks, with nothing of this crate.
macro_rules! walk {
    ($pool:expr) => {{
        let page = blocks();
        let pool = &$pool;
        let claim = |phase: &'static str, state: &'static str, end: Option<i64>| {
            sqlx::query(page["claim"])
                .bind("s")
                .bind("debit")
                .bind(phase)
                .bind(state)
                .bind(1_i64)
                .bind(5_i64)
                .bind(b"print".to_vec())
                .bind(100_i64)
                .bind(end)
        };
        let finish = |phase: &'static str, state: &'static str| {
            sqlx::query(page["finish"])
                .bind("s")
                .bind("debit")
                .bind(phase)
                .bind(state)
                .bind(b"reply".to_vec())
                .bind(101_i64)
        };
        let closed = || sqlx::query_as::<_, (i64,)>(page["closed"]).bind("s").bind("debit").bind(1_i64);
        let rows = || {
            let rows = sqlx::query_as::<_, (String, String, Option<Vec<u8>>, Option<Vec<u8>>)>(page["rows"]);
            rows.bind("s").bind("debit")
        };
        let mut tx = pool.begin().await.unwrap();
        // A question comes first: the action is fenced, and passes with a later clock.
        assert_eq!(claim("action", "fenced", Some(100)).execute(&mut *tx).await.unwrap().rows_affected(), 1);
        assert_eq!(claim("action", "started", None).execute(&mut *tx).await.unwrap().rows_affected(), 0);
        let refence =
            sqlx::query(page["refence"]).bind("s").bind("debit").bind("fenced").bind(7_i64).bind(100_i64);
        assert_eq!(refence.execute(&mut *tx).await.unwrap().rows_affected(), 1);
        for (clock, passes) in [(7_i64, 0), (8, 1)] {
            let pass = sqlx::query(page["pass-fence"])
                .bind("s")
                .bind("debit")
                .bind(1_i64)
                .bind(clock)
                .bind(b"print".to_vec());
            assert_eq!(pass.execute(&mut *tx).await.unwrap().rows_affected(), passes);
        }
        assert_eq!(closed().fetch_one(&mut *tx).await.unwrap(), (0,));
        sqlx::query(page["mark"]).execute(&mut *tx).await.unwrap();
        sqlx::query("INSERT INTO entry (what, amount) VALUES ('work', 1)").execute(&mut *tx).await.unwrap();
        sqlx::query(page["roll-back-work"]).execute(&mut *tx).await.unwrap();
        assert_eq!(finish("action", "done").execute(&mut *tx).await.unwrap().rows_affected(), 1);
        assert_eq!(finish("action", "done").execute(&mut *tx).await.unwrap().rows_affected(), 0);
        tx.commit().await.unwrap();

        assert_eq!(claim("compensation", "started", None).execute(pool).await.unwrap().rows_affected(), 1);
        assert_eq!(finish("compensation", "done").execute(pool).await.unwrap().rows_affected(), 1);
        assert_eq!(closed().fetch_one(pool).await.unwrap(), (1,));
        for epoch in [4_i64, 2, 5] {
            let close = sqlx::query(page["close"]).bind("t").bind(epoch).bind(100_i64);
            assert_eq!(close.execute(pool).await.unwrap().rows_affected(), u64::from(epoch != 2));
        }
        let mut found = rows().fetch_all(pool).await.unwrap();
        found.sort();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].1, "done");
        assert_eq!(found[0].3.as_deref(), Some(b"reply".as_slice()));
        let books: (i64,) = sqlx::query_as("SELECT COUNT(*) FROM entry").fetch_one(pool).await.unwrap();
        assert_eq!(books, (0,), "the refused work is rolled back");
        for (before, gone) in [(100_i64, 0), (1000, 3)] {
            let purge = sqlx::query(page["purge"]).bind(before).bind(10_i64);
            assert_eq!(purge.execute(pool).await.unwrap().rows_affected(), gone);
        }
    }};
}

#[tokio::test]
async fn the_pages_sql_runs_on_sqlite() {
    let world = World::sqlite().await;
    sqlx::raw_sql("DROP TABLE backstop_barrier").execute(&world.pool).await.unwrap();
    sqlx::raw_sql(blocks()["schema-sqlite"]).execute(&world.pool).await.unwrap();
    walk!(world.pool);
}

#[tokio::test]
async fn the_pages_sql_runs_on_postgres() {
    let world = World::postgres().await;
    sqlx::raw_sql("DROP TABLE backstop_barrier").execute(&world.pool).await.unwrap();
    sqlx::raw_sql(blocks()["schema-postgres"]).execute(&world.pool).await.unwrap();
    walk!(world.pool);
}
