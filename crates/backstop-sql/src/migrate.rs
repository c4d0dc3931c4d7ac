//! Brings a schema up to date, or tells how far it is from this program's.
//!
//! # Invariants
//! * Both engines have migrations of the same names (`tests::both_engines_have_the_same_migrations`).
//! * A released migration is never edited: the database keeps its checksum, and an edited one is refused.

use crate::error::{LOCK_NOT_AVAILABLE, OpenError, has_code};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{PgConnection, Row, SqlSafeStr};
use std::borrow::Cow;
use std::time::Duration;

const POSTGRES: &[(i64, &str, &str)] = &[
    (1, "journal", include_str!("../../../migrations/postgres/0001_journal.sql")),
    (2, "retirement", include_str!("../../../migrations/postgres/0002_retirement.sql")),
    (3, "journal_partitions", include_str!("../../../migrations/postgres/0003_journal_partitions.sql")),
    (4, "append_rows", include_str!("../../../migrations/postgres/0004_append_rows.sql")),
    (5, "fewer_indexes", include_str!("../../../migrations/postgres/0005_fewer_indexes.sql")),
];
const SQLITE: &[(i64, &str, &str)] = &[
    (1, "journal", include_str!("../../../migrations/sqlite/0001_journal.sql")),
    (2, "retirement", include_str!("../../../migrations/sqlite/0002_retirement.sql")),
    (3, "journal_partitions", include_str!("../../../migrations/sqlite/0003_journal_partitions.sql")),
    (4, "append_rows", include_str!("../../../migrations/sqlite/0004_append_rows.sql")),
    (5, "fewer_indexes", include_str!("../../../migrations/sqlite/0005_fewer_indexes.sql")),
];

/// How often a Postgres migration that met another one, or did not get a lock, is tried.
const TRIES_MAX: u32 = 20;
/// Wait between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Wait after a lock that was not to be had. Whoever queued up behind us comes first, for longer than we held it up.
const LOCK_AGAIN: Duration = Duration::from_secs(1);

/// The migrations of SQLite.
pub(crate) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

fn migrator(files: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, (*sql).into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(files.iter().map(migration).collect());
    // No advisory lock. CockroachDB has none that locks, and behind a pooler of transactions a session's
    // lock is anybody's. Nothing is lost by it: each migration is one transaction together with its row
    // in the table of migrations, so of several that run at once one commits, the others fail as a whole
    // and find its work when they look again (`postgres`). SQLite has its file lock.
    migrator.set_locking(false);
    migrator
}

