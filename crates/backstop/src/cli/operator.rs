//! `backstop coordinator list`, `backstop doctor`, `backstop error-table`: what operators look at.

use super::error::CliError;
use super::out::{Paint, Style};
use super::text::{Cell, safe, short, table, time};
use super::{Exit, Session};
use backstop_proto::v1::{self, Tier};
use std::time::Duration;

/// What can be done with coordinators.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum CoordinatorVerb {
    /// Lists the coordinators of the store with their leases
    #[command(after_help = "Example:\n  backstop coordinator list")]
    List,
}

/// `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Replay the journal of every saga, and not only those of the newest ones
    #[arg(long)]
    full: bool,
    /// How many journals to replay without --full [default: 1000]
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        hide_default_value = true,
        conflicts_with = "full"
    )]
    sample: i32,
}

/// Longest time that a full run of the doctor is waited for.
const DOCTOR_TAKES_MAX: Duration = Duration::from_secs(24 * 3600);

/// `error-table`.
#[derive(Debug, clap::Args)]
pub(crate) struct ErrorTable {
    /// The error domain [default: the table that holds where no domain is named]
    #[arg(default_value = "", hide_default_value = true)]
    domain: String,
}

impl CoordinatorVerb {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        match self {
            Self::List => {
                let connection = session.open().await?;
                let request = v1::ListCoordinatorsRequest {};
                let answer = connection.call(connection.operators().list_coordinators(request)).await?;
                session.show("backstop.v1.ListCoordinatorsResponse", &answer, |paint| {
                    coordinators(&answer, paint)
                })?;
                Ok(Exit::Done)
            }
        }
    }
}

fn coordinators(answer: &v1::ListCoordinatorsResponse, paint: Paint) -> String {
    let rows = answer
        .coordinators
        .iter()
        .map(|coordinator| {
            let lease = if coordinator.expired {
                Cell::styled("expired", Style::Bad)
            } else if coordinator.draining {
                Cell::styled("draining", Style::Warn)
            } else {
                Cell::styled("held", Style::Good)
            };
            [
                Cell::from(coordinator.id.as_str()),
                Cell::from(coordinator.address.as_str()),
                lease,
                Cell::from(time(coordinator.lease_expire_time.as_ref())),
                Cell::from(time(coordinator.start_time.as_ref())),
            ]
        })
        .collect();
    table(["ID", "ADDRESS", "LEASE", "UNTIL", "STARTED"], rows, paint)
}

impl Doctor {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let connection = session.open().await?;
        let request = v1::RunDoctorRequest { full: self.full, sample: self.sample };
        // A full run takes as long as the store is large.
        let answer =
            connection.call_waiting(DOCTOR_TAKES_MAX, connection.operators().run_doctor(request)).await?;
        session.show("backstop.v1.RunDoctorResponse", &answer, |paint| findings(&answer, paint))?;
        Ok(if answer.findings.is_empty() { Exit::Done } else { Exit::Failed })
    }
}

fn findings(answer: &v1::RunDoctorResponse, paint: Paint) -> String {
    let replayed = format!("{} journals replayed", answer.journals_replayed);
    if answer.findings.is_empty() {
        return format!("nothing found; {replayed}");
    }
    let rows = answer.findings.iter().map(|finding| {
        let kind = short(finding.kind().as_str_name(), "KIND_").to_ascii_lowercase().replace('_', " ");
        [
            Cell::styled(kind, Style::Bad),
            Cell::from(finding.subject.as_str()),
            Cell::from(finding.detail.as_str()),
        ]
    });
    let more = if answer.truncated { "\nthere may be more" } else { "" };
    let table = table(["FINDING", "ABOUT", "DETAIL"], rows.collect(), paint);
    format!("{table}\n{} found; {replayed}{more}", answer.findings.len())
}

impl ErrorTable {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let connection = session.open().await?;
        let request = v1::GetErrorTableRequest { domain: self.domain };
        let answer = connection.call(connection.operators().get_error_table(request)).await?;
        session.show("backstop.v1.GetErrorTableResponse", &answer, |paint| rows(&answer, paint))?;
        Ok(Exit::Done)
    }
}

fn rows(answer: &v1::GetErrorTableResponse, paint: Paint) -> String {
    let rows = answer
        .rows
        .iter()
        .map(|row| {
            let effect = short(row.effect().as_str_name(), "EFFECT_").to_ascii_lowercase().replace('_', " ");
            [
                Cell::from(row.grpc_code.as_str()),
                Cell::from(effect),
                Cell::from(row.fin_code.as_str()),
                Cell::styled(short(row.tier().as_str_name(), "TIER_"), tier_style(row.tier())),
                Cell::from(row.http_status.to_string()),
                Cell::from(if row.retried { "yes" } else { "no" }),
                Cell::from(if row.overridden { "configured" } else { "default" }),
            ]
        })
        .collect();
    let domain =
        if answer.domain.is_empty() { String::new() } else { format!("domain {}\n", safe(&answer.domain)) };
    domain + &table(["STATUS", "EFFECT", "FIN CODE", "TIER", "HTTP", "RETRIED", "ROW"], rows, paint)
}

/// How loud a tier is, in colour.
pub(super) fn tier_style(tier: Tier) -> Style {
    match tier {
        Tier::L1 => Style::Bad,
        Tier::L2 => Style::Warn,
        Tier::L3 | Tier::Unspecified => Style::Plain,
    }
}
