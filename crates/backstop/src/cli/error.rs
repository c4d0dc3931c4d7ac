//! What can go wrong in a client command, and how it is told.
//!
//! Invariants: a server's error shows its message, code, FIN code, every field violation, the retry delay
//! and the trace id; nothing from outside reaches the terminal raw.
//!
//! Not here: exit codes other than "failed" (`Exit`); outcomes of sagas are no errors.

use super::file::{Fault, Source};
use super::out::{Paint, Style};
use super::text::{counted, duration, safe};
use backstop_core::status::Code;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::time::Duration;
use tonic_types::StatusExt;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A file or standard input cannot be read.
    #[error("{path} cannot be read: {problem}")]
    Unreadable {
        /// As the user gave it.
        path: String,
        /// What the system says.
        problem: String,
    },
    /// A text is not what it should be.
    #[error("{text} has faults")]
    Faults {
        /// The text's name.
        text: String,
        /// All that is wrong.
        faults: Vec<Fault>,
    },
    /// The `--server` is no address.
    #[error("{server} is no address of a server")]
    BadServer {
        /// As the user gave it.
        server: String,
        /// Why.
        problem: String,
    },
    /// No connection could be made.
    #[error("no connection to {server}")]
    Unreachable {
        /// The address.
        server: String,
        /// The innermost reason.
        problem: String,
    },
    /// No connection to a participant could be made.
    #[error("no connection to {address}")]
    NoParticipant {
        /// Its address.
        address: String,
        /// The innermost reason.
        problem: String,
    },
    /// A flag asks for what cannot be.
    #[error("{0}")]
    Unfit(String),
    /// No answer within `--timeout`.
    #[error("no answer from {server}")]
    TimedOut {
        /// The address.
        server: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke after the request had gone out.
    #[error("the connection to {server} was lost")]
    ConnectionLost {
        /// The address.
        server: String,
        /// The innermost reason.
        problem: String,
    },
    /// The server answered with an error.
    #[error("{}", status.message())]
    Said {
        /// Its answer.
        status: Box<tonic::Status>,
        /// The text that was sent, in which field violations are shown.
        source_text: Option<Box<Source>>,
    },
    /// An answer lacks what the contract promises, or cannot be shown.
    #[error("{0}")]
    Mapping(String),
    /// The result could not be written.
    #[error("the result cannot be written")]
    Output(#[from] io::Error),
}

impl CliError {
    /// True if whoever read the output has gone: nobody is left to tell.
    pub(crate) fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// True if the server refused for this reason of its `ErrorInfo`.
    pub(crate) fn is_refused_for(&self, reason: &str) -> bool {
        match self {
            Self::Said { status, .. } => {
                status.get_error_details().error_info().is_some_and(|info| info.reason == reason)
            }
            _ => false,
        }
    }

    /// The error on one line, for a list of many.
    pub(crate) fn in_brief(&self) -> String {
        match self {
            Self::Said { status, .. } => {
                let details = status.get_error_details();
                let reason =
                    details.error_info().map(|info| info.reason.clone()).filter(|why| !why.is_empty());
                let code = Code::from_number(status.code() as i32).name();
                format!("{}: {}", reason.unwrap_or_else(|| code.to_owned()), status.message())
            }
            Self::TimedOut { after, .. } => format!("no answer within {}", duration(*after)),
            Self::ConnectionLost { problem, .. } => format!("the connection was lost: {problem}"),
            other => other.to_string(),
        }
    }

    /// True if the server says that what was asked for is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Said { status, .. } if status.code() == tonic::Code::NotFound)
    }

    /// True if it is not known whether the server acted on the request.
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::ConnectionLost { .. } => true,
            Self::Said { status, .. } => match status.code() {
                tonic::Code::Unavailable
                | tonic::Code::DeadlineExceeded
                | tonic::Code::Unknown
                | tonic::Code::Internal
                | tonic::Code::Cancelled
                | tonic::Code::DataLoss => true,
                tonic::Code::Ok
                | tonic::Code::InvalidArgument
                | tonic::Code::NotFound
                | tonic::Code::AlreadyExists
                | tonic::Code::PermissionDenied
                | tonic::Code::ResourceExhausted
                | tonic::Code::FailedPrecondition
                | tonic::Code::Aborted
                | tonic::Code::OutOfRange
                | tonic::Code::Unimplemented
                | tonic::Code::Unauthenticated => false,
            },
            Self::Unreadable { .. }
            | Self::Faults { .. }
            | Self::BadServer { .. }
            | Self::Unreachable { .. }
            | Self::NoParticipant { .. }
            | Self::Unfit(_)
            | Self::Mapping(_)
            | Self::Output(_) => false,
        }
    }

    /// The same error, with the text that was sent: violations then show their lines.
    pub(crate) fn about(self, source: Source) -> Self {
        match self {
            Self::Said { status, source_text: _ } => {
                Self::Said { status, source_text: Some(Box::new(source)) }
            }
            other => other,
        }
    }

    /// The error as the user reads it.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Faults { text, faults } => {
                for fault in faults {
                    let _ = writeln!(out, "{}:{}", safe(text), safe(&fault.to_string()));
                }
                writeln!(
                    out,
                    "{}",
                    headline(paint, &format!("{} has {}", safe(text), counted(faults.len(), "fault")))
                )
            }
            Self::Unreadable { path, problem } => {
                writeln!(
                    out,
                    "{}",
                    headline(paint, &format!("{} cannot be read: {}", safe(path), safe(problem)))
                )
            }
            Self::BadServer { server, problem } => {
                writeln!(
                    out,
                    "{}",
                    headline(
                        paint,
                        &format!("{} is no address of a server: {}", safe(server), safe(problem))
                    )
                )
            }
            Self::Unreachable { server, problem } => {
                let first = format!("no Backstop server answers at {}: {}", safe(server), safe(problem));
                writeln!(
                    out,
                    "{}\n  start one with `backstop serve` or `backstop demo`, or name another by --server URL or BACKSTOP_SERVER",
                    headline(paint, &first)
                )
            }
            Self::NoParticipant { address, problem } => {
                let text = format!("no participant answers at {}: {}", safe(address), safe(problem));
                writeln!(out, "{}", headline(paint, &text))
            }
            Self::Unfit(problem) => writeln!(out, "{}", headline(paint, &safe(problem))),
            Self::TimedOut { server, after } => {
                let first = format!("{} did not answer within {}", safe(server), duration(*after));
                writeln!(
                    out,
                    "{}\n  it may have acted on the request all the same; --timeout waits longer",
                    headline(paint, &first)
                )
            }
            Self::ConnectionLost { server, problem } => {
                let first = format!("the connection to {} was lost: {}", safe(server), safe(problem));
                writeln!(out, "{}\n  it may have acted on the request all the same", headline(paint, &first))
            }
            Self::Said { status, source_text } => {
                out.push_str(&said(status, source_text.as_deref(), paint));
                Ok(())
            }
            Self::Mapping(problem) => writeln!(
                out,
                "{}\n  the server may be of another version than this program",
                headline(paint, &safe(problem))
            ),
            Self::Output(error) => {
                writeln!(out, "{}", headline(paint, &format!("the result cannot be written: {error}")))
            }
        };
        out
    }
}