/// Migrates a Postgres database; several may do so at once.
pub(crate) async fn postgres(connection: &mut PgConnection) -> Result<(), OpenError> {
    let migrator = migrator(POSTGRES);
    for tries_left in (0..TRIES_MAX).rev() {
        // Asked first, so that a database of a newer program is named as such and left alone.
        match check_postgres(connection).await {
            Ok(()) => return Ok(()),
            Err(OpenError::SchemaOlder { .. }) => {}
            Err(other) => return Err(other),
        }
        let Err(error) = migrator.run_direct(None, connection, false).await else { return Ok(()) };
        let refusal = Refusal::of(&error);
        if tries_left == 0 || refusal == Refusal::OfItsOwn {
            let hint = if refusal == Refusal::Lock { LOCK_HINT } else { "" };
            return Err(OpenError::Migration(format!("{error}{hint}")));
        }
        if refusal == Refusal::Lock {
            tracing::info!(%error, tries_left, "the migration did not get its lock: trying again");
            tokio::time::sleep(LOCK_AGAIN).await;
        } else {
            tracing::debug!(%error, "the migration met another one, or failed: looking again");
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
    Err(OpenError::Migration(format!("it did not go through in {TRIES_MAX} tries")))
}

/// What to do about a lock.
const LOCK_HINT: &str = "; somebody has been at the table all the time, a backup perhaps (pg_stat_activity tells whom \
                         pg_locks names): what came before this migration is done, migrate again for the rest";

/// Why a migration of Postgres did not go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Others hold what it wants to lock.
    Lock,
    /// It looked, and says itself what has to be done first.
    OfItsOwn,
    /// Another migration's doing, or anything else.
    Other,
}

impl Refusal {
    fn of(error: &MigrateError) -> Self {
        let (MigrateError::Execute(refusal) | MigrateError::ExecuteMigration(refusal, _)) = error else {
            return Self::Other;
        };
        /// RAISE EXCEPTION.
        const RAISED: &str = "P0001";
        match refusal {
            _ if has_code(refusal, &[LOCK_NOT_AVAILABLE]) => Self::Lock,
            _ if has_code(refusal, &[RAISED]) => Self::OfItsOwn,
            _ => Self::Other,
        }
    }
}

/// Errors unless the database has this program's migrations, and no others but such as this program may run with.
pub(crate) async fn check_postgres(connection: &mut PgConnection) -> Result<(), OpenError> {
    let unreachable = |error: sqlx::Error| OpenError::Unreachable(error.to_string());
    let exists: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM information_schema.tables
                        WHERE table_schema = current_schema() AND table_name = '_sqlx_migrations')",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(unreachable)?;
    let mut applied = Vec::new();
    if exists {
        let rows =
            sqlx::query("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
                .fetch_all(&mut *connection)
                .await
                .map_err(unreachable)?;
        for row in rows {
            let version: i64 = row.try_get("version").map_err(unreachable)?;
            let checksum: Vec<u8> = row.try_get("checksum").map_err(unreachable)?;
            applied.push((version, checksum));
        }
    }
    let ours = migrator(POSTGRES);
    let is_ahead = applied.iter().any(|(version, _)| !ours.version_exists(*version));
    // A newer program has migrated the database, and is the one to say who may still run beside it.
    let oldest = if is_ahead { oldest_to_run(connection).await? } else { None };
    compare(&applied, &ours, oldest)
}

/// The newest migration that a program must know to run on this schema; `None` if the schema does not say.
async fn oldest_to_run(connection: &mut PgConnection) -> Result<Option<i64>, OpenError> {
    let asked = sqlx::query_scalar("SELECT oldest_migration FROM schema_compatibility");
    match asked.fetch_optional(connection).await {
        Ok(oldest) => Ok(oldest),
        Err(sqlx::Error::Database(_no_such_table)) => Ok(None),
        Err(other) => Err(OpenError::Unreachable(other.to_string())),
    }
}

/// Compares what the database has seen with what this program brings. `oldest` is the newest migration that a
/// program must know to run, if the database says so.
fn compare(applied: &[(i64, Vec<u8>)], migrator: &Migrator, oldest: Option<i64>) -> Result<(), OpenError> {
    let needed = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    let found = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    let is_ahead = applied.iter().any(|(version, _)| !migrator.version_exists(*version));
    if is_ahead && oldest.is_none_or(|oldest| oldest > needed) {
        return Err(OpenError::SchemaNewer { found, needed });
    }
    for migration in migrator.iter() {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            None => return Err(OpenError::SchemaOlder { found, needed }),
            Some((version, checksum)) if *checksum != *migration.checksum => {
                return Err(OpenError::SchemaDiffers(*version));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// What a failed migration of SQLite means.
pub(crate) fn sqlite_error(error: &MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(found) => {
            let needed = SQLITE.iter().map(|(version, ..)| *version).max().unwrap_or(0);
            OpenError::SchemaNewer { found: *found, needed }
        }
        MigrateError::VersionMismatch(version) => OpenError::SchemaDiffers(*version),
        other => OpenError::Migration(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_have_the_same_migrations() {
        let folder = |engine: &str| {
            let path = format!("{}/../../migrations/{engine}", env!("CARGO_MANIFEST_DIR"));
            let mut names: Vec<String> = std::fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let embedded = |files: &[(i64, &str, &str)]| -> Vec<String> {
            files.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql")).collect()
        };
        assert_eq!(folder("postgres"), folder("sqlite"));
        assert_eq!(folder("postgres"), embedded(POSTGRES), "every file is embedded");
        assert_eq!(folder("sqlite"), embedded(SQLITE), "every file is embedded");
    }

    #[test]
    fn a_schema_is_older_newer_or_of_another_making() {
        let ours = migrator(POSTGRES);
        let all: Vec<(i64, Vec<u8>)> = ours.iter().map(|m| (m.version, m.checksum.to_vec())).collect();
        let needed = all.len() as i64;
        assert!(compare(&all, &ours, None).is_ok());
        assert!(
            matches!(compare(&[], &ours, None), Err(OpenError::SchemaOlder { found: 0, needed: n }) if n == needed)
        );
        assert!(matches!(compare(&all[..1], &ours, None), Err(OpenError::SchemaOlder { found: 1, .. })));
        let ahead = [all, vec![(9, vec![])]].concat();
        assert!(compare(&ahead, &ours, Some(needed)).is_ok(), "the newer one only adds");
        assert!(compare(&ahead, &ours, Some(9)).is_err());
        let newer = compare(&ahead, &ours, None);
        assert!(matches!(newer, Err(OpenError::SchemaNewer { found: 9, needed: n }) if n == needed));
        assert!(matches!(compare(&[(1, vec![1])], &ours, None), Err(OpenError::SchemaDiffers(1))));
    }
}
