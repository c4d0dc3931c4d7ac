//! One `backstop serve` as a process, and what its `/metrics` says.

use crate::process::{Plan as ProcessPlan, Process, eventually};
use crate::vitals;
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for the line that names the metrics' address.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a coordinator is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `backstop` binary.
    pub program: PathBuf,
    /// The store's URL, through this coordinator's own wire.
    pub store: String,
    /// More settings for its environment.
    pub settings: Vec<(String, String)>,
}

/// A coordinator, running or not.
#[derive(Debug)]
pub struct Coordinator {
    process: Process,
    /// Of the process that runs now.
    metrics: Arc<Mutex<Option<SocketAddr>>>,
}

/// What every process can.
impl Deref for Coordinator {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Coordinator {
    /// One that is not running yet.
    #[must_use]
    pub fn new(name: &str, plan: Plan) -> Self {
        let metrics = Arc::<Mutex<Option<SocketAddr>>>::default();
        let found = Arc::clone(&metrics);
        let arguments = ["serve", "--store", &plan.store, "--metrics-listen", "127.0.0.1:0"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push("--stop-at-stdin-end".to_owned());
        let plan = ProcessPlan {
            program: plan.program,
            arguments,
            settings: plan.settings,
            listener: Arc::new(move |line| {
                if let Some(address) = metrics_address(line) {
                    *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                }
                false
            }),
        };
        Self { process: Process::new(name, plan), metrics }
    }

    /// Starts it; on its old address if it has one.
    ///
    /// # Errors
    /// If it runs already, or does not come up; with the end of its log.
    pub async fn start(&self) -> Result<()> {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.process.start().await?;
        let found = || async { Ok(self.metrics_address()) };
        eventually("the metrics' address", PATIENCE, found).await.map(|_| ())
    }

    fn metrics_address(&self) -> Option<SocketAddr> {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sum over all series of a counter of its `/metrics`; 0 if there is none.
    ///
    /// # Errors
    /// If it does not run or does not answer.
    pub async fn counter(&self, name: &str) -> Result<f64> {
        // Asked for first: what ran before may have left its address.
        self.process.pid().await?;
        let metrics = self.metrics_address().context("it has not said where its metrics are")?;
        Ok(vitals::sum_of(&vitals::metrics(metrics).await?, name))
    }
}

fn metrics_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("metrics")?;
    let (_, rest) = rest.split_once("127.0.0.1:")?;
    let port = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The `backstop` binary: the one named, or the one beside this program.
///
/// # Errors
/// If it is not there; says how to build it.
pub fn program(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("backstop"),
    };
    if !path.is_file() {
        bail!(
            "no backstop at {}: build it with `cargo build -p backstop` (add --release for a release range), \
             or name it with --backstop PATH",
            path.display()
        );
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_metrics_address_is_read_off_the_log() {
        let line = "2026-11-26T11:00:00Z  INFO backstop::serve: metrics address=127.0.0.1:4321";
        assert_eq!(super::metrics_address(line), Some("127.0.0.1:4321".parse().unwrap()));
        assert_eq!(super::metrics_address("listening 127.0.0.1:1"), None);
    }
}