fn headline(paint: Paint, text: &str) -> String {
    format!("{} {text}", paint.apply(Style::Bad, "error:"))
}

fn said(status: &tonic::Status, source: Option<&Source>, paint: Paint) -> String {
    let details = status.get_error_details();
    let mut out = String::new();
    let message = if status.message().is_empty() { "the server refused" } else { status.message() };
    let mut elsewhere = Vec::new();
    let mut placed: usize = 0;
    for violation in details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default() {
        let text = format!("{}: {}", violation.field, violation.description);
        match source.and_then(|source| Some((source, source.place(&violation.field)?))) {
            Some((source, at)) => {
                placed += 1;
                let _ = writeln!(out, "{}:{}:{}  {}", safe(&source.name), at.line, at.column, safe(&text));
            }
            None => elsewhere.push(text),
        }
    }
    let preconditions =
        details.precondition_failure().map(|all| all.violations.as_slice()).unwrap_or_default();
    elsewhere
        .extend(preconditions.iter().map(|broken| format!("{}: {}", broken.subject, broken.description)));
    // A message that only repeats what is shown with its place would be said twice.
    let first = match source {
        Some(source) if placed > 0 && elsewhere.is_empty() => {
            format!("{} has {}", safe(&source.name), counted(placed, "fault"))
        }
        Some(_) | None => safe(message),
    };
    let _ = writeln!(out, "{}", headline(paint, &first));
    for text in elsewhere.iter().filter(|text| !message.contains(text.as_str())) {
        let _ = writeln!(out, "  {}", safe(text));
    }
    let code = Code::from_number(status.code() as i32).name();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {}{}", paint.apply(Style::Dim, &format!("{label:<8}")), safe(value));
        }
    };
    let info = details.error_info();
    let reason = info.map(|info| info.reason.as_str()).unwrap_or_default();
    line("code", if reason == code { code.to_owned() } else { format!("{code} {reason}") }.trim_end());
    let metadata =
        |key: &str| info.and_then(|info| info.metadata.get(key)).map(String::as_str).unwrap_or_default();
    let tier = match metadata("tier") {
        "" => String::new(),
        tier => format!(", tier {tier}"),
    };
    line(
        "fin",
        &match metadata("fin_code") {
            "" => String::new(),
            code => format!("{code}{tier}"),
        },
    );
    line("saga", metadata("saga_id"));
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        line("retry", &format!("in {}", duration(delay)));
    }
    line("trace", metadata("trace_id"));
    out
}

/// The innermost source of an error: what the operating system said.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
