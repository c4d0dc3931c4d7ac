//! `backstop participant`: the services that take part in sagas.

use super::conformance::Conformance;
use super::connect::{Connection, pages};
use super::error::CliError;
use super::out::{Paint, Style};
use super::text::{Cell, field, parse_duration, safe, short, table, time, to_wire};
use super::{Exit, Session};
use backstop_proto::v1::{self, BreakerState, Participant};
use std::time::Duration;

/// What can be done with participants.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Registers a participant, or replaces its registration
    #[command(
        after_help = "Example:\n  backstop participant register ledger --endpoint http://10.0.0.7:50051 --deduplicates-by-key"
    )]
    Register(Register),
    /// Lists participants with the state of their circuit breakers
    #[command(after_help = "Example:\n  backstop participant list")]
    List,
    /// Shows a participant
    #[command(after_help = "Example:\n  backstop participant show ledger")]
    Show {
        /// Its name
        name: String,
    },
    /// Calls a service as Backstop does, twice, late and after its own undoing, and says what it may not do;
    /// 1 if it fails
    ///
    /// It books and undoes: use an account that nobody else uses meanwhile. It needs no Backstop server.
    #[command(
        after_help = "Example:\n  backstop participant check http://127.0.0.1:50051 \\\n    --action bank.Ledger/Debit --action-request '{\"account\": \"test\", \"amount_minor\": \"7\", \"transfer_id\": \"${saga.id}\"}' \\\n    --compensation bank.Ledger/ReverseDebit --compensation-request '{\"transfer_id\": \"${saga.id}\"}' \\\n    --read bank.Ledger/GetAccount --read-request '{\"account\": \"test\"}' --read-path available_minor"
    )]
    Check(Box<Conformance>),
}

/// `participant register`.
#[derive(Debug, clap::Args)]
pub(crate) struct Register {
    /// Its name, which definitions use
    name: String,
    /// Where it listens; may be given several times
    #[arg(long = "endpoint", value_name = "URL", required = true, num_args = 1..)]
    endpoints: Vec<String>,
    /// It gives every attempt with one idempotency key the same answer, refusals included; only then is
    /// an action in doubt sent again
    #[arg(long)]
    deduplicates_by_key: bool,
    /// It implements backstop.participant.v1.RollbackListenerService
    #[arg(long)]
    rollback_listener: bool,
    /// Most calls in flight to it from one coordinator [default: the coordinator's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    in_flight_max: Option<u32>,
    /// Interval of keepalive pings while calls are in flight [default: 5m, the least that most gRPC
    /// servers bear]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keepalive: Option<Duration>,
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        if let Self::Check(check) = self {
            return check.run(session).await;
        }
        let connection = session.open().await?;
        match self {
            Self::Check(_) => {}
            Self::Register(register) => register.run(session, &connection).await?,
            Self::List => list(session, &connection).await?,
            Self::Show { name } => {
                let request = v1::GetParticipantRequest { name };
                let answer = connection.call(connection.participants().get_participant(request)).await?;
                let participant = answer.participant.clone().unwrap_or_default();
                session.show("backstop.v1.GetParticipantResponse", &answer, |_| head(&participant))?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Register {
    async fn run(self, session: &mut Session<'_>, connection: &Connection) -> Result<(), CliError> {
        let participant = Participant {
            name: self.name,
            endpoints: self.endpoints,
            deduplicates_by_key: self.deduplicates_by_key,
            rollback_listener: self.rollback_listener,
            in_flight_max: self.in_flight_max.unwrap_or(0),
            keepalive_interval: self.keepalive.map(to_wire),
            ..Participant::default()
        };
        let request = v1::RegisterParticipantRequest { participant: Some(participant) };
        let answer = connection.call(connection.participants().register_participant(request)).await?;
        let name = answer.participant.as_ref().map(|stored| stored.name.clone()).unwrap_or_default();
        session.show("backstop.v1.RegisterParticipantResponse", &answer, |_| {
            format!("participant {} is registered", safe(&name))
        })
    }
}

async fn list(session: &mut Session<'_>, connection: &Connection) -> Result<(), CliError> {
    let (participants, next_page_token) = pages(None, |page_size, page_token| async move {
        let request = v1::ListParticipantsRequest { page_size, page_token };
        let answer = connection.call(connection.participants().list_participants(request)).await?;
        Ok((answer.participants, answer.next_page_token))
    })
    .await?;
    let all = v1::ListParticipantsResponse { participants, next_page_token };
    session.show("backstop.v1.ListParticipantsResponse", &all, |paint| overview(&all.participants, paint))
}

fn overview(participants: &[Participant], paint: Paint) -> String {
    let rows = participants
        .iter()
        .map(|participant| {
            let style = match participant.breaker_state() {
                BreakerState::Open => Style::Bad,
                BreakerState::Closed => Style::Good,
                BreakerState::Unspecified => Style::Plain,
            };
            [
                Cell::from(participant.name.as_str()),
                Cell::styled(breaker(participant), style),
                Cell::from(participant.in_flight.to_string()),
                Cell::from(if participant.deduplicates_by_key { "yes" } else { "no" }),
                Cell::from(if participant.rollback_listener { "yes" } else { "no" }),
                Cell::from(participant.endpoints.join(" ")),
            ]
        })
        .collect();
    table(["NAME", "BREAKER", "IN FLIGHT", "DEDUPLICATES", "LISTENS", "ENDPOINTS"], rows, paint)
}

fn breaker(participant: &Participant) -> &'static str {
    short(participant.breaker_state().as_str_name(), "BREAKER_STATE_")
}

fn head(participant: &Participant) -> String {
    let in_flight_max = match participant.in_flight_max {
        0 => "the coordinator's default".to_owned(),
        max => max.to_string(),
    };
    let keepalive = participant.keepalive_interval.as_ref().map(ToString::to_string).unwrap_or_default();
    [
        field("name", &safe(&participant.name)),
        field("endpoints", &safe(&participant.endpoints.join("  "))),
        field(
            "repeats",
            if participant.deduplicates_by_key { "deduplicated by key" } else { "not deduplicated" },
        ),
        field("rollbacks", if participant.rollback_listener { "listens" } else { "does not listen" }),
        field("in flight", &format!("{} (at most {in_flight_max})", participant.in_flight)),
        field("keepalive", &keepalive),
        field("breaker", breaker(participant)),
        field("registered", &time(participant.update_time.as_ref())),
    ]
    .concat()
}
