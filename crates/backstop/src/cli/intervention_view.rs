//! The queue of interventions as people read it, and as programs do.
//!
//! Invariants: a saga's id is quoted where it stands in a command to be copied, since a client chose it; on a
//! terminal only the last column is cut, and where that is not enough the two long ones stand below
//! (`what_does_not_fit_on_the_line_stands_below`).

use super::intervention::{Found, HEADS_MAX};
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

/// Least width of the last column.
const WHY_MIN: usize = 32;
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
    let rows: Vec<Row> = found
        .sagas
        .iter()
        .flat_map(|saga| {
            let waits = waiting(saga);
            let of_branches: Vec<_> = waits.iter().map(|waits| row(saga, Some(waits), now)).collect();
            if of_branches.is_empty() { vec![row(saga, None, now)] } else { of_branches }
        })
        .collect();
    let shown = match width.map(|width| (width, room_for_why(&rows, width))) {
        Some((width, room)) if room < WHY_MIN => on_two_lines(rows, width, paint),
        Some((_, room)) => on_one_line(rows, room, paint),
        None => on_one_line(rows, WHY_MAX, paint),
    };
    shown + &footer(found, now, paint)
}

const HEADINGS: [&str; 9] =
    ["AGE", "DEFINITION", "SAGA", "STEP", "PARTICIPANT", "FIN CODE", "TIER", "EXPOSED", "WHY"];
/// Columns before those two that may be long.
const SHORT_COLUMNS: usize = 7;

/// What is told of one branch that waits, or of a saga in quarantine.
struct Row {
    cells: [Cell; SHORT_COLUMNS],
    exposed: String,
    why: String,
}

/// What a line leaves for the last column.
fn room_for_why(rows: &[Row], width: usize) -> usize {
    let widest = |heading: &str, widths: &mut dyn Iterator<Item = usize>| {
        widths.max().unwrap_or(0).max(heading.len()) + 2
    };
    let short: usize = (0..SHORT_COLUMNS)
        .map(|column| widest(HEADINGS[column], &mut rows.iter().map(|row| row.cells[column].width())))
        .sum();
    let exposed = widest("EXPOSED", &mut rows.iter().map(|row| row.exposed.chars().count()));
    width.saturating_sub(short + exposed)
}

fn on_one_line(rows: Vec<Row>, room: usize, paint: Paint) -> String {
    let rows = rows.into_iter().map(|Row { cells: [a, b, c, d, e, f, g], exposed, why }| {
        [a, b, c, d, e, f, g, Cell::styled(exposed, Style::Warn), Cell::from(cut(&why, room))]
    });
    table(HEADINGS, rows.collect(), paint)
}

/// Where a line is too short for all of it, what is exposed and why stand below.
fn on_two_lines(rows: Vec<Row>, width: usize, paint: Paint) -> String {
    let mut below = Vec::with_capacity(rows.len());
    let mut cells = Vec::with_capacity(rows.len());
    for row in rows {
        let exposed = cut(&format!("     exposed {}", row.exposed), width);
        let why = cut(&format!("     {}", row.why), width);
        below.push(format!("{}\n{why}\n", paint.apply(Style::Warn, &exposed)));
        cells.push(row.cells);
    }
    let [a, b, c, d, e, f, g, ..] = HEADINGS;
    let table = table([a, b, c, d, e, f, g], cells, paint);
    let (headings, lines) = table.split_once('\n').unwrap_or((&table, ""));
    let lines = lines.lines().zip(below).map(|(line, below)| format!("{line}\n{below}"));
    format!("{headings}\n{}", lines.collect::<String>())
}

fn row(saga: &Saga, waits: Option<&Waiting<'_>>, now: Now) -> Row {
    let exposed = match exposed(saga).join(" ") {
        _ if !saga.quarantine.is_empty() => "unknown".to_owned(),
        none if none.is_empty() => "nothing".to_owned(),
        some => some,
    };
    let (step, participant, fin_code) = waits
        .map_or(("", "", ""), |waits| (waits.branch.step.as_str(), waits.participant(), waits.fin_code()));
    let tier = waits.and_then(|waits| waits.failure).map_or(Tier::Unspecified, Failure::tier);
    let why = match waits {
        Some(waits) => why(waits),
        None if saga.quarantine.is_empty() => String::new(),
        None => format!("quarantined: {}", saga.quarantine),
    };
    let cells = [
        Cell::from(age(now.age(saga))),
        Cell::from(format!("{}@{}", saga.definition, saga.revision)),
        Cell::from(saga.id.as_str()),
        Cell::from(step),
        Cell::from(participant),
        Cell::from(fin_code),
        Cell::styled(short(tier.as_str_name(), "TIER_"), tier_style(tier)),
    ];
    Row { cells, exposed: safe(&exposed), why: safe(&why) }
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
    if found.is_list_cut {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\nmore than {HEADS_MAX} wait; only the newest {HEADS_MAX} of them were looked through: --definition narrows them"
        );
    }
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
                "participant": waits.participant(),
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
