//! `backstop participant check`: is a service safe to be called twice, late, and after its own undoing?
//!
//! It judges by what a caller sees: replies, statuses, and, if a method shows it, a number that the action
//! changes. So it judges anybody's service, in whatever language, against `docs/participant-contract.md`.
//!
//! Way of a run: `plan` (flags, message types, requests) → `checks`, each with a `case` (a saga of its own, all
//! that was said) → `report`.
//!
//! # Invariants
//! * It fails a service that executes twice, and names what it did twice (`blackbox/conformance.rs`).
//! * Whatever a check has booked it compensates at its end; the next begins with a new saga.
//!
//! # Not here
//! What a coordinator does with such answers: the core.

mod case;
mod checks;
mod peer;
mod plan;
mod report;

use super::error::CliError;
use super::{Exit, Session};
use checks::Check;
use peer::Peer;
use plan::Plan;
use report::{Report, Verdict};
use std::time::Duration;

/// `participant check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Conformance {
    /// The service: http://HOST:PORT, or https://… for TLS
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// The action's method: PACKAGE.SERVICE/METHOD
    #[arg(long, value_name = "METHOD")]
    action: String,
    /// A request that the action carries out, as JSON; `${saga.id}` stands for an id that is new each time
    #[arg(long, value_name = "JSON")]
    action_request: String,
    /// The compensation's method
    #[arg(long, value_name = "METHOD")]
    compensation: String,
    /// Its request; `${response.FIELD}` stands for a field of the action's reply
    #[arg(long, value_name = "JSON")]
    compensation_request: String,
    /// The method that tells whether the action took effect
    #[arg(long, value_name = "METHOD", requires = "query_request")]
    query: Option<String>,
    /// Its request
    #[arg(long, value_name = "JSON", requires = "query")]
    query_request: Option<String>,
    /// A request that the action must refuse, for a business reason
    #[arg(long, value_name = "JSON")]
    refused_request: Option<String>,
    /// Another request that the action would carry out, to come under a key that is taken
    #[arg(long, value_name = "JSON")]
    other_request: Option<String>,
    /// A method that shows a number which the action changes, so that effects are judged and not replies alone
    #[arg(long, value_name = "METHOD", requires = "read_request", requires = "read_path")]
    read: Option<String>,
    /// Its request
    #[arg(long, value_name = "JSON", requires = "read")]
    read_request: Option<String>,
    /// Where the number is in its reply: FIELD, FIELD.FIELD, FIELD.0.FIELD
    #[arg(long, value_name = "PATH", requires = "read")]
    read_path: Option<String>,
    /// Message types of a service without reflection: a FileDescriptorSet, dependencies included
    #[arg(long, value_name = "FILE")]
    descriptors: Option<String>,
}

impl Conformance {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let peer = Peer::connect(&self.address, session.connect.timeout).await?;
        let plan = Plan::make(&self, &peer).await?;
        let run = uuid::Uuid::now_v7().simple().to_string();
        let mut report = Report::new(&self, &run);
        let mut suite = Suite { peer, plan, run, unit: None };
        let mut is_usable = true;
        for check in Check::ALL {
            let outcome = if is_usable {
                checks::run(&mut suite, check).await
            } else {
                report::Outcome::skipped("the action itself does not work: see the first check")
            };
            is_usable &= check != Check::MetadataAccepted || outcome.verdict == Verdict::Pass;
            report.push(check, outcome);
        }
        let shown = if session.connect.json { report.json() } else { report.text(session.terminal.paint) };
        session.terminal.print(&shown)?;
        Ok(if report.has_failures() { Exit::Failed } else { Exit::Done })
    }
}

/// What all checks share.
struct Suite {
    peer: Peer,
    plan: Plan,
    /// Keeps this run's sagas apart from any other's.
    run: String,
    /// By how much one action moves the number that is read; known after the first check.
    unit: Option<i128>,
}

/// Calls that are sent at the same moment.
const AT_ONCE: usize = 8;
/// Rounds of an action against its compensation.
const RACES: usize = 6;
/// Attempts after an answer that asks for another.
const ATTEMPTS_MAX: u32 = 40;
/// The pause before each.
const PAUSE: Duration = Duration::from_millis(50);
