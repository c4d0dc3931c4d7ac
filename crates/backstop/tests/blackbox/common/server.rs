//! The real `backstop serve` on a store of its own: started, killed, asked to end, started again.
//!
//! When a test panics, its server's log is printed. The process never outlives the test.

use super::{Api, PATIENCE, eventually};
use backstop_sql::testing::Postgres;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
/// Log lines shown when a test fails.
const LOG_LINES_SHOWN: usize = 120;

/// Where the journal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

enum Store {
    Sqlite(tempfile::TempDir),
    /// A database of its own in the cluster that all tests of this process share.
    Postgres(String),
}

impl Store {
    async fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => Self::Sqlite(tempfile::tempdir().unwrap()),
            Engine::Postgres => {
                let create = || Postgres::shared().expect("Postgres starts").create_database();
                let created = tokio::task::spawn_blocking(create).await.unwrap();
                Self::Postgres(created.expect("a database"))
            }
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(dir) => format!("sqlite:{}", dir.path().join("backstop.db").display()),
            Self::Postgres(url) => url.clone(),
        }
    }
}

/// A coordinator with its store.
pub(crate) struct Backstop {
    program: PathBuf,
    store: Store,
    settings: Vec<(String, String)>,
    running: Option<Running>,
    log: Arc<Mutex<Vec<String>>>,
}

struct Running {
    child: Child,
    address: String,
    /// Where its part of the log begins.
    log_from: usize,
}

impl Backstop {
    /// A coordinator on a new store.
    pub(crate) async fn start(engine: Engine) -> Self {
        Self::start_with(engine, &[]).await
    }

    /// The same, with settings in its environment: `("BACKSTOP_DRAIN_TIME", "1s")`.
    pub(crate) async fn start_with(engine: Engine, settings: &[(&str, &str)]) -> Self {
        Self::start_program(Path::new(BINARY), engine, settings).await
    }

    /// Another version of the program.
    pub(crate) async fn start_program(program: &Path, engine: Engine, settings: &[(&str, &str)]) -> Self {
        let mut backstop = Self {
            program: program.to_owned(),
            store: Store::new(engine).await,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            running: None,
            log: Arc::default(),
        };
        backstop.start_again().await;
        backstop
    }

    /// Another coordinator on the same Postgres.
    pub(crate) async fn beside(&self, settings: &[(&str, &str)]) -> Self {
        self.beside_as(Path::new(BINARY), settings).await
    }

    /// The same, of another version of the program.
    pub(crate) async fn beside_as(&self, program: &Path, settings: &[(&str, &str)]) -> Self {
        let Store::Postgres(url) = &self.store else { panic!("SQLite is for one coordinator") };
        let own = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut other = Self {
            program: program.to_owned(),
            store: Store::Postgres(url.clone()),
            settings: self.settings.iter().cloned().chain(own).collect(),
            running: None,
            log: Arc::default(),
        };
        other.start_again().await;
        other
    }

    /// The URL of its store.
    pub(crate) fn store_url(&self) -> String {
        self.store.url()
    }

    /// Starts the process on the same store; it must not be running.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "it is running");
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--store", &self.store.url(), "--listen", "127.0.0.1:0"])
            .args(["--metrics-listen", "127.0.0.1:0", "--migrate"])
            .env_clear()
            .envs(self.settings.clone())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        self.log.lock().unwrap().push(format!("--- started as {}", child.id()));
        let from = self.log.lock().unwrap().len();
        for stream in [Box::new(stdout) as Box<dyn Read + Send>, Box::new(stderr)] {
            let log = Arc::clone(&self.log);
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    log.lock().unwrap().push(line);
                }
            });
        }
        self.running = Some(Running { child, address: String::new(), log_from: from });
        let address = self.announced(from).await;
        if let Some(running) = &mut self.running {
            running.address = address;
        }
    }

    /// Waits for the line `listening HOST:PORT`.
    async fn announced(&mut self, from: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.log_since(from);
            if let Some(address) = said.iter().find_map(|line| line.strip_prefix("listening ")) {
                return address.trim().to_owned();
            }
            let running = self.running.as_mut().unwrap();
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("serve ended with {status} before it listened");
            }
            assert!(Instant::now() < deadline, "serve does not say `listening`");
            tokio::time::sleep(super::LOOK_EVERY).await;
        }
    }

    fn log_since(&self, from: usize) -> Vec<String> {
        self.log.lock().unwrap()[from..].to_vec()
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it is not running")
    }

    /// Where it listens: `127.0.0.1:port`, another one after each start.
    pub(crate) fn address(&self) -> &str {
        &self.running().address
    }

    /// Where `/metrics` is: the log says so.
    pub(crate) async fn metrics_address(&self) -> String {
        let from = self.running().log_from;
        eventually("the log to name the metrics address", || async {
            let said = self.log_since(from);
            let line = said.iter().find(|line| line.contains("metrics") && line.contains("address"));
            let port = line.and_then(|line| line.rsplit_once("127.0.0.1:")).map(|(_, rest)| rest);
            let port = port.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
            port.map(|port| format!("127.0.0.1:{port}")).ok_or_else(|| said.join("\n"))
        })
        .await
    }

    /// A client.
    pub(crate) fn api(&self) -> Api {
        Api::at(self.address())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running().child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("it is not running");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        self.log.lock().unwrap().push("--- killed".to_owned());
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn signal_to_end(&self) {
        self.signal("TERM");
    }

    /// Sends a signal: `STOP` freezes it, `CONT` lets it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{signal}");
    }

    /// Waits until the process is gone.
    pub(crate) async fn gone(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("it is not running");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = running.child.try_wait().unwrap() {
                self.log.lock().unwrap().push(format!("--- ended: {status}"));
                return status;
            }
            if Instant::now() >= deadline {
                self.running = Some(running);
                panic!("it does not end after SIGTERM");
            }
            tokio::time::sleep(super::LOOK_EVERY).await;
        }
    }

    /// True if the process is there.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| running.child.try_wait().unwrap().is_none())
    }

    /// All that it has printed.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Backstop {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may have ended by itself; either way it is gone now.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            let from = log.len().saturating_sub(LOG_LINES_SHOWN);
            println!("--- the last lines of backstop serve:\n{}\n---", log[from..].join("\n"));
        }
    }
}

/// Runs `backstop` with arguments to its end, as from a shell without a terminal. What does not end by
/// itself is ended, with exit code 124.
pub(crate) fn backstop(directory: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(BINARY);
    command.args(arguments).current_dir(directory).env_clear();
    super::tool::run(command.env("PATH", std::env::var_os("PATH").unwrap_or_default()))
}
