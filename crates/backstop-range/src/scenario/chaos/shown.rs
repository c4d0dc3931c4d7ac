//! What a chaos shows of itself: figures, tables, and the picture's data.

use super::{Chaos, Seen};
use crate::call::{Outcome, Phase};
use crate::faults::{Class, Kind as FaultKind};
use crate::moment::{Moment, shown};
use crate::oracle::ledgers::{self, Case, Mark, Marks, Node};
use crate::payment::{STEPS, ledger_name};
use crate::report::Report;
use crate::report::sheet::{Bar, Cell, Lane, Second, Table, Tile, Timeline, grouped};
use crate::standstill::{self, Standstill};
use anyhow::Result;
use backstop_proto::v1::{BranchState, SagaState};
use std::collections::BTreeMap;

/// A saga stands still for the picture from this on, in microseconds.
const STILL_US: i64 = 1_000_000;
/// Microseconds in a second.
const SECOND_US: i64 = 1_000_000;

/// Fills figures and sheet.
pub(super) fn fill(report: &mut Report, seen: &Seen, chaos: &Chaos) -> Result<()> {
    let marks = Marks::of(&seen.nodes);
    figures(report, seen);
    let standing = standstill::at_least(STILL_US, &seen.journals, &seen.calls);
    let length = chaos.length().as_secs();
    let sheet = report.sheet();
    sheet.subtitle = format!(
        "{} coordinators and {} ledgers as processes of their own, one Postgres; {} payments a second for {}, \
         open loop; seed {}.",
        chaos.coordinators,
        chaos.ledgers,
        chaos.rate,
        if length.is_multiple_of(60) { format!("{} min", length / 60) } else { format!("{length} s") },
        chaos.seed,
    );
    sheet.tiles = tiles(seen);
    sheet.tables = vec![
        faults(seen),
        sagas(seen),
        books(seen),
        flows(seen, &marks),
        interventions(seen, &marks),
        executions(seen),
    ];
    sheet.timeline = timeline(seen, &standing);
    sheet.plan = seen.plan.text()?;
    Ok(())
}

fn count(seen: &Seen, state: SagaState) -> usize {
    seen.sagas.iter().filter(|saga| saga.state() == state).count()
}

fn figures(report: &mut Report, seen: &Seen) {
    report.figure("never answered", seen.outcome.failed().count());
    let requests: u32 = seen.outcome.started.iter().map(|started| started.tries).sum();
    report.figure("start requests", requests);
    report.latency("start latency", &seen.outcome.latency());
    report.duration("quiet after the last fault", seen.settled - seen.healed);
    report.figure("tried again by hand, at living ledgers", seen.retried.count);
    if !seen.retried.first.is_empty() {
        report.figure("the first of them", seen.retried.first.clone());
    }
    report.figure("lines that a kill tore", seen.unread);
}

fn tiles(seen: &Seen) -> Vec<Tile> {
    let tile = |label: &str, value: usize, note: &str| Tile {
        label: label.to_owned(),
        value: grouped(i64::try_from(value).unwrap_or(i64::MAX)),
        note: note.to_owned(),
    };
    let exposed: i64 = open(seen).flat_map(|case| case.exposed().into_values()).sum();
    vec![
        tile("faults", seen.faults.len(), "on processes, wires, disks, Postgres"),
        tile("sagas accepted", seen.outcome.accepted().count(), "each answered, none lost"),
        tile("succeeded", count(seen, SagaState::Succeeded), "all four branches in the books"),
        tile("rolled back", count(seen, SagaState::RolledBack), "nothing in the books"),
        tile("interventions", open(seen).count(), &format!("{} exposed", grouped(exposed))),
        tile("calls to ledgers", seen.calls.len(), "each key executed once at most"),
    ]
}

fn open(seen: &Seen) -> impl Iterator<Item = &Case> {
    seen.cases.values().filter(|case| case.is_open())
}

fn faults(seen: &Seen) -> Table {
    let note = "How often each was inflicted, by what it hit, and for how long in all.";
    let columns = ["fault", "coordinators", "ledgers", "Postgres", "in all", "time"];
    let mut table = Table::new("Faults injected", note, &columns);
    for kind in FaultKind::ALL {
        let of_kind = || seen.faults.iter().filter(move |fault| fault.kind == kind);
        let hit = |class| of_kind().filter(|fault| seen.targets.class(&fault.target) == Some(class)).count();
        if of_kind().count() == 0 {
            continue;
        }
        let time: i64 = of_kind().map(|fault| fault.until.min(seen.settled) - fault.from).sum();
        let (a, b, c) = (hit(Class::Coordinator), hit(Class::Ledger), hit(Class::Postgres));
        let title = kind.title().into();
        table.row([title, a.into(), b.into(), c.into(), of_kind().count().into(), Cell::from(shown(time))]);
    }
    table
}

