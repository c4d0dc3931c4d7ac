//! Before the first transfer: the processes start, everything is registered, accounts are opened.

use super::DemoError;
use super::calls;
use super::cast::Part;
use super::screen::{Ink, money};
use super::stage::{COORDINATOR, LEDGERS, SERVICES, Stage};
use crate::bank::ledger::OpenAccountRequest;
use crate::spec::{ServiceKind, ServiceSpec};
use backstop_proto::v1;
use std::net::{Ipv4Addr, SocketAddr};

/// Largest transfer that the risk service lets pass, in minor units.
const RISK_LIMIT_MINOR: i64 = 1_000_000;

pub(super) async fn play(stage: &mut Stage) -> Result<(), DemoError> {
    let title = stage.screen.ink(Ink::Bold, "Backstop demo");
    stage.screen.line(&title)?;
    stage.screen.line(
        "A bank of four services and a coordinator, each a process of its own on this machine. Money",
    )?;
    stage
        .screen
        .line("moves from accounts in ledger_a to accounts in ledger_b, and not every transfer goes well.")?;
    stage.screen.heading("The processes")?;
    for name in SERVICES {
        let part = Part::Service(service(stage, name));
        stage.cast.start(name, part).await?;
    }
    let store = stage.dir.join("backstop.db");
    let part = Part::Coordinator { store, more: stage.serve_args.clone() };
    stage.cast.start(COORDINATOR, part).await?;
    show_processes(stage)?;

    let coordinator = stage.coordinator()?;
    for registration in &stage.registrations {
        coordinator.register_participant(registration, stage.address(&registration.name)?).await?;
    }
    let revision = coordinator.register_definition(&stage.definition).await?;
    show_definition(stage, revision)?;

    for ledger in LEDGERS {
        let channel = calls::channel(stage.address(ledger)?)?;
        for account in stage.accounts.iter().filter(|account| account.ledger == *ledger) {
            let request = OpenAccountRequest {
                account: account.account.clone(),
                currency: account.currency.clone(),
                opening_minor: account.opening_minor,
            };
            calls::open_account(&channel, request).await?;
        }
        stage.ledgers.push(channel);
    }
    stage.audit = Some(calls::channel(stage.address("audit")?)?);
    stage.before = stage.balances().await?;
    Ok(())
}

fn service(stage: &Stage, name: &str) -> ServiceSpec {
    let db = stage.dir.join(format!("{name}.db"));
    let kind = match name {
        "risk" => ServiceKind::Risk { limit_minor: RISK_LIMIT_MINOR },
        "audit" => ServiceKind::Audit { db },
        // The ledgers. Chaos on: the transfers file asks for it.
        _ => ServiceKind::Ledger { db, accounts: None, chaos: true },
    };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ServiceSpec { kind, name: name.to_owned(), listen, any_address: false, stop_at_stdin_end: true }
}

fn show_processes(stage: &mut Stage) -> Result<(), DemoError> {
    let mut lines = Vec::new();
    for actor in stage.cast.actors() {
        let role = match actor.name.as_str() {
            "ledger_a" => "accounts that pay".to_owned(),
            "ledger_b" => "accounts that are paid".to_owned(),
            "risk" => format!("refuses transfers above {}", money(RISK_LIMIT_MINOR, "EUR")),
            "audit" => "a line for each finished transfer".to_owned(),
            _ => "backstop serve, store: SQLite".to_owned(),
        };
        let pid = actor.pid().map_or_else(String::new, |pid| format!("pid {pid}"));
        lines.push(format!("  {:<12} {:<16} {pid:<12} {role}", actor.name, actor.address.to_string()));
    }
    for line in lines {
        stage.screen.line(&line)?;
    }
    let files = stage.screen.ink(Ink::Dim, &format!("  files and logs: {}", stage.dir.display()));
    stage.screen.line(&files)?;
    Ok(())
}

fn show_definition(stage: &mut Stage, revision: u32) -> Result<(), DemoError> {
    stage.screen.heading(&format!("The definition: {}@{revision}", stage.definition.name))?;
    let lines: Vec<String> = stage.definition.steps.iter().map(step_line).collect();
    for line in lines {
        stage.screen.line(&line)?;
    }
    Ok(())
}

fn step_line(step: &v1::Step) -> String {
    let kind = match step.kind() {
        v1::StepKind::Unspecified | v1::StepKind::Compensatable => "COMPENSATABLE",
        v1::StepKind::ReadOnly => "READ_ONLY",
        v1::StepKind::Pivot => "PIVOT",
        v1::StepKind::Retriable => "RETRIABLE",
    };
    let verb = |call: &Option<v1::Call>| {
        let method = call.as_ref().map(|call| call.method.as_str()).unwrap_or_default();
        method.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let participant = step.action.as_ref().map(|call| call.participant.as_str()).unwrap_or_default();
    let mut line = format!("  {:<11} {kind:<14} {participant:<9} {:<13}", step.name, verb(&step.action));
    if !step.depends_on.is_empty() {
        line += &format!(" after {:<14}", step.depends_on.join(", "));
    }
    if step.compensation.is_some() {
        line += &format!(" undone by {}", verb(&step.compensation));
    }
    line.trim_end().to_owned()
}
