//! What every system of a run stands on: the answering participants, and one database server.
//!
//! # Invariants
//! * The server flushes each commit: `fsync` and `synchronous_commit` are on, and nothing here turns them off.

use super::shape::PARTICIPANTS;
use super::system::Group;
use crate::process::{Plan, Process};
use anyhow::{Context, Result};
use backstop_sql::testing::Postgres;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The process that answers in a coordinator's place when the floor is measured.
pub(super) const STAND_IN: &str = "stand_in";
/// Connections of the range itself.
const CONNECTIONS_MAX: u32 = 2;

/// Where sagas are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
pub enum Store {
    /// A Postgres of the run's own, with its default durability
    Postgres,
    /// A SQLite file: WAL, synchronous = FULL
    Sqlite,
}

impl Store {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// All of it. Ends when it is dropped.
pub struct Ground {
    answering: Vec<Process>,
    stand_in: Process,
    postgres: Option<Postgres>,
    folder: TempDir,
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("folder", &self.folder.path()).finish_non_exhaustive()
    }
}

impl Ground {
    /// Starts it. `range` is this program, which is the participants as well.
    ///
    /// # Errors
    /// If something does not come up.
    pub async fn start(range: &Path, store: Store) -> Result<Self> {
        let postgres = match store {
            Store::Postgres => Some(tokio::task::spawn_blocking(Postgres::start).await??),
            Store::Sqlite => None,
        };
        if let Some(postgres) = &postgres {
            count(postgres).await?;
        }
        let mut answering = Vec::new();
        for name in PARTICIPANTS {
            answering.push(answerer(range, name).await?);
        }
        let stand_in = answerer(range, STAND_IN).await?;
        let folder = tempfile::Builder::new().prefix("backstop-bench-").tempdir()?;
        Ok(Self { answering, stand_in, postgres, folder })
    }

    /// Which store it is for.
    #[must_use]
    pub fn store(&self) -> Store {
        if self.postgres.is_some() { Store::Postgres } else { Store::Sqlite }
    }

    /// The database server, if the run has one.
    #[must_use]
    pub fn postgres(&self) -> Option<&Postgres> {
        self.postgres.as_ref()
    }

    /// A folder on the disk, for files of SQLite.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new and empty store, as a URL: each system has its own.
    ///
    /// # Errors
    /// If the server does not make one.
    pub fn new_store(&self, name: &str) -> Result<String> {
        match &self.postgres {
            Some(postgres) => Ok(postgres.create_database()?),
            None => Ok(format!("sqlite:{}", self.file(name).display())),
        }
    }

    /// The SQLite file of a system.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.sqlite"))
    }

    /// The participants, by name and `http://` endpoint.
    ///
    /// # Errors
    /// If one is gone.
    pub fn endpoints(&self) -> Result<Vec<(String, String)>> {
        let of =
            |process: &Process| Ok((process.name().to_owned(), format!("http://{}", process.address()?)));
        self.answering.iter().map(of).collect()
    }

    /// The endpoint of the stand-in.
    pub(super) fn stand_in(&self) -> Result<String> {
        Ok(format!("http://{}", self.stand_in.address()?))
    }

    /// The processes of the ground, and the load's.
    ///
    /// # Errors
    /// If one is gone.
    pub async fn processes(&self) -> Result<Vec<Group>> {
        // The load's own children are counted on their own.
        let load = Group { name: "load".to_owned(), roots: vec![std::process::id()], with_children: false };
        let mut roots = Vec::new();
        for process in self.answering.iter().chain([&self.stand_in]) {
            roots.push(pid(process).await?);
        }
        let participants = Group { name: "participants".to_owned(), roots, with_children: false };
        let mut groups = vec![load, participants];
        if let Some(postgres) = &self.postgres {
            let roots = vec![postgres.pid().context("the postmaster")?];
            groups.push(Group { name: "postgres".to_owned(), roots, with_children: true });
        }
        Ok(groups)
    }
}

/// The id of a running process.
///
/// # Errors
/// If it is not running.
pub(super) async fn pid(process: &Process) -> Result<u32> {
    Ok(u32::try_from(process.pid().await?.as_raw_nonzero().get())?)
}

async fn answerer(range: &Path, name: &str) -> Result<Process> {
    let plan = Plan {
        program: range.to_owned(),
        arguments: vec!["answer".to_owned()],
        settings: Vec::new(),
        listener: Arc::new(|_| false),
    };
    let process = Process::new(name, plan);
    process.start().await?;
    Ok(process)
}

/// A few connections to a database.
pub(super) async fn connect(url: &str) -> Result<PgPool> {
    // A look at each connection before its use would be a round trip more for each write of the floor's.
    let options = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).test_before_acquire(false);
    Ok(options.connect(url).await?)
}

/// Turns on the counting of statements and the reading of the log, where Postgres' contributed modules are installed;
/// without them the run says that it does not know.
async fn count(postgres: &Postgres) -> Result<()> {
    let pool = connect(&postgres.url("postgres")).await?;
    let sql = "SELECT count(*) FROM pg_available_extensions WHERE name = $1";
    let statements: i64 = sqlx::query_scalar(sql).bind("pg_stat_statements").fetch_one(&pool).await?;
    let log: i64 = sqlx::query_scalar(sql).bind("pg_walinspect").fetch_one(&pool).await?;
    if log > 0 {
        sqlx::query("CREATE EXTENSION pg_walinspect").execute(&pool).await?;
    }
    if statements > 0 {
        sqlx::query("CREATE EXTENSION pg_stat_statements").execute(&pool).await?;
        sqlx::query("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
            .execute(&pool)
            .await?;
        pool.close().await;
        tokio::task::block_in_place(|| postgres.restart())?;
    }
    Ok(())
}