fn sagas(seen: &Seen) -> Table {
    let mut table = Table::new("Sagas", "Where every accepted saga stands.", &["", "sagas"]);
    let open = count(seen, SagaState::Running) + count(seen, SagaState::RollingBack);
    for (name, number) in [
        ("accepted", seen.outcome.accepted().count()),
        ("succeeded", count(seen, SagaState::Succeeded)),
        ("rolled back", count(seen, SagaState::RolledBack)),
        ("left to a person (NEEDS_INTERVENTION)", count(seen, SagaState::NeedsIntervention)),
        ("still under way", open),
        ("taken over by another coordinator", seen.sagas.iter().filter(|saga| saga.epoch > 1).count()),
    ] {
        table.row([name.into(), number.into()]);
    }
    table
}

fn books(seen: &Seen) -> Table {
    let note = "Read while every coordinator was stopped; a dead ledger's from its file, as it lay. Minor units of \
                one currency. What is on accounts and what is net sent add up to the opening on each ledger. \
                Exposed: what the interventions may have left there, by their inputs.";
    let columns =
        ["ledger", "fate", "opening", "balances", "pending", "net sent", "exposed", "calls", "executions"];
    let mut table = Table::new("Books", note, &columns);
    let mut exposed: BTreeMap<usize, i64> = BTreeMap::new();
    for (ledger, money) in open(seen).flat_map(Case::exposed) {
        *exposed.entry(ledger).or_default() += money;
    }
    let mut sums = [0_i64; 7];
    for (number, node) in seen.nodes.iter().enumerate() {
        let calls = seen.calls.iter().filter(|call| call.participant == node.name).count();
        let numbers = [
            ledgers::opening(node),
            node.books.accounts.iter().map(|account| account.balance).sum(),
            node.books.accounts.iter().map(|account| account.pending).sum(),
            node.books.nostros.iter().map(|nostro| nostro.sent - nostro.received).sum(),
            exposed.get(&number).copied().unwrap_or_default(),
            i64::try_from(calls).unwrap_or(i64::MAX),
            node.books.executions.iter().map(|execution| execution.count).sum(),
        ];
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number;
        }
        let words = [Cell::from(node.name.clone()), Cell::from(fate(seen, node))];
        table.row(words.into_iter().chain(numbers.map(Cell::from)));
    }
    table.row(["all".into(), "".into()].into_iter().chain(sums.map(Cell::from)));
    table
}

fn fate(seen: &Seen, node: &Node) -> String {
    let own = || seen.faults.iter().filter(|fault| fault.target == node.name);
    match own().find(|fault| fault.kind == FaultKind::Dead) {
        Some(dead) => format!("dead since {}", shown(dead.from - seen.begin)),
        None => format!("alive after {} faults", own().count()),
    }
}

fn flows(seen: &Seen, marks: &Marks<'_>) -> Table {
    let note =
        "Open: sent by one and not received by the other. Explained: what the interventions account for.";
    let columns = ["from", "to", "sent", "received", "open", "explained"];
    let mut table = Table::new("Flow between ledgers", note, &columns);
    let explained = ledgers::explained(&seen.cases, marks);
    let nostro = |node: &Node, peer: &Node, of: fn(&crate::wire::Nostro) -> i64| {
        node.books.nostros.iter().find(|nostro| nostro.peer == peer.name).map_or(0, of)
    };
    for from in &seen.nodes {
        for to in seen.nodes.iter().filter(|to| to.name != from.name) {
            let key = (from.name.clone(), to.name.clone());
            let explained = explained.flows.get(&key).copied().unwrap_or_default();
            let (sent, received) =
                (nostro(from, to, |nostro| nostro.sent), nostro(to, from, |nostro| nostro.received));
            let numbers = [sent, received, sent - received, explained].map(Cell::from);
            table.row([Cell::from(key.0), key.1.into()].into_iter().chain(numbers));
        }
    }
    table
}

