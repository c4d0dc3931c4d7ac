//! What an error of the driver means to a caller of the store: was it applied?
//!
//! # Invariants
//! * `NotApplied` is said only where nothing can have been changed; when in doubt it is `Unknown`.
//! * No text of an error holds a connection URL, so no password leaks.

use backstop_engine::ports::store::StoreError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::path::PathBuf;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL of the database is not one.
    #[error("the database URL is not valid; it reads postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    BadUrl,
    /// The database does not answer, or refuses us.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The database has not seen all migrations that this program brings.
    #[error("the schema has version {found}, this program needs {needed}: run `backstop migrate`")]
    SchemaOlder {
        /// Newest migration in the database; 0 for none.
        found: i64,
        /// Newest migration of this program.
        needed: i64,
    },
    /// A newer program has migrated the database.
    #[error(
        "the schema has version {found}, newer than this program's {needed}: use the program that migrated it, \
         or a newer one; `backstop migrate` of that program tells its version"
    )]
    SchemaNewer {
        /// Newest migration in the database.
        found: i64,
        /// Newest migration of this program.
        needed: i64,
    },
    /// A migration that the database has seen is not the one of this program.
    #[error("migration {0} of the database differs from this program's: it was changed after its release")]
    SchemaDiffers(i64),
    /// A migration did not go through: what it had done is rolled back, those before it are done.
    #[error("the schema could not be migrated by `backstop migrate`: {0}")]
    Migration(String),
    /// Another process has this SQLite file open.
    #[error("{} is in use by another coordinator; one SQLite file serves one coordinator at a time", .0.display())]
    InUse(PathBuf),
    /// The file, its lock or its folder cannot be used.
    #[error("{}: {reason}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// The error of a statement that changes something and was handed to the database.
pub(crate) fn of_write(error: &sqlx::Error) -> StoreError {
    if surely_not_applied(error) {
        StoreError::NotApplied(error.to_string())
    } else {
        StoreError::Unknown(error.to_string())
    }
}

/// The error of a statement that changes nothing.
pub(crate) fn of_read(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            StoreError::Unreadable(error.to_string())
        }
        _ => StoreError::NotApplied(error.to_string()),
    }
}

/// True for the refusal of a row whose key is there already.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Postgres ended a statement because its time was over.
pub(crate) const CANCELLED: &str = "57014";
/// A lock of Postgres was not to be had in time.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// True if a database refused with one of these codes.
pub(crate) fn has_code(refusal: &sqlx::Error, codes: &[&str]) -> bool {
    let code = refusal.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}

/// True if the connection to Postgres can be used again after this error: the server answered in order, and would
/// answer so in another session, too.
pub(crate) fn leaves_the_connection_usable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(refusal) => refusal
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|refusal| says_nothing_of_the_session(refusal.severity(), refusal.code())),
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}

/// True of a refusal for what was in the rows, or because of others who are at them: data (22), constraints (23), a
/// transaction that gives way (40), a statement that was cancelled, a lock that was not to be had.
///
/// Any other may be the session's own, and come for ever: its server only reads by now, a statement that it had
/// prepared is gone, a type has another number. To make a new session after one that was not is cheap beside that.
fn says_nothing_of_the_session(severity: PgSeverity, code: &str) -> bool {
    let of_the_rows = ["22", "23", "40"].iter().any(|class| code.starts_with(class));
    severity == PgSeverity::Error && (of_the_rows || [CANCELLED, LOCK_NOT_AVAILABLE].contains(&code))
}

fn surely_not_applied(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(refusal) => match refusal.try_downcast_ref::<PgDatabaseError>() {
            Some(refusal) => is_refusal(refusal.severity(), refusal.code()),
            // SQLite: busy, locked or against a constraint. Others may come from the commit itself.
            None => refusal.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(is_sqlite_refusal),
        },
        // These come before anything is sent.
        sqlx::Error::Configuration(_)
        | sqlx::Error::InvalidArgument(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Tls(_)
        | sqlx::Error::BeginFailed => true,
        _ => false,
    }
}

/// By the primary code, which is the low byte of an extended one.
fn is_sqlite_refusal(code: u32) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const CONSTRAINT: u32 = 19;
    matches!(code & 0xff, BUSY | LOCKED | CONSTRAINT)
}

/// An `ERROR` rolls its statement back. A `FATAL` may come after the commit, when the server ends the
/// connection before it has said so; 40003 (statement completion unknown) is what it says, and
/// CockroachDB's word for an ambiguous commit.
fn is_refusal(severity: PgSeverity, code: &str) -> bool {
    severity == PgSeverity::Error && code != "40003" && !code.starts_with("08")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_error_of_the_server_is_sure_to_have_changed_nothing() {
        assert!(is_refusal(PgSeverity::Error, "23505"), "unique violation");
        assert!(is_refusal(PgSeverity::Error, "40001"), "serialization failure");
        assert!(is_refusal(PgSeverity::Error, "57014"), "statement timeout");
        assert!(!is_refusal(PgSeverity::Fatal, "57P01"), "the server shut down, maybe after the commit");
        assert!(!is_refusal(PgSeverity::Error, "40003"));
        assert!(!is_refusal(PgSeverity::Panic, "XX000"));
    }

    #[test]
    fn a_session_is_kept_only_after_a_refusal_that_any_other_would_meet() {
        for code in ["22003", "23505", "40001", "40P01", "57014", "55P03"] {
            assert!(says_nothing_of_the_session(PgSeverity::Error, code), "{code}");
            assert!(!says_nothing_of_the_session(PgSeverity::Fatal, code), "{code}");
        }
        // Read-only, a prepared statement that is gone, a plan that has changed, a type or function that is not there,
        // a failed transaction, no memory, an administrator's shutdown.
        for code in ["25006", "26000", "0A000", "42704", "42883", "25P02", "53200", "57P01", "XX000"] {
            assert!(!says_nothing_of_the_session(PgSeverity::Error, code), "{code}");
        }
    }

    #[test]
    fn a_lost_connection_leaves_a_write_unknown_and_a_read_without_effect() {
        let lost = sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(matches!(of_write(&lost), StoreError::Unknown(_)));
        assert!(matches!(of_read(&lost), StoreError::NotApplied(_)));
        assert!(matches!(of_write(&sqlx::Error::PoolTimedOut), StoreError::NotApplied(_)));
    }
}
