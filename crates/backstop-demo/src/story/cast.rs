//! The processes of the story: started, killed, started again on the same port and file, and never left
//! behind.
//!
//! # Invariants
//! - Each child is ended by its own pid, and reaped; also if the story breaks off. A service ends by itself
//!   when the demo is gone, since its standard input ends then.
//! - Children are in process groups of their own: Ctrl-C reaches the demo alone, which ends them in order.

use super::DemoError;
use crate::service::LISTENING;
use crate::spec::ServiceSpec;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

/// How long a process may take until it listens.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a process may take to end once it is told to; a coordinator drains for ten seconds at most.
const END_MAX: Duration = Duration::from_secs(12);
/// Any free port of this machine.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Lines of a log that are shown when its process has ended by itself.
const TAIL_LINES: usize = 12;

/// What to start.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// One of the bank's services.
    Service(ServiceSpec),
    /// `serve` on an SQLite store, with more arguments as the binary wants them.
    Coordinator { store: PathBuf, more: Vec<OsString> },
}

impl Part {
    fn args(&self, listen: SocketAddr) -> Vec<OsString> {
        match self {
            Self::Service(spec) => {
                let spec = ServiceSpec { listen, ..spec.clone() };
                std::iter::once("demo-service".into()).chain(spec.to_args()).collect()
            }
            Self::Coordinator { store, more } => {
                let mut url = OsString::from("sqlite:");
                url.push(store);
                let args =
                    ["serve".into(), "--store".into(), url, "--listen".into(), listen.to_string().into()];
                args.into_iter().chain(more.iter().cloned()).collect()
            }
        }
    }
}

struct Running {
    child: Child,
    /// Held open: a service ends when this does.
    _stdin: Option<ChildStdin>,
}

/// One process.
pub(super) struct Actor {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) log: PathBuf,
    part: Part,
    running: Option<Running>,
}

impl Actor {
    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }
}

/// All processes of one story.
pub(super) struct Cast {
    program: PathBuf,
    dir: PathBuf,
    actors: Vec<Actor>,
}

impl Cast {
    /// Children of `program`, with their logs in `dir`.
    pub(super) fn new(program: PathBuf, dir: &Path) -> Self {
        Self { program, dir: dir.to_owned(), actors: Vec::new() }
    }

    /// Starts a process and waits until it listens.
    pub(super) async fn start(&mut self, name: &str, part: Part) -> Result<SocketAddr, DemoError> {
        let log = self.dir.join(format!("{name}.log"));
        let (running, address) = spawn(&self.program, name, &part, ANY_PORT, &log).await?;
        self.actors.push(Actor { name: name.to_owned(), address, log, part, running: Some(running) });
        Ok(address)
    }

    /// Starts a process again that was killed, on its own port and file.
    pub(super) async fn start_again(&mut self, name: &str) -> Result<(), DemoError> {
        let program = self.program.clone();
        let actor = self.actor_mut(name)?;
        let (running, _) = spawn(&program, name, &actor.part, actor.address, &actor.log).await?;
        actor.running = Some(running);
        Ok(())
    }

    /// SIGKILL by pid, and reaped. Answers the pid.
    pub(super) async fn kill(&mut self, name: &str) -> Result<u32, DemoError> {
        let actor = self.actor_mut(name)?;
        let spawn = |source| DemoError::Process { name: name.to_owned(), source };
        let gone = || spawn(std::io::Error::other("it is not running"));
        let mut running = actor.running.take().ok_or_else(gone)?;
        let pid = running.child.id().ok_or_else(gone)?;
        running.child.kill().await.map_err(spawn)?;
        Ok(pid)
    }

    pub(super) fn actor(&self, name: &str) -> Result<&Actor, DemoError> {
        self.actors.iter().find(|actor| actor.name == name).ok_or_else(|| unknown(name))
    }

    pub(super) fn actors(&self) -> &[Actor] {
        &self.actors
    }

    fn actor_mut(&mut self, name: &str) -> Result<&mut Actor, DemoError> {
        self.actors.iter_mut().find(|actor| actor.name == name).ok_or_else(|| unknown(name))
    }

    /// Those that ended though nobody told them to, with how they ended and the end of their log.
    pub(super) fn fallen(&mut self) -> Vec<(String, ExitStatus, Vec<String>)> {
        let mut fallen = Vec::new();
        for actor in &mut self.actors {
            if let Some(running) = &mut actor.running
                && let Ok(Some(status)) = running.child.try_wait()
            {
                fallen.push((actor.name.clone(), status, tail(&actor.log)));
            }
        }
        fallen
    }

    /// Ends every process, the last started first: SIGTERM, and SIGKILL for those that do not listen.
    pub(super) async fn end(&mut self) {
        while let Some(mut actor) = self.actors.pop() {
            let Some(mut running) = actor.running.take() else {
                continue;
            };
            let pid = running.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid {
                // It may have ended by itself meanwhile; the wait below is what counts.
                let _ = kill_process(pid, Signal::TERM);
            }
            if tokio::time::timeout(END_MAX, running.child.wait()).await.is_err() {
                tracing::warn!(name = actor.name, "does not end: killed");
                let _ = running.child.kill().await;
            }
        }
    }
}

fn unknown(name: &str) -> DemoError {
    DemoError::Process { name: name.to_owned(), source: std::io::Error::other("there is no such process") }
}

async fn spawn(
    program: &Path,
    name: &str,
    part: &Part,
    listen: SocketAddr,
    log: &Path,
) -> Result<(Running, SocketAddr), DemoError> {
    let failed = |source| DemoError::Process { name: name.to_owned(), source };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(part.args(listen))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(file.try_clone().map_err(failed)?)
        .process_group(0)
        .kill_on_drop(true);
    // The story is the same on every machine: settings of a coordinator that runs elsewhere stay out.
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("BACKSTOP_") {
            command.env_remove(key);
        }
    }
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    let address = match child.stdout.take() {
        Some(stdout) => announced(stdout, tokio::fs::File::from_std(file)),
        None => return Err(failed(std::io::Error::other("it has no standard output"))),
    };
    let not_ready =
        |why: String| DemoError::NotReady { name: name.to_owned(), why, log: tail(log).join("\n") };
    let ready = tokio::time::timeout(READY_MAX, address).await;
    match ready {
        Ok(Ok(address)) => Ok((Running { child, _stdin: stdin }, address)),
        Ok(Err(_)) => {
            let status = child.wait().await.map_err(failed)?;
            Err(not_ready(format!("it ended ({status})")))
        }
        Err(_) => {
            child.kill().await.map_err(failed)?;
            Err(not_ready(format!("it did not listen within {} s", READY_MAX.as_secs())))
        }
    }
}

/// Copies a child's standard output to its log for as long as it lasts; the first address that it announces
/// comes out here. The receiver errs if the child ends without one.
fn announced(stdout: ChildStdout, mut log: tokio::fs::File) -> oneshot::Receiver<SocketAddr> {
    let (sender, receiver) = oneshot::channel();
    let mut sender = Some(sender);
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let address = line.strip_prefix(LISTENING).and_then(|text| text.trim().parse().ok());
            if let Some(address) = address
                && let Some(sender) = sender.take()
            {
                // Nobody waits any more if the story has broken off.
                let _ = sender.send(address);
            }
            // A full disk must not stop the child: it would block on a pipe that nobody reads.
            let _ = log.write_all(format!("{line}\n").as_bytes()).await;
        }
    });
    receiver
}

fn tail(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}