fn interventions(seen: &Seen, marks: &Marks<'_>) -> Table {
    let note = "Each names the ledger that is dead, what is stuck there, and the money exposed by its input. In the \
                books: the branches that do stand there, so what an operator will find.";
    let columns = ["saga", "stuck", "at", "exposed", "in the books"];
    let mut table = Table::new("Interventions", note, &columns);
    for case in open(seen) {
        let stuck = || case.branches.iter().filter(|branch| branch.state() == BranchState::Stuck);
        let mut at: Vec<&str> = stuck().map(|branch| branch.participant.as_str()).collect();
        at.dedup();
        let steps: Vec<&str> = stuck().map(|branch| branch.step.as_str()).collect();
        let exposed: Vec<String> = case
            .exposed()
            .into_iter()
            .map(|(ledger, money)| format!("{} at {}", grouped(money), ledger_name(ledger)))
            .collect();
        let standing: Vec<&str> =
            STEPS.into_iter().filter(|step| marks.mark(&case.payment, step) != Mark::None).collect();
        let standing = if standing.is_empty() { "nothing".to_owned() } else { standing.join(", ") };
        let cells = [steps.join(", "), at.join(", "), exposed.join(", "), standing];
        let saga = Cell::from(case.payment.saga.clone());
        table.row([saga].into_iter().chain(cells.map(Cell::from)));
    }
    table
}

fn executions(seen: &Seen) -> Table {
    let note = "What reached the ledgers, and what became of it there. A key that comes again gets the answer that \
                it got the first time.";
    let mut table = Table::new("Calls and executions", note, &["", "calls"]);
    let calls =
        |fits: &dyn Fn(&crate::call::Call) -> bool| seen.calls.iter().filter(|call| fits(call)).count();
    let executions = || seen.nodes.iter().flat_map(|node| &node.books.executions);
    for (name, number) in [
        ("calls that arrived", seen.calls.len()),
        ("of them compensations", calls(&|call| call.phase == Phase::Compensation)),
        ("answered from the barrier: the key had come before", calls(&|call| call.is_duplicate)),
        ("refused by the business", calls(&|call| call.outcome == Outcome::Refused)),
        (
            "answered UNAVAILABLE (a full disk, a busy ledger)",
            calls(&|call| call.outcome == Outcome::Unavailable),
        ),
        ("given up by the caller or cut off", calls(&|call| call.outcome == Outcome::Abandoned)),
        ("died with their ledger", calls(&|call| call.outcome == Outcome::Died)),
        ("keys whose work was committed", executions().count()),
        ("keys whose work was committed more than once", executions().filter(|one| one.count != 1).count()),
    ] {
        table.row([name.into(), number.into()]);
    }
    table
}

#[allow(clippy::cast_precision_loss)] // places in a picture
fn seconds(from: Moment, to: Moment) -> f64 {
    (to - from) as f64 / SECOND_US as f64
}

fn timeline(seen: &Seen, standing: &[Standstill]) -> Timeline {
    let lanes = seen.targets.all().into_iter().map(|name| {
        let own = seen.faults.iter().filter(|fault| fault.target == name);
        let bars = own.map(|fault| Bar {
            kind: fault.kind.title().to_owned(),
            from_s: seconds(seen.begin, fault.from),
            until_s: seconds(seen.begin, fault.until.min(seen.settled)),
        });
        Lane { bars: bars.collect(), name }
    });
    let length = usize::try_from((seen.settled - seen.begin) / SECOND_US + 1).unwrap_or_default();
    let mut each = vec![Second::default(); length];
    for event in seen.journals.values().flatten() {
        let place = usize::try_from((event.at - seen.begin) / SECOND_US).ok();
        let Some(second) = place.and_then(|place| each.get_mut(place)) else { continue };
        match event.kind.as_str() {
            "started" => second.accepted += 1,
            "succeeded" => second.succeeded += 1,
            "rolled_back" => second.rolled_back += 1,
            "intervention_opened" => second.interventions += 1,
            _ => {}
        }
    }
    for (number, second) in (1..).zip(&mut each) {
        let end = seen.begin + number * SECOND_US;
        let stands = |one: &&Standstill| one.span.from + STILL_US <= end && end <= one.span.until;
        second.standing_still = u32::try_from(standing.iter().filter(stands).count()).unwrap_or(u32::MAX);
    }
    Timeline {
        length_s: seconds(seen.begin, seen.settled),
        load_until_s: seconds(seen.begin, seen.load_ended),
        lanes: lanes.collect(),
        seconds: each,
    }
}
