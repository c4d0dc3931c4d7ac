//! The queue of interventions as people read it, and as programs do.
//!
//! Invariants: a saga's id is quoted where it stands in a command to be copied, since a client chose it; a row fits
//! on a terminal's line by cutting the last column alone.

use super::intervention::Found;
use super::operator::tier_style;
use super::out::{Paint, Style};
use super::text::{Cell, between, safe, shell_word, short, table, time};
use super::waiting::{Waiting, exposed, waiting};
use backstop_proto::v1::failure::Evidence;
use backstop_proto::v1::{Failure, Saga, Tier};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// The moment against which ages are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now(pub(super) prost_types::Timestamp);

impl Now {
    /// By the clock of whoever asks.
    pub(super) fn on_this_machine() -> Self {
        Self(std::time::SystemTime::now().into())
    }

    /// How long nothing has happened to the saga; zero if the server's clock is ahead.
    pub(super) fn age(self, saga: &Saga) -> Duration {
        between(saga.update_time.as_ref(), Some(&self.0)).unwrap_or_default()
    }
}

/// Least width of the last column, on however narrow a terminal.
const WHY_MIN: usize = 16;
/// Its width where the line has no end.
const WHY_MAX: usize = 72;

/// The queue as a table, and what to do next.
pub(super) fn queue(found: &Found, now: Now, width: Option<usize>, paint: Paint) -> String {
    if found.sagas.is_empty() {
        return match found.listed {
            0 => "nothing waits for a person".to_owned(),
            others => format!("nothing of that kind waits for a person; {others} of other kinds do"),
        };
    }
    let rows: Vec<(Vec<Cell>, String)> = found
        .sagas
        .iter()
        .flat_map(|saga| {
            let waits = waiting(saga);
            let of_branches: Vec<_> = waits.iter().map(|waits| row(saga, Some(waits), now)).collect();
            if of_branches.is_empty() { vec![row(saga, None, now)] } else { of_branches }
        })
        .collect();
    let room = width.map_or(WHY_MAX, |width| {
        let widest = |column: usize| {
            let cells = rows.iter().map(|(cells, _)| cells[column].width());
            cells.max().unwrap_or(0).max(HEADINGS[column].len()) + 2
        };
        width.saturating_sub((0..HEADINGS.len() - 1).map(widest).sum()).max(WHY_MIN)
    });
    let rows = rows.into_iter().filter_map(|(mut cells, why)| {
        cells.push(Cell::from(cut(&why, room)));
        <[Cell; HEADINGS.len()]>::try_from(cells).ok()
    });
    let table = table(HEADINGS, rows.collect(), paint);
    table + &footer(found, now, paint)
}

const HEADINGS: [&str; 9] =
    ["AGE", "DEFINITION", "SAGA", "STEP", "PARTICIPANT", "FIN CODE", "TIER", "EXPOSED", "WHY"];

/// All cells but the last, and the whole of what the last is cut from.
fn row(saga: &Saga, waits: Option<&Waiting<'_>>, now: Now) -> (Vec<Cell>, String) {
    let exposed = if saga.quarantine.is_empty() { exposed(saga).join(" ") } else { "unknown".to_owned() };
    let (step, participant, fin_code) = waits.map_or(("", "", ""), |waits| {
        (waits.branch.step.as_str(), waits.branch.participant.as_str(), waits.fin_code())
    });
    let tier = waits.and_then(|waits| waits.failure).map_or(Tier::Unspecified, Failure::tier);
    let why = match waits {
        Some(waits) => why(waits),
        None if saga.quarantine.is_empty() => String::new(),
        None => format!("quarantined: {}", saga.quarantine),
    };
    let cells = vec![
        Cell::from(age(now.age(saga))),
        Cell::from(format!("{}@{}", saga.definition, saga.revision)),
        Cell::from(saga.id.as_str()),
        Cell::from(step),
        Cell::from(participant),
        Cell::from(fin_code),
        Cell::styled(short(tier.as_str_name(), "TIER_"), tier_style(tier)),
        Cell::styled(exposed, Style::Warn),
    ];
    (cells, safe(&why))
}

/// As short as it can be said: the participant's own words, or what happened instead of an answer.
fn why(waits: &Waiting<'_>) -> String {
    match waits.failure {
        Some(failure) if failure.evidence() == Evidence::ParticipantSaid => {
            let words = if failure.message.is_empty() { "no reason given" } else { &failure.message };
            format!("{}: {words}", failure.grpc_code)
        }
        Some(_) => waits.why(),
        None => String::new(),
    }
}

/// What is told of the whole, and the commands for the one that has waited longest.
fn footer(found: &Found, now: Now, paint: Paint) -> String {
    let Some(first) = found.sagas.first() else { return String::new() };
    let mut out = String::new();
    let waited = age(now.age(first));
    let count = match (found.sagas.len(), found.is_cut) {
        (1, false) => "1 saga waits for a person".to_owned(),
        (shown, false) => format!("{shown} sagas wait for a person"),
        (shown, true) => {
            format!(
                "the {shown} that have waited longest; there are more: --limit shows them, filters narrow them"
            )
        }
    };
    let id = shell_word(&first.id);
    // Writing to a String cannot fail.
    let _ =
        writeln!(out, "\n{count}. The oldest has waited for {waited}; its story: backstop saga show {id}");
    let _ = writeln!(out, "{}", paint.apply(Style::Bold, "What to do about it:"));
    match waiting(first).first() {
        Some(waits) => {
            let step = safe(&waits.branch.step);
            let _ = writeln!(out, "  backstop branch retry {id} {step} --reason …");
            let _ = writeln!(
                out,
                "  backstop branch resolve {id} {step} --resolution {} --reason …",
                waits.resolutions()
            );
        }
        None => {
            let _ = writeln!(out, "  backstop doctor   (says where its journal breaks off)");
            let _ = writeln!(out, "  backstop saga release {id} --reason …   (once it is mended)");
        }
    }
    out
}

/// The queue as one JSON document.
pub(super) fn document(found: &Found, now: Now) -> Value {
    let interventions: Vec<Value> = found.sagas.iter().map(|saga| entry(saga, now)).collect();
    json!({ "interventions": interventions, "truncated": found.is_cut })
}

fn entry(saga: &Saga, now: Now) -> Value {
    let waits: Vec<Value> = waiting(saga)
        .iter()
        .map(|waits| {
            json!({
                "step": waits.branch.step,
                "participant": waits.branch.participant,
                "finCode": waits.fin_code(),
                "tier": waits.tier(),
                "grpcCode": waits.failure.map(|failure| failure.grpc_code.as_str()).unwrap_or_default(),
                "why": waits.why(),
                "resolutions": waits.resolutions().split('|').collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "sagaId": saga.id,
        "definition": saga.definition,
        "revision": saga.revision,
        "ageSeconds": now.age(saga).as_secs(),
        "since": time(saga.update_time.as_ref()),
        "waiting": waits,
        // Of one in quarantine it cannot be told.
        "exposed": saga.quarantine.is_empty().then(|| exposed(saga)),
        "quarantine": saga.quarantine,
        "traceId": saga.trace_id,
    })
}

/// `4m`, `2h 10m`, `3d 4h`: as a queue is looked at.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// At most so many characters, the last an ellipsis if it was longer.
pub(super) fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}
