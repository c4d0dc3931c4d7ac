//! The processes of the stack: started with a log each, ended by their ids, last started first.
//!
//! # Invariants
//! * What was started is ended when the value is dropped: asked first, killed after [`ENDS_MAX`].
//! * A process that has ended by itself is found out while it is waited for, and its log's end is shown.

use crate::process::{command, run};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end once it is asked to.
const ENDS_MAX: Duration = Duration::from_secs(15);
/// How long a part may take to answer for the first time.
const READY_MAX: Duration = Duration::from_secs(60);
/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines of a log that are shown when its process has failed.
const LINES_SHOWN: usize = 15;

#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Processes {
    logs: PathBuf,
    running: Vec<Process>,
    began: Instant,
}

impl Processes {
    pub(super) fn new(logs: &Path) -> Result<Self> {
        std::fs::create_dir_all(logs)?;
        Ok(Self { logs: logs.to_owned(), running: Vec::new(), began: Instant::now() })
    }

    /// A line of the protocol.
    pub(super) fn say(&self, text: &str) {
        println!("{:6.1} s  {text}", self.began.elapsed().as_secs_f64());
    }

    /// Starts one.
    pub(super) fn start(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        self.running.push(Process { name: name.to_owned(), child, log });
        Ok(())
    }

    /// Waits until a part answers as it should.
    pub(super) fn ready(&mut self, name: &str, is_ready: impl Fn() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let answer = is_ready();
            let Err(error) = answer else {
                let id = self.find(name).map_or(0, |process| process.child.id());
                self.say(&format!("{name} is up (pid {id})"));
                return Ok(());
            };
            if let Some(process) = self.find(name)
                && let Some(status) = process.child.try_wait()?
            {
                bail!("{name} has ended: {status}\n{}", end_of(&process.log));
            }
            if Instant::now() > deadline {
                let log = self.find(name).map(|process| end_of(&process.log)).unwrap_or_default();
                bail!("{name} does not get ready: {error:#}\n{log}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Kills one at once, as a power cut would.
    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        let place = self.running.iter().position(|process| process.name == name);
        let mut process = self.running.remove(place.with_context(|| format!("{name} does not run"))?);
        let id = process.child.id();
        process.child.kill()?;
        process.child.wait()?;
        self.say(&format!("kill -9 {id} ({name})"));
        Ok(())
    }

    fn find(&mut self, name: &str) -> Option<&mut Process> {
        self.running.iter_mut().find(|process| process.name == name)
    }

    /// Ends all of them.
    pub(super) fn end(&mut self) {
        while let Some(mut process) = self.running.pop() {
            end(&mut process.child);
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.end();
    }
}

fn end(child: &mut Child) {
    let deadline = Instant::now() + ENDS_MAX;
    // SIGTERM; std knows only SIGKILL. If it cannot be sent, the deadline ends it.
    let _ = run(command("kill").arg(child.id().to_string()).stderr(Stdio::null()));
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

/// Addresses on loopback that nobody listens on, all different.
pub(super) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut listeners = Vec::new();
    for _ in 0..N {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_started_is_ended_and_what_ended_by_itself_says_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut processes = Processes::new(dir.path()).unwrap();
        processes.start("sleeper", command("sleep").arg("1000")).unwrap();
        let id = processes.find("sleeper").unwrap().child.id();
        processes.start("brief", command("sh").args(["-c", "echo last words; exit 3"])).unwrap();
        let said = processes.ready("brief", || bail!("not yet")).unwrap_err().to_string();
        assert!(said.contains("exit status: 3") && said.contains("last words"), "{said}");
        drop(processes);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
