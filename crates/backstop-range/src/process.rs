//! One server as a process: started, killed, frozen, asked to end, started again on its port.
//!
//! # Invariants
//! * It does not outlive the range, killed and frozen included: a small shell waits at a pipe that only the
//!   range holds open, and kills it when the pipe closes.
//! * From its first start on it listens on one address.

use crate::vitals;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Longest wait for a start or an end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of its log that are kept.
const LOG_LINES_MAX: usize = 4_000;

/// Sees each line that a process writes; true if it is not for the log.
pub type Listener = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How a server is run. It must take `--listen ADDRESS`, and write `listening ADDRESS` when it does.
#[derive(Clone)]
pub struct Plan {
    /// Its program.
    pub program: PathBuf,
    /// Its arguments, but for `--listen`.
    pub arguments: Vec<String>,
    /// Its environment.
    pub settings: Vec<(String, String)>,
    /// Sees its lines.
    pub listener: Listener,
}

/// A server, running or not.
pub struct Process {
    name: String,
    plan: Plan,
    address: OnceLock<SocketAddr>,
    running: tokio::sync::Mutex<Option<Running>>,
    log: Log,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("name", &self.name).finish_non_exhaustive()
    }
}

struct Running {
    child: Child,
    pid: Pid,
    /// Kills the process when our end of its pipe closes; see [`keeper`].
    keeper: std::process::Child,
    /// Follow what it writes.
    followers: [tokio::task::JoinHandle<()>; 2],
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        while lines.len() > LOG_LINES_MAX {
            lines.pop_front();
        }
    }

    fn last(&self, count: usize) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }
}

impl Process {
    /// One that is not running yet.
    #[must_use]
    pub fn new(name: &str, plan: Plan) -> Self {
        let running = tokio::sync::Mutex::default();
        Self { name: name.to_owned(), plan, address: OnceLock::new(), running, log: Log::default() }
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its API listens.
    ///
    /// # Errors
    /// If it has never been started.
    pub fn address(&self) -> Result<SocketAddr> {
        self.address.get().copied().context("it has never been started")
    }

    /// Starts it; on its old address if it has one.
    ///
    /// # Errors
    /// If it runs already, or does not come up; with the end of its log.
    pub async fn start(&self) -> Result<()> {
        let mut running = self.running.lock().await;
        if running.is_some() {
            bail!("{} is running", self.name);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.launch().await {
                Ok(started) => {
                    *running = Some(started);
                    return Ok(());
                }
                // Somebody's outgoing connection may have borrowed the port; Postgres may be down.
                Err(error) if self.address.get().is_some() && Instant::now() < deadline => {
                    self.log.push(format!("--- not started, tried again: {error:#}"));
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => {
                    let log = self.log.last(40).join("\n");
                    return Err(error.context(format!("{} does not start:\n{log}", self.name)));
                }
            }
        }
    }

    async fn launch(&self) -> Result<Running> {
        let listen = self.address.get().map_or_else(|| "127.0.0.1:0".to_owned(), ToString::to_string);
        let mut command = Command::new(&self.plan.program);
        command
            .args(&self.plan.arguments)
            .args(["--listen", &listen])
            .env_clear()
            .envs(self.plan.settings.iter().map(|(name, value)| (name, value)))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the range is the range's to handle.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{}", self.plan.program.display()))?;
        let id = child.id().context("it is gone already")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("a process id")?;
        let keeper = keeper(id)?;
        self.log.push(format!("--- started as {id}"));
        let (address, listening) = tokio::sync::oneshot::channel();
        let out = child.stdout.take().context("its output")?;
        let err = child.stderr.take().context("its log")?;
        let followers = [
            follow(out, self.log.clone(), Arc::clone(&self.plan.listener), Some(address)),
            follow(err, self.log.clone(), Arc::clone(&self.plan.listener), None),
        ];
        let Ok(address) = tokio::time::timeout(PATIENCE, listening).await? else {
            bail!("it ended before it listened");
        };
        // It keeps the address that it got first.
        let _ = self.address.set(address);
        Ok(Running { child, pid, keeper, followers })
    }

    /// `kill -9`, also of a frozen one. Does nothing if it is not running.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub async fn kill(&self) -> Result<()> {
        let Some(mut gone) = self.running.lock().await.take() else { return Ok(()) };
        gone.child.kill().await?;
        for follower in gone.followers {
            // What it wrote before its end is still to be read; a follower that fails has read what there is.
            let _ = follower.await;
        }
        self.log.push("--- killed".to_owned());
        dismiss(gone.keeper);
        Ok(())
    }

    /// SIGTERM, and waits until it is gone; answers whether it ended well.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub async fn terminate(&self) -> Result<bool> {
        self.signal(Signal::TERM).await?;
        let mut gone = self.running.lock().await.take().context("it is not running")?;
        let status = tokio::time::timeout(PATIENCE, gone.child.wait())
            .await
            .with_context(|| format!("{} does not end after SIGTERM", self.name))??;
        self.log.push(format!("--- ended: {status}"));
        dismiss(gone.keeper);
        Ok(status.success())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP).await
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT).await
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().await?;
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// Its process id.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn pid(&self) -> Result<Pid> {
        let running = self.running.lock().await;
        Ok(running.as_ref().with_context(|| format!("{} is not running", self.name))?.pid)
    }

    /// Its memory and processor time.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn vitals(&self) -> Result<vitals::Vitals> {
        vitals::of_process(self.pid().await?.as_raw_nonzero().get())
    }

    /// The end of its log.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.log.last(count)
    }
}

/// Waits for the end of our pipe, then kills; a word from us dismisses it. In a group of its own, so that
/// Ctrl-C on the range does not end it.
fn keeper(pid: u32) -> Result<std::process::Child> {
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "read -r word; [ \"$word\" = done ] || kill -9 \"$1\"", "keeper", &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    command.spawn().context("sh")
}

fn dismiss(mut keeper: std::process::Child) {
    use std::io::Write;
    if let Some(mut pipe) = keeper.stdin.take() {
        // If it is gone, so is its purpose.
        let _ = pipe.write_all(b"done\n");
    }
    let _ = keeper.wait();
}

/// Keeps a stream's lines, and tells where the process listens once it says so.
fn follow(
    stream: impl AsyncRead + Unpin + Send + 'static,
    log: Log,
    listener: Listener,
    address: Option<tokio::sync::oneshot::Sender<SocketAddr>>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut address = address;
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(found) = line.strip_prefix("listening ").and_then(|rest| rest.trim().parse().ok())
                && let Some(tell) = address.take()
            {
                // Whoever asked may have given up.
                let _ = tell.send(found);
            }
            if !listener(&line) {
                log.push(line);
            }
        }
    })
}

/// Waits until a look shows something, at most so long.
///
/// # Errors
/// If it takes longer, or if a look fails.
pub async fn eventually<T, F>(what: &str, patience: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look().await? {
            return Ok(seen);
        }
        if Instant::now() >= deadline {
            bail!("waited {patience:?} for {what}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
