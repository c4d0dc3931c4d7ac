//! The peers' programs: where they lie, and how one is run that knows nothing of our ways.

use crate::bench::ground::pid;
use crate::bench::system::Group;
use crate::process::{Plan, Process};
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `cargo xtask peers` has put ready.
#[derive(Debug)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// In the folder given, else where the chore puts them: below the target directory that this program was built in.
    ///
    /// # Errors
    /// If it is not known where this program lies.
    pub(super) fn find(folder: Option<&Path>) -> Result<Self> {
        if let Some(folder) = folder {
            return Ok(Self(folder.to_owned()));
        }
        let this = std::env::current_exe()?;
        let target = this.parent().and_then(Path::parent).context("a target directory")?;
        Ok(Self(target.join("xtask/peers/bin")))
    }

    /// One file of them.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn file(&self, name: &str) -> Result<PathBuf> {
        let file = self.0.join(name);
        if !file.is_file() {
            bail!("no {} (`cargo xtask peers` puts it there)", file.display());
        }
        Ok(file)
    }

    /// One that takes `--listen` and says where it listens.
    ///
    /// # Errors
    /// If it is not there, or does not come up.
    pub(super) async fn run(
        &self,
        name: &str,
        arguments: Vec<String>,
        settings: Vec<(&str, String)>,
    ) -> Result<Process> {
        started(
            name,
            Plan { program: self.file(name)?, arguments, settings: owned(settings), listener: mute() },
        )
        .await
    }

    /// One that is told its ports by its settings: a shell says where it will listen and becomes it. It may take a
    /// while until somebody answers there.
    ///
    /// # Errors
    /// If it is not there, or is gone at once.
    pub(super) async fn run_foreign(
        &self,
        name: &str,
        address: SocketAddr,
        settings: Vec<(&str, String)>,
    ) -> Result<Process> {
        let file = self.file(name)?;
        let arguments = vec![
            "-c".to_owned(),
            format!("echo listening {address}; exec \"$0\""),
            file.display().to_string(),
        ];
        let plan = Plan { program: "sh".into(), arguments, settings: owned(settings), listener: mute() };
        started(name, plan).await
    }
}

async fn started(name: &str, plan: Plan) -> Result<Process> {
    let process = Process::new(name, plan);
    process.start().await?;
    Ok(process)
}

fn owned(settings: Vec<(&str, String)>) -> Vec<(String, String)> {
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn mute() -> crate::process::Listener {
    Arc::new(|_| false)
}

/// As many ports as asked for that nobody has now.
///
/// # Errors
/// If the machine has none left.
pub(super) fn free_ports<const COUNT: usize>() -> Result<[SocketAddr; COUNT]> {
    let mut held = Vec::new();
    for _ in 0..COUNT {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let addresses = held.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    addresses.try_into().ok().context("as many addresses as listeners")
}

/// A process of a peer's, for the report.
///
/// # Errors
/// If it does not run.
pub(super) async fn group(name: &str, process: &Process) -> Result<Group> {
    Ok(Group { name: name.to_owned(), roots: vec![pid(process).await?], with_children: false })
}
