//! The story that `backstop demo` tells: a bank starts, transfers run, some are undone, a coordinator is
//! killed, and the money adds up.
//!
//! # Invariants
//! - The story knows only what anybody could ask over gRPC.
//! - How a transfer must end stands in the transfers file, not here; the demo fails if one ends otherwise,
//!   or if a balance is not what the transfers' ends say.
//! - No process is left behind.
//!
//! # Not here
//! The command line; reading the definition's YAML: the `backstop` binary.

mod act_crash;
mod act_transfers;
mod calls;
mod cast;
mod csv;
pub mod files;
mod next_steps;
mod opening;
mod proof;
mod screen;
mod stage;

pub(crate) use stage::LEDGERS;

pub use screen::Screen;

use cast::Cast;
use files::FileError;
use screen::{Ink, one_line};
use stage::{Files, Stage};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// How the demo is to run.
pub struct DemoOptions {
    /// The program that each process is a child of, usually `std::env::current_exe()`. It must know
    /// `serve --store URL --listen ADDRESS`, which prints `listening ADDRESS` on standard output once it is
    /// ready, and `demo-service ARGS`, which calls [`crate::run_service`] with what
    /// [`crate::ServiceSpec::from_args`] reads.
    pub program: PathBuf,
    /// More arguments for `serve`, after the store and the address. Its standard input ends when the demo is
    /// gone: see [`crate::service::stdin_end`].
    pub serve_args: Vec<OsString>,
    /// The definition that transfers run, as read from [`files::DEFINITION_YAML`] or another file.
    pub definition: backstop_proto::v1::Definition,
    /// Where files and logs go; must be empty or not there yet. `None`: a temporary directory, which is
    /// removed after a demo that held.
    pub dir: Option<PathBuf>,
    /// Another transfers file than [`files::TRANSFERS_CSV`].
    pub transfers: Option<PathBuf>,
    /// Another accounts file than [`files::ACCOUNTS_CSV`].
    pub accounts: Option<PathBuf>,
    /// End after the last act instead of staying up until Ctrl-C.
    pub exit: bool,
    /// Where the story is told.
    pub screen: Screen,
}

/// Why the demo broke off, or did not hold.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Told to end (Ctrl-C, SIGTERM, SIGHUP) before the story was over.
    #[error("interrupted")]
    Interrupted,
    /// What did not end as it must, or does not add up; one sentence each.
    #[error("the demo did not hold: {}", .0.join("; "))]
    DidNotHold(Vec<String>),
    /// A file of the story is not sound.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the story cannot be read, or the directory cannot be used.
    #[error("{path} cannot be used")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory holds something already.
    #[error("{0} is not empty: name another directory, or remove it")]
    NotEmpty(PathBuf),
    /// A process cannot be started or ended.
    #[error("{name} cannot be started or ended")]
    Process {
        /// Which.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A process was started and did not get ready.
    #[error("{name} is not ready: {why}\n{log}")]
    NotReady {
        /// Which.
        name: String,
        /// Why.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// An address that was announced is none.
    #[error("an address cannot be used")]
    Address(#[source] tonic::transport::Error),
    /// A call failed.
    #[error("{what} failed: {} {}", .status.code(), one_line(.status.message()))]
    Call {
        /// The method.
        what: &'static str,
        /// How.
        status: Box<tonic::Status>,
    },
    /// A call or a saga took too long.
    #[error("{what} was not done within {seconds} s")]
    Late {
        /// What.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The story can no longer be written out, or a signal handler cannot be set.
    #[error("output failed")]
    Output(#[from] std::io::Error),
}

/// Tells the whole story. Every process that it started has ended when this returns.
///
/// # Errors
/// [`DemoError`]; [`DemoError::DidNotHold`] names everything that did not.
pub async fn run_demo(options: DemoOptions) -> Result<(), DemoError> {
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut told_to_end = Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    // Before anything is made: a file that is not sound leaves nothing behind.
    let files = Files::read(&options)?;
    let given_dir = options.dir.clone();
    let dir = match &given_dir {
        Some(dir) => prepared(dir)?,
        None => temporary()?,
    };
    let (program, exit) = (options.program.clone(), options.exit);
    let mut stage = Stage::new(options, files, Cast::new(program, &dir), &dir);
    let mut told = tokio::select! {
        told = story(&mut stage, exit) => told,
        () = &mut told_to_end => Err(DemoError::Interrupted),
    };
    if told.is_ok() && !exit {
        told_to_end.await;
        told = stage.screen.line("\nEnding.").map_err(DemoError::from);
    }
    if told.is_err() {
        report_fallen(&mut stage)?;
    }
    stage.cast.end().await;
    match (&told, &given_dir) {
        (Ok(()), None) => remove(&dir)?,
        (Ok(()), Some(_)) => {}
        (Err(_), _) => {
            let line = format!("\nFiles and logs stay in {}", dir.display());
            stage.screen.line(&line)?;
        }
    }
    told
}

async fn story(stage: &mut Stage, exit: bool) -> Result<(), DemoError> {
    opening::play(stage).await?;
    act_transfers::play(stage).await?;
    stage.prove_all("The books").await?;
    act_crash::play(stage).await?;
    stage.prove_all("The books after the crash").await?;
    stage.verdict()?;
    next_steps::show(stage, exit)?;
    Ok(())
}

fn report_fallen(stage: &mut Stage) -> Result<(), DemoError> {
    for (name, status, log) in stage.cast.fallen() {
        let text = format!("\n{name} has ended by itself ({status}); the end of its log:");
        let text = stage.screen.ink(Ink::Bad, &text);
        stage.screen.line(&text)?;
        for line in log {
            stage.screen.line(&format!("  {}", one_line(&line)))?;
        }
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> DemoError + use<'_> {
    move |source| DemoError::Path { path: path.to_owned(), source }
}

fn prepared(dir: &Path) -> Result<PathBuf, DemoError> {
    std::fs::create_dir_all(dir).map_err(at(dir))?;
    if std::fs::read_dir(dir).map_err(at(dir))?.next().is_some() {
        return Err(DemoError::NotEmpty(dir.to_owned()));
    }
    // Children may not share the working directory of a later reader.
    std::path::absolute(dir).map_err(at(dir))
}

fn temporary() -> Result<PathBuf, DemoError> {
    let mut number = 0_u32;
    loop {
        let dir = std::env::temp_dir().join(format!("backstop-demo-{}-{number}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(at(&dir)(error)),
        }
    }
}

fn remove(dir: &Path) -> Result<(), DemoError> {
    std::fs::remove_dir_all(dir).map_err(at(dir))
}
