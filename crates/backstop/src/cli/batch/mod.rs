//! One word of a person to many sagas: found by filter, shown, counted, agreed to, and carried out one by one.
//!
//! Way: the verb (`cancel`, `branch`) finds the targets and makes a [`Plan`]; [`run`] shows it, asks, and carries it
//! out through the very RPCs that the single forms use.
//!
//! # Invariants
//! * The set is fixed when it is listed: what comes later is not swept up.
//! * Nothing is done before its number has been agreed to: typed on a terminal, or `--yes COUNT`, which must be the
//!   number found (`a_wrong_count_does_nothing`).
//! * One refusal does not end it; a server that is gone does, after [`SILENT_MAX`] silences in a row.
//! * Ctrl-C ends it after the present one, and what was not tried is said
//!   (`an_interrupt_ends_it_after_the_present_one`).
//!
//! # Not here
//! Which sagas: the verbs. Whether a word may be said of a saga: the server.

mod order;
mod plan;

pub(super) use order::{Order, Word};
pub(super) use plan::{Plan, Target};

use super::connect::Connection;
use super::error::CliError;
use super::{Exit, Session, json};
use plan::{Outcome, Report};
use std::future::Future;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Silences in a row, no answer at all, after which the rest is not tried.
const SILENT_MAX: usize = 5;

/// How a batch is carried out.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BatchArgs {
    /// Show what would be done, and do nothing
    #[arg(long, help_heading = "Many at once")]
    dry_run: bool,
    /// Do it without asking, if exactly so many are found: for scripts
    #[arg(long, value_name = "COUNT", help_heading = "Many at once")]
    yes: Option<usize>,
    /// Most sagas to take; if more fit, it is said
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Many at once")]
    limit: u32,
    /// How many a second, at most
    #[arg(long, value_name = "PER_SECOND", default_value_t = 10.0, value_parser = parse_rate, help_heading = "Many at once")]
    rate: f64,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=1_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("say a number from 0.01 to 1000".to_owned()),
    }
}

impl BatchArgs {
    /// Most sagas to take.
    pub(super) fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    fn pause(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate)
    }
}

/// Shows the plan, asks, carries it out and tells how each ended.
pub(super) async fn run(
    session: &mut Session<'_>,
    connection: &Connection,
    order: &Order,
    plan: Plan,
    args: &BatchArgs,
) -> Result<Exit, CliError> {
    let is_json = session.connect.json;
    if !is_json {
        session.terminal.print(&plan.table(session.terminal.paint))?;
    }
    if args.dry_run {
        let report = Report::untouched(plan);
        if is_json {
            session.terminal.print(&json::document(&report.document(order, true)))?;
        } else {
            session.terminal.note("dry run: nothing was done")?;
        }
        return Ok(Exit::Done);
    }
    agree(session, &plan, args.yes)?;
    let report = carry_out(session, connection, order, plan, args.pause(), interrupted()).await?;
    let shown = if is_json {
        json::document(&report.document(order, false))
    } else {
        report.summary(session.terminal.paint)
    };
    session.terminal.print(&shown)?;
    Ok(if report.is_all_well() { Exit::Done } else { Exit::Failed })
}

/// Has the number agreed to.
fn agree(session: &mut Session<'_>, plan: &Plan, yes: Option<usize>) -> Result<(), CliError> {
    let count = plan.targets.len();
    let said = match yes {
        Some(yes) => Some(yes),
        None if count == 0 => return Ok(()),
        None => {
            let question = format!("Type {count} to do it, anything else to leave it: ");
            session.terminal.ask(&question)?.map(|answer| answer.trim().parse().unwrap_or(usize::MAX))
        }
    };
    match said {
        Some(said) if said == count => Ok(()),
        Some(said) if yes.is_some() => {
            Err(CliError::Unfit(format!("--yes {said}, but {} found: nothing was done", plan.counted())))
        }
        Some(_) => Err(CliError::Unfit("not agreed to: nothing was done".to_owned())),
        None => Err(CliError::Unfit(format!(
            "nobody is there to ask: nothing was done; --yes {count} does it, --dry-run shows it"
        ))),
    }
}

/// Resolves on Ctrl-C; never if it cannot be heard.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Carries it out, one after the other.
async fn carry_out(
    session: &mut Session<'_>,
    connection: &Connection,
    order: &Order,
    plan: Plan,
    pause: Duration,
    interrupt: impl Future<Output = ()>,
) -> Result<Report, CliError> {
    let mut report = Report::untouched(plan);
    let mut due = tokio::time::interval(pause);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = std::pin::pin!(interrupt);
    let (mut is_interrupted, mut silent) = (false, 0);
    for place in 0..report.targets.len() {
        tokio::select! {
            biased;
            () = &mut interrupt, if !is_interrupted => is_interrupted = true,
            _now = due.tick() => {}
        }
        if is_interrupted {
            break;
        }
        let target = report.targets[place].target.clone();
        let mut present = std::pin::pin!(order.carry_out(connection, &target));
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut present => break outcome,
                () = &mut interrupt, if !is_interrupted => {
                    is_interrupted = true;
                    session.terminal.note("stopping after the present one …")?;
                }
            }
        };
        silent = if matches!(outcome, Outcome::Silent(_)) { silent + 1 } else { 0 };
        report.targets[place].outcome = outcome;
        session.terminal.progress(&report.progress(place + 1))?;
        if silent >= SILENT_MAX || is_interrupted {
            break;
        }
    }
    session.terminal.progress_done()?;
    if is_interrupted {
        session.terminal.note(&report.how_far())?;
    } else if silent >= SILENT_MAX {
        session.terminal.note("the server does not answer any more: the rest was not tried")?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
