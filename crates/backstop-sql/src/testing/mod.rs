//! A throw-away Postgres: one cluster in a folder of its own, on loopback, gone with its process.
//!
//! # Invariants
//! * It ends and its folder is deleted when the value is dropped, and also when the process ends in any
//!   way whatever, killed included: a small shell waits at a pipe that only this process holds open, and
//!   cleans up when it closes.
//! * It flushes like a real one (`fsync = on`).
//!
//! Needs Postgres' programs; without them [`Error::NotFound`] says how to get them.

mod programs;
mod proxy;

use programs::Programs;
pub use proxy::{Direction, Proxy};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

/// The superuser of the cluster; it has no password.
const USER: &str = "postgres";
/// Another process may take a free port before Postgres does.
const PORT_TRIES: usize = 10;

/// Why there is no throw-away Postgres.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its programs are not on this machine.
    #[error(
        "no Postgres found (initdb, pg_ctl): apt-get install postgresql, or put its bin folder into PATH"
    )]
    NotFound,
    /// We are root, which Postgres refuses, and there is nobody else to be.
    #[error("Postgres does not run as root, and there is no user postgres with setpriv, runuser or su")]
    NoUser,
    /// A program could not be started.
    #[error("{program}: {source}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// Which.
        program: String,
        /// What it said.
        output: String,
    },
}

/// A running cluster.
#[derive(Debug)]
pub struct Postgres {
    programs: Programs,
    folder: PathBuf,
    port: u16,
    databases: AtomicU32,
    /// Waits for the end of our pipe; none once it is gone.
    cleaner: Mutex<Option<Child>>,
}

impl Postgres {
    /// Makes and starts a cluster.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn start() -> Result<Self, Error> {
        let programs = Programs::find()?;
        let temp = std::env::temp_dir();
        let made =
            programs.run("mktemp", &["-d", &format!("{}/backstop-postgres-XXXXXX", temp.display())])?;
        let folder = PathBuf::from(made.trim());
        let cleaner = Mutex::new(Some(cleaner(&programs, &folder)?));
        let mut postgres = Self { programs, folder, port: 0, databases: AtomicU32::new(0), cleaner };
        // From here on an early return drops the value, which cleans up.
        let data = postgres.data();
        postgres.programs.run_own(
            "initdb",
            &["--pgdata", &data, "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--no-sync"],
        )?;
        for tries_left in (0..PORT_TRIES).rev() {
            postgres.port = free_port()?;
            match postgres.launch() {
                Ok(()) => break,
                Err(error) if tries_left == 0 => return Err(error),
                Err(_) => {}
            }
        }
        Ok(postgres)
    }

    /// The cluster that all tests of this process share; started by the first that asks.
    ///
    /// # Errors
    /// [`Error`], the same for everyone.
    pub fn shared() -> Result<&'static Self, &'static Error> {
        static SHARED: OnceLock<Result<Postgres, Error>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// The URL of a database in it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The process that all others of the cluster descend from, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let lines = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        lines.lines().next()?.trim().parse().ok()
    }

    /// Where it listens, for a [`Proxy`].
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Makes a new, empty database and answers its URL.
    ///
    /// # Errors
    /// [`Error`] if the cluster is not running.
    pub fn create_database(&self) -> Result<String, Error> {
        self.create_database_with(&[])
    }

    /// [`Postgres::create_database`] with more arguments of `createdb`.
    ///
    /// # Errors
    /// [`Error`] if the cluster is not running or refuses an argument.
    pub fn create_database_with(&self, arguments: &[&str]) -> Result<String, Error> {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let port = self.port.to_string();
        let mut all = vec!["--host", "127.0.0.1", "--port", &port, "--username", USER];
        all.extend_from_slice(arguments);
        all.push(&name);
        self.programs.run_own("createdb", &all)?;
        Ok(self.url(&name))
    }

    /// Ends every session and stops it in order. The data stays.
    ///
    /// # Errors
    /// [`Error`] if it was not running.
    pub fn stop(&self) -> Result<(), Error> {
        self.halt("fast")
    }

    /// Stops it as a crash does: sessions are cut, nothing is written any more, and the next start has to
    /// recover from the log.
    ///
    /// # Errors
    /// [`Error`] if it was not running.
    pub fn kill(&self) -> Result<(), Error> {
        self.halt("immediate")
    }

    /// Starts it again on the same port, with the same data; stops it before if it runs.
    ///
    /// # Errors
    /// [`Error`] if it does not come up.
    pub fn restart(&self) -> Result<(), Error> {
        // Not running is just as well.
        let _ = self.stop();
        self.launch()
    }

    /// Starts it again as a standby: it answers reads, and stays behind, for its primary is nowhere.
    ///
    /// # Errors
    /// [`Error`] if it does not come up.
    pub fn demote(&self) -> Result<(), Error> {
        // Not running is just as well.
        let _ = self.stop();
        self.programs.run("touch", &[&format!("{}/standby.signal", self.data())])?;
        self.launch()
    }

    /// Makes a standby a primary. Its sessions stay.
    ///
    /// # Errors
    /// [`Error`] if it was none.
    pub fn promote(&self) -> Result<(), Error> {
        self.programs.run_own("pg_ctl", &["promote", "--wait", "--pgdata", &self.data()]).map(|_| ())
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    fn launch(&self) -> Result<(), Error> {
        let (data, folder, log) = (self.data(), self.folder.display(), self.folder.join("log"));
        let settings = format!(
            "-c port={} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=on \
             -c synchronous_commit=on -c max_connections=200 -c shared_buffers=64MB",
            self.port
        );
        let log = log.display().to_string();
        let started = self.programs.run_own(
            "pg_ctl",
            &["start", "--wait", "--pgdata", &data, "--log", &log, "--options", &settings],
        );
        started.map(|_| ())
    }

    fn halt(&self, mode: &str) -> Result<(), Error> {
        let data = self.data();
        self.programs.run_own("pg_ctl", &["stop", "--wait", "--pgdata", &data, "--mode", mode]).map(|_| ())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut cleaner = self.cleaner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mut cleaner) = cleaner.take() {
            drop(cleaner.stdin.take());
            // It cleans up whether or not we wait; waiting only makes the end visible.
            let _ = cleaner.wait();
        }
    }
}

/// The shell that outlives us. In a group of its own, so that Ctrl-C on a test run does not end it.
fn cleaner(programs: &Programs, folder: &std::path::Path) -> Result<Child, Error> {
    let script = "read -r _; \"$1\" stop --pgdata \"$2/data\" --mode immediate; rm -rf \"$2\"";
    let pg_ctl = programs.path("pg_ctl");
    let mut command = programs.command("sh");
    command
        .args(["-c", script, "cleaner"])
        .arg(pg_ctl)
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    command.spawn().map_err(|source| Error::Start { program: "sh".to_owned(), source })
}

fn free_port() -> Result<u16, Error> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    port.map(|address| address.port())
        .map_err(|source| Error::Start { program: "a listener on loopback".to_owned(), source })
}
