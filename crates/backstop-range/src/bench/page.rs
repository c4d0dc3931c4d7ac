//! The results as one page that needs nothing else: no script, no font, no other file.
//!
//! # Invariants
//! * Whatever came from a run is escaped.
//! * The pictures show what the tables tell, nothing more.

use super::plot::{Lines, Scale, Series, lines, stacked};
use super::result::{Cell, Open, Quantiles, Results, Row};
use super::table::{self, Grid};
use crate::report::escape;
use std::fmt::Write;

const STYLE: &str = include_str!("../report/page.css");
const OWN_STYLE: &str = include_str!("page.css");

/// The page. Writing to a String cannot fail, so results of `write!` are dropped here.
#[must_use]
pub(super) fn page(results: &Results) -> String {
    let mut body = String::new();
    for kind in kinds(results) {
        let rows: Vec<&Row> = results
            .middle()
            .into_iter()
            .map(|rounds| rounds.row)
            .filter(|row| row.cell.is_like(&kind))
            .collect();
        let _ = write!(body, "<section><h2>{}</h2>", escape(&kind.title()));
        body.push_str(&rates(results, &rows));
        body.push_str(&times(&rows));
        body.push_str(&processors(&rows));
        body.push_str("</section>");
    }
    for open in &results.open {
        let _ = write!(
            body,
            "<section><h2>Open loop: {} at {:.0} sagas/s, {}</h2>{}</section>",
            escape(&open.system),
            open.rate,
            escape(&open.cell.title()),
            curves(open)
        );
    }
    for grid in table::all(results).iter().filter(|grid| !grid.rows.is_empty()) {
        html_table(&mut body, grid);
    }
    let mut facts = String::new();
    for line in &results.machine {
        let _ = write!(facts, "<li>{}</li>", escape(line));
    }
    for (system, settings) in &results.settings {
        let _ = write!(facts, "<li>{}: {}</li>", escape(system), escape(&settings.join("; ")));
    }
    document(
        "Benchmark",
        "Load, participants, coordinator and database share this machine. What time tells depends on it and on what \
         else it did meanwhile; what is compared comes from one run.",
        &format!("{body}<section><h2>What it ran on</h2><ul>{facts}</ul></section>"),
    )
}

/// A page with this in it.
pub(super) fn document(title: &str, note: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>backstop-range: {title}</title><style>{STYLE}{OWN_STYLE}</style></head><body><main>\
         <h1>backstop-range: {title}</h1><p class=\"soft\">{}</p>{body}</main></body></html>",
        escape(note),
        title = escape(title)
    )
}

/// Every kind of saga that was run, in the order in which they were.
fn kinds(results: &Results) -> Vec<Cell> {
    let mut kinds: Vec<Cell> = Vec::new();
    for row in &results.rows {
        if !kinds.iter().any(|kind| kind.is_like(&row.cell)) {
            kinds.push(row.cell);
        }
    }
    kinds
}

/// Numbers in flight, each with its place on the axis: one after the other.
fn places(rows: &[&Row]) -> Vec<(f64, String)> {
    let mut in_flight: Vec<usize> = rows.iter().map(|row| row.cell.in_flight).collect();
    in_flight.sort_unstable();
    in_flight.dedup();
    in_flight.iter().enumerate().map(|(place, count)| (super::number(place), count.to_string())).collect()
}

fn place(marks: &[(f64, String)], in_flight: usize) -> f64 {
    let text = in_flight.to_string();
    marks.iter().find(|(_, mark)| *mark == text).map_or(0.0, |(place, _)| *place)
}

fn systems(rows: &[&Row]) -> Vec<String> {
    let mut systems: Vec<String> = Vec::new();
    for row in rows {
        if !systems.contains(&row.system) {
            systems.push(row.system.clone());
        }
    }
    systems
}

