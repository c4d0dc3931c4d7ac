//! `backstop saga watch`: the events of a saga, each once and in order, across broken connections.
//!
//! On a terminal, what the saga waits for stands below them (`live`).
//!
//! Invariant: an event is shown once, though the stream breaks (`a_broken_stream_goes_on_after_the_last_event`).

use super::connect::Connection;
use super::error::CliError;
use super::live::{self, Live};
use super::saga::end_of;
use super::text::{safe, shell_word};
use super::{Exit, Session, json};
use backstop_proto::v1::{self, SagaState, event};
use std::time::Duration;

/// Breaks in a row, without an event between them, after which watching gives up.
const BREAKS_MAX: u32 = 5;
/// Wait before asking again after the first break; doubles with each further one. Tests
/// do not wait.
const BREAK_WAIT_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });

/// Watches until the saga has ended or needs a person.
pub(super) async fn run(session: &mut Session<'_>, saga_id: String, after: u64) -> Result<Exit, CliError> {
    let connection = session.open().await?;
    let has_block = session.terminal.screen().is_terminal && !session.connect.json;
    let live = has_block.then(|| Live::new(&saga_id));
    let mut watch = Watch { connection, saga_id, seq: after, breaks: 0, live };
    let ended = watch.until_over(session).await;
    if let Some(live) = &mut watch.live {
        live.erase(session.terminal)?;
        if let Ok(Exit::NeedsIntervention) = ended {
            let flag = super::saga_show::server_flag(&session.connect.server);
            let id = shell_word(&watch.saga_id);
            session
                .terminal
                .note(&format!("what to do: backstop{flag} saga show {id} --only exposed,next"))?;
        }
    }
    ended
}

struct Watch {
    connection: Connection,
    saga_id: String,
    /// The last event shown.
    seq: u64,
    breaks: u32,
    /// The block below the events, on a terminal.
    live: Option<Live>,
}

impl Watch {
    async fn until_over(&mut self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        loop {
            let ended = match self.stream(session).await {
                Ok(Some(exit)) => return Ok(exit),
                Ok(None) => self.silent_end().await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(Some(exit)) => return Ok(exit),
                Err(error) if self.breaks >= BREAKS_MAX || !is_break(&error) => return Err(error),
                Ok(None) if self.breaks >= BREAKS_MAX => {
                    return Err(CliError::Mapping("the stream of events ends again and again".to_owned()));
                }
                Ok(None) | Err(_) => self.pause().await,
            }
        }
    }

    /// Shows events until the saga is over (its exit code) or the stream ends (`None`).
    async fn stream(&mut self, session: &mut Session<'_>) -> Result<Option<Exit>, CliError> {
        let request = v1::WatchSagaRequest { saga_id: self.saga_id.clone(), after_seq: self.seq };
        let mut stream = self.connection.call(self.connection.sagas().watch_saga(request)).await?;
        loop {
            let next = tokio::select! {
                biased;
                next = stream.message() => next.map_err(|status| self.connection.judge(status))?,
                () = tokio::time::sleep(live::TICK), if self.live.is_some() => {
                    if let Some(live) = &mut self.live {
                        live.tick(&self.connection, session.terminal).await?;
                    }
                    continue;
                }
            };
            let Some(answer) = next else { return Ok(None) };
            let Some(event) = &answer.event else { continue };
            if event.seq <= self.seq {
                continue;
            }
            self.breaks = 0;
            self.seq = event.seq;
            let line = if session.connect.json {
                json::line("backstop.v1.WatchSagaResponse", &answer)?
            } else {
                safe(&event.line)
            };
            match &mut self.live {
                Some(live) => live.event(session.terminal, event, &line)?,
                None => session.terminal.print(&line)?,
            }
            match event.r#type() {
                event::Type::Succeeded => return Ok(Some(Exit::Done)),
                event::Type::RolledBack => return Ok(Some(Exit::RolledBack)),
                // An old intervention may be over: only the last event speaks for the present.
                event::Type::InterventionOpened => {
                    let (state, seq) = self.state().await?;
                    if state == SagaState::NeedsIntervention && seq == self.seq {
                        return Ok(Some(Exit::NeedsIntervention));
                    }
                }
                event::Type::Unspecified
                | event::Type::Started
                | event::Type::Adopted
                | event::Type::Released
                | event::Type::ActionSucceeded
                | event::Type::ActionFailed
                | event::Type::QueryAnswered
                | event::Type::QueryFailed
                | event::Type::RollbackDecided
                | event::Type::CompensationSucceeded
                | event::Type::CompensationFailed
                | event::Type::SignalReported
                | event::Type::BranchRetried
                | event::Type::BranchResolved => {}
            }
        }
    }

    /// What a stream means that ended without a last event: the saga was over before `--after`, or (`None`) there is more
    /// to tell elsewhere. Earlier coordinators end it so when they leave; those of this version say UNAVAILABLE.
    async fn silent_end(&self) -> Result<Option<Exit>, CliError> {
        let (state, seq) = self.state().await?;
        Ok(if seq <= self.seq { end_of(state) } else { None })
    }

    async fn state(&self) -> Result<(SagaState, u64), CliError> {
        let request = v1::GetSagaRequest { saga_id: self.saga_id.clone(), view: v1::SagaView::Basic.into() };
        let answer = self.connection.call(self.connection.sagas().get_saga(request)).await?;
        let saga = answer.saga.unwrap_or_default();
        Ok((saga.state(), saga.seq))
    }

    async fn pause(&mut self) {
        let wait = BREAK_WAIT_MIN * 2_u32.saturating_pow(self.breaks);
        self.breaks += 1;
        tokio::time::sleep(wait).await;
    }
}

/// True for what another attempt may get over.
fn is_break(error: &CliError) -> bool {
    match error {
        CliError::ConnectionLost { .. } => true,
        CliError::Said { status, .. } => status.code() == tonic::Code::Unavailable,
        CliError::TimedOut { .. }
        | CliError::Unreachable { .. }
        | CliError::NoParticipant { .. }
        | CliError::Unfit(_)
        | CliError::Unreadable { .. }
        | CliError::Faults { .. }
        | CliError::BadServer { .. }
        | CliError::Mapping(_)
        | CliError::Output(_) => false,
    }
}
