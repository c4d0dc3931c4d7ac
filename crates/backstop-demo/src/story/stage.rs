//! What the acts share: the processes, the connections, and the list of what has happened so far.

use super::calls::{self, Coordinator};
use super::cast::Cast;
use super::files::{self, Account, Registration, Transfer};
use super::screen::{Ink, Screen, money};
use super::{DemoError, DemoOptions, proof};
use crate::bank::ledger as pb;
use backstop_proto::v1;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tonic::transport::Channel;

/// Every service of the bank.
pub(super) const SERVICES: &[&str] = &["ledger_a", "ledger_b", "risk", "audit"];
/// Those that keep accounts.
pub(crate) const LEDGERS: &[&str] = &["ledger_a", "ledger_b"];
/// The coordinator's name among the processes.
pub(super) const COORDINATOR: &str = "coordinator";

/// A transfer that was started, and how its saga stands by the coordinator's word.
pub(super) struct Ended {
    pub(super) transfer: Transfer,
    pub(super) state: v1::SagaState,
}

/// What the story is made of.
pub(super) struct Files {
    transfers: Vec<Transfer>,
    accounts: Vec<Account>,
    registrations: Vec<Registration>,
}

impl Files {
    /// Reads and checks them all.
    pub(super) fn read(options: &DemoOptions) -> Result<Self, DemoError> {
        let (name, text) = read(options.transfers.as_deref(), "transfers.csv", files::TRANSFERS_CSV)?;
        let transfers = files::transfers(&name, &text, SERVICES)?;
        let (name, text) = read(options.accounts.as_deref(), "accounts.csv", files::ACCOUNTS_CSV)?;
        let accounts = files::accounts(&name, &text, LEDGERS)?;
        let registrations = files::registrations("participants.json", files::PARTICIPANTS_JSON, SERVICES)?;
        Ok(Self { transfers, accounts, registrations })
    }
}

/// Everything that an act works with.
pub(super) struct Stage {
    pub(super) screen: Screen,
    pub(super) cast: Cast,
    pub(super) dir: PathBuf,
    pub(super) serve_args: Vec<OsString>,
    pub(super) definition: v1::Definition,
    pub(super) registrations: Vec<Registration>,
    pub(super) accounts: Vec<Account>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) ledgers: Vec<Channel>,
    pub(super) audit: Option<Channel>,
    /// Balances at the beginning, as the ledgers said.
    pub(super) before: Vec<pb::Account>,
    pub(super) ended: Vec<Ended>,
    /// Everything that did not hold so far, a sentence each.
    pub(super) faults: Vec<String>,
}

impl Stage {
    /// Nothing has started yet.
    pub(super) fn new(options: DemoOptions, files: Files, cast: Cast, dir: &Path) -> Self {
        let Files { transfers, accounts, registrations } = files;
        Self {
            screen: options.screen,
            cast,
            dir: dir.to_owned(),
            serve_args: options.serve_args,
            definition: options.definition,
            registrations,
            accounts,
            transfers,
            ledgers: Vec::new(),
            audit: None,
            before: Vec::new(),
            ended: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// A new connection to the coordinator.
    pub(super) fn coordinator(&self) -> Result<Coordinator, DemoError> {
        Coordinator::new(self.address(COORDINATOR)?, &self.definition.name)
    }

    pub(super) fn address(&self, name: &str) -> Result<SocketAddr, DemoError> {
        Ok(self.cast.actor(name)?.address)
    }

    /// Every account of every ledger, by account.
    pub(super) async fn balances(&self) -> Result<Vec<pb::Account>, DemoError> {
        let mut all = Vec::new();
        for ledger in &self.ledgers {
            all.extend(calls::balances(ledger).await?);
        }
        Ok(all)
    }

    /// Takes the balances and the audit lines again, and compares them with how the transfers ended.
    pub(super) async fn prove_all(&mut self, title: &str) -> Result<(), DemoError> {
        let after = self.balances().await?;
        let audited = match &self.audit {
            Some(audit) => calls::audited(audit).await?,
            None => Vec::new(),
        };
        let succeeded: Vec<&Transfer> = self
            .ended
            .iter()
            .filter(|ended| ended.state == v1::SagaState::Succeeded)
            .map(|ended| &ended.transfer)
            .collect();
        let mut proof = proof::money(&self.before, &after, &succeeded);
        proof.faults.extend(proof::audit(&audited, &succeeded));
        let succeeded = succeeded.len();
        self.screen.heading(title)?;
        self.show(&proof)?;
        let audit = format!("  audit lines: {}, one for each transfer that succeeded", audited.len());
        let audit =
            if audited.len() == succeeded { audit } else { format!("  audit lines: {}", audited.len()) };
        self.screen.line(&audit)?;
        for fault in &proof.faults {
            let line = self.screen.ink(Ink::Bad, &format!("  does not hold: {fault}"));
            self.screen.line(&line)?;
        }
        self.faults.append(&mut proof.faults);
        Ok(())
    }

    fn show(&mut self, proof: &proof::Proof) -> Result<(), DemoError> {
        let head =
            format!("  {:<26}{:>14}{:>14}{:>14}{:>11}", "account", "before", "transfers", "after", "pending");
        let head = self.screen.ink(Ink::Dim, &head);
        self.screen.line(&head)?;
        for line in &proof.lines {
            let show = |minor| money(minor, &line.currency);
            let text = format!(
                "  {:<26}{:>14}{:>14}{:>14}{:>11}",
                line.account,
                show(line.before_minor),
                signed(line.moved_minor, &line.currency),
                show(line.after_minor),
                show(line.pending_minor),
            );
            self.checked(&text, line.holds)?;
        }
        for sum in &proof.sums {
            let show = |minor| money(minor, &sum.currency);
            let name = format!("sum {}", sum.currency);
            let text = format!(
                "  {name:<26}{:>14}{:>14}{:>14}{:>11}",
                show(sum.before_minor),
                "",
                show(sum.after_minor),
                ""
            );
            self.checked(&text, sum.before_minor == sum.after_minor)?;
        }
        Ok(())
    }

    /// A line with its verdict at the end.
    fn checked(&mut self, text: &str, holds: bool) -> Result<(), DemoError> {
        let mark = if holds { self.screen.ink(Ink::Good, "ok") } else { self.screen.ink(Ink::Bad, "WRONG") };
        self.screen.line(&format!("{text}  {mark}"))?;
        Ok(())
    }

    /// The last word: everything held, or what did not.
    pub(super) fn verdict(&mut self) -> Result<(), DemoError> {
        if !self.faults.is_empty() {
            return Err(DemoError::DidNotHold(std::mem::take(&mut self.faults)));
        }
        let count = |state| self.ended.iter().filter(|ended| ended.state == state).count();
        let text = format!(
            "\nIt holds: {} transfers succeeded, {} were undone, and no cent is missing or was made up.",
            count(v1::SagaState::Succeeded),
            count(v1::SagaState::RolledBack),
        );
        let text = self.screen.ink(Ink::Good, &text);
        self.screen.line(&text)?;
        Ok(())
    }
}

/// `+1.00`, `-1.00`, or nothing for zero.
fn signed(minor: i64, currency: &str) -> String {
    match minor {
        0 => String::new(),
        1.. => format!("+{}", money(minor, currency)),
        _ => money(minor, currency),
    }
}

fn read(path: Option<&Path>, name: &str, built_in: &str) -> Result<(String, String), DemoError> {
    match path {
        None => Ok((name.to_owned(), built_in.to_owned())),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(super::at(path))?;
            Ok((path.display().to_string(), text))
        }
    }
}