fn rates(results: &Results, rows: &[&Row]) -> String {
    let marks = places(rows);
    let mut series: Vec<Series> = Vec::new();
    for system in systems(rows) {
        let of = rows.iter().filter(|row| row.system == system);
        let points = of.map(|row| (place(&marks, row.cell.in_flight), row.rate)).collect();
        series.push(Series { name: system, points, is_dashed: false });
    }
    let ours = rows.iter().filter(|row| row.system == super::OURS);
    let points: Vec<_> =
        ours.filter_map(|row| Some((place(&marks, row.cell.in_flight), results.floor(row)?.rate))).collect();
    if !points.is_empty() {
        series.push(Series { name: "the floor".to_owned(), points, is_dashed: true });
    }
    lines(&Lines {
        title: "Sagas a second".to_owned(),
        marks,
        axis: "sagas in flight",
        scale: Scale::Even,
        series,
    })
}

/// One curve of times for each number in flight: Backstop's.
fn times(rows: &[&Row]) -> String {
    let of = |row: &&&Row| row.system == super::OURS;
    let series =
        rows.iter().filter(of).map(|row| curve(format!("{} in flight", row.cell.in_flight), &row.latency));
    by_nines(format!("{}: time of a saga, in milliseconds", super::OURS), series.collect())
}

fn curves(open: &Open) -> String {
    let mut series = vec![curve("time from due to end".to_owned(), &open.latency)];
    if let Some(overhead) = &open.overhead {
        series.push(curve("overhead".to_owned(), overhead));
    }
    let mut beside = [
        curve("the load's own lateness".to_owned(), &open.lateness),
        curve("a flush of the disk".to_owned(), &open.flush),
    ];
    beside.iter_mut().for_each(|series| series.is_dashed = true);
    series.extend(beside);
    by_nines("Milliseconds".to_owned(), series)
}

/// A distribution by its nines: 0 at the least, 1 at 90 %, 2 at 99 %.
fn curve(name: String, quantiles: &Quantiles) -> Series {
    let points =
        quantiles.curve.iter().map(|(share, micros)| (-(1.0 - share).log10(), super::number(*micros) / 1e3));
    Series { name, points: points.collect(), is_dashed: false }
}

fn by_nines(title: String, series: Vec<Series>) -> String {
    let farthest =
        series.iter().filter_map(|series| series.points.last()).map(|(x, _)| *x).fold(1.0, f64::max);
    let marks = ["least", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];
    let marks = marks.into_iter().enumerate().map(|(nines, mark)| (super::number(nines), mark.to_owned()));
    lines(&Lines {
        title,
        marks: marks.filter(|(nines, _)| *nines <= farthest).collect(),
        axis: "share of sagas that took no longer",
        scale: Scale::Powers,
        series,
    })
}

fn processors(rows: &[&Row]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.usage.processor_us) {
        if !parts.contains(name) {
            parts.push(name.clone());
        }
    }
    let bar = |row: &&Row| {
        let of = |part: &String| {
            row.usage.processor_us.iter().find(|(name, _)| name == part).map_or(0.0, |(_, spent)| spent / 1e3)
        };
        (format!("{} × {}", row.system, row.cell.in_flight), parts.iter().map(of).collect())
    };
    let bars: Vec<(String, Vec<f64>)> = rows.iter().map(bar).collect();
    stacked("Processor seconds for 1,000 sagas", "system × sagas in flight", &parts, &bars)
}

pub(super) fn html_table(html: &mut String, grid: &Grid) {
    let _ = write!(
        html,
        "<section><h2>{}</h2><p class=\"note\">{}</p><table><tr>",
        escape(grid.title),
        escape(grid.note)
    );
    let class = |place: usize| if place < grid.words { "" } else { " class=\"n\"" };
    for (place, column) in grid.columns.iter().enumerate() {
        let _ = write!(html, "<th{}>{}</th>", class(place), escape(column));
    }
    html.push_str("</tr>");
    for row in &grid.rows {
        html.push_str("<tr>");
        for (place, cell) in row.iter().enumerate() {
            let _ = write!(html, "<td{}>{}</td>", class(place), escape(cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table></section>");
}
