//! Postgres and the coordinators on it, each behind a wire of its own.

use crate::api::Api;
use crate::coordinator::{Coordinator, Plan};
use crate::proxy::Proxy;
use anyhow::{Context, Result, bail};
use backstop_sql::testing::Postgres;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Connections of the range itself, past all wires.
const CONNECTIONS_MAX: u32 = 4;

/// A database with coordinators. Whatever of it runs ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: those who use the database before the database.
    members: Vec<Member>,
    pool: PgPool,
    program: PathBuf,
    target: SocketAddr,
    database: String,
    postgres: Arc<Postgres>,
}

/// A coordinator and its wire to Postgres.
#[derive(Debug, Clone)]
pub struct Member {
    /// The process.
    pub coordinator: Arc<Coordinator>,
    /// Its wire.
    pub proxy: Arc<Proxy>,
}

impl Cluster {
    /// A new Postgres with the schema in it, and no coordinator yet.
    ///
    /// # Errors
    /// If Postgres does not start or the schema does not fit.
    pub async fn start(program: &Path) -> Result<Self> {
        let started = tokio::task::spawn_blocking(|| {
            let postgres = Postgres::start()?;
            let url = postgres.create_database()?;
            Ok::<_, backstop_sql::testing::Error>((postgres, url))
        });
        let (postgres, url) = started.await??;
        let (base, database) = url.rsplit_once('/').context("the URL names a database")?;
        let (_, target) = base.rsplit_once('@').context("the URL names a host")?;
        migrate(program, &url).await?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(Duration::from_secs(20))
            .connect_lazy(&url)?;
        Ok(Self {
            members: Vec::new(),
            pool,
            program: program.to_owned(),
            target: target.parse().context("the URL names an address")?,
            database: database.to_owned(),
            postgres: Arc::new(postgres),
        })
    }

    /// Adds a running coordinator with these settings beside the defaults.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn add(&mut self, settings: &[(&str, &str)]) -> Result<Member> {
        let proxy = Arc::new(Proxy::start(self.target).await?);
        let name = u8::try_from(self.members.len()).map_or('?', |number| char::from(b'A' + number % 26));
        let plan = Plan {
            program: self.program.clone(),
            store: format!("postgres://postgres@{}/{}", proxy.address(), self.database),
            settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let coordinator = Arc::new(Coordinator::new(&name.to_string(), plan));
        coordinator.start().await?;
        let member = Member { coordinator, proxy };
        self.members.push(member.clone());
        Ok(member)
    }

    /// True if this `backstop` knows these settings.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn accepts(&self, settings: &[(&str, &str)]) -> Result<bool> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(["serve", "--print-config"]).env_clear().envs(settings.iter().copied());
        Ok(command.kill_on_drop(true).output().await?.status.success())
    }

    /// Several coordinators with the same settings.
    ///
    /// # Errors
    /// If one does not come up.
    pub async fn add_many(&mut self, count: usize, settings: &[(&str, &str)]) -> Result<()> {
        for _ in 0..count {
            self.add(settings).await?;
        }
        Ok(())
    }

    /// The coordinators.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A client of each coordinator.
    ///
    /// # Errors
    /// If one was never started.
    pub fn apis(&self) -> Result<Vec<Api>> {
        self.members.iter().map(|member| Api::at(member.coordinator.address()?)).collect()
    }

    /// The database server.
    #[must_use]
    pub fn postgres(&self) -> Arc<Postgres> {
        Arc::clone(&self.postgres)
    }

    /// The range's own way to the database.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The ends of all logs, for a failing run.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let of = |member: &Member| {
            let log = member.coordinator.last_lines(lines).join("\n");
            format!("--- the last lines of {}:\n{log}", member.coordinator.name())
        };
        self.members.iter().map(of).collect::<Vec<_>>().join("\n")
    }
}

/// Brings the schema of a store to this `backstop`'s.
///
/// # Errors
/// If it cannot be run, or fails.
pub async fn migrate(program: &Path, url: &str) -> Result<()> {
    let migrated = tokio::process::Command::new(program)
        .args(["migrate", "--store", url])
        .env_clear()
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{}", program.display()))?;
    if !migrated.status.success() {
        bail!("backstop migrate: {}", String::from_utf8_lossy(&migrated.stderr));
    }
    Ok(())
}
