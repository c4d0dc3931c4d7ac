//! One service process, as a value and as the arguments that start it: [`ServiceSpec::to_args`] and
//! [`ServiceSpec::from_args`] are each other's inverse.
//!
//! # Not here
//! Help and usage: this is what the demo says to its own children, not a command for people.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Which service, and what only it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// Accounts in a SQLite file. `chaos`: a payer's reference may ask for trouble.
    Ledger {
        /// The file.
        db: PathBuf,
        /// Accounts to open at the start, as in `examples/transfer/accounts.csv`; those that are there stay as they are.
        accounts: Option<PathBuf>,
        /// See [`crate::ledger::Ledger::new`].
        chaos: bool,
    },
    /// The limit check.
    Risk {
        /// Largest transfer that passes, in minor units.
        limit_minor: i64,
    },
    /// Lines in a SQLite file.
    Audit {
        /// The file.
        db: PathBuf,
    },
}

/// One service process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Which service.
    pub kind: ServiceKind,
    /// Its name among participants: `ledger_a`.
    pub name: String,
    /// Where it listens; port 0 takes any free one. Loopback only, unless `any_address`.
    pub listen: SocketAddr,
    /// Listen where it is told to, loopback or not: for a network of containers, which nobody else is in. The
    /// services know no TLS and nobody's name.
    pub any_address: bool,
    /// End when standard input does, so that no service outlives the demo that holds the other end.
    pub stop_at_stdin_end: bool,
}

/// Why arguments are no [`ServiceSpec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The first argument names no service.
    #[error("the first argument must be ledger, risk or audit")]
    Kind,
    /// An option that this service does not have.
    #[error("{0:?} is no option of this service")]
    Unknown(String),
    /// An option without its value, or with one that cannot be.
    #[error("{option} needs {needs}")]
    Value {
        /// The option.
        option: &'static str,
        /// What it needs.
        needs: &'static str,
    },
}

impl ServiceSpec {
    /// The arguments that [`ServiceSpec::from_args`] reads.
    #[must_use]
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        match &self.kind {
            ServiceKind::Ledger { db, accounts, chaos } => {
                args.extend(["ledger".into(), "--db".into(), db.into()]);
                if let Some(file) = accounts {
                    args.extend(["--accounts".into(), file.into()]);
                }
                if *chaos {
                    args.push("--chaos".into());
                }
            }
            ServiceKind::Risk { limit_minor } => {
                args.extend(["risk".into(), "--limit-minor".into(), limit_minor.to_string().into()]);
            }
            ServiceKind::Audit { db } => args.extend(["audit".into(), "--db".into(), db.into()]),
        }
        args.extend(["--name".into(), self.name.clone().into()]);
        args.extend(["--listen".into(), self.listen.to_string().into()]);
        if self.any_address {
            args.push("--any-address".into());
        }
        if self.stop_at_stdin_end {
            args.push("--stop-at-stdin-end".into());
        }
        args
    }

    /// Reads what follows `demo-service` on the command line.
    ///
    /// # Errors
    /// [`SpecError`], which names the argument.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, SpecError> {
        let mut args = args.into_iter();
        let word = args.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
        let mut found = Found::default();
        while let Some(arg) = args.next() {
            let option = arg.to_string_lossy().into_owned();
            match (word.as_str(), option.as_str()) {
                ("ledger" | "audit", "--db") => found.db = args.next().map(PathBuf::from),
                ("ledger", "--accounts") => found.accounts = args.next().map(PathBuf::from),
                ("ledger", "--chaos") => found.chaos = true,
                ("risk", "--limit-minor") => {
                    found.limit_minor = text(args.next()).and_then(|t| t.parse().ok())
                }
                (_, "--name") => found.name = text(args.next()),
                (_, "--listen") => found.listen = text(args.next()).and_then(|t| t.parse().ok()),
                (_, "--any-address") => found.any_address = true,
                (_, "--stop-at-stdin-end") => found.stop_at_stdin_end = true,
                (_, _) => return Err(SpecError::Unknown(option)),
            }
        }
        let value = |option, needs| SpecError::Value { option, needs };
        let kind = match word.as_str() {
            "ledger" => ServiceKind::Ledger {
                db: found.db.ok_or(value("--db", "a file"))?,
                accounts: found.accounts,
                chaos: found.chaos,
            },
            "risk" => ServiceKind::Risk {
                limit_minor: found
                    .limit_minor
                    .filter(|limit| (1..=crate::wire::AMOUNT_MINOR_MAX).contains(limit))
                    .ok_or(value("--limit-minor", "a whole number from 1 to 10^15"))?,
            },
            "audit" => ServiceKind::Audit { db: found.db.ok_or(value("--db", "a file"))? },
            _ => return Err(SpecError::Kind),
        };
        let listen = found.listen.filter(|address| found.any_address || address.ip().is_loopback());
        Ok(Self {
            kind,
            name: found.name.filter(|name| !name.is_empty()).ok_or(value("--name", "a name"))?,
            listen: listen.ok_or(value("--listen", "a loopback address like 127.0.0.1:0"))?,
            any_address: found.any_address,
            stop_at_stdin_end: found.stop_at_stdin_end,
        })
    }
}

#[derive(Default)]
struct Found {
    db: Option<PathBuf>,
    accounts: Option<PathBuf>,
    chaos: bool,
    limit_minor: Option<i64>,
    name: Option<String>,
    listen: Option<SocketAddr>,
    any_address: bool,
    stop_at_stdin_end: bool,
}

fn text(arg: Option<OsString>) -> Option<String> {
    arg.and_then(|value| value.into_string().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(kind: ServiceKind) -> ServiceSpec {
        let listen = "127.0.0.1:0".parse().unwrap();
        ServiceSpec { kind, name: "it".into(), listen, any_address: false, stop_at_stdin_end: true }
    }

    #[test]
    fn arguments_and_specs_are_each_others_inverse() {
        let db = PathBuf::from("/tmp/a file.db");
        let kinds = [
            ServiceKind::Ledger { db: db.clone(), accounts: None, chaos: true },
            ServiceKind::Ledger { db: db.clone(), accounts: Some("a.csv".into()), chaos: false },
            ServiceKind::Risk { limit_minor: 42 },
            ServiceKind::Audit { db },
        ];
        for kind in kinds {
            let spec = spec(kind);
            assert_eq!(ServiceSpec::from_args(spec.to_args()), Ok(spec));
        }
    }

    #[test]
    fn an_option_of_another_service_and_a_public_address_that_nobody_asked_for_are_refused() {
        let read = |line: &str| ServiceSpec::from_args(line.split(' ').map(OsString::from));
        let unknown = |option: &str| Err(SpecError::Unknown(option.to_owned()));
        assert_eq!(read("risk --chaos"), unknown("--chaos"));
        assert_eq!(read("vault --name x"), Err(SpecError::Kind));
        let needs = read("audit --db f --name x --listen 0.0.0.0:0").unwrap_err().to_string();
        assert_eq!(needs, "--listen needs a loopback address like 127.0.0.1:0");
        let asked = read("audit --db f --name x --listen 0.0.0.0:0 --any-address").unwrap();
        assert_eq!(ServiceSpec::from_args(asked.to_args()), Ok(asked));
        assert!(read("risk --limit-minor 0 --name x --listen 127.0.0.1:0").is_err());
        assert!(read("ledger --db").is_err());
    }
}
